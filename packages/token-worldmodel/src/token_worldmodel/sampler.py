"""Batches of windows from token trajectories, each a function of (seed, step)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from .config import whole
from .trajectories import TokenTrajectories

Split = Literal["train", "validation", "all"]

_DTYPES = {
    "tokens": torch.int64,
    "actions": torch.int64,
    "rewards": torch.float32,
    "terminated": torch.bool,
    "truncated": torch.bool,
    "final": torch.bool,
    "lives": torch.int64,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBatch:
    """Windows of consecutive steps, none crossing an episode.

    Attributes:
        tokens: int64 (B, T, L).
        actions: int64 (B, T), chosen after seeing the tokens of their step.
        rewards: float32 (B, T), raw, brought by the action.
        terminated, truncated: bool (B, T), likewise.
        final: bool (B, T), an episode's last row, whose action is a filler.
        lives: int64 (B, T), when the step's tokens were seen.
        game_index: int64 (B,), into `TokenSampler.games`.
    """

    tokens: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    final: Tensor
    lives: Tensor
    game_index: Tensor

    def to(self, device: torch.device | str | None) -> Self:
        """The batch on ``device``; from the CPU to a GPU through pinned memory, without waiting."""
        if device is None:
            return self
        pinned = torch.device(device).type == "cuda" and self.tokens.device.type == "cpu"

        def moved(column: Tensor) -> Tensor:
            return (column.pin_memory() if pinned else column).to(device, non_blocking=pinned)

        return type(self)(**{field.name: moved(getattr(self, field.name)) for field in fields(self)})


def split_episodes(episode_ids: np.ndarray, validation_fraction: float, seed: int) -> np.ndarray:
    """Which rows belong to validation episodes, bool (N,). Windows overlap, so a split by window would leak.

    Episodes are assigned in order, each only by the rows before it, so longer trajectories are split as their
    beginning is. An episode is held out with probability ``fraction * (1 + lacking / mean)``, where
    ``lacking`` is the number of rows by which validation falls short so far, and ``mean`` the mean length of
    the episodes so far. The first episode is trained on; if no other is held out, the second is, and goes to
    training once a later one is held out: what was trained on is never held out later.

    Raises:
        ValueError: the fraction is not between 0 and 1, or the seed is not a whole number of at least 0.
    """
    _check_fraction(validation_fraction)
    _check_seed(seed)
    starts = np.flatnonzero(np.diff(episode_ids, prepend=episode_ids[:1] - 1))
    if len(starts) < 2:
        return np.zeros(len(episode_ids), np.bool_)
    lengths = np.diff(starts, append=len(episode_ids))
    chance = np.random.default_rng(seed).random(len(starts))
    validates = np.zeros(len(starts), np.bool_)
    lacking = validation_fraction * lengths[0]
    for episode in range(1, len(starts)):
        mean = starts[episode] / episode
        validates[episode] = chance[episode] < validation_fraction * (1 + lacking / mean)
        lacking += (validation_fraction - validates[episode]) * lengths[episode]
    validates[1] |= not validates.any()
    return np.repeat(validates, lengths)


class TokenSampler:
    """Draws windows from the trajectories of one game or several, in given proportions.

    The game is drawn first, by weight, then a window, uniformly from all that fit in an episode of the split,
    or from the newest of them for a share of the windows. ``batch`` reads each row as its tokens or as one of
    its alternatives (`TokenTrajectories.alternatives`), all equally likely; ``sweep`` and ``gather`` as its
    tokens.
    """

    def __init__(
        self,
        trajectories: Mapping[str, TokenTrajectories],
        *,
        length: int,
        batch_size: int,
        weights: Mapping[str, float] | None = None,
        seed: int,
        split: Split = "train",
        validation_fraction: float = 0.1,
        newest: Mapping[str, int] | None = None,
        newest_share: float = 0.0,
        device: torch.device | str | None = None,
    ) -> None:
        """Find every window.

        Args:
            trajectories: by game; all with the same number of levels.
            length: steps of a window, T.
            batch_size: windows of a batch, B.
            weights: how often each game is drawn, relative to the others; equally by default.
            seed: of the split and of the batches. Repetitions that should share a split take the same seed
                and batches with other step numbers.
            split: episodes to draw from.
            validation_fraction: share of each game's rows that is held out for validation, in whole episodes;
                none if there is a single episode.
            newest: by game, the first row of the newest play.
            newest_share: share of the windows that is drawn from those rows; the rest is drawn from all rows.
                If the split has no window there, all windows are drawn from all rows.
            device: where batches go.

        Raises:
            ValueError: no window fits, or an argument is out of its range.
        """
        if not (whole(length) and whole(batch_size)):
            raise ValueError(
                f"length is {length} and batch_size {batch_size}; give at least 1 of each, whole numbers"
            )
        if split not in ("train", "validation", "all"):
            raise ValueError(f"split is {split!r}; choose train, validation or all")
        _check_fraction(validation_fraction)
        _check_seed(seed)
        if not isinstance(trajectories, Mapping):
            raise ValueError(
                f"trajectories are a {type(trajectories).__name__}; give them by name, as in {{'pong': ...}}"
            )
        if len({t.num_levels for t in trajectories.values()}) != 1:
            levels = {game: t.num_levels for game, t in trajectories.items()}
            raise ValueError(f"the games' levels are {levels}; give one game or more, all of the same levels")
        self.games = tuple(trajectories)
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        # Once for all batches: `final` is made from the ids of all rows.
        self._columns = [{name: getattr(t, name) for name in _DTYPES} for t in trajectories.values()]
        self._episode_ids = [t.episode_ids for t in trajectories.values()]
        self._alternatives = [t.alternatives for t in trajectories.values()]
        self._starts = []
        for game, t in trajectories.items():
            starts = window_starts(t.episode_ids, length)
            if split != "all":
                held_out = split_episodes(t.episode_ids, validation_fraction, seed)
                starts = starts[held_out[starts] == (split == "validation")]
            if not len(starts):
                if len(np.unique(t.episode_ids)) == 1 and split == "validation":
                    raise ValueError(
                        f"{game} has one episode, which trains, and no validation episode; give more episodes"
                    )
                longest = int(np.unique(t.episode_ids, return_counts=True)[1].max(initial=0))
                raise ValueError(
                    f"{game} has no window of {length} steps in its {split} episodes (the longest of all has "
                    f"{longest} rows); collect more or shorten the window"
                )
            self._starts.append(starts)
        if not 0.0 <= newest_share <= 1.0:
            raise ValueError(f"newest_share is {newest_share}; give one from 0 to 1")
        if unknown := sorted(set(newest or {}) - set(self.games)):
            raise ValueError(f"newest names {', '.join(unknown)}; the games are {', '.join(self.games)}")
        self._probabilities = _probabilities(self.games, weights)
        first_new = [(newest or {}).get(game, 0) for game in self.games]
        self._num_old = np.array(
            [np.searchsorted(starts, row) for starts, row in zip(self._starts, first_new, strict=True)]
        )
        self._newest_share = newest_share if newest else 0.0

    @property
    def num_windows(self) -> dict[str, int]:
        """Windows of each game that can be drawn."""
        return {game: len(starts) for game, starts in zip(self.games, self._starts, strict=True)}

    def batch(self, step: int) -> TokenBatch:
        """The batch of a training step: the same for the same seed and step, whatever came before."""
        rng = np.random.default_rng([self.seed, 0xBA7C, step])
        games = rng.choice(len(self.games), size=self.batch_size, p=self._probabilities)
        counts = np.array([len(starts) for starts in self._starts])
        draws = rng.integers(counts[games])
        if self._newest_share:
            old = np.where(self._num_old < counts, self._num_old, 0)[games]
            recent = rng.random(self.batch_size) < self._newest_share
            draws = np.where(recent, rng.integers(old, counts[games]), draws)
        rows = np.empty(self.batch_size, np.int64)
        for game, starts in enumerate(self._starts):
            here = games == game
            rows[here] = starts[draws[here]]
        batch = self.gather(games, rows)
        for game, alternatives in enumerate(self._alternatives):
            if count := alternatives.shape[1]:
                here = games == game
                steps = rows[here, None] + np.arange(self.length)
                drawn = rng.integers(1 + count, size=steps.shape)
                other = torch.from_numpy(alternatives[steps, drawn - 1]).long()
                batch.tokens[here] = torch.where(
                    torch.from_numpy(drawn > 0)[..., None], other, batch.tokens[here]
                )
        return batch.to(self.device)

    def sweep(
        self, stride: int | None = None, *, limit: int | None = None, newest_only: bool = False
    ) -> Iterator[TokenBatch]:
        """Windows ``stride`` rows apart, over all episodes of the split, game by game; for evaluation.

        By default they are as far apart as they are long: they do not overlap, and an episode's last rows may
        be in none of them.

        Args:
            limit: at most this many batches of each game, spread evenly from its first to its last.
            newest_only: only windows that begin in the rows ``newest`` names; all of a game it omits.

        Raises:
            ValueError: ``limit`` or ``stride`` is below 1; raised once the first batch is asked for.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}; give 1 or more batches, or None for all")
        for game, starts in enumerate(self.swept(stride, newest_only=newest_only)):
            count = -(-len(starts) // self.batch_size)
            for index in np.linspace(0, count - 1, min(count, limit or count)).round().astype(int):
                rows = starts[index * self.batch_size :][: self.batch_size]
                yield self.gather(np.full(len(rows), game), rows).to(self.device)

    def swept(self, stride: int | None = None, *, newest_only: bool = False) -> list[np.ndarray]:
        """First rows of the windows that ``sweep`` goes through, int64, one array per game.

        Raises:
            ValueError: ``stride`` is below 1.
        """
        stride = self.length if stride is None else stride
        if stride < 1:
            raise ValueError(f"stride is {stride}; give 1 or more rows")
        chosen = []
        for episode_ids, all_starts, num_old in zip(
            self._episode_ids, self._starts, self._num_old, strict=True
        ):
            starts = all_starts[num_old:] if newest_only else all_starts
            # Within an episode, windows start at each row in turn.
            _, first, episode = np.unique(episode_ids[starts], return_index=True, return_inverse=True)
            chosen.append(starts[(starts - starts[first[episode]]) % stride == 0])
        return chosen

    def gather(self, games: np.ndarray, starts: np.ndarray) -> TokenBatch:
        """The windows, on the CPU, that begin at given rows.

        Args:
            games: int (B,), the game of each window as an index into ``TokenSampler.games``.
            starts: int (B,), its first row.

        Raises:
            ValueError: a window is not inside one episode, or its game is not among the sampler's.
        """
        if not ((games >= 0) & (games < len(self.games))).all():
            raise ValueError(f"games go from {games.min()} to {games.max()}; give 0 to {len(self.games) - 1}")
        lengths = np.array([len(ids) for ids in self._episode_ids])
        if (starts < 0).any() or (starts + self.length > lengths[games]).any():
            raise self._left_its_episode()
        rows = starts[:, None] + np.arange(self.length)
        windows = [(game, games == game) for game in np.unique(games)]
        batch = {}
        for name, dtype in _DTYPES.items():
            sources = [columns[name] for columns in self._columns]
            out = np.empty((*rows.shape, *sources[0].shape[1:]), sources[0].dtype)
            for game, here in windows:
                out[here] = sources[game][rows[here]]
            batch[name] = torch.from_numpy(out).to(dtype)
        if bool(batch["final"][:, :-1].any()):
            raise self._left_its_episode()
        return TokenBatch(**batch, game_index=torch.from_numpy(games.astype(np.int64)))

    def _left_its_episode(self) -> ValueError:
        return ValueError(
            f"a window of {self.length} steps leaves its episode; take starts such as those of swept(1)"
        )


def window_starts(episode_ids: np.ndarray, length: int) -> np.ndarray:
    """First rows of all windows of ``length`` rows inside one episode, int64, in order."""
    if len(episode_ids) < length:
        return np.zeros(0, np.int64)
    return np.flatnonzero(episode_ids[: len(episode_ids) - length + 1] == episode_ids[length - 1 :])


def _check_fraction(validation_fraction: float) -> None:
    if not 0.0 < validation_fraction < 1.0:
        raise ValueError(f"validation_fraction is {validation_fraction}; give one between 0 and 1")


def _check_seed(seed: int) -> None:
    if not whole(seed, least=0):
        raise ValueError(f"seed is {seed!r}; give a whole number of at least 0")


def _probabilities(games: tuple[str, ...], weights: Mapping[str, float] | None) -> np.ndarray:
    if weights is None:
        return np.full(len(games), 1.0 / len(games))
    known = weights.keys() == set(games) and all(0 <= weight < np.inf for weight in weights.values())
    if not known or sum(weights.values()) <= 0:
        raise ValueError(
            f"weights are {dict(weights)}; give one of at least 0, finite and not all 0, for each of "
            f"{', '.join(games)}"
        )
    shares = np.array([weights[game] for game in games], np.float64)
    return shares / shares.sum()
