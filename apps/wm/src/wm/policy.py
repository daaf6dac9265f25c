"""Policies for the real game: a trained run's, and random ones."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from atari_data import Policy, RandomPolicy, StickyRandomPolicy, action_mask
from atari_data import games as ale_games
from cnn_encoder import Encoder, embed
from hrvq import HRVQ
from latent_ac import CodePolicy
from numpy.typing import NDArray
from token_worldmodel import StateTracker, WorldModel
from torch import Tensor

from wm.actions import allowed_actions
from wm.artifacts import frozen_agent, frozen_encoder, frozen_quantizer, frozen_worldmodel, tokens_of
from wm.device import generator
from wm.dreams import agent_state
from wm.run import Layout
from wm.sections import CollectConfig, DreamConfig, EvaluateConfig, RoundsConfig


class Memory:
    """The world model's state in every game being played.

    Environments are tracked in the groups in which they are asked about, which must not change (see
    ``atari_data.play``); a group is identified by the number of its first environment.
    """

    def __init__(self, model: WorldModel, config: DreamConfig) -> None:
        self._model, self._config = model, config
        self._trackers: dict[int, StateTracker] = {}

    def observe(self, env_ids: np.ndarray, observations: np.ndarray, tokens: Tensor) -> Tensor | None:
        """The state (B, D) as the actor sees it, once each environment shows ``tokens`` int64 (B, L).

        Raises:
            ValueError: a group is first asked about after a game's first frame, or its size changes.
        """
        group, plays = int(env_ids[0]), len(tokens)
        # At an episode's first frame, the three frames before it are black.
        begins = torch.from_numpy(~observations[:, :-1].any(axis=(1, 2, 3))).to(tokens.device)
        if group not in self._trackers:
            if not bool(begins.all()):
                raise ValueError(
                    "this agent has a memory that starts at a game's first frame, but an observation is of a "
                    "later one; begin with those of a reset, in which all but the newest frame are black"
                )
            self._trackers[group] = StateTracker(self._model, plays, self._config.memory)
        tracker = self._trackers[group]
        if plays != tracker.batch_size:
            raise ValueError(
                f"there are observations of {plays} games, but this agent has a memory of "
                f"{tracker.batch_size}; give the same games in every call, or load another policy for others"
            )
        return agent_state(tracker.observe(tokens, begins), self._config)

    def act(self, env_ids: np.ndarray, actions: Tensor) -> None:
        """Take note of the actions chosen, int64 (B,)."""
        self._trackers[int(env_ids[0])].act(actions)


@dataclass
class RunPolicy:
    """Callable: observations uint8 (B, 4, 84, 84), env ids -> actions int64 (B,), ids among all 18 actions.

    Without env ids, the observations are those of environments 0 to B - 1.

    Args:
        memory: tracks the world model's state, for an actor that sees it.
        temperature: of sampling among the game's own actions; 0 is greedy.
        epsilon: share of the actions drawn uniformly at random from the game's own instead.
        rng: source of randomness, on the same device as everything else.
    """

    encoder: Encoder
    quantizer: HRVQ
    actor: CodePolicy
    memory: Memory | None
    background: Tensor
    mask: Tensor
    temperature: float
    epsilon: float
    rng: torch.Generator

    @torch.inference_mode()
    def __call__(self, observations: np.ndarray, env_ids: np.ndarray | None = None) -> np.ndarray:
        """Choose an action for each environment."""
        env_ids = np.arange(len(observations)) if env_ids is None else env_ids
        tokens = self.quantizer.encode(embed(self.encoder, observations, self.background))
        actions = self.actor.act(
            tokens,
            self.mask,
            state=self.memory.observe(env_ids, observations, tokens) if self.memory else None,
            generator=self.rng,
            temperature=self.temperature,
        )
        if self.epsilon:
            actions = self._explore(actions)
        if self.memory:
            self.memory.act(env_ids, actions)
        chosen: np.ndarray = actions.cpu().numpy()
        return chosen

    def _explore(self, actions: Tensor) -> Tensor:
        others = self.mask.float().multinomial(len(actions), replacement=True, generator=self.rng)
        explore = torch.rand(len(actions), generator=self.rng, device=actions.device) < self.epsilon
        return torch.where(explore, others, actions)


def policy_of(
    layout: Layout,
    game: str,
    dream: DreamConfig,
    play: EvaluateConfig | RoundsConfig,
    *,
    seed: int,
    device: torch.device,
) -> RunPolicy:
    """The policy for ``game`` that a run's artifacts make up.

    Args:
        dream: says whether the actor sees the world model's state, and how many steps back that covers.
        play: gives the temperature and the share of random actions: for evaluation, or for collecting.

    Raises:
        ValueError: an artifact is missing or damaged, or the run's encoder has no background of the game.
    """
    encoder, backgrounds = frozen_encoder(layout, device)
    if game not in backgrounds:
        raise ValueError(f"the run has not seen {game!r}; it knows {', '.join(sorted(backgrounds))}")
    quantizer = frozen_quantizer(layout, device)
    actor = frozen_agent(layout, device).actor
    return RunPolicy(
        encoder=encoder,
        quantizer=quantizer,
        actor=actor.on_codes(quantizer.codebooks),
        memory=Memory(frozen_worldmodel(layout, device), dream) if dream.hidden_state else None,
        background=backgrounds[game],
        mask=torch.from_numpy(_own_actions(layout, game)).to(device),
        temperature=play.temperature,
        epsilon=play.epsilon,
        rng=generator(seed, "policy", game, device=device),
    )


def _own_actions(layout: Layout, game: str) -> NDArray[np.bool_]:
    """Bool (18,): the actions that the policy was trained with."""
    if game in ale_games():
        return action_mask(game)
    recorded = tokens_of(layout, game)
    return allowed_actions(game, recorded.actions, recorded.final)


def random_policy(config: CollectConfig, game: str, seed: int, num_envs: int) -> Policy:
    """The random policy that a run collects with; a run of imported play is measured on sticky play."""
    if config.policy == "random":
        return RandomPolicy(game, seed, num_envs)
    return StickyRandomPolicy(game, seed, num_envs, repeat=config.repeat)


class RecordedPolicy:
    """A policy that records its actions, and can repeat them."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._chosen: dict[int, list[int]] = defaultdict(list)

    def __call__(self, observations: NDArray[np.uint8], env_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The policy's actions, recorded."""
        actions = self._policy(observations, env_ids)
        for env, action in zip(env_ids.tolist(), actions.tolist(), strict=True):
            self._chosen[env].append(action)
        return actions

    def again(self) -> Policy:
        """A policy that repeats each environment's actions in order, and its first one once they run out."""
        asked: dict[int, int] = defaultdict(int)

        def policy(observations: NDArray[np.uint8], env_ids: NDArray[np.int64]) -> NDArray[np.int64]:
            actions = []
            for env in env_ids.tolist():
                known = self._chosen[env]
                actions.append(known[asked[env]] if asked[env] < len(known) else known[0])
                asked[env] += 1
            return np.array(actions, dtype=np.int64)

        return policy
