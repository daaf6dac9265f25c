"""`wm dream`: a dream as a film, each step drawn level by level, with the agent's action and predictions."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from atari_data import ACTION_NAMES
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wm.console import depth_name
from wm.files import require_place
from wm.opened import OpenedRun
from wm.reporter import Reporter
from wm.view.album import drawer_of
from wm.view.films import require_film, write_film
from wm.view.images import (
    BAD,
    FAINT,
    GOOD,
    INK,
    LINE,
    PAPER,
    REAL,
    font,
    paste,
    reward_colour,
    tint,
    to_bytes,
)
from wm.view.viewer import Drawer, draw_steps
from wm.view.watching import DreamedGame, WatchedDream, unit_of_rewards, watch

BIG, SMALL = 4, 2  # enlargement of the whole frame, and of each level's
MARGIN, GAP, HEAD, FOOT = 16, 6, 44, 90


def film_run(
    opened: OpenedRun, *, game: str | None, out: Path | None, horizon: int, recorded: bool, seed: int
) -> None:
    """What `wm dream` does: dream, draw, write the film.

    With ``recorded``, it is drawn from recorded frames.

    Raises:
        ValueError: the run has no such game, agent or decoder, or an artifact is missing or damaged.
    """
    require_film(out)
    dreamed = DreamedGame.load(opened, game, seed=seed)
    drawer = drawer_of(opened, dreamed.game, recorded=recorded)
    target = out or opened.layout.root / f"dream-{dreamed.game}-{seed}{opened.suffix}.gif"
    require_place(target)
    dream = watch(dreamed, horizon)
    write_dream(target, dream, drawer, dreamed.game, opened.reporter)
    total, lasting = float(dream.rewards.sum()), float(dream.continues.prod())
    opened.console.print(
        f"{horizon} dreamed steps of {dreamed.game}: predicted return {total:z.2f}"
        f"{unit_of_rewards(opened.config)}, probability that the game has not ended {lasting:.2f}\n"
        f"written to {target}",
    )


def write_dream(path: Path, dream: WatchedDream, drawer: Drawer, game: str, reporter: Reporter) -> None:
    """Write a dream as a film, one step at a time."""
    steps = range(len(dream.tokens))
    with reporter.task("draw", len(steps)) as task:
        write_film(path, partial(draw, dream, drawer, game), steps, task.advance)


def draw(dream: WatchedDream, drawer: Drawer, game: str, steps: range) -> Iterator[Image.Image]:
    """A picture of each of the steps: the frame, what each level adds, action, reward and continuation."""
    for step, levels in draw_steps(drawer, dream.tokens, game, steps):
        yield _picture(dream, step, levels, game)


def _picture(dream: WatchedDream, step: int, levels: NDArray[np.float32], game: str) -> Image.Image:
    """One step, from its frames (L + 1, 84, 84)."""
    context = len(dream.real)
    canvas = _canvas(len(levels) - 1)
    pen = ImageDraw.Draw(canvas)
    _head(pen, canvas.width, game, step, context)
    whole = dream.real[step] if step < context else to_bytes(levels[-1])
    paste(canvas, whole, BIG, MARGIN, HEAD, REAL if step < context else None)
    for level in range(len(levels) - 1):
        left = MARGIN + (84 * BIG + MARGIN) + level * (84 * SMALL + GAP)
        paste(canvas, to_bytes(levels[level + 1]), SMALL, left, HEAD)
        below = HEAD + 84 * (BIG - SMALL) + GAP
        paste(canvas, tint(levels[level + 1] - levels[level]), SMALL, left, below)
        pen.text((left + 6, HEAD + 4), depth_name(level), INK, font(14), stroke_width=2, stroke_fill=PAPER)
        pen.text((left + 6, below + 4), f"L{level} adds", INK, font(14), stroke_width=2, stroke_fill=PAPER)
    _foot(pen, canvas, dream, step)
    return canvas


def _canvas(levels: int) -> Image.Image:
    columns = max(levels, 2)  # the text above and below needs the width of two
    width = 2 * MARGIN + 84 * BIG + MARGIN + columns * 84 * SMALL + (columns - 1) * GAP
    return Image.new("RGB", (width, HEAD + 84 * BIG + FOOT), PAPER)


def _head(pen: ImageDraw.ImageDraw, width: int, game: str, step: int, context: int) -> None:
    real = step < context
    text = f"real game, step {step + 1} of {context}" if real else f"dream, step {step - context + 1}"
    pen.text((MARGIN, 12), game, INK, font(18))
    pen.text((MARGIN + 84 * BIG, 14), text, REAL if real else INK, font(16), anchor="ra")
    pen.text(
        (width - MARGIN, 14), "drawn from the first levels, and what each adds", FAINT, font(14), anchor="ra"
    )


def _foot(pen: ImageDraw.ImageDraw, canvas: Image.Image, dream: WatchedDream, step: int) -> None:
    """The action that led here, its predicted reward, whether the game continues; then rewards over time."""
    context, top = len(dream.real), HEAD + 84 * BIG + 12
    columns = [MARGIN, MARGIN + 190, MARGIN + 320, MARGIN + 450, MARGIN + 580]
    action = ACTION_NAMES[int(dream.actions[step - 1])] if step else "-"
    cells = [("action", action, INK)]
    if step >= context:
        reward, lasting = float(dream.rewards[step - context]), float(dream.continues[step - context])
        total = float(dream.rewards[: step - context + 1].sum())
        cells += [
            ("predicted reward", f"{reward:+z.2f}", reward_colour(reward)),
            ("so far", f"{total:+z.2f}", INK),
            ("continues", f"{lasting:.1%}", BAD if lasting < 0.5 else INK),
        ]
    for left, (name, value, colour) in zip(columns, cells, strict=False):
        pen.text((left, top), name, FAINT, font(13))
        pen.text((left, top + 16), value, colour, font(20))
    # A time line of the whole dream, with the rewards of the steps so far.
    left, right, middle = columns[-1], canvas.width - MARGIN, top + 24
    pen.line((left, middle, right, middle), LINE, 1)
    places = np.linspace(left, right, len(dream.rewards) + 1)
    for index in range(max(0, step - context + 1)):
        height = 24 * max(-1.0, min(1.0, float(dream.rewards[index])))
        x = (places[index] + places[index + 1]) / 2
        pen.line((x, middle, x, middle - height), GOOD if height > 0 else BAD, 3)
        pen.point((x, middle), FAINT)
