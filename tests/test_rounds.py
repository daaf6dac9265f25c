"""Collecting in rounds, with the real command on the real emulator at a tiny size."""

import json
import math
import runpy
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from atari_data import FrameStore, RandomPolicy, StickyRandomPolicy, final_rows
from command import SMALL, artifacts, options, stages, train, wm
from hrvq import HRVQ
from latent_ac import evaluate_predictors, load_agent
from rich.console import Console
from safetensors.numpy import load_file
from token_worldmodel import TokenSampler, WorldModel, evaluate, load_tokens, load_worldmodel
from wm.config import load_config
from wm.console import make_console
from wm.diagnostics import read_diagnostics
from wm.policy import RunPolicy
from wm.report import print_report
from wm.reporter import Reporter
from wm.run import Layout, Manifest
from wm.stages.agent import VALIDATION_BATCHES, transitions

CPU, QUIET = torch.device("cpu"), Reporter(Console(quiet=True))
STEPS = 1301
ROUNDS = options(
    (
        f"collect.num_steps={STEPS}",
        "rounds.count=3",
        "quantize.alternatives=2",
        "worldmodel.code_dim=384",
        "worldmodel.position=step",
        "rounds.first_steps=600",
        "rounds.worldmodel_steps=3",
        "rounds.predictor_steps=3",
        "rounds.agent_steps=12",  # enough that the last tenth, whose mean is kept, has a logged step
        "train.agent.steps=12",
    )
)
NAMES = [
    *(
        f"{stage}-{index}"
        for index in (0, 1)
        for stage in ("collect", "encoder", "hrvq", "worldmodel", "agent")
    ),
    *("collect", "encoder", "hrvq", "worldmodel", "agent", "decoder", "evaluate"),
]


@pytest.fixture(scope="module")
def looped(tmp_path_factory):
    """A run of three rounds: read, never write."""
    directory = tmp_path_factory.mktemp("looped") / "run"
    result = train(directory, *ROUNDS)
    assert result.code == 0, result.output
    assert "Round by round" in result.output
    return directory


def test_a_report_says_who_played_each_round(looped, capsys):
    config, manifest = load_config(looped / "config.toml"), Manifest(Layout(looped))
    for stage, played in (
        ("collect-0", "policy random"),
        ("collect-1", "the previous round's agent"),
        ("collect", "the previous round's agent"),
    ):
        print_report(config, manifest, make_console(), only=stage)
        assert played in capsys.readouterr().out


def test_every_round_has_its_stages_and_the_budget_is_kept(looped):
    done = stages(looped)
    assert list(done) == NAMES
    collected = [done[name]["metrics"]["pong"] for name in ("collect-0", "collect-1", "collect")]
    assert [round_["steps"] for round_ in collected] == [600, 351, 350]
    assert [round_["steps_in_all"] for round_ in collected] == [600, 951, STEPS]
    store = FrameStore.open(looped / "data" / "pong")
    assert (~final_rows(store.episode_ids)).sum() == STEPS
    assert [r["policy"] for r in store.rounds] == ["RandomPolicy", "RunPolicy", "RunPolicy"]


def test_later_rounds_go_on_from_earlier_ones(looped):
    first, second = (load_tokens(looped / "rounds" / n / "tokens" / "pong.safetensors") for n in ("00", "01"))
    last = load_tokens(looped / "tokens" / "pong.safetensors")
    assert len(first.tokens) < len(second.tokens) < len(last.tokens)
    np.testing.assert_array_equal(last.tokens[: len(second.tokens)], second.tokens)
    np.testing.assert_array_equal(second.tokens[: len(first.tokens)], first.tokens)
    # So do the other tokens that each frame may be read as in training.
    assert last.alternatives.shape == (len(last), 2, last.num_levels)
    np.testing.assert_array_equal(last.alternatives[: len(second)], second.alternatives)
    new = len(second)
    changed = (last.alternatives[new:] != last.tokens[new:, None]).mean((0, 1))
    assert 0 < changed[0] < changed[-1] < 1
    weights = [load_file(p / "worldmodel.safetensors") for p in (looped / "rounds" / "01", looped)]
    distance = sum(float(np.abs(weights[1][k] - weights[0][k]).sum()) for k in weights[0])
    size = sum(float(np.abs(value).sum()) for value in weights[0].values())
    assert 0 < distance < 0.2 * size  # three steps from there, not a model of its own
    for name in ("encoder", "hrvq"):
        paths = [looped / "rounds" / "00" / f"{name}.safetensors", looped / f"{name}.safetensors"]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_signs_compare_what_was_dreamed_with_what_was_played(looped):
    layout = Layout(looped)
    found = read_diagnostics(load_config(layout.config), Manifest(layout))
    assert [s.steps for s in found] == [600, 951, STEPS]
    for s in found:
        assert None not in (s.imagined_reward, s.entropy, s.value_error, s.return_spread, s.real_reward)
    store = FrameStore.open(looped / "data" / "pong")
    begins = (*store.round_ends[:2], len(store))
    for s, rows in zip(found, (slice(*begins[:2]), slice(*begins[1:])), strict=False):
        signed, final = np.sign(store.rewards[rows]), final_rows(store.episode_ids)[rows]
        assert s.real_reward == pytest.approx(signed.sum() / (~final).sum())


