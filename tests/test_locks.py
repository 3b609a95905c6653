"""One process writes into a run's folder, and none goes on behind the back of who started it."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import assert_refused, call
from test_compare import QUIET, Commands, silent
from test_training import assert_equal_runs, names, train
from torch import nn

import ima.training.children as children
import ima.training.processes as processes
from ima.networks.small_cnn import small_cnn
from ima.training.children import Work, work_off
from ima.training.compare import make_runs, plan_runs
from ima.training.config import load_config
from ima.training.lock import Lock
from ima.training.processes import ending_workers
from ima.training.run import Run

RECIPE = (
    f"network={{name: '{__name__}:pausing'}}",
    "train={epochs: 2, batch_size: 256}",
    "evaluate={attacks: [pgd-1], eps: [0.5], samples: 50}",
    "compare=[{label: A, method: {name: standard}}]",
)
PAUSE = "TEST_LOCKS_PAUSE"
"""Names the file that a training makes in the middle of its second epoch, to stand still then."""


def pausing(channels: int, num_classes: int) -> nn.Module:
    """A network that stands still in the middle of its second epoch, where `PAUSE` says so."""
    # A comparison's runs share all cores, and other sums of rounding are other runs.
    torch.set_num_threads(1)
    model, seen = small_cnn(channels, num_classes, width=4), list[None]()

    def look(module: nn.Module, inputs: Any) -> None:
        seen.extend([None] * module.training)
        if len(seen) == 6 and PAUSE in os.environ:
            Path(os.environ[PAUSE]).touch()
            time.sleep(120)

    model.register_forward_pre_hook(look)
    return model


@contextmanager
def started(folder: Path, *words: str) -> Generator[subprocess.Popen[str]]:
    """A command whose training has come to the middle of its second epoch."""
    there, found = folder / "paused", os.environ.get("PYTHONPATH", "")
    process = subprocess.Popen(
        [sys.executable, "-m", "ima", *words, "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), found]),
            PAUSE: str(there),
        },
    )
    try:
        for _ in range(1200):
            if there.exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        assert there.exists(), process.communicate()
        yield process
    finally:
        # Its children too, where it has ended without them.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def holder(run: Run) -> int:
    """The process that says that it trains the run."""
    found = re.match(r"process (\d+) on ", (run.folder / "train.lock").read_text())
    assert found
    return int(found[1])


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    """The commands of a comparison in this process."""
    found = Commands()
    monkeypatch.setattr(children, "run", found.run)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of the recipe that nothing disturbed."""
    made = plan_runs(load_config("digits", RECIPE), [0], tmp_path_factory.mktemp("whole"))
    return train(made[0].candidates[0].runs[0])


# --- A parent that ends ends its children ---------------------------------------------------------


def test_a_terminated_comparison_leaves_no_training_behind_and_continues(
    tmp_path: Path, whole: Run, commands: Commands
) -> None:
    out = tmp_path / "out"
    with started(tmp_path, "compare", "digits", *RECIPE, "--out", str(out)) as process:
        run = Run.open(out / "standard" / "seed0")
        trainer = holder(run)
        assert alive(trainer) and trainer != process.pid
        process.terminate()
        said, _ = process.communicate(timeout=8)
    assert process.returncode == 128 + signal.SIGTERM
    assert said == ""
    assert not alive(trainer)
    assert len(run.epochs()) == 1
    make_runs(plan_runs(load_config("digits", RECIPE), [0], out), **QUIET)
    assert [what for what, _ in commands.ran] == ["train", "evaluate"]
    assert_equal_runs(whole, run)
    assert names(run.folder) == names(whole.folder) | {"train.log", "evaluate.log"}


def test_a_comparison_that_is_killed_outright_leaves_no_training_behind_and_continues(
    tmp_path: Path, whole: Run, commands: Commands
) -> None:
    out = tmp_path / "out"
    with started(tmp_path, "compare", "digits", *RECIPE, "--out", str(out)) as process:
        run = Run.open(out / "standard" / "seed0")
        trainer = holder(run)
        process.kill()
        process.wait()
        for _ in range(200):
            if not alive(trainer):
                break
            time.sleep(0.05)
        assert not alive(trainer)
    assert len(run.epochs()) == 1
    make_runs(plan_runs(load_config("digits", RECIPE), [0], out), **QUIET)
    assert_equal_runs(whole, run)


