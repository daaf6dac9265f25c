"""`wm dream`: a dream as a film, each step drawn level by level beside what the agent did and expects."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from atari_data import ACTION_NAMES
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from wm.config import RunConfig
from wm.device import pick_device
from wm.files import require_place, written_whole
from wm.reporter import Reporter
from wm.run import Layout
from wm.view.images import Pixels, enlarge, tint, to_bytes
from wm.view.viewer import DRAW_BATCH, Viewer
from wm.view.watching import DreamedGame, WatchedDream, unit, watch

MILLISECONDS = 100  # per step; the game itself takes 67
BIG, SMALL = 4, 2  # enlargement of the whole frame, and of each level's
MARGIN, GAP, HEAD, FOOT = 16, 6, 44, 90
PAPER, INK, FAINT, LINE = (17, 20, 26), (232, 236, 242), (138, 148, 164), (44, 50, 61)
GOOD, BAD, REAL = (84, 200, 130), (240, 100, 90), (255, 176, 64)


def film_run(
    config: RunConfig,
    layout: Layout,
    *,
    game: str | None,
    out: Path | None,
    horizon: int,
    seed: int,
    device_name: str,
    console: Console,
) -> None:
    """What `wm dream` does: dream, draw, write the film.

    Raises:
        ValueError: the run has no such game, agent or decoder, or an artifact is missing or damaged.
    """
    require_gif(out)
    device = pick_device(device_name)
    dreamed = DreamedGame.load(config, layout, game, seed=seed, device=device)
    viewer = Viewer.load(layout, device)
    target = out or layout.root / f"dream-{dreamed.game}-{seed}.gif"
    require_place(target)
    dream = watch(dreamed, horizon)
    write_dream(target, dream, viewer, dreamed.game, Reporter(console))
    total, lasting = float(dream.rewards.sum()), float(dream.continues.prod())
    console.print(
        f"{horizon} dreamed steps of {dreamed.game}: predicted return {total:.2f}{unit(config)}, "
        f"probability that the game still goes on {lasting:.2f}\nwritten to {target}",
        soft_wrap=True,
    )


def write_dream(path: Path, dream: WatchedDream, viewer: Viewer, game: str, reporter: Reporter) -> None:
    """Write a dream as a film, one step at a time."""
    steps = range(len(dream.tokens))
    sample = draw(dream, viewer, game, sampled(steps))
    with reporter.task("draw", len(steps)) as task:

        def pictures() -> Iterator[Image.Image]:
            for picture in draw(dream, viewer, game, steps):
                yield picture
                task.advance()

        write_gif(path, pictures(), sample)


def draw(dream: WatchedDream, viewer: Viewer, game: str, steps: range) -> Iterator[Image.Image]:
    """A picture of each of the steps: the frame, what each level adds, action, reward and continuation."""
    totals = dream.rewards.cumsum(0)
    for first in range(0, len(steps), DRAW_BATCH):
        some = steps[first : first + DRAW_BATCH]
        frames = viewer.draw(dream.tokens[list(some)], game).numpy()
        for step, levels in zip(some, frames, strict=True):
            dreamed = step - len(dream.real)
            yield _picture(dream, step, levels, game, float(totals[dreamed]) if dreamed >= 0 else 0.0)


def _picture(
    dream: WatchedDream, step: int, levels: NDArray[np.float32], game: str, total: float
) -> Image.Image:
    """One step, from its frames (L + 1, 84, 84) and the predicted return so far."""
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
        first = f"L0-{level}" if level else "L0"
        pen.text((left + 6, HEAD + 4), first, INK, font(14), stroke_width=2, stroke_fill=PAPER)
        pen.text((left + 6, below + 4), f"L{level} adds", INK, font(14), stroke_width=2, stroke_fill=PAPER)
    _foot(pen, canvas, dream, step, total)
    return canvas


def _canvas(levels: int) -> Image.Image:
    width = 2 * MARGIN + 84 * BIG + MARGIN + levels * 84 * SMALL + (levels - 1) * GAP
    return Image.new("RGB", (width, HEAD + 84 * BIG + FOOT), PAPER)


def paste(
    canvas: Image.Image,
    pixels: Pixels,
    times: int,
    left: int,
    top: int,
    frame: tuple[int, int, int] | None = None,
) -> None:
    """Put a frame on the canvas, every pixel as a square, framed in a colour if asked."""
    canvas.paste(Image.fromarray(enlarge(pixels, times)), (left, top))
    if frame is not None:
        box = (left - 2, top - 2, left + 84 * times + 1, top + 84 * times + 1)
        ImageDraw.Draw(canvas).rectangle(box, outline=frame, width=2)


def _head(pen: ImageDraw.ImageDraw, width: int, game: str, step: int, context: int) -> None:
    real = step < context
    text = f"real game, step {step + 1} of {context}" if real else f"dream, step {step - context + 1}"
    pen.text((MARGIN, 12), game, INK, font(18))
    pen.text((MARGIN + 84 * BIG, 14), text, REAL if real else INK, font(16), anchor="ra")
    pen.text(
        (width - MARGIN, 14), "drawn from the first levels, and what each adds", FAINT, font(14), anchor="ra"
    )


def _foot(
    pen: ImageDraw.ImageDraw, canvas: Image.Image, dream: WatchedDream, step: int, total: float
) -> None:
    """The action that led here, what it brought, whether the game goes on; then rewards over time."""
    context, top = len(dream.real), HEAD + 84 * BIG + 12
    columns = [MARGIN, MARGIN + 190, MARGIN + 320, MARGIN + 450, MARGIN + 580]
    action = ACTION_NAMES[int(dream.actions[step - 1])] if step else "-"
    cells = [("action", action, INK)]
    if step >= context:
        reward, lasting = float(dream.rewards[step - context]), float(dream.continues[step - context])
        cells += [
            ("predicted reward", f"{reward:+.2f}", reward_colour(reward)),
            ("so far", f"{total:+.2f}", INK),
            ("goes on", f"{lasting:.1%}", BAD if lasting < 0.5 else INK),
        ]
    for left, (name, value, colour) in zip(columns, cells, strict=False):
        pen.text((left, top), name, FAINT, font(13))
        pen.text((left, top + 16), value, colour, font(20))
    # The whole dream on one line, the steps so far drawn in.
    left, right, middle = columns[-1], canvas.width - MARGIN, top + 24
    pen.line((left, middle, right, middle), LINE, 1)
    places = np.linspace(left, right, len(dream.rewards) + 1)
    for index in range(max(0, step - context + 1)):
        height = 24 * max(-1.0, min(1.0, float(dream.rewards[index])))
        x = (places[index] + places[index + 1]) / 2
        pen.line((x, middle, x, middle - height), GOOD if height > 0 else BAD, 3)
        pen.point((x, middle), FAINT)


def reward_colour(reward: float) -> tuple[int, int, int]:
    """Of a reward, as it is or as it is foreseen."""
    return GOOD if reward > 0.05 else BAD if reward < -0.05 else INK


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font."""
    return ImageFont.load_default(size)


def require_gif(path: Path | None) -> None:
    """Raise ValueError if the file's name is that of another kind."""
    if path is not None and path.suffix.lower() != ".gif":
        raise ValueError(f"--out is {path}; the film is a GIF, so give a name that ends in .gif")


def sampled(steps: range) -> range:
    """About eight of the steps, whose colours are those of the film."""
    return steps[:: max(1, len(steps) // 8)]


def write_gif(path: Path, pictures: Iterable[Image.Image], sample: Iterable[Image.Image]) -> None:
    """A film that repeats; one palette for all pictures, that of the sample, so nothing flickers.

    Of each picture no more is kept than a byte a pixel.
    """
    colours = Image.fromarray(np.concatenate([np.asarray(picture) for picture in sample]))
    palette = colours.quantize(255, method=Image.Quantize.MEDIANCUT)
    frames = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    with written_whole(path) as partial:
        first = next(frames)
        first.save(partial, "GIF", save_all=True, append_images=frames, duration=MILLISECONDS, loop=0)
