"""The whole machinery on problems whose answer is known."""

import pytest
import torch
from latent_ac import (
    Actor,
    ActorConfig,
    ActorCriticObjective,
    AgentConfig,
    Critic,
    CriticConfig,
    ImaginedBatch,
    action_mask,
)

SIDE, GOAL, GAMMA = 4, 15, 0.9
WALLS = {5, 6, 10}
MOVES = {2: -SIDE, 3: 1, 4: -1, 5: SIDE}  # ALE's UP, RIGHT, LEFT, DOWN
OPEN_CELLS = [cell for cell in range(SIDE * SIDE) if cell not in WALLS and cell != GOAL]


def next_cells() -> torch.Tensor:
    """Deterministic moves, int64 (cells, 18): against a wall or the border one stays."""
    table = torch.arange(SIDE * SIDE)[:, None].repeat(1, 18)
    for cell in range(SIDE * SIDE):
        for action, move in MOVES.items():
            target = cell + move
            sideways = abs(move) == 1 and target // SIDE != cell // SIDE
            if 0 <= target < SIDE * SIDE and not sideways and target not in WALLS:
                table[cell, action] = target
    return table


def optimal_values() -> torch.Tensor:
    """Value iteration: 1 for reaching the goal, which ends the episode."""
    table, values = next_cells()[:, list(MOVES)], torch.zeros(SIDE * SIDE)
    for _ in range(50):
        values = torch.where(table == GOAL, 1.0, GAMMA * values[table]).amax(1)
        values[GOAL] = 0.0
    return values


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo"])
def test_finds_the_shortest_way_through_a_maze(algorithm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    cells = SIDE * SIDE
    actor = Actor(ActorConfig(feature_dim=cells, hidden=(32,)), generator=generator)
    critic = Critic(
        CriticConfig(feature_dim=cells, hidden=(32,), num_bins=41, limit=2.0), generator=generator
    )
    config = AgentConfig(algorithm=algorithm, gamma=GAMMA, entropy_coef=1e-2, slow_decay=0.9)
    objective = ActorCriticObjective(actor, critic, config)
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=1e-2)
    table, mask, one_hot = next_cells(), action_mask(MOVES), torch.eye(cells)
    starts = torch.tensor(OPEN_CELLS)
    for _ in range(400 // objective.steps_per_batch):
        cell = starts[torch.randint(0, len(starts), (64,), generator=generator)]
        path, actions, log_probs = [cell], [], []
        for _ in range(10):
            action, log_prob = actor.act_with_log_prob(one_hot[cell], mask, generator=generator)
            cell = torch.where(cell == GOAL, cell, table[cell, action])
            path.append(cell)
            actions.append(action)
            log_probs.append(log_prob)
        visited = torch.stack(path)
        arrived = (visited[1:] == GOAL) & (visited[:-1] != GOAL)
        dream = ImaginedBatch(
            features=one_hot[visited],
            actions=torch.stack(actions),
            rewards=5.0 * arrived,  # clipped to 1 by the learner
            continues=1.0 - (visited[1:] == GOAL).float(),
            action_mask=mask,
            log_probs=torch.stack(log_probs),
        )
        for part in objective.minibatches(dream, generator=generator):
            loss, _ = objective(part)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            objective.after_step()
    best = optimal_values()
    greedy = actor.act(one_hot[starts], mask, temperature=0)
    reached = table[starts, greedy]
    achieved = torch.where(reached == GOAL, 1.0, GAMMA * best[reached])
    torch.testing.assert_close(achieved, best[starts])  # every greedy move is optimal, from every cell
    torch.testing.assert_close(critic(one_hot[starts]), best[starts], atol=0.15, rtol=0)


@pytest.mark.parametrize("slow_target", ["returns", "regularizer"])
@pytest.mark.parametrize("head", ["two_hot", "normal", "mse"])
def test_critic_finds_the_values_of_the_random_walk(head: str, slow_target: str) -> None:
    """Five states, left or right by chance, 1 for leaving to the right: v_k = k / 6.

    Sutton & Barto, 2018, example 6.2.
    """
    generator = torch.Generator().manual_seed(0)
    actor = Actor(ActorConfig(feature_dim=7, hidden=(), num_actions=1), generator=generator)
    critic = Critic(
        CriticConfig(feature_dim=7, hidden=(32,), head=head, num_bins=21, limit=1.5), generator=generator
    )
    config = AgentConfig(gamma=1.0, lambda_=0.8, slow_decay=0.9, slow_target=slow_target)
    objective = ActorCriticObjective(actor, critic, config)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, 300)
    one_hot, mask = torch.eye(7), action_mask([0], 1)
    for _ in range(300):
        state = torch.randint(1, 6, (128,), generator=generator)
        path = [state]
        for _ in range(8):
            move = 2 * torch.randint(0, 2, (128,), generator=generator) - 1
            state = torch.where((state == 0) | (state == 6), state, state + move)
            path.append(state)
        visited = torch.stack(path)
        ended = (visited == 0) | (visited == 6)
        dream = ImaginedBatch(
            features=one_hot[visited],
            actions=torch.zeros(8, 128, dtype=torch.int64),
            rewards=((visited[1:] == 6) & ~ended[:-1]).float(),
            continues=1.0 - ended[1:].float(),
            action_mask=mask,
        )
        loss, _ = objective(dream)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        objective.after_step()
    expected = torch.arange(1, 6) / 6
    torch.testing.assert_close(critic(one_hot[1:6]), expected, atol=0.04, rtol=0)
