import copy
import math
from dataclasses import replace

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
    two_hot,
)

SMALL = {"feature_dim": 6, "num_actions": 3, "hidden": (32,), "num_bins": 41, "limit": 4.0}


def predictors(**changes: object) -> tuple[RewardPredictor, ContinuePredictor]:
    config = PredictorConfig(**(SMALL | changes))
    generator = torch.Generator().manual_seed(0)
    return RewardPredictor(config, generator=generator), ContinuePredictor(config, generator=generator)


def train(objective: PredictorObjective, draw, updates: int) -> dict[str, torch.Tensor]:
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=3e-3)
    for step in range(updates):
        loss, metrics = objective(draw(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step()
    return metrics


def paddle_and_ball(step: int, size: int = 512) -> TransitionBatch:
    """Where x0 crosses 1, +10 for action 2 and -10 for action 1; the end where x1 > 1.5 afterwards."""
    generator = torch.Generator().manual_seed(step)
    now, after = torch.randn(2, size, 6, generator=generator)
    actions = torch.randint(0, 3, (size,), generator=generator)
    crossing = (now[:, 0] < 1) & (after[:, 0] > 1)
    rewards = 10.0 * crossing * ((actions == 2).float() - (actions == 1).float())
    return TransitionBatch(now, after, actions, rewards, (after[:, 1] <= 1.5).float())


def test_only_a_sign_head_is_shown_signs() -> None:
    rewards = torch.tensor([-3.0, 0.0, 0.5, 10.0])
    for head, targets in (("sign", [-1.0, 0.0, 1.0, 1.0]), ("two_hot", [-3.0, 0.0, 0.5, 10.0])):
        reward, _ = predictors(reward_head=head)
        assert reward.config.knows_signs_only == (head == "sign")
        assert reward.targets(rewards).tolist() == targets


@pytest.mark.parametrize(("head", "scale"), [("sign", 1.0), ("two_hot", 10.0)])
def test_learns_from_state_action_and_next_state(head: str, scale: float) -> None:
    reward, continue_ = predictors(reward_head=head)
    metrics = train(PredictorObjective(reward, continue_), paddle_and_ball, 500)
    report = evaluate_predictors(reward, continue_, [paddle_and_ball(10_000 + i) for i in range(8)])
    for name in ("reward_recall_negative", "reward_recall_positive", "continue_recall_end"):
        assert report[name] > 0.85, (name, report)
        assert metrics[name] > 0.7  # the moving average still holds some early batches
    assert report["reward_ece"] < 0.03
    assert abs(report["reward_bias"]) < 0.02 * scale
    batch = paddle_and_ball(99_999)
    predicted = reward(batch.features, batch.actions, batch.next_features)
    truth = batch.rewards * scale / 10
    assert (predicted - truth).abs()[truth != 0].mean() < 0.35 * scale


@pytest.mark.parametrize("balance", [0.0, 1.0])
@pytest.mark.parametrize("head", ["sign", "two_hot"])
def test_probabilities_stay_calibrated_under_any_class_balance(head: str, balance: float) -> None:
    """Reward by pure chance, +1 in 2 % and -3 in 6 %: these shares must be read, not the balanced ones."""

    def draw(step: int) -> TransitionBatch:
        generator = torch.Generator().manual_seed(step)
        u = torch.rand(1024, generator=generator)
        zeros = torch.zeros(1024, 6)
        rewards = (u < 0.02).float() - 3 * (u > 0.94).float()
        return TransitionBatch(zeros, zeros, torch.zeros(1024, dtype=torch.int64), rewards, (u > 0.1).float())

    reward, continue_ = predictors(reward_head=head, class_balance=balance)
    train(PredictorObjective(reward, continue_), draw, 250)
    zeros, action = torch.zeros(1, 6), torch.zeros(1, dtype=torch.int64)
    classes = reward.class_probabilities(reward.logits(zeros, action, zeros))
    torch.testing.assert_close(classes, torch.tensor([[0.06, 0.92, 0.02]]), atol=0.012, rtol=0)
    assert continue_(zeros, action, zeros).item() == pytest.approx(0.9, abs=0.02)
    size = 1.0 if head == "sign" else 3.0
    assert reward(zeros, action, zeros).item() == pytest.approx(0.02 - size * 0.06, abs=0.03)
    if balance:
        weights = reward.class_log_weights.exp()
        assert min(weights[0], weights[2]) > weights[1]
        assert weights[2] > weights[0] if head == "sign" else weights[2] == weights[0]


def test_a_predictor_that_hopes_for_too_much_has_a_positive_bias() -> None:
    """Untrained it expects a reward of 0 and goes on in half the cases; play loses a point and goes on."""
    batch = paddle_and_ball(0)
    size = len(batch.actions)
    batch = replace(batch, rewards=-torch.ones(size), continues=torch.ones(size))
    report = evaluate_predictors(*predictors(), [batch])
    assert report["reward_bias"] == pytest.approx(1.0)
    assert report["continue_bias"] == pytest.approx(-0.5)


def test_what_was_seen_fades_by_its_decay() -> None:
    objective = PredictorObjective(*predictors(), decay=0.75)
    objective(paddle_and_ball(0))
    objective.after_step()
    before = objective.reward_confusion.clone()
    alone = copy.deepcopy(objective)  # it calls what the other calls,
    alone.decay = 0.0  # and forgets at once
    for each in (objective, alone):
        each(paddle_and_ball(1))
        each.after_step()
    assert alone.reward_confusion.sum() == 512
    torch.testing.assert_close(objective.reward_confusion, 0.75 * before + alone.reward_confusion)


def test_metrics_and_report_are_what_they_are_called() -> None:
    reward, continue_ = predictors()
    draw = torch.Generator().manual_seed(1)
    for predictor in (reward, continue_):
        torch.nn.init.normal_(predictor.output.weight, generator=draw)
    objective, batch = PredictorObjective(reward, continue_), paddle_and_ball(1)
    objective(paddle_and_ball(0))
    objective.after_step()
    _, metrics = objective(batch)
    report = evaluate_predictors(reward, continue_, [batch])
    measured = {}
    for name, predictor, truth in (
        ("reward", reward, batch.rewards),
        ("continue", continue_, batch.continues),
    ):
        probabilities = predictor.class_probabilities(
            predictor.logits(batch.features, batch.actions, batch.next_features)
        ).detach()
        labels = predictor.classes(truth)
        right = (probabilities.argmax(-1) == labels).float().mean()  # of this batch alone
        torch.testing.assert_close(metrics[f"{name}_accuracy"], right)
        measured[name] = calibration(probabilities, labels)
        assert report[f"{name}_ece"] == pytest.approx(measured[name].ece.item())
    objective.after_step()
    for name, predictor in (("reward", reward), ("continue", continue_)):
        confusion, now = objective.get_buffer(f"{name}_confusion"), measured[name]
        for index, label in enumerate(predictor.class_names):
            hits = confusion[index, index]
            torch.testing.assert_close(metrics[f"{name}_recall_{label}"], hits / confusion[index].sum())
            torch.testing.assert_close(metrics[f"{name}_precision_{label}"], hits / confusion[:, index].sum())
            found = [report[f"{name}_{kind}_{label}"] for kind in ("recall", "precision", "ece", "count")]
            expected = (now.recall[index], now.precision[index], now.class_ece[index])
            assert found == pytest.approx([*map(float, expected), float(now.confusion[index].sum())])
        weights = predictor.class_log_weights.clone()
        predictor.set_class_frequencies(confusion.sum(1) + 1)  # one example of each beside those seen
        assert torch.equal(predictor.class_log_weights, weights)


def test_class_weights_hand_computed() -> None:
    reward, _ = predictors(class_balance=1.0)
    reward.set_class_frequencies(torch.tensor([10.0, 80.0, 10.0]))
    # Each class weighs 1/3 in all: w = 1 / (3 f).
    torch.testing.assert_close(reward.class_log_weights.exp(), torch.tensor([1 / 0.3, 1 / 2.4, 1 / 0.3]))
    reward, _ = predictors(class_balance=0.0)
    reward.set_class_frequencies(torch.tensor([10.0, 80.0, 10.0]))
    torch.testing.assert_close(reward.class_log_weights, torch.zeros(3), atol=1e-6, rtol=0)


def test_transform_is_taken_inside_the_expectation() -> None:
    reward, _ = predictors(reward_head="two_hot")
    with torch.no_grad():  # half 0, half the bin nearest to 10
        target = int((reward.support - 10).abs().argmin())
        reward.output.bias.fill_(-100.0)
        reward.output.bias[[20, target]] = 0.0
    x, a = torch.randn(4, 6), torch.zeros(4, dtype=torch.int64)
    torch.testing.assert_close(reward(x, a, x), torch.full((4,), reward.support[target].item() / 2))
    for transform, value in (("clip", 1.0), ("sign", 1.0), ("symlog", reward.support[target].log1p().item())):
        torch.testing.assert_close(reward(x, a, x, transform=transform), torch.full((4,), value / 2))


def test_forward_leaves_all_state_alone_and_after_step_commits() -> None:
    objective = PredictorObjective(*predictors())
    before = {name: t.clone() for name, t in objective.state_dict().items()}
    loss, metrics = objective(paddle_and_ball(0))
    assert all(torch.equal(t, before[name]) for name, t in objective.state_dict().items())
    assert loss.item() == pytest.approx(math.log(3) + math.log(2), rel=1e-5)  # zero output layers: uniform
    assert all(value.ndim == 0 for value in metrics.values())
    objective.after_step()
    assert objective.reward_confusion.sum() == 512
    assert objective.reward.class_log_weights[1] < 0 < objective.reward.class_log_weights[0]


def test_leading_dimensions_are_free() -> None:
    objective = PredictorObjective(*predictors())
    flat = paddle_and_ball(0, size=12)
    folded = TransitionBatch(
        *(getattr(flat, name).unflatten(0, (3, 4)) for name in TransitionBatch.__slots__)
    )
    torch.testing.assert_close(objective(flat)[0], objective(folded)[0])
    flat_report = evaluate_predictors(objective.reward, objective.continue_, [flat])
    folded_report = evaluate_predictors(objective.reward, objective.continue_, [folded])
    assert flat_report.keys() == folded_report.keys()
    assert flat_report["reward_ece"] == pytest.approx(folded_report["reward_ece"])


def test_user_errors() -> None:
    with pytest.raises(ValueError, match="'sign', 'two_hot'"):
        PredictorConfig(reward_head="mse")
    with pytest.raises(ValueError, match="class_balance is 2"):
        PredictorConfig(class_balance=2.0)
    batch = paddle_and_ball(0)
    with pytest.raises(ValueError, match=r"rewards \(511,\)"):
        PredictorObjective(*predictors())(replace(batch, rewards=batch.rewards[1:]))
    with pytest.raises(ValueError, match="at least one batch"):
        evaluate_predictors(*predictors(), [])
    for use in (PredictorObjective(*predictors()), lambda b: evaluate_predictors(*predictors(), [b])):
        with pytest.raises(ValueError, match="holds no transitions"):
            use(paddle_and_ball(0, size=0))


@pytest.mark.parametrize("shape", [(5, 1), (4,)])  # the second would serve every column
def test_one_action_for_each_transition(shape: tuple[int, ...]) -> None:
    features, one = torch.zeros(5, 4, 6), torch.zeros(1, 4, 6)
    for predictor in predictors():
        with pytest.raises(ValueError, match=r"do not fit; give \(\.\.\., F\), \(\.\.\.\) and"):
            predictor(features, torch.zeros(shape, dtype=torch.int64), features)
        with pytest.raises(ValueError, match=r"next_features \(1, 4, 6\) do not fit"):
            predictor(features, torch.zeros(5, 4, dtype=torch.int64), one)


@pytest.mark.parametrize("transform", ["raw", "clip", "sign", "symlog"])
def test_the_sign_head_expects_the_transformed_sign(transform: str) -> None:
    reward, _ = predictors()
    certain = reward.expected(torch.tensor([-50.0, -50.0, 50.0]), transform)
    assert certain == pytest.approx(math.log(2) if transform == "symlog" else 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": torch.zeros(4, 3)}, r"rewards \(4, 3\)"),  # as many, but of other steps
        ({"rewards": torch.full((3, 4), torch.nan)}, "rewards of the transitions hold NaN"),
        ({"continues": torch.full((3, 4), 255)}, r"continues of the transitions are not all in \[0, 1\]"),
        ({"actions": torch.full((3, 4), 3)}, "actions range from 3 to 3; the predictor knows 0 to 2"),
        ({"actions": torch.full((3, 4), -1)}, "actions range from -1 to -1"),
        ({"actions": torch.zeros(3, 4, dtype=torch.uint8)}, "actions are torch.uint8; give int64"),
    ],
)
def test_transitions_that_cannot_be(changes: dict[str, torch.Tensor], message: str) -> None:
    reward, continue_ = predictors()
    flat = paddle_and_ball(0, size=12)
    batch = TransitionBatch(*(getattr(flat, name).unflatten(0, (3, 4)) for name in TransitionBatch.__slots__))
    for use in (PredictorObjective(reward, continue_), lambda b: evaluate_predictors(reward, continue_, [b])):
        use(batch)
        with pytest.raises(ValueError, match=message):
            use(replace(batch, **changes))


@pytest.mark.parametrize("head", ["sign", "two_hot"])
def test_rewards_and_continues_may_be_whole_numbers(head: str) -> None:
    batch = paddle_and_ball(0)
    whole = replace(batch, rewards=batch.rewards.long(), continues=batch.continues.bool())
    made = predictors(reward_head=head)
    report = evaluate_predictors(*made, [batch])
    assert evaluate_predictors(*made, [whole]) == pytest.approx(report, nan_ok=True)
    assert PredictorObjective(*made)(whole)[0] == PredictorObjective(*made)(batch)[0]


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_small_rewards_keep_their_size_under_any_class_balance(balance: float) -> None:
    """2 % of rewards are .04, below the first bin above zero: the loss is least where that is read."""
    reward, _ = predictors(reward_head="two_hot", class_balance=balance)
    reward.set_class_frequencies(torch.tensor([0.01, 0.97, 0.02]))
    share = torch.tensor([0.98, 0.02])
    targets = torch.tensor([0.0, 0.04])
    index, weight = two_hot(targets, reward.support)
    mass = torch.zeros(len(reward.support)).index_add(0, index.flatten(), (weight * share[:, None]).flatten())
    logits = mass.clamp_min(1e-12).log() + reward.class_log_weights[reward.support_class]
    logits.requires_grad_()
    (share * reward.loss(logits.expand(2, -1), targets)).sum().backward()
    assert float(logits.grad.abs().max()) < 1e-6
    assert float(reward.expected(logits.detach())) == pytest.approx(0.0008, rel=1e-3)


def test_a_new_predictor_expects_nothing_of_the_largest_bins() -> None:
    reward, _ = predictors(reward_head="two_hot", limit=40.0)
    expected = reward(torch.randn(1, 6), torch.zeros(1, dtype=torch.int64), torch.randn(1, 6))
    assert float(expected.detach()) == 0.0


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_rewards_of_one_sign_do_not_make_a_new_predictor_hope(balance: float) -> None:
    """What is left on the bins no reward has touched must cancel: the largest are worth 22,025."""
    reward, continue_ = predictors(
        reward_head="two_hot", class_balance=balance, num_bins=255, limit=10.0, hidden=(16,)
    )

    def draw(step: int) -> TransitionBatch:
        generator = torch.Generator().manual_seed(step)
        features, after = torch.randn(2, 256, 6, generator=generator)
        rewards = ((after[:, 0] > 0) & (torch.rand(256, generator=generator) < 0.05)).float()
        return TransitionBatch(features, after, torch.zeros(256, dtype=torch.int64), rewards, torch.ones(256))

    objective = PredictorObjective(reward, continue_)
    objective(draw(0))
    objective.after_step()
    assert evaluate_predictors(reward, continue_, [draw(1)])["reward_bias"] == pytest.approx(
        -draw(1).rewards.mean()
    )
    train(objective, draw, 200)
    assert abs(evaluate_predictors(reward, continue_, map(draw, range(200, 210)))["reward_bias"]) < 0.02


def test_transitions_that_are_only_looked_at_are_not_committed() -> None:
    objective = PredictorObjective(*predictors())
    objective(paddle_and_ball(0))
    expected = copy.deepcopy(objective)
    expected.after_step()
    objective.eval()
    objective(paddle_and_ball(1))
    objective.train()
    objective.after_step()
    for name, value in expected.state_dict().items():
        assert torch.equal(objective.state_dict()[name], value), name


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_small_dense_rewards_weigh_one_on_average(balance: float) -> None:
    """Most of such a reward lies on the point 0, which is then not rare although no reward is 0."""
    made = predictors(reward_head="two_hot", class_balance=balance)
    reward, _ = made
    batch = replace(paddle_and_ball(0), rewards=torch.rand(512) * 0.04)
    objective = PredictorObjective(*made)
    objective(batch)
    objective.after_step()
    shares, first = reward.class_shares(batch.rewards), reward.support[len(reward.support) // 2 + 1]
    torch.testing.assert_close(shares[:, 2], batch.rewards / first)
    torch.testing.assert_close(shares.sum(1), torch.ones(512))
    mean_weight = (shares @ reward.class_log_weights.exp()).mean()
    assert mean_weight == pytest.approx(1, abs=0.02)


def test_a_small_reward_is_of_the_class_that_is_nearer() -> None:
    reward, _ = predictors(reward_head="two_hot")
    first = float(reward.support[len(reward.support) // 2 + 1])
    rewards = torch.tensor([-2 * first, -0.6 * first, -0.4 * first, 0.0, 0.4 * first, 0.6 * first, 9.0])
    assert reward.classes(rewards).tolist() == [0, 0, 1, 1, 1, 2, 2]


def test_a_fractional_continuation_counts_as_the_nearer_class_and_is_learned_as_it_is() -> None:
    _, continue_ = predictors()
    targets = torch.tensor([0.0, 0.3, 0.7, 1.0])
    assert continue_.classes(targets).tolist() == [0, 0, 1, 1]
    logits = torch.tensor([[math.log(0.2), math.log(0.8)]]).expand(4, 2)
    by_hand = -(1 - targets) * math.log(0.2) - targets * math.log(0.8)
    torch.testing.assert_close(continue_.loss(logits, targets), by_hand)


@pytest.mark.parametrize("which", ["features", "next_features"])
def test_predictors_hear_every_block_equally_before_and_after_the_action(which: str) -> None:
    made = predictors(feature_blocks=(4, 2))
    seen = {"features": torch.randn(5, 6), "next_features": torch.randn(5, 6)}
    quieter = seen | {which: seen[which] * torch.tensor([1.0] * 4 + [0.01] * 2)}
    actions = torch.tensor([0, 1, 2, 0, 1])
    for predictor in made:
        torch.nn.init.normal_(predictor.output.weight)
        loud, quiet = (predictor.logits(actions=actions, **each) for each in (seen, quieter))
        torch.testing.assert_close(loud, quiet, atol=1e-3, rtol=1e-3)


def test_a_weight_for_every_class() -> None:
    reward, _ = predictors()
    with pytest.raises(ValueError, match="negative, zero, positive"):
        reward.set_class_frequencies(torch.ones(1))
    with pytest.raises(ValueError, match=r"are \[0\.0, 1\.0, 1\.0\]; give one, above 0"):
        reward.set_class_frequencies(torch.tensor([0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match=r"are \[1\.0, 2\.0, inf\]; give one, above 0"):
        reward.set_class_frequencies(torch.tensor([1.0, 2.0, math.inf]))


def test_counts_may_be_more_than_their_type_can_add() -> None:
    predictor = RewardPredictor(PredictorConfig(feature_dim=4, hidden=(8,)))
    predictor.set_class_frequencies(torch.tensor([20.0, 40.0, 20.0]))
    expected = predictor.class_log_weights.clone()
    predictor.set_class_frequencies(torch.tensor([2e4, 4e4, 2e4], dtype=torch.float16))
    torch.testing.assert_close(predictor.class_log_weights, expected)
