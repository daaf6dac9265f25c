"""Each sign of trouble, with numbers that show it and numbers that do not."""

import io
from dataclasses import replace

import pytest
from rich.console import Console
from wm.config import RunConfig, build_config
from wm.diagnostics import (
    ENOUGH,
    Foreseen,
    RoundDiagnostics,
    diagnostics_table,
    hints,
    hints_by_round,
    read_diagnostics,
    remarks_after,
)
from wm.preset import read_preset
from wm.run import Layout, Manifest, StageRecord
from wm.settings import parse_override
from wm.stages import stages_of

SEEN = Foreseen(50, 0.8)
HEALTHY = RoundDiagnostics(
    round=0,
    steps=1000,
    collected_return={"pong": 1.0},
    collected_games={"pong": 4},
    imagined_reward=0.02,
    real_reward=0.02,
    entropy=0.5,
    value_error=0.1,
    return_spread=1.0,
    foreseen=(SEEN, SEEN),
    new_foreseen=(Foreseen(50, 0.6), Foreseen(50, 0.6)),
    cross_entropy=(0.9, 1.6),  # about where held-out episodes are foreseen best
    new_cross_entropy=1.8,
)


def test_health_is_silent():
    assert hints(HEALTHY) == []


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"imagined_reward": 0.05}, "the dream is too optimistic: +0.0500 per step imagined, +0.0200 played"),
        ({"imagined_reward": -0.01, "real_reward": -0.03}, "the dream is too optimistic"),
        ({"cross_entropy": (0.7, 1.6)}, "overfits its training play: cross-entropy of L0 0.70 in train"),
        ({"entropy": 0.01}, "the policy has collapsed"),
        ({"entropy": 0.99}, "the policy is still random"),
        ({"value_error": 1.5}, "the critic is off: its mean error is 1.500, the spread of returns 1.000"),
        (
            {"value_error": 0.2, "return_spread": 0.1},
            "the critic is off: its mean error is 0.200, the spread of returns 0.1",
        ),
        ({"foreseen": (SEEN, Foreseen(50, 0.1))}, "won points are rarely predicted: 10% of 50"),
        ({"foreseen": (Foreseen(50, 0.1), SEEN)}, "lost points are rarely predicted: 10% of 50"),
        ({"new_foreseen": (Foreseen(40, 0.1), SEEN)}, "lost points are rarely predicted: 10% of 40"),
    ],
)
def test_each_trouble_has_its_hint(trouble, message):
    found = hints(HEALTHY._replace(**trouble))
    assert len(found) == 1
    assert message in str(found[0])


def test_what_several_rounds_have_in_common_is_told_once():
    collapsed = [
        HEALTHY._replace(round=index, entropy=entropy)
        for index, entropy in enumerate([0.04, 0.5, 0.03, 0.02])
    ]
    collapsed[1] = collapsed[1]._replace(
        foreseen=(SEEN, Foreseen(50, 0.1)), new_foreseen=(SEEN, Foreseen(40, 0.0))
    )
    entropy, won = hints_by_round(collapsed)
    assert entropy.startswith("rounds 0, 2-3: the policy has collapsed: its entropy is 2% of")
    assert won.startswith("round 1: won points are rarely predicted: 0% of 40")


@pytest.mark.parametrize(
    ("near", "over"),
    [
        ({"imagined_reward": 0.0309}, {"imagined_reward": 0.0311}),  # half of 0.02, and 0.001
        (
            {"imagined_reward": -0.0141, "real_reward": -0.03},
            {"imagined_reward": -0.0139, "real_reward": -0.03},
        ),
        ({"imagined_reward": 0.0009, "real_reward": 0.0}, {"imagined_reward": 0.0011, "real_reward": 0.0}),
        ({"imagined_reward": -0.5}, {"imagined_reward": 0.5}),  # a dream too dark is not optimistic
        ({"cross_entropy": (0.8, 1.59)}, {"cross_entropy": (0.8, 1.61)}),
        ({"entropy": 0.051}, {"entropy": 0.049}),
        ({"entropy": 0.979}, {"entropy": 0.981}),
        ({"value_error": 0.99}, {"value_error": 1.01}),
        ({"value_error": 0.049, "return_spread": 0.01}, {"value_error": 0.051, "return_spread": 0.01}),
        ({"foreseen": (Foreseen(50, 0.21), SEEN)}, {"foreseen": (Foreseen(50, 0.19), SEEN)}),
        ({"foreseen": (SEEN, Foreseen(ENOUGH - 1, 0.0))}, {"foreseen": (SEEN, Foreseen(ENOUGH, 0.0))}),
    ],
)
def test_trouble_begins_where_it_is_said_to(near, over):
    assert hints(HEALTHY._replace(**near)) == []
    assert len(hints(HEALTHY._replace(**over))) == 1


