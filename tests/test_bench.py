"""Many runs, one table; the aggregates against values computed by hand."""

import json
import shlex
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from command import SMALL, options, wm
from wm.bench.aggregate import aggregate, bootstrap
from wm.bench.protocol import BenchOptions, _finished, _scores, runs_beside, summarise
from wm.run import Layout, Manifest

SETTINGS = options(setting for setting in SMALL if not setting.startswith("evaluate.episodes="))
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
    for seed, score in enumerate(result["scores"]["pong"]):  # it is evaluated once, as any run
        found = json.loads((out / f"pong-tiny-{seed}" / "evaluation.json").read_text())
        assert found["games"]["pong"]["agent"]["returns"] == [score]
    again = wm(*BENCH, "--out", out, *SETTINGS, "--json", out / "also.json")
    assert again.output.count("finished before, skipped") == 2
    assert json.loads((out / "bench.json").read_text()) == result
    assert json.loads((out / "also.json").read_text()) == result


def test_some_of_the_runs_do_not_take_the_place_of_all(finished):
    options = BenchOptions(games=("pong",), seeds=(0, 1), preset="tiny", out=finished[0])
    beside = [
        runs_beside(replace(options, **changes), finished[0] / "bench.json")
        for changes in ({}, {"seeds": (1, 2)}, {"games": ("breakout", "pong")}, {"preset": "hour"})
    ]
    assert beside == [[], ["pong-tiny-0"], [], ["pong-tiny-0", "pong-tiny-1"]]


def test_a_result_of_more_runs_stays(finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "more", copy_function=shutil.copy2)
    result = json.loads((out / "bench.json").read_text())
    result["protocol"]["seeds"].append(7)
    (out / "bench.json").write_text(json.dumps(result))
    options = BenchOptions(games=("pong",), seeds=(0, 1), preset="tiny", out=out)
    gone = result | {"protocol": {"preset": "gone.toml", "seeds": [0]}}  # a preset that is no more
    (tmp_path / "gone.json").write_text(json.dumps(gone))
    assert runs_beside(options, tmp_path / "gone.json") == ["pong-gone-0"]
    some = wm(*BENCH, "--out", out, *SETTINGS, "--json", tmp_path / "some.json")
    assert some.code == 0, some.output
    assert "bench.json also holds pong-tiny-7, so it is kept" in " ".join(some.output.split())
    assert json.loads((out / "bench.json").read_text()) == result
    assert json.loads((tmp_path / "some.json").read_text())["protocol"]["seeds"] == [0, 1]


@pytest.mark.parametrize("damaged", ["{", "[]", "{}", '{"scores": 1, "protocol": {}}'])
def test_a_result_that_is_damaged_or_gone_is_written_again(tmp_path, damaged):
    options = BenchOptions(games=("pong",), seeds=(0, 1), preset="tiny", out=tmp_path)
    assert runs_beside(options, tmp_path / "bench.json") == []
    (tmp_path / "bench.json").write_text(damaged)
    assert runs_beside(options, tmp_path / "bench.json") == []


def changed(run, change):
    """What the manifest of a run says of its evaluation, put through ``change``."""
    manifest = Manifest(Layout(run))
    change(manifest.stages["evaluate"].metrics)
    manifest.restore("evaluate", manifest.stages["evaluate"])


def test_files_of_an_older_version_are_read(finished, tmp_path):
    out = shutil.copytree(finished[0], tmp_path / "old", copy_function=shutil.copy2)

    def as_it_was(metrics):
        for name in ("agent_steps_collected", "agent_steps_choosing"):
            del metrics["games"]["pong"][name]
        del metrics["protocol"]["epsilon"]

    for path in out.glob("pong-*"):
        changed(path, as_it_was)
    again = wm(*BENCH, "--out", out, *SETTINGS)
    assert again.code == 0, again.output
    assert again.output.count("finished before, skipped") == 2
    was, found = (json.loads((place / "bench.json").read_text()) for place in (finished[0], out))
    assert (found["real_steps"], found["scores"]) == (was["real_steps"], was["scores"])


