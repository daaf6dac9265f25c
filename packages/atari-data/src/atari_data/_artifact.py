"""One artifact is one safetensors file: tensors, and a single metadata entry of canonical JSON.

The torch packages share a file of this name for weights. This one is for arrays too large for memory: the
header has a fixed size, so that it can be written last, once the number of frames is known.
Format: https://huggingface.co/docs/safetensors (8 bytes header length, JSON header, data without gaps).
"""

import errno
import json
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

METADATA_KEY = "artifact"
SCHEMA = 1
HEADER_BYTES = 4096  # including its length field, so that the data begin on a memory page

_DTYPES = {"U8": np.uint8, "BOOL": np.bool_, "I32": np.int32, "F32": np.float32}
_CODES = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}


def encode_header(
    tensors: dict[str, tuple[type | np.dtype[Any], tuple[int, ...]]],
    *,
    kind: str,
    config: dict[str, Any],
) -> bytes:
    """The first ``HEADER_BYTES`` of a file that holds ``tensors`` (name to dtype and shape) in this order."""
    entry = json.dumps(
        {"kind": kind, "schema": SCHEMA, "config": config},
        sort_keys=True,
        separators=(",", ":"),
        default=methodcaller("item"),  # scalars of NumPy or in a tensor
    )
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: entry}}
    start = 0
    for name, (dtype, shape) in tensors.items():
        end = start + int(np.prod(shape)) * np.dtype(dtype).itemsize
        header[name] = {"dtype": _CODES[np.dtype(dtype)], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    size = HEADER_BYTES - 8
    if len(text) > size:
        raise ValueError(
            f"the artifact's config takes {len(text)} bytes with the header; the limit is {size}"
        )
    return size.to_bytes(8, "little") + text.ljust(size)


def open_artifact(
    path: Path, *, kind: str, mapped: str
) -> tuple[dict[str, Any], NDArray[Any], dict[str, NDArray[Any]]]:
    """Read an artifact, with one of its tensors memory-mapped and the others in memory.

    Returns:
        The config, the tensor called ``mapped`` (read-only, from the file), and the other tensors by name.

    Raises:
        ValueError: the file is missing, damaged, truncated, not an artifact, or of another kind or schema.
    """
    if not path.is_file():
        wrong = "is a directory" if path.is_dir() else "does not exist"
        raise ValueError(f"{path} {wrong}; expected a safetensors file of kind {kind}")
    try:
        with safe_open(path, framework="numpy") as file:
            entry = (file.metadata() or {}).get(METADATA_KEY)
            others = {name: file.get_tensor(name) for name in file.keys() if name != mapped}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        check_open_files(error)
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); restore it, or collect again"
        ) from error
    try:
        found = json.loads(entry or "")
        found_kind, found_schema, config = found["kind"], found["schema"], dict(found["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no '{METADATA_KEY}' metadata, so it is not an artifact of this project"
        ) from error
    if (found_kind, found_schema) != (kind, SCHEMA):
        raise ValueError(
            f"{path} is of kind {found_kind}, schema {found_schema}; expected {kind}, schema {SCHEMA}"
        )
    return config, _map_tensor(path, mapped), others


def check_open_files(error: Exception) -> None:
    """Raise a ValueError that says what to do, if the error is that too many files are open."""
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        raise ValueError(
            "too many files are open, of which each shard of an open store and each environment that is "
            "collected from is one; allow more (ulimit -n)"
        ) from error


def _map_tensor(path: Path, name: str) -> NDArray[Any]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            spec = json.loads(file.read(length)).get(name)
            if spec is None or spec["dtype"] not in _DTYPES:
                raise ValueError(
                    f"{path} holds no tensor '{name}' of a known type; restore it, or collect again"
                )
            dtype, start = _DTYPES[spec["dtype"]], 8 + length + spec["data_offsets"][0]
            return np.memmap(file, dtype=dtype, mode="r", offset=start, shape=tuple(spec["shape"]))
    except OSError as error:
        check_open_files(error)
        raise
