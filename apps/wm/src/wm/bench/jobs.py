"""`wm bench --engine submitit`: each run is a job, on SLURM if available, else a process on this machine.

The jobs share the disk and write what a run of `wm bench` writes; the process that waits for them gathers it.
"""

from collections.abc import Sequence
from typing import Any

import submitit
from rich.console import Console
from submitit.core.utils import FailedSubmissionError

from wm.bench.protocol import BenchOptions, run_one
from wm.console import make_console
from wm.errors import sentence
from wm.settings import parse_override

# Used unless the user gives others; submitit's own time limit is minutes.
DEFAULTS = {"timeout_min": 24 * 60}


class Run(submitit.helpers.Checkpointable):
    """One pair as a job. If the engine preempts it, it is queued again and resumes."""

    def __call__(self, options: BenchOptions, game: str, seed: int, device: str) -> str | None:
        """Train and play; the results are in the run's files. Returns an error the user can fix, if any."""
        try:
            run_one(options, game, seed, device, make_console())
        except (ValueError, OSError) as error:
            return sentence(error)
        return None


def run_jobs(
    options: BenchOptions,
    pairs: Sequence[tuple[str, int]],
    *,
    device: str,
    settings: Sequence[str],
    console: Console,
) -> None:
    """Run every (game, seed) of ``pairs`` as a job and wait for all of them. Ctrl-C cancels them.

    Args:
        settings: ``key=value`` for submitit's ``AutoExecutor``, such as ``gpus_per_node=1``.

    Raises:
        ValueError: a setting that submitit does not take, or a run that failed; the others have finished.
    """
    executor = _executor(options, settings)
    try:
        with executor.batch():  # on SLURM, one job array
            jobs = [executor.submit(Run(), options, game, seed, device) for game, seed in pairs]
    except FailedSubmissionError as error:
        raise ValueError(f"the jobs were not accepted: {error}") from error
    logs = jobs[0].paths.folder
    console.print(f"{len(jobs)} jobs on {executor.cluster}, logs in {logs}")
    named = {job.job_id: options.directory(*pair).name for job, pair in zip(jobs, pairs, strict=True)}
    failed = []
    try:
        for number, job in enumerate(submitit.helpers.as_completed(jobs, poll_frequency=1), start=1):
            reason = job.result() if job.exception() is None else "it ended without a result"
            if reason is not None:
                failed.append(f"{named[job.job_id]} ({reason}; log {job.paths.stderr})")
            outcome = "finished" if reason is None else f"failed: {reason}"
            console.print(f"{number} of {len(jobs)}: {named[job.job_id]} {outcome}")
    except KeyboardInterrupt:
        for job in jobs:
            job.cancel(check=False)
        raise
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(jobs)} runs failed; the same command resumes them: {', '.join(failed)}"
        )


def _executor(options: BenchOptions, settings: Sequence[str]) -> submitit.AutoExecutor:
    parameters: dict[str, Any] = DEFAULTS | {"name": f"wm-{options.out.name}"}
    for text in settings:
        parameters |= parse_override(text, "--engine-set takes key=value")
    executor = submitit.AutoExecutor(folder=options.out / "jobs")
    try:
        executor.update_parameters(**parameters)
    except (NameError, AssertionError, ValueError, TypeError) as error:
        raise ValueError(f"submitit does not accept --engine-set: {error}") from error
    return executor