def test_a_run_has_finished_with_its_settings_and_its_episodes_only(finished, tmp_path):
    shutil.copytree(finished[0] / "pong-tiny-0", tmp_path / "pong-tiny-0", copy_function=shutil.copy2)
    options = BenchOptions(
        games=("pong",), seeds=(0,), preset="tiny", out=tmp_path, episodes=1, overrides=tuple(SETTINGS[1::2])
    )
    assert _finished(options, "pong", 0)
    assert not _finished(replace(options, episodes=4), "pong", 0)
    assert not _finished(replace(options, overrides=(*options.overrides, "agent.gamma=0.5")), "pong", 0)
    run = tmp_path / "pong-tiny-0"
    changed(run, lambda metrics: metrics["games"]["pong"].update(agent_steps_choosing=70))
    assert summarise(options, {"pong": {0: _scores(options, "pong", 0)}})["real_steps"] == {"pong": [670]}

    def elsewhere(metrics):  # in an older version
        metrics["protocol"]["agent_steps_choosing"] = metrics["games"]["pong"].pop("agent_steps_choosing")

    changed(run, elsewhere)
    scored = _scores(options, "pong", 0)
    assert scored["agent_steps_choosing"] == 70
    assert "agent_steps_choosing" not in scored["protocol"]
    manifest = Manifest(Layout(run))
    manifest.begin("worldmodel")  # and stopped
    assert not _finished(options, "pong", 0)
    manifest.forget(["evaluate"])
    assert not _finished(options, "pong", 0)
    (run / "manifest.json").write_text("[]")
    assert not _finished(options, "pong", 0)


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
    Manifest(Layout(out / "pong-tiny-1")).forget(["evaluate"])  # it has to play again
    (out / "pong-tiny-0").write_text("in the way")
    done = wm(*BENCH, "--out", out, *SETTINGS, *engine)
    text = " ".join(done.output.split())
    assert done.code == 2, text
    assert "1 of 2 runs failed" in text
    assert f"pong-tiny-0 ({out / 'pong-tiny-0'} is a file; a run is a directory" in text
    assert ("; log " in text) == bool(engine)
    assert "evaluate" in Manifest(Layout(out / "pong-tiny-1")).stages
    assert (out / "pong-tiny-0").read_text() == "in the way"


def test_a_job_says_what_the_system_refused_as_a_run_here_does(tmp_path):
    from wm.bench.jobs import Run

    out = tmp_path / "b"
    out.write_text("in the way")
    pair = BenchOptions(games=("pong",), seeds=(0,), preset="tiny", out=out)
    here = wm("bench", "--games", "pong", "--seeds", 0, "--preset", "tiny", "--out", out, "--device", "cpu")
    reason = Run()(pair, "pong", 0, "cpu")
    assert here.code == 2
    assert reason.startswith(f"{out / 'pong-tiny-0'}: Not a directory; fix it or give another path")
    assert reason in " ".join(here.output.split())


def test_an_engine_gets_one_command_a_run(tmp_path):
    into = ("--preset", "tiny", "--out", tmp_path / "b")
    into += ("--submit-command", 'sbatch --job-name {name} --wrap "{command}"')
    done = wm("bench", "--games", "pong,breakout", "--seeds", "0,3", *into)
    assert done.code == 0
    one_by_one = ("--games", "pong", "--games", "breakout", "--seeds", "0", "--seeds", "3")
    assert wm("bench", *one_by_one, *into).output == done.output
    lines = done.output.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith(
        'sbatch --job-name pong-tiny-3 --wrap "wm bench --games pong --seeds 3 --preset tiny'
    )
    assert not (tmp_path / "b").exists()
    asked = ("bench", "--games", "pong", "--seeds", "0", "--out", tmp_path / "b c", *JOBS[:2])
    done = wm(*asked, "--set", 'start.run="a b"', "--submit-command", "sbatch --wrap {quoted}")
    assert done.code == 0, done.output
    [*_, whole] = shlex.split(done.output)
    assert shlex.split(whole)[:2] == ["wm", "bench"]
    assert {str(tmp_path / "b c"), 'start.run="a b"'} <= set(shlex.split(whole))


