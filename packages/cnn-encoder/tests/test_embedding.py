import os
import sys
import warnings

import numpy as np
import pytest
import torch
from cnn_encoder import (
    Encoder,
    EncoderConfig,
    embed,
    embed_batches,
    load_embeddings,
    resolve_precision,
    write_embeddings,
)
from cnn_encoder._artifact import save_artifact

CPU = torch.device("cpu")


class Own(torch.nn.Module):
    """An encoder that is none of ours: it makes float32 of the frames, whatever its weights are."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(84, 5)

    def forward(self, frames, background):
        return self.linear((frames.float() - background)[:, -1].mean(1))


@pytest.fixture(scope="module")
def encoder():
    return Encoder(EncoderConfig(), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def stacks():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (10, 4, 84, 84), dtype=torch.uint8, generator=generator)


def test_all_forms_of_input_give_the_same_rows(encoder, stacks):
    background = stacks.float().mean((0, 1))
    rows = embed(encoder, stacks, background, batch_size=4, precision="float32")
    assert torch.equal(rows, embed(encoder, stacks.numpy(), background, batch_size=4, precision="float32"))
    assert torch.equal(rows, embed(encoder, stacks.split(4), background, precision="float32"))
    mapped = stacks.numpy().copy()
    mapped.flags.writeable = False
    with warnings.catch_warnings(action="error"):
        assert torch.equal(rows, embed(encoder, mapped, background, batch_size=4, precision="float32"))
    turned = stacks.flip(0).numpy()[::-1]
    assert torch.equal(rows, embed(encoder, turned, background, batch_size=4, precision="float32"))
    torch.testing.assert_close(rows, encoder(stacks, background).detach(), rtol=1e-4, atol=1e-6)
    assert not rows.requires_grad
    parts = embed_batches(encoder, stacks.split(4), background, precision="float32")
    assert not any(part.is_inference() for part in parts)  # they may go into a loss


def test_bfloat16_stays_close_and_leaves_the_encoder_in_float32(encoder, stacks):
    exact = embed(encoder, stacks, None, precision="float32")
    fast = embed(encoder, stacks, None, precision="bfloat16")
    assert fast.dtype == torch.float32
    assert 0 < (exact - fast).norm(dim=1).max() < 0.05
    assert encoder.conv1.weight.dtype == torch.float32


def test_a_streamed_file_is_the_file_a_whole_write_gives(encoder, stacks, tmp_path):
    config = {"game": "pong", "precision": "float32"}
    batches = embed_batches(encoder, stacks.split(3), None, precision="float32")
    write_embeddings(tmp_path / "streamed", batches, num_frames=10, config=config)
    rows = embed(encoder, stacks, None, batch_size=3, precision="float32")
    save_artifact(tmp_path / "whole", {"embeddings": rows}, kind="embeddings", config=config)
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "whole").read_bytes()
    loaded, loaded_config = load_embeddings(tmp_path / "streamed")
    assert torch.equal(loaded, rows)
    assert loaded_config == config


def test_a_file_without_embeddings_is_told(tmp_path):
    save_artifact(tmp_path / "file", {"other": torch.zeros(2, 3)}, kind="embeddings", config={})
    with pytest.raises(ValueError, match="holds no tensor named embeddings"):
        load_embeddings(tmp_path / "file")


def test_what_still_has_a_gradient_and_numpys_count_can_be_written(tmp_path):
    rows = torch.randn(4, 3, requires_grad=True)
    write_embeddings(tmp_path / "file", [rows], num_frames=np.int64(4))
    assert torch.equal(load_embeddings(tmp_path / "file")[0], rows.detach())
    with pytest.raises(ValueError, match=r"a batch has shape \(\); expected \(B, D\)"):
        write_embeddings(tmp_path / "other", [torch.tensor(1.0)], num_frames=1)
    with pytest.raises(ValueError, match="is a directory; give the name of a file"):
        write_embeddings(tmp_path, iter(lambda: pytest.fail("embedded for nothing"), None), num_frames=1)


@pytest.mark.parametrize("num_frames", [9, 11])
def test_a_wrong_number_of_rows_leaves_what_was_there(tmp_path, num_frames):
    path = tmp_path / "embeddings"
    path.write_text("older")
    with pytest.raises(ValueError, match=f"10 rows, num_frames is {num_frames}"):
        write_embeddings(path, torch.zeros(10, 384).split(4), num_frames=num_frames)
    assert [p.name for p in tmp_path.iterdir()] == ["embeddings"]
    assert path.read_text() == "older"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_is_told_with_the_file(tmp_path):
    path = tmp_path / "embeddings"
    (tmp_path / f".embeddings.{os.getpid()}.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as told:
        write_embeddings(path, torch.zeros(10, 384).split(4), num_frames=10)
    assert told.value.filename == str(path)
    assert not list(tmp_path.iterdir())


def test_a_config_that_cannot_be_written_is_told_before_anything_is_embedded(tmp_path):
    def batches():
        raise AssertionError
        yield torch.zeros(1, 3)

    for config in ({"path": tmp_path}, {"tensor": torch.zeros(2)}, {1: 2, "a": 3}):
        with pytest.raises(ValueError, match="the config of the embeddings artifact cannot be written"):
            write_embeddings(tmp_path / "file", batches(), num_frames=1, config=config)
    assert not list(tmp_path.iterdir())


def test_precision_by_name():
    assert resolve_precision("float32", CPU) == torch.float32
    assert resolve_precision("bfloat16", CPU) == torch.bfloat16
    assert resolve_precision("auto", CPU) in (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match=r"'half'.*'auto'"):
        resolve_precision("half", CPU)


def test_nothing_to_embed_is_one_clear_sentence(encoder):
    with pytest.raises(ValueError, match="stacks is empty"):
        embed(encoder, [], None)
    with pytest.raises(ValueError, match="batch_size is 0"):
        embed(encoder, torch.zeros(1, 4, 84, 84), None, batch_size=0)


def test_what_is_no_batch_or_no_background_is_refused():
    encoder, stacks = Encoder(EncoderConfig()), torch.zeros(6, 4, 84, 84, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"a batch is torch\.uint8 \(4, 84, 84\); expected"):
        embed(encoder, list(stacks), None)
    with pytest.raises(ValueError, match="a batch is torch"):  # of 0 to 1 it would be all but black
        embed(encoder, stacks / 255, None)
    with pytest.raises(ValueError, match=r"background has shape \(6, 84, 84\)"):
        embed(encoder, stacks, torch.zeros(6, 84, 84), batch_size=3)
    assert torch.equal(embed(encoder, stacks, np.zeros((84, 84), np.float32)), embed(encoder, stacks, None))


def test_the_precision_asked_for_holds_under_autocast():
    encoder = Encoder(EncoderConfig())
    stacks = torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)
    plain = embed(encoder, stacks, None, precision="float32")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(embed(encoder, stacks, None, precision="float32"), plain)


@pytest.mark.parametrize(("precision", "error"), [("float32", 1e-6), ("bfloat16", 6e-3)])
def test_a_module_of_ones_own_embeds_and_keeps_its_weights(stacks, precision, error):
    own, background = Own(), torch.full((84, 84), 9.0)
    rows = embed(own, stacks, background, batch_size=4, precision=precision)
    assert rows.dtype == own.linear.weight.dtype == torch.float32
    exact = own(stacks, background)
    assert (rows - exact).abs().max() < error * exact.abs().max()  # other batches, other sums: not to the bit


def test_a_module_without_weights_embeds():
    class Mean(torch.nn.Module):
        def forward(self, stacks, background):
            return stacks.float().mean((2, 3))

    stacks = torch.arange(3).byte().view(3, 1, 1, 1).expand(3, 4, 84, 84)
    assert torch.equal(embed(Mean(), stacks, None), torch.arange(3.0)[:, None].expand(3, 4))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_comes_from_a_gpu_is_waited_for(encoder, stacks, device):
    """Told not to wait, PyTorch copies to the CPU so, and what is read there may be anything."""
    told = []

    class Elsewhere(torch.Tensor):
        def to(self, *where, **how):
            told.append(how)
            return self.as_subclass(torch.Tensor)

    Elsewhere.device = torch.device(device)
    embed(encoder, [stacks[:2].as_subclass(Elsewhere)], None)
    assert told == [{"non_blocking": device == "cpu"}]


def test_embedding_trains_nothing(stacks):
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5))
            self.layers[1].eval()

        def forward(self, stacks, background):
            return self.layers(stacks.float().mean((2, 3)))

    own = Own()
    first, second = (embed(own, stacks, None) for _ in range(2))
    assert torch.equal(first, second)
    assert int(own.layers[0].num_batches_tracked) == 0
    assert [part.training for part in own.modules()] == [True, True, True, False]


@pytest.mark.parametrize("widths", [(0, 3), (0, 0), (3, 0)])
def test_rows_without_a_width_leave_no_file(tmp_path, widths):
    path = tmp_path / "e.safetensors"
    with pytest.raises(ValueError, match="a batch has shape"):
        write_embeddings(path, [torch.zeros(2, width) for width in widths], num_frames=4)
    assert not any(tmp_path.iterdir())


def test_no_batches_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"there are no batches, .* give at least one"):
        write_embeddings(tmp_path / "e.safetensors", [], num_frames=0)
    assert not any(tmp_path.iterdir())
