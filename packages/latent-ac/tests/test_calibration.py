import pytest
import torch
from latent_ac import (
    ContinuePredictor,
    PredictorConfig,
    PredictorObjective,
    RewardPredictor,
    TransitionBatch,
    calibration,
    evaluate_predictors,
    expected_calibration_error,
)


def test_hand_computed() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    labels = torch.tensor([0, 1, 1, 0])
    result = calibration(probabilities, labels, num_bins=10)
    assert result.confusion.tolist() == [[2, 0], [1, 1]]
    assert result.recall.tolist() == [1.0, 0.5]
    assert result.precision.tolist() == pytest.approx([2 / 3, 1.0])
    # Confidences .9 right, .6 wrong, .7 right, .8 right, each alone in its bin: (.1 + .6 + .3 + .2) / 4.
    assert result.ece.item() == pytest.approx(0.3)
    assert result.class_ece.tolist() == pytest.approx([0.3, 0.3])
    # All in one bin: .75 on the mean, of which three quarters are right; .65 for class 0, which half are of.
    whole = calibration(probabilities, labels, num_bins=1)
    assert whole.ece.item() == pytest.approx(0.0, abs=1e-6)
    assert whole.class_ece.tolist() == pytest.approx([0.15, 0.15])


def test_a_class_never_seen_or_called_is_undefined() -> None:
    result = calibration(torch.tensor([[0.9, 0.1, 0.0]]), torch.tensor([0]))
    assert result.recall.isnan().tolist() == [False, True, True]
    assert result.precision.isnan().tolist() == [False, True, True]


def test_probabilities_that_are_true_have_no_error() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(100_000, generator=generator)
    correct = torch.rand(100_000, generator=generator) < confidence
    assert expected_calibration_error(confidence, correct).item() < 0.01
    assert expected_calibration_error(confidence.sqrt(), correct).item() > 0.1


def test_whoever_is_wholly_sure_counts_as_well() -> None:
    assert expected_calibration_error(torch.ones(2), torch.tensor([True, False])).item() == 0.5


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        calibration(torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64))


def test_of_nothing_nothing_is_said_and_nonsense_is_refused() -> None:
    assert all(part.isnan().all() for part in calibration(torch.zeros(0, 3), torch.zeros(0).long())[:4])
    with pytest.raises(ValueError, match="labels range from 7 to 7; give 0 to 2"):
        calibration(torch.full((1, 3), 1 / 3), torch.tensor([7]))
    for correct, bins in ((torch.ones(2, 1), 15), (torch.ones(2), 0)):
        with pytest.raises(ValueError, match="num_bins"):
            expected_calibration_error(torch.ones(2), correct, bins)


def test_a_batch_is_counted_once_and_the_counts_are_kept() -> None:
    config = PredictorConfig(feature_dim=2, num_actions=2, hidden=(4,))
    made = [PredictorObjective(RewardPredictor(config), ContinuePredictor(config)) for _ in range(2)]
    features = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    batch = TransitionBatch(
        features=features,
        next_features=features,
        actions=torch.zeros(6, dtype=torch.int64),
        rewards=torch.tensor([5.0] * 2 + [0.0] * 4),
        continues=torch.ones(6),
    )
    first, second = made
    first(batch)
    first.after_step()
    assert first.reward_confusion.sum(1).tolist() == [0, 4, 2]
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.reward_confusion, first.reward_confusion)
    first.reward_confusion.zero_()
    first.after_step()  # of no batch
    assert not first.reward_confusion.any()


def test_a_sign_heads_bias_is_in_signs() -> None:
    """It cannot know that a reward was 5: of two 5s among six, a third of +1 is what there was to foresee."""
    config = PredictorConfig(feature_dim=2, num_actions=2, hidden=(4,), reward_head="sign")
    reward, continue_ = RewardPredictor(config), ContinuePredictor(config)
    features = torch.zeros(6, 2)
    actions, rewards = torch.zeros(6, dtype=torch.int64), torch.tensor([5.0] * 2 + [0.0] * 4)
    batch = TransitionBatch(features, features, actions, rewards, torch.ones(6))
    predicted = reward(features, actions, features).mean().item()
    assert evaluate_predictors(reward, continue_, [batch])["reward_bias"] == pytest.approx(predicted - 1 / 3)


@pytest.mark.parametrize(("second", "error"), [(0.69, 0.15), (0.71, 0.55)])
def test_the_bins_are_equal_parts_of_one(second: float, error: float) -> None:
    """In one bin, |.5 - .65|; in two, (.39 + .71) / 2."""
    confidence, correct = torch.tensor([0.61, second]), torch.tensor([True, False])
    assert expected_calibration_error(confidence, correct, 10).item() == pytest.approx(error)
