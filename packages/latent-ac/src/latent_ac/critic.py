"""The value function, learned by log-likelihood, and its slowly moving copy."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latent_ac._checks import number, require, require_bins, require_choice, require_counts, require_network
from latent_ac.features import Features
from latent_ac.mlp import MLP
from latent_ac.two_hot import expectation, symexp_bins, two_hot_nll

HEADS = ("two_hot", "normal", "mse")


@dataclass(frozen=True, kw_only=True, slots=True)
class CriticConfig:
    """Sizes of the critic and the distribution of its head.

    Attributes:
        feature_dim: width F of the features.
        hidden: widths of the hidden layers.
        feature_blocks: widths of feature blocks to scale to unit root mean square; empty for none.
        head: "two_hot", a categorical over symexp-spaced bins; "normal", a Gaussian with learned mean and
            deviation; "mse", a Gaussian of unit variance, whose loss is half the squared error.
        num_bins: bins of the two-hot head, odd.
        limit: largest return of the two-hot head in symlog units; 10 is a return of 22,025.
    """

    feature_dim: int = 1152
    hidden: tuple[int, ...] = (512, 512)
    feature_blocks: tuple[int, ...] = ()
    head: str = "two_hot"
    num_bins: int = 255
    limit: float = 10.0

    def __post_init__(self) -> None:
        require_network(self)
        require_choice("head", self.head, HEADS)
        require_bins(self.num_bins, self.limit)
        require_counts(self, "num_bins")


class Critic(nn.Module):
    """v(features) as a distribution over returns; its output layer starts at zero, so every value is 0."""

    bins: Tensor

    def __init__(self, config: CriticConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        num_outputs = {"two_hot": config.num_bins, "normal": 2, "mse": 1}[config.head]
        self.mlp = MLP(
            config.feature_dim,
            config.hidden,
            num_outputs,
            feature_blocks=config.feature_blocks,
            output_gain=0.0,
            generator=generator,
        )
        self.register_buffer("bins", symexp_bins(config.num_bins, config.limit), persistent=False)

    def forward(self, features: Features) -> Tensor:
        """Expected return, float32 (...), for features (..., F)."""
        return self.value(self.outputs(features))

    def outputs(self, features: Features) -> Tensor:
        """The distribution, float32 (..., N), from which ``value`` and ``loss`` follow.

        Log-probabilities of the bins, or mean and, for "normal", unbounded log-deviation.
        """
        outputs: Tensor = self.mlp(features)
        # Normalised once here: the value, the loss and its gradient all need it.
        return outputs.float().log_softmax(-1) if self.config.head == "two_hot" else outputs.float()

    def value(self, outputs: Tensor) -> Tensor:
        """Mean of the distribution, (..., N) -> (...)."""
        if self.config.head == "two_hot":
            return expectation(outputs.exp(), self.bins)
        return outputs[..., 0]

    def loss(self, outputs: Tensor, returns: Tensor) -> Tensor:
        """Negative log-likelihood in nats of ``returns`` (...) under ``outputs`` (..., N), per element.

        The constant ln(2 pi) / 2 of the Gaussian heads is left out. A two-hot target has no likelihood of
        its own: its loss is the cross-entropy of the two-hot weights. No gradient flows into ``returns``.

        Raises:
            ValueError: there is not one return for each row of outputs.
        """
        if returns.shape != outputs.shape[:-1]:
            raise ValueError(
                f"returns {tuple(returns.shape)} do not fit outputs {tuple(outputs.shape)}; "
                "give (...) and (..., N)"
            )
        returns = returns.detach().float()
        if self.config.head == "two_hot":
            return two_hot_nll(outputs, returns, self.bins)
        error = outputs[..., 0] - returns
        if self.config.head == "mse":
            return 0.5 * error.square()
        # Bounded smoothly, so that a perfectly predictable return cannot send the likelihood to infinity.
        log_std = 5.0 * torch.tanh(outputs[..., 1] / 5.0)
        return 0.5 * (error * (-log_std).exp()).square() + log_std


class SlowTarget(nn.Module):
    """A copy of a module that follows it by an exponential moving average: w' <- decay w' + (1 - decay) w.

    Args:
        module: the module to follow; it is not kept, so it appears once in a state_dict.
        decay: share of the old value kept at each update, in [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float = 0.98) -> None:
        super().__init__()
        require(0 <= number(decay) < 1, "decay", decay, "a number from 0 to below 1")
        self.decay = decay
        self.module = copy.deepcopy(module).requires_grad_(False)

    @torch.no_grad()
    def forward(self, features: Features) -> Tensor:
        """The output of the slow copy, without gradients."""
        output: Tensor = self.module(features)
        return output

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards ``module``, all parameters in one fused operation; buffers are copied."""
        torch._foreach_lerp_(list(self.module.parameters()), list(module.parameters()), 1 - self.decay)
        for buffer, now in zip(self.module.buffers(), module.buffers(), strict=True):
            buffer.copy_(now)
