"""What `wm train` does: resolve the configuration, run the stages, report."""

import difflib
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from atari_data import only_writer
from rich.console import Console

from wm.config import RunConfig, build_config, load_config, read_run, save_config, section_of
from wm.consistency import require_long_episodes
from wm.console import command
from wm.device import autocast_dtype, pick_device
from wm.diagnostics import remarks_after
from wm.distributed import Team, join, leave
from wm.freshness import stale_inputs, what_changes
from wm.pipeline import require_inputs, run_stages, take_back
from wm.preset import PRESETS, default_directory, default_preset, preset_file, read_preset, require_own_name
from wm.report import print_report
from wm.reporter import Reporter, Sink, make_sinks, require_sinks
from wm.run import Layout, Manifest, remove_leftovers, require_writable
from wm.settings import merge, parse_override, unstructure
from wm.stage import Context, Stage
from wm.stages import stages_of
from wm.stages.collect import require_sources
from wm.starting import check_start


def train_run(
    *,
    console: Console,
    stage: str | None = None,
    games: Sequence[str] | None = None,
    preset: str | None = None,
    directory: Path | None = None,
    start: Path | None = None,
    seed: int | None = None,
    device_name: str = "auto",
    overrides: Sequence[str] = (),
    logs: Sequence[str] = (),
) -> None:
    """Train a run from scratch, or resume one.

    An existing run keeps its configuration, whether it is named or found under its default name. A preset
    replaces it, except that imported play stays imported, and that games and seed stay unless the preset is a
    user's own file that names them; the other options change it. A run that starts from another run's parts
    takes that run's configuration, unless a preset is given.

    Raises:
        ValueError: something in the arguments, the configuration or the run's files is invalid.
    """
    team, device = join(pick_device(device_name))
    if not team.leads:
        console = Console(quiet=True)
        team.wait()  # until the run's directory and configuration exist
    changes = _changes(games, seed, start, overrides)
    config, layout = _resolve(preset, directory, start, changes, default_preset(device))
    check_start(config, layout)
    stages = stages_of(config)
    asked = None if stage is None else _asked(stage, stages, config.rounds.count)
    _require_fit_here(config, team, device)
    require_writable(layout.root)
    sinks: list[Sink] = []
    with only_writer(layout.root) if team.leads else nullcontext():
        if team.leads:
            if asked is not None:
                require_inputs(asked, Manifest(layout), layout.root, config.games)
            if asked is None or asked.base == "collect":
                require_sources(config, layout)
            if asked is None:
                require_long_episodes(config)
            require_sinks(logs)
            # Everything that may be refused is checked before the configuration is replaced.
            before = read_run(layout.config) if layout.config.exists() else unstructure(config)
            save_config(layout.config, config)
            remove_leftovers(layout.root)
            sinks = make_sinks(logs, layout.root, unstructure(config))
            team.wait()
        console.print(
            f"run {layout.root}  games {', '.join(config.games)}  seed {config.seed}  device {device}",
        )
        if team.leads:
            manifest = Manifest(layout)
            take_back(stages, config, manifest)
            for remark in what_changes(before, config, _touched(stages, asked), manifest):
                console.print(remark)
        only = None if asked is None else asked.name
        with closing(Reporter(console, layout.metrics if team.leads else None, sinks)) as reporter:
            manifest = run_stages(
                stages, Context(config, layout, device, reporter, team), only=only, remarks=remarks_after
            )
        leave()
    print_report(config, manifest, console, only=only)
    evaluated = manifest.stages.get("evaluate")
    played = evaluated is None or evaluated.metrics["games"]  # a run of recordings alone has no game to play
    if played and "agent" in manifest.stages and not stale_inputs("evaluate", stages, config, manifest):
        console.print(f"{command('wm', 'eval', layout.root)} plays more episodes")


def _touched(stages: Sequence[Stage], asked: Stage | None) -> Sequence[Stage]:
    """The stages whose artifacts may be replaced: collecting a round anew deletes later rounds' play."""
    if asked is None:
        return stages
    later = stages[stages.index(asked) + 1 :]
    return [asked, *(stage for stage in later if stage.base == asked.base == "collect")]


