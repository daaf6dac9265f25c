import ale_py
import gymnasium
import numpy as np
import pytest
from atari_data import (
    ACTION_NAMES,
    NUM_ACTIONS,
    action_mask,
    check_game,
    game_info,
    games,
    human_normalized,
    minimal_actions,
    published_scores,
    score_sources,
)
from atari_data.games import legal_actions, played_actions


def test_action_names_are_those_of_ale():
    assert tuple(ale_py.Action(i).name for i in range(NUM_ACTIONS)) == ACTION_NAMES


def test_games_are_the_registered_ones():
    gymnasium.register_envs(ale_py)
    titles = {name[4:-3] for name in gymnasium.registry if name.startswith("ALE/")}
    assert {game.title().replace("_", "") for game in games()} == titles


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("MsPacman", "ms_pacman"),
        ("pongg", "pong"),
        ("Space Invaders", "space_invaders"),
        ("QBERT", "qbert"),
        ("mspacman", "ms_pacman"),
    ],
)
def test_a_wrong_name_suggests_the_right_one(given: str, meant: str):
    with pytest.raises(ValueError, match=f"did you mean.*{meant}"):
        check_game(given)


def test_two_player_roms_are_not_games():
    with pytest.raises(ValueError, match="'combat' is a game for two players; give one for one player"):
        check_game("combat")


def test_two_games_have_no_button_and_are_played_without():
    complete = tuple(range(NUM_ACTIONS))
    others = [game for game in games() if legal_actions(game) != complete]
    assert others == ["lost_luggage", "skiing"]
    # RIGHTFIRE is RIGHT, UPLEFTFIRE UPLEFT, FIRE nothing.
    assert played_actions("skiing") == (0, 0, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9)
    assert played_actions("pong") == complete


def test_minimal_actions():
    assert minimal_actions("pong") == (0, 1, 3, 4, 11, 12)
    assert minimal_actions("ms_pacman") == (0, 2, 3, 4, 5, 6, 7, 8, 9)
    assert np.flatnonzero(action_mask("breakout")).tolist() == [0, 1, 3, 4]
    assert action_mask("seaquest").all()


def test_scores():
    assert human_normalized("pong", -20.7) == 0.0
    assert human_normalized("pong", 14.6) == 1.0
    assert human_normalized("breakout", 16.1) == pytest.approx(0.5)
    assert human_normalized("tetris", 1.0) is None
    assert published_scores("ms_pacman")["Human"] == [6951.6]
    assert len(published_scores("ms_pacman")["IRIS"]) == 5
    assert published_scores("tetris") == {}
    assert set(score_sources()) == set(published_scores("pong"))
    assert "2024" in score_sources()["DreamerV3 (2023)"]


def test_game_info():
    info = game_info("ms_pacman")
    assert (info.title, info.random_score, info.human_score) == ("MsPacman", 307.3, 6951.6)
    assert "dqn_zoo" in str(info.source)
    unknown = game_info("tetris")
    assert (unknown.random_score, unknown.human_score, unknown.source) == (None, None, None)


def test_both_sources_of_reference_scores_agree():
    shared = [game for game in games() if published_scores(game)]
    assert len(shared) == 26
    for game in shared:
        published = published_scores(game)
        assert human_normalized(game, published["Random"][0]) == 0.0
        assert human_normalized(game, published["Human"][0]) == 1.0
