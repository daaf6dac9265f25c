"""Data-parallel training: the same `wm train` in every process that ``torchrun`` starts.

Process 0 leads: it alone collects, writes and prints. Stages marked ``parallel`` are run by all processes;
each takes its slice of every batch, and torch's DistributedDataParallel averages the gradients, so that the
step equals that of one process with the whole batch.
"""

import os
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

B = TypeVar("B", bound="DataclassInstance")

# The others wait for whatever process 0 does alone, such as playing; that may take hours.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Team:
    """The processes that train together: the ``rank`` of this one, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, batch: B) -> B:
        """This process's slice of a batch: a dataclass of tensors, cut along the first axis.

        Raises:
            ValueError: the batch cannot be cut into equal slices, or its columns differ in length.
        """
        if self.size == 1:
            return batch
        columns = {field.name: getattr(batch, field.name) for field in fields(batch)}
        rows = sorted({len(column) for column in columns.values()})
        if len(rows) != 1:
            raise ValueError(f"the columns of a batch have {rows} rows; give all of them the same number")
        (count,) = rows
        if count % self.size:
            raise ValueError(
                f"a batch of {count} cannot be shared evenly by {self.size} processes; give a batch_size "
                f"that {self.size} divides"
            )
        part = slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)
        return type(batch)(**{name: column[part] for name, column in columns.items()})

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """The module with its gradients averaged over all processes."""
        if self.size == 1:
            return module
        ids = [device] if device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids)

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is true in any process; all must call this."""
        if self.size == 1:
            return flag
        answer = torch.tensor(int(flag))
        dist.all_reduce(answer, dist.ReduceOp.MAX)
        return bool(answer)

    def as_leader_says(self, flag: bool) -> bool:
        """The leader's ``flag``; all must call this."""
        return self.any(flag and self.leads)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        self.any(False)


ALONE = Team()


def join(device: torch.device) -> tuple[Team, torch.device]:
    """The team that ``torchrun`` started, and this process's device; without torchrun, this process alone.

    Raises:
        ValueError: there are more processes on this machine than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE, device
    backend = "gloo"
    if device.type == "cuda":
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise ValueError(f"process {local} has no GPU: this machine has {there}; start fewer processes")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    if not dist.is_initialized():
        dist.init_process_group(backend, timeout=_PATIENCE)
    return Team(dist.get_rank(), dist.get_world_size()), device


def leave() -> None:
    """Leave the team; does nothing for a process alone."""
    if dist.is_initialized():
        dist.destroy_process_group()
