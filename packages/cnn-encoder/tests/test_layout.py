import math

import pytest
import torch
import torch.nn.functional as F
from cnn_encoder.bands import lower_band, membership
from cnn_encoder.layout import (
    banded_layout,
    layout,
    loudness,
    low_frequencies,
    moving_parts,
    still_background,
)
from cnn_encoder.running import RunningWhitening


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def stretch(size, positions, level=200, still=50):
    """A square of ``size`` pixels at each of the positions (y, x) in turn: uint8 (T, 84, 84)."""
    frames = torch.full((len(positions), 84, 84), still, dtype=torch.uint8)
    for frame, (y, x) in zip(frames, positions, strict=True):
        frame[y : y + size, x : x + size] = level
    return frames


def plain(level):
    return torch.full((84, 84), level, dtype=torch.uint8)


def test_what_stands_still_is_the_background():
    frames = stretch(8, [(30, 2 * t) for t in range(20)])
    frames[:, 60:70, 10:20] = 90  # a wall
    background = still_background(frames)
    assert background.dtype == torch.uint8
    assert (background[60:70, 10:20] == 90).all()
    assert ((background == 50) | (background == 90)).all()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 10])
def test_the_background_is_the_lower_median_of_every_pixel(count):
    frames = torch.randint(0, 256, (2, count, 84, 84), dtype=torch.uint8, generator=generator())
    assert torch.equal(still_background(frames, stride=1), frames.median(1).values)
    assert torch.equal(still_background(frames, stride=4), frames[:, ::4].median(1).values)


def test_a_share_is_of_all_contrasts_in_the_window():
    frames = torch.randint(0, 256, (2, 84, 84), dtype=torch.uint8, generator=generator())
    contrast = (frames.float() - 100).abs().sub(12).clamp(min=0)
    around = 25 * F.avg_pool2d(contrast[:, None], 5, stride=1, padding=2)[:, 0]  # beyond the edge is nothing
    share = moving_parts(frames, plain(100))[:, 0]
    torch.testing.assert_close(share, contrast / (around + 60))


def test_moving_parts_of_one_pixel_by_hand():
    frame = torch.full((84, 84), 100, dtype=torch.uint8)
    frame[20, 30] = 172  # 72 above the background, 60 above the contrast that counts
    share, bright = moving_parts(frame, plain(100))
    assert share[20, 30].item() == pytest.approx(60 / (60 + 60))
    assert bright[20, 30].item() == pytest.approx(0.5 * 72 / 100)
    assert share.sum() == share[20, 30]
    assert bright.sum() == bright[20, 30]


def test_noise_is_not_a_thing():
    frame = torch.randint(90, 111, (84, 84), generator=generator()).to(torch.uint8)
    assert moving_parts(frame, plain(100)).abs().max() == 0


def test_a_dark_thing_has_the_share_of_a_bright_one_and_the_opposite_brightness():
    background = plain(100)
    share, bright = moving_parts(stretch(3, [(40, 40)], level=160, still=100)[0], background)
    dark_share, dark = moving_parts(stretch(3, [(40, 40)], level=40, still=100)[0], background)
    torch.testing.assert_close(share, dark_share)
    torch.testing.assert_close(bright, -dark)


def test_a_small_thing_weighs_about_as_much_as_one_that_fills_the_window():
    background = plain(50)
    weights = [moving_parts(stretch(n, [(40, 40)])[0], background)[0].sum().item() for n in (1, 2, 3)]
    assert 0.65 < weights[0] < weights[1] < weights[2] < 1  # by contrast they would be as 1 to 4 to 9


def test_low_frequencies_by_the_definition():
    maps = torch.zeros(1, 84, 84)
    maps[0, 10, 60] = 1
    found = low_frequencies(maps, 3).view(3, 3)
    for k in range(3):
        for m in range(3):
            expected = math.cos(math.pi * k * 10.5 / 84) * math.cos(math.pi * m * 60.5 / 84)
            assert found[k, m].item() == pytest.approx(expected, abs=1e-6)


def test_layout_follows_what_moves_and_nothing_else():
    positions = [(30, 3 * t) for t in range(20)]
    plain = stretch(4, positions)
    walled = plain.clone()
    walled[:, 60:70] = 90
    found = layout(torch.stack([plain, walled]), 4)
    assert found.shape == (2, 20, 32)
    torch.testing.assert_close(found[0], found[1])
    column = found[0, :, 1] / found[0, :, 0]  # cos(pi x / 84) of the centre
    expected = torch.tensor([math.cos(math.pi * (x + 2) / 84) for _, x in positions])
    torch.testing.assert_close(column, expected, atol=2e-3, rtol=0)


