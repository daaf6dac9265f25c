"""Two processes with half a batch each learn what one process learns from the whole."""

import os
import socket
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hrvq import HRVQ, HRVQConfig

CONFIG = HRVQConfig(dim=8, levels=2, codes=32, commitment_weights=1.0, decay=0.7, revive_below=0.3)


def batches():
    generator = torch.Generator().manual_seed(0)
    # The embedding moves, so codes die and are revived all the time; the shares are uneven.
    return [torch.randn(90, 8, generator=generator) + 3 * step for step in range(6)]


def train(rank: int, ranks: int, *, joint: bool) -> HRVQ:
    q = HRVQ(replace(CONFIG, joint=joint))
    for x in batches():
        share = x if ranks == 1 else x[:30] if rank == 0 else x[30:]
        q.update(share)  # the first starts the codes by k-means
    return q


def work(rank: int, port: int, path: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for joint in (False, True):
        torch.save(train(rank, 2, joint=joint).state_dict(), f"{path}/{joint}-{rank}.pt")
        if rank == 0:  # by itself: the other would not answer
            alone = HRVQ(replace(CONFIG, joint=joint))
            for x in batches():
                alone.update(x, across_ranks=False)
            torch.save(alone.state_dict(), f"{path}/{joint}-alone.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What two processes made; they are started once, since that takes longer than their work."""
    path = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(work, (port, str(path)), nprocs=2)
    return path


@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo")
@pytest.mark.parametrize("joint", [False, True])
def test_two_processes_equal_one_with_the_joined_batch(joint, made):
    one = train(0, 1, joint=joint).state_dict()
    first, second = (torch.load(made / f"{joint}-{rank}.pt") for rank in range(2))
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], value, rtol=1e-4, atol=1e-4), name
    alone = torch.load(made / f"{joint}-alone.pt")
    for name, value in one.items():
        assert torch.allclose(alone[name], value, rtol=1e-4, atol=1e-4), name
