"""Dreams of one game that are looked at: from a real beginning, as long as one likes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from atari_data import FrameStore, window_starts
from hrvq import HRVQ
from latent_ac import Agent, CodeFeatures, CodePolicy
from numpy.typing import NDArray
from token_worldmodel import Policy, TokenTrajectories, WorldModel, imagine
from torch import Tensor

from wm.actions import allowed_actions
from wm.artifacts import (
    frames_of,
    frozen_agent,
    frozen_quantizer,
    frozen_worldmodel,
    known_tokens,
    require_parts,
)
from wm.config import RunConfig
from wm.device import derive_seed, generator
from wm.dreams import agent_state
from wm.run import Layout


def unit_of_rewards(config: RunConfig) -> str:
    """What to say beside predicted rewards: a predictor of signs knows not how much a reward is."""
    return " (each reward counted as 1)" if config.predictor.knows_signs_only else ""


@dataclass(frozen=True)
class WatchedDream:
    """C real steps and H dreamed ones. Arrays are on the CPU.

    Args:
        real: uint8 (C, 84, 84), the frames of the real steps.
        tokens: int64 (C + H, L).
        actions: int64 (C + H - 1,), those between the steps: C - 1 taken in the game, the rest in the dream.
        rewards: float32 (H,), predicted for each dreamed action.
        continues: float32 (H,), predicted probability that the game goes on after it.
    """

    real: NDArray[np.uint8]
    tokens: Tensor
    actions: Tensor
    rewards: Tensor
    continues: Tensor


@dataclass(frozen=True)
class DreamedGame:
    """One game of a run, as its world model dreams it and its agent plays it.

    Args:
        actor: the agent's, on the run's codes.
        mask: bool (18,), the game's own actions.
        rng: source of choices and of sampled tokens, on the model's device.
    """

    game: str
    config: RunConfig
    model: WorldModel
    quantizer: HRVQ
    agent: Agent
    actor: CodePolicy
    mask: Tensor
    trajectories: TokenTrajectories
    store: FrameStore
    rng: torch.Generator
    seed: int

    @classmethod
    def load(
        cls, config: RunConfig, layout: Layout, game: str | None, *, seed: int, device: torch.device
    ) -> Self:
        """What the run's artifacts make of a game; of its first one, if none is named.

        Raises:
            ValueError: the run has not seen the game, has no agent yet, or an artifact is missing or damaged.
        """
        game = config.games[0] if game is None else game
        if game not in config.games:
            raise ValueError(f"the run has not seen {game!r}; it knows {', '.join(config.games)}")
        require_parts(layout, "hrvq", "worldmodel", "agent")
        model, quantizer = frozen_worldmodel(layout, device), frozen_quantizer(layout, device)
        agent, trajectories = frozen_agent(layout, device), known_tokens(layout, game, model)
        allowed = allowed_actions(game, trajectories.actions, trajectories.final)
        return cls(
            game=game,
            config=config,
            model=model,
            quantizer=quantizer,
            agent=agent,
            actor=agent.actor.on_codes(quantizer.codebooks),
            mask=torch.from_numpy(allowed).to(device),
            trajectories=trajectories,
            store=frames_of(layout, game, trajectories),
            rng=generator(seed, "watch", game, device=device),
            seed=seed,
        )

    def beginnings(self) -> Iterator[WatchedDream]:
        """Dreams that have not begun: ``dream.context`` real steps of a validation episode, drawn evenly.

        Raises:
            ValueError: no validation episode is long enough.
        """
        context, known = self.config.dream.context, self.trajectories
        # One step more than the context, so that no dream starts from an episode's final observation.
        starts = window_starts(known.episode_ids, context + 1)
        starts = starts[self.config.validates(known.episode_ids)[starts]]
        if not len(starts):
            raise ValueError(
                f"{self.game} has no validation episode of {context + 1} steps to dream on from; "
                "raise collect.num_steps or lower dream.context"
            )
        rng = np.random.default_rng(derive_seed(self.seed, "watch", self.game))
        while True:
            first = int(rng.choice(starts))
            rows = slice(first, first + context)
            yield WatchedDream(
                real=self.store.frames[rows],
                tokens=torch.from_numpy(known.tokens[rows]).long(),
                actions=torch.from_numpy(known.actions[rows][:-1]).long(),
                rewards=torch.zeros(0),
                continues=torch.zeros(0),
            )

    def policy(self, tokens: Tensor, state: Tensor) -> Tensor:
        """The agent's choice, a :data:`token_worldmodel.Policy`."""
        seen = agent_state(state, self.config.dream)
        return self.actor.act(tokens, self.mask, state=seen, generator=self.rng)

    def judge(self, tokens: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted rewards and probabilities that the game goes on, float32 (H,) each, on the CPU.

        Args:
            tokens: int64 (1, H + 1, L).
            actions: int64 (1, H), those between the steps.
        """
        features = CodeFeatures(tokens.transpose(0, 1), self.quantizer.codebooks)
        rewards, continues = self.agent.predict(features, actions.T)
        return rewards[:, 0].cpu(), continues[:, 0].cpu()


@torch.no_grad()
def dream_on(
    model: WorldModel,
    config: RunConfig,
    tokens: Tensor,
    actions: Tensor,
    policy: Policy,
    horizon: int,
    rng: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A dream of any length. The model knows windows: it goes on from its own last ``dream.context`` steps.

    Args:
        model: the run's.
        config: the run's.
        tokens: int64 (B, C, L), C = ``dream.context``; actions: int64 (B, C - 1).
        policy: as of :func:`token_worldmodel.imagine`.
        horizon: steps to dream.
        rng: source of the sampled tokens.

    Returns:
        tokens int64 (B, C + horizon, L) and actions int64 (B, C + horizon - 1), the given ones first.
    """
    context = config.dream.context
    longest = config.windows.length - context
    while (left := context + horizon - tokens.shape[1]) > 0:
        dream = imagine(
            model,
            tokens[:, -context:],
            actions[:, actions.shape[1] - context + 1 :],
            policy,
            min(left, longest),
            generator=rng,
            temperature=config.dream.temperature,
        )
        tokens = torch.cat([tokens, dream.tokens[:, 1:]], 1)
        actions = torch.cat([actions, dream.actions], 1)
    return tokens, actions


@torch.no_grad()
def watch(dreamed: DreamedGame, horizon: int) -> WatchedDream:
    """Let the agent play ``horizon`` steps in the world model, from a real validation context (`dream_on`).

    Raises:
        ValueError: no validation episode is long enough.
    """
    begin = next(dreamed.beginnings())
    tokens, actions = (steps[None].to(dreamed.mask.device) for steps in (begin.tokens, begin.actions))
    tokens, actions = dream_on(
        dreamed.model, dreamed.config, tokens, actions, dreamed.policy, horizon, dreamed.rng
    )
    last = len(begin.real) - 1
    rewards, continues = dreamed.judge(tokens[:, last:], actions[:, last:])
    return WatchedDream(begin.real, tokens[0].cpu(), actions[0].cpu(), rewards, continues)


@torch.no_grad()
def one_more(dreamed: DreamedGame, dream: WatchedDream, action: int | None = None) -> WatchedDream:
    """The dream with one step more, by the action, one of the 18, or without one by the agent's choice.

    The model reads as many of the last steps as it has learned to, so a dream has no end.
    """
    known = min(dreamed.config.windows.length - 1, len(dream.tokens))
    device = dreamed.mask.device
    tokens = dream.tokens[-known:].to(device)
    actions = dream.actions[len(dream.actions) - known + 1 :].to(device)

    def given(tokens: Tensor, _state: Tensor) -> Tensor:
        return torch.tensor([action], device=tokens.device)

    step = imagine(
        dreamed.model,
        tokens[None],
        actions[None],
        dreamed.policy if action is None else given,
        1,
        generator=dreamed.rng,
        temperature=dreamed.config.dream.temperature,
    )
    rewards, continues = dreamed.judge(step.tokens, step.actions)
    return replace(
        dream,
        tokens=torch.cat([dream.tokens, step.tokens[0, 1:].cpu()]),
        actions=torch.cat([dream.actions, step.actions[0].cpu()]),
        rewards=torch.cat([dream.rewards, rewards]),
        continues=torch.cat([dream.continues, continues]),
    )
