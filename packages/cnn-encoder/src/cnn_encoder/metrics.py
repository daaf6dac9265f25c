"""Descriptions of an embedding. None of them shows whether it contains the state; the probes do."""

import math

import torch
from torch import Tensor


def temporal_consistency(
    embeddings: Tensor,
    episode_ids: Tensor | None = None,
    *,
    num_pairs: int = 100_000,
    generator: torch.Generator | None = None,
) -> float:
    """Mean distance of consecutive frames, divided by the mean distance of random pairs.

        mean_t |z_{t+1} - z_t|  /  mean_{i != j} |z_i - z_j|

    Args:
        embeddings: (N, D), rows in the order of play.
        episode_ids: int (N,), to leave out the step from one episode to the next; None means one episode.
        num_pairs: number of random pairs for the denominator.
        generator: for drawing them.

    Returns:
        0 if nothing changes from frame to frame, 1 if consecutive frames are as far apart as random ones; nan
        if all rows are equal.

    Raises:
        ValueError: there is not one id for each row, or no two rows are consecutive in an episode.
    """
    steps = (embeddings[1:] - embeddings[:-1]).norm(dim=-1)
    if episode_ids is not None:
        if episode_ids.shape != embeddings.shape[:1]:
            raise ValueError(f"episode_ids have shape {tuple(episode_ids.shape)}; give ({len(embeddings)},)")
        steps = steps[episode_ids[1:] == episode_ids[:-1]]
    if len(steps) == 0:
        raise ValueError("no two consecutive frames of one episode; give at least two")
    return (steps.mean() / _pair_distances(embeddings, num_pairs, generator).mean()).item()


def diversity(
    embeddings: Tensor, *, num_pairs: int = 100_000, generator: torch.Generator | None = None
) -> float:
    """Mean distance of random pairs, mean_{i != j} |z_i - z_j|; about sqrt(2) for random directions.

    Args:
        embeddings: float (N, D), N >= 2.
        num_pairs: number of random pairs.
        generator: for drawing them.

    Raises:
        ValueError: there are fewer than two rows.
    """
    return _pair_distances(embeddings, num_pairs, generator).mean().item()


def embedding_norm(embeddings: Tensor) -> float:
    """Mean norm of the rows (N, D), mean_i |z_i|: 1 for an `Encoder`, below 1 for quantized embeddings."""
    return embeddings.norm(dim=-1).mean().item()


def state_correlation(
    embeddings: Tensor,
    states: Tensor,
    *,
    num_pairs: int = 100_000,
    generator: torch.Generator | None = None,
) -> float:
    """Pearson correlation between the distances of embeddings and of states, over random pairs.

        corr_{i != j}( |z_i - z_j|, |s_i - s_j| ),  each state variable standardised to variance 1

    Args:
        embeddings: (N, D).
        states: (N, V) state variables, such as RAM labels; constant ones are left out.
        num_pairs: number of random pairs.
        generator: for drawing them.

    Returns:
        1 if the embedding's geometry is the state's, 0 if they are unrelated, NaN if no variable changes.

    Raises:
        ValueError: there is not one state for each row, there are fewer than two rows, or a state is not
            finite.
    """
    if len(embeddings) != len(states):
        raise ValueError(f"{len(embeddings)} embeddings but {len(states)} states; they must agree")
    states = states.to(embeddings.device, torch.float32)
    if not states.isfinite().all():
        raise ValueError("states hold NaN or infinity; leave those rows or variables out")
    first, second = _pairs(len(embeddings), num_pairs, generator)
    states = states[:, states.std(0) > 0]
    if states.shape[1] == 0:
        return math.nan
    states = states / states.std(0)
    near = (embeddings[first] - embeddings[second]).norm(dim=-1)
    far = (states[first] - states[second]).norm(dim=-1)
    return torch.corrcoef(torch.stack([near, far]).double())[0, 1].item()


def _pairs(n: int, num_pairs: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    if n < 2:
        raise ValueError(f"{n} rows; pairs need at least two")
    if num_pairs < 1:
        raise ValueError(f"num_pairs is {num_pairs}; give 1 or more")
    first = torch.randint(n, (num_pairs,), generator=generator, device="cpu")
    return first, (first + torch.randint(1, n, (num_pairs,), generator=generator, device="cpu")) % n


def _pair_distances(embeddings: Tensor, num_pairs: int, generator: torch.Generator | None) -> Tensor:
    first, second = _pairs(len(embeddings), num_pairs, generator)
    return (embeddings[first] - embeddings[second]).norm(dim=-1)
