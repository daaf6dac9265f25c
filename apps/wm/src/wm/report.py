"""The table at the end of a run: every stage's numbers next to a baseline."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from wm.config import RunConfig
from wm.console import depth_name, shown, text_table
from wm.diagnostics import diagnostics_table, hints_by_round, read_diagnostics
from wm.measure.evaluation_report import print_scores
from wm.run import Manifest, StageRecord
from wm.stage import BY_GAME, Stage
from wm.stages import stages_of

Row = tuple[str, str, str]  # metric, value, baseline


def print_report(config: RunConfig, manifest: Manifest, console: Console, only: str | None = None) -> None:
    """Stage, metric, value, baseline; then the scores in the real game."""
    title = "What each stage reached (validation episodes)"
    table = text_table("stage", "metric", "value", "baseline", title=title)
    for stage in stages_of(config):
        name = stage.name
        record = manifest.stages.get(name)
        # The last round's stages, which have plain names, or only the one that is asked for.
        if name != (only or stage.base) or record is None or stage.base not in _STAGE_ROWS:
            continue
        for row in _rows(stage, record, config):
            table.add_row(name, *row)
        peak = shown(record.metrics.get("peak_memory_gib"), ".1f")
        took = f"{record.seconds:.0f} s, peak {peak} GiB on {record.device}"
        table.add_row("", "took", took, "", style="dim", end_section=True)
    if table.row_count:
        console.print(table)
    if config.rounds.count > 1 and only is None:
        _print_rounds(config, manifest, console)
    evaluated = manifest.stages.get("evaluate")
    if evaluated is not None and only in (None, "evaluate"):
        for game in config.games:
            if game in evaluated.metrics.get("games", {}):
                print_scores(game, evaluated.metrics, console)


def _rows(stage: Stage, record: StageRecord, config: RunConfig) -> Iterator[Row]:
    if stage.base in BY_GAME and record.unseen(config.games):
        # The games were changed, and not all stages have run since.
        yield "for games other than the run's", "run it again", ""
    elif stage.base == "collect" and stage.round:
        yield from _collect(config, record.metrics, by="the previous round's agent")
    else:
        yield from _STAGE_ROWS[stage.base](config, record.metrics)


def _print_rounds(config: RunConfig, manifest: Manifest, console: Console) -> None:
    """A line for each round, and what to do about it."""
    found = read_diagnostics(config, manifest)
    if found:
        console.print(diagnostics_table(config, found))
    for line in hints_by_round(found):
        console.print(line)


def _start(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    yield f"parts of {metrics['run']}", ", ".join(metrics["parts"]), "from scratch"


def _collect(config: RunConfig, metrics: dict[str, Any], by: str = "") -> Iterator[Row]:
    by = by or f"policy {config.collect.policy}"
    for game in config.games:
        m = metrics[game]
        whole = "no whole episode"
        if m["mean_return"] is not None:
            whole = f"{m['episodes']} whole episodes, mean return {shown(m['mean_return'], '.2f')}"
        yield f"{game}: play", f"{m['steps']} steps, {whole}", by


def _encoder(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    for game in config.games:
        trained, untrained = metrics[game]["trained"], metrics[game]["random encoder"]
        for key, name in (
            ("temporal_consistency", "temporal consistency (lower is smoother)"),
            ("diversity", "diversity (ideal 1.41)"),
        ):
            baseline = f"random encoder {shown(untrained[key], '.3f')}"
            yield f"{game}: {name}", shown(trained[key], ".3f"), baseline


def _hrvq(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    sizes = config.hrvq.codes_per_level
    most = "at most 100%" + ("; other games may use the rest" if len(config.games) > 1 else "")
    for game in config.games:
        m = metrics[game]
        used = ", ".join(shown(share, ".0%") for share in m["usage"])
        yield f"{game}: codes used by level", used, most
        yield (
            f"{game}: perplexity by level",
            _numbers(m["perplexity"], 0),
            f"at most {_numbers(sizes, 0)}",
        )
        yield (
            f"{game}: explained variance up to level",
            _numbers(m["explained_variance"], 3),
            "mean vector 0",
        )


def _decoder(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    """The errors of frames drawn from the first levels, and from the embedding itself."""
    levels = [depth_name(level) for level in range(config.hrvq.levels)]
    depths = " / ".join([*levels, "embedding"])
    kinds = (("rmse", "error (gray levels)"), ("foreground_rmse", "error off the background"))
    for game in config.games:
        m = metrics[game]
        for key, name in kinds:
            text = f"{_numbers(m[key], 1)} ({depths})"
            baseline = f"background alone {shown(m[f'background_{key}'], '.1f')}"
            yield f"{game}: {name}", text, baseline


def _worldmodel(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    """Accuracy next to copy-last's, and on changed tokens, where copying is always wrong."""
    for game in config.games:
        for level, m in enumerate(metrics["validation"][game]):
            where = f"{game}: L{level}"
            share = {key: shown(value, ".1%") for key, value in m.items() if key.endswith("accuracy")}
            nats = {key: shown(value, ".2f") for key, value in m.items() if key.endswith("cross_entropy")}
            copied = f"copy last {share['copy_accuracy']}, commonest code {share['unigram_accuracy']}"
            yield f"{where} accuracy", share["accuracy"], copied
            guessed = f"copy last 0.0%, commonest code {share['changed_unigram_accuracy']}"
            yield f"{where} accuracy on changed tokens", share["changed_accuracy"], guessed
            guessed = f"copy last {nats['copy_cross_entropy']}, unigram {nats['unigram_cross_entropy']}"
            yield f"{where} cross-entropy (nats)", nats["cross_entropy"], guessed
        if new := metrics.get("new_play", {}).get(game):
            found = _numbers([level["cross_entropy"] for level in new], 2)
            copied = f"copy last {_numbers([level['copy_cross_entropy'] for level in new], 2)}"
            yield f"{game}: new play, before training on it (nats, by level)", found, copied