def test_an_earlier_round_is_measured_by_its_number(looped, tmp_path):
    on, few = ("--device", "cpu"), ("--episodes", 2, "--max-frames", 400)
    copy = shutil.copytree(looped, tmp_path / "copy", copy_function=shutil.copy2)
    for name in ("encoder", "hrvq", "worldmodel", "agent", "decoder"):
        (copy / f"{name}.safetensors").unlink()
    shutil.rmtree(copy / "rounds" / "00")
    shutil.rmtree(copy / "tokens")
    done = wm("eval", copy, "--round", 1, *few, "--json", tmp_path / "game.json", *on)
    assert done.code == 0, done.output
    assert "pong, 951 real steps: agent of round 1, 2 episodes" in " ".join(done.output.split())
    found = json.loads((tmp_path / "game.json").read_text())
    assert (found["protocol"]["agent_of_round"], found["protocol"]["rounds"]) == (1, 3)
    assert found["games"]["pong"]["agent_steps_collected"] == 951
    for command in (
        ("eval", "--stage", "worldmodel"),
        ("fidelity", "--frames", 240, "--reader-steps", 5, "--windows", 8),
        ("probe", "--frames", 240, "--probe-steps", 20),
        ("dream", "--horizon", 3),
    ):
        measured = wm(command[0], copy, *command[1:], "--round", 1, *on)
        assert measured.code == 0, measured.output
    assert (copy / "dream-pong-0-round-1.gif").stat().st_size > 0
    filmed = wm("eval", copy, "--round", 1, *few, "--video", *on)
    assert filmed.code == 0, filmed.output
    films = {path.stem for path in (copy / "videos").iterdir()}
    assert films == {"pong-best-round-1", "pong-median-round-1"}
    for asked, said in (
        (few, "has no agent yet;"),
        (few, "eval, probe, fidelity, dream and play can use an earlier round: --round 1"),
        (("--round", 3), "has no round 3; its rounds are 0 to 2"),
    ):
        refused = wm("eval", copy, *asked, *on)
        assert refused.code == 2
        assert said in " ".join(refused.output.split())


def test_the_same_command_again_skips_every_round(looped):
    again = train(looped, *ROUNDS)
    assert again.code == 0
    assert all(f"{name}: up to date, skipped" in again.output for name in NAMES)


def test_a_knob_of_later_rounds_leaves_the_first_as_it_is(looped, tmp_path):
    copy = shutil.copytree(looped, tmp_path / "copy", copy_function=shutil.copy2)
    changed = wm("train", "--run", copy, "--device", "cpu", "--set", "rounds.epsilon=0.5")
    assert changed.code == 0, changed.output
    assert all(f"{name}: up to date, skipped" in changed.output for name in NAMES if name.endswith("-0"))
    assert "collect-1: done" in changed.output
    store = FrameStore.open(copy / "data" / "pong")
    assert (~final_rows(store.episode_ids)).sum() == STEPS
    before = FrameStore.open(looped / "data" / "pong")
    first = store.round_ends[0]
    np.testing.assert_array_equal(store.frames[:first], before.frames[:first])
    assert store.actions[first:].tolist() != before.actions[first:].tolist()


