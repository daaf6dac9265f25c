import pytest
import torch
from cnn_encoder import (
    ClipBatch,
    ContrastiveConfig,
    ContrastiveObjective,
    Encoder,
    EncoderConfig,
    random_shift,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_stretch_moves_as_one_and_its_background_with_it_and_edges_repeat():
    frames = torch.randint(256, (64, 2, 5, 6), dtype=torch.uint8, generator=generator())
    background = frames[:, 0].float()
    moved, behind = random_shift(frames, background, 1, generator=generator(1))
    assert moved.dtype == torch.uint8
    torch.testing.assert_close(moved[:, 0].float(), behind)
    padded = torch.nn.functional.pad(frames.float(), (1, 1, 1, 1), mode="replicate").byte()
    seen = set()
    for stretch, result in zip(padded, moved, strict=True):
        crops = {(y, x): stretch[:, y : y + 5, x : x + 6] for y in range(3) for x in range(3)}
        found = {place for place, crop in crops.items() if torch.equal(crop, result)}
        assert len(found) == 1
        seen |= found
    assert len(seen) == 9  # 64 stretches take every place


def test_nothing_moves_by_no_pixels_and_one_background_serves_all():
    frames = torch.randint(256, (3, 2, 5, 6), dtype=torch.uint8, generator=generator())
    moved, behind = random_shift(frames, torch.arange(30.0).view(1, 5, 6), 0)
    assert torch.equal(moved, frames)
    assert torch.equal(behind, torch.arange(30.0).view(1, 5, 6).expand(3, 5, 6))


def test_the_programs_device_changes_nothing():
    frames = torch.randint(256, (3, 2, 5, 6), dtype=torch.uint8, generator=generator())
    background, draws = frames[:1, 0].float(), generator(1)
    expected = random_shift(frames, background, 1, generator=generator(1))
    with torch.device("meta"):
        found = random_shift(frames, background, 1, generator=draws)
    assert all(map(torch.equal, found, expected))


def test_an_objective_shifts_in_training_only():
    encoder = Encoder(EncoderConfig(embedding_dim=16), generator=generator())
    frames = torch.randint(256, (2, 8, 84, 84), dtype=torch.uint8, generator=generator())
    batch = ClipBatch(frames, torch.zeros(2, 5, dtype=torch.int64), torch.zeros(1, 84, 84))
    plain, shifting = (
        ContrastiveObjective(encoder, ContrastiveConfig(shift=shift), generator=generator())
        for shift in (0, 4)
    )
    assert torch.equal(plain.eval()(batch)[0], shifting.eval()(batch)[0])
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(float(shifting.train()(batch)[1]["info_nce"]))
    assert losses[0] == losses[1] != losses[2]


def test_refuses():
    frames = torch.zeros(2, 3, 5, 6)
    with pytest.raises(ValueError, match="pixels is -1"):
        random_shift(frames, torch.zeros(1, 5, 6), -1)
    with pytest.raises(ValueError, match=r"background is \(5, 6\)"):
        random_shift(frames, torch.zeros(5, 6), 1)
    for shift in (-1, 1.5):
        with pytest.raises(ValueError, match=f"shift is {shift}"):
            ContrastiveConfig(shift=shift)


def test_the_generator_draws_the_shifts():
    frames = torch.randint(256, (16, 2, 9, 9), dtype=torch.uint8, generator=generator())
    before = torch.get_rng_state()
    one, other = (random_shift(frames, torch.zeros(1, 9, 9), 4, generator=generator(1))[0] for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:Guards may run slower")
def test_shifts_compile_for_any_number_of_stretches():
    compiled = torch.compile(random_shift, backend="aot_eager")
    for stretches in (2, 5, 3):
        frames = torch.randint(256, (stretches, 5, 8, 8), dtype=torch.uint8, generator=generator())
        torch.manual_seed(stretches)
        expected = random_shift(frames, torch.zeros(1, 8, 8), 2)
        torch.manual_seed(stretches)
        for found, same in zip(compiled(frames, torch.zeros(1, 8, 8), 2), expected, strict=True):
            assert torch.equal(found, same)
