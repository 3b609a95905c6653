"""Runs as jobs: by submitit on this machine and on a real Slurm, taken back and queued again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from slurm import absent, ask, slurm
from test_cli import call, elsewhere

from ima.budget import OUT_OF_TIME, Budget, OutOfTime
from ima.training.children import Work, work_off
from ima.training.launch import MARGIN, Launcher, Queue, make_launcher
from ima.training.run import Run

__all__ = ["elsewhere"]

TINY = (
    "network.width=4",
    "train={epochs: 1, batch_size: 256}",
    "evaluate={attacks: [pgd-1], last_attacks: [], eps: [0.25], samples: 20}",
)
ONE = "compare=[{label: Plain, method: {name: standard}}]"
FOUR = (
    "compare=[{label: Plain, method: {name: standard}},"
    " {label: SAT, method: {name: sat, steps: 1}, sweep: {eps: [0.5, 1.0]}},"
    " {label: Long, method: {name: standard}, train: {epochs: 40}}]"
)


# --- What a launcher is told ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "resources", "told"),
    [
        (None, ["timeout_min=3"], "give --launcher too"),
        ("local", ["timeout_min"], "is no option of a job"),
        ("local", ["nodes=2"], "is no option of a job of one task"),
        ("local", ["partition=x"], "partition"),
        ("local", ["timeout_min=soon"], "timeout_min"),
    ],
)
def test_resources_that_no_job_has_are_refused(kind: Any, resources: list[str], told: str) -> None:
    if kind is not None:
        pytest.importorskip("submitit", reason="jobs need submitit, ima[slurm]")
    with pytest.raises(ValueError, match=told):
        make_launcher(kind, resources)


def test_without_slurm_it_is_said(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> None:
    pytest.importorskip("submitit", reason="jobs need submitit, ima[slurm]")
    monkeypatch.setenv("PATH", "")
    said = call("compare", "digits", *TINY, ONE, "--launcher", "slurm")
    assert said.code == 1 and "there is no Slurm on this machine" in said.err
    assert not (elsewhere / "runs").exists()


def test_without_submitit_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ima.extras.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'ima\[slurm\]'"):
        make_launcher("local")


def test_a_job_has_cores_and_a_time_of_its_own() -> None:
    launcher = Launcher("slurm", {"timeout_min": 60, "cpus_per_task": 3})
    assert (launcher.limit, launcher.threads) == (3600 - MARGIN, 3)
    assert Launcher("local", {"timeout_min": 2}).limit == 60  # half of what is too short
    assert Launcher("local", {}).threads is None


class Jobs(Launcher):
    """Jobs that end with these codes, one after the other."""

    def __init__(self, *codes: int) -> None:
        super().__init__("slurm", {"timeout_min": 60})
        object.__setattr__(self, "codes", list(codes))
        object.__setattr__(self, "ran", [])

    def __call__(self, command: Sequence[str], **_: Any) -> int:
        self.ran.append(command[-1])  # type: ignore[attr-defined]
        return self.codes.pop(0)  # type: ignore[attr-defined]


def do(jobs: Jobs, folder: Path, budget: Budget | None) -> list[str]:
    work = Work("run", ("train", "--resume", "run"), folder / "train.log")
    work_off([[work]], jobs=1, environ={}, budget=budget, report=lambda *_: None, launcher=jobs)
    return jobs.ran  # type: ignore[attr-defined]


def test_a_job_whose_time_is_up_goes_on_in_another(tmp_path: Path) -> None:
    assert do(Jobs(OUT_OF_TIME, OUT_OF_TIME, 0), tmp_path, None) == [f"{3600 - MARGIN}s"] * 3
    # The time of the command itself goes before.
    assert do(Jobs(0), tmp_path, Budget(100)) in (["99s"], ["100s"])
    spent = Budget(0.5)
    with pytest.raises(OutOfTime):
        do(Jobs(OUT_OF_TIME, 0), tmp_path, spent)
    with pytest.raises(RuntimeError, match="run failed"):
        do(Jobs(OUT_OF_TIME, 1), tmp_path, None)


def test_a_job_counts_as_gone_when_slurm_has_not_known_it_for_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, answers = [100.0], [(0, "7 8"), (1, ""), (0, "8"), (0, "7"), *[(0, "8")] * 3]

    def ask_slurm(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], *answers.pop(0))

    monkeypatch.setattr("ima.training.launch.monotonic", lambda: now[0])
    monkeypatch.setattr("ima.training.launch.subprocess.run", ask_slurm)
    queue, lost = Queue(), list[bool]()
    for _ in range(7):
        now[0] += 40
        lost.append(queue.lost("7", 100))
    # Known; no answer; away, as while it is queued again; known; away for three looks.
    assert lost == [*[False] * 6, True]
    assert not queue.lost("8", 100) and not answers


# --- Jobs -----------------------------------------------------------------------------------------


def test_a_comparison_by_jobs_on_this_machine(elsewhere: Path) -> None:
    pytest.importorskip("submitit", reason="jobs need submitit, ima[slurm]")
    said = call("compare", "digits", *TINY, ONE, "--launcher", "local", "--device", "cpu")
    assert said.code == 0, said.err
    run = elsewhere / "runs" / "digits" / "standard" / "seed0"
    assert len(Run.open(run).epochs()) == 1 and (run / "evaluation" / "best.csv").is_file()
    # Pickles are gone with the jobs.
    assert not list(elsewhere.rglob("*.pkl"))
    assert (elsewhere / "runs" / "digits" / "table.md").is_file()


def test_a_job_that_fails_leaves_its_last_lines(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="jobs need submitit, ima[slurm]")
    launcher = make_launcher("local")
    assert launcher is not None
    with (tmp_path / "a.log").open("w") as log:
        script = "import sys; print('out of luck'); sys.exit(3)"
        code = launcher(
            [sys.executable, "-c", script], stdout=log, env=dict(os.environ), halt=threading.Event()
        )
    assert code == 3
    assert "out of luck" in (tmp_path / "a.log").read_text()


def wait(process: subprocess.Popen[bytes], true: Callable[[], bool], said: Path) -> None:
    end = time.monotonic() + 200
    while not true():
        assert process.poll() is None and time.monotonic() < end, said.read_text()
        time.sleep(0.1)


@pytest.mark.skipif(bool(absent()), reason=absent() or "there is a Slurm")
def test_four_runs_on_slurm_of_which_one_is_queued_again(elsewhere: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="jobs need submitit, ima[slurm]")
    folder = elsewhere / "runs" / "digits"
    said = tmp_path / "said.txt"
    with slurm(tmp_path / "slurm") as environ, said.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ima", "compare", "digits", *TINY, FOUR, "--launcher", "slurm",
             "--device", "cpu", "--resources", "timeout_min=30", "slurm_partition=main"],
            cwd=elsewhere, stdout=out, stderr=subprocess.STDOUT,
            env={**os.environ, **environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        try:
            run = Run(folder / "standard-train.epochs=40" / "seed0")
            wait(process, lambda: len(run.epochs()) > 1, said)
            (submitted,) = (run.folder / "jobs").glob("*_submitted.pkl")
            job = submitted.name.partition("_")[0]
            ask(["scontrol", "requeue", job], environ)
            shown = ["scontrol", "show", "job", job]
            wait(process, lambda: "Restarts=1" in ask(shown, environ), said)
            before = len(run.epochs())
            assert before < 40
            process.wait(250)
        finally:
            process.terminate()
    assert process.returncode == 0, said.read_text()
    # Four jobs that trained, four that tested; the long one went on where it was.
    assert (
        re.findall(r"^\[\d/\d\]", said.read_text(), re.MULTILINE)
        == [f"[{n}/4]" for n in range(1, 5)] * 2
    )
    assert [row["epoch"] for row in run.epochs()] == [*range(40)]
    log = (run.folder / "train.log").read_text()
    assert len(re.findall(r"^epoch +1/40", log, re.MULTILINE)) == 1
    assert len(re.findall(r"^standard on digits", log, re.MULTILINE)) == 2
    for one in sorted(folder.glob("*/seed0")):
        assert (one / "evaluation" / "best.csv").is_file(), one
        assert not (one / "jobs").exists()
    table = (folder / "table-best.csv").read_text()
    assert [line.partition(",")[0] for line in table.splitlines()[1:]] == [
        "Plain", "SAT (eps 0.5)", "SAT (eps 1)", "Long",
    ]  # fmt: skip
