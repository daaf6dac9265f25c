import pytest
import torch
from cnn_encoder.picture import PICTURE_SIZE, RunningScale, picture


def test_a_picture_by_hand():
    frames = torch.full((1, 2, 84, 84), 50, dtype=torch.uint8)
    frames[0, 0, 0, 2] = 90  # a quarter of the second square
    frames[0, 1, 83, 83] = 10  # a quarter of the last
    found = picture(frames, torch.full((1, 1, 84, 84), 50.0))
    assert found.shape == (1, 2, PICTURE_SIZE)
    assert found.nonzero().tolist() == [[0, 0, 1], [0, 1, PICTURE_SIZE - 1]]
    assert found[0, 0, 1].item() == 10
    assert found[0, 1, -1].item() == -10


def test_a_picture_is_against_each_stretchs_own_background():
    frames = torch.randint(0, 200, (2, 3, 84, 84), generator=torch.Generator().manual_seed(0)).byte()
    shift = torch.tensor([0, 40], dtype=torch.uint8).view(2, 1, 1, 1)
    background = torch.full((2, 1, 84, 84), 100.0)
    assert torch.equal(picture(frames + shift, background + shift), picture(frames, background))


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


def test_scale_stands_still_in_evaluation():
    scale = RunningScale(1)
    rows = torch.tensor([[1.0], [3.0]])
    assert scale.eval()(rows).flatten().tolist() == pytest.approx(
        [-1 / 1.3, 1 / 1.3]
    )  # nothing known: its own
    scale.train()(rows)
    before = {name: value.clone() for name, value in scale.state_dict().items()}
    scale.eval()(rows + 5)
    assert all(torch.equal(value, before[name]) for name, value in scale.state_dict().items())
