"""Published scores, read from the systems' own result files, and what is known about a game."""

import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from atari_data.games import check_game, minimal_actions, title


@dataclass(frozen=True, kw_only=True, slots=True)
class GameInfo:
    """What is known about a game.

    Attributes:
        name: ALE's name, such as ``ms_pacman``.
        title: the spelling in papers and Gymnasium ids, such as ``MsPacman``.
        minimal_actions: ids (of the 18) that have an effect in this game.
        random_score: mean score of uniformly random play, or None if the source does not give it.
        human_score: mean score of the human tester, or None if the source does not give it.
        source: where the two scores were read, or None.
    """

    name: str
    title: str
    minimal_actions: tuple[int, ...]
    random_score: float | None
    human_score: float | None
    source: str | None


@functools.cache
def _scores() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(files("atari_data").joinpath("scores.json").read_text("utf-8"))
    return data


def game_info(game: str) -> GameInfo:
    """Everything known about ``game``; reference scores exist for the 57 games of the literature."""
    reference = _scores()["reference"]
    random_score, human_score = reference["scores"].get(check_game(game), (None, None))
    return GameInfo(
        name=game,
        title=title(game),
        minimal_actions=minimal_actions(game),
        random_score=random_score,
        human_score=human_score,
        source=None if random_score is None else reference["source"],
    )


def human_normalized(game: str, score: float) -> float | None:
    """(score - random) / (human - random), or None if the game has no reference scores.

    0 is uniformly random play, 1 the human tester (Mnih et al. 2015, https://doi.org/10.1038/nature14236).
    """
    reference = _scores()["reference"]["scores"].get(check_game(game))
    if reference is None:
        return None
    random_score, human_score = reference
    return float((score - random_score) / (human_score - random_score))


def published_scores(game: str) -> dict[str, list[float]]:
    """Scores of ``game`` by system: of agents after 100k steps, one per seed where the source lists seeds.

    The random agent and the human are among them.

    Empty outside the 26 games of Atari-100k. The systems' protocols differ (episodes, temperature, sticky
    actions): :func:`score_sources` says where each was read and what to know before quoting it.
    """
    name = title(check_game(game))
    return {
        system: list(entry["scores"][name])
        for system, entry in _scores()["systems"].items()
        if name in entry["scores"]
    }


def score_sources() -> dict[str, str]:
    """Where each system's scores were read, with what to know before quoting them."""
    notes = _scores()["notes"]
    return {
        system: "; ".join(filter(None, (entry["source"], notes.get(system))))
        for system, entry in _scores()["systems"].items()
    }
