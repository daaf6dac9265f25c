"""One dream of a run's agent, from a real beginning and as long as one likes."""

from dataclasses import dataclass

import numpy as np
import torch
from atari_data import split_episodes, window_starts
from latent_ac import CodeFeatures
from numpy.typing import NDArray
from token_worldmodel import Policy, WorldModel, imagine
from torch import Tensor

from wm.actions import allowed_actions
from wm.artifacts import frozen_agent, frozen_quantizer, frozen_worldmodel, known_tokens
from wm.config import RunConfig
from wm.device import derive_seed, generator
from wm.dreams import agent_state
from wm.run import Layout


@dataclass(frozen=True)
class WatchedDream:
    """C real steps and H dreamed ones. Arrays are on the CPU.

    Args:
        real: uint8 (C, 84, 84), the frames of the real steps.
        tokens: int64 (C + H, L).
        actions: int64 (C + H - 1,), those between the steps: C - 1 taken in the game, the rest by the agent.
        rewards: float32 (H,), predicted for each dreamed action.
        continues: float32 (H,), predicted probability that the game goes on after it.
    """

    real: NDArray[np.uint8]
    tokens: Tensor
    actions: Tensor
    rewards: Tensor
    continues: Tensor


@torch.no_grad()
def dream_on(
    model: WorldModel,
    config: RunConfig,
    tokens: Tensor,
    actions: Tensor,
    policy: Policy,
    horizon: int,
    draw: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A dream of any length. The model knows windows: it goes on from its own last ``dream.context`` steps.

    Args:
        model: the run's.
        config: the run's.
        tokens: int64 (B, C, L), C = ``dream.context``; actions: int64 (B, C - 1).
        policy: as of :func:`token_worldmodel.imagine`.
        horizon: steps to dream.
        draw: source of the sampled tokens.

    Returns:
        tokens int64 (B, C + horizon, L) and actions int64 (B, C + horizon - 1), the given ones first.
    """
    context = config.dream.context
    # Positions beyond the training windows mean nothing to the model.
    longest = max(1, min(config.worldmodel.max_steps, config.windows.length) - context)
    while (left := context + horizon - tokens.shape[1]) > 0:
        dream = imagine(
            model,
            tokens[:, -context:],
            actions[:, actions.shape[1] - context + 1 :],
            policy,
            min(left, longest),
            generator=draw,
            temperature=config.dream.temperature,
        )
        tokens = torch.cat([tokens, dream.tokens[:, 1:]], 1)
        actions = torch.cat([actions, dream.actions], 1)
    return tokens, actions


@torch.no_grad()
def watch(
    layout: Layout, config: RunConfig, game: str, *, horizon: int, seed: int, device: torch.device
) -> WatchedDream:
    """Let the agent play ``horizon`` steps of ``game`` in the world model, from a real validation context.

    The model has learned windows of ``windows.length`` steps. A longer dream goes on from its own last
    ``dream.context`` steps, taken as a new context.

    Raises:
        ValueError: no validation episode is long enough, or an artifact is missing or damaged.
    """
    context = config.dream.context
    model = frozen_worldmodel(layout, device)
    trajectories, frames = known_tokens(layout, game, model), layout.frames(game)
    # One step more than the context, so that no dream starts from an episode's final observation.
    starts = window_starts(trajectories.episode_ids, context + 1)
    held_out = split_episodes(trajectories.episode_ids, config.collect.validation_fraction, config.seed)
    starts = starts[held_out[starts]]
    if not len(starts):
        raise ValueError(
            f"{game} has no validation episode of {context + 1} steps to dream on from; "
            "raise collect.num_steps or lower dream.context"
        )
    start = int(np.random.default_rng(derive_seed(seed, "watch", game)).choice(starts))

    quantizer = frozen_quantizer(layout, device)
    agent = frozen_agent(layout, device)
    actor = agent.actor.on_codes(quantizer.codebooks)
    allowed = allowed_actions(game, trajectories.actions, trajectories.final)
    mask = torch.from_numpy(allowed).to(device)
    draw = generator(device, seed, "watch", game)

    def policy(tokens: Tensor, state: Tensor) -> Tensor:
        return actor.act(tokens, mask, state=agent_state(state, config.dream), generator=draw)

    rows = slice(start, start + context)
    tokens = torch.from_numpy(trajectories.tokens[rows]).long().to(device)[None]
    actions = torch.from_numpy(trajectories.actions[rows][:-1]).long().to(device)[None]
    tokens, actions = dream_on(model, config, tokens, actions, policy, horizon, draw)
    features = CodeFeatures(tokens[:, context - 1 :].transpose(0, 1), quantizer.codebooks)
    rewards, continues = agent.predict(features, actions[:, context - 1 :].T)
    return WatchedDream(
        real=frames.frames[rows],
        tokens=tokens[0].cpu(),
        actions=actions[0].cpu(),
        rewards=rewards[:, 0].cpu(),
        continues=continues[:, 0].cpu(),
    )