def _agent(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    for part, where in (("predictors", ""), ("new_play", " in new play, before training on it")):
        m = metrics.get(part, {})
        for label in ("negative", "positive") if m else ():
            count = m[f"reward_count_{label}"]
            recall, precision = (
                shown(m[f"reward_{kind}_{label}"], ".0%") for kind in ("recall", "precision")
            )
            found = f"recall {recall}, precision {precision}" if count else "none occurred"
            yield f"{label} rewards{where}", found, f"of {shown(count, '.0f')}; always zero: recall 0%"
        if m:
            ece = " / ".join(shown(m[f"reward_ece_{label}"], ".4f") for label in ("negative", "positive"))
            bias = f"{shown(m['reward_bias'], '+.4f')} (calibration error {ece})"
            yield f"reward bias per step (predicted - true){where}", bias, "above 0: too optimistic"
    yield "imagined return", shown(metrics["train"].get("imagined_return"), ".3f"), ""


def _choose(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    candidates = metrics["candidates"]
    rounds = " / ".join(str(candidate["round"]) for candidate in candidates)
    for game in (game for game in config.games if game in candidates[0]["games"]):
        means = _numbers([candidate["games"][game]["mean"] for candidate in candidates], 2)
        played = len(candidates[0]["games"][game]["returns"])
        name = f"{game}: mean return of {played} games, agent of round {rounds}"
        yield name, means, f"round {metrics['round']} chosen"


_STAGE_ROWS = {
    "start": _start,
    "collect": _collect,
    "encoder": _encoder,
    "hrvq": _hrvq,
    "worldmodel": _worldmodel,
    "agent": _agent,
    "choose": _choose,
    "decoder": _decoder,
}


def _numbers(values: Any, digits: int) -> str:
    return " / ".join(shown(value, f".{digits}f") for value in values)
