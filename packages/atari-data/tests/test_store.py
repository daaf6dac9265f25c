import copy
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from atari_data import (
    CollectResult,
    FrameStore,
    Policy,
    Protocol,
    RandomPolicy,
    collect,
    final_rows,
    first_rows,
    import_recording,
    shard_paths,
    window_starts,
)
from atari_data import shards as shards_module
from atari_data import store as store_module
from safetensors import safe_open
from safetensors.numpy import load_file, save_file


@pytest.fixture
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrameStore:
    """The same play as a few long shards would hold, in shards of 10 rows."""
    monkeypatch.setattr(shards_module, "SHARD_ROWS", 10)
    policy, protocol = RandomPolicy("pong", 0, 2), Protocol(max_frames=53)
    collect(tmp_path, "pong", 100, policy, seed=0, protocol=protocol, num_envs=2)
    return FrameStore.open(tmp_path)


def naive_clip(store: FrameStore, start: int, length: int, history: int) -> np.ndarray:
    frames = []
    for row in range(start - history, start + length):
        inside = row >= 0 and store.episode_ids[row] == store.episode_ids[start]
        frames.append(store.frames[row] if inside else np.zeros((84, 84), dtype=np.uint8))
    return np.stack(frames)


def test_shards_are_safetensors_files(breakout_dir: Path, breakout: FrameStore):
    """Read with the format's own library, not with ours."""
    shards = [load_file(path) for path in sorted(breakout_dir.glob("shard-*.safetensors"))]
    assert len(shards) == 6
    assert np.array_equal(np.concatenate([shard["frames"] for shard in shards]), breakout.frames[:])
    types = {name: (str(array.dtype), array.shape[1:]) for name, array in shards[0].items()}
    assert types == {
        "frames": ("uint8", (84, 84)),
        "actions": ("uint8", ()),
        "rewards": ("float32", ()),
        "terminated": ("bool", ()),
        "truncated": ("bool", ()),
        "episode_ids": ("int32", ()),
        "lives": ("uint8", ()),
        "ram": ("uint8", (128,)),
    }
    for name in types.keys() - {"frames"}:
        assert np.array_equal(np.concatenate([shard[name] for shard in shards]), getattr(breakout, name))


def test_metadata(breakout: FrameStore):
    assert breakout.game == "breakout"
    assert breakout.protocol == Protocol(sticky=0.25, max_frames=603)
    assert breakout.seed == 5
    assert [round_["policy"] for round_ in breakout.rounds] == ["RandomPolicy"] * 2


def test_where_a_stream_is_cut_does_not_matter(
    cut: FrameStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert cut.num_shards == 12
    monkeypatch.setattr(shards_module, "SHARD_ROWS", 10_000)
    policy, protocol = RandomPolicy("pong", 0, 2), Protocol(max_frames=53)
    collect(tmp_path / "whole", "pong", 100, policy, seed=0, protocol=protocol, num_envs=2)
    whole = FrameStore.open(tmp_path / "whole")
    assert whole.num_shards == 2
    assert np.array_equal(whole.frames[:], cut.frames[:])
    assert np.array_equal(whole.rewards, cut.rewards)
    assert np.array_equal(whole.episode_ids, cut.episode_ids)


def test_clips_are_what_a_loop_would_gather(cut: FrameStore):
    for length, history in ((1, 3), (1, 0), (5, 3), (12, 3), (14, 5)):
        starts = window_starts(cut.episode_ids, length)
        starts = np.random.default_rng(0).permutation(starts)[:40]
        expected = np.stack([naive_clip(cut, int(start), length, history) for start in starts])
        assert np.array_equal(cut.clips(starts, length, history), expected)


def test_the_stacks_of_a_clip_are_a_sliding_view_of_it(breakout: FrameStore):
    start = window_starts(breakout.episode_ids, 9)[:1]
    clip = breakout.clips(start, 9)[0]
    stacks = np.lib.stride_tricks.sliding_window_view(clip, 4, axis=0).transpose(0, 3, 1, 2)
    assert np.array_equal(stacks, breakout.stacks(start + np.arange(9)))
    assert not stacks[0, :3].any()  # the first row of an episode


def test_frames_read_like_an_array(cut: FrameStore):
    whole = cut.frames[:]
    assert cut.frames.shape == whole.shape == (len(cut), 84, 84)
    for key in (
        slice(3, 8),
        slice(5, 37),
        slice(-4, None),
        slice(20, 20),
        slice(2, 50, 7),
        slice(None, None, -5),
    ):
        assert np.array_equal(cut.frames[key], whole[key])
    rows = np.array([0, 9, 10, 11, 50, -1, 9])
    assert np.array_equal(cut.frames[rows], whole[rows])
    assert np.array_equal(cut.frames[first_rows(cut.episode_ids)], whole[first_rows(cut.episode_ids)])
    assert np.array_equal(cut.frames[-1], whole[-1])
    assert cut.frames[rows[:0]].shape == (0, 84, 84)
    assert np.shares_memory(cut.frames[3:8], cut.frames[4:9])  # a view of the file, not a copy
    with pytest.raises(IndexError, match="there are"):
        cut.frames[np.array([len(cut)])]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64])
