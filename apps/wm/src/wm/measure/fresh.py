"""Fresh play for measurements: episodes with a seed that training never used, with the emulator's RAM."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from atari_data import PROTOCOLS, FrameStore, Policy, collect, labelled_games, labels
from atari_data import games as ale_games
from cnn_encoder import Encoder, StateLabels, embed, state_labels
from torch import Tensor

from wm.config import RunConfig
from wm.console import command
from wm.device import derive_seed, one_thread
from wm.opened import RunAtHand
from wm.policy import policy_of, random_policy
from wm.sections import EvaluateConfig, RoundsConfig
from wm.stacks import batches_of_stacks

NUM_ENVS = 8  # few, so that each plays long enough to leave the game's beginning


def require_ale_game(config: RunConfig, root: Path) -> None:
    """Raise ValueError for a run whose games are none of ALE's, so that nothing can be played for it."""
    if not set(config.games) & set(ale_games()):
        raise ValueError(
            f"{root} has no ALE game that could be played (its games: {', '.join(config.games)}); "
            f"{command('wm', 'eval', root, '--stage', 'worldmodel')} measures its world model"
        )


@dataclass(frozen=True, slots=True)
class FreshPlay:
    """Rows of play and, where the game's RAM is annotated, the state they show.

    Args:
        store: frames on disk, deleted when :func:`fresh_play` ends.
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
    run: RunAtHand,
    game: str,
    num_steps: int,
    *,
    seed: int,
    name: str,
    agent: EvaluateConfig | RoundsConfig | None = None,
    motion: bool = False,
) -> Iterator[FreshPlay]:
    """Play ``num_steps`` steps under the run's protocol; the labels are on its device.

    Args:
        seed: of the play; ``name`` distinguishes several plays with one seed, and all from the run's own.
        agent: how the run's agent plays, as evaluated or as it collects; None for the kind of random policy
            that the run collects with.
        motion: whether the labels also say how everything moves.
    """
    config, device = run.config, run.device
    policy: Policy
    if agent is None:
        policy_seed = derive_seed(seed, "fresh-policy", name, game)
        policy = random_policy(config.collect, game, policy_seed, NUM_ENVS)
    else:
        policy_seed = derive_seed(seed, "agent", name)
        policy = policy_of(run.layout, game, config.dream, agent, seed=policy_seed, device=device)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / game
        with run.reporter.task(f"play {game} ({name})", num_steps) as task, one_thread(device):
            try:
                collect(
                    path,
                    game,
                    num_steps,
                    policy,
                    seed=derive_seed(seed, "fresh", name, game) % 2**31,
                    protocol=PROTOCOLS[config.collect.protocol],
                    num_envs=NUM_ENVS,
                    ram=game in labelled_games(),
                    progress=task.update,
                )
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise ValueError(
                    f"no space is left for this play in {tempfile.gettempdir()}; free some, or set TMPDIR to "
                    "a directory with more"
                ) from error
        store = FrameStore.open(path)
        state, raw = None, None
        if store.ram is not None:
            columns = labels(game, store.ram)
            found = state_labels(columns, game=game, episode_ids=store.episode_ids if motion else None)
            state = StateLabels(found.names, found.values.to(device), found.in_play.to(device))
            raw = torch.from_numpy(np.stack(list(columns.values()), 1).astype(np.int64)).to(device)
        yield FreshPlay(store, state, raw)
