from pathlib import Path

import numpy as np
import pytest
from atari_data import FrameStore, import_recording, window_starts, write_video
from atari_data.video import read_frames, to_frame

FRAMES = np.random.default_rng(0).integers(0, 256, (600, 84, 84), dtype=np.uint8)
ACTIONS = np.random.default_rng(1).integers(0, 18, 600)


def test_one_episode_with_one_action_fewer_than_frames(tmp_path: Path):
    rewards = np.linspace(-1, 1, 599)
    result = import_recording(tmp_path, FRAMES, ACTIONS[:-1], rewards, game="my_game")
    store = FrameStore.open(tmp_path)
    assert (result.num_steps, result.num_rows, result.num_episodes) == (599, 600, 1)
    assert result.lengths.tolist() == [599]
    assert result.returns[0] == pytest.approx(rewards.sum(), abs=1e-4)
    assert np.array_equal(store.frames[:], FRAMES)
    assert store.actions.tolist() == [*ACTIONS[:-1].tolist(), 0]
    np.testing.assert_allclose(store.rewards, [*rewards, 0], rtol=1e-6)
    assert np.flatnonzero(store.truncated).tolist() == [598]
    assert not store.terminated.any()
    assert (store.game, store.protocol, store.seed) == ("my_game", None, None)
    assert store.rounds[0]["source"] == "recording"


def test_several_episodes_row_for_row_and_a_second_round(tmp_path: Path):
    ids = np.repeat([4, 9, 2], [3, 2, 5])
    terminated = np.zeros(10, dtype=bool)
    terminated[[1, 3]] = True
    lives = np.arange(10)
    for frames in (FRAMES[:10], 255 - FRAMES[:10]):
        result = import_recording(
            tmp_path, frames, ACTIONS[:10], np.ones(10) * (1 - np.isin(np.arange(10), [2, 4, 9])),
            terminated, game="my_game", episode_ids=ids, lives=lives,
        )  # fmt: skip
    assert result.round == 1
    assert result.lengths.tolist() == [2, 1, 4]
    assert result.returns.tolist() == [2.0, 1.0, 4.0]
    store = FrameStore.open(tmp_path)
    assert store.episode_ids.tolist() == np.repeat([0, 1, 2, 3, 4, 5], [3, 2, 5] * 2).tolist()
    assert np.flatnonzero(store.terminated).tolist() == [1, 3, 11, 13]
    assert np.flatnonzero(store.truncated).tolist() == [8, 18]
    acts = np.where(np.isin(np.arange(10), [2, 4, 9]), 255, ACTIONS[:10])  # on final rows: whatever was there
    import_recording(tmp_path / "other", FRAMES[:10], acts, game="my_game", episode_ids=ids)
    assert np.array_equal(FrameStore.open(tmp_path / "other").actions, store.actions[:10])
    assert store.actions[[2, 4, 9]].tolist() == [0, 0, 0]
    assert store.lives.tolist() == [*range(10), *range(10)]
    assert window_starts(store.episode_ids, 5).tolist() == [5, 15]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_whole_numbers_may_be_floats_that_tell_them_apart(tmp_path: Path, dtype: type):
    ids = (2.0 ** (np.finfo(dtype).nmant + 1) - 2 + np.repeat([0, 1], 5)).astype(dtype)
    assert (
        import_recording(tmp_path, FRAMES[:10], ACTIONS[:10], game="mine", episode_ids=ids).num_episodes == 2
    )


def test_the_same_frames_again_are_refused(tmp_path: Path):
    for frames in (FRAMES[:10], FRAMES[10:20]):
        import_recording(tmp_path, frames, ACTIONS[:10], game="my_game")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(
        ValueError, match="has these 10 frames already, as round 1; give others, or delete it"
    ):
        import_recording(tmp_path, FRAMES[10:20], ACTIONS[:10], game="my_game", episode_ids=[0] * 5 + [1] * 5)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert import_recording(tmp_path, FRAMES[10:19], ACTIONS[:9], game="my_game").round == 2


