"""Presets: the named settings that ship with the app, files of one's own, and runs named after them."""

import os
import tomllib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from token_worldmodel import WorldModelConfig

from wm.config import RunConfig, build_config, derived_sizes, section_of
from wm.settings import flatten, read_toml, unstructure

PRESETS = ("tiny", "hour", "reference", "atari100k", "atari100k_cpu")


def read_preset(name: str) -> dict[str, Any]:
    """The settings of a preset that ships with the app, or of a TOML file.

    Raises:
        ValueError: there is no such preset or file, or it is not valid TOML.
    """
    if name in PRESETS:
        return tomllib.loads((files("wm") / "presets" / f"{name}.toml").read_text(encoding="utf-8"))
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"unknown preset {name!r}; allowed: {', '.join(PRESETS)}, or the path of a TOML file"
        )
    return read_toml(path)


def preset_file(name: str) -> Path | None:
    """The path of a preset given as a file; None for one that ships with the app."""
    return None if name in PRESETS else Path(name)


def require_own_name(preset: str) -> None:
    """Raise ValueError for a file named like a preset that ships with the app: run names would clash."""
    file = preset_file(preset)
    if file is not None and file.name.removesuffix(".toml") in PRESETS:
        raise ValueError(f"--preset {preset} has the name of a preset that ships with wm; rename the file")


def default_preset(device: torch.device) -> str:
    """The preset to use when none is named."""
    return "atari100k" if device.type == "cuda" else "tiny"


def nearest_preset(config: RunConfig) -> tuple[str, dict[str, Any]]:
    """The shipped preset that is closest to these settings, and the settings that differ from it.

    Games, seed and derived settings are ignored. Settings are named as for ``--set``: ``train.agent.steps``.
    """
    given = unstructure(config)
    aside = {"games", "seed"} | {f"{section}.{key}" for section, key, *_ in derived_sizes(given)}
    ours = flatten(given)
    differing = {}
    for name in PRESETS:
        theirs = _settings_of(name, config.hrvq.levels)
        changed = (key for key in (ours | theirs) if key not in aside and ours.get(key) != theirs.get(key))
        differing[name] = {key: ours.get(key) for key in changed}
    name = min(PRESETS, key=lambda preset: len(differing[preset]))
    return name, differing[name]


@cache
def _settings_of(preset: str, levels: int) -> dict[str, Any]:
    """The settings of a preset that ships with the app, by their full names; loss weights given for any
    number of levels are those of ``levels``.
    """
    given = read_preset(preset)
    settings = flatten(unstructure(build_config(given)))
    weights = section_of(given, "worldmodel").get("loss_weights", [])
    if len(weights) < 2:
        model = WorldModelConfig(num_levels=levels, loss_weights=tuple(weights))
        settings["worldmodel.loss_weights"] = list(model.loss_weights)
    return settings


def run_name(games: Sequence[str], preset: str, seed: int) -> str:
    """``<games>-<preset>-<seed>``, where ``preset`` is a name or a file."""
    return f"{'+'.join(games)}-{os.path.basename(preset).removesuffix('.toml')}-{seed}"


def default_directory(config: RunConfig, preset: str) -> Path:
    """``runs/<games>-<preset>-<seed>``."""
    return Path("runs") / run_name(config.games, preset, config.seed)
