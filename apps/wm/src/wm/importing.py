"""What `wm import` does: a recording becomes the data of a run, which `wm train` then trains on."""

import shutil
from pathlib import Path

from atari_data import final_rows, import_recording, only_writer
from rich.console import Console

from wm.config import RunConfig, build_config, load_config, save_config
from wm.console import counted, train_command
from wm.preset import read_preset
from wm.run import Layout, Manifest, require_writable
from wm.settings import unstructure


def import_into_run(
    directory: Path,
    frames: Path,
    actions: Path,
    *,
    game: str,
    preset: str | None,
    columns: dict[str, Path | None],
    console: Console,
) -> None:
    """Add a recording of ``game`` to the run in ``directory``, made from ``preset`` if there is none.

    Args:
        preset: only for a new run; None is ``tiny``.
        columns: the optional files of :func:`atari_data.import_recording`, by their names.

    Raises:
        ValueError: something in the recording does not fit, or the run collects its own play.
    """
    layout = Layout(directory)
    known_run = _begun(layout)
    _with_game(known_run, game, preset, 0)  # a bad name or preset is reported before anything is written
    if known_run is not None and preset is not None:
        read_preset(preset)
        console.print(f"{directory} keeps its settings; --preset is only for a new run")
    require_writable(directory)
    with only_writer(directory):
        before = _begun(layout)  # read again: another import may have created the run meanwhile
        rounds = _rounds(layout, game)
        manifest = Manifest(layout)
        known = manifest.stages.get("collect")
        # First, so that what is imported is part of the run, whenever this process ends.
        save_config(layout.config, _with_game(before, game, preset, 0))
        try:
            manifest.forget(["collect"])  # there is more to read, or will be before anything reads it
            result = import_recording(layout.data(game), frames, actions, game=game, **columns)
        except BaseException:
            if _rounds(layout, game) == rounds:  # or it was stopped when all was in place
                if known is not None:
                    manifest.restore("collect", known)
                if before is not None:
                    save_config(layout.config, before)
                else:
                    shutil.rmtree(directory / "data", ignore_errors=True)
                    layout.config.unlink()
            raise
        store = layout.frames(game)
        final = final_rows(store.episode_ids)
        save_config(layout.config, _with_game(before, game, preset, int((~final).sum())))
    imported, held = (counted(int(number), "episode") for number in (result.num_episodes, final.sum()))
    console.print(
        f"{game}: {result.num_rows} frames, {result.num_steps} actions, {imported} imported; {directory} now "
        f"holds {len(store)} frames of it in {held}",
    )
    if final.sum() < 2:
        console.print(
            "a run needs at least 2 episodes, one of them for validation: import another recording, or "
            f"delete {layout.data(game)} and import this one again with --episode-ids",
        )
    else:
        console.print(f"train on it with {train_command(directory)}")


def _rounds(layout: Layout, game: str) -> int:
    """How many recordings of a game the run holds."""
    try:
        return len(layout.frames(game).round_ends)
    except ValueError:  # none
        return 0


def _begun(layout: Layout) -> RunConfig | None:
    """The configuration of the run, None if there is no run yet; ValueError for a run that plays itself."""
    if not layout.config.exists():
        return None
    config = load_config(layout.config)
    if config.collect.policy != "imported":
        raise ValueError(
            f"{layout.root} is a run that plays the game itself (collect.policy is {config.collect.policy}); "
            "give a new directory"
        )
    return config


def _with_game(config: RunConfig | None, game: str, preset: str | None, steps: int) -> RunConfig:
    """The run's configuration with this game among its games."""
    base = read_preset(preset or "tiny") if config is None else unstructure(config)
    games = [game] if config is None else list(dict.fromkeys([*config.games, game]))
    most = max(100, steps, 0 if config is None else config.collect.num_steps)
    # No agent can add play to a recording, so there is one round.
    changes = {"games": games, "collect": {"policy": "imported", "num_steps": most}, "rounds": {"count": 1}}
    return build_config(base, changes)
