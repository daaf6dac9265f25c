"""How good the predictions are, compared with baselines that need no skill.

Most tokens repeat from one frame to the next, so accuracy alone flatters. Every number here covers the steps
of a window that have a step before them, so that model and baselines are scored on the same tokens.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .model import WorldModel, after_first, for_inference
from .sampler import TokenBatch

NUM_BINS = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelEvaluation:
    """One level's scores: cross-entropies in nats, else fractions. NaN where there is nothing to score."""

    count: int
    cross_entropy: float
    accuracy: float
    copy_accuracy: float
    """Of repeating the token of the step before."""
    copy_cross_entropy: float
    """Of the best mixture of that repetition and a uniform guess among the other codes."""
    unigram_accuracy: float
    """Of always predicting the most common code."""
    unigram_cross_entropy: float
    """Of the codes' frequencies in the evaluated data itself: no unigram can do better."""
    changed_fraction: float
    changed_accuracy: float
    """Where the token differs from the step before; copying is never right there."""
    changed_cross_entropy: float
    changed_unigram_accuracy: float
    changed_copy_cross_entropy: float
    """Of the mixture above, which can only guess there."""
    changed_unigram_cross_entropy: float
    calibration_error: float
    """Expected difference between confidence and accuracy, in 15 equal bins of confidence
    (https://arxiv.org/abs/1706.04599)."""


@torch.no_grad()
def evaluate(
    model: WorldModel, batches: Iterable[TokenBatch], games: Sequence[str] | None = None
) -> dict[str, tuple[LevelEvaluation, ...]]:
    """Score the model's predictions on windows, such as those of `TokenSampler.sweep`.

    Args:
        model: not changed; dropout is off.
        batches: windows of at least two steps.
        games: names by ``game_index``; the indices themselves by default.

    Returns:
        One `LevelEvaluation` per level, coarse to fine, under each game's name and under ``all``. Those of
        ``all`` are means over the tokens of all games, with each game's own baselines and calibration: a
        unigram of all games together would not know which game it is in, as the model does.

    Raises:
        ValueError: no batches, windows of one step, a game without a name, two games of the same name, or a
            game named ``all``.
    """
    if games is not None and "all" in games:
        raise ValueError("a game is named 'all', which stands for the sum of all games; rename it")
    if games is not None and len(set(games)) < len(games):
        raise ValueError(f"games are {', '.join(games)}; give each a name of its own")
    codes = model.config.codes
    reader = for_inference(model)
    tallies: dict[str, list[_Tally]] = {}
    for batch in batches:
        if batch.tokens.shape[1] < 2:
            raise ValueError("windows of one step have no step before to compare with; give at least 2 steps")
        output = reader(batch.tokens, batch.actions)
        for game in batch.game_index.unique().tolist():
            rows = batch.game_index == game
            if games is not None and game >= len(games):
                raise ValueError(f"a window is of game {game}, and games names {len(games)}; name every game")
            name = str(game) if games is None else games[game]
            tally = tallies.setdefault(name, [_Tally(k, batch.tokens.device) for k in codes])
            for level, logits in enumerate(output.logits):
                tokens = batch.tokens[rows][..., level]
                tally[level].add(after_first(logits[rows], level).float(), tokens[:, 1:], tokens[:, :-1])
    if not tallies:
        raise ValueError("there are no batches to evaluate; give at least one")
    found = {name: tuple(tally.result() for tally in levels) for name, levels in tallies.items()}
    return found | {"all": tuple(map(_over_games, zip(*found.values(), strict=True)))}


class _Tally:
    """Running sums for one level of one game; float64, on the device of the data."""

    def __init__(self, num_codes: int, device: torch.device) -> None:
        # Rows: tokens that stayed, tokens that changed. Columns: count, right, cross-entropy.
        self.sums = torch.zeros(2, 3, dtype=torch.float64, device=device)
        self.codes = torch.zeros(2, num_codes, dtype=torch.float64, device=device)
        # Columns: count, confidence, right.
        self.bins = torch.zeros(NUM_BINS, 3, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, target: Tensor, previous: Tensor) -> None:
        """Add logits (B, T, K), their targets and the tokens one step before these, both int64 (B, T)."""
        log_probs = torch.log_softmax(logits, -1).flatten(0, 1)
        target, previous = target.flatten(), previous.flatten()
        top, guess = log_probs.max(-1)
        cross_entropy = -log_probs.gather(-1, target[:, None])[:, 0]
        right, changed = guess == target, (target != previous).long()
        one = torch.ones_like(cross_entropy)
        self.sums.index_add_(0, changed, torch.stack([one, right, cross_entropy], -1).double())
        self.codes.index_put_((changed, target), one.double(), accumulate=True)
        bin_index = (top.exp() * NUM_BINS).long().clamp(0, NUM_BINS - 1)  # for NaN as well
        self.bins.index_add_(0, bin_index, torch.stack([one, top.exp(), right], -1).double())

    def result(self) -> LevelEvaluation:
        """The sums as ratios."""
        (stayed, _, _), (changed, changed_right, changed_cross_entropy) = self.sums.tolist()
        count, right, cross_entropy = self.sums.sum(0).tolist()
        codes = self.codes.sum(0)
        copied, num_codes = stayed / max(count, 1.0), len(codes)
        surprise = -torch.where(codes > 0, codes / max(count, 1.0), 1.0).log()
        return LevelEvaluation(
            count=int(count),
            cross_entropy=_ratio(cross_entropy, count),
            accuracy=_ratio(right, count),
            copy_accuracy=_ratio(stayed, count),
            copy_cross_entropy=_entropy(copied) + (1.0 - copied) * math.log(num_codes - 1),
            unigram_accuracy=_ratio(float(codes.max()), count),
            unigram_cross_entropy=_ratio(float(codes @ surprise), count),
            changed_fraction=_ratio(changed, count),
            changed_accuracy=_ratio(changed_right, changed),
            changed_cross_entropy=_ratio(changed_cross_entropy, changed),
            changed_unigram_accuracy=_ratio(float(self.codes[1, codes.argmax()]), changed),
            changed_copy_cross_entropy=math.log((num_codes - 1) / (1.0 - copied)) if changed else math.nan,
            changed_unigram_cross_entropy=_ratio(float(self.codes[1] @ surprise), changed),
            calibration_error=_ratio(float((self.bins[:, 1] - self.bins[:, 2]).abs().sum()), count),
        )


def _over_games(games: Sequence[LevelEvaluation]) -> LevelEvaluation:
    """One level over several games: each number's mean, weighted by the tokens it covers in each game."""
    counts = [game.count for game in games]
    changed = [round(game.count * game.changed_fraction) if game.count else 0 for game in games]

    def mean(name: str) -> float:
        weights = changed if name.startswith("changed_") and name != "changed_fraction" else counts
        # A game without such tokens has NaN there.
        total = math.fsum(w * getattr(game, name) for w, game in zip(weights, games, strict=True) if w)
        return _ratio(total, sum(weights))

    names = (field.name for field in fields(LevelEvaluation) if field.name != "count")
    return LevelEvaluation(count=sum(counts), **{name: mean(name) for name in names})


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _entropy(p: float) -> float:
    """Entropy in nats of a coin that comes up heads with probability ``p``."""
    return -sum(q * math.log(q) for q in (p, 1.0 - p) if q > 0)
