"""What is said before a run is read whose parts may not belong together."""

from pathlib import Path

from rich.console import Console

from wm.config import load_config
from wm.console import command
from wm.pipeline import outdated
from wm.run import Layout, Manifest
from wm.stages import stages_of


def remark_outdated(directory: Path, console: Console) -> None:
    """Name the stages that ran before settings or inputs changed, as `wm train STAGE` may leave them.

    Raises:
        ValueError: it is no run, or its configuration, manifest or choice is damaged.
    """
    layout = Layout(directory)
    config = load_config(layout.config)
    stages = [stage for stage in stages_of(config) if stage.name != "evaluate"]  # nothing is made from it
    if old := outdated(stages, config, Manifest(layout)):
        console.print(
            f"{', '.join(old)}: made before settings or inputs changed, so not all parts belong together; "
            f"{command('wm', 'train', '--run', directory)} brings them up to date"
        )
