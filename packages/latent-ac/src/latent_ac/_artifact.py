"""One artifact is one safetensors file: tensors, and a single metadata entry of canonical JSON.

Every package that keeps weights has a copy of this short file, because no package imports another; a test at
the top level of the repository checks that the copies are equal.
"""

import json
import os
from operator import methodcaller
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

METADATA_KEY = "artifact"
SCHEMA = 1


def metadata_entry(*, kind: str, config: dict[str, Any]) -> str:
    """The metadata entry of a file, as canonical JSON.

    Raises:
        ValueError: the config holds something that JSON cannot.
    """
    try:
        return json.dumps(
            {"kind": kind, "schema": SCHEMA, "config": config},
            sort_keys=True,
            separators=(",", ":"),
            default=methodcaller("item"),  # scalars of NumPy or in a tensor
        )
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"the config of the {kind} artifact cannot be written ({error}); give numbers, text and lists"
        ) from error


def save_artifact(path: str | Path, tensors: dict[str, Tensor], *, kind: str, config: dict[str, Any]) -> None:
    """Write ``tensors`` to ``path``, completely or not at all; equal input gives equal bytes.

    Raises:
        ValueError: the config holds something that JSON cannot, or ``path`` is a directory.
        OSError: the file cannot be written, for example for want of space.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a directory; give the name of a file")
    entry = metadata_entry(kind=kind, config=config)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.touch()
        mode = partial.stat().st_mode  # that of any new file here; only its owner could read save_file's
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()},
            partial,
            {METADATA_KEY: entry},
        )
        partial.chmod(mode)
        os.replace(partial, path)
    except SafetensorError as error:
        if "(os error " not in str(error):  # not the system's refusal but wrong tensors
            raise
        raise OSError(f"{path} cannot be written ({error}); free some space, or write elsewhere") from error
    finally:
        partial.unlink(missing_ok=True)


def load_artifact(path: str | Path, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the config of an artifact of the given ``kind``.

    Raises:
        ValueError: the file is missing, damaged, not an artifact, or of another kind or schema.
    """
    path = Path(path)
    if not path.is_file():
        wrong = "is a directory" if path.is_dir() else "does not exist"
        raise ValueError(f"{path} {wrong}; expected a safetensors file of kind {kind}")
    try:
        with safe_open(path, framework="pt") as file:
            entry = (file.metadata() or {}).get(METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}); write it again") from error
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
    return tensors, config