def test_the_device_need_not_be_on_the_machine_that_only_hands_out_runs(tmp_path):
    command = (*JOBS[:2], "--games", "pong", "--seeds", "0", "--out", tmp_path / "b", "--submit-command")
    done = wm("bench", *command, "{command}", "--device", "cuda:99")
    assert done.code == 0, done.output
    assert "--device cuda:99" in done.output


def test_the_table_of_all_runs_is_not_overwritten_by_name(finished):
    out = finished[0]
    refused = wm("bench", "--games", "pong", "--out", out, "--json", out / "bench.json")
    assert refused.code == 2
    assert "is where the table of all runs is kept; give another file" in " ".join(refused.output.split())


def test_without_submitit_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.delitem(sys.modules, "wm.bench.jobs", raising=False)
    done = wm("bench", "--games", "pong", "--seeds", "0", "--out", tmp_path, *JOBS)
    assert done.code == 2
    assert "pip install submitit" in " ".join(done.output.split())


@pytest.mark.parametrize("engine", [(), JOBS])
def test_a_place_for_no_result_is_refused_before_the_first_run(engine, tmp_path):
    (tmp_path / "file").write_text("")
    refused = wm("bench", "--device", "cpu", *engine, "--out", tmp_path / "file")
    assert refused.code == 2
    assert "run 1 of" not in refused.output
    assert "is a file, so" in " ".join(refused.output.split())


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--engine", "submitit"], "--engine submitit needs --preset"),
        (["--engine-set", "timeout_min=1"], "--engine-set is for --engine submitit"),
        ([*JOBS, "--submit-command", "{command}"], "give one of them"),
        ([*JOBS, "--engine-set", "queue"], "--engine-set takes key=value; got 'queue'"),
        ([*JOBS, "--engine-set", "queue=1"], "submitit does not accept --engine-set: Parameter 'queue'"),
        ([*JOBS, "--engine-set", 'timeout_min="x"'], "submitit does not accept --engine-set"),
        (["--episodes", "0"], "'--episodes'"),
        (["--seeds", "0,x"], "--seeds takes whole numbers"),
        (["--seeds", "1,1"], "seeds are 1, 1; give each once"),
        (["--games", "pnog"], "pong"),
        (["--set", "seed=3"], "--set seed is not for `wm bench`; give --seeds"),
        (["--set", "evaluate.episodes=3"], "--set evaluate.episodes is not for `wm bench`; give --episodes"),
        (["--preset", "tiny", "--set", "evaluate=3", "--submit-command", "{command}"], "evaluate is"),
        (
            ["--preset", "mine/tiny.toml"],
            "has the name of a preset that ships with wm",
        ),
        (["--preset", "nope", "--submit-command", "{command}"], "unknown preset 'nope'"),
        (["--set", "agent.gamma=7", "--submit-command", "{command}"], "gamma"),
        (["--preset", "tiny", "--device", "gpu"], "unknown device 'gpu'; allowed: auto, cpu, cuda, cuda:N"),
        (["--submit-command", "sbatch"], "needs {command}"),
        (["--submit-command", "{quoted} {queue}"], "cannot be filled in"),
        (["--submit-command", "{command}", "--json", "out.json"], "--json writes results"),
        (["--submit-command", "{command} {queue}"], "cannot be filled in"),
        (["--submit-command", "{command} {name.stem}"], "cannot be filled in"),
        (["--submit-command", "{command} {seed[0]}"], "cannot be filled in"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path, arguments, part):
    refused = wm("bench", "--device", "cpu", *arguments, "--out", tmp_path)
    assert refused.code == 2
    assert part in " ".join(refused.output.split())
