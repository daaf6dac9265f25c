"""Where the vectors of a fit come from: tensors, arrays and files, read block by block."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hrvq._checks import check_unmasked

Vectors = Tensor | np.ndarray | str | Path | Sequence[Tensor | np.ndarray | str | Path]
EMBEDDINGS = "embeddings"
_FLOATING = ("F64", "F32", "F16", "BF16")


class VectorSource:
    """Vectors (N, dim) in row order, never all in memory at once.

    Args:
        vectors: a floating tensor or array (a memory map is read block by block), the path of a ``.npy`` file
            or of a safetensors file with a tensor named ``embeddings``, or a list of these, read in order.
        dim: length of the vectors.
    """

    def __init__(self, vectors: Vectors, dim: int) -> None:
        self._parts = list(vectors) if isinstance(vectors, list | tuple) else [vectors]
        self._lengths = []
        for part in map(_open, self._parts):
            shape = _shape(part)
            if len(shape) != 2 or shape[1] != dim:
                raise ValueError(f"vectors have shape {shape}; give (N, {dim}), without the padded ones")
            self._lengths.append(shape[0])
        self.rows = sum(self._lengths)
        if self.rows == 0:
            raise ValueError("there are no vectors to fit; give at least one")

    def blocks(self, size: int, device: torch.device) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, float32 (size, dim)) in order, across parts; only the last may be shorter."""
        start, held, pieces = 0, 0, []
        for part, length in zip(self._parts, self._lengths, strict=True):
            opened, low = _open(part), 0  # in each pass, because an open file is one of a limited number
            if _shape(opened)[0] != length:
                raise ValueError(f"{part} changed while it was read; fit again")
            while low < length:
                piece = opened[low : min(low + size - held, length)]
                if isinstance(piece, np.ndarray):
                    piece = torch.from_numpy(np.array(piece, dtype=np.float32))
                pieces.append(piece.to(device, torch.float32))
                low, held = low + len(piece), held + len(piece)
                if held == size or start + held == self.rows:
                    yield start, _joined(pieces, start)
                    start, held, pieces = start + held, 0, []


def _joined(pieces: list[Tensor], start: int) -> Tensor:
    """One block of the pieces (n, dim), the first vector being number ``start``; all must be finite."""
    block = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    if not bool(block.sum().isfinite()) and not bool(block.isfinite().all()):
        raise ValueError(
            f"vectors {start} to {start + len(block) - 1} contain NaN or infinite values; remove them"
        )
    return block


def _memory_map(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, TokenError, OverflowError) as error:  # empty, a damaged header
        raise ValueError(f"{path} is no readable NumPy file ({error}); write it with numpy.save") from error
    return array


def _shape(opened: Any) -> tuple[int, ...]:
    return tuple(opened.get_shape() if hasattr(opened, "get_shape") else opened.shape)


def _open(part: Any) -> Any:
    if isinstance(part, str | Path):
        path = Path(part)
        if not path.is_file():
            what = "is a directory" if path.is_dir() else "does not exist"
            raise ValueError(
                f"{path} {what}; give a .npy file, or a safetensors file with a tensor '{EMBEDDINGS}'"
            )
        if path.suffix == ".npy":
            return _open(_memory_map(path))
        try:
            part = safe_open(path, framework="pt").get_slice(EMBEDDINGS)
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} is neither a .npy file nor a safetensors file with a tensor '{EMBEDDINGS}': {error}"
            ) from error
        if part.get_dtype() not in _FLOATING:
            raise ValueError(f"'{EMBEDDINGS}' in {path} are {part.get_dtype()}; write floating-point numbers")
        return part
    check_unmasked("vectors", part)
    if not isinstance(part, Tensor | np.ndarray):
        raise ValueError(
            f"vectors are of type {type(part).__name__}; give a tensor, an array or a file's path"
        )
    floating = (
        part.is_floating_point() if isinstance(part, Tensor) else np.issubdtype(part.dtype, np.floating)
    )
    if not floating:
        raise ValueError(f"vectors are {part.dtype}; give floating-point numbers")
    return part