def test_rows_may_be_integers_too_small_for_the_number_of_rows(breakout: FrameStore, dtype: type):
    assert len(breakout) > 255
    assert np.array_equal(breakout.frames[np.array([3, 9], dtype)], breakout.frames[3:10:6])


def test_mean_frame(cut: FrameStore):
    exact = cut.frames[:].astype(np.float64).mean(axis=0)
    assert cut.mean_frame().dtype == np.float32
    np.testing.assert_allclose(cut.mean_frame(), exact, rtol=1e-6)
    every_third = cut.frames[::3].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(cut.mean_frame(max_frames=len(cut) // 3 + 1), every_third, rtol=1e-6)


def test_bad_clips(cut: FrameStore):
    with pytest.raises(ValueError, match="leaves its episode; take starts from window_starts"):
        cut.clips(np.array([0, 10]), 6)
    with pytest.raises(ValueError, match=f"the store has rows 0 to {len(cut)}"):
        cut.stacks(np.array([len(cut)]))
    for rows in (np.array([0.5]), 5, np.ones(len(cut), bool)):
        with pytest.raises(
            ValueError, match=r"indices are .*; give integers of shape \(B,\), np.flatnonzero"
        ):
            cut.stacks(rows)
    with pytest.raises(ValueError, match=r"starts is .*; give integers of shape \(B,\), length 1 or more"):
        cut.clips(np.array([0.5]), 1)
    assert cut.clips(np.array([], dtype=np.int64), 4).shape == (0, 7, 84, 84)


def test_missing_and_damaged_shards(cut: FrameStore, tmp_path: Path):
    with pytest.raises(ValueError, match=r"nowhere holds no shard-\*.safetensors; collect or import"):
        FrameStore.open(tmp_path / "nowhere")
    third = tmp_path / "shard-00003.safetensors"
    content = third.read_bytes()
    damages = {
        "half": content[: len(content) // 2],
        "never finished": bytes(4096) + content[4096:],
        "empty": b"",
        "no header": b"something else entirely",
    }
    for damaged in damages.values():
        third.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"shard-00003.safetensors is not a readable safetensors file"):
            FrameStore.open(tmp_path)
    third.unlink()
    with pytest.raises(ValueError, match=r"lacks shard-00003.safetensors; restore the files"):
        FrameStore.open(tmp_path)


def test_a_file_that_only_resembles_a_shard_is_none(cut: FrameStore, tmp_path: Path):
    (tmp_path / "shard-00000 (copy).safetensors").write_bytes(b"anything")
    assert len(FrameStore.open(tmp_path)) == len(cut)
    assert len(shard_paths(str(tmp_path))) == cut.num_shards


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_too_many_open_shards_are_told(cut: FrameStore, tmp_path: Path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/dev/fd")) - 1
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 2, limits[1]))
        with pytest.raises(ValueError, match=r"too many files are open.*ulimit"):
            FrameStore.open(tmp_path)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        with pytest.raises(ValueError, match=r"too many files are open.*ulimit"):
            shards_module.ShardWriter(tmp_path, "env-0", ram=False, config={})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_foreign_shards(tmp_path: Path):
    path = tmp_path / "shard-00000.safetensors"
    frames = np.zeros((4, 84, 84), dtype=np.uint8)
    save_file({"frames": frames}, path)
    with pytest.raises(ValueError, match="holds no 'artifact' metadata"):
        FrameStore.open(tmp_path)
    save_file({"frames": frames}, path, {"artifact": '{"kind": "tokens", "schema": 1, "config": {}}'})
    with pytest.raises(ValueError, match="is of kind tokens, schema 1; expected frames"):
        FrameStore.open(tmp_path)
    save_file({"frames": frames}, path, {"artifact": '{"kind": "frames", "schema": 1, "config": {}}'})
    with pytest.raises(ValueError, match="holds frames uint8"):
        FrameStore.open(tmp_path)
    save_file({"actions": frames}, path, {"artifact": '{"kind": "frames", "schema": 1, "config": {}}'})
    with pytest.raises(ValueError, match="holds no tensor 'frames'"):
        FrameStore.open(tmp_path)


def test_a_shard_of_another_version_is_told(cut: FrameStore, tmp_path: Path):
    path = shard_paths(tmp_path)[0]
    with safe_open(path, framework="numpy") as file:
        entry = json.loads(file.metadata()["artifact"])
    whole = entry["config"]
    for config, message in (
        ({}, "does not say its end, game, protocol, round, seed; restore it, or collect again"),
        (3, "holds no 'artifact' metadata"),
        (None, "holds no 'artifact' metadata"),
        (whole | {"protocol": {"turbo": 2}}, "has a protocol that this version does not know .*turbo"),
    ):
        save_file(load_file(path), path, {"artifact": json.dumps(entry | {"config": config})})
        with pytest.raises(ValueError, match=message):
            FrameStore.open(tmp_path)


def test_a_copy_maps_the_files_again(cut: FrameStore):
    """So that the workers of a DataLoader share what lies on disk, however they were started."""
    frames = cut.frames
    assert len(pickle.dumps(frames)) < frames[:1].nbytes
    for copied in (pickle.loads(pickle.dumps(frames)), copy.deepcopy(frames)):
        np.testing.assert_array_equal(copied[:], frames[:])
        assert all(isinstance(part, np.memmap) for part in copied._sources)
    stored = pickle.loads(pickle.dumps(cut))
    np.testing.assert_array_equal(stored.stacks(np.array([0, 57])), cut.stacks(np.array([0, 57])))


def test_shards_of_two_games_are_not_one_store(cut: FrameStore, tmp_path: Path, breakout_dir: Path):
    stray = tmp_path / f"shard-{cut.num_shards:05d}.safetensors"
    stray.write_bytes((breakout_dir / "shard-00002.safetensors").read_bytes())
    with pytest.raises(ValueError, match="has game breakout and the shards before it pong"):
        FrameStore.open(tmp_path)


def test_the_first_rounds_alone(breakout: FrameStore, breakout_dir: Path):
    first = FrameStore.open(breakout_dir, rounds=1)
    assert len(first) == breakout.round_ends[0] == first.round_ends[0]
    assert breakout.round_ends[1] == len(breakout)
    assert (~final_rows(first.episode_ids)).sum() == 900
    assert first.actions.tolist() == breakout.actions[: len(first)].tolist()
    for rounds in (0, 3):
        with pytest.raises(ValueError, match=f"holds 2 of the {rounds} rounds asked for; ask for 1 to 2"):
            FrameStore.open(breakout_dir, rounds=rounds)


def test_the_first_rounds_do_not_need_the_others(breakout_dir: Path, tmp_path: Path):
    copy = Path(shutil.copytree(breakout_dir, tmp_path / "copy"))
    first = FrameStore.open(copy, rounds=1)
    shards_module.shard_path(copy, first.num_shards).unlink()
    with pytest.raises(ValueError, match=f"lacks shard-{first.num_shards:05d}"):
        FrameStore.open(copy)
    assert len(FrameStore.open(copy, rounds=1)) == len(first)
    assert play_anew(copy).round == 1  # in the place of the rest, gap and all
    assert (~final_rows(FrameStore.open(copy).episode_ids)).sum() == 1200


def play_anew(directory: Path, keep: int = 1, policy: Policy | None = None) -> CollectResult:
    """300 steps in the place of what follows the first ``keep`` rounds."""
    protocol = FrameStore.open(directory, rounds=1).protocol
    policy = policy or RandomPolicy("breakout", seed=1, num_envs=3)
    return collect(
        directory, "breakout", 300, policy, seed=5, protocol=protocol, num_envs=3, ram=True, keep=keep
    )


def test_a_store_opened_while_a_round_is_replaced_holds_no_half_of_it(
    breakout_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    copy = Path(shutil.copytree(breakout_dir, tmp_path / "copy"))
    read, last = store_module.read_shard, shard_paths(copy)[-1].name
    replaced = False

    def slow(path: Path):
        nonlocal replaced
        if path.name == last and not replaced:
            replaced = True
            play_anew(copy)
        return read(path)

    monkeypatch.setattr(store_module, "read_shard", slow)
    found = FrameStore.open(copy)
    monkeypatch.undo()
    assert replaced
    again = FrameStore.open(copy)
    assert (len(found), found.rounds) == (len(again), again.rounds)
    assert np.array_equal(found.actions, again.actions)


def test_a_round_may_take_the_place_of_others(breakout_dir: Path, tmp_path: Path):
    copy = Path(shutil.copytree(breakout_dir, tmp_path / "copy"))
    before = {path.name: path.read_bytes() for path in shard_paths(copy)}

    def interrupted(observations: np.ndarray, env_ids: np.ndarray) -> np.ndarray:
        assert len(FrameStore.open(copy).rounds) == 2  # there until the new one is whole
        raise KeyboardInterrupt

    for keep in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            play_anew(copy, keep, interrupted)
        assert {path.name: path.read_bytes() for path in shard_paths(copy)} == before
    result = play_anew(copy)
    assert (result.round, len(FrameStore.open(copy).rounds)) == (1, 2)
    assert list(result.paths) == shard_paths(copy)[FrameStore.open(copy, rounds=1).num_shards :]
    with pytest.raises(ValueError, match="holds 2 of the 3 rounds asked for; ask for 1 to 2"):
        play_anew(copy, 3)
    result = play_anew(copy, 0)
    assert (result.round, list(result.paths)) == (0, shard_paths(copy))
    assert (~final_rows(FrameStore.open(copy).episode_ids)).sum() == 300


def rounds_found(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rounds a reader finds after each shard that goes from now on: filled in as they go."""
    unlink, replace, found = os.unlink, os.replace, []

    def read_after_shards(path: Path) -> None:
        if Path(path).name.startswith("shard-"):
            found.append(len(FrameStore.open(directory).rounds))

    def unlink_and_read(path: Path, **more: int) -> None:
        unlink(path, **more)
        read_after_shards(path)

    def move_and_read(source: Path, target: Path) -> None:
        replace(source, target)
        read_after_shards(source)

    monkeypatch.setattr(os, "unlink", unlink_and_read)
    monkeypatch.setattr(os, "replace", move_and_read)
    return found


def test_while_rounds_are_replaced_a_reader_finds_those_that_are_kept(
    breakout_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(breakout_dir, tmp_path / "copy"))
    found = rounds_found(copy, monkeypatch)
    play_anew(copy)
    assert found == [1, 1, 1]  # so a process killed at any of its three shards leaves round 0 whole


def test_what_a_killed_round_left_goes_where_the_next_one_is_shorter_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_round(directory: Path, rows: int) -> None:
        import_recording(directory, np.zeros((rows, 84, 84), np.uint8), np.zeros(rows, int), game="my_game")

    monkeypatch.setattr(shards_module, "SHARD_ROWS", 2)
    for name, all_rows in (("clean", (4, 2)), ("killed", (4, 8))):
        for rows in all_rows:
            add_round(tmp_path / name, rows)
    shard_paths(tmp_path / "killed")[-1].unlink()  # 3 of the 4 of round 1 were renamed
    (tmp_path / "killed" / ".collecting").mkdir()
    found = rounds_found(tmp_path / "killed", monkeypatch)
    add_round(tmp_path / "killed", 2)
    assert found == [1, 1, 1]  # killed again at any of them, round 0 is whole
    clean, killed = (
        [(path.name, path.read_bytes()) for path in shard_paths(tmp_path / name)]
        for name in ("clean", "killed")
    )
    assert killed == clean


def test_masks_and_empty_lists_of_rows(breakout: FrameStore):
    mask = np.zeros(len(breakout), np.bool_)
    mask[[2, 5]] = True
    np.testing.assert_array_equal(breakout.frames[mask], breakout.frames[np.array([2, 5])])
    assert breakout.frames[[]].shape == (0, 84, 84)
    with pytest.raises(IndexError, match="the mask of rows is"):
        breakout.frames[mask[:3]]
    for wrong in (0, 2.5):
        with pytest.raises(ValueError, match=f"max_frames is {wrong}"):
            breakout.mean_frame(wrong)


def test_frames_are_asked_for_by_rows_alone(cut: FrameStore):
    with pytest.raises(IndexError, match=r"rows alone, not by \(0, 1\)"):
        cut.frames[0, 1]


def test_a_shard_from_elsewhere_is_told(breakout_dir: Path, tmp_path: Path):
    """It would continue an episode that is not its own."""
    shutil.copytree(breakout_dir, tmp_path / "store")
    paths = shard_paths(tmp_path / "store")
    shutil.copy(paths[-1], tmp_path / "store" / f"shard-{len(paths):05}.safetensors")
    with pytest.raises(ValueError, match="is of round 1, where one of round 2 belongs; restore the file"):
        FrameStore.open(tmp_path / "store")


def test_a_clip_longer_than_memory_is_refused_before_there_is_room_for_it(cut: FrameStore):
    with pytest.raises(ValueError, match=r"clips reach from row 0 to 1000000000; the store has rows"):
        cut.clips(np.array([0]), 10**9)
