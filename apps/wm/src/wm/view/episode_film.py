"""Films of an evaluation: the real episode on the left, the same actions dreamed on the right."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from atari_data import ACTION_NAMES, PROTOCOLS
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wm.artifacts import frozen_encoder
from wm.device import generator, one_thread
from wm.opened import OpenedRun
from wm.policy import RecordedPolicy
from wm.view.album import drawer_of
from wm.view.films import videos, write_film
from wm.view.images import FAINT, INK, PAPER, REAL, font, paste, reward_colour, to_bytes
from wm.view.replay import DreamedEpisode, EpisodeFilm, best_and_median, dream_again, see_again
from wm.view.viewer import Drawer, draw_steps
from wm.view.watching import Imagination

BIG = 4
SIDE = 84 * BIG
MARGIN, HEAD, FOOT = 16, 40, 56


def film_games(
    opened: OpenedRun, result: dict[str, Any], recorded: dict[str, RecordedPolicy], directory: Path
) -> None:
    """Film the agent's best and median episodes into ``directory``, each next to its dream.

    ``result`` is what `evaluate_games` returned, ``recorded`` the agent's play that it left there.
    """
    played = result["protocol"]
    episodes, seed = played["episodes"], played["seed"]
    config, device, reporter = opened.config, opened.device, opened.reporter
    imagination = Imagination.load(opened)
    encoder, backgrounds = frozen_encoder(opened.layout, device)
    for game, agent in recorded.items():
        drawer = drawer_of(opened, game, recorded=False)
        wanted = best_and_median(result["games"][game]["agent"]["returns"])
        with reporter.task(f"film {game}", len(wanted)) as task, one_thread(device):
            seen = see_again(
                game,
                agent,
                wanted,
                num_episodes=episodes,
                seed=seed,
                protocol=replace(PROTOCOLS[played["name"]], max_frames=played["max_frames"]),
                num_envs=config.evaluate.num_envs,
            )
            for name, film in seen.items():
                rng = generator(seed, "dream again", game, device=device)
                dream = dream_again(imagination, encoder, backgrounds[game], film, rng)
                title = f"{name} of {episodes} episodes"
                path = directory / f"{game}-{name}{opened.suffix}{'.mp4' if videos() else '.gif'}"
                draw = partial(draw_episode, film, dream, drawer, game, title)
                write_film(path, draw, range(len(film.frames)))
                opened.console.print(f"{name} episode, return {sum(film.rewards):g}: {path}")
                task.advance()


def draw_episode(
    film: EpisodeFilm, dream: DreamedEpisode, drawer: Drawer, game: str, title: str, steps: range
) -> Iterator[Image.Image]:
    """A picture of the observation at each of the steps, 720 x 432."""
    scored = np.cumsum(film.rewards)
    known, expected = running_scores(film, dream)
    beside = "   ({:g} won minus lost)" if dream.signs else ""
    heading = "predicted: won minus lost" if dream.signs else "predicted score"
    for step, levels in draw_steps(drawer, dream.tokens, game, steps):
        dreamed = step >= dream.context
        canvas = Image.new("RGB", (3 * MARGIN + 2 * SIDE, HEAD + SIDE + FOOT), PAPER)
        pen = ImageDraw.Draw(canvas)
        left, right = MARGIN, 2 * MARGIN + SIDE
        pen.text((left, 10), f"{game}, {title}", INK, font(16))
        pen.text((right, 12), "dreamed from here on" if dreamed else "real so far", REAL, font(14))
        paste(canvas, film.frames[step], BIG, left, HEAD)
        shown, border = (to_bytes(levels[-1]), None) if dreamed else (film.frames[step], REAL)
        paste(canvas, shown, BIG, right, HEAD, border)
        action = ACTION_NAMES[film.actions[step - 1]] if step else "-"
        below = HEAD + SIDE + 10
        pen.text((left, below), f"action {action}", FAINT, font(14))
        pen.text((left + SIDE, below), f"step {step}", FAINT, font(14), anchor="ra")
        score = f"score {scored[step]:g}{beside.format(known[step])}"
        pen.text((left, below + 18), score, reward_colour(film.rewards[step]), font(18))
        reward = float(dream.rewards[step - dream.context]) if dreamed else film.rewards[step]
        pen.text((right, below), heading, FAINT, font(14))
        pen.text((right, below + 18), f"{expected[step]:z.1f}", reward_colour(reward), font(18))
        yield canvas


def running_scores(film: EpisodeFilm, dream: DreamedEpisode) -> tuple[NDArray[Any], NDArray[Any]]:
    """The real score and the dream's at every step, (T,) each, in the dream's unit."""
    known = np.sign(film.rewards) if dream.signs else np.asarray(film.rewards)
    expected = np.concatenate([known[: dream.context], dream.rewards.numpy()])
    return np.cumsum(known), np.cumsum(expected)