def test_a_world_model_is_measured_on_new_play_before_it_learns_from_it(looped):
    config, done = load_config(looped / "config.toml"), stages(looped)
    assert "new_play" not in done["worldmodel-0"]["metrics"]
    begins, ends = FrameStore.open(looped / "data" / "pong").round_ends[:2]
    length = config.windows.length
    tokens = load_tokens(looped / "rounds" / "01" / "tokens" / "pong.safetensors")
    assert len(tokens) == ends
    sampler = TokenSampler({"pong": tokens}, length=length, batch_size=1, seed=0, split="all")
    new = [batch for batch, start in zip(sampler.sweep(), *sampler.swept(), strict=True) if start >= begins]
    model = load_worldmodel(looped / "rounds" / "00" / "worldmodel.safetensors")
    told = done["worldmodel-1"]["metrics"]["new_play"]
    for level, expected in zip(told["pong"], evaluate(model, new, ["pong"])["pong"], strict=True):
        assert level["count"] == expected.count == len(new) * (length - 1)
        assert level["cross_entropy"] == pytest.approx(expected.cross_entropy, rel=0.01)  # autocast
    found = read_diagnostics(config, Manifest(Layout(looped)))
    later = [done[name]["metrics"]["new_play"]["all"] for name in ("worldmodel-1", "worldmodel")]
    expected = [levels[0]["cross_entropy"] for levels in later] + [None]
    assert [sign.new_cross_entropy for sign in found] == expected


def test_predictors_are_measured_on_new_play_before_they_learn_from_it(looped):
    config, done = load_config(looped / "config.toml"), stages(looped)
    assert "new_play" not in done["agent-0"]["metrics"]
    first = FrameStore.open(looped / "data" / "pong").round_ends[0]
    tokens = load_tokens(looped / "rounds" / "01" / "tokens" / "pong.safetensors")
    quantizer = HRVQ.load(looped / "rounds" / "00" / "hrvq.safetensors")
    agent = load_agent(looped / "rounds" / "00" / "agent.safetensors")
    batch_size = config.train.predictors.batch_size
    sampler = TokenSampler({"pong": tokens}, length=2, batch_size=batch_size, seed=0, split="all")
    starts = sampler.swept(1)[0]
    starts = starts[starts >= first]
    batches = [starts[at : at + batch_size] for at in range(0, len(starts), batch_size)]
    spread = np.linspace(0, len(batches) - 1, min(len(batches), VALIDATION_BATCHES)).round().astype(int)
    rows = np.concatenate([batches[at] for at in spread])
    expected = evaluate_predictors(
        agent.reward, agent.continue_, [transitions(sampler.gather(0 * rows, rows), quantizer, False)]
    )
    told = done["agent-1"]["metrics"]["new_play"]
    assert sum(told[f"reward_count_{sign}"] for sign in ("negative", "zero", "positive")) == len(rows)
    kept = {name: None if math.isnan(value) else value for name, value in expected.items()}
    assert told == pytest.approx(kept, abs=1e-6)


def reads_the_codes_of(worldmodel: Path, hrvq: Path) -> bool:
    """Whether a world model reads tokens as the codes of this quantizer."""
    model = load_worldmodel(worldmodel)
    expected = WorldModel(model.config)
    expected.set_codebooks(HRVQ.load(hrvq).codebooks)
    return all(map(torch.equal, model.code_reader.codes, expected.code_reader.codes))


def test_an_encoder_trained_on_moves_codes_and_tokens_until_they_come_to_rest(looped, tmp_path):
    copy = shutil.copytree(looped, tmp_path / "copy", copy_function=shutil.copy2)
    changed = wm("train", "--run", copy, "--device", "cpu", "--set", "rounds.encoder_steps=3")
    assert changed.code == 0, changed.output
    first, second, last = copy / "rounds" / "00", copy / "rounds" / "01", copy
    for name in ("encoder", "hrvq"):
        files = [(place / f"{name}.safetensors").read_bytes() for place in (first, second, last)]
        assert files[0] != files[1] == files[2]  # encoder_rounds is 1
    for place in (first, second, last):
        assert reads_the_codes_of(place / "worldmodel.safetensors", place / "hrvq.safetensors")
    assert not reads_the_codes_of(first / "worldmodel.safetensors", second / "hrvq.safetensors")
    tokens = [load_tokens(place / "tokens" / "pong.safetensors").tokens for place in (first, second, last)]
    np.testing.assert_array_equal(tokens[2][: len(tokens[1])], tokens[1])
    for count in (len(tokens[1]), len(tokens[2]) - len(tokens[1])):
        assert f"pong, {count} rows embedded in" in changed.output
    assert f"{len(tokens[1])} rows tokenised" in changed.output
    assert "hrvq-1: codes followed the embeddings 1% of the way" in changed.output
    assert f"{len(tokens[2]) - len(tokens[1])} rows tokenised" in changed.output
    table = changed.output.split("Round by round")[1]
    assert "played" in table
    measured = [name for name, record in stages(copy).items() if "new_play" in record["metrics"]]
    # The codes of the round between were not those of the one before.
    assert measured == ["worldmodel", "agent"]
    again = wm("train", "--run", copy, "--device", "cpu", "--set", "rounds.encoder_rounds=2")
    assert again.code == 0, again.output
    assert "agent-1: up to date, skipped" in again.output
    assert (last / "encoder.safetensors").read_bytes() != (second / "encoder.safetensors").read_bytes()
    assert f"{len(tokens[2])} rows tokenised" in again.output


