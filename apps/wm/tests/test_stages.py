"""Stages run in order, tested with stages that only write a file."""

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hrvq import HRVQ, HRVQConfig
from rich.console import Console
from token_worldmodel import TokenTrajectories, save_tokens
from wm.config import build_config
from wm.distributed import Team
from wm.pipeline import require_inputs, run_stages
from wm.preset import read_preset
from wm.reporter import Reporter
from wm.run import Layout, Manifest, StageRecord
from wm.sections import ChooseConfig, RoundsConfig
from wm.settings import flatten, unstructure
from wm.stage import Context, Made, Stage, in_rounds
from wm.stages import stages_of
from wm.stages.quantizer import _tokenise


def written(name, needs=(), *, continues=(), settings=lambda config: 0, parallel=False):
    """A stage that writes its settings, and what it has read, to a file of its round."""

    def run(context):
        ran.append(context.stage)
        path = context.layout.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{context.stage} {settings(context.config)} {context.fingerprint}")
        return Made([path])

    ran = []
    stage = Stage(name, needs, settings, run, continues, parallel)
    return stage, ran


@pytest.fixture
def context(tmp_path):
    said = Console(file=io.StringIO(), width=200)
    return Context(build_config(read_preset("tiny")), Layout(tmp_path), torch.device("cpu"), Reporter(said))


def test_a_stage_needs_those_of_its_round_and_what_it_continues_from_of_the_one_before():
    play, _ = written("play", continues=("learn",))
    learn, _ = written("learn", ("play",), continues=("learn",))
    score, _ = written("score", ("learn",))
    found = {stage.name: (stage.needs, stage.round) for stage in in_rounds((play, learn, score), 3)}
    assert found == {
        "play-0": ((), 0),
        "learn-0": (("play-0",), 0),
        "play-1": (("learn-0",), 1),
        "learn-1": (("play-1", "learn-0"), 1),
        "play": (("learn-1",), 2),
        "learn": (("play", "learn-1"), 2),
        "score": (("learn",), 2),
    }
    assert list(found) == ["play-0", "learn-0", "play-1", "learn-1", "play", "learn", "score"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"games": ("breakout",)}])
def test_games_and_seed_are_in_every_stage(context, change):
    stage, ran = written("learn", continues=("learn",))
    for config in (context.config, context.config, replace(context.config, **change)):
        run_stages([stage], replace(context, config=config))
    assert ran == ["learn", "learn"]


def test_what_an_input_is_made_of_is_asked_for_however_far_back(context):
    first, _ = written("first", settings=lambda config: config.agent.gamma, continues=("first",))
    second, _ = written("second", ("first",), continues=("second",))
    third, _ = written("third", ("second",), continues=("third",))
    stages = (first, second, third)
    run_stages(stages, context)
    agent = replace(context.config.agent, gamma=0.5)
    run_stages(stages, replace(context, config=replace(context.config, agent=agent)), only="third")
    said = context.reporter.console.file.getvalue()
    assert "third: reads what first made before settings or inputs changed" in said


@pytest.mark.parametrize(
    ("need", "of_pong"),
    [
        ("collect", {"pong": {}}),
        ("encoder-0", {"train": {}, "pong": {}}),
        ("hrvq", {"pong": {}}),
        ("worldmodel-0", {"train": {}, "validation": {"pong": [], "all": []}}),
    ],
)
def test_a_stage_is_refused_that_needs_what_has_not_seen_all_games(tmp_path, need, of_pong):
    manifest = Manifest(Layout(tmp_path))
    manifest.record(need, StageRecord("f", {}, {}, of_pong))
    manifest.record("agent", StageRecord("f", {}, {}, {"train": {}, "predictors": {}}))
    stage, _ = written("next", (need, "agent"))
    require_inputs(stage, manifest, tmp_path, ["pong"])
    message = f"stage next needs qbert too, which {need} has not seen yet; `wm train --run {tmp_path} --games"
    with pytest.raises(ValueError, match=message):
        require_inputs(stage, manifest, tmp_path, ["pong", "qbert"])


def test_a_stage_is_refused_whose_inputs_are_of_other_play(tmp_path, monkeypatch):
    """Frames and embeddings go together row for row."""
    monkeypatch.setattr(Manifest, "check", lambda *_: [])
    manifest = Manifest(Layout(tmp_path))

    def play(*digests):
        return {f"data/pong/shard-{i}": {"sha256": each} for i, each in enumerate(digests)}

    def read(*digests):
        return {key: known["sha256"] for key, known in play(*digests).items()}

    manifest.record("collect-0", StageRecord("f", play("a"), {}))
    manifest.record("encoder-0", StageRecord("f", {}, read("a"), {"pong": {}}))
    collected = {"data/pong/shard-1": {"sha256": "b"}}
    manifest.record("collect", StageRecord("f", collected, read("a"), {"pong": {}}))
    stage, _ = written("hrvq", ("collect", "encoder", "encoder-0"))
    for digests, fits in ((("a", "b"), True), (("a", "c"), False), (("a",), False), (("a", "b", "c"), False)):
        manifest.record("encoder", StageRecord("f", {}, read(*digests), {"pong": {}}))
        if fits:
            require_inputs(stage, manifest, tmp_path, ["pong"])
            continue
        said = "stage hrvq needs encoder, which was not made from the play that the run holds now;"
        with pytest.raises(ValueError, match=said):
            require_inputs(stage, manifest, tmp_path, ["pong"])


