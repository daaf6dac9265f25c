import math
import warnings

import numpy as np
import pytest
import torch
from cnn_encoder import (
    ContrastiveConfig,
    ContrastiveObjective,
    Encoder,
    EncoderConfig,
    load_encoder,
    mean_frame,
    save_encoder,
    stack_frames,
)
from cnn_encoder._artifact import save_artifact
from torch import nn


@pytest.fixture
def encoder():
    return Encoder(EncoderConfig(), generator=torch.Generator().manual_seed(0))


def random_frames(*shape, seed=0):
    return torch.randint(
        0, 256, (*shape, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_has_the_published_number_of_parameters(encoder):
    assert sum(p.numel() for p in encoder.parameters()) == 1_881_120


def test_is_the_sequence_it_says_it_is(encoder):
    frames, background = random_frames(3, 4), torch.rand(84, 84) * 255
    plain = nn.Sequential(
        encoder.conv1, nn.ReLU(), encoder.conv2, nn.ReLU(), encoder.conv3, nn.ReLU(),
        nn.Flatten(), encoder.hidden, nn.ReLU(), encoder.out,
    )  # fmt: skip
    expected = plain((frames.float() - background) / 255)
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(encoder(frames, background), expected, rtol=1e-4, atol=1e-6)


def test_output_is_float32_of_unit_norm_for_any_leading_shape(encoder):
    z = encoder(random_frames(2, 3, 4))
    assert z.shape == (2, 3, 384)
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(2, 3))
    assert encoder(random_frames(4)).shape == (384,)
    torch.testing.assert_close(z.flatten(0, 1), encoder(random_frames(2, 3, 4).flatten(0, 1)))
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(random_frames(2, 4)).dtype == torch.float32


def test_a_background_for_each_frame_equals_one_at_a_time(encoder):
    frames, backgrounds = random_frames(2, 4), torch.rand(2, 84, 84) * 255
    together = encoder(frames, backgrounds)
    apart = torch.stack([encoder(f[None], b)[0] for f, b in zip(frames, backgrounds, strict=True)])
    torch.testing.assert_close(together, apart)
    assert not torch.allclose(together, encoder(frames))


def test_float_frames_equal_uint8_frames(encoder):
    frames = random_frames(2, 4)
    assert torch.equal(encoder(frames), encoder(frames.float()))


def test_a_generator_decides_the_weights():
    def weights(seed):
        encoder = Encoder(EncoderConfig(), generator=torch.Generator().manual_seed(seed))
        return torch.cat([p.flatten() for p in encoder.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_stack_frames_is_a_view_of_every_four_consecutive_frames():
    clip = random_frames(2, 7)
    stacks = stack_frames(clip)
    assert stacks.shape == (2, 4, 4, 84, 84)
    for t in range(4):
        assert torch.equal(stacks[:, t], clip[:, t : t + 4])
    assert stacks.data_ptr() == clip.data_ptr()
    assert torch.equal(stack_frames(clip.numpy()), stacks)
    backwards = clip.flip(1).numpy()[:, ::-1]
    backwards.flags.writeable = False
    with warnings.catch_warnings(action="error"):
        assert torch.equal(stack_frames(backwards), stacks)


@pytest.mark.parametrize("own", [None, (84, 84), (2, 84, 84)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_clip_is_embedded_as_its_stacks_are(encoder, own, dtype):
    clips = random_frames(2, 7)
    background = None if own is None else 255 * torch.rand(own, generator=torch.Generator().manual_seed(3))
    per_stack = background.unsqueeze(1) if own == (2, 84, 84) else background
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert torch.equal(encoder.embed_clips(clips, background), encoder(stack_frames(clips), per_stack))


def test_mean_frame_reads_mapped_files_and_what_only_slices(tmp_path, recwarn):
    frames = np.random.default_rng(0).integers(0, 256, (10, 84, 84), dtype=np.uint8)
    np.save(tmp_path / "frames.npy", frames)
    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r")

    class Shards:
        def __len__(self):
            return 10

        def __getitem__(self, rows):
            return mapped[rows]

    for given in (mapped, Shards()):
        torch.testing.assert_close(mean_frame(given, chunk=4), torch.from_numpy(frames).float().mean(0))
    assert not recwarn.list


def test_mean_frame_is_the_mean_over_chunks():
    frames = random_frames(11)
    torch.testing.assert_close(mean_frame(frames, chunk=4), frames.float().mean(0))


def test_a_saved_encoder_comes_back_the_same(encoder, tmp_path):
    backgrounds = {"pong": torch.rand(84, 84), "breakout": torch.rand(84, 84)}
    state = torch.random.get_rng_state()
    for name in ("a", "b"):
        save_encoder(tmp_path / name, encoder, backgrounds)
    loaded, loaded_backgrounds = load_encoder(tmp_path / "a")
    assert torch.equal(state, torch.random.get_rng_state())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert loaded.config == encoder.config
    assert loaded_backgrounds.keys() == backgrounds.keys()
    assert all(torch.equal(loaded_backgrounds[g], backgrounds[g]) for g in backgrounds)
    assert torch.equal(loaded(random_frames(2, 4)), encoder(random_frames(2, 4)))
    assert all(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e(torch.zeros(2, 3, 84, 84)), r"\(2, 3, 84, 84\).*expected"),
        (lambda e: e(torch.zeros(2, 4, 84, 84), torch.zeros(80, 80)), r"\(80, 80\).*mean frame"),
        (lambda e: stack_frames(torch.zeros(1, 3, 84, 84)), r"\(1, 3, 84, 84\).*T >= 1"),
        (lambda e: e.embed_clips(torch.zeros(2, 7, 80, 84)), r"\(2, 7, 80, 84\).*T >= 1"),
        (lambda e: e.embed_clips(torch.zeros(2, 7, 84, 84), torch.zeros(3, 84, 84)), "or one for each"),
        (lambda e: mean_frame(torch.zeros(0, 84, 84)), r"N >= 1"),
        (lambda e: EncoderConfig(embedding_dim=0), "embedding_dim is 0"),
        (lambda e: EncoderConfig(embedding_dim=1.5), "embedding_dim is 1.5; give a whole number"),
        (lambda e: ContrastiveConfig(layout_frequencies=1.5), "layout_frequencies is 1.5"),
        (lambda e: load_encoder("missing.safetensors"), "does not exist"),
    ],
)
def test_wrong_input_is_one_clear_sentence(encoder, call, message):
    with pytest.raises(ValueError, match=message):
        call(encoder)


@pytest.mark.parametrize("shape", [(5, 84, 84), (3, 84, 84), (2, 1, 84, 84), (84, 1, 84)])
def test_a_background_of_other_stacks_is_refused(shape):
    """(3, 84, 84) would be taken for one a step, not one a stretch; (5, 84, 84) would make five of one."""
    frames = torch.zeros(3, 2, 4, 84, 84, dtype=torch.uint8)
    with pytest.raises(ValueError, match="background has shape"):
        Encoder(EncoderConfig())(frames, torch.zeros(shape))


def test_no_stacks_have_no_embeddings():
    assert Encoder(EncoderConfig())(torch.zeros(0, 4, 84, 84, dtype=torch.uint8)).shape == (0, 384)


def test_a_background_is_the_mean_of_frames_only():
    frames = np.full((3, 84, 84), 7, np.uint8)
    assert torch.equal(mean_frame(frames), torch.full((84, 84), 7.0))
    for wrong in (frames.astype(np.float32), frames[:, :60], frames[:0]):
        with pytest.raises(ValueError, match=r"expected uint8 \(N, 84, 84\)"):
            mean_frame(wrong)


def test_a_compiled_encoder_and_a_shared_background_can_be_kept(tmp_path):
    encoder, background = Encoder(EncoderConfig()), np.zeros((84, 84), np.float32)
    shared = torch.as_tensor(background)
    save_encoder(tmp_path / "a", encoder, {"pong": shared, "breakout": shared})
    save_encoder(tmp_path / "b", torch.compile(encoder), {"pong": background, "breakout": background})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(ValueError, match="the background of pong is"):
        save_encoder(tmp_path / "c", encoder, {"pong": shared * torch.nan})
    assert not (tmp_path / "c").exists()


def test_a_file_whose_parts_do_not_fit_is_told(tmp_path):
    encoder = Encoder(EncoderConfig())
    weights = dict(encoder.state_dict())
    good = {"embedding_dim": 384, "hidden_dim": 512}
    for tensors, config, told in (
        ({name: t for name, t in weights.items() if name != "out.bias"}, good, r"describe \(out.bias\)"),
        ({f"{name}s": t for name, t in weights.items()}, good, "and 17 more"),
        (weights, good | {"hidden_dim": 4}, r"describe \(hidden.bias, hidden.weight, out.weight\)"),
        (weights | {"out.bias": weights["out.bias"] * math.nan}, good, r"infinite weights \(out.bias\)"),
        (weights | {"background.pong": torch.zeros(3)}, good, "a background of pong that is no mean frame"),
        (weights, good | {"colour": True}, "settings that this version does not understand .*colour"),
    ):
        save_artifact(tmp_path / "x", tensors, kind="encoder", config=config)
        with pytest.raises(ValueError, match=told):
            load_encoder(tmp_path / "x")
    save_artifact(
        tmp_path / "x", {name: t.half() for name, t in weights.items()}, kind="encoder", config=good
    )
    assert load_encoder(tmp_path / "x")[0].conv1.weight.dtype == torch.float32


def test_an_objective_is_no_encoder_to_be_saved(tmp_path):
    encoder = Encoder(EncoderConfig(embedding_dim=8, hidden_dim=8))
    with pytest.raises(ValueError, match="a ContrastiveObjective was given to be saved; give its Encoder"):
        save_encoder(tmp_path / "e.safetensors", ContrastiveObjective(encoder, ContrastiveConfig()), {})
    save_encoder(tmp_path / "e.safetensors", torch.compile(encoder), {})
    assert load_encoder(tmp_path / "e.safetensors")[0].config == encoder.config
    torch.nn.init.constant_(encoder.conv1.weight, torch.inf)
    with pytest.raises(ValueError, match=r"conv1\.weight of the Encoder holds NaN or infinity"):
        save_encoder(tmp_path / "e.safetensors", encoder, {})


@pytest.mark.parametrize("chunk", [0, -1])
def test_frames_are_read_at_least_one_at_a_time(chunk) -> None:
    with pytest.raises(ValueError, match=f"chunk is {chunk}; give how many rows"):
        mean_frame(torch.ones(5, 84, 84, dtype=torch.uint8), chunk=chunk)


def test_a_background_may_be_a_reversed_array(encoder, tmp_path) -> None:
    background = np.arange(84 * 84, dtype=np.float32).reshape(84, 84)[::-1]
    save_encoder(tmp_path / "encoder.safetensors", encoder, {"pong": background})
    _, backgrounds = load_encoder(tmp_path / "encoder.safetensors")
    np.testing.assert_array_equal(backgrounds["pong"].numpy(), background)
