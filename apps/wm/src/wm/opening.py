"""Opens a run for reading, and says what is out of date in it."""

from pathlib import Path

from rich.console import Console

from wm.config import load_config
from wm.console import train_command
from wm.device import pick_device
from wm.freshness import outdated
from wm.opened import OpenedRun
from wm.reporter import Reporter
from wm.rounds import chooses, final_layout, layout_of_round, read_choice
from wm.run import Layout, Manifest
from wm.stages import stages_of


def open_to_read(
    root: Path, console: Console, *, device_name: str = "auto", index: int | None = None
) -> OpenedRun:
    """Open a run for reading, and warn if its parts may not be the expected ones.

    Stages are out of date if settings or inputs have changed since they ran, as `wm train STAGE` may leave
    them. And until a run that chooses a round has done so, its parts are the last round's.

    Args:
        device_name: as `device.pick_device` takes it.
        index: number of the round whose parts are to be read; None for the run's final parts.

    Raises:
        ValueError: it is not a run; its configuration, manifest or choice is damaged; it has no such round;
            or the machine has no such device.
    """
    config = load_config(Layout(root).config)
    stages = [stage for stage in stages_of(config) if stage.name != "evaluate"]  # nothing is made from it
    if index is None:
        layout = final_layout(root, config)
        if chooses(config) and read_choice(root, config) is None:
            console.print(
                f"no round is chosen yet, so the last one's parts are used; {train_command(root)} chooses one"
            )
    else:
        last = config.rounds.count - 1
        if not 0 <= index <= last:
            rounds = f"rounds are 0 to {last}" if last else "only round is 0"
            raise ValueError(f"{root} has no round {index}; its {rounds}")
        layout = layout_of_round(root, config, index)
        stages = [stage for stage in stages if stage.continues and stage.round <= index]
    if old := outdated(stages, config, Manifest(layout)):
        console.print(
            f"{', '.join(old)}: made before settings or inputs changed, so not all parts belong together; "
            f"{train_command(root)} brings them up to date"
        )
    return OpenedRun(config, layout, pick_device(device_name), Reporter(console), index)