@pytest.mark.parametrize(
    "unknown",
    [
        {"imagined_reward": None},
        {"real_reward": None},
        {"entropy": None},
        {"value_error": None},
        {"return_spread": None},
        {"cross_entropy": (None, 1.6)},
        {"foreseen": (Foreseen(0, None), Foreseen(0, None))},
        {"new_foreseen": None},
    ],
)
def test_what_is_not_known_is_no_trouble(unknown):
    assert hints(HEALTHY._replace(**unknown)) == []


def two_rounds(tmp_path, head: str, *, unit: bool) -> tuple[RunConfig, Manifest]:
    """Two rounds of a game whose points are worth 10, or 1."""
    config = build_config(
        read_preset("tiny"),
        parse_override("rounds.count=2"),
        parse_override(f'predictor.reward_head="{head}"'),
        parse_override(f'agent.reward_transform="{"clip" if head == "sign" else "raw"}"'),
        parse_override('games=["ms_pacman"]'),
    )
    worth = 1 if unit else 10
    collected = {
        "steps": 100,
        "steps_in_all": 100,
        "mean_return": 50.0 * worth,
        "episodes": 2,
        "mean_reward": 0.1 * worth,
        "mean_reward_sign": 0.1,
        "unit_rewards": unit,
    }
    predictors = {
        f"reward_{kind}_{sign}": 1.0 for kind in ("recall", "count") for sign in ("negative", "positive")
    }
    model = {
        "train": {"cross_entropy_0": 0.5},
        "validation": {"ms_pacman": [], "all": [{"cross_entropy": 0.6}]},
    }
    agent = {"predictors": predictors, "train": {"reward": 0.1, "entropy_fraction": 0.5}}
    scores = {"games": {"ms_pacman": {"agent": {"mean": 50.0 * worth, "lengths": [500, 500]}}}}
    record = StageRecord("f", {}, {})
    manifest = Manifest(Layout(tmp_path))
    manifest.stages = {
        "collect-0": replace(record, metrics={"ms_pacman": collected}),
        "worldmodel-0": replace(record, metrics=model),
        "agent-0": replace(record, metrics=agent),
        "collect": replace(record, metrics={"ms_pacman": collected}),
        "worldmodel": replace(record, metrics=model),
        "agent": replace(record, metrics=agent),
        "evaluate": replace(record, metrics=scores),
    }
    return config, manifest


def played(tmp_path, head: str, *, unit: bool) -> list[RoundDiagnostics]:
    return read_diagnostics(*two_rounds(tmp_path, head, unit=unit))


def test_a_squashed_reward_is_not_compared_with_play(tmp_path):
    config, manifest = two_rounds(tmp_path, "two_hot", unit=True)
    config = replace(config, agent=replace(config.agent, reward_transform="symlog"))
    assert [found.imagined_reward for found in read_diagnostics(config, manifest)] == [None, None]


def test_a_clipped_reward_is_compared_with_signs(tmp_path):
    config, manifest = two_rounds(tmp_path, "two_hot", unit=False)
    assert read_diagnostics(config, manifest)[0].real_reward == 1.0  # a tenth of ten
    config = replace(config, agent=replace(config.agent, reward_transform="clip"))
    assert [found.real_reward for found in read_diagnostics(config, manifest)] == [0.1, None]


