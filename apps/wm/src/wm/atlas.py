"""`wm atlas`: what each code stands for, who uses it, and how much of the code the games share."""

from collections.abc import Sequence
from dataclasses import dataclass

import hrvq
import numpy as np
import torch
from atari_data import FrameStore
from cnn_encoder import load_embeddings
from numpy.typing import NDArray
from token_worldmodel import load_tokens
from torch import Tensor

from wm.device import derive_seed
from wm.reporter import Reporter
from wm.run import Layout
from wm.viewer import Viewer

CANDIDATES = 24  # nearest frames among which examples of different moments are looked for
APART = 60  # rows; nearer frames of one episode count as one moment
AT_LEAST = 1e-4  # share of a game's frames that makes it a user of a code


@dataclass(frozen=True)
class Code:
    """One code of a level, E examples.

    Args:
        counts: int64 (games,), frames of each game that chose it.
        games: index of the game of each example, (E,).
        examples: uint8 (E, 84, 84), real frames, the nearest to the code first.
        drawn: float32 (L + 1, 84, 84), the first example drawn from no level, L0, L0-1 and so on.
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
    """How alike the games use each level: see `hrvq.sharing`. L levels, G games."""

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


def read(
    layout: Layout,
    games: tuple[str, ...],
    viewer: Viewer,
    levels: Sequence[int],
    examples: int,
    seed: int,
    reporter: Reporter,
) -> Atlas:
    """Everything of a run's codes, over all collected frames of all its games."""
    stores = [FrameStore.open(layout.data(game)) for game in games]
    tokens = torch.from_numpy(np.concatenate([load_tokens(layout.tokens(game)).tokens for game in games]))
    lengths = [len(store) for store in stores]
    groups = torch.arange(len(games)).repeat_interleave(torch.tensor(lengths))
    episodes = torch.from_numpy(np.concatenate([store.episode_ids for store in stores])).long()
    moments = groups * (int(episodes.max()) + 1) + episodes
    with torch.inference_mode():
        nearest = hrvq.atlas(
            viewer.quantizer,
            [load_embeddings(layout.embeddings(game))[0] for game in games],
            examples=CANDIDATES * examples,
        )
    sizes = viewer.quantizer.config.codes_per_level
    counts = hrvq.counts_by_group(tokens, groups, sizes)
    perplexity, persistence = hrvq.perplexity(tokens, sizes), hrvq.persistence(tokens, moments)
    made = []
    for level in levels:
        order = counts[level].sum(0).argsort(descending=True, stable=True)
        used = [int(code) for code in order if counts[level][:, code].sum() > 0]
        with reporter.task(f"draw L{level}", len(used)) as task:
            codes = []
            for code in used:
                rows = different(nearest[level].examples[code], moments, examples)
                codes.append(_draw(level, code, counts[level][:, code], rows, tokens, groups, stores, games, viewer))
                task.advance()
        made.append(Level(level, sizes[level], codes, float(perplexity[level]), float(persistence[level])))
    sharing = None
    if len(games) > 1:
        sharing = Sharing(
            usage=hrvq.usage_by_group(tokens, groups, sizes)[levels],
            shared=hrvq.shared_code_share(tokens, groups, sizes, AT_LEAST)[levels],
            divergence=hrvq.jensen_shannon(tokens, groups, sizes)[levels],
            information=hrvq.Interval(
                *(
                    part[levels]
                    for part in hrvq.mutual_information(
                        tokens, groups, sizes, blocks=moments, seed=derive_seed(seed, "atlas") % 2**32
                    )
                )
            ),
        )
    return Atlas(layout.root.resolve().name, games, lengths, made, sharing)


def different(candidates: Tensor, episodes: Tensor, count: int) -> Tensor:
    """Of rows, best first and -1 for none, the best ``count`` that show different moments.

    First one of each episode, then others far enough from those chosen, then whatever is left.
    """
    rows = [int(row) for row in candidates if row >= 0]
    first = {int(episodes[row]): row for row in reversed(rows)}  # an episode's nearest is written last
    chosen = [row for row in rows if row in first.values()]
    for row in rows:
        if all(abs(row - other) > APART for other in chosen):
            chosen.append(row)
    chosen += [row for row in rows if row not in chosen]
    return torch.tensor(chosen[:count])


def _draw(
    level: int,
    code: int,
    counts: Tensor,
    rows: Tensor,
    tokens: Tensor,
    groups: Tensor,
    stores: Sequence[FrameStore],
    viewer: Viewer,
) -> Code:
    """The code's real frames, and its nearest frame as the decoder draws it."""
    starts = np.cumsum([0, *(len(store) for store in stores)])
    names = [store.game for store in stores]
    of_game = groups[rows].tolist()
    frames = np.stack(
        [
            stores[game].frames[row - int(starts[game])]
            for row, game in zip(rows.tolist(), of_game, strict=True)
        ]
    )
    drawn = torch.cat(
        [viewer.draw(tokens[row : row + 1], names[game]) for row, game in zip(rows, of_game, strict=True)]
    )
    added = (drawn[:, level + 1] - drawn[:, level]).mean(0)
    return Code(code, counts, of_game, frames, drawn[0].numpy(), added.numpy())
