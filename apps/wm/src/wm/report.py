"""The table at the end of a run: every stage's numbers beside a baseline."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from wm.config import RunConfig
from wm.evaluation import score_table
from wm.run import Manifest
from wm.signs import hints, read_signs, signs_table
from wm.stages import stages_of

Row = tuple[str, str, str, str]
_BY_GAME = ("collect", "encoder", "hrvq", "decoder")  # stages whose metrics are under the games' names


def print_report(config: RunConfig, manifest: Manifest, console: Console, only: str | None = None) -> None:
    """Stage, metric, value, baseline; then the scores in the real game."""
    table = Table(title="What each stage reached (validation episodes)", title_justify="left")
    for column in ("stage", "metric", "value", "baseline"):
        table.add_column(column, overflow="fold")
    for name in (stage.name for stage in stages_of(config)):
        record, rows = manifest.stages.get(name), _STAGE_ROWS.get(name)
        if record is None or rows is None or only not in (None, name):
            continue
        if name in _BY_GAME and not record.metrics.keys() >= set(config.games):
            # The games were changed, and not all stages have run since.
            table.add_row(name, "of other games than the run's", "run it again", "")
        else:
            for row in rows(config, record.metrics):
                table.add_row(*row)
        took = f"{record.seconds:.0f} s, peak {record.metrics['peak_memory_gib']:.1f} GiB on {record.device}"
        table.add_row("", "took", took, "", style="dim", end_section=True)
    if table.row_count:
        console.print(table)
    if config.rounds.count > 1 and only is None:
        console.print(signs_table(config, manifest))
        for signs in read_signs(config, manifest):
            for hint in hints(signs):
                console.print(f"round {signs.round}: {hint}")
    evaluated = manifest.stages.get("evaluate")
    if evaluated is not None and only in (None, "evaluate"):
        for game in evaluated.metrics["games"]:
            console.print(score_table(game, evaluated.metrics))


def _start(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    yield "start", f"parts of {metrics['run']}", ", ".join(metrics["parts"]), "nothing"


def _collect(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    for game in config.games:
        m = metrics[game]
        by = (
            f"policy {config.collect.policy}" if config.rounds.count == 1 else "the agent of the round before"
        )
        mean = "none ended" if m["mean_return"] is None else f"{m['mean_return']:.2f}"
        text = f"{m['steps']} steps, {m['episodes']} whole episodes, mean return {mean}"
        yield "collect", f"{game}: play", text, by


def _encoder(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    for game in config.games:
        trained, untrained = metrics[game]["trained"], metrics[game]["random encoder"]
        for key, name in (
            ("temporal_consistency", "temporal consistency (lower is smoother)"),
            ("diversity", "diversity (ideal 1.41)"),
        ):
            yield "encoder", f"{game}: {name}", f"{trained[key]:.3f}", f"random encoder {untrained[key]:.3f}"


def _hrvq(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    sizes = config.hrvq.codes_per_level
    for game in config.games:
        m = metrics[game]
        used = ", ".join(f"{share:.0%}" for share in m["usage"])
        yield "hrvq", f"{game}: codes used by level", used, "all games together fill every code"
        yield (
            "hrvq",
            f"{game}: perplexity by level",
            _numbers(m["perplexity"], 0),
            f"at most {_numbers(sizes, 0)}",
        )
        yield (
            "hrvq",
            f"{game}: explained variance up to level",
            _numbers(m["explained_variance"], 3),
            "mean vector 0",
        )


def _decoder(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    """The error of drawing a frame from the first levels, and from the embedding itself."""
    levels = [f"L0-{level}" if level else "L0" for level in range(config.hrvq.levels)]
    depths = " / ".join([*levels, "embedding"])
    kinds = (("rmse", "error (gray levels)"), ("foreground_rmse", "error off the background"))
    for game in config.games:
        m = metrics[game]
        for key, name in kinds:
            text = f"{_numbers(m[key], 1)} ({depths})"
            yield "decoder", f"{game}: {name}", text, f"background alone {m[f'background_{key}']:.1f}"


def _worldmodel(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    """Accuracy beside copy-last, and on changed tokens, where copying is always wrong."""
    for game in config.games:
        for level, m in enumerate(metrics["validation"].get(game, [])):
            where = f"{game}: L{level}"
            copied = f"copy last {m['copy_accuracy']:.1%}, commonest code {m['unigram_accuracy']:.1%}"
            yield "worldmodel", f"{where} accuracy", f"{m['accuracy']:.1%}", copied
            guessed = f"copy last 0.0%, commonest code {m['changed_unigram_accuracy']:.1%}"
            yield "worldmodel", f"{where} accuracy on changed", f"{m['changed_accuracy']:.1%}", guessed
            guessed = f"copy last {m['copy_cross_entropy']:.2f}, unigram {m['unigram_cross_entropy']:.2f}"
            yield "worldmodel", f"{where} cross-entropy (nats)", f"{m['cross_entropy']:.2f}", guessed


def _agent(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    m = metrics["predictors"]
    for label in ("negative", "positive"):
        count = m[f"reward_count_{label}"]
        recall, precision = (_share(m[f"reward_{kind}_{label}"]) for kind in ("recall", "precision"))
        found = f"recall {recall}, precision {precision}"
        yield "agent", f"{label} rewards", found, f"of {count:.0f}; always zero: recall 0%"
    train = metrics["train"]
    value = f"{train['imagined_return']:.3f}" if "imagined_return" in train else "?"
    yield "agent", "imagined return", value, ""


def _choose(config: RunConfig, metrics: dict[str, Any]) -> Iterator[Row]:
    candidates = metrics["candidates"]
    rounds = " / ".join(str(candidate["round"]) for candidate in candidates)
    for game in candidates[0]["games"]:
        means = _numbers([candidate["games"][game]["mean"] for candidate in candidates], 2)
        name = f"{game}: mean of {config.choose.episodes} games, agent of round {rounds}"
        yield "choose", name, means, f"round {metrics['round']} chosen"


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


def _share(value: float | None) -> str:
    return "undefined" if value is None or value != value else f"{value:.0%}"


def _numbers(values: Any, digits: int) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in values)