def test_a_video_a_folder_of_images_and_a_file_give_the_same_frames(tmp_path: Path):
    """Squares of 28 x 28 pixels in grey survive compression; a video is lossy, so up to a few levels."""
    coarse = np.random.default_rng(0).integers(0, 8, (20, 6, 6), dtype=np.uint8) * 32
    pictures = coarse.repeat(28, axis=1).repeat(28, axis=2)
    write_video(tmp_path / "play.mp4", pictures)
    (tmp_path / "images").mkdir()
    for i, picture in enumerate(pictures):
        _write_png(tmp_path / "images" / f"{7 * i}.png", picture)
    np.save(tmp_path / "play.npy", np.stack([pictures] * 3, axis=-1))
    np.savetxt(tmp_path / "actions.csv", ACTIONS[:19], fmt="%d")
    np.save(tmp_path / "rewards.npy", np.ones(19))
    stores = {}
    for source in ("play.mp4", "images", "play.npy"):
        import_recording(
            tmp_path / "out" / source, tmp_path / source, tmp_path / "actions.csv",
            tmp_path / "rewards.npy", game="my_game",
        )  # fmt: skip
        stores[source] = FrameStore.open(tmp_path / "out" / source)
        assert stores[source].actions[:-1].tolist() == ACTIONS[:19].tolist()
        assert stores[source].rewards.sum() == 19
    expected = coarse.repeat(14, axis=1).repeat(14, axis=2)
    assert np.array_equal(stores["play.npy"].frames[:], expected)
    assert np.array_equal(stores["images"].frames[:], expected)
    assert np.abs(stores["play.mp4"].frames[:].astype(int) - expected).mean() < 4


@pytest.mark.parametrize("b_frames", [0, 2])
def test_of_a_video_cut_without_encoding_it_again_what_is_shown_counts(tmp_path: Path, b_frames: int):
    """Its file keeps the pictures back to the last whole one, and says not to show them."""
    av = pytest.importorskip("av")
    picture = np.zeros((28, 28, 3), dtype=np.uint8)
    with av.open(tmp_path / "whole.mp4", "w") as out:
        stream = out.add_stream("libx264", rate=15, options={"bf": str(b_frames)})
        stream.width, stream.height, stream.pix_fmt = 28, 28, "yuv420p"
        for level in range(100):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture + level, format="rgb24")))
        out.mux(stream.encode())
    with av.open(tmp_path / "whole.mp4") as whole, av.open(tmp_path / "cut.mp4", "w") as out:
        stream = out.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.pts -= 2 / packet.time_base
                packet.dts -= 2 / packet.time_base
                packet.stream = stream
                out.mux(packet)
    count, pictures = read_frames(tmp_path / "cut.mp4")
    assert count == len(list(pictures)) == 70


def test_columns_and_grey_frames_may_have_a_last_axis_of_one_and_text_a_byte_order_mark(tmp_path: Path):
    (tmp_path / "actions.csv").write_text("\n".join(map(str, ACTIONS[:10])), encoding="utf-8-sig")
    np.save(tmp_path / "rewards.npy", np.arange(9.0)[:, None])
    actions, rewards = tmp_path / "actions.csv", tmp_path / "rewards.npy"
    import_recording(tmp_path / "out", FRAMES[:10, ..., None], actions, rewards, game="mine")
    store = FrameStore.open(tmp_path / "out")
    np.testing.assert_array_equal(store.frames[:], FRAMES[:10])
    assert store.actions[:-1].tolist() == ACTIONS[:9].tolist()
    assert store.rewards[:-1].tolist() == list(range(9))


def _numpy_header(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        b"\x93NUMPY\x01\x00v\x00",
        b"PK\x03\x04junkjunk",
        _numpy_header(b"{'descr': '|u1', 'fortran_order': False, 'shape': (20, 84, 84(, }\n"),
        _numpy_header(b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 84, 84), }\n" % 10**22),
    ],
)
@pytest.mark.parametrize("broken", ["frames", "actions"])
def test_a_broken_file_is_named(broken: str, content: bytes, tmp_path: Path):
    np.save(tmp_path / "frames.npy", np.zeros((20, 84, 84), np.uint8))
    np.save(tmp_path / "actions.npy", ACTIONS[:19])
    (tmp_path / f"{broken}.npy").write_bytes(content)
    with pytest.raises(ValueError, match=f"{broken}.npy is not"):
        import_recording(tmp_path / "out", tmp_path / "frames.npy", tmp_path / "actions.npy", game="my_game")


