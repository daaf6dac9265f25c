"""Dreams with and without a recording, compared on a simulated GPU; run in a process of its own."""

import copy
from types import SimpleNamespace

import pretend_gpu
import pytest
import token_worldmodel.recorded
import torch
from hrvq import HRVQ, HRVQConfig
from latent_ac import ActorConfig, Agent, AgentConfig, CriticConfig, PredictorConfig
from pretend_gpu import DEVICE, Graph
from token_worldmodel import Recorded, TokenBatch, WorldModel, WorldModelConfig
from token_worldmodel.config import Position
from torch import Tensor
from wm.dreams import Dreamer
from wm.sections import DreamConfig

CONTEXT, HORIZON, DREAMS = 3, 4, 6


def main() -> None:
    pretend_gpu.install()
    with pretend_gpu.Pretended():
        the_agent_learns_the_same_from_recorded_dreams("token")
        the_agent_learns_the_same_from_recorded_dreams("step")
        what_cannot_be_recorded_runs_as_it_is()
        results_stay_and_shapes_are_told_apart()


def the_agent_learns_the_same_from_recorded_dreams(position: Position) -> None:
    actions, weights, launches = learned(position, recorded=False)
    assert launches == 0
    again, same, launches = learned(position, recorded=True)
    assert launches == 4  # of five dreams, all but the first
    assert torch.equal(actions, again)
    assert torch.equal(weights, same)
    assert len(set(map(tuple, actions[:, 0].tolist()))) > 4  # neither dreams nor their parts are one


def learned(position: Position, *, recorded: bool) -> tuple[Tensor, Tensor, int]:
    """The actions of every step of practice, all weights after it, and the launches of recordings."""
    token_worldmodel.recorded.can_record = lambda _: recorded  # type: ignore[assignment]
    before = Graph.launches
    torch.manual_seed(0)
    quantizer = HRVQ(HRVQConfig(dim=5, levels=2, codes=7))
    quantizer.set_codebooks([torch.randn(7, 5), torch.randn(7, 5)])
    sizes = {"feature_dim": 26, "hidden": (16,)}
    predictor = PredictorConfig(feature_dim=10, hidden=(16,))
    agent = Agent(ActorConfig(**sizes), CriticConfig(**sizes), predictor).to(DEVICE)
    sizes = {"num_levels": 2, "num_codes": 7, "code_dim": 5, "dim": 16, "num_layers": 2, "num_heads": 2}
    model = WorldModel(WorldModelConfig(**sizes, position=position, max_steps=8)).to(DEVICE).eval()
    model.set_codebooks([codes.to(DEVICE) for codes in quantizer.codebooks])
    dreamer = Dreamer(
        model=model,
        quantizer=copy.deepcopy(quantizer).to(DEVICE),
        agent=agent,
        masks=torch.tensor([[True] * 18, [True, False] * 9]).to(DEVICE),
        contexts=SimpleNamespace(batch=contexts),
        config=DreamConfig(context=CONTEXT, horizon=HORIZON, hidden_state=True),
        learning=AgentConfig(algorithm="ppo", ppo_minibatches=2, ppo_epochs=1),
        seed=0,
        first_batch=0,
        precision="float32",
    )
    optimizer = torch.optim.AdamW(dreamer.learner.parameters(), lr=1e-2)
    actions = []
    for step in range(10):
        batch = dreamer.batch(step)
        actions.append(batch.actions)
        loss, _ = dreamer.learner(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    weights = torch.cat([parameter.detach().flatten() for parameter in agent.parameters()])
    return torch.stack(actions).cpu(), weights.cpu(), Graph.launches - before


def contexts(index: int) -> TokenBatch:
    """Others, and of other games, each time."""
    draw = torch.Generator().manual_seed(index)
    unused = torch.zeros(DREAMS, CONTEXT + 1)
    return TokenBatch(
        tokens=torch.randint(7, (DREAMS, CONTEXT + 1, 2), generator=draw).to(DEVICE),
        actions=torch.randint(18, (DREAMS, CONTEXT + 1), generator=draw).to(DEVICE),
        rewards=unused,
        terminated=unused.bool(),
        truncated=unused.bool(),
        final=unused.bool(),
        lives=unused.long(),
        game_index=torch.randint(2, (DREAMS,), generator=draw).to(DEVICE),
    )


def what_cannot_be_recorded_runs_as_it_is() -> None:
    dice, x = torch.Generator(DEVICE), torch.arange(4.0).to(DEVICE)

    def looks(x: Tensor) -> tuple[Tensor, ...]:
        return (x * int(x.max()) + torch.rand(x.shape, generator=dice, device=DEVICE),)

    def picks(x: Tensor) -> tuple[Tensor, ...]:
        return (x[x > 1] + torch.rand(2, generator=dice, device=DEVICE),)

    for function in (looks, picks):
        recorded = Recorded(function, dice)
        for call in range(3):
            dice.manual_seed(call)
            expected = function(x)[0].cpu()
            dice.manual_seed(call)
            if call == 1:
                with pytest.warns(
                    UserWarning, match="not recorded as a CUDA graph, so slower: operation not"
                ):
                    found = recorded(x)[0]
            else:
                found = recorded(x)[0]
            assert torch.equal(found.cpu(), expected)


def results_stay_and_shapes_are_told_apart() -> None:
    recorded, before = Recorded(lambda x, y: (x + y,)), Graph.launches
    x = torch.arange(4.0).to(DEVICE)
    sums = [recorded(x, x * k)[0] for k in range(4)]
    for k, found in enumerate(sums):
        assert found.tolist() == [0, 1 + k, 2 + 2 * k, 3 + 3 * k]
    assert [recorded(x[:2], x[:2])[0].tolist() for _ in range(2)] == [[0, 2], [0, 2]]
    assert Graph.launches - before == 3 + 1


if __name__ == "__main__":
    main()
