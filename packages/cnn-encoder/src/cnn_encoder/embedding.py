"""Embedding many frames: in reduced precision where the hardware supports it, and straight to a file."""

import json
import operator
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ._artifact import METADATA_KEY, load_artifact, metadata_entry
from .encoder import FRAME_SIZE, STACK, as_tensor

Precision = Literal["auto", "float32", "bfloat16"]


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype that ``precision`` means on ``device``.

    "auto" is bfloat16 where the hardware multiplies it natively (CPUs with AVX512-BF16 or AMX, GPUs since
    Ampere), float32 elsewhere.
    """
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.get_device_capability(device) >= (8, 0)
        elif device.type == "cpu":
            native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        else:
            native = False
        return torch.bfloat16 if native else torch.float32
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision is {precision!r}; use 'auto', 'float32' or 'bfloat16'")
    return torch.float32 if precision == "float32" else torch.bfloat16


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Puts the module in evaluation mode, then back in the modes it had: embedding is not training."""
    training = [part for part in module.modules() if part.training]  # none if it is evaluating already
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@torch.no_grad()  # not inference_mode: the result may go into a loss
def embed_batches(
    encoder: nn.Module,
    batches: Iterable[Tensor | np.ndarray],
    background: Tensor | np.ndarray | None,
    *,
    precision: Precision = "auto",
) -> Iterator[Tensor]:
    """Embed batch after batch, holding only one at a time.

    Args:
        encoder: an `Encoder`, or a module of your own called as ``encoder(stacks, background)``, with uint8
            (B, 4, 84, 84) and the background given here -> (B, D). It runs where its weights are, in
            evaluation mode, and keeps them: a lower precision is that of autocast.
        batches: uint8 (B, 4, 84, 84) each, such as ``(store.stacks(rows) for rows in ...)``.
        background: float32 (84, 84) or None.
        precision: of the arithmetic; see `resolve_precision`.

    Yields:
        float32 (B, embedding_dim) on the encoder's device.

    Raises:
        ValueError: a batch or the background is not as above.
    """
    weight = next(encoder.parameters(), torch.empty(0))  # a module without weights runs on the CPU
    device, dtype = weight.device, resolve_precision(precision, weight.device)
    if background is not None:
        background = as_tensor(background).to(device)
        if background.shape != (FRAME_SIZE, FRAME_SIZE):
            raise ValueError(f"background has shape {tuple(background.shape)}; expected (84, 84)")
    for batch in batches:
        stacks = as_tensor(batch)
        if stacks.dtype != torch.uint8 or stacks.shape[1:] != (STACK, FRAME_SIZE, FRAME_SIZE):
            raise ValueError(
                f"a batch is {stacks.dtype} {tuple(stacks.shape)}; expected uint8 (B, 4, 84, 84)"
            )
        # Copied from a GPU without waiting, they would be read before they have arrived.
        stacks = stacks.to(device, non_blocking=stacks.device.type == "cpu")
        # Only `precision` decides the arithmetic, not an autocast around this.
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32), _evaluating(encoder):
            embedded = encoder(stacks, background)
        yield embedded.float()


def embed(
    encoder: nn.Module,
    stacks: Tensor | np.ndarray | Iterable[Tensor | np.ndarray],
    background: Tensor | np.ndarray | None,
    *,
    batch_size: int = 256,
    precision: Precision = "auto",
) -> Tensor:
    """Embed all of ``stacks``: float32 (N, embedding_dim) on the encoder's device.

    ``stacks`` is one uint8 array (N, 4, 84, 84), cut into batches of ``batch_size``, or an iterable of
    batches, used as they are. Everything else is as in `embed_batches`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    batches: Iterable[Tensor | np.ndarray] = (
        (stacks[i : i + batch_size] for i in range(0, len(stacks), batch_size))
        if isinstance(stacks, Tensor | np.ndarray)
        else stacks
    )
    parts = list(embed_batches(encoder, batches, background, precision=precision))
    if not parts:
        raise ValueError("stacks is empty; give at least one stack of four frames")
    return torch.cat(parts)


def write_embeddings(
    path: str | Path,
    batches: Iterable[Tensor | np.ndarray],
    *,
    num_frames: int,
    config: dict[str, Any] | None = None,
) -> None:
    """Stream embeddings into an `embeddings` artifact without holding them all; atomic, in canonical bytes.

    Args:
        path: the file, which appears only once every row is written.
        batches: float32 (B, D) each, `num_frames` rows in all; `embed_batches` yields them.
        num_frames: N, needed in advance because the header comes before the data.
        config: goes into the artifact's metadata.

    Raises:
        ValueError: the batches held another number of rows, or rows of different widths, or the config holds
            something that JSON cannot, or ``path`` is a directory; no file is left behind.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a directory; give the name of a file")
    num_frames = operator.index(num_frames)
    entry = metadata_entry(kind="embeddings", config=config or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    width, rows = None, 0
    try:
        with open(partial, "wb") as file:
            for batch in map(as_tensor, batches):
                if batch.ndim != 2 or batch.shape[1] < 1 or width not in (None, batch.shape[1]):
                    raise ValueError(f"a batch has shape {tuple(batch.shape)}; expected (B, {width or 'D'})")
                if width is None:
                    width = batch.shape[1]
                    file.write(_header(num_frames, width, entry))
                rows += len(batch)
                file.write(batch.detach().float().cpu().contiguous().numpy().astype("<f4", copy=False).data)
        if width is None:
            raise ValueError("there are no batches, and their width is that of the file; give at least one")
        if rows != num_frames:
            raise ValueError(f"the batches hold {rows} rows, num_frames is {num_frames}; they must agree")
        os.replace(partial, path)
    except OSError as error:
        if error.filename is None:  # a write to a full disk names no file
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def load_embeddings(path: str | Path) -> tuple[Tensor, dict[str, Any]]:
    """Read an `embeddings` artifact: float32 (N, D), and its config.

    Raises:
        ValueError: the file is missing, damaged, of another kind, or without its tensor.
    """
    tensors, config = load_artifact(path, kind="embeddings")
    if "embeddings" not in tensors:
        raise ValueError(f"{path} holds no tensor named embeddings; write it again")
    return tensors["embeddings"], config


def _header(num_frames: int, width: int, entry: str) -> bytes:
    """The safetensors header (length, JSON, padding to 8 bytes) as the library itself writes it."""
    header = {
        "__metadata__": {METADATA_KEY: entry},
        "embeddings": {
            "dtype": "F32",
            "shape": [num_frames, width],
            "data_offsets": [0, 4 * num_frames * width],
        },
    }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