def works(folder: Path, count: int = 1) -> list[Work]:
    """Commands on so many runs."""
    config = load_config("digits", RECIPE)
    runs = [Run.create(folder / f"run{number}", config) for number in range(count)]
    return [
        Work(str(run.folder), ("train", "--resume", str(run.folder)), run.folder / "train.log")
        for run in runs
    ]


def work(items: list[Work]) -> None:
    work_off([[item] for item in items], jobs=1, environ=os.environ, budget=None, report=silent)


@pytest.fixture
def handled() -> Generator[Callable[[int, Any], None]]:
    """Sets what signals do, for the time of a test."""
    before: dict[int, Any] = {}

    def handle(number: int, what: Any) -> None:
        before.setdefault(number, signal.signal(number, what))

    yield handle
    for number, what in before.items():
        signal.signal(number, what)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_what_runs_and_starts_nothing_more(
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    handled: Callable[[int, Any], None],
) -> None:
    ended: list[bool] = []

    def run(command: list[str], *, halt: threading.Event, **options: Any) -> int:
        os.kill(os.getpid(), number)
        ended.append(halt.wait(20))
        return -number

    monkeypatch.setattr(children, "run", run)
    expected, code = SystemExit, 128 + number
    if number is signal.SIGINT:
        expected, code = KeyboardInterrupt, None
        handled(number, signal.default_int_handler)
    else:
        handled(number, signal.SIG_DFL)
    before, threads = signal.getsignal(number), set(threading.enumerate())
    with pytest.raises(expected) as caught:
        work(works(tmp_path, 2))
    assert getattr(caught.value, "code", None) == code
    assert set(threading.enumerate()) == threads
    assert ended == [True]
    assert signal.getsignal(number) is before


def test_a_signal_that_another_thread_is_given_ends_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handled: Callable[[int, Any], None]
) -> None:
    ended: list[bool] = []

    def run(command: list[str], *, halt: threading.Event, **options: Any) -> int:
        # The wait of the main thread is not interrupted by it.
        time.sleep(0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        ended.append(halt.wait(20))
        return -signal.SIGTERM

    monkeypatch.setattr(children, "run", run)
    handled(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(SystemExit):
        work(works(tmp_path, 2))
    assert ended == [True]


def test_signals_that_somebody_else_handles_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handled: Callable[[int, Any], None]
) -> None:
    def run(command: list[str], **options: Any) -> int:
        found.append([signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)])
        return 0

    def own(number: int, frame: object) -> None:
        """A handler of the program that compares."""

    found: list[list[Any]] = []
    monkeypatch.setattr(children, "run", run)
    handled(signal.SIGTERM, own)
    handled(signal.SIGHUP, signal.SIG_IGN)  # As nohup starts a command.
    work(works(tmp_path))
    assert found == [[own, signal.SIG_IGN]]


def test_commands_are_run_from_a_thread_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handled: Callable[[int, Any], None]
) -> None:
    def run(command: list[str], **options: Any) -> int:
        found.append(signal.getsignal(signal.SIGTERM))
        return 0

    found: list[Any] = []
    monkeypatch.setattr(children, "run", run)
    handled(signal.SIGTERM, signal.SIG_DFL)
    thread = threading.Thread(target=work, args=(works(tmp_path),))
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


def test_a_command_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.3)
    script = (
        "import signal, sys, time, pathlib\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(120)\n"
    )
    halt, ready = threading.Event(), tmp_path / "ready"

    def stop() -> None:
        while not ready.exists():
            time.sleep(0.02)
        halt.set()

    thread = threading.Thread(target=stop)
    thread.start()
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-c", script, str(ready)]
        assert children.run(command, stdout=log, env=os.environ, halt=halt) == -signal.SIGKILL
    thread.join()


# --- One writer a folder --------------------------------------------------------------------------


def test_a_run_that_is_trained_is_refused_until_its_trainer_is_dead(
    tmp_path: Path, whole: Run, commands: Commands
) -> None:
    plans = plan_runs(load_config("digits", RECIPE), [0], tmp_path)
    run = plans[0].candidates[0].runs[0]
    again = ("train", "--resume", str(run.folder), "--trust", "--device", "cpu")
    with started(tmp_path, *again[:-2]) as process:
        before = names(run.folder)
        told = [f"`ima train` already writes to {run.folder}", f"process {process.pid} on ", "wait"]
        assert_refused(call(*again), told)
        with pytest.raises(RuntimeError, match=rf"failed[\s\S]*process {process.pid} on "):
            make_runs(plans, **QUIET)
        assert names(run.folder) - before == {"train.log"}
        process.kill()
        process.wait()
        assert (run.folder / "train.lock").exists()
    assert call(*again).code == 0
    assert_equal_runs(whole, run)
    assert names(run.folder) == names(whole.folder) | {"train.log"}