def _write_png(path: Path, picture: np.ndarray) -> None:
    import av

    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width = picture.shape
        stream.pix_fmt = "gray"
        for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")):
            container.mux(packet)
        container.mux(stream.encode())


def test_pictures_are_shrunk_by_area():
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4) * 10
    # rows 3 -> 2: stretches of 1.5 rows; columns 4 -> 2: pairs
    rows = np.array([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]])
    columns = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    assert to_frame(picture, (2, 2)).tolist() == np.rint(rows @ picture @ columns.T).tolist()
    assert np.array_equal(to_frame(FRAMES[0]), FRAMES[0])
    white = np.full((210, 160, 3), 255, dtype=np.uint8)
    assert (to_frame(white) == 255).all()
    assert (to_frame(white * np.array([1, 0, 0], dtype=np.uint8)) == 76).all()  # .299 * 255


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": ACTIONS[:7]}, r"actions is int64 \(7,\); give numbers of shape \(10,\) or \(9,\)"),
        ({"actions": ACTIONS[:10] + 18}, "give ids of the full action set, 0 to 17"),
        ({"actions": ACTIONS[:10] + 0.5}, "not whole"),
        ({"actions": ACTIONS[:10].reshape(5, 2)}, r"actions is int64 \(5, 2\)"),
        ({"actions": np.array(["UP"] * 10)}, "actions is <U2"),
        ({"actions": [[1], [2, 3]]}, "actions is not a row of numbers"),
        ({"actions": np.ma.masked_equal(ACTIONS[:10], ACTIONS[0])}, "actions is a masked array; fill it"),
        ({"actions": "nowhere.csv"}, "actions file nowhere.csv does not exist"),
        ({"frames": FRAMES[:10].astype(np.float32)}, r"frames is float32 \(10, 84, 84\); give uint8"),
        ({"frames": FRAMES[0]}, r"frames is uint8 \(84, 84\)"),
        ({"frames": "nowhere.mp4"}, "nowhere.mp4 does not exist"),
        ({"frames": FRAMES[:1], "actions": ACTIONS[:1]}, "has 1 frame"),
        ({"rewards": np.full(10, np.nan)}, "rewards holds NaN"),
        ({"rewards": np.ones(10)}, r"rewards\[9\] is 1.0 on the last frame"),
        ({"rewards": np.eye(10)[3] * 1e39}, "rewards are too large for float32"),
        ({"terminated": np.eye(10)[8] * 0.3}, "terminated holds numbers other than 0 and 1"),
        ({"terminated": np.eye(10)[8], "truncated": np.eye(10)[8]}, "both terminated and truncated"),
        ({"rewards": np.ones(4)}, r"rewards is float64 \(4,\)"),
        ({"terminated": np.eye(10)[4]}, r"terminated\[4\] is set inside an episode; give episode_ids"),
        ({"truncated": np.eye(10)[9]}, r"truncated\[9\] is 1.0 on the last frame"),
        ({"episode_ids": [0] * 4 + [1] * 3 + [0] * 3}, "returns to an earlier episode"),
        ({"episode_ids": [0] * 4 + [1] + [2] * 5}, "the episode at frame 4 has 1 frame"),
        ({"episode_ids": [0] * 9 + [np.inf]}, "episode_ids holds numbers that are not whole"),
        (
            {"episode_ids": [2.0**64] * 5 + [2.0**65] * 5},
            r"episode_ids holds 3.68\d+e\+19, too large for a float",
        ),
        (
            {"episode_ids": (2**24 + np.repeat([0, 1], 5)).astype(np.float32)},
            r"episode_ids holds 1\.67772e\+07, too large for a float",
        ),
        (
            {"episode_ids": (2048 + np.repeat([0, 1], 5)).astype(np.float16)},
            "episode_ids holds 2048, too large for a float",
        ),
        ({"episode_ids": [0] * 9}, r"episode_ids is int64 \(9,\)"),
        ({"lives": [256] * 10}, "lives go below 0 or above 255"),
        ({"game": "My Game"}, "use lower-case letters"),
        ({"game": "MsPacman"}, "game is 'MsPacman', which ALE calls ms_pacman; give that"),
        ({"game": "mspacman"}, "ALE calls ms_pacman"),
        ({"game": 3}, "game is 3; give a name"),
    ],
)
def test_what_does_not_fit_is_said_and_leaves_nothing(tmp_path: Path, change: dict, message: str):
    given = {"frames": FRAMES[:10], "actions": ACTIONS[:10], "game": "my_game"}
    with pytest.raises(ValueError, match=message):
        import_recording(tmp_path / "out", **{**given, **change})
    assert not (tmp_path / "out").exists()


