"""The quantizer: x ~ c_0[t_0] + c_1[t_1] + ... , each level coding what the coarser ones left.

Residual VQ as in SoundStream (Zeghidour et al. 2021, https://arxiv.org/abs/2107.03312, Algorithm 1), with
the codes as exponential averages of the vectors that choose them (van den Oord et al. 2017,
https://arxiv.org/abs/1711.00937, appendix A.1).
"""

from collections.abc import Callable
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvq import _gradients
from hrvq._artifact import load_artifact, save_artifact
from hrvq._config import HRVQConfig
from hrvq._distributed import join_rows, sum_over_ranks
from hrvq._fitting import FitProgress, FitResult, fit
from hrvq._kmeans import kmeans
from hrvq._nearest import nearest, search
from hrvq._sources import Vectors
from hrvq._statistics import code_statistics, dead_codes, draw, replace, smoothed

NO_CODE = -1


class HRVQOutput(NamedTuple):
    """What :meth:`HRVQ.forward` returns, whatever the config."""

    quantized: Tensor
    """(..., dim), the input's dtype; carries the gradient of the input."""
    tokens: Tensor
    """int64 (..., levels); -1 where a position is masked or a level dropped."""
    level_embeddings: Tensor
    """(..., levels, dim), the input's dtype: the chosen code of each level; they add up to ``quantized``."""
    commitment_loss: Tensor
    """float32 (levels,), weighted: add its sum to your loss."""


