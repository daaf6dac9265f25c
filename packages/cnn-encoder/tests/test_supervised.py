import pytest
import torch
from cnn_encoder import Encoder, EncoderConfig, StateLabels, SupervisedBatch, SupervisedObjective


def test_learns_a_position_and_ignores_what_is_out_of_play():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 80, (32,), generator=generator)
    frames = torch.zeros(32, 4, 84, 84, dtype=torch.uint8)
    for i, row in enumerate(rows.tolist()):
        frames[i, 3, row : row + 4, 40:44] = 255
    values = torch.stack([rows.float(), torch.full((32,), 1e6)], 1)
    in_play = torch.tensor([True, False]).expand(32, 2)
    encoder = Encoder(EncoderConfig(), generator=generator)
    objective = SupervisedObjective(encoder, StateLabels(("y", "x"), values, in_play), generator=generator)
    batch = SupervisedBatch(frames, values, in_play, torch.zeros(84, 84))
    optimizer = torch.optim.Adam(objective.parameters(), 1e-3)
    first = objective(batch)[0].item()
    for _ in range(30):
        loss, _ = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step()
    assert first == pytest.approx(0.5, abs=0.15)  # variance 1, halved by the variable that never counts
    assert objective(batch)[0].item() < 0.1


def test_labels_that_do_not_count_may_be_anything():
    values, in_play = torch.randn(6, 1), torch.tensor([[True]] * 4 + [[False]] * 2)
    unknown = values.masked_fill(~in_play, torch.nan)
    frames = torch.randint(0, 256, (6, 4, 84, 84), dtype=torch.uint8)
    losses, slopes = [], []
    for labels in (values, unknown):
        encoder = Encoder(EncoderConfig(), generator=torch.Generator().manual_seed(0))
        statistics = StateLabels(names=("ball_x",), values=labels, in_play=in_play)
        objective = SupervisedObjective(encoder, statistics, generator=torch.Generator().manual_seed(1))
        losses.append(objective(SupervisedBatch(frames, labels, in_play, torch.zeros(84, 84)))[0])
        losses[-1].backward()
        slopes.append(encoder.conv1.weight.grad)
    assert torch.equal(*losses)
    assert torch.equal(*slopes)
    assert slopes[0].any()


@pytest.mark.parametrize("wrong", [torch.zeros(1, 2), torch.zeros(3, 1), torch.zeros(3)])
def test_what_would_be_spread_over_the_batch_is_refused(wrong):
    labels, mask = torch.rand(3, 2), torch.ones(3, 2, dtype=torch.bool)
    objective = SupervisedObjective(Encoder(EncoderConfig()), StateLabels(("x", "y"), labels, mask))
    batch = SupervisedBatch(torch.zeros(3, 4, 84, 84, dtype=torch.uint8), labels, mask, torch.zeros(84, 84))
    for change in ({"labels": wrong}, {"in_play": wrong.bool()}):
        with pytest.raises(ValueError, match=r"expected \(3, 2\), a row for each stack"):
            objective(batch._replace(**change))


def test_the_loss_is_the_mean_over_frames_in_play_by_hand():
    values = torch.tensor([[2.0], [4.0], [9.0], [9.0]])  # mean 3 and deviation 1 where they count
    in_play = torch.tensor([[True], [True], [False], [False]])
    objective = SupervisedObjective(Encoder(EncoderConfig()), StateLabels(("x",), values, in_play))
    torch.nn.init.zeros_(objective.head.weight)
    torch.nn.init.zeros_(objective.head.bias)
    frames = torch.zeros(4, 4, 84, 84, dtype=torch.uint8)
    loss, _ = objective(SupervisedBatch(frames, values, in_play, torch.zeros(84, 84)))
    assert loss.item() == pytest.approx(1.0)
