"""The tables of `wm bench`, at any terminal width."""

import io
from pathlib import Path

import pytest
from atari_data import published_scores
from rich.console import Console
from wm.bench.protocol import BenchOptions, summarise
from wm.bench.report import print_bench

GAMES = ("pong", "ms_pacman", "montezuma_revenge")
PROTOCOL = {
    "name": "atari100k", "max_frames": 18000, "episodes": 30, "temperature": 0.5, "epsilon": 0.001,
    "seed": 0, "agent_of_round": 3,
}  # fmt: skip


def printed(
    width: int, cut: int = 0, began_with: dict[str, object] | None = None, games: tuple[str, ...] = GAMES
) -> str:
    score = {
        "agent": {"mean": -12.25, "cut": cut}, "random": {"mean": 1.0}, "agent_steps_collected": 900,
        "agent_steps_choosing": 0, "protocol": PROTOCOL | {"began_with": began_with},
    }  # fmt: skip
    options = BenchOptions(games=games, seeds=(0, 1), preset="tiny", out=Path("bench"))
    result = summarise(options, {game: {0: score, 1: score} for game in games})
    file = io.StringIO()
    print_bench(result, Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_nothing_is_cut_short(width):
    text = printed(width)
    assert "…" not in text
    for system in published_scores("pong"):
        assert system in ("Random", "Human") or f" {system} " in text
    for game in GAMES:
        assert f"│ {game} " in text
    assert "6951.6" in text  # a human on MsPacman


def test_games_of_which_nothing_is_published_have_no_empty_table():
    text = printed(200, games=("skiing",))
    assert "published" not in text
    assert "human-normalised over 1 game, with" in " ".join(text.split())


def test_episodes_that_the_limit_cut_are_told_by_game():
    assert "cut" not in printed(200)
    told = "episodes cut off by the frame limit: 4 of pong, 4 of ms_pacman"
    assert told in " ".join(printed(200, cut=2).split())


def test_runs_that_start_from_another_say_that_its_steps_are_not_counted():
    assert "started from" not in printed(200)
    told = "runs started from parts of runs/other, whose real steps are not counted here"
    begun = printed(200, began_with={"run": "runs/other", "steps": {"pong": 1500}})
    assert told in " ".join(begun.split())
    assert "cut off" not in begun
