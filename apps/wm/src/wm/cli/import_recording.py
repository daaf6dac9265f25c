"""`wm import`: bring your own recording."""

from pathlib import Path
from typing import Annotated

import typer

from wm.console import make_console


def import_recording(
    run: Annotated[
        Path, typer.Argument(help="Run directory, new or begun by `wm import`.", show_default=False)
    ],
    frames: Annotated[
        Path, typer.Argument(help="A .npy array, a folder of images, or a video.", show_default=False)
    ],
    actions: Annotated[
        Path,
        typer.Argument(
            help="Ids of ALE's 18 actions, one per frame: .npy, or text, one per line.", show_default=False
        ),
    ],
    game: Annotated[
        str, typer.Option(help="The game's name; for an ALE game, its name in ALE.", show_default=False)
    ],
    rewards: Annotated[
        Path | None, typer.Option(help="One per frame. Default: zeros.", show_default=False)
    ] = None,
    terminated: Annotated[
        Path | None,
        typer.Option(help="1 where the game ended, else 0. Default: it never did.", show_default=False),
    ] = None,
    truncated: Annotated[
        Path | None,
        typer.Option(
            help="1 where the recording was cut, else 0. Default: at the end of an episode that did "
            "not end by itself.",
            show_default=False,
        ),
    ] = None,
    episode_ids: Annotated[
        Path | None,
        typer.Option(
            help="One per frame, for several episodes in one file. Default: one episode.", show_default=False
        ),
    ] = None,
    lives: Annotated[
        Path | None, typer.Option(help="One per frame. Default: zeros.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A preset or a TOML file for a new run. Default: tiny.", show_default=False),
    ] = None,
) -> None:
    """Import a recording as the data of a run; `wm train --run RUN` then trains on it.

    Used again on the same run, it adds a recording: more episodes of a game, or another game.
    """
    from wm.importing import import_into_run

    console = make_console()
    columns = {
        "rewards": rewards,
        "terminated": terminated,
        "truncated": truncated,
        "episode_ids": episode_ids,
        "lives": lives,
    }
    import_into_run(run, frames, actions, game=game, preset=preset, columns=columns, console=console)