def _changes(
    games: Sequence[str] | None, seed: int | None, start: Path | None, overrides: Sequence[str]
) -> dict[str, Any]:
    """The settings that the command's options change.

    Raises:
        ValueError: an override is malformed, or sets what an option sets too.
    """
    changes: dict[str, Any] = {}
    for text in overrides:
        changes = merge(changes, parse_override(text))
    for key, value in (("games", games), ("seed", seed)):
        if value is None:
            continue
        if key in changes:
            raise ValueError(f"{key} is given by --{key} and by --set {key}; give one of them")
        changes[key] = value
    # As an absolute path, because the same name in another directory is another run.
    return changes if start is None else merge(changes, {"start": {"run": str(start.resolve())}})


def _require_fit_here(config: RunConfig, team: Team, device: torch.device) -> None:
    """Raise ValueError now, not an hour from now, if a stage cannot be trained as its settings ask."""
    for fit_config in (getattr(config.train, field.name) for field in fields(config.train)):
        autocast_dtype(fit_config.precision, device)
    batch = config.train.worldmodel.batch_size
    if batch % team.size:
        raise ValueError(
            f"train.worldmodel.batch_size is {batch}, which {team.size} processes cannot share evenly; give "
            f"a multiple of {team.size}"
        )


def _asked(name: str, stages: Sequence[Stage], rounds: int) -> Stage:
    """The stage of this name."""
    by_name = {stage.name: stage for stage in stages}
    # The last round's stages have plain names; names with the round's number are accepted too.
    found = by_name.get(name) or by_name.get(name.removesuffix(f"-{rounds - 1}"))
    if found is None:
        near = [repr(known) for known in difflib.get_close_matches(name, by_name, n=1)]
        meant = near
        if "=" in name:
            meant = [f"`--set {name}`"]
        elif Layout(Path(name)).config.is_file():
            meant = [f"`--run {name}`"]
        hint = f"did you mean {meant[0]}? " if meant else ""
        raise ValueError(f"unknown stage {name!r}; {hint}allowed: {', '.join(by_name)}")
    return found


def _resolve(
    preset: str | None,
    directory: Path | None,
    start: Path | None,
    changes: dict[str, Any],
    default: str,
) -> tuple[RunConfig, Layout]:
    """The configuration and the layout of the run."""
    if directory is None:
        base, name = _beginning(preset, start, default)
        if preset is not None:
            require_own_name(preset)
        # The other changes may only be valid with the settings of a run that is already there, and so may
        # games that are not ALE's: that run may hold recordings of them.
        what = {key: value for key, value in merge(base, changes).items() if key in ("games", "seed")}
        directory = default_directory(build_config({"collect": {"policy": "imported"}}, what), name)
    layout = Layout(directory)
    file = None if preset is None else preset_file(preset)
    if preset is None and layout.config.exists():
        base, file = read_run(layout.config), layout.config
    else:
        base, _ = _beginning(preset, start, default)
        if layout.config.exists():
            kept = _what_it_is_of(read_run(layout.config))
            # A user's own file may set games and seed, but it cannot replace imported play.
            named = {} if preset in PRESETS else {k: v for k, v in base.items() if k in ("games", "seed")}
            base = merge(merge(base, kept), named)
    return build_config(base, changes, file=file), layout


def _what_it_is_of(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a run's configuration that a preset, which says how to train, leaves unchanged."""
    kept: dict[str, Any] = {key: config[key] for key in ("games", "seed") if key in config}
    collect = section_of(config, "collect")
    if collect.get("policy") == "imported":
        kept["collect"] = {key: collect[key] for key in ("policy", "num_steps") if key in collect}
        kept["rounds"] = {"count": 1}
    return kept


def _beginning(preset: str | None, start: Path | None, default: str) -> tuple[dict[str, Any], str]:
    """What a new run's configuration is based on, and the name of that."""
    if start is not None and preset is None:
        return unstructure(load_config(Layout(start).config)) | {"start": {}}, f"from-{start.resolve().name}"
    name = default if preset is None else preset
    return read_preset(name), name
