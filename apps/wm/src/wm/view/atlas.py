"""`wm atlas`: what each code stands for, which games use it, and how much of the code the games share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import hrvq
import numpy as np
import torch
from atari_data import FrameStore
from numpy.typing import NDArray
from torch import Tensor

from wm.artifacts import embeddings_of, frames_of, tokens_of
from wm.device import derive_seed
from wm.reporter import Reporter
from wm.run import Layout
from wm.view.viewer import Viewer

CANDIDATES = 24  # nearest frames per example, searched for different moments
APART = 60  # rows; nearer frames of one episode count as one moment
AT_LEAST = 1e-4  # share of a game's frames that makes it a user of a code


@dataclass(frozen=True)
class Code:
    """One code of a level, E examples.

    Args:
        counts: int64 (games,), frames of each game that have it.
        games: index of the game of each example, (E,).
        examples: uint8 (E, 84, 84), real frames, the nearest to the code first.
        drawn: float32 (L + 1, 84, 84), the first example drawn from no level, from L0, from L0-1 and so on.
        added: float32 (84, 84), what this code changes in the drawn frame, on average over the examples.
    """

    index: int
    counts: Tensor
    games: list[int]
    examples: NDArray[np.uint8]
    drawn: NDArray[np.float32]
    added: NDArray[np.float32]


@dataclass(frozen=True)
class Level:
    """One level: its codes in use, the most used first, and its numbers."""

    index: int
    size: int
    codes: list[Code]
    perplexity: float
    persistence: float


@dataclass(frozen=True)
class Sharing:
    """How similarly the games use each level: see `hrvq.sharing`. L levels, G games."""

    usage: Tensor  # (L, G)
    shared: Tensor  # (L,)
    divergence: Tensor  # (L, G, G), bits
    information: hrvq.Interval  # (L,), bits


@dataclass(frozen=True)
class Atlas:
    """All that the page shows."""

    title: str
    games: tuple[str, ...]
    frames: list[int]
    levels: list[Level]
    sharing: Sharing | None


def read_atlas(
    layout: Layout,
    games: tuple[str, ...],
    viewer: Viewer,
    levels: Sequence[int],
    examples: int,
    seed: int,
    reporter: Reporter,
) -> Atlas:
    """Everything about a run's codes, over all collected frames of all its games."""
    play = Play.open(layout, games)
    nearest = hrvq.atlas(
        viewer.quantizer,
        [embeddings_of(layout, game) for game in games],
        examples=CANDIDATES * examples,
    )
    sizes = viewer.quantizer.config.codes_per_level
    counts = hrvq.counts_by_group(play.tokens, play.groups, sizes)
    perplexity = hrvq.perplexity(play.tokens, sizes).tolist()
    persistence = hrvq.persistence(play.tokens, play.episodes).tolist()
    made = []
    for level in levels:
        order = counts[level].sum(0).argsort(descending=True, stable=True).tolist()
        used = [code for code in order if int(counts[level][:, code].sum())]
        codes = []
        with reporter.task(f"draw L{level}", len(used)) as task:
            for code in used:
                rows = different(nearest[level].examples[code], play.episodes, examples)
                drawn = play.draw(rows, viewer)
                codes.append(
                    Code(
                        index=code,
                        counts=counts[level][:, code],
                        games=play.groups[rows].tolist(),
                        examples=play.frames(rows),
                        drawn=drawn[0].numpy(),
                        added=(drawn[:, level + 1] - drawn[:, level]).mean(0).numpy(),
                    )
                )
                task.advance()
        made.append(Level(level, sizes[level], codes, perplexity[level], persistence[level]))
    return Atlas(
        title=layout.root.resolve().name,
        games=games,
        frames=[len(store) for store in play.stores],
        levels=made,
        sharing=_sharing(play, sizes, levels, seed) if len(games) > 1 else None,
    )


def _sharing(play: "Play", sizes: tuple[int, ...], levels: Sequence[int], seed: int) -> Sharing:
    tokens, groups = play.tokens, play.groups
    information = hrvq.mutual_information(
        tokens, groups, sizes, blocks=play.episodes, seed=derive_seed(seed, "atlas")
    )
    return Sharing(
        usage=hrvq.usage_by_group(tokens, groups, sizes)[levels],
        shared=hrvq.shared_code_share(tokens, groups, sizes, AT_LEAST)[levels],
        divergence=hrvq.jensen_shannon(tokens, groups, sizes)[levels],
        information=hrvq.Interval(*(part[levels] for part in information)),
    )


@dataclass(frozen=True)
class Play:
    """The collected rows of all games, one game after the other; N rows in all.

    Args:
        tokens: int16 (N, L).
        groups: int64 (N,), index of the game.
        episodes: int64 (N,), numbered across the games.
    """

    games: tuple[str, ...]
    stores: list[FrameStore]
    tokens: Tensor
    groups: Tensor
    episodes: Tensor

    @classmethod
    def open(cls, layout: Layout, games: tuple[str, ...]) -> Self:
        """Read what the run collected; frames stay on disk."""
        known = [tokens_of(layout, game) for game in games]
        stores = [frames_of(layout, game, tokens) for game, tokens in zip(games, known, strict=True)]
        tokens = np.concatenate([trajectories.tokens for trajectories in known])
        groups = np.repeat(np.arange(len(games)), [len(store) for store in stores])
        ids = np.concatenate([store.episode_ids for store in stores]).astype(np.int64)
        episodes = groups * (ids.max() + 1) + ids
        return cls(games, stores, *(torch.from_numpy(column) for column in (tokens, groups, episodes)))

    def frames(self, rows: Tensor) -> NDArray[np.uint8]:
        """Real frames at rows (n,): uint8 (n, 84, 84)."""
        starts = np.cumsum([0, *(len(store) for store in self.stores)])
        pairs = zip(rows.tolist(), self.groups[rows].tolist(), strict=True)
        return np.stack([self.stores[game].frames[row - int(starts[game])] for row, game in pairs])

    def draw(self, rows: Tensor, viewer: Viewer) -> Tensor:
        """The same frames as the decoder draws them, from no level and after each: (n, L + 1, 84, 84)."""
        groups = self.groups[rows]
        drawn = torch.empty(len(rows), self.tokens.shape[1] + 1, 84, 84)
        for game in groups.unique().tolist():
            drawn[groups == game] = viewer.draw(self.tokens[rows[groups == game]], self.games[game])
        return drawn


def different(candidates: Tensor, episodes: Tensor, count: int) -> Tensor:
    """The best ``count`` of the candidate rows (best first, -1 for none) that show different moments.

    First the best of each episode, then others far enough from those chosen, then whatever is left.
    """
    rows = [int(row) for row in candidates if row >= 0]
    first = {int(episodes[row]): row for row in reversed(rows)}  # an episode's best row is stored last
    chosen = [row for row in rows if row in first.values()]
    for row in rows:
        if all(abs(row - other) > APART or episodes[row] != episodes[other] for other in chosen):
            chosen.append(row)
    chosen += [row for row in rows if row not in chosen]
    return torch.tensor(chosen[:count])
