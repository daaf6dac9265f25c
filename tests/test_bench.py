"""Many runs, one table; the aggregates by hand."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from command import SMALL, options, wm
from wm.bench.aggregate import aggregate, bootstrap
from wm.bench.protocol import BenchOptions, _finished, summarise
from wm.config import save_config
from wm.files import sha256

SETTINGS = options(SMALL)
JOBS = ("--preset", "tiny", "--engine", "submitit")


def test_aggregates_by_hand():
    scores = {"a": [0.0, 2.0], "b": [4.0, 6.0], "c": [1.0, 11.0]}
    found = aggregate(scores)
    assert found["mean"] == pytest.approx((1 + 5 + 6) / 3)
    assert found["median"] == 5  # of the games' means 1, 5, 6
    assert found["iqm"] == pytest.approx((1 + 2 + 4 + 6) / 4)  # of 0 1 2 4 6 11, one cut at either end


def test_the_interquartile_mean_leaves_a_quarter_out_at_either_end():
    squares = {"a": [0.0, 1.0, 4.0, 9.0], "b": [16.0, 25.0, 36.0, 49.0]}
    assert aggregate(squares)["iqm"] == (4 + 9 + 16 + 25) / 4


def test_games_may_have_different_numbers_of_seeds():
    assert aggregate({"a": [1.0], "b": [2.0, 4.0]}) == {
        "mean": 2.0,
        "median": 2.0,
        "iqm": pytest.approx(7 / 3),
    }


def test_the_bootstrap_draws_seeds_within_games_only():
    """Game a's mean is 0, 1 or 2 with chances 1/4, 1/2, 1/4, and game b never varies."""
    low, high = bootstrap({"a": [0.0, 2.0], "b": [10.0, 10.0]})["mean"]
    assert (low, high) == (5.0, 6.0)
    low, high = bootstrap({"a": [0.0, 2.0], "b": [10.0, 10.0]}, confidence=0.4)["mean"]
    assert (low, high) == (5.5, 5.5)  # the middle 40 % are all 1 and 10
    assert bootstrap({"a": [3.0], "b": [5.0]})["iqm"] == (4.0, 4.0)


def test_the_interval_of_many_seeds_is_that_of_the_normal_law():
    rng = np.random.default_rng(0)
    scores = {name: rng.normal(mean, 1, 400) for name, mean in (("a", 0), ("b", 3))}
    low, high = bootstrap(scores)["mean"]
    middle = (scores["a"].mean() + scores["b"].mean()) / 2
    half = 1.96 * np.sqrt(sum(scores[name].var() / 400 for name in scores)) / 2
    assert (low, high) == (
        pytest.approx(middle - half, abs=0.1 * half),
        pytest.approx(middle + half, abs=0.1 * half),
    )