class HRVQ(nn.Module):
    """Hierarchical residual vector quantizer.

    ``forward`` changes nothing; the codes move only in :meth:`update`, which the training loop calls after
    its optimizer step, in :meth:`initialize` and in :meth:`fit`. So a forward pass may be repeated,
    checkpointed or compiled freely, and evaluation never trains.
    """

    table: Tensor
    counts: Tensor
    sums: Tensor
    _starts: Tensor

    def __init__(self, config: HRVQConfig) -> None:
        super().__init__()
        self.config = config
        self._sizes = config.codes_per_level
        starts = list(accumulate(self._sizes, initial=0))
        total = starts[-1]
        # All levels' codes in one table, so that decoding is one gather; its last row is "no code".
        self.register_buffer("table", torch.zeros(total + 1, config.dim))
        self.register_buffer("counts", torch.zeros(total))
        self.register_buffer("sums", torch.zeros(total, config.dim))
        self.register_buffer("_starts", torch.tensor(starts[:-1]), persistent=False)
        self._steps = 0  # updates done; 0 while the codes are empty
        self._frozen = False

    # -- state ---------------------------------------------------------------------------------------

    @property
    def codebooks(self) -> tuple[Tensor, ...]:
        """Each level's codes, float32 (K, dim): views, to read."""
        return tuple(self.table[:-1].split(self._sizes))

    @property
    def initialized(self) -> bool:
        """Whether the codes hold anything yet."""
        return self._steps > 0

    @property
    def frozen(self) -> bool:
        """Whether :meth:`freeze` was called."""
        return self._frozen

    def freeze(self) -> "HRVQ":
        """Keep the codes as they are for good: from now on :meth:`update` does nothing."""
        self._frozen = True
        return self

    def get_extra_state(self) -> Tensor:
        """The number of updates, so that a state dict resumes exactly."""
        return torch.tensor([self._steps])

    def set_extra_state(self, state: Tensor) -> None:
        """Counterpart of :meth:`get_extra_state`."""
        self._steps = int(state)

    @torch.no_grad()
    def set_codebooks(
        self, codebooks: list[Tensor] | tuple[Tensor, ...], counts: list[Tensor] | None = None
    ) -> None:
        """Put given codes in place, one (K, dim) tensor for each level.

        Args:
            codebooks: the codes.
            counts: how many vectors chose each code, (K,) for each level; 1 for every code if left out.
        """
        expected = [(size, self.config.dim) for size in self._sizes]
        given = [tuple(codes.shape) for codes in codebooks]
        if given != expected:
            raise ValueError(f"codebooks have shapes {given}; this quantizer's are {expected}")
        if not all(bool(codes.isfinite().all()) for codes in codebooks):
            raise ValueError("codebooks contain NaN or infinite values; give finite codes")
        if counts is None:
            counts = [torch.ones(size) for size in self._sizes]
        elif [tuple(c.shape) for c in counts] != [(size,) for size in self._sizes]:
            raise ValueError(
                f"counts have shapes {[tuple(c.shape) for c in counts]}; give one number for each code"
            )
        for (codes, count, total), new, number in zip(self._levels(), codebooks, counts, strict=True):
            codes.copy_(new)
            count.copy_(number)
            total.copy_(codes * smoothed(count, self.config.smoothing)[:, None])
        self._steps = max(self._steps, 1)

    def _levels(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Views of each level's codes (K, dim), counts (K,) and sums (K, dim)."""
        return list(
            zip(self.codebooks, self.counts.split(self._sizes), self.sums.split(self._sizes), strict=True)
        )

    # -- use -----------------------------------------------------------------------------------------

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> HRVQOutput:
        """Quantize ``x`` and let its gradient through; changes no state, in training mode either.

        Args:
            x: floating (..., dim).
            mask: bool (...), True where a position counts; the others quantize to zero, get token -1 and
                no gradient.
            generator: of the level dropout (training mode only).

        Returns:
            :class:`HRVQOutput`; distances and losses are float32, also under autocast.

        Raises:
            ValueError: wrong shape or dtype, values that are not finite, or codes still empty.
        """
        with torch.autocast(x.device.type, enabled=False):
            rows, valid = self._rows(x, mask)
            tokens = self._search(rows)
            if self.training and self.config.level_dropout > 0 and self.config.levels > 1:
                depth = self._draw_depth(len(rows), rows.device, generator)
                levels = torch.arange(self.config.levels, device=rows.device)
                tokens = torch.where(levels < depth[:, None], tokens, NO_CODE)
            if valid is not None:
                tokens = torch.where(valid[:, None], tokens, NO_CODE)
                rows = torch.where(valid[:, None], rows, rows.detach())
            embeddings = self._gather(tokens)
            whole = valid is None and not (self.training and self.config.level_dropout > 0)
            quantized, losses = self._commit(rows, embeddings, None if whole else tokens >= 0)
            passed = getattr(_gradients, self.config.gradient)(rows, quantized)
        lead = x.shape[:-1]
        return HRVQOutput(
            passed.to(x.dtype).reshape(x.shape),
            tokens.reshape(*lead, -1),
            embeddings.to(x.dtype).reshape(*lead, self.config.levels, self.config.dim),
            losses,
        )

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Tokens of ``x``: floating (..., dim) -> int64 (..., levels), coarse to fine.

        Each level takes the code nearest to what the coarser levels left; `_nearest.py` says why the
        answer does not depend on the batch, the threads or the matrix library.
        """
        with torch.autocast(x.device.type, enabled=False):
            rows, _ = self._rows(x, None)
            return self._search(rows).reshape(*x.shape[:-1], self.config.levels)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Vectors of ``tokens``: integer (..., l) with l <= levels -> float32 (..., dim).

        The first l levels are added up; token -1 stands for no code and adds nothing.
        """
        index = self._index(tokens)
        summed = F.embedding_bag(index.reshape(-1, index.shape[-1]), self.table, mode="sum")
        return summed.reshape(*tokens.shape[:-1], self.config.dim)

    @torch.no_grad()
    def level_embeddings(self, tokens: Tensor) -> Tensor:
        """The chosen code of each level: integer (..., l) -> float32 (..., l, dim)."""
        return F.embedding(self._index(tokens), self.table)

    # -- learning ------------------------------------------------------------------------------------

    @torch.no_grad()
    def initialize(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Start the codes by k-means on ``x`` (..., dim), level by level; over all ranks' vectors joined."""
        self._check_open("initialize")
        with torch.autocast(x.device.type, enabled=False):
            rows, valid = self._rows(x, mask, needs_codes=False)
            self._start(rows if valid is None else rows[valid])

    @torch.no_grad()
    def update(self, x: Tensor, tokens: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Move the codes towards the vectors that chose them; revive codes that hardly anything chooses.

        Call it once a training step, after the optimizer's, with what ``forward`` was given. With counts N,
        sums S and decay g, level by level on the residuals r (van den Oord et al. 2017, A.1):

            N <- g N + (1 - g) n,    S <- g S + (1 - g) sum r,    c = S / smoothed(N)

        Does nothing in eval mode or after :meth:`freeze`. The first call starts empty codes by k-means.
        In several processes the statistics are those of the joined batch.

        Args:
            x: floating (..., dim).
            tokens: ``forward``'s tokens of ``x``; searched again if left out.
            mask: bool (...), True where a position counts; only needed without tokens.
        """
        if self._frozen or not self.training:
            return
        with torch.autocast(x.device.type, enabled=False):
            rows, valid = self._rows(x, mask, needs_codes=False)
            if not self.initialized:
                return self._start(rows if valid is None else rows[valid])
            if tokens is None:
                tokens = self._search(rows)
            elif tokens.shape != (*x.shape[:-1], self.config.levels):
                raise ValueError(
                    f"tokens have shape {tuple(tokens.shape)}; for x of shape {tuple(x.shape)} they are "
                    f"{(*x.shape[:-1], self.config.levels)}"
                )
            tokens = tokens.reshape(-1, self.config.levels)
            if valid is not None:
                tokens = torch.where(valid[:, None], tokens, NO_CODE)
            self._move(rows, tokens)

    def _move(self, residual: Tensor, tokens: Tensor) -> None:
        config, generator = self.config, self._generator(residual.device)
        for level, (codes, counts, sums) in enumerate(self._levels()):
            chosen = tokens[:, level]
            rest = residual - self._gather(tokens[:, level : level + 1], level).squeeze(1)
            new_counts, new_sums = code_statistics(residual, chosen, len(codes))
            sum_over_ranks(new_counts, new_sums)
            counts.lerp_(new_counts, 1 - config.decay)
            sums.lerp_(new_sums, 1 - config.decay)
            codes.copy_(sums / smoothed(counts, config.smoothing)[:, None])
            dead = dead_codes(counts, config.revive_below)
            if residual.is_cuda or bool(dead.any()):  # on a GPU asking would stall the stream
                errors = torch.where(chosen >= 0, rest.square().sum(1), 0.0)
                drawn = draw(residual, errors, len(codes), generator=generator, across_ranks=True)
                replace(codes, counts, sums, dead, drawn)
            if level == 0 and config.distance == "cosine":
                codes.copy_(F.normalize(codes, dim=1))
            residual = rest
        self._steps += 1

    def _start(self, rows: Tensor) -> None:
        residual = join_rows(rows)
        if len(residual) == 0:
            raise ValueError("there is no vector to start the codes from; give at least one")
        generator = self._generator(residual.device)
        for level, (codes, counts, sums) in enumerate(self._levels()):
            found, number = kmeans(
                residual,
                len(codes),
                iterations=self.config.kmeans_iterations,
                generator=generator,
                spherical=level == 0 and self.config.distance == "cosine",
            )
            codes.copy_(found)
            counts.copy_(number)
            sums.copy_(codes * smoothed(counts, self.config.smoothing)[:, None])
            residual = residual - codes[nearest(residual, codes)]
        self._steps += 1

    def _generator(self, device: torch.device) -> torch.Generator:
        """Randomness of the next update: a function of the seed and the step, so resuming repeats it."""
        return torch.Generator(device).manual_seed(self.config.seed * 1_000_003 + self._steps)

    def fit(
        self,
        vectors: Vectors,
        *,
        epochs: int = 10,
        batch_size: int = 8192,
        tolerance: float = 1e-3,
        seed: int | None = None,
        progress: Callable[[FitProgress], object] | None = None,
    ) -> FitResult:
        """Find the codes of vectors that do not change, by k-means level by level; no gradients, no decay.

        Reads the vectors in passes, ``batch_size`` at a time, so a file larger than memory will do. The
        counts and sums left behind are those of an average batch, so that :meth:`update` can go on from here.

        Args:
            vectors: floating (N, dim) tensor or array (memory maps too), the path of a safetensors file
                with a tensor named `embeddings`, or a sequence of these.
            epochs: most passes over the data for each level, not counting two that measure.
            batch_size: vectors in memory at once.
            tolerance: a level is done when a pass lowers its distortion by less than this share.
            seed: of the start and the revivals; the config's if left out.
            progress: called with a :class:`FitProgress` after each pass.

        Raises:
            ValueError: bad vectors, or the quantizer is frozen. The codes are then as before.
        """
        self._check_open("fit")
        return fit(
            self,
            vectors,
            epochs=epochs,
            batch_size=batch_size,
            tolerance=tolerance,
            seed=self.config.seed if seed is None else seed,
            progress=progress,
        )

    # -- parts ---------------------------------------------------------------------------------------

    def _check_open(self, action: str) -> None:
        if self._frozen:
            raise ValueError(f"the quantizer is frozen, so {action} may not change it; build or load another")

    def _rows(
        self, x: Tensor, mask: Tensor | None, *, needs_codes: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """Check the input and flatten it to float32 (N, dim) and bool (N,)."""
        if needs_codes and not self.initialized:
            raise ValueError("the codes are still empty; call initialize(x), update(x) or fit(x) first")
        if x.ndim < 1 or x.shape[-1] != self.config.dim:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; its last dimension must be dim = {self.config.dim}"
            )
        if not x.is_floating_point():
            raise ValueError(f"x is {x.dtype}; give a floating-point tensor")
        if x.device != self.table.device:
            raise ValueError(f"x is on {x.device} and the quantizer on {self.table.device}; move one of them")
        if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:-1]):
            raise ValueError(
                f"mask is {mask.dtype} of shape {tuple(mask.shape)}; give torch.bool of {tuple(x.shape[:-1])}"
            )
        rows = x.float().reshape(-1, self.config.dim)
        valid = None if mask is None else mask.reshape(-1)
        if valid is not None:
            rows = torch.where(valid[:, None], rows, 0.0)  # padding may hold anything, NaN too
        # The sum is finite when all are, and costs a tenth of asking each; on a GPU asking stalls the stream.
        if (
            x.device.type == "cpu"
            and not torch.compiler.is_compiling()
            and not rows.detach().sum().isfinite()
        ):
            bad = int((~rows.isfinite()).any(1).sum())
            if bad:
                raise ValueError(f"x has NaN or infinite values in {bad} of {len(rows)} vectors; remove them")
        if self.config.distance == "cosine":
            rows = F.normalize(rows, dim=1)
        return rows, valid

    @torch.no_grad()
    def _search(self, rows: Tensor) -> Tensor:
        return search(rows, self.codebooks)

    def _gather(self, tokens: Tensor, first: int = 0) -> Tensor:
        """Codes of tokens (N, l) of the levels from ``first`` on: (N, l, dim); zeros for no code."""
        index = tokens + self._starts[first : first + tokens.shape[1]]
        return F.embedding(torch.where(tokens < 0, len(self.table) - 1, index), self.table)

    def _index(self, tokens: Tensor) -> Tensor:
        """Check tokens (..., l) and turn them into rows of the table."""
        if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
            raise ValueError(f"tokens are {tokens.dtype}; give an integer tensor")
        if not (tokens.ndim >= 1 and 1 <= tokens.shape[-1] <= self.config.levels):
            raise ValueError(
                f"tokens have shape {tuple(tokens.shape)}; the last dimension is the number of levels, "
                f"1 to {self.config.levels}"
            )
        if not self.initialized:
            raise ValueError("the codes are still empty; call initialize(x), update(x) or fit(x) first")
        tokens = tokens.long()
        depth = tokens.shape[-1]
        if tokens.device.type == "cpu" and tokens.numel() and not torch.compiler.is_compiling():
            low, high = tokens.reshape(-1, depth).aminmax(dim=0)
            for level, size in enumerate(self._sizes[:depth]):
                if low[level] < NO_CODE or high[level] >= size:
                    raise ValueError(
                        f"tokens of level {level} run from {low[level]} to {high[level]}; "
                        f"allowed are 0 to {size - 1}, and -1 for no code"
                    )
        return torch.where(tokens < 0, len(self.table) - 1, tokens + self._starts[:depth])

    def _commit(self, rows: Tensor, embeddings: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
        """The sum of the levels and each level's weighted loss w_l |r_l - sg(c_l)|^2 / dim, averaged.

        r_l - c_l = x - (c_0 + ... + c_l), and only x carries a gradient: every level pulls on the input.
        """
        quantized = torch.zeros_like(rows)
        losses = []
        for level, weight in enumerate(self.config.weight_per_level):
            quantized = quantized + embeddings[:, level]
            if counted is None:
                loss = F.mse_loss(rows, quantized)
            else:
                used = counted[:, level].float()
                loss = ((rows - quantized).square().mean(1) * used).sum() / used.sum().clamp_min(1)
            losses.append(weight * loss)
        return quantized, torch.stack(losses)

    def _draw_depth(self, rows: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
        """How many levels each vector keeps, (N,)."""
        drops = torch.rand(rows, device=device, generator=generator) < self.config.level_dropout
        cut = torch.randint(1, self.config.levels, (rows,), device=device, generator=generator)
        return torch.where(drops, cut, self.config.levels)

    # -- files ---------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file: per level `codebooks.l`, `counts.l` and `sums.l`."""
        tensors = {"steps": torch.tensor([self._steps])}
        for level, parts in enumerate(self._levels()):
            for name, tensor in zip(("codebooks", "counts", "sums"), parts, strict=True):
                tensors[f"{name}.{level}"] = tensor.clone()  # safetensors refuses views of one storage
        save_artifact(path, tensors, kind="hrvq", config=asdict(self.config))

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> "HRVQ":
        """Read what :meth:`save` wrote; the quantizer comes back in eval mode.

        Raises:
            ValueError: the file is missing, damaged, of another kind, or its parts do not fit together.
        """
        tensors, config = load_artifact(path, kind="hrvq")
        try:
            quantizer = cls(HRVQConfig.from_dict(config))
            found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            expected: dict[str, tuple[int, ...]] = {"steps": (1,)}
            for level, parts in enumerate(quantizer._levels()):
                for name, part in zip(("codebooks", "counts", "sums"), parts, strict=True):
                    expected[f"{name}.{level}"] = tuple(part.shape)
            if found != expected:
                wrong = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
                raise ValueError(
                    f"its tensors {wrong} are missing, unknown or of another shape than its config says"
                )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} does not hold a whole quantizer: {error}") from error
        for level, parts in enumerate(quantizer._levels()):
            for name, part in zip(("codebooks", "counts", "sums"), parts, strict=True):
                part.copy_(tensors[f"{name}.{level}"])
        quantizer._steps = int(tensors["steps"])
        return quantizer.to(device).eval()