def test_rounds_fewer_and_more_again(looped, tmp_path):
    copy = shutil.copytree(looped, tmp_path / "copy", copy_function=shutil.copy2)
    for count in (2, 3):
        changed = wm("train", "--run", copy, "--device", "cpu", "--set", f"rounds.count={count}")
        assert changed.code == 0, changed.output
        assert "agent-0: up to date, skipped" in changed.output
    assert artifacts(copy) == artifacts(looped)


def test_a_lost_shard_is_collected_again(looped, tmp_path):
    copy = shutil.copytree(looped, tmp_path / "copy", copy_function=shutil.copy2)
    begin = FrameStore.open(copy / "data" / "pong", rounds=1).num_shards
    (copy / "data" / "pong" / f"shard-{begin:05d}.safetensors").unlink()
    again = wm("train", "--run", copy, "--device", "cpu")
    assert again.code == 0, again.output
    assert "agent-0: up to date, skipped" in again.output
    assert artifacts(copy) == artifacts(looped)


def test_a_first_round_with_other_shards_leaves_a_run_that_can_be_shown(looped, tmp_path):
    copy = shutil.copytree(looped, tmp_path / "copy", copy_function=shutil.copy2)
    again = wm("train", "collect-0", "--run", copy, "--device", "cpu", "--set", "collect.num_envs=4")
    assert again.code == 0, again.output
    shown = wm("show", copy)
    assert shown.code == 0, shown.output
    # These learn from tokens, but know where the newest play begins from the frames.
    for stage, changed in (("agent", "rounds.agent_steps=13"), ("worldmodel", "rounds.worldmodel_steps=4")):
        refused = wm("train", stage, "--run", copy, "--device", "cpu", "--set", changed)
        assert refused.code == 2, refused.output
        assert f"holds 1 of the 3 rounds that stage {stage} reads" in " ".join(refused.stderr.split())


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_run_killed_at_random_ends_like_one_that_was_not(looped, tmp_path):
    settings = options(SMALL) + ROUNDS
    program = "import wm.fit; wm.fit.SECONDS_BETWEEN_CHECKPOINTS = 0; from wm.cli import main; main()"
    command = [sys.executable, "-c", program, "train", "--preset", "tiny"]
    command += ["--device", "cpu", "--run", str(tmp_path / "run"), *settings]
    rng = np.random.default_rng(0)
    said = ""
    for stages_more in (0, 2, 3, 1, 4, 2):  # so that kills come in all rounds, however slow the machine is
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            output = process.stdout.readline()  # from here on it is under way
            while output.count(": done in") < stages_more:
                line = process.stdout.readline()
                assert line, output
                output += line
            time.sleep(float(rng.uniform(0, 0.5)))
            process.send_signal([signal.SIGKILL, signal.SIGINT][int(rng.integers(2))])
            output += process.communicate(timeout=300)[0]
        assert "Traceback" not in output, output
        said += output
    assert "agent-0: done in" in said
    assert "worldmodel-1: done in" in said
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert artifacts(tmp_path / "run") == artifacts(looped)


def test_stage_names_of_a_run_of_rounds(looped, tmp_path):
    unknown = train(tmp_path / "run", *ROUNDS, "collect-7")
    assert unknown.code == 2
    assert "collect-0" in unknown.output
    early = train(tmp_path / "run", *ROUNDS, "agent-1")
    assert early.code == 2
    assert "needs the artifacts of hrvq-1" in early.output
    numbered = train(
        looped, *ROUNDS, "agent-2"
    )  # the last round's stages have no number, but are known by it
    assert "agent: up to date, skipped" in numbered.output
    assert "│ agent-1 " in train(looped, *ROUNDS, "agent-1").output  # its report
    shown = wm("show", looped)
    assert shown.code == 0
    assert "rounds/00/agent.safetensors" in shown.output
    assert "all" in wm("runs", looped.parent).output


