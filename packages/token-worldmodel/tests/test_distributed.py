import torch
import torch.distributed as dist
from token_worldmodel import TokenBatch, WorldModel, WorldModelConfig, WorldModelObjective
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

BATCH, STEPS = 4, 6


def objective_and_batch(rows: slice) -> tuple[WorldModelObjective, TokenBatch]:
    torch.manual_seed(0)
    config = WorldModelConfig(num_codes=8, dim=16, num_layers=2, num_heads=2, ffn_dim=32, max_steps=STEPS)
    objective = WorldModelObjective(WorldModel(config))
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(8, (BATCH, STEPS, 3), generator=generator)[rows]
    actions = torch.randint(18, (BATCH, STEPS), generator=generator)[rows]
    zeros = torch.zeros(tokens.shape[:2])
    return objective, TokenBatch(
        tokens=tokens,
        actions=actions,
        rewards=zeros,
        terminated=zeros.bool(),
        truncated=zeros.bool(),
        final=zeros.bool(),
        lives=zeros.long(),
        game_index=zeros[:, 0].long(),
    )


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    half = BATCH // 2
    objective, batch = objective_and_batch(slice(rank * half, (rank + 1) * half))
    replica = DistributedDataParallel(objective)
    loss, _ = replica(batch)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in objective.named_parameters()}
    torch.save((loss.detach(), gradients), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_learn_what_one_does(tmp_path) -> None:
    multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)
    (loss_0, gradients), (loss_1, gradients_1) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    objective, batch = objective_and_batch(slice(None))
    loss, _ = objective(batch)
    loss.backward()
    torch.testing.assert_close((loss_0 + loss_1) / 2, loss.detach())
    for name, parameter in objective.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)
        assert torch.equal(gradients[name], gradients_1[name])