def test_the_last_agents_play_is_counted_by_steps(tmp_path):
    """Three games of 30 points each in 600 steps, however these are shared among them."""
    config, manifest = two_rounds(tmp_path, "two_hot", unit=True)
    agent = {"mean": 30.0, "lengths": [100, 200, 300]}
    manifest.stages["evaluate"].metrics["games"]["ms_pacman"]["agent"] = agent
    assert read_diagnostics(config, manifest)[-1].real_reward == pytest.approx(0.15)


def test_where_agents_are_chosen_the_last_ones_play_is_its_own(tmp_path):
    """The evaluation's is that of whoever was chosen."""
    config, manifest = two_rounds(tmp_path, "two_hot", unit=True)
    config = replace(config, choose=replace(config.choose, rounds=2))
    assert [found.real_reward for found in read_diagnostics(config, manifest)] == [0.1, None]
    candidates = [
        {"round": index, "games": {"ms_pacman": {"mean": mean, "lengths": [100]}}}
        for index, mean in enumerate((90.0, -20.0))
    ]
    manifest.stages["choose"] = replace(manifest.stages["evaluate"], metrics={"candidates": candidates})
    assert [found.real_reward for found in read_diagnostics(config, manifest)] == [0.1, -0.2]
    stages = {stage.name: stage for stage in stages_of(config)}
    (hint,) = remarks_after(stages["choose"], config, manifest)
    assert hint.startswith("the dream is too optimistic: +0.1000 per step imagined, -0.2000 played")
    assert remarks_after(stages["evaluate"], config, manifest) == []


def test_rounds_of_other_games_are_left_out(tmp_path):
    config, manifest = two_rounds(tmp_path, "two_hot", unit=True)
    config = replace(config, games=("breakout",))
    assert read_diagnostics(config, manifest) == []
    last = stages_of(config)[-1]
    assert remarks_after(last, config, manifest) == []
    for name in ("collect-0", "worldmodel-0"):  # the first round has run since
        metrics = manifest.stages[name].metrics
        by_game = metrics.get("validation", metrics)
        by_game["breakout"] = by_game["ms_pacman"]
    manifest.stages["collect"] = replace(manifest.stages["collect"], metrics={"ms_pacman": {}})
    assert [(found.round, found.real_reward) for found in read_diagnostics(config, manifest)] == [(0, None)]


def test_after_training_the_agent_is_judged_and_after_play_the_dream(tmp_path):
    config, manifest = two_rounds(tmp_path, "two_hot", unit=True)
    for name in ("agent-0", "agent"):
        manifest.stages[name].metrics["train"].update(reward=1.0, entropy_fraction=0.01)
    stages = {stage.name: stage for stage in stages_of(config)}
    found = {name: remarks_after(stage, config, manifest) for name, stage in stages.items()}
    beginnings = {name: [hint.split(":")[0] for hint in hints] for name, hints in found.items() if hints}
    optimistic, collapsed = "the dream is too optimistic", "the policy has collapsed"
    assert beginnings == {
        "agent-0": [collapsed],  # the play that is there was its predecessor's
        "collect": [optimistic],
        "agent": [collapsed],
        "evaluate": [optimistic],
    }


def test_what_was_foreseen_of_new_play_is_told_once_it_is_learned_from(tmp_path):
    config, manifest = two_rounds(tmp_path, "two_hot", unit=True)
    known = manifest.stages["agent"].metrics["predictors"]
    manifest.stages["agent"].metrics["new_play"] = known | {
        "reward_count_positive": 40.0,
        "reward_recall_positive": 0.1,
    }
    found = read_diagnostics(config, manifest)
    assert [each.new_foreseen for each in found] == [(Foreseen(1.0, 1.0), Foreseen(40.0, 0.1)), None]
    stages = {stage.name: stage for stage in stages_of(config)}
    assert remarks_after(stages["agent-0"], config, manifest) == []
    (hint,) = remarks_after(stages["agent"], config, manifest)
    assert hint.startswith("won points are rarely predicted: 10% of 40")
    console = Console(file=io.StringIO(), width=160)
    console.print(diagnostics_table(config, found))
    first, second = (line for line in console.file.getvalue().splitlines() if " of 1" in line)
    assert "10% of 40" in first
    assert "of 40" not in second