def test_sources_that_are_no_pictures(tmp_path: Path):
    (tmp_path / "notes.mp4").write_text("not a video")
    (tmp_path / "empty").mkdir()
    (tmp_path / "actions.txt").write_text("3\n" * 300)
    for name, message in (
        ("notes.mp4", "cannot be decoded"),
        ("empty", "holds no images"),
        ("actions.txt", "actions.txt is text; give an array"),
    ):
        with pytest.raises(ValueError, match=message):
            read_frames(tmp_path / name)
    with pytest.raises(ValueError, match="no frames for"):
        write_video(tmp_path / "nothing.mp4", [])
    assert not (tmp_path / "nothing.mp4").exists()


def test_a_recording_does_not_go_beside_a_collection(breakout_dir: Path):
    with pytest.raises(ValueError, match="has protocol Protocol"):
        import_recording(breakout_dir, FRAMES[:10], ACTIONS[:10], game="breakout")


def test_what_a_video_cannot_hold_is_said(tmp_path: Path):
    grey = [np.zeros((84, 84), np.uint8)] * 2
    for frames, fps, message in (
        ([np.zeros((83, 84), np.uint8)], 15, "84 x 83; H.264 takes even sides only"),
        ([*grey, np.zeros((42, 84), np.uint8)], 15, "a picture of 84 x 42 follows some of 84 x 84"),
        (grey, 0, "fps is 0"),
        (grey, 0.0004, "fps is 0.0004; give a number from 0.01 to 1000"),
    ):
        with pytest.raises(ValueError, match=message):
            write_video(tmp_path / "film.mp4", frames, fps=fps)
    assert not list(tmp_path.iterdir())
    write_video(tmp_path / "film.mp4", grey, fps=29.97)
    assert read_frames(tmp_path / "film.mp4")[0] == 2


def test_a_speed_may_be_any_number_of_numpy(tmp_path: Path):
    for fps in (np.float32(15), np.int64(15)):
        write_video(tmp_path / "film.mp4", FRAMES[:2], fps=fps)
        assert read_frames(tmp_path / "film.mp4")[0] == 2


def test_frames_may_be_a_list(tmp_path: Path):
    assert import_recording(tmp_path, list(FRAMES), ACTIONS[:-1], game="my_game").num_rows == len(FRAMES)


def test_images_whose_names_are_equal_as_numbers_have_an_order_too(tmp_path: Path):
    for name, picture in (("1.png", FRAMES[0]), ("01.png", FRAMES[1]), ("2.png", FRAMES[2])):
        _write_png(tmp_path / name, picture)
    _, pictures = read_frames(tmp_path)
    for picture, expected in zip(pictures, FRAMES[[1, 0, 2]], strict=True):
        np.testing.assert_array_equal(to_frame(picture), expected)


def test_returns_are_sums_of_the_rewards_that_are_stored(tmp_path: Path):
    rewards = np.zeros(10)
    rewards[3] = 2**24 + 1  # which float32 does not have
    made = import_recording(tmp_path, FRAMES[:10], ACTIONS[:10], rewards=rewards, game="my_game")
    assert made.returns.tolist() == [2**24] == [FrameStore.open(tmp_path).rewards.sum()]
