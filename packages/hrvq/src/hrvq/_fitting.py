"""Codes for vectors that do not change: k-means, level by level, in passes over the data."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvq._config import plain, spherical, whole, within
from hrvq._gradients import normalize
from hrvq._kmeans import UNUSED, kmeans
from hrvq._nearest import nearest
from hrvq._precision import widest
from hrvq._refining import refine as refine_levels
from hrvq._sources import Vectors, VectorSource
from hrvq._state import Codes
from hrvq._statistics import Draw, Level, dead_codes, draw, merge, replace, total_statistics

_SAMPLE_PER_CODE = 64
# Revived codes move to vectors drawn with probability proportional to the cube of how many share their code:
# to crowded codes, where one more evens out the use of all. Drawn uniformly, the same use would take more
# revivals.
_CROWDING = 3
_REVIVE_BELOW = 0.42  # of the mean count, if neither the caller nor the config says otherwise


class FitResult(NamedTuple):
    """How well the codes represent the vectors they were fitted to; one number for each level."""

    distortion: tuple[float, ...]
    """Mean squared distance |x - (c_0 + ... + c_l)|^2 with the first l + 1 levels."""
    explained: tuple[float, ...]
    """1 - distortion / variance of the vectors about their mean."""
    usage: tuple[float, ...]
    """Share of the codes that represent at least one vector."""
    perplexity: tuple[float, ...]
    """exp of the entropy of the code counts, in codes."""
    passes: tuple[int, ...]
    """Passes over the data, including one that draws the start and one that counts at the end."""
    refined: int
    """Passes in which all levels moved together, up to the codes that were kept."""


class FitProgress(NamedTuple):
    """How far a fit is, given to its ``progress`` callable after each pass."""

    level: int  # equal to the number of levels while all of them move together
    epoch: int
    epochs: int
    distortion: float


class _Pass(NamedTuple):
    counts: Tensor  # (K,)
    sums: Tensor  # (K, dim)
    distortion: float
    drawn: Draw  # K vectors at random


class Leftovers:
    """What the finished levels leave of the vectors, for the next level to be fitted to.

    A vector's tokens are kept (4 bytes per level); its residuals are not, but recomputed block by block.
    """

    def __init__(self, source: VectorSource, *, batch_size: int, device: torch.device, cosine: bool) -> None:
        self.source = source
        self.codes: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self._batch_size, self._device, self._cosine = batch_size, device, cosine
        self._wide = widest(device)

    def _residuals(self) -> Iterator[tuple[slice, Tensor]]:
        for start, block in self.source.blocks(self._batch_size, self._device):
            rows = slice(start, start + len(block))
            residual = normalize(block) if self._cosine else block
            for codes, tokens in zip(self.codes, self.tokens, strict=True):
                residual = residual - F.embedding(tokens[rows].long(), codes)
            yield rows, residual

    def variance(self) -> float:
        """Mean squared distance of what is left of the vectors from its mean."""
        total = torch.zeros((), dtype=self._wide, device=self._device)
        squares = torch.zeros((), dtype=self._wide, device=self._device)
        origin = None
        for _, block in self._residuals():
            wide = block.to(self._wide)
            # Far from the origin E|x|^2 and |E x|^2 agree in all digits, so use an origin nearby.
            origin = wide[0] if origin is None else origin
            away = wide - origin
            total = total + away.sum(0)
            squares = squares + away.square().sum()
        rows = self.source.rows
        return float(squares / rows - (total / rows).square().sum())

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """At most ``count`` of what is left of the vectors, drawn at random."""
        order = torch.randperm(self.source.rows, generator=generator, device=self._device)
        chosen = torch.zeros(self.source.rows, dtype=torch.bool, device=self._device)
        chosen[order[:count]] = True
        return torch.cat([block[chosen[rows]] for rows, block in self._residuals()])

    def measure(self, codes: Tensor, weights: Tensor, generator: torch.Generator) -> _Pass:
        """One pass over the data: what chooses each code, how well it is represented, and where to move.

        Vectors to move to are drawn in proportion to ``weights``, (K,), of the code they choose.
        """
        size = len(codes)
        counts = torch.zeros(size, dtype=self._wide, device=self._device)
        sums = torch.zeros(codes.shape, dtype=self._wide, device=self._device)
        total = torch.zeros((), dtype=self._wide, device=self._device)
        drawn = Draw(torch.zeros_like(codes), codes.new_full((size,), -torch.inf))
        for _, block in self._residuals():
            tokens = nearest(block, codes)
            errors = (block - F.embedding(tokens, codes)).square().sum(1)
            block_counts, block_sums = total_statistics(block, tokens, size)
            counts += block_counts
            sums += block_sums
            total += errors.sum(dtype=self._wide)
            drawn = merge(drawn, draw(block, weights[tokens], size, generator=generator))
        return _Pass(counts.float(), sums.float(), float(total) / self.source.rows, drawn)

    def finish(self, codes: Tensor) -> tuple[Tensor, float]:
        """Keep ``codes`` as the next level; returns their counts (K,) and the distortion they leave."""
        tokens = torch.empty(self.source.rows, dtype=torch.int32, device=self._device)
        total = torch.zeros((), dtype=self._wide, device=self._device)
        for rows, block in self._residuals():
            chosen = nearest(block, codes)
            tokens[rows] = chosen.int()
            total += (block - F.embedding(chosen, codes)).square().sum(dtype=self._wide)
        self.codes.append(codes)
        self.tokens.append(tokens)
        return torch.bincount(tokens, minlength=len(codes)).float(), float(total) / self.source.rows


def fit(
    quantizer: Codes,
    vectors: Vectors,
    *,
    epochs: int,
    batch_size: int,
    tolerance: float,
    revive_below: float | None,
    refine: int,
    seed: int,
    progress: Callable[[FitProgress], object] | None,
) -> FitResult:
    """See :meth:`hrvq.HRVQ.fit`."""
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if not whole(value):
            raise ValueError(f"{name} is {value!r}; give a whole number of at least 1")
    config, device = quantizer.config, quantizer.table.device
    if revive_below is None:
        revive_below = _REVIVE_BELOW if config.revive_below > 0 else 0.0
    for name, share in (("tolerance", tolerance), ("revive_below", revive_below)):
        if not within(share, 0, below=1):
            raise ValueError(f"{name} is {share!r}; give a share from 0 to below 1")
    for name, value in (("refine", refine), ("seed", seed)):
        if not whole(value, 0):
            raise ValueError(f"{name} is {value!r}; give a whole number of at least 0")
    epochs, batch_size, refine, seed = map(plain, (epochs, batch_size, refine, seed))
    source = VectorSource(vectors, config.dim)
    generator = torch.Generator(device).manual_seed(seed % 2**63)
    tell = progress or (lambda _: None)
    cosine = config.distance == "cosine"
    left = Leftovers(source, batch_size=batch_size, device=device, cosine=cosine)
    variance = left.variance()
    all_counts, distortions, passes = [], [], []
    for level, size in enumerate(config.codes_per_level):
        directions = spherical(config, level)
        codes, _ = kmeans(
            left.sample(_SAMPLE_PER_CODE * size, generator),
            size,
            iterations=config.kmeans_iterations,
            unused=min(UNUSED, revive_below),
            generator=generator,
            spherical=directions,
        )
        codes, passed = _improve(
            left,
            codes,
            level,
            epochs=epochs,
            tolerance=tolerance,
            revive_below=revive_below,
            spherical=directions,
            generator=generator,
            progress=tell,
        )
        counts, distortion = left.finish(codes)
        all_counts.append(counts)
        distortions.append(distortion)
        passes.append(passed + 2)
    books, refined = left.codes, 0
    if refine:
        books, all_counts, distortions, refined = refine_levels(
            source,
            books,
            passes=refine,
            tolerance=tolerance,
            batch_size=batch_size,
            cosine=cosine,
            progress=lambda done, found: tell(FitProgress(config.levels, done, refine + 1, found)),
        )
    quantizer.set_codebooks(
        books, [counts * (min(batch_size, source.rows) / source.rows) for counts in all_counts]
    )
    shares = [counts / counts.sum() for counts in all_counts]
    return FitResult(
        distortion=tuple(distortions),
        explained=tuple(1 - d / variance if variance > 0 else 1.0 for d in distortions),
        usage=tuple(float((share > 0).float().mean()) for share in shares),
        perplexity=tuple(float(torch.special.entr(share).sum().exp()) for share in shares),
        passes=tuple(passes),
        refined=refined,
    )


def _improve(
    left: Leftovers,
    codes: Tensor,
    level: int,
    *,
    epochs: int,
    tolerance: float,
    revive_below: float,
    spherical: bool,
    generator: torch.Generator,
    progress: Callable[[FitProgress], object],
) -> tuple[Tensor, int]:
    """One level's codes (K, dim), moved in passes over the data until they rest; and how many passes."""
    before, crowding = float("inf"), codes.new_ones(len(codes))
    for epoch in range(epochs):
        found = left.measure(codes, crowding, generator)
        crowding = (found.counts.clamp_min(1) / found.counts.mean()) ** _CROWDING
        codes = torch.where(found.counts[:, None] > 0, found.sums / found.counts.clamp_min(1)[:, None], codes)
        dead = dead_codes(found.counts, revive_below)
        # At first, revival costs the moved codes' own vectors, so in the second half codes only settle.
        reviving = epoch < epochs // 2 and bool(dead.any())
        if reviving:
            replace(Level(codes, found.counts, found.sums), dead, found.drawn)
        if spherical:
            codes = F.normalize(codes, dim=1)
        progress(FitProgress(level, epoch, epochs, found.distortion))
        if not reviving and found.distortion >= (1 - tolerance) * before:
            break
        before = float("inf") if reviving else found.distortion  # not valid for moved codes
    return codes, epoch + 1
