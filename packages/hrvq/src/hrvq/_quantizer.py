"""The quantizer: x ~ c_0[t_0] + c_1[t_1] + ... , each level coding what the coarser ones leave.

Residual VQ as in SoundStream (Zeghidour et al. 2021, https://arxiv.org/abs/2107.03312, Algorithm 1), with the
codes as exponential moving averages of the vectors that choose them (van den Oord et al. 2017,
https://arxiv.org/abs/1711.00937, appendix A.1).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hrvq._checks import (
    UNSIGNED,
    check_finite,
    check_tensors,
    check_tokens,
    check_vectors,
    values_can_be_checked,
)
from hrvq._config import HRVQConfig, whole
from hrvq._fitting import FitProgress, FitResult, fit
from hrvq._gradients import commitment, normalize, rotation, straight_through
from hrvq._learning import move, start
from hrvq._nearest import search, search_measured
from hrvq._sources import Vectors
from hrvq._state import Codes

NO_CODE = -1


class HRVQOutput(NamedTuple):
    """What :meth:`HRVQ.forward` returns, whatever the config.

    Attributes:
        quantized: (..., dim), the input's dtype; passes its gradient to the input. It may be changed in
            place, unless the gradient is "rotation", which needs it unchanged.
        tokens: int64 (..., levels); -1 where a position is masked or a level dropped.
        level_embeddings: (..., levels, dim), the input's dtype: the chosen code of each level; they add up to
            ``quantized``.
        commitment_loss: float32 (levels,), weighted: add its sum to your loss.
    """

    quantized: Tensor
    tokens: Tensor
    level_embeddings: Tensor
    commitment_loss: Tensor


class HRVQ(Codes):
    """Hierarchical residual vector quantizer.

    ``forward`` changes no state; the codes are learned only in :meth:`update`, which the training loop calls
    after its optimizer step, in :meth:`initialize` and in :meth:`fit`. So a forward pass may be repeated,
    checkpointed or compiled freely, and evaluation never trains.
    """

    # So that Python names this class in its error for wrong arguments.
    def __init__(self, config: HRVQConfig) -> None:
        super().__init__(config)

    # -- use -----------------------------------------------------------------------------------------

    def forward(
        self, x: Tensor, mask: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> HRVQOutput:
        """Quantize ``x`` and let its gradient through; changes no state, not even in training mode.

        Args:
            x: floating (..., dim).
            mask: bool (...), True where a position counts; the others quantize to zero, get token -1 and
                no gradient.
            generator: for the level dropout (training mode only); not possible with ``torch.compile``, nor
                under gradient checkpointing, which would draw again.

        Returns:
            :class:`HRVQOutput`; distances and losses are float32, even under autocast.

        Raises:
            ValueError: wrong shape or dtype, values that are not finite, or codes still empty.
        """
        config = self.config
        with torch.autocast(self.table.device.type, enabled=False):
            rows, valid = self._rows(x, mask)
            tokens, errors = search_measured(rows, self.codebooks)
            drops = self.training and config.level_dropout > 0 and config.levels > 1
            if drops:
                depth = self._draw_depth(len(rows), rows.device, generator)
                levels = torch.arange(config.levels, device=rows.device)
                tokens = torch.where(levels < depth[:, None], tokens, NO_CODE)
            if valid is not None:
                tokens = torch.where(valid[:, None], tokens, NO_CODE)
            index = self._table_rows(tokens)
            embeddings = F.embedding(index, self.table)
            counted = tokens >= 0 if drops or valid is not None else None
            losses = commitment(rows, errors, self._weights, counted, index=index, table=self.table)
            through = rotation if config.gradient == "rotation" else straight_through
            passed = through(rows, self._sums(index))
        return HRVQOutput(
            passed.to(x.dtype).reshape(x.shape),
            tokens.reshape(*x.shape[:-1], config.levels),
            embeddings.to(x.dtype).reshape(*x.shape[:-1], config.levels, config.dim),
            losses,
        )

    @torch.no_grad()
    def encode(self, x: Tensor, mask: Tensor | None = None, *, levels: int | None = None) -> Tensor:
        """Tokens of ``x``: floating (..., dim) -> int64 (..., levels), coarse to fine.

        Each level takes the code nearest to what the coarser levels leave. On a CPU, uncompiled, the result
        depends only on the vector and the codes, not on the batch, the threads or the matrix library.

        Args:
            x: floating (..., dim).
            mask: bool (...), True where a position counts; the others' tokens are -1.
            levels: search only this many levels from the first; all if omitted.
        """
        if not (levels is None or (whole(levels) and levels <= self.config.levels)):
            raise ValueError(f"levels is {levels!r}; give a whole number from 1 to {self.config.levels}")
        with torch.autocast(self.table.device.type, enabled=False):
            rows, valid = self._rows(x, mask)
            tokens = search(rows, self.codebooks[:levels])
            if valid is not None:
                tokens = torch.where(valid[:, None], tokens, NO_CODE)
            return tokens.reshape(*x.shape[:-1], tokens.shape[-1])

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Vectors of ``tokens``: integer (..., l) with l <= levels -> float32 (..., dim).

        The codes of the first l levels, added up; token -1 means no code and adds nothing.
        """
        index = self._checked_table_rows(tokens)
        return self._sums(index.reshape(-1, index.shape[-1])).reshape(*tokens.shape[:-1], self.config.dim)

    @torch.no_grad()
    def level_embeddings(self, tokens: Tensor) -> Tensor:
        """The chosen code of each level: integer (..., l) -> float32 (..., l, dim)."""
        return F.embedding(self._checked_table_rows(tokens), self.table)

    # -- learning ------------------------------------------------------------------------------------

    @torch.no_grad()
    def initialize(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        batch_size: int | None = None,
        across_ranks: bool = True,
    ) -> None:
        """Start the codes by k-means on ``x`` (..., dim), level by level, over the vectors of all ranks.

        Args:
            x: floating (..., dim).
            mask: bool (...), True where a position counts.
            batch_size: number of vectors per :meth:`update`, if ``x`` has many more. The counts are scaled to
                it; unscaled, a start from 100 batches would weigh against the next few hundred.
            across_ranks: as for :meth:`update`.
        """
        self._check_open("initialize")
        if not (batch_size is None or whole(batch_size)):
            raise ValueError(
                f"batch_size is {batch_size!r}; give the number of vectors of an update, 1 or more"
            )
        with torch.autocast(self.table.device.type, enabled=False):
            rows, valid = self._rows(x, mask, for_update=True)
            counted = rows if valid is None else rows[valid]
            start(
                self._levels(),
                counted,
                self.config,
                self._generator(),
                batch_size=batch_size,
                across_ranks=across_ranks,
            )
        self._advance()

    @torch.no_grad()
    def update(
        self,
        x: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        across_ranks: bool = True,
    ) -> None:
        """Move the codes towards the vectors that chose them; revive codes that are hardly ever chosen.

        Call it once per training step, after the optimizer step, with the input and tokens of ``forward``.
        With counts N, sums S and decay g, level by level on the residuals r (van den Oord et al. 2017, A.1):

            N <- g N + (1 - g) n,    S <- g S + (1 - g) sum r,    c = S / smoothed(N)

        If the config is ``joint``, r is what all other levels leave, with the codes of the coarser ones
        already moved, so that the levels do not each correct the same shared error.

        Does nothing in eval mode or after :meth:`freeze`. The first call starts empty codes by k-means. With
        several processes the statistics are those of the joined batch.

        Args:
            x: floating (..., dim).
            tokens: ``forward``'s tokens of ``x``; searched again if omitted.
            mask: bool (...), True where a position counts; ``forward``'s tokens already reflect it.
            across_ranks: give False if not every process of the group calls this: the call would wait for
                the others.
        """
        if self._frozen or not self.training:
            return
        if not self.initialized:
            return self.initialize(x, mask, across_ranks=across_ranks)
        with torch.autocast(self.table.device.type, enabled=False):
            if tokens is not None:
                check_tensors(x=x)
                all_codes = check_tokens(tokens, sizes=self._sizes, device=self.table.device)
                if tokens.shape != (*x.shape[:-1], self.config.levels):
                    raise ValueError(
                        f"tokens have shape {tuple(tokens.shape)}; those of x of shape {tuple(x.shape)} have "
                        f"{(*x.shape[:-1], self.config.levels)}"
                    )
                tokens = tokens.reshape(-1, self.config.levels).long()
                if mask is None and not all_codes and values_can_be_checked(tokens):
                    mask = (tokens >= 0).any(-1).view(x.shape[:-1])  # padding may hold anything
            rows, valid = self._rows(x, mask, for_update=True)
            if tokens is None:
                tokens = search(rows, self.codebooks)
            if valid is not None:
                tokens = torch.where(valid[:, None], tokens, NO_CODE)
            index = self._table_rows(tokens)
            move(
                self._levels(),
                rows,
                tokens,
                self.config,
                self._generator(),
                index=index,
                table=self.table,
                across_ranks=across_ranks,
            )
        self._advance()

    @torch.no_grad()
    def fit(
        self,
        vectors: Vectors,
        *,
        epochs: int = 10,
        batch_size: int = 8192,
        tolerance: float = 1e-3,
        revive_below: float | None = None,
        refine: int = 0,
        seed: int | None = None,
        progress: Callable[[FitProgress], object] | None = None,
    ) -> FitResult:
        """Fit the codes to vectors that do not change, by k-means level by level; no gradients, no decay.

        Reads the vectors in passes, ``batch_size`` at a time, so files may be larger than memory. The counts
        and sums left behind are those of an average batch, so that :meth:`update` can continue from here.
        Unlike :meth:`update` it knows nothing of other processes: fit in one, and give the others its
        ``state_dict``.

        Args:
            vectors: floating (N, dim) tensor or array (memory maps too), the path of a `.npy` file or of a
                safetensors file with a tensor named `embeddings`, or a list of these.
            epochs: maximum number of passes over the data for each level, besides one that draws the start
                and one that counts at the end. One more pass, for all levels together, measures the variance.
            batch_size: vectors read at once; the start of a level holds 64 for each of its codes.
            tolerance: a level is done when a pass lowers its distortion by less than this share.
            revive_below: in the first half of the passes, codes chosen less often than this share of the mean
                move to where codes are crowded, so that all are used alike. For embeddings this costs a
                little more distortion; where the vectors lie in clusters of very different size, rare
                clusters lose their own codes and distortion may rise a lot: 0 leaves plain k-means. If
                omitted, 0.42, or 0 if the config's is 0.
            refine: at most this many passes at the end that move all levels together, each to what the
                *others* leave. The sum over all levels then has less error, and the first levels alone have
                more. An `update` that is not ``joint`` pulls the codes back to what the levels before leave.
            seed: for the start and the revivals; the config's if omitted.
            progress: called with a :class:`FitProgress` after each pass.

        Raises:
            ValueError: bad vectors, or the quantizer is frozen. The codes are then unchanged.
        """
        self._check_open("fit")
        with torch.autocast(self.table.device.type, enabled=False):
            return fit(
                self,
                vectors,
                epochs=epochs,
                batch_size=batch_size,
                tolerance=tolerance,
                revive_below=revive_below,
                refine=refine,
                seed=self.config.seed if seed is None else seed,
                progress=progress,
            )

    # -- parts ---------------------------------------------------------------------------------------

    def _rows(
        self, x: Tensor, mask: Tensor | None, *, for_update: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Check the input and flatten it: float32 (N, dim), bool (N,) or None for all."""
        if not for_update:
            self._check_initialized()
        check_vectors(x, mask, dim=self.config.dim, device=self.table.device)
        rows = x.float().reshape(-1, self.config.dim)
        valid = None if mask is None else mask.reshape(-1)
        if valid is not None:
            rows = torch.where(valid[:, None], rows, 0.0)  # padding may hold anything, even NaN
        if values_can_be_checked(rows):
            check_finite(rows.detach())
        elif for_update:  # on a GPU there is no check; what is not finite stays out of codes
            finite = rows.isfinite().all(1)
            valid = finite if valid is None else valid & finite
            rows = torch.where(valid[:, None], rows, 0.0)
        if self.config.distance == "cosine":
            rows = normalize(rows)
        return rows, valid

    def _table_rows(self, tokens: Tensor) -> Tensor:
        index = tokens + self._starts[: tokens.shape[-1]]
        return torch.where(tokens < 0, len(self.table) - 1, index)

    def _sums(self, index: Tensor) -> Tensor:
        """Rows of the table, added up in order: (N, l) -> (N, dim)."""
        return F.embedding_bag(index, self.table, mode="sum")

    def _checked_table_rows(self, tokens: Tensor) -> Tensor:
        self._check_initialized()
        all_codes = check_tokens(tokens, sizes=self._sizes, device=self.table.device)
        if not all_codes or tokens.dtype in UNSIGNED:
            return self._table_rows(tokens.long())
        return tokens + self._starts[: tokens.shape[-1]]  # a twentieth of the time of `decode`

    def _draw_depth(self, rows: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
        """How many levels each vector keeps, (N,)."""
        # Not generator=None, for which a compiler takes no size that changes.
        given: dict[str, Any] = {} if generator is None else {"generator": generator}
        chance = torch.rand(rows, dtype=torch.float32, device=device, **given)
        drops = chance < self.config.level_dropout
        cut = torch.randint(1, self.config.levels, (rows,), device=device, **given)
        return torch.where(drops, cut, self.config.levels)
