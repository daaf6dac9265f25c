import os
from pathlib import Path

import atari_data.store as store_module
import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv
from atari_data import (
    FrameStore,
    Protocol,
    RandomPolicy,
    StickyRandomPolicy,
    collect,
    final_rows,
    first_rows,
)
from atari_data.playing import environment_seeds
from atari_data.shards import shard_paths

SHORT = Protocol(sticky=0.25, max_frames=603)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.name != ".lock"}


def run(directory: Path, num_steps: int = 61, *, seed: int = 5, num_envs: int = 3, **more):
    policy = more.pop("policy", None) or RandomPolicy("breakout", seed, num_envs)
    return collect(directory, "breakout", num_steps, policy, seed=seed, num_envs=num_envs, **more)


def test_the_emulator_replays_what_was_stored(breakout: FrameStore):
    """One plain environment, given the stored actions, shows the stored frames, rewards, ends and lives."""
    ids, row = breakout.episode_ids, 0
    for seed in environment_seeds(5, 3):
        simulator = AtariVectorEnv(
            "breakout", 1, full_action_space=True, reward_clipping=False, use_fire_reset=False,
            max_num_frames_per_episode=SHORT.max_frames, repeat_action_probability=SHORT.sticky,
        )  # fmt: skip
        observation, info = simulator.reset(seed=np.array([seed]))
        left = 900 // 3
        while True:
            assert np.array_equal(breakout.frames[row], observation[0, -1])
            assert np.array_equal(breakout.stacks(np.array([row]))[0], observation[0])
            assert breakout.lives[row] == info["lives"][0]
            final = ids[row + 1] != ids[row]
            if final and left == 0:
                break
            action = np.array([breakout.actions[row]], dtype=np.int64)
            observation, rewards, terminated, truncated, info = simulator.step(action)
            left -= not final
            assert breakout.rewards[row] == rewards[0]
            assert breakout.terminated[row] == terminated[0]
            assert breakout.truncated[row] == (
                truncated[0] or (left == 0 and not final and not terminated[0])
            )
            row += 1
        row += 1
    assert final_rows(ids[:row]).sum() == row - 900  # the whole first round was seen


def test_conventions_hold_in_the_store(breakout: FrameStore):
    final = final_rows(breakout.episode_ids)
    over = breakout.terminated | breakout.truncated
    assert (~final).sum() == 1400  # actions asked for, in two rounds
    assert not breakout.actions[final].any()
    assert not breakout.rewards[final].any()
    assert not over[final].any()
    # exactly the rows before the final ones carry a flag, and only one
    assert np.array_equal(np.flatnonzero(over) + 1, np.flatnonzero(final))
    assert not (breakout.terminated & breakout.truncated).any()
    assert breakout.terminated.any()
    assert breakout.truncated.sum() >= 6  # the limit of frames, and one cut for each environment and round
    assert first_rows(breakout.episode_ids).sum() == len(np.unique(breakout.episode_ids))
    assert breakout.lives[first_rows(breakout.episode_ids)].tolist() == [5] * int(final.sum())


def test_returns_and_lengths_are_those_of_the_rows(tmp_path: Path):
    result = run(tmp_path, 900, protocol=SHORT)
    store = FrameStore.open(tmp_path)
    assert (result.num_steps, result.num_rows, result.round) == (900, len(store), 0)
    whole = {}
    for episode in np.unique(store.episode_ids):
        rows = store.episode_ids == episode
        at_limit = store.truncated[rows].any() and rows.sum() - 1 == 151  # ceil(603 / 4)
        if store.terminated[rows].any() or at_limit:
            whole[int(episode)] = (float(store.rewards[rows].sum()), int(rows.sum()) - 1)
    assert list(zip(result.returns, result.lengths, strict=True)) == [whole[i] for i in sorted(whole)]
    assert result.num_episodes == len(whole) > 3


