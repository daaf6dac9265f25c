"""What long work reports while it runs."""

import io

import pytest
from rich.console import Console
from wm.reporter import Reporter


@pytest.mark.parametrize("width", [64, 80, 200])
def test_how_far_the_work_is_stands_in_any_terminal(width):
    """The metrics give way, and nothing else."""
    file = io.StringIO()
    reporter = Reporter(Console(file=file, force_terminal=True, width=width, color_system=None))
    with reporter.task("worldmodel-10", 100_000) as task:
        reporter.log("worldmodel", 0, {f"metric_of_a_long_name_{n}": n for n in range(4)}, task)
        task.update(12_345)
    shown = [line for line in file.getvalue().split("\r") if "12345/100000" in line]
    assert shown
    assert "worldmodel-10" in shown[-1]
    assert "/s " in shown[-1]
    assert " m" in shown[-1]
    assert ("…" in shown[-1]) == (width < 200)