def test_layout_is_the_same_under_autocast():
    frames = stretch(4, [(30, 3 * t) for t in range(8)]).unsqueeze(0)
    expected = layout(frames, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = layout(frames, 3)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_a_level_belongs_to_the_two_bands_around_it():
    levels = torch.tensor([0, 30, 60, 90, 240, 255], dtype=torch.uint8)
    table, lower = membership(5, torch.device("cpu")), lower_band(levels, 5)  # around 0, 60, 120, 180, 240
    assert lower.tolist() == [0, 0, 1, 1, 3, 3]
    assert table[levels.int(), lower].tolist() == pytest.approx([1, 0.5, 1, 0.5, 0, 0], abs=1e-6)
    every = torch.arange(256, dtype=torch.uint8)
    for count in (2, 8, 12):
        table, lower = membership(count, torch.device("cpu")), lower_band(every, count)
        both = table[every.int(), lower] + table[every.int(), lower + 1]
        torch.testing.assert_close(both, torch.ones(256))
        torch.testing.assert_close(table.sum(1), both)


def banded(frames, num_frequencies=4, num_bands=5):
    return banded_layout(frames[None], num_frequencies, num_bands)[0].unflatten(
        -1, (num_bands, num_frequencies, num_frequencies)
    )


def test_the_layout_of_a_band_by_hand():
    frames = torch.full((5, 84, 84), 20, dtype=torch.uint8)
    frames[4, 10, 60] = 90  # 58 above the contrast that counts; half in the band around 60, half around 120
    found = banded(frames, 3)
    half = 58 / (58 + 60) / 2
    for k in range(3):
        for m in range(3):
            place = math.cos(math.pi * k * 10.5 / 84) * math.cos(math.pi * m * 60.5 / 84)
            for band in (1, 2):
                assert found[4, band, k, m].item() == pytest.approx(place * half / (half + 0.2), abs=1e-6)
    assert not found[4, [0, 3, 4]].any()
    assert not found[:4].any()


def test_bands_keep_things_of_different_brightness_apart():
    bright = stretch(4, [(30, 3 * t) for t in range(20)], level=240)
    both = bright.clone()
    for t in range(20):
        both[t, 70 - 3 * t : 74 - 3 * t, 60:64] = 120
    alone, found = banded(bright), banded(both)
    torch.testing.assert_close(found[:, 4], alone[:, 4])
    column = found[:, 4, 0, 1] / found[:, 4, 0, 0]
    expected = torch.tensor([math.cos(math.pi * (3 * t + 2) / 84) for t in range(20)])
    torch.testing.assert_close(column, expected, atol=2e-3, rtol=0)
    row = found[:, 2, 1, 0] / found[:, 2, 0, 0]
    expected = torch.tensor([math.cos(math.pi * (72 - 3 * t) / 84) for t in range(20)])
    torch.testing.assert_close(row, expected, atol=2e-3, rtol=0)


def test_what_all_bands_hold_is_the_layout_of_everything():
    frames = torch.randint(0, 256, (1, 6, 84, 84), dtype=torch.uint8, generator=generator())
    found = banded_layout(frames, 4, 12).view(6, 12, 16)
    held = 0.2 * found[..., :1] / (1 - found[..., :1])  # solved for the sum of the band's shares
    share, _ = layout(frames, 4).view(6, 2, 16).unbind(1)
    torch.testing.assert_close((found * (held + 0.2)).sum(1), share, rtol=1e-4, atol=1e-2)


def test_the_lowest_frequencies_are_the_loudest():
    found = loudness(3).view(3, 3)
    torch.testing.assert_close(found[0, 0] / found[1, 2], torch.tensor(6.0).sqrt())
    torch.testing.assert_close(found.square().mean(), torch.tensor(1.0))


def test_few_pixels_are_summed_as_many_are(monkeypatch):
    frames = torch.stack([stretch(n, [(30, 3 * t) for t in range(8)], level=130) for n in (3, 6)])
    few = banded_layout(frames, 3, 4)
    monkeypatch.setattr(torch.Tensor, "count_nonzero", torch.Tensor.numel)
    torch.testing.assert_close(banded_layout(frames, 3, 4), few)


def test_a_compiled_banded_layout_looks_at_every_pixel_and_finds_the_same():
    frames = torch.stack([stretch(n, [(30, 3 * t) for t in range(8)]) for n in (3, 6)])
    compiled = torch.compile(banded_layout, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(frames, 3, 4), banded_layout(frames, 3, 4))


def test_a_banded_layout_is_the_same_under_autocast():
    frames = stretch(4, [(30, 3 * t) for t in range(8)]).unsqueeze(0)
    expected = banded_layout(frames, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = banded_layout(frames, 3, 4)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_whitening_makes_every_direction_equally_strong():
    mixed = torch.randn(5000, 4, generator=generator()) @ torch.diag(torch.tensor([10.0, 3.0, 1.0, 0.3]))
    mixed = mixed @ torch.linalg.qr(torch.randn(4, 4, generator=generator(1)))[0] + 3
    whiten = RunningWhitening(4, floor=0)
    white = whiten(mixed)
    torch.testing.assert_close(white.mT @ white / 5000, torch.eye(4), atol=2e-3, rtol=0)
    torch.testing.assert_close(white.mean(0), torch.zeros(4), atol=2e-3, rtol=0)
    before = whiten.moment.total.clone()
    assert torch.equal(whiten.eval()(mixed), white)
    assert torch.equal(whiten.moment.total, before)
    torch.testing.assert_close(RunningWhitening(4, floor=0).eval()(mixed), white, atol=1e-3, rtol=0)


def test_whitening_of_a_constant_is_zero():
    assert RunningWhitening(3)(torch.ones(10, 3)).abs().max() < 0.5


def test_whitening_does_not_raise_a_weak_direction_to_full_size_by_hand() -> None:
    # Variances 199 and 1, a hundredth of their mean is 1: that much is added to each before it is divided by.
    rows = torch.cartesian_prod(torch.tensor([-1.0, 1.0]) * 199**0.5, torch.tensor([-1.0, 1.0]))
    expected = rows / torch.tensor([199 + 1, 1 + 1]).sqrt()
    torch.testing.assert_close(RunningWhitening(2)(rows), expected)


def test_whitening_is_the_same_under_autocast() -> None:
    rows = torch.randn(2, 50, 4, generator=generator()) * torch.tensor([10.0, 3.0, 1.0, 0.3]) + 3
    expected = RunningWhitening(4)(rows)
    with torch.autocast("cpu", torch.bfloat16):
        found = RunningWhitening(4)(rows)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
