"""Plain dictionaries to frozen dataclasses and back, with errors that name the key and what is allowed."""

import dataclasses
import difflib
import math
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def structure(cls: type[T], data: dict[str, Any], where: str = "") -> T:
    """Build the dataclass ``cls`` from ``data``, nested dataclasses from nested tables.

    Raises:
        ValueError: an unknown key (the nearest known one is suggested), a missing one, or a value of the
            wrong type; every message names the full key. Checking ranges is up to the dataclass.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where} is a section with keys of its own; got {data!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ValueError(_unknown_key(_join(where, unknown[0]), unknown[0], list(fields)))
    hints = get_type_hints(cls)
    values = {name: _convert(hints[name], value, _join(where, name)) for name, value in data.items()}
    missing = [
        _join(where, name)
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"missing setting {', '.join(missing)}; give it in the preset or with --set")
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"[{where}] {error}" if where else str(error)) from error


def unstructure(value: Any, but: Mapping[type, Mapping[str, Any]] = types.MappingProxyType({})) -> Any:
    """The inverse of :func:`structure`; tuples become lists.

    The fields named in ``but``, by their dataclass, are left out where they have the value given there.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        idle = but.get(type(value), {})
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {
            name: unstructure(item, but) for name, item in pairs if not (name in idle and item == idle[name])
        }
    if isinstance(value, tuple | list):
        return [unstructure(item, but) for item in value]
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML ({error}); fix it") from error


def parse_override(text: str, takes: str = "--set takes section.key=value") -> dict[str, Any]:
    """``'worldmodel.num_layers=4'`` to ``{'worldmodel': {'num_layers': 4}}``; the value is read as TOML.

    A value that is not TOML (a bare word) is taken as a string. ``takes`` is the right form, for errors.

    Raises:
        ValueError: there is no ``=``, or a part of the key is empty.
    """
    key, equals, raw = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ValueError(f"{takes}; got {text!r}")
    try:
        found = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        found = {"value": raw.strip()}
    if len(found) > 1:
        raise ValueError(f"{takes}; got {text!r}")
    value = found["value"]
    for part in reversed(parts):
        value = {part: value}
    return value


def flatten(data: dict[str, Any], where: str = "") -> dict[str, Any]:
    """``{'worldmodel': {'num_layers': 4}}`` to ``{'worldmodel.num_layers': 4}``."""
    flat: dict[str, Any] = {}
    for name, value in data.items():
        key = _join(where, name)
        flat |= flatten(value, key) if isinstance(value, dict) else {key: value}
    return flat


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes`` laid over it, table by table; neither argument is modified."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(hint, value, where)
    if origin is Literal:
        if value not in get_args(hint):
            allowed = ", ".join(map(repr, get_args(hint)))
            raise ValueError(f"{where} must be one of {allowed}; got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list; got {value!r}")
        item = get_args(hint)
        if len(item) == 2 and item[1] is Ellipsis:
            return tuple(_convert(item[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(item):
            raise ValueError(f"{where} must be a list of {len(item)} values; got {value!r}")
        return tuple(
            _convert(h, v, f"{where}[{i}]") for i, (h, v) in enumerate(zip(item, value, strict=True))
        )
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return structure(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} must be a finite number; got {value}")
    if not isinstance(hint, type) or not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{where} must be {_name(hint)}; got {value!r}")
    return value


def _convert_union(hint: Any, value: Any, where: str) -> Any:
    for option in get_args(hint):
        try:
            return _convert(option, value, where)
        except ValueError:
            continue
    raise ValueError(f"{where} must be {_name(hint)}; got {value!r}")


def _name(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_name, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list of {_name(get_args(hint)[0])}"
    names = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    return names.get(hint, str(hint))


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _unknown_key(full: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown setting {full!r}; {hint}allowed: {', '.join(sorted(known))}"
