"""The best and the median episode of an evaluation, seen again, and the same actions dreamed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from atari_data import Moment, Protocol, play_episodes
from cnn_encoder import embed
from latent_ac import CodeFeatures
from numpy.typing import NDArray
from token_worldmodel import replay_policy
from torch import Tensor

from wm.artifacts import frozen_agent, frozen_encoder, frozen_quantizer, frozen_worldmodel
from wm.config import RunConfig
from wm.device import generator
from wm.policy import RecordedPolicy
from wm.run import Layout
from wm.view.watching import dream_on


@dataclass
class EpisodeFilm:
    """One real episode of T observations.

    Args:
        frames: uint8 (84, 84) each, what the agent saw last.
        rewards: T, brought by the action before.
        actions: T, the last of no meaning.
    """

    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)


def best_and_median(returns: Sequence[float]) -> dict[str, int]:
    """Numbers of the episode with the highest return and of the (lower) median one; of equals the first."""
    ordered = sorted(returns)
    wanted = {"best": ordered[-1], "median": ordered[(len(ordered) - 1) // 2]}
    return {name: returns.index(value) for name, value in wanted.items()}


def see_again(
    game: str,
    policy: RecordedPolicy,
    wanted: dict[str, int],
    *,
    num_episodes: int,
    seed: int,
    protocol: Protocol,
    num_envs: int,
) -> dict[str, EpisodeFilm]:
    """Play the same episodes once more and keep those wanted, by name."""
    films = {name: EpisodeFilm() for name in wanted}

    def record(moment: Moment) -> None:
        for name, episode in wanted.items():
            if episode == moment.episode:
                films[name].frames.append(moment.observation[-1].copy())
                films[name].rewards.append(moment.reward)
                films[name].actions.append(moment.action)

    play_episodes(
        game,
        policy.again(),
        num_episodes,
        seed=seed,
        protocol=protocol,
        num_envs=num_envs,
        record=record,
        record_episodes=set(wanted.values()),
    )
    return films


@dataclass(frozen=True)
class DreamedEpisode:
    """The episode as dreamed from its first C observations, with its own actions. On the CPU.

    Args:
        tokens: int64 (T, L); the first C are real.
        rewards: float32 (T - C,), predicted.
        signs: whether those are of signs, each reward counted as 1.
    """

    tokens: Tensor
    rewards: Tensor
    context: int
    signs: bool


@torch.no_grad()
def dream_again(
    config: RunConfig, layout: Layout, game: str, film: EpisodeFilm, *, seed: int, device: torch.device
) -> DreamedEpisode:
    """Dream an episode: its beginning is real, then only its actions are.

    Raises:
        ValueError: the episode is shorter than a dream's context, or an artifact is missing or damaged.
    """
    context = config.dream.context
    length = len(film.frames)
    if length <= context:
        raise ValueError(f"the episode has {length} observations; a dream needs {context + 1}")
    encoder, backgrounds = frozen_encoder(layout, device)
    quantizer, agent = frozen_quantizer(layout, device), frozen_agent(layout, device)
    seen = np.concatenate([np.zeros((3, 84, 84), np.uint8), np.stack(film.frames[:context])])
    stacks = np.lib.stride_tricks.sliding_window_view(seen, 4, axis=0).transpose(0, 3, 1, 2)
    tokens = quantizer.encode(embed(encoder, np.ascontiguousarray(stacks), backgrounds[game]))
    chosen = torch.tensor(film.actions[: length - 1], device=device)
    dreamed, actions = dream_on(
        frozen_worldmodel(layout, device),
        config,
        tokens[None],
        chosen[None, : context - 1],
        replay_policy(chosen[None, context - 1 :]),
        length - context,
        generator(seed, "dream again", game, device=device),
    )
    features = CodeFeatures(dreamed[:, context - 1 :].transpose(0, 1), quantizer.codebooks)
    rewards, _ = agent.predict(features, actions[:, context - 1 :].T)
    signs = config.predictor.knows_signs_only
    return DreamedEpisode(dreamed[0].cpu(), rewards[:, 0].cpu(), context, signs)