BENCH = ("bench", "--games", "pong", "--seeds", "0,1", "--preset", "tiny", "--episodes", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two runs, one after the other, and what was printed. Look, do not touch."""
    out = tmp_path_factory.mktemp("bench") / "bench"
    done = wm(*BENCH, "--out", out, *SETTINGS)
    assert done.code == 0, done.output
    return out, done.output


def test_runs_finish_once_and_stand_in_one_table(finished):
    out, printed = finished
    assert "IRIS" in printed
    result = json.loads((out / "bench.json").read_text())
    assert len(result["scores"]["pong"]) == 2
    mean = result["aggregates"]["ours"]["mean"]
    assert mean["value"] == pytest.approx((np.mean(result["scores"]["pong"]) + 20.7) / 35.3)
    assert mean["interval"][0] <= mean["value"] <= mean["interval"][1]
    again = wm(*BENCH, "--out", out, *SETTINGS, "--json", out / "also.json")
    assert again.output.count("finished before, skipped") == 2
    assert json.loads((out / "bench.json").read_text()) == result
    assert json.loads((out / "also.json").read_text()) == result


def test_files_of_an_older_version_are_read(finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "old", copy_function=shutil.copy2)
    for path in out.glob("*/bench.json"):
        scored = json.loads(path.read_text())
        for name in ("agent_steps_collected", "agent_steps_choosing"):
            del scored[name]
        del scored["protocol"]["epsilon"]
        path.write_text(json.dumps(scored))
    again = wm(*BENCH, "--out", out, *SETTINGS)
    assert again.code == 0, again.output
    assert again.output.count("finished before, skipped") == 2
    was, found = (json.loads((place / "bench.json").read_text()) for place in (finished[0], out))
    assert (found["real_steps"], found["scores"]) == (was["real_steps"], was["scores"])


def test_a_run_has_finished_with_its_settings_its_agent_and_its_episodes_only(tmp_path):
    options = BenchOptions(games=("pong",), seeds=(0,), preset="tiny", out=tmp_path, episodes=3)
    place = options.directory("pong", 0)
    place.mkdir()
    save_config(place / "config.toml", options.config("pong", 0))
    (place / "agent.safetensors").write_bytes(b"agent")
    evaluate = options.config("pong", 0).evaluate
    names = ("temperature", "epsilon", "max_frames")
    protocol = {"episodes": 3} | {name: getattr(evaluate, name) for name in names}
    score = {
        "agent": {"mean": 1.0},
        "random": {"mean": -20.0},
        "agent_steps_collected": 900,
        "agent_steps_choosing": 70,
    }
    known = score | {"agent_sha256": sha256(place / "agent.safetensors"), "protocol": protocol}
    (place / "bench.json").write_text(json.dumps(known))
    assert _finished(options, "pong", 0) == known
    assert summarise(options, {"pong": {0: known}})["real_steps"] == {"pong": [970]}
    assert _finished(replace(options, episodes=4), "pong", 0) is None
    assert _finished(replace(options, overrides=("agent.gamma=0.5",)), "pong", 0) is None
    for name in names:  # as they were played before the run's configuration was replaced
        other = known | {"protocol": protocol | {name: 7}}
        (place / "bench.json").write_text(json.dumps(other))
        assert _finished(options, "pong", 0) is None
    old = known | {"protocol": protocol | {"agent_steps_choosing": 9}}  # an older version had it here
    del old["agent_steps_choosing"]
    (place / "bench.json").write_text(json.dumps(old))
    assert _finished(options, "pong", 0) == known | {"agent_steps_choosing": 9}
    (place / "agent.safetensors").write_bytes(b"other")
    assert _finished(options, "pong", 0) is None


def test_jobs_leave_what_runs_one_after_another_leave(finished, tmp_path):
    command = (*BENCH, "--out", tmp_path / "b", *SETTINGS, "--engine", "submitit", "--engine-set")
    done = wm(*command, "timeout_min=9")
    assert done.code == 0, done.output
    assert "2 jobs on local" in done.output
    assert done.output.count("finished before, skipped") == 2  # by the one who gathers
    results = [json.loads((out / "bench.json").read_text()) for out in (tmp_path / "b", finished[0])]
    assert results[0] == results[1]
    again = wm(*command, "timeout_min=9")
    assert again.code == 0
    assert "jobs on" not in again.output


@pytest.mark.parametrize("engine", [(), ("--engine", "submitit")])
def test_a_run_that_fails_is_named_and_the_others_finish(finished, tmp_path, engine):
    out = tmp_path / "b"
    shutil.copytree(finished[0] / "pong-tiny-1", out / "pong-tiny-1", copy_function=shutil.copy2)
    (out / "pong-tiny-1" / "bench.json").write_text("[]")  # damaged: it has to play again
    (out / "pong-tiny-0").write_text("in the way")
    done = wm(*BENCH, "--out", out, *SETTINGS, *engine)
    text = " ".join(done.output.split())
    assert done.code == 2, text
    assert "1 of 2 runs failed" in text
    assert f"pong-tiny-0 ({out / 'pong-tiny-0'} is a file; --run takes a directory" in text
    assert ("; log " in text) == bool(engine)
    assert json.loads((out / "pong-tiny-1" / "bench.json").read_text())["agent"]
    assert (out / "pong-tiny-0").read_text() == "in the way"


def test_an_engine_gets_one_command_a_run(tmp_path):
    done = wm(
        "bench", "--games", "pong,breakout", "--seeds", "0,3", "--preset", "tiny", "--out", tmp_path / "b",
        "--submit-command", 'sbatch --job-name {name} --wrap "{command}"',
    )  # fmt: skip
    assert done.code == 0
    lines = done.output.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith(
        'sbatch --job-name pong-tiny-3 --wrap "wm bench --games pong --seeds 3 --preset tiny'
    )
    assert not (tmp_path / "b").exists()


def test_the_device_need_not_be_on_the_machine_that_only_hands_out_runs(tmp_path):
    command = (*JOBS[:2], "--games", "pong", "--seeds", "0", "--out", tmp_path / "b", "--submit-command")
    done = wm("bench", *command, "{command}", "--device", "cuda:99")
    assert done.code == 0, done.output
    assert "--device cuda:99" in done.output


def test_without_submitit_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, "wm.bench.jobs", raising=False)
    done = wm("bench", "--games", "pong", "--seeds", "0", "--out", tmp_path, *JOBS)
    assert done.code == 2
    assert "install wm[cluster]" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--engine", "submitit"], "--engine submitit needs --preset"),
        (["--engine-set", "timeout_min=1"], "--engine-set is for --engine submitit"),
        ([*JOBS, "--submit-command", "{command}"], "give one of them"),
        ([*JOBS, "--engine-set", "queue"], "--engine-set takes key=value; got 'queue'"),
        ([*JOBS, "--engine-set", "queue=1"], "--engine-set does not suit submitit: Parameter 'queue'"),
        ([*JOBS, "--engine-set", 'timeout_min="x"'], "--engine-set does not suit submitit"),
        (["--seeds", "0,x"], "--seeds takes whole numbers"),
        (["--seeds", "1,1"], "seeds are 1, 1; give each once"),
        (["--games", "pnog"], "pong"),
        (["--set", "seed=3"], "--set seed is not for `wm bench`; give --games and --seeds"),
        (["--preset", "nope", "--submit-command", "{command}"], "unknown preset 'nope'"),
        (["--set", "agent.gamma=7", "--submit-command", "{command}"], "gamma"),
        (["--preset", "tiny", "--device", "gpu"], "unknown device 'gpu'; allowed: auto, cpu, cuda, cuda:N"),
        (["--submit-command", "sbatch"], "needs {command}"),
        (["--submit-command", "{command}", "--json", "out.json"], "--json keeps results"),
        (["--submit-command", "{command} {queue}"], "cannot be filled in"),
        (["--submit-command", "{command} {name.stem}"], "cannot be filled in"),
        (["--submit-command", "{command} {seed[0]}"], "cannot be filled in"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path, arguments, part):
    refused = wm("bench", "--device", "cpu", *arguments, "--out", tmp_path)
    assert refused.code == 2
    assert part in " ".join(refused.output.split())