def test_a_seed_gives_the_same_bytes(tmp_path: Path):
    for name in ("one", "two"):
        run(tmp_path / name)
        run(tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_seed_gives_other_play_by_the_same_actions(tmp_path: Path):
    """The no-ops at the start are the emulator's chance; the actions are the policy's alone."""
    for seed in (5, 6):
        run(tmp_path / str(seed), seed=seed, policy=RandomPolicy("breakout", 0, 3))
    one, other = (FrameStore.open(tmp_path / seed) for seed in ("5", "6"))
    assert one.actions.tolist() == other.actions.tolist()
    assert not np.array_equal(one.frames[:], other.frames[:])


def test_a_second_round_adds_other_play_and_keeps_the_first(tmp_path: Path):
    run(tmp_path, policy=StickyRandomPolicy("breakout", 0, 3))
    before = contents(tmp_path)
    result = run(tmp_path, policy=StickyRandomPolicy("breakout", 0, 3))
    after = contents(tmp_path)
    assert result.round == 1
    assert {name: after[name] for name in before} == before
    store = FrameStore.open(tmp_path)
    assert [config["round"] for config in store.rounds] == [0, 1]
    one, two = (store.episode_ids < 3), (store.episode_ids >= 3)
    assert (~final_rows(store.episode_ids[one])).sum() == (~final_rows(store.episode_ids[two])).sum() == 61
    rows = min(one.sum(), two.sum())
    assert not np.array_equal(
        store.frames[np.flatnonzero(one)[:rows]], store.frames[np.flatnonzero(two)[:rows]]
    )


@pytest.mark.parametrize(("num_steps", "num_envs"), [(1, 4), (7, 3), (64, 1), (65, 2), (129, 2)])
def test_exactly_as_many_actions_as_asked(tmp_path: Path, num_steps: int, num_envs: int):
    seen: list[int] = []
    result = run(tmp_path, num_steps, num_envs=num_envs, progress=seen.append)
    store = FrameStore.open(tmp_path)
    assert result.num_steps == (~final_rows(store.episode_ids)).sum() == num_steps
    assert seen == sorted(seen)
    assert seen[-1] == num_steps


def test_the_policy_sees_what_is_stored(tmp_path: Path):
    """Policies get fixed halves, and the stacks the store rebuilds are the observations they got."""
    asked: list[tuple[list[int], np.ndarray]] = []

    def policy(observations: np.ndarray, env_ids: np.ndarray) -> np.ndarray:
        asked.append((env_ids.tolist(), observations.copy()))
        return np.full(len(env_ids), 1)

    run(tmp_path, 30, policy=policy)
    store = FrameStore.open(tmp_path)
    assert [ids for ids, _ in asked[:4]] == [[0, 1], [2], [0, 1], [2]]
    last_env = np.stack([observations[0] for ids, observations in asked if ids == [2]])
    rows = np.flatnonzero(store.episode_ids == store.episode_ids[-1])
    assert np.array_equal(store.stacks(rows), last_env[: len(rows)])


class FailureError(Exception):
    pass


def failing_after(calls: int):
    count = 0

    def policy(observations: np.ndarray, env_ids: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        if count > calls:
            raise FailureError
        return np.zeros(len(env_ids), dtype=np.int64)

    return policy


def test_an_interruption_leaves_everything_as_it_was(tmp_path: Path):
    run(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(FailureError):
        run(tmp_path, 1000, policy=failing_after(300))
    assert contents(tmp_path) == before
    with pytest.raises(FailureError):
        run(tmp_path / "new", policy=failing_after(3))
    with pytest.raises(ValueError, match=r"holds no shard-\*.safetensors"):
        FrameStore.open(tmp_path / "new")


def test_a_process_killed_while_renaming_leaves_the_rounds_before(tmp_path: Path):
    run(tmp_path / "two")
    run(tmp_path / "two")
    two = contents(tmp_path / "two")
    run(tmp_path / "killed")
    (tmp_path / "killed" / ".collecting").mkdir()
    (tmp_path / "killed" / ".collecting" / "env-00000-00000").write_bytes(b"half")
    for name in ("shard-00003.safetensors", "shard-00004.safetensors"):  # 2 of the 3 of round 1
        (tmp_path / "killed" / name).write_bytes(two[name])
    assert len(FrameStore.open(tmp_path / "killed").rounds) == 1
    run(tmp_path / "killed")
    assert contents(tmp_path / "killed") == two


def test_a_process_killed_while_renaming_its_first_round_leaves_nothing(tmp_path: Path):
    run(tmp_path)
    one = contents(tmp_path)
    (tmp_path / list(one)[-1]).unlink()
    (tmp_path / ".collecting").mkdir()
    with pytest.raises(ValueError, match="holds only an interrupted collection; collect again"):
        FrameStore.open(tmp_path)
    run(tmp_path)
    assert contents(tmp_path) == one


def test_a_round_that_ends_while_it_is_read_is_whole_or_not_there(tmp_path: Path, monkeypatch):
    """The last shard and the folder's end come after the reader has listed the shards."""
    run(tmp_path)
    run(tmp_path)
    last = tmp_path / list(contents(tmp_path))[-1]
    hidden = last.rename(tmp_path / "elsewhere")
    (tmp_path / ".collecting").mkdir()

    assert len(FrameStore.open(tmp_path).rounds) == 1
    listings = []

    def listed_before_the_end(directory):
        paths = shard_paths(directory)
        listings.append(len(paths))
        if len(listings) == 2:  # of the first opening; before it the shards' versions were listed
            hidden.rename(last)
            (tmp_path / ".collecting").rmdir()
        return paths

    monkeypatch.setattr(store_module, "shard_paths", listed_before_the_end)
    assert len(FrameStore.open(tmp_path).rounds) == 2  # opened again, because they are not the same shards
    assert listings == [5, 5, 6, 6, 6, 6]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.zeros(3, dtype=np.int64), r"returned int64 \(3,\)"),
        (np.zeros(2), r"returned float64 \(2,\)"),
        (np.array([0, 18]), "actions from 0 to 18"),
        (np.array([-1, 0]), "actions from -1 to 0"),
    ],
)
def test_answers_that_are_no_actions(tmp_path: Path, answer: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, policy=lambda observations, env_ids: answer)
    assert contents(tmp_path) == {}


