"""Fresh play for measurements: episodes of a seed that training never used, with the emulator's RAM."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from atari_data import PROTOCOLS, FrameStore, Policy, collect, labelled_games, labels
from cnn_encoder import Encoder, StateLabels, embed, state_labels
from torch import Tensor

from wm.device import derive_seed, one_thread
from wm.opened import OpenedRun
from wm.policy import policy_of, random_policy
from wm.reporter import Reporter
from wm.sections import CollectConfig, EvaluateConfig, RoundsConfig
from wm.stacks import batches_of_stacks

NUM_ENVS = 8  # few, so that each plays long enough to leave the game's beginning


@dataclass(frozen=True, slots=True)
class FreshPlay:
    """Rows of play and, where the game's RAM is annotated, the state they show.

    Args:
        store: frames on disk, gone when :func:`fresh_play` ends.
        state: of every row, on the device asked for; ``None`` for a game without annotations.
        raw: the labels as the emulator stores them, int64 (N, V); ``None`` likewise.
    """

    store: FrameStore
    state: StateLabels | None
    raw: Tensor | None

    def stacks(self) -> Iterator[np.ndarray]:
        """All observations, uint8 (B, 4, 84, 84) at a time."""
        return batches_of_stacks(self.store, np.arange(len(self.store)))

    def frames(self) -> np.ndarray:
        """The newest frame of every observation, uint8 (N, 84, 84)."""
        return self.store.frames[np.arange(len(self.store))]

    def embed(self, encoder: Encoder, background: Tensor) -> Tensor:
        """float32 (N, D), on the encoder's device."""
        return embed(encoder, self.stacks(), background)


@contextmanager
def fresh_play(
    config: CollectConfig,
    game: str,
    num_steps: int,
    *,
    seed: int,
    name: str,
    device: torch.device,
    reporter: Reporter,
    policy: Policy | None = None,
    motion: bool = False,
) -> Iterator[FreshPlay]:
    """Play ``num_steps`` steps as the run collected its own, by the same kind of random policy.

    Args:
        seed: of the play; ``name`` tells several plays of one seed apart, and all from the run's own.
        device: where the labels go.
        policy: plays instead of the random one.
        motion: whether the labels say how everything moves, too.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / game
        with reporter.task(f"play {game} ({name})", num_steps) as task, one_thread(device):
            collect(
                path,
                game,
                num_steps,
                policy
                or random_policy(config, game, derive_seed(seed, "fresh-policy", name, game), NUM_ENVS),
                seed=derive_seed(seed, "fresh", name, game) % 2**31,
                protocol=PROTOCOLS[config.protocol],
                num_envs=NUM_ENVS,
                ram=game in labelled_games(),
                progress=task.update,
            )
        store = FrameStore.open(path)
        state, raw = None, None
        if store.ram is not None:
            columns = labels(game, store.ram)
            found = state_labels(columns, game=game, episode_ids=store.episode_ids if motion else None)
            state = StateLabels(found.names, found.values.to(device), found.in_play.to(device))
            raw = torch.from_numpy(np.stack(list(columns.values()), 1).astype(np.int64)).to(device)
        yield FreshPlay(store, state, raw)


def fresh_play_of_run(
    opened: OpenedRun,
    game: str,
    num_steps: int,
    *,
    agent: EvaluateConfig | RoundsConfig | None,
    seed: int,
    name: str,
    motion: bool = False,
) -> AbstractContextManager[FreshPlay]:
    """:func:`fresh_play` of a run's game, by its agent if wanted.

    Args:
        agent: how the run's agent plays, as evaluated or as it collects; ``None`` for the random policy.
    """
    policy = None
    if agent is not None:
        agent_seed = derive_seed(seed, "agent", name)
        dream, device = opened.config.dream, opened.device
        policy = policy_of(opened.layout, game, dream, agent, seed=agent_seed, device=device)
    return fresh_play(
        opened.config.collect,
        game,
        num_steps,
        seed=seed,
        name=name,
        device=opened.device,
        reporter=opened.reporter,
        policy=policy,
        motion=motion,
    )
