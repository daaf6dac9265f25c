import pytest
import torch
from cnn_encoder import Decoder, DecoderBatch, DecoderConfig, DecoderObjective, load_decoder, save_decoder


@pytest.fixture
def decoder():
    return Decoder(DecoderConfig(), generator=torch.Generator().manual_seed(0))


def test_draws_frames_in_range_on_the_background(decoder):
    decoder.eval()
    torch.nn.init.normal_(decoder.grow2.weight)
    z = torch.randn(2, 3, 384)
    background = torch.full((84, 84), 100.0)
    frames = decoder(z, background)
    assert frames.shape == (2, 3, 84, 84)
    torch.testing.assert_close(frames, (decoder.foreground(z) + 100).clamp(0, 255))
    loud = decoder(1000 * z, background)
    assert loud.min() == 0
    assert loud.max() == 255


def test_loss_by_hand(decoder):
    assert not decoder.eval().foreground(torch.randn(2, 384)).any()  # nothing but the background as yet
    background = torch.full((84, 84), 51.0)
    frame = torch.full((1, 84, 84), 51, dtype=torch.uint8)
    frame[0, 0, 0] = 102  # one pixel of foreground, (51 / 255)^2 = 0.04
    loss, metrics = DecoderObjective(decoder)(DecoderBatch(torch.zeros(1, 384), frame, background))
    assert loss.item() == pytest.approx(5 * 0.04 / 84**2)
    assert metrics["mse"].item() == pytest.approx(0.04 / 84**2)


def test_what_is_more_than_ten_levels_darker_is_foreground_too(decoder: Decoder) -> None:
    background = torch.full((84, 84), 51.0)
    frame = torch.full((1, 84, 84), 51, dtype=torch.uint8)
    frame[0, 0, :4] = torch.tensor([51 - 11, 51 + 11, 51 - 10, 51 + 10])  # of these the first two
    loss, _ = DecoderObjective(decoder.eval())(DecoderBatch(torch.zeros(1, 384), frame, background))
    assert loss.item() == pytest.approx((5 * 2 * 11**2 + 2 * 10**2) / 255**2 / 84**2)


def test_a_common_offset_and_the_unit_of_an_embedding_do_not_matter(decoder):
    torch.nn.init.normal_(decoder.grow2.weight)
    z = torch.randn(64, 384, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(decoder.foreground(z), decoder.foreground(7 + 5 * z), rtol=1e-3, atol=0.5)


def test_sends_no_gradient_into_the_embedding_and_learns_a_frame(decoder):
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2, 384, generator=generator, requires_grad=True)
    frames = torch.zeros(2, 84, 84, dtype=torch.uint8)
    for i in range(2):
        frames[i, 20 * i : 20 * i + 10, 30:40] = 200
    objective = DecoderObjective(decoder)
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-3)
    losses = []
    for _ in range(20):
        loss, _ = objective(DecoderBatch(z, frames, torch.zeros(84, 84)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert z.grad is None


def test_what_would_be_spread_over_the_batch_is_refused(decoder):
    batch = DecoderBatch(
        torch.zeros(2, 384), torch.zeros(2, 84, 84, dtype=torch.uint8), torch.zeros(2, 84, 84)
    )
    for change in (
        {"embeddings": batch.embeddings[0]},
        {"frames": batch.frames[:1]},
        {"frames": batch.frames[0]},
        {"background": torch.zeros(3, 84, 84)},
        {"background": torch.zeros(84)},
    ):
        with pytest.raises(ValueError, match=r"expected \(B, D\), \(B, 84, 84\)"):
            DecoderObjective(decoder)(batch._replace(**change))


@pytest.mark.parametrize("width", [32, 768])
def test_embeddings_of_another_width_are_refused(decoder, width):
    with pytest.raises(ValueError, match=f"has width {width} and this decoder takes 384"):
        decoder(torch.zeros(2, width))


def test_a_saved_decoder_comes_back_the_same(decoder, tmp_path):
    torch.nn.init.normal_(decoder.grow2.weight)
    z = torch.randn(2, 384)
    decoder(3 * z)  # in training: what it divides by follows what it sees
    save_decoder(tmp_path / "decoder", decoder)
    loaded = load_decoder(tmp_path / "decoder")
    assert loaded.scale.running_var.max() > 1.1
    assert torch.equal(loaded(z), decoder.eval()(z))
    assert loaded.config == decoder.config
    with pytest.raises(ValueError, match="foreground_weight is -1"):
        DecoderConfig(foreground_weight=-1)


@pytest.mark.parametrize("shape", [(84,), (3, 84, 84), (2, 2, 84, 84), (84, 83)])
def test_a_background_of_other_frames_is_refused_and_changes_nothing(decoder, shape):
    decoder.train()
    before = decoder.scale.running_mean.clone()
    embeddings = torch.randn(2, decoder.config.embedding_dim)
    with pytest.raises(ValueError, match=r"background is .* for embeddings"):
        decoder(embeddings, torch.zeros(shape))
    assert torch.equal(decoder.scale.running_mean, before)
    assert decoder(embeddings, torch.zeros(2, 84, 84)).shape == (2, 84, 84)


def test_frames_are_gray_levels(decoder):
    batch = DecoderBatch(torch.zeros(1, 384), torch.rand(1, 84, 84), torch.zeros(84, 84))
    with pytest.raises(ValueError, match=r"frames are torch.float32; give gray levels as uint8"):
        DecoderObjective(decoder)(batch)
