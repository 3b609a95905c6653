"""Commands of a comparison as jobs of submitit: on this machine, or on a cluster with Slurm.

a job runs one command and ends with its exit code
one that Slurm takes back or requeues runs the same command again, which continues
one whose time is nearly over ends its command by a time budget, and is submitted again
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from typing import Any, TextIO

from ima.extras import need
from ima.training.processes import run

LAUNCHERS = ("local", "slurm")

MINUTES = 24 * 60
"""Of a job, where nobody says otherwise."""

MARGIN = 120
"""Seconds before a job's end in which its command should have ended, and saved."""

LOOK = 1.0
"""Seconds between two looks for the end of a job."""

ASK = 5.0
"""Seconds between two questions to Slurm."""

ABSENT = 60.0
"""Seconds for which a job is in no queue before it counts as gone."""

GRACE = 900.0
"""Seconds that a job waits for its end when Slurm takes it back."""

LOST = 1
"""Exit code of a job that is gone and left none."""


@dataclass(frozen=True)
class Job:
    """A command, as it is run on a node: variables of its own, and the file that it prints to."""

    command: Sequence[str]
    environ: Mapping[str, str]
    log: str

    def __call__(self) -> int:
        """Run it; its exit code. An exception, as of a signal, ends the command first."""
        # Fabric would count the tasks of the job, of which the command is one.
        env = {key: value for key, value in os.environ.items() if key != "SLURM_NTASKS"}
        with Path(self.log).open("a", encoding="utf-8") as log:
            halt, own = threading.Event(), {**env, **self.environ}
            code = run(self.command, stdout=log, env=own, halt=halt)
        if code == -signal.SIGTERM and "SLURM_JOB_ID" in os.environ:
            # Slurm takes the job back, and asks its processes first. Whoever ends now leaves a
            # result, and does not go on when it is queued again.
            sleep(GRACE)
        return code

    def checkpoint(self) -> Any:
        """What is to be run when the job is requeued: the same, which continues."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass
class Queue:
    """The jobs that Slurm knows of, asked for all threads together."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    ids: frozenset[str] = frozenset()
    asked: float = 0.0
    away: dict[str, float] = field(default_factory=dict[str, float])

    def lost(self, job: str, since: float) -> bool:
        """Whether a job, submitted then, has been away for longer than a requeue takes."""
        with self.lock:
            if monotonic() - self.asked > ASK:
                said = subprocess.run(
                    ["squeue", "--noheader", "--me", "--format=%A"], capture_output=True, text=True
                )
                # A controller that does not answer now has lost no job.
                if said.returncode == 0:
                    self.ids, self.asked = frozenset(said.stdout.split()), monotonic()
            if self.asked <= since or job in self.ids:
                self.away.pop(job, None)
                return False
            return self.asked - self.away.setdefault(job, self.asked) > ABSENT


@dataclass(frozen=True)
class Launcher:
    """Where commands run.

    kind: of `LAUNCHERS`; options: submitit's, such as `{"timeout_min": 240}`. limit: the seconds
    that a command may take in a job.
    """

    kind: str
    options: Mapping[str, Any]
    queue: Queue = field(default_factory=Queue)

    @property
    def limit(self) -> float:
        """Seconds that a command may take in a job, before it is to stop and be submitted again."""
        whole = 60.0 * float(self.options.get("timeout_min", MINUTES))
        return max(whole - MARGIN, whole / 2)

    @property
    def threads(self) -> int | None:
        """Cores of a job; None: this machine's are shared."""
        return int(self.options.get("cpus_per_task", 1)) if self.kind == "slurm" else None

    def __call__(
        self,
        command: Sequence[str],
        *,
        stdout: TextIO,
        env: Mapping[str, str],
        halt: threading.Event,
        over: Callable[[], bool] = lambda: False,
    ) -> int:
        """Run a command as a job; as `ima.training.processes.run` does."""
        log = Path(stdout.name).resolve()
        # The node has an environment of its own.
        own = {key: value for key, value in env.items() if os.environ.get(key) != value}
        folder = log.parent / "jobs"
        job = self._executor(folder).submit(Job(tuple(command), own, str(log)))
        begun = monotonic()
        gone = partial(self.queue.lost, job.job_id, begun) if self.kind == "slurm" else job.done
        while not (there := job.paths.result_pickle.exists()):
            if halt.is_set() or over():
                job.cancel(check=False)
                return LOST
            if gone():
                # What it left may come late on a file system of many machines.
                sleep(LOOK)
                there = job.paths.result_pickle.exists()
                break
            halt.wait(LOOK)
        if not there:
            stdout.write(f"job {job.job_id} is gone and left no result; see {folder}\n")
            return LOST
        if (error := job.exception()) is not None:
            stdout.write(f"job {job.job_id} failed: {error}\n")
            return LOST
        code = int(job.result())
        # Pickles, which a run's folder is to be without.
        shutil.rmtree(folder, ignore_errors=True)
        return code

    def _executor(self, folder: Path) -> Any:
        from submitit import AutoExecutor

        # Taken back as often as it may be: it goes on each time.
        more = {"slurm_max_num_timeout": 10**6} if self.kind == "slurm" else {}
        executor = AutoExecutor(folder, cluster=self.kind, **more)
        options = {"timeout_min": MINUTES, **self.options}
        if self.kind == "slurm":
            options = {"name": "ima", **options}
        executor.update_parameters(**options)
        return executor


def make_launcher(kind: str | None, options: Sequence[str] = ()) -> Launcher | None:
    """The launcher of this kind with options such as `timeout_min=240`; None for none.

    Raises ImportError where submitit is missing, ValueError for options that it does not take and
    where there is no Slurm.
    """
    if kind is None:
        if options:
            raise ValueError(f"--resources {options[0]} is for jobs; give --launcher too")
        return None
    need("slurm")
    if kind == "slurm" and not all(map(shutil.which, ("sbatch", "srun", "squeue"))):
        raise ValueError("there is no Slurm on this machine (no sbatch); leave --launcher out")
    found: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key or key in ("nodes", "tasks_per_node"):
            raise ValueError(
                f"--resources {option} is no option of a job of one task; expected such as "
                "timeout_min=240, gpus_per_node=1, cpus_per_task=4 or slurm_partition=NAME"
            )
        found[key] = int(value) if value.isdigit() else value
    launcher = Launcher(kind, found)
    with TemporaryDirectory() as folder:
        try:
            launcher._executor(Path(folder))
        except Exception as error:  # submitit raises what comes, down to AssertionError
            raise ValueError(f"--resources {' '.join(options)}: {error}") from error
    return launcher
