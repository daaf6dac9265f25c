"""Batches spread over processes, treated as one: sums, rows and draws over the joined batch.

Whether there are several processes is checked at each call, because a process group may be opened after the
quantizer was built; with one process every function is the identity.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether more than one process takes part."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(*tensors: Tensor) -> None:
    """Add up each tensor over all ranks, in place."""
    if is_distributed():
        for tensor in tensors:
            dist.all_reduce(tensor)


def from_first_rank(*tensors: Tensor) -> None:
    """Put rank 0's values in each tensor, in place."""
    if is_distributed():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def _gather(tensor: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return parts


def _sizes(rows: int, device: torch.device) -> list[int]:
    return [int(size) for size in _gather(torch.tensor([rows], device=device))]


def span(rows: int, device: torch.device) -> tuple[int, int]:
    """Where this rank's rows begin in the joined batch, and the joined batch's length."""
    if not is_distributed():
        return 0, rows
    sizes = _sizes(rows, device)
    return sum(sizes[: dist.get_rank()]), sum(sizes)


def join_rows(rows: Tensor) -> Tensor:
    """The rows (n, D) of all ranks, in rank order, on every rank."""
    if not is_distributed():
        return rows
    sizes = _sizes(len(rows), rows.device)
    padded = rows.new_zeros(max(sizes), rows.shape[1])
    padded[: len(rows)] = rows
    return torch.cat([part[:size] for part, size in zip(_gather(padded), sizes, strict=True)])


def top_rows(rows: Tensor, keys: Tensor, count: int, *, across_ranks: bool) -> tuple[Tensor, Tensor]:
    """The ``count`` rows with the largest keys, best first: themselves (count, D) and their keys (count,).

    If there are fewer rows, the missing ones have key -inf.
    """
    kept, index = keys.topk(min(count, len(keys)))
    missing = count - len(kept)
    kept = torch.cat([kept, kept.new_full((missing,), -torch.inf)])
    picked = torch.cat([rows[index], rows.new_zeros(missing, rows.shape[1])])
    if not (across_ranks and is_distributed()):
        return picked, kept
    best, winners = torch.cat(_gather(kept)).topk(count)
    mine = winners - dist.get_rank() * count  # each winner's index among this rank's own, if it is here
    here = (mine >= 0) & (mine < count)
    chosen = torch.where(here[:, None], picked[mine.clamp(0, count - 1)], 0.0)
    dist.all_reduce(chosen)
    return chosen, best
