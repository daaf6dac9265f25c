import pytest
import torch
from cnn_encoder.picture import PICTURE_SIZE, picture
from cnn_encoder.running import RunningScale


def test_a_picture_by_hand():
    frames = torch.full((1, 2, 84, 84), 50, dtype=torch.uint8)
    frames[0, 0, 3, 82] = 120  # in the second pair of rows, the last of columns; 3.5 bands from the bottom
    frames[0, 1, 83, 0] = 38  # 12 off the background: half clear; 1 + 3.8 / 34.3 bands
    frames[0, 1, 0, 50] = 56  # too faint
    found = picture(frames, torch.full((1, 1, 84, 84), 50.0))
    assert found.shape == (1, 2, PICTURE_SIZE)
    rows, columns = found.view(1, 2, 2, 42, 8).unbind(2)
    assert rows.nonzero().tolist() == [[0, 0, 1, 3], [0, 0, 1, 4], [0, 1, 41, 1], [0, 1, 41, 2]]
    assert columns.nonzero().tolist() == [[0, 0, 41, 3], [0, 0, 41, 4], [0, 1, 0, 1], [0, 1, 0, 2]]
    torch.testing.assert_close(rows[0, 0, 1, 3:5], torch.tensor([0.5, 0.5]))
    upper = (38 - 240 / 7) / (240 / 7)
    torch.testing.assert_close(columns[0, 1, 0, 1:3], torch.tensor([(1 - upper) / 2, upper / 2]))


def test_a_background_of_double_precision_will_do():
    frames = torch.randint(0, 256, (1, 2, 84, 84), dtype=torch.uint8)
    background = frames.float().mean(1, keepdim=True)
    assert torch.equal(picture(frames, background.double()), picture(frames, background))


def test_profiles_hold_every_clear_pixel_once():
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(20, 256, (2, 3, 84, 84), generator=generator).byte()
    rows, columns = picture(frames, torch.zeros(2, 1, 84, 84)).view(2, 3, 2, 42, 8).unbind(2)
    torch.testing.assert_close(rows.sum((-1, -2)), torch.full((2, 3), 84.0 * 84))
    torch.testing.assert_close(rows.sum(-2), columns.sum(-2))  # of each brightness the same
    turned, _ = picture(frames.mT, torch.zeros(2, 1, 84, 84)).view(2, 3, 2, 42, 8).unbind(2)
    torch.testing.assert_close(turned, columns)


def test_a_picture_is_against_each_stretchs_own_background():
    frames = torch.full((2, 1, 84, 84), 100, dtype=torch.uint8)
    found = picture(frames, torch.tensor([100.0, 0.0]).view(2, 1, 1, 1))
    assert not found[0].any()
    assert found[1].sum().item() == pytest.approx(2 * 84 * 84)


def test_a_picture_is_float32_under_autocast():
    frames = torch.randint(0, 256, (1, 2, 84, 84), generator=torch.Generator().manual_seed(0)).byte()
    background = torch.full((1, 1, 84, 84), 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        found = picture(frames, background)
    assert found.dtype == torch.float32
    assert torch.equal(found, picture(frames, background))


def test_scale_by_hand():
    scale = RunningScale(2, decay=0.5, floor=1.0)
    first = scale(torch.tensor([[0.0, 7.0], [4.0, 7.0]]))  # means 2 and 7, deviations 2 and 0
    torch.testing.assert_close(first, torch.tensor([[-2 / 3, 0.0], [2 / 3, 0.0]]))
    # With weights 1/4 and 1/2: mean (2/4 + 8/2) / (3/4) = 6, square (8/4 + 64/2) / (3/4) = 136/3, so the
    # variance is 28/3. The second column stays 7.
    second = scale(torch.tensor([[8.0, 7.0]]))
    torch.testing.assert_close(second, torch.tensor([[2 / ((28 / 3) ** 0.5 + 1), 0.0]]))


def test_what_was_never_seen_has_a_limit():
    scale = RunningScale(1, floor=1.0, limit=3.0).train()
    scale(torch.zeros(4, 1))
    assert scale.eval()(torch.tensor([[-50.0], [2.0], [50.0]])).flatten().tolist() == [-3.0, 2.0, 3.0]


def test_scale_stands_still_in_evaluation():
    scale = RunningScale(1)
    rows = torch.tensor([[1.0], [3.0]])
    assert scale.eval()(rows).flatten().tolist() == pytest.approx(
        [-1 / 1.1, 1 / 1.1]
    )  # nothing known: its own
    scale.train()(rows)
    before = {name: value.clone() for name, value in scale.state_dict().items()}
    scale.eval()(rows + 5)
    assert all(torch.equal(value, before[name]) for name, value in scale.state_dict().items())


def test_a_scale_forgets_a_fiftieth_at_each_step_by_hand():
    scale = RunningScale(1)
    for value in (0.0, 1.0):
        scale(torch.full((4, 1), value))
    mean = 0.02 / (1 - 0.98**2)  # of the squares as well
    expected = (1 - mean) / ((mean - mean**2) ** 0.5 + 0.1)
    assert scale.eval()(torch.ones(1, 1)).item() == pytest.approx(expected, rel=1e-4)