def test_bad_arguments(tmp_path: Path):
    with pytest.raises(ValueError, match="num_steps is 0"):
        run(tmp_path, 0)
    with pytest.raises(ValueError, match=r"keep is 0\.5; give an integer"):
        run(tmp_path, keep=0.5)
    with pytest.raises(ValueError, match="seed is -1"):
        run(tmp_path, seed=-1, policy=RandomPolicy("breakout", 0, 3))
    with pytest.raises(ValueError, match="num_envs is 0"):
        run(tmp_path, num_envs=0, policy=RandomPolicy("breakout", 0, 3))
    for wrong in ("ale_v5", None):
        with pytest.raises(ValueError, match=rf"protocol is {wrong!r}; give .*PROTOCOLS\['ale_v5'\] or a"):
            run(tmp_path, protocol=wrong)
    with pytest.raises(ValueError, match="did you mean pong"):
        collect(tmp_path, "Pong", 10, RandomPolicy("pong", 0, 16), seed=0)
    assert contents(tmp_path) == {}
    for wrong in ({"seed": -1}, {"num_envs": 0}):  # said before anything is made
        with pytest.raises(ValueError, match=r"give [01] or more"):
            run(tmp_path / "new", policy=RandomPolicy("breakout", 0, 3), **wrong)
    assert not (tmp_path / "new").exists()


def test_a_directory_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(ValueError, match="lies below a file"):
        run(tmp_path / "file" / "data")


def test_rounds_of_one_directory_go_together(tmp_path: Path):
    run(tmp_path, 3)
    with pytest.raises(ValueError, match="has game breakout, not pong; use another directory"):
        collect(tmp_path, "pong", 3, RandomPolicy("pong", 0, 3), seed=0)
    with pytest.raises(ValueError, match="has protocol"):
        run(tmp_path, 3, protocol=SHORT)
    with pytest.raises(ValueError, match="has RAM column False, not True"):
        run(tmp_path, 3, ram=True)
    with pytest.raises(ValueError, match="holds 1 of the 5 rounds asked for"):
        run(tmp_path, 3, keep=5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sticky", None),
        ("sticky", 1.0),
        ("noop_max", -1),
        ("noop_max", 2**31),
        ("frameskip", 0),
        ("max_frames", 3),
        ("max_pool", None),
        ("fire_reset", 1),
        ("max_frames", 2**31),
    ],
)
def test_a_protocol_checks_itself(field: str, value: float):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        Protocol(**{field: value})