def test_a_new_run_is_locked_as_soon_as_it_has_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def second(run: Run, flipped: Any) -> None:
        with pytest.raises(RuntimeError, match="already writes to"):
            train(Run.open(run.folder, trust=True))
        refused.append(True)

    refused: list[bool] = []
    monkeypatch.setattr(Run, "write_flipped", second)
    run = Run.planned(tmp_path / "run", load_config("digits", [*RECIPE, "train.epochs=1"]))
    train(run)
    assert refused == [True]
    assert "train.lock" not in names(run.folder)


def test_evaluations_exclude_each_other_and_no_training(tmp_path: Path, whole: Run) -> None:
    again = ("evaluate", str(whole.folder), "--trust", "--checkpoint", "last", "--device", "cpu")
    with Lock(whole.folder, "evaluate"):
        assert_refused(call(*again), [f"`ima evaluate` already writes to {whole.folder}"])
        assert not whole.results("last").exists()
        assert call("train", "--resume", str(whole.folder), "--trust", "--device", "cpu").code == 0
    with Lock(whole.folder, "train"):
        said = call(*again)
    assert (said.code, said.err) == (0, "")
    assert whole.results("last").exists()
    assert not list(whole.folder.glob("*.lock"))


def test_a_file_that_was_left_behind_locks_nothing(tmp_path: Path) -> None:
    (tmp_path / "train.lock").write_text("process 1 on a host with a name that is long\n")
    with Lock(tmp_path, "train") as lock:
        assert lock.path.read_text().startswith(f"process {os.getpid()} on ")
        assert "that is long" not in lock.path.read_text()
    assert not lock.path.exists()


def test_a_lock_that_is_let_go_while_another_waits_on_its_file_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, times = fcntl.flock, list[int]()

    def late(file: Any, operation: int) -> None:
        if not times:
            (tmp_path / "train.lock").unlink()
        times.append(operation)
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with Lock(tmp_path, "train"):
        assert len(times) == 2
        with pytest.raises(RuntimeError, match=f"as process {os.getpid()} on "):
            Lock(tmp_path, "train").take()


def test_a_file_system_without_locks_is_written_to_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Any, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Lock(tmp_path, "train"):
        assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_written_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "train.lock").mkdir()
    with pytest.raises(IsADirectoryError, match=rf"^{tmp_path} cannot be written \(Is a directory"):
        Lock(tmp_path, "train").take()
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(NotADirectoryError, match="file is in the way"):
        Lock(tmp_path / "taken" / "run", "train").take()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_workers_of_a_command_in_this_process_end_with_it(
    number: signal.Signals, tmp_path: Path
) -> None:
    # As nnU-Net's data loaders, which nothing else would end.
    script = (
        "import multiprocessing, os, sys, time\n"
        "from pathlib import Path\n"
        "from ima.training.processes import ending_workers\n"
        "worker = multiprocessing.get_context('fork').Process(\n"
        "    target=time.sleep, args=(120,), daemon=True)\n"
        "with ending_workers():\n"
        "    worker.start()\n"
        "    Path(sys.argv[1]).write_text(str(worker.pid))\n"
        "    time.sleep(120)\n"
    )
    file = tmp_path / "worker"
    with subprocess.Popen([sys.executable, "-c", script, file]) as process:
        while not file.exists() or not file.read_text():
            time.sleep(0.02)
        process.send_signal(number)
        assert process.wait(60) == -number
    worker = int(file.read_text())
    state = Path(f"/proc/{worker}/stat")
    for _ in range(100):
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        os.kill(worker, signal.SIGKILL)
        raise AssertionError


def test_workers_forked_within_a_command_mind_signals_as_usual() -> None:
    # A pool ends its workers by SIGTERM; a handler in Python might not come to run in them.
    def usual(told: Any) -> None:
        told.put([signal.getsignal(n) is signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGHUP)])

    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    with ending_workers():
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        worker = context.Process(target=usual, args=(told,))
        worker.start()
        assert told.get() == [True, True]
        worker.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
