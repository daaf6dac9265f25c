"""The best and the median episode of an evaluation, played again, and the same actions in a dream."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from atari_data import Moment, Protocol, play_episodes
from cnn_encoder import Encoder, embed
from numpy.typing import NDArray
from token_worldmodel import replay_policy
from torch import Tensor

from wm.policy import RecordedPolicy
from wm.view.watching import Imagination


@dataclass
class EpisodeFilm:
    """One real episode of T observations.

    Args:
        frames: T, uint8 (84, 84) each, the newest frame of each observation.
        rewards: T, each the result of the action before.
        actions: T, the last one without meaning.
    """

    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)


def best_and_median(returns: Sequence[float]) -> dict[str, int]:
    """Indices of the episode with the highest return and of the (lower) median one; of equals the first."""
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
        signs: whether these are signs, each reward counted as 1.
    """

    tokens: Tensor
    rewards: Tensor
    context: int
    signs: bool


@torch.no_grad()
def dream_again(
    imagination: Imagination, encoder: Encoder, background: Tensor, film: EpisodeFilm, rng: torch.Generator
) -> DreamedEpisode:
    """Dream an episode: its beginning is real, and after that only its actions.

    Raises:
        ValueError: the episode is shorter than a dream's context.
    """
    config, length = imagination.config, len(film.frames)
    context = config.dream.context
    if length <= context:
        raise ValueError(f"the episode has {length} observations; a dream needs {context + 1}")
    seen = np.concatenate([np.zeros((3, 84, 84), np.uint8), np.stack(film.frames[:context])])
    stacks = np.lib.stride_tricks.sliding_window_view(seen, 4, axis=0).transpose(0, 3, 1, 2)
    tokens = imagination.quantizer.encode(embed(encoder, np.ascontiguousarray(stacks), background))
    chosen = torch.tensor([film.actions[: length - 1]], device=tokens.device)
    last = context - 1  # the last real step, from which the dream continues
    policy = replay_policy(chosen[:, last:])
    tokens, actions = imagination.dream_on(tokens[None], chosen[:, :last], policy, length - context, rng)
    rewards, _ = imagination.judge(tokens[:, last:], actions[:, last:])
    return DreamedEpisode(tokens[0].cpu(), rewards, context, config.predictor.knows_signs_only)
