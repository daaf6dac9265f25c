"""`wm eval --stage worldmodel`: the model's predictions on validation episodes, next to baselines."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text
from token_worldmodel import TokenBatch, TokenSampler, evaluate

from wm.artifacts import frozen_worldmodel, known_tokens
from wm.config import RunConfig
from wm.console import NumbersTable, counted, text_table
from wm.device import autocast, autocast_dtype
from wm.measure.model_checks import Check, check_worldmodel
from wm.measure.results import write_result
from wm.opened import OpenedRun
from wm.rounds import round_of

ROWS = (
    ("accuracy", "accuracy", "accuracy", "copy_accuracy", "unigram_accuracy"),
    ("cross-entropy (nats)", "cross_entropy", "cross_entropy", "copy_cross_entropy", "unigram_cross_entropy"),
    ("accuracy where the token changed", "changed_accuracy", "accuracy", "", "changed_unigram_accuracy"),
    (
        "cross-entropy where it changed",
        "changed_cross_entropy",
        "cross_entropy",
        "changed_copy_cross_entropy",
        "changed_unigram_cross_entropy",
    ),
)


def evaluate_worldmodel(opened: OpenedRun, *, json_file: Path | None) -> None:
    """Check that the model is sound, then sweep the validation windows; print tables, write JSON.

    Raises:
        ValueError: no world model or tokens yet, no window fits in the validation episodes, or the
            model is not sound (everything is printed and written first).
    """
    config, layout, device, console = opened.config, opened.layout, opened.device, opened.console
    model = frozen_worldmodel(layout, device)
    known = {game: known_tokens(layout, game, model) for game in config.games}
    sampler = TokenSampler(
        known,
        length=config.windows.length,
        batch_size=config.train.worldmodel.batch_size,
        seed=config.seed,
        split="validation",
        validation_fraction=config.collect.validation_fraction,
        device=device,
    )
    checks = check_worldmodel(model, sampler.batch(0))
    precision = autocast_dtype(config.train.worldmodel.precision, device)
    with opened.reporter.task("windows", sum(map(len, sampler.swept()))) as task:

        def windows() -> Iterator[TokenBatch]:
            for batch in sampler.sweep():
                yield batch
                task.advance(len(batch.tokens))

        with autocast(precision, device):
            measured = evaluate(model, windows(), config.games)
    episodes = {game: held_out_episodes(config, known[game].episode_ids) for game in config.games}
    result: dict[str, Any] = {
        "protocol": {
            "round": round_of(layout, config),
            "split": "validation episodes, windows that do not overlap",
            "episodes": {game: len(lengths) for game, lengths in episodes.items()},
            "steps": {game: sum(lengths) for game, lengths in episodes.items()},
            "window": config.windows.length,
            "validation_fraction": config.collect.validation_fraction,
            "seed": config.seed,
        },
        "checks": {check.name: {"holds": check.holds, "found": check.found} for check in checks},
        "games": {name: [asdict(level) for level in levels] for name, levels in measured.items()},
    }
    write_result(json_file, result, console)
    console.print(_checks_table(checks))
    names = [*config.games, "all"] if len(config.games) > 1 else list(config.games)
    for name in names:
        lengths = episodes[name] if name in episodes else [n for found in episodes.values() for n in found]
        console.print(_table(name, result["games"][name], lengths))
    if failed := [check.name for check in checks if not check.holds]:
        raise ValueError(f"the world model of {layout.root} is not sound; failed checks: {'; '.join(failed)}")


def _checks_table(checks: list[Check]) -> Table:
    title = "soundness, on one batch of validation windows"
    table = text_table("check", "holds", "found", title=title)
    for check in checks:
        table.add_row(check.name, "yes" if check.holds else Text("NO", style="red"), check.found)
    return table


def held_out_episodes(config: RunConfig, episode_ids: np.ndarray) -> list[int]:
    """The number of steps of each validation episode, one less than its rows."""
    ids = episode_ids[config.validates(episode_ids)]
    return [int(rows) - 1 for rows in np.unique(ids, return_counts=True)[1]]


def _table(game: str, levels: list[dict[str, Any]], lengths: list[int]) -> Table:
    # Not counted are the steps left over at an episode's end, too few for a window, and each window's first.
    title = (
        f"{game}: next tokens on {levels[0]['count']} of the {sum(lengths)} steps of "
        f"{counted(len(lengths), 'validation episode')}"
    )
    table = NumbersTable(title, "", "level", "model", "copy last", "unigram", words=2)
    for name, own, kind, copied, unigram in ROWS:
        for number, level in enumerate(levels):
            table.add_row(
                name if number == 0 else "",
                f"L{number}",
                _cell(level[own], kind),
                _cell(level[copied], kind) if copied else "0.0%",
                _cell(level[unigram], kind),
                end_section=number == len(levels) - 1,
            )
    for number, level in enumerate(levels):
        changed, error = level["changed_fraction"], level["calibration_error"]
        text = f"{error:.3f} (tokens changed: {changed:.1%})"
        table.add_row("calibration error" if number == 0 else "", f"L{number}", text, "", "")
    return table


def _cell(value: float, kind: str) -> str:
    if math.isnan(value):
        return "none seen"
    return f"{value:.1%}" if kind == "accuracy" else f"{value:.3f}"