def failing(error):
    def run(_):
        raise error

    return run


def test_a_device_without_room_is_told_with_what_to_lower(context):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    def fits(part):
        settings = replace(context.config.train.agent, steps=1)
        return lambda context: context.fit(torch.nn.Linear(1, 1), full, settings, epoch_size=1, name=part)

    known = flatten(unstructure(context.config))
    several = replace(context.config, rounds=RoundsConfig(count=2), choose=ChooseConfig(rounds=2))
    sizes = {stage.name: stage.size for stage in stages_of(several)}
    for name, run, lower in (
        ("collect", full, "collect.num_envs"),
        ("hrvq", full, "quantize.batch_size"),
        ("choose", full, "evaluate.num_envs"),
        ("evaluate", full, "evaluate.num_envs"),
        ("agent", fits(""), "train.agent.batch_size"),
        ("agent", fits("predictors"), "train.predictors.batch_size"),
    ):
        assert lower in known
        with pytest.raises(ValueError, match=f"{name} ran out of memory on cpu; lower {lower}, or free some"):
            run_stages([replace(written(name)[0], run=run, size=sizes[name])], context)
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        with pytest.raises(ValueError, match="stage start ran out of memory on cpu; free some"):
            run_stages([replace(written("start")[0], run=failing(error))], context)
    with pytest.raises(RuntimeError, match="something else"):
        run_stages([replace(written("start")[0], run=failing(RuntimeError("something else")))], context)
    with pytest.raises(ValueError, match="stage start ran out of memory on cpu; free some"):
        run_stages([replace(written("start")[0], run=full)], context)


def test_a_finished_stage_clears_its_own_checkpoints_alone(context):
    stage, _ = written("agent", continues=("agent",))
    own, part, earlier = (
        context.layout.checkpoint(f"agent-{rest}") for rest in ("0f", "predictors-0f", "0-0f")
    )
    own.parent.mkdir()
    for path in (own, part, earlier):
        path.write_text("")
    run_stages([stage], context)
    assert [path.exists() for path in (own, part, earlier)] == [False, False, True]


def test_no_round_draws_what_another_drew(context):
    """Rounds have far fewer steps than there are from one round's first batch to the next's."""
    first = [replace(context, round=index).first_batch for index in range(4)]
    assert [later - earlier for earlier, later in pairwise(first)] == [2**32] * 3


def test_who_follows_hears_of_what_the_leader_took_back(context):
    """A stage was begun anew and stopped, and what it had made before turned out to fit after all."""
    made, _ = written("made", continues=("made",))
    trained, ran = written("trained", ("made",), continues=("trained",), parallel=True)
    run_stages([made], context)
    fingerprint = Manifest(context.layout).stages["made"].fingerprint
    Manifest(context.layout).begin("made")
    leaders = Manifest(context.layout)

    class Follower(Team):
        def as_leader_says(self, flag):
            return not leaders.reinstate("made", fingerprint)  # once; then the other stage runs

        def wait(self):
            pass

    run_stages([made, trained], replace(context, team=Follower(rank=1, size=2)))
    assert ran == ["trained"]


@pytest.mark.parametrize("before", [0, 1, 2])
def test_another_number_of_alternatives_is_read_anew_with_the_codes_that_were_kept(context, before):
    config = replace(context.config, quantize=replace(context.config.quantize, alternatives=1))
    context = replace(context, config=config, round=1, stage="hrvq")
    assert context.keeps_codes
    embeddings = torch.nn.functional.normalize(torch.randn(6, 8), dim=1)
    quantizer = HRVQ(HRVQConfig(dim=8, levels=2, codes=4)).eval()
    quantizer.initialize(embeddings)
    known = TokenTrajectories(
        tokens=np.zeros((4, 2), np.int16),
        alternatives=np.full((4, before, 2), 9, np.int16),  # no code of these, to tell what was kept
        actions=np.zeros(4, np.uint8),
        rewards=np.zeros(4, np.float32),
        terminated=np.zeros(4, np.bool_),
        truncated=np.zeros(4, np.bool_),
        episode_ids=np.zeros(4, np.int32),
        lives=np.zeros(4, np.uint8),
    )
    save_tokens(Layout(context.layout.root, 0).tokens("pong"), known)
    tokens, alternatives = _tokenise(context, quantizer, embeddings, "pong")
    assert (tokens.shape, alternatives.shape) == ((6, 2), (6, 1, 2))
    assert bool((alternatives[:4] == 9).all()) == (before == 1)
