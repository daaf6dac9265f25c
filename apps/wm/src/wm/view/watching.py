"""Dreams of one game to look at: from a real beginning, of any length."""

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
from wm.opened import RunAtHand


def unit_of_rewards(config: RunConfig) -> str:
    """What to say next to predicted rewards: a predictor of signs does not know how large a reward is."""
    return " (each reward counted as 1)" if config.predictor.knows_signs_only else ""


@dataclass(frozen=True)
class WatchedDream:
    """C real steps and H dreamed ones. Arrays are on the CPU.

    Args:
        real: uint8 (C, 84, 84), the frames of the real steps.
        tokens: int64 (C + H, L).
        actions: int64 (C + H - 1,), those between the steps: C - 1 taken in the game, the rest in the dream.
        rewards: float32 (H,), predicted for each dreamed action.
        continues: float32 (H,), predicted probability that the game continues after it.
    """

    real: NDArray[np.uint8]
    tokens: Tensor
    actions: Tensor
    rewards: Tensor
    continues: Tensor


@dataclass(frozen=True)
class Imagination:
    """What a run dreams with, and predicts rewards and ends of dreams with."""

    config: RunConfig
    model: WorldModel
    quantizer: HRVQ
    agent: Agent

    @classmethod
    def load(cls, run: RunAtHand) -> Self:
        """Load it from the run's artifacts.

        Raises:
            ValueError: an artifact is missing or damaged.
        """
        layout, device = run.layout, run.device
        require_parts(layout, "hrvq", "worldmodel", "agent")
        return cls(
            config=run.config,
            model=frozen_worldmodel(layout, device),
            quantizer=frozen_quantizer(layout, device),
            agent=frozen_agent(layout, device),
        )

    @torch.no_grad()
    def dream_on(
        self, tokens: Tensor, actions: Tensor, policy: Policy, horizon: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """A dream of any length; after each window the model continues from the last ``dream.context`` steps.

        Args:
            tokens: int64 (B, C, L), C = ``dream.context``; actions: int64 (B, C - 1).
            policy: as for :func:`token_worldmodel.imagine`.
            horizon: steps to dream.
            rng: source of the sampled tokens.

        Returns:
            tokens int64 (B, C + horizon, L) and actions int64 (B, C + horizon - 1), the given ones first.
        """
        context = self.config.dream.context
        longest = self.config.windows.length - context
        while (left := context + horizon - tokens.shape[1]) > 0:
            dream = imagine(
                self.model,
                tokens[:, -context:],
                actions[:, actions.shape[1] - context + 1 :],
                policy,
                min(left, longest),
                generator=rng,
                temperature=self.config.dream.temperature,
            )
            tokens = torch.cat([tokens, dream.tokens[:, 1:]], 1)
            actions = torch.cat([actions, dream.actions], 1)
        return tokens, actions

    def judge(self, tokens: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted rewards and probabilities that the game continues, float32 (H,) each, on the CPU.

        Args:
            tokens: int64 (1, H + 1, L).
            actions: int64 (1, H), those between the steps.
        """
        features = CodeFeatures(tokens.transpose(0, 1), self.quantizer.codebooks)
        rewards, continues = self.agent.predict(features, actions.T)
        return rewards[:, 0].cpu(), continues[:, 0].cpu()


@dataclass(frozen=True)
class DreamedGame:
    """One game of a run, as its world model dreams it and its agent plays it.

    Args:
        actor: the agent's, on the run's codes.
        mask: bool (18,), the game's own actions.
        rng: source of choices and of sampled tokens, on the model's device.
    """

    game: str
    imagination: Imagination
    actor: CodePolicy
    mask: Tensor
    trajectories: TokenTrajectories
    store: FrameStore
    rng: torch.Generator
    seed: int

    @classmethod
    def load(cls, run: RunAtHand, game: str | None, *, seed: int) -> Self:
        """Load a game from the run's artifacts; the run's first one if none is named.

        Raises:
            ValueError: the run has not seen the game, has no agent yet, or an artifact is missing or damaged.
        """
        config, layout, device = run.config, run.layout, run.device
        game = config.games[0] if game is None else game
        if game not in config.games:
            raise ValueError(f"the run has not seen {game!r}; it knows {', '.join(config.games)}")
        imagination = Imagination.load(run)
        trajectories = known_tokens(layout, game, imagination.model)
        allowed = allowed_actions(game, trajectories.actions, trajectories.final)
        return cls(
            game=game,
            imagination=imagination,
            actor=imagination.agent.actor.on_codes(imagination.quantizer.codebooks),
            mask=torch.from_numpy(allowed).to(device),
            trajectories=trajectories,
            store=frames_of(layout, game, trajectories),
            rng=generator(seed, "watch", game, device=device),
            seed=seed,
        )

    def beginnings(self) -> Iterator[WatchedDream]:
        """Dreams yet to begin: ``dream.context`` real steps of a validation episode, uniformly at random.

        Raises:
            ValueError: no validation episode is long enough.
        """
        config, known = self.imagination.config, self.trajectories
        context = config.dream.context
        # One step more than the context, so that no dream starts from an episode's final observation.
        starts = window_starts(known.episode_ids, context + 1)
        starts = starts[config.validates(known.episode_ids)[starts]]
        if not len(starts):
            raise ValueError(
                f"{self.game} has no validation episode of {context + 1} steps to start a dream from; "
                "lower dream.context, or collect or import more play"
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
        seen = agent_state(state, self.imagination.config.dream)
        return self.actor.act(tokens, self.mask, state=seen, generator=self.rng)


@torch.no_grad()
def watch(dreamed: DreamedGame, horizon: int) -> WatchedDream:
    """Let the agent play ``horizon`` steps in the world model, from a real validation context.

    Raises:
        ValueError: no validation episode is long enough.
    """
    begin = next(dreamed.beginnings())
    tokens, actions = (steps[None].to(dreamed.mask.device) for steps in (begin.tokens, begin.actions))
    tokens, actions = dreamed.imagination.dream_on(tokens, actions, dreamed.policy, horizon, dreamed.rng)
    last = len(begin.real) - 1
    rewards, continues = dreamed.imagination.judge(tokens[:, last:], actions[:, last:])
    return WatchedDream(begin.real, tokens[0].cpu(), actions[0].cpu(), rewards, continues)


@torch.no_grad()
def one_more(dreamed: DreamedGame, dream: WatchedDream, action: int | None = None) -> WatchedDream:
    """The dream with one more step, by the action, one of the 18, or if None by the agent's choice.

    The model reads as many of the last steps as it was trained on, so a dream need never end.
    """
    config = dreamed.imagination.config
    known = min(config.windows.length - 1, len(dream.tokens))
    device = dreamed.mask.device
    tokens = dream.tokens[-known:].to(device)
    actions = dream.actions[len(dream.actions) - known + 1 :].to(device)

    def given(tokens: Tensor, _state: Tensor) -> Tensor:
        return torch.tensor([action], device=tokens.device)

    step = imagine(
        dreamed.imagination.model,
        tokens[None],
        actions[None],
        dreamed.policy if action is None else given,
        1,
        generator=dreamed.rng,
        temperature=config.dream.temperature,
    )
    rewards, continues = dreamed.imagination.judge(step.tokens, step.actions)
    return replace(
        dream,
        tokens=torch.cat([dream.tokens, step.tokens[0, 1:].cpu()]),
        actions=torch.cat([dream.actions, step.actions[0].cpu()]),
        rewards=torch.cat([dream.rewards, rewards]),
        continues=torch.cat([dream.continues, continues]),
    )