def test_rounds_that_a_run_no_longer_has_say_nothing_of_the_last(tmp_path):
    config, manifest = two_rounds(tmp_path, "two_hot", unit=True)
    before = read_diagnostics(config, manifest)
    model, agent = (manifest.stages[name].metrics for name in ("worldmodel", "agent"))
    gone = {"worldmodel-2": {"all": [{"cross_entropy": 9.0}]}, "agent-2": agent["predictors"]}
    for name, measured in gone.items():
        manifest.stages[name] = StageRecord("f", {}, {}, metrics=model | agent | {"new_play": measured})
    assert read_diagnostics(config, manifest) == before


def test_numbers_that_are_not_known_are_question_marks(tmp_path):
    config, manifest = two_rounds(tmp_path, "two_hot", unit=True)
    manifest.stages["agent"].metrics["train"].update(reward=None, entropy_fraction=None)
    manifest.stages["agent"].metrics["predictors"]["reward_recall_negative"] = None
    console = Console(file=io.StringIO(), width=160)
    console.print(diagnostics_table(config, read_diagnostics(config, manifest)))
    assert "? of 1" in console.file.getvalue()


def test_play_is_told_in_the_unit_of_the_dream(tmp_path):
    assert [s.real_reward for s in played(tmp_path, "two_hot", unit=False)] == [1.0, 1.0]
    assert [s.real_reward for s in played(tmp_path, "sign", unit=True)] == [0.1, 0.1]
    assert played(tmp_path, "sign", unit=True)[0].cross_entropy == (0.5, 0.6)
    # Returns of an evaluation do not tell how many points of 10 they are made of.
    assert [s.real_reward for s in played(tmp_path, "sign", unit=False)] == [0.1, None]


def test_play_of_several_games_is_averaged_as_dreams_draw_them(tmp_path):
    config, manifest = two_rounds(tmp_path, "sign", unit=True)
    config = replace(
        config, games=("ms_pacman", "pong"), windows=replace(config.windows, game_weights=(3.0, 1.0))
    )
    for name in ("collect-0", "collect"):
        metrics = manifest.stages[name].metrics
        metrics["pong"] = metrics["ms_pacman"] | {"mean_reward_sign": -0.1}
        model = manifest.stages[name.replace("collect", "worldmodel")]
        model.metrics["validation"]["pong"] = []
    games = manifest.stages["evaluate"].metrics["games"]
    games["pong"] = {"agent": {"mean": -20.0, "lengths": [100, 100]}}
    found = [found.real_reward for found in read_diagnostics(config, manifest)]
    assert found == pytest.approx([0.75 * 0.1 - 0.25 * 0.1, 0.75 * 0.1 - 0.25 * 0.2])


def test_returns_are_no_signs_if_any_round_saw_other_rewards(tmp_path):
    config, manifest = two_rounds(tmp_path, "sign", unit=True)
    assert read_diagnostics(config, manifest)[-1].real_reward is not None
    before = manifest.stages["collect-0"].metrics
    before["ms_pacman"] = before["ms_pacman"] | {"unit_rewards": False}
    assert read_diagnostics(config, manifest)[-1].real_reward is None


def test_where_no_reward_was_seen_returns_tell_nothing_and_that_is_said(tmp_path):
    config, manifest = two_rounds(tmp_path, "sign", unit=True)
    for name in ("collect-0", "collect"):
        play = manifest.stages[name].metrics
        play["ms_pacman"] = play["ms_pacman"] | {"mean_reward": 0.0, "mean_reward_sign": 0.0}
    first, last = read_diagnostics(config, manifest)
    assert not first.rewarded
    assert last.real_reward is None  # of what size its points are is not known
    random = last._replace(entropy=0.99)
    assert [hint.trouble for hint in hints(random)] == ["there is no reward to learn from"]
    assert hints(random)[0].seen == "none in 100 real steps"
    assert [hint.trouble for hint in hints(random._replace(rewarded=True))] == ["the policy is still random"]
    seen = manifest.stages["collect-0"].metrics
    seen["ms_pacman"] = seen["ms_pacman"] | {"mean_reward": 0.1, "mean_reward_sign": 0.1}
    assert [found.rewarded for found in read_diagnostics(config, manifest)] == [True, True]
