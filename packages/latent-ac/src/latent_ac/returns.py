"""What an imagined trajectory is worth: lambda-returns, their scale, and the weight of each of its steps."""

import math

import torch
from torch import Tensor, nn

from latent_ac._checks import number, require


def lambda_returns(
    rewards: Tensor, continues: Tensor, values: Tensor, gamma: float, lambda_: float
) -> Tensor:
    """TD(lambda) returns, float32 (T, B).

    G_t = r_t + gamma c_t [(1 - lambda) v_(t+1) + lambda G_(t+1)],   G_T = v_T

    (Sutton & Barto, 2018, eq. 12.2 in recursive form; DreamerV2, 2021, eq. 4.) lambda 0 is the one-step
    target, lambda 1 the discounted sum bootstrapped at the end. Differentiable in every tensor.

    Args:
        rewards: r_t, what the action at t brought, (T, B).
        continues: c_t in [0, 1], the probability that the episode continues after that action, (T, B).
        values: v_t of the states at 0..T, (T+1, B); the first is not used.
        gamma: discount in [0, 1].
        lambda_: mixture in [0, 1].

    Raises:
        ValueError: the shapes do not fit, or there is no step.
    """
    if not len(rewards):
        raise ValueError("rewards hold no step; give (T, B) of one step or more")
    if continues.shape != rewards.shape or values.shape != (rewards.shape[0] + 1, *rewards.shape[1:]):
        raise ValueError(
            f"rewards {tuple(rewards.shape)}, continues {tuple(continues.shape)} and values "
            f"{tuple(values.shape)} do not fit; give (T, B), (T, B) and (T+1, B)"
        )
    values = values.float()
    discount = gamma * continues.float()
    # G_t = constant_t + factor_t G_(t+1): one fused multiply-add per step.
    constant = torch.addcmul(rewards.float(), discount, values[1:], value=1 - lambda_).unbind(0)
    factor = (lambda_ * discount).unbind(0)
    running = values[-1]
    returns: list[Tensor] = []
    for t in reversed(range(len(constant))):
        running = torch.addcmul(constant[t], factor[t], running)
        returns.append(running)
    return torch.stack(returns[::-1])


def survival(continues: Tensor) -> Tensor:
    """Probability that step t is still played, w_t = prod_(i<t) c_i, float32 (T, B); w_0 = 1."""
    played = continues.float().cumprod(0)
    return torch.cat((torch.ones_like(played[:1]), played[:-1]))


class ReturnNormalizer(nn.Module):
    """Scale of returns: the moving average of their 5th to 95th percentile range, never below ``minimum``.

    S = max(minimum, EMA(P95 - P5)), and an advantage is divided by S (DreamerV3, eq. 7). Percentiles,
    because a few outliers should not flatten all the rest; the floor, because where rewards are rare the
    range of returns is mostly noise and must not be scaled up to one.

    ``observe`` changes nothing; ``update`` commits what ``observe`` returned. So evaluating a loss leaves the
    normaliser as it was.
    """

    quantiles: Tensor
    percentiles: Tensor

    def __init__(
        self, decay: float = 0.99, low: float = 0.05, high: float = 0.95, minimum: float = 1.0
    ) -> None:
        super().__init__()
        require(0 <= number(decay) < 1, "decay", decay, "a number from 0 to below 1")
        require(
            0 <= number(low) < number(high) <= 1,
            "low, high",
            (low, high),
            "two quantiles with 0 <= low < high <= 1",
        )
        require(0 < number(minimum) < math.inf, "minimum", minimum, "a finite number above 0")
        self.decay = decay
        self.minimum = minimum
        self.register_buffer("quantiles", torch.tensor([low, high], dtype=torch.float32), persistent=False)
        # NaN means "nothing seen yet": the first batch then counts in full, not averaged with a zero.
        self.register_buffer("percentiles", torch.full((2,), torch.nan, dtype=torch.float32))

    @torch.no_grad()
    def observe(self, returns: Tensor) -> Tensor:
        """The two averaged percentiles, float32 (2,), as they will be with ``returns`` included.

        Returns that are NaN do not count.
        """
        seen = torch.nanquantile(returns.detach().float().flatten(), self.quantiles.float()).to(
            self.percentiles
        )
        return torch.where(self.percentiles.isnan(), seen, torch.lerp(seen, self.percentiles, self.decay))

    def scale(self, percentiles: Tensor) -> Tensor:
        """S, 0-d float32, for percentiles given by ``observe``."""
        return (percentiles[1] - percentiles[0]).clamp_min(self.minimum)

    @torch.no_grad()
    def update(self, percentiles: Tensor) -> None:
        """Commit what ``observe`` returned."""
        self.percentiles.copy_(percentiles)