def test_play_collected_anew_and_stopped_leaves_what_was_played(looped, tmp_path, monkeypatch):
    copy = shutil.copytree(looped, tmp_path / "copy", copy_function=shutil.copy2)
    before = artifacts(copy)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        for policy in (RunPolicy, RandomPolicy, StickyRandomPolicy):
            patch.setattr(policy, "__call__", interrupted)
        first = wm("train", "collect-0", "--run", copy, "--device", "cpu", "--set", "rounds.first_steps=500")
        assert first.code == 130
        assert "to be run again: collect-0, collect-1, collect (" in first.output  # their play goes with it
        assert artifacts(copy) == before
        back = wm("train", "collect-0", "--run", copy, "--device", "cpu", "--set", "rounds.first_steps=600")
        assert "collect-0: up to date, skipped" in back.output
        stopped = wm("train", "--run", copy, "--device", "cpu", "--set", "rounds.epsilon=0.5")
    assert stopped.code == 130
    assert "to be run again: collect-1, encoder-1" in stopped.output
    assert artifacts(copy) == before
    epsilon = load_config(looped / "config.toml").rounds.epsilon
    back = wm("train", "--run", copy, "--device", "cpu", "--set", f"rounds.epsilon={epsilon}")
    assert back.code == 0, back.output
    assert "to be run again" not in back.output
    assert back.output.count("up to date, skipped") == len(NAMES)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rounds.count=0", "count is 0; give 1 to 1000"),
        ("rounds.first_steps=1250", "leaves 51 for 2 later rounds"),
        ("rounds.epsilon=1.5", "epsilon is 1.5; give 0 to 1"),
        ("rounds.worldmodel_steps=0", "worldmodel_steps is 0; give at least 1"),
        (
            "rounds.temperature=1e-9",
            "temperature is 1e-09; give 0 (greedy) or a finite number of at least 1e-6",
        ),
        ("choose.rounds=0", "rounds is 0; give at least 1"),
        ("choose.episodes=0", "episodes is 0; give at least 1"),
        ("choose.max_frames=10", "max_frames is 10; give at least 100"),
        ('collect.policy="imported"', "a recording cannot be extended, so set rounds.count=1"),
    ],
)
def test_rounds_that_cannot_be(tmp_path, setting, message):
    refused = train(tmp_path / "run", *ROUNDS, "--set", setting)
    assert refused.code == 2
    assert message in " ".join(refused.output.split())
    assert not (tmp_path / "run" / "data").exists()


def test_settings_of_a_round_add_up(looped):
    config = tomllib.loads((looped / "config.toml").read_text())
    assert config["collect"]["num_steps"] == STEPS
    assert config["rounds"]["count"] == 3


@pytest.fixture
def practise(monkeypatch, capsys, tmp_path):
    """The benchmark of one round's practice, in this process: its exit code, and what it printed."""
    script = Path(__file__).parents[1] / "apps/wm/benchmarks/practice.py"

    def run_it(run, *options):
        monkeypatch.setattr(sys, "argv", [str(script), str(run), "--round", "1", "--device", "cpu", *options])
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as ended:
            return ended.code, capsys.readouterr()
        return 0, capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return run_it


def test_a_rounds_practice_is_repeated_without_a_trace(looped, practise):
    before = {path: path.stat().st_mtime_ns for path in looped.rglob("*")}
    settings = ("--try", "dream.temperature=0.5 agent.entropy_coef=0.01")
    code, told = practise(looped, "--repeats", "2", "--episodes", "2", *settings)
    assert code == 0, told.err[-2000:]
    rows = [line.split("│")[1:-1] for line in told.out.splitlines() if line.startswith("│")]
    table = [[cell.strip() for cell in row] for row in rows]
    assert [row[1] for row in table] == ["", "0", "1", "all", "0", "1", "all"]
    assert all(-21 <= float(row[2]) <= 21 for row in table)
    assert {path: path.stat().st_mtime_ns for path in looped.rglob("*")} == before


def test_practice_refuses_to_try_what_does_not_change_it(looped, practise):
    for setting in ("predictor.hidden=[8]", "train.agent.steps=7"):
        code, told = practise(looped, "--try", f"dream.temperature=0.5 {setting}")
        assert code == 2
        assert f"--try {setting} does not change a round's practice; give agent., dream." in told.err
