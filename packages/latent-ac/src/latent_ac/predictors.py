"""What a transition of the dream brings: its reward, and whether the episode continues.

Both are one kind of network, from (features_t, action_t, features_(t+1)) to a categorical over a few scalars,
the support. The reward's support is (-1, 0, 1) or symexp-spaced bins, the continuation's (0, 1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latent_ac._checks import number, require, require_bins, require_choice, require_counts, require_network
from latent_ac.features import Features
from latent_ac.mlp import FeatureNorm, hidden_stack, linear
from latent_ac.rewards import transform_rewards
from latent_ac.two_hot import expectation, symexp_bins, two_hot, two_hot_nll

REWARD_HEADS = ("sign", "two_hot")


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictorConfig:
    """Sizes of the two predictors and the treatment of rare events.

    Attributes:
        feature_dim: width F of the features.
        num_actions: number of actions A.
        hidden: widths of the hidden layers, at least one.
        feature_blocks: widths of feature blocks to scale to unit root mean square; empty for none.
        reward_head: "sign", three classes -1, 0, 1 (for rewards the learner clips); "two_hot", a categorical
            over symexp-spaced bins (when the size of a reward matters).
        num_bins: bins of the two-hot head, odd.
        limit: largest reward of the two-hot head in symlog units.
        class_balance: from 0 (every transition weighs the same) to 1 (every class does: negative, zero and
            positive reward; end and continuation). Transitions of a class of frequency f are weighted in
            proportion to f ** -class_balance; for a two-hot head negative and positive rewards are one class.
            Predictions stay calibrated whatever its value.
    """

    feature_dim: int = 1152
    num_actions: int = 18
    hidden: tuple[int, ...] = (256, 256)
    feature_blocks: tuple[int, ...] = ()
    reward_head: str = "sign"
    num_bins: int = 255
    limit: float = 10.0
    class_balance: float = 0.5

    def __post_init__(self) -> None:
        require_network(self)
        require(len(self.hidden) >= 1, "hidden", self.hidden, "a tuple of one or more widths")
        require_counts(self, "num_actions")
        require_choice("reward_head", self.reward_head, REWARD_HEADS)
        require_bins(self.num_bins, self.limit)
        require_counts(self, "num_bins")
        require(
            0 <= number(self.class_balance) <= 1, "class_balance", self.class_balance, "a number from 0 to 1"
        )

    @property
    def knows_signs_only(self) -> bool:
        """Whether the reward head predicts only the signs of rewards, not their sizes."""
        return self.reward_head == "sign"


class TransitionPredictor(nn.Module):
    """(features_t, action_t, features_(t+1)) -> a categorical over ``support``, with points in classes.

    Rare classes are weighted up in the loss by w_c, which makes the network learn q(c|x) ~ p(c|x) w_c;
    ``probabilities`` subtracts log w_c from the logits again, so predictions are calibrated and only the
    training effort is balanced (the same identity as in logit adjustment: Menon et al., 2021,
    https://arxiv.org/abs/2007.07314).
    """

    support: Tensor
    support_class: Tensor
    class_log_weights: Tensor
    class_names: tuple[str, ...]

    def __init__(
        self,
        config: PredictorConfig,
        support: Tensor,
        support_class: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.class_sizes = support_class.bincount().tolist()  # the support is sorted: classes are ranges
        self.num_classes = len(self.class_sizes)
        width = config.hidden[0]
        self.norm = FeatureNorm(config.feature_blocks)
        # The first layer as three addends: the wide (features, action, next features) row is never built.
        self.now = linear(config.feature_dim, width, bias=False, gain=0.7, generator=generator)
        self.next = linear(config.feature_dim, width, bias=False, gain=0.7, generator=generator)
        action_rows = linear(config.num_actions, width, bias=False, gain=1.0, generator=generator)
        self.action = nn.Embedding(
            config.num_actions, width, _weight=action_rows.weight.detach().T.contiguous()
        )
        self.hidden = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), *hidden_stack(config.hidden, generator))
        self.output = linear(config.hidden[-1], len(support), gain=0.0, generator=generator)
        self.register_buffer("support", support, persistent=False)
        self.register_buffer("support_class", support_class, persistent=False)
        self.register_buffer("class_log_weights", torch.zeros(self.num_classes))

    def forward(self, features: Features, actions: Tensor, next_features: Features) -> Tensor:
        """Expectation over the support, float32 (...).

        Args:
            features: of the state the action was chosen in, (..., F).
            actions: int64 (...).
            next_features: of the state it led to, (..., F).
        """
        return self.expected(self.logits(features, actions, next_features))

    def expected(self, logits: Tensor) -> Tensor:
        """Expectation over the support, (..., N) -> (...)."""
        return (self.probabilities(logits) * self.support).sum(-1)

    def logits(self, features: Features, actions: Tensor, next_features: Features) -> Tensor:
        """Unadjusted logits over the support, float32 (..., N), for the weighted loss.

        Raises:
            ValueError: the features have another width, the leading shapes of the three differ, or the
                actions are not int64 ids below ``num_actions``.
        """
        _check_actions(actions, self.config.num_actions)
        if not features.shape[:-1] == next_features.shape[:-1] == actions.shape:
            raise ValueError(
                f"features {tuple(features.shape)}, actions {tuple(actions.shape)} and next_features "
                f"{tuple(next_features.shape)} do not fit; give (..., F), (...) and (..., F)"
            )
        x = self.now(self.norm(features)) + self.next(self.norm(next_features)) + self.action(actions)
        output: Tensor = self.output(self.hidden(x))
        return output.float()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities over the support, (..., N) -> (..., N)."""
        return (logits - self.class_log_weights[self.support_class]).softmax(-1)

    def class_probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities of the classes, (..., N) -> (..., C)."""
        per_point = self.probabilities(logits)
        return torch.stack([part.sum(-1) for part in per_point.split(self.class_sizes, -1)], -1)

    def targets(self, targets: Tensor) -> Tensor:
        """What the loss is taken on, same shape: here the targets themselves."""
        return targets

    def class_shares(self, targets: Tensor) -> Tensor:
        """How much of each target lies on each class's points, float32, (...) -> (..., C)."""
        index, weight = two_hot(self.targets(targets), self.support)
        shares = weight.new_zeros(*targets.shape, self.num_classes)
        return shares.scatter_add_(-1, self.support_class[index], weight)

    def classes(self, targets: Tensor) -> Tensor:
        """The class on whose points most of each target lies, int64, same shape."""
        return self.class_shares(targets).argmax(-1)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Class-weighted cross-entropy in nats per transition, (..., N) and (...) -> (...).

        Each of a target's two points has the weight of its own class: only then does q(c|x) ~ p(c|x) w_c hold
        where a small reward lies between zero and the first point above it.
        """
        weights = self.class_log_weights[self.support_class].exp()
        return two_hot_nll(weights * logits.log_softmax(-1), self.targets(targets), self.support)

    @torch.no_grad()
    def set_class_frequencies(self, frequencies: Tensor) -> None:
        """Set the loss weights from class frequencies or counts, (C,), all positive.

        w_c is proportional to f_c ** -class_balance, scaled so that the mean weight of a transition is 1. A
        two-hot head uses f_negative + f_positive for both.

        Raises:
            ValueError: there is not one for each class, or (checked on a CPU only) not all are finite and
                above 0.
        """
        fits = frequencies.shape == (self.num_classes,)
        positive = (frequencies > 0) & frequencies.isfinite()
        if not fits or (frequencies.device.type == "cpu" and not bool(positive.all())):
            given = f"are {frequencies.tolist()}" if fits else f"have shape {tuple(frequencies.shape)}"
            raise ValueError(
                f"frequencies {given}; give one, above 0, for each of {', '.join(self.class_names)}"
            )
        frequencies = frequencies.to(self.class_log_weights)  # cast first: a sum of float16 would overflow
        frequencies = frequencies / frequencies.sum()
        log_weights = -self.config.class_balance * self._balanced(frequencies).log()
        self.class_log_weights.copy_(log_weights - (frequencies * log_weights.exp()).sum().log())

    def _balanced(self, frequencies: Tensor) -> Tensor:
        """The frequency by which each class is weighted, (C,) -> (C,)."""
        return frequencies


class RewardPredictor(TransitionPredictor):
    """Expected reward of a transition; classes 0, 1, 2 are negative, zero and positive reward."""

    class_names = ("negative", "zero", "positive")

    def __init__(self, config: PredictorConfig, *, generator: torch.Generator | None = None) -> None:
        signs_only = config.knows_signs_only
        support = torch.tensor([-1.0, 0.0, 1.0]) if signs_only else symexp_bins(config.num_bins, config.limit)
        super().__init__(config, support, (support.sign() + 1).long(), generator=generator)

    def forward(
        self, features: Features, actions: Tensor, next_features: Features, *, transform: str = "raw"
    ) -> Tensor:
        """E[transform(r)], float32 (...): by default the expected reward itself.

        The sign head knows only signs, so this is the expectation of the transformed sign: the sign itself,
        except that "symlog" multiplies it by ln 2.

        Args:
            features: of the state the action was chosen in, (..., F).
            actions: int64 (...).
            next_features: of the state it led to, (..., F).
            transform: one of ``transform_rewards``, applied inside the expectation to each point of the
                support. Between two points "clip" is not exact: a certain reward of 1 has an expectation of
                .975 with 255 bins, .90 with 101.
        """
        return self.expected(self.logits(features, actions, next_features), transform)

    def expected(self, logits: Tensor, transform: str = "raw") -> Tensor:
        """E[transform(r)], (..., N) -> (...)."""
        return expectation(self.probabilities(logits), transform_rewards(self.support, transform))

    def _balanced(self, frequencies: Tensor) -> Tensor:
        if self.config.knows_signs_only:
            return frequencies
        # Bins that no target has touched keep some probability, far out and in both directions alike: if each
        # direction had its own weight these would not cancel, and a bin is worth up to 22,025.
        negative, zero, positive = frequencies
        return torch.stack((negative + positive, zero, negative + positive))

    def targets(self, targets: Tensor) -> Tensor:
        """What the loss is taken on, of raw rewards: for a sign head their signs, else the rewards."""
        return targets.sign() if self.config.knows_signs_only else targets


class ContinuePredictor(TransitionPredictor):
    """Probability that the episode continues after a transition; classes 0 and 1 are end and continuation."""

    class_names = ("end", "continue")

    def __init__(self, config: PredictorConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__(config, torch.tensor([0.0, 1.0]), torch.tensor([0, 1]), generator=generator)


def _check_actions(actions: Tensor, num_actions: int) -> None:
    """Raise ValueError unless actions are int64 in 0..num_actions-1, the range checked on a CPU only."""
    if actions.dtype != torch.int64:
        raise ValueError(f"actions are {actions.dtype}; give int64")
    if actions.device.type == "cpu" and actions.numel() and not torch.compiler.is_compiling():
        low, high = (int(bound) for bound in actions.aminmax())
        if low < 0 or high >= num_actions:
            raise ValueError(
                f"actions range from {low} to {high}; the predictor knows 0 to {num_actions - 1}"
            )