def test_a_directory_has_one_writer(tmp_path: Path):
    run(tmp_path)
    before, refusals = contents(tmp_path), []

    def intrude(taken: int) -> None:
        for write in (lambda: run(tmp_path), lambda: run(tmp_path, keep=1)):
            with pytest.raises(ValueError, match="is being written by another process") as refusal:
                write()
            refusals.append(refusal)

    run(tmp_path, 400, progress=intrude)
    assert refusals
    assert len(FrameStore.open(tmp_path).rounds) == 2
    assert contents(tmp_path).items() >= before.items()


def test_a_lost_shard_is_told_and_nothing_more_is_lost(tmp_path: Path):
    run(tmp_path)
    run(tmp_path)
    last = sorted(tmp_path.glob("shard-*"))[-1]
    last.unlink()
    before = contents(tmp_path)
    for use in (lambda: FrameStore.open(tmp_path), lambda: run(tmp_path)):
        with pytest.raises(ValueError, match=f"lacks the end of its last round, from {last.name} on"):
            use()
    assert contents(tmp_path) == before
    assert len(FrameStore.open(tmp_path, rounds=1).rounds) == 1


def test_a_failure_while_renaming_leaves_the_rounds_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(tmp_path)
    before, replace, calls = contents(tmp_path), os.replace, []

    def fail_at_the_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "no room left")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_at_the_second)
    with pytest.raises(OSError, match="no room left"):
        run(tmp_path)
    assert contents(tmp_path) == before
    assert len(FrameStore.open(tmp_path).rounds) == 1


@pytest.mark.parametrize("moves", range(1, 7))
@pytest.mark.parametrize("made", [False, True], ids=["before the move", "as the move ends"])
def test_a_failure_while_rounds_change_places_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int, made: bool
):
    """Three shards go aside and three come in their place."""
    run(tmp_path)
    run(tmp_path)
    before, replace, calls = contents(tmp_path), os.replace, []

    def fail(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) != moves or made:
            replace(source, target)
        if len(calls) == moves:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, seed=9, keep=1)
    assert contents(tmp_path) == before
    assert len(FrameStore.open(tmp_path).rounds) == 2


def test_numpy_integers_are_integers(tmp_path: Path):
    whole = [np.int64(61), np.int32(5), np.uint8(3), np.int64(30)]
    run(tmp_path / "numpy", whole[0], seed=whole[1], num_envs=whole[2], protocol=Protocol(noop_max=whole[3]))
    run(tmp_path / "python", protocol=Protocol(noop_max=30))
    assert contents(tmp_path / "numpy") == contents(tmp_path / "python")
    for wrong in ({"num_steps": 1e2}, {"seed": 2.0}, {"num_envs": None}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*; give an integer"):
            run(tmp_path / "wrong", policy=RandomPolicy("breakout", 0, 3), **wrong)
    with pytest.raises(ValueError, match=r"max_frames is 1000\.0; give an integer"):
        Protocol(max_frames=1e3)


def test_a_policy_may_write_into_what_it_sees(tmp_path: Path):
    def careless(observations: np.ndarray, env_ids: np.ndarray) -> np.ndarray:
        observations[:] = 0
        return np.full(len(env_ids), 3)

    run(tmp_path / "careless", policy=careless)
    run(tmp_path / "careful", policy=lambda observations, env_ids: np.full(len(env_ids), 3))
    stores = [FrameStore.open(tmp_path / name) for name in ("careless", "careful")]
    np.testing.assert_array_equal(*(store.frames[:] for store in stores))


def test_an_environment_without_a_share_writes_nothing(tmp_path: Path):
    result = run(tmp_path, 2, num_envs=5)
    assert result.num_rows == len(FrameStore.open(tmp_path)) == 4  # two episodes of one action


def test_a_link_to_nothing_is_no_directory(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"link is a file, or a link to nothing; give a directory"):
        collect(tmp_path / "link", "pong", 16, RandomPolicy("pong", 0, 16), seed=0)
