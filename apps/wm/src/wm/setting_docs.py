"""What every setting means, read from the docstrings of the dataclasses that hold the settings."""

import ast
import difflib
import inspect
import re
import textwrap
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any, get_type_hints

from wm.config import RunConfig, derived_sizes

_ARGUMENT = re.compile(r"(\w+(?:, \w+)*): (.*)")


def all_settings(section: type = RunConfig, where: str = "") -> dict[str, str]:
    """Every setting of a run by its full name, such as ``train.agent.steps``, and what its docstring says of
    it, in the order of the configuration.
    """
    texts, hints = field_docs(section), get_type_hints(section)
    found: dict[str, str] = {}
    for field in fields(section):
        name, kind = where + field.name, hints[field.name]
        if is_dataclass(kind):
            found |= all_settings(kind, f"{name}.")  # type: ignore[arg-type]
        else:
            found[name] = texts.get(field.name, "")
    return found


def sections(section: type = RunConfig, where: str = "") -> dict[str, str]:
    """The sections of a configuration, such as ``train.agent``, and the first line of what each is."""
    found: dict[str, str] = {}
    for name, kind in get_type_hints(section).items():
        if is_dataclass(kind):
            inner = sections(kind, f"{where}{name}.")  # type: ignore[arg-type]
            found |= inner or {where + name: _plain((inspect.getdoc(kind) or "").split("\n")[0])}
    return found


def find_settings(asked: str) -> dict[str, str]:
    """The settings of a section, such as ``train`` or ``train.agent``; or else those with this in their name.

    Raises:
        ValueError: there is none; the nearest names are suggested.
    """
    settings = all_settings()
    found = [name for name in settings if f"{name}.".startswith(f"{asked}.")]
    found = found or [name for name in settings if asked in name]
    if not found:
        near = difflib.get_close_matches(asked, [*sections(), *settings], n=3)
        advice = f"did you mean {' or '.join(near)}?" if near else "`wm settings` lists the sections"
        raise ValueError(f"there is no section or setting {asked!r}; {advice}")
    return {name: settings[name] for name in found}


def follow_from(given: dict[str, Any]) -> dict[str, str]:
    """What the settings that cannot be chosen follow from, by their names."""
    follows = {f"{section}.{key}": source for section, key, source, _ in derived_sizes(given)}
    fixed = (f"{section}.num_actions" for section in ("worldmodel", "actor", "predictor"))
    return follows | dict.fromkeys(fixed, "ALE's full set of 18 actions")


def field_docs(section: type) -> dict[str, str]:
    """What a dataclass says about its fields, in its docstring or in the string after a field.

    A class that extends another has the other's texts as well.
    """
    texts: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if is_dataclass(cls):
            texts |= _arguments(inspect.getdoc(cls) or "") | _after_fields(cls)
    return {name: _plain(text) for name, text in texts.items()}


def _arguments(docstring: str) -> dict[str, str]:
    """The entries of a docstring's list of arguments, each in one line."""
    section = re.split(r"^(?:Args|Attributes):\n", docstring, flags=re.MULTILINE)[-1]
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(section.split("\n\n")[0]).splitlines():
        if not line.startswith(" ") and (entry := _ARGUMENT.match(line)):
            names, text = entry[1].split(", "), entry[2]
            texts |= dict.fromkeys(names, text)
        else:
            texts |= {name: f"{texts[name]} {line.strip()}" for name in names}
    return texts


def _after_fields(cls: Any) -> dict[str, str]:
    """The strings that stand after fields in the source of a class, each in one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    texts = {}
    for field, after in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            texts[field.target.id] = " ".join(after.value.value.split())
    return texts


def _plain(text: str) -> str:
    """A docstring's text without its markup."""
    return re.sub(r":\w+:(?=`)", "", text).replace("``", "`")
