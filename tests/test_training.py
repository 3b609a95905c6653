"""The loop: every method trains, a stopped run continues to the bit, the test part is not seen."""

from __future__ import annotations

import inspect
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import load_weights
from subjects import evaluate_run
from torch import Tensor, nn

import ima.training.loop as loop
import ima.training.state as state
from ima import Results, pgd
from ima.budget import OUT_OF_TIME, Budget, OutOfTime
from ima.data import DATASETS, Part, Splits, load
from ima.methods import METHODS, SAT
from ima.networks.small_cnn import small_cnn
from ima.training.batches import batches
from ima.training.build import build_model, learning_rate
from ima.training.checkpoint import load_state, save_state, save_weights
from ima.training.config import load_config
from ima.training.loop import fit
from ima.training.measuring import measure_margins
from ima.training.pace import Pace
from ima.training.picking import picked
from ima.training.run import Run
from ima.training.samples import same_samples, trace
from ima.training.settings import Optimizer
from ima.training.state import Best

OPTIONS = {"eps": 1.0, "delta": 0.3, "steps": 3}
"""Of every method that takes them."""


def taken(name: str) -> Any:
    """The options that a method takes."""
    return inspect.signature(METHODS[name].method).parameters


def chosen(name: str, **options: float) -> str:
    """A method's override, with the options that it takes."""
    values = {k: v for k, v in OPTIONS.items() if k in taken(name)} | options
    return f"method={json.dumps({'name': name, **values})}"


def new(folder: Path, *overrides: str, method: str = "ima", epochs: int = 2) -> Run:
    """A run folder of a small network on the digits, and nothing trained yet."""
    tiny = [
        "network.width=4",
        "optimizer={lr: 0.01}",
        f"train.epochs={epochs}",
        "train.batch_size=256",
        "evaluate.attacks=[pgd-3]",
        chosen(method),
    ]
    return Run.create(folder, load_config("digits", [*tiny, *overrides]))


class Watch:
    """Counts, and stops the run after an epoch, or after a batch of one."""

    def __init__(self, *, after: int | None = None, amid: tuple[int, int] | None = None) -> None:
        self.after, self.amid = after, amid
        self.epochs: list[int] = []
        self.batches: list[tuple[int, int, int]] = []

    def batch(self, epoch: int, done: int, total: int, sums: Mapping[str, Tensor]) -> None:
        self.batches.append((epoch, done, total))
        if (epoch, done) == self.amid:
            raise KeyboardInterrupt

    def epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        self.epochs.append(epoch)
        if epoch == self.after:
            raise KeyboardInterrupt


def train(run: Run, *, watcher: Watch | None = None, init: Path | None = None) -> Run:
    fit(run, watcher=Watch() if watcher is None else watcher, init=init, device="cpu")
    return run


def same(left: Any, right: Any) -> bool:
    """Whether two trees are equal to the bit."""
    if isinstance(left, Tensor):
        return left.dtype == right.dtype and left.shape == right.shape and torch.equal(left, right)
    if isinstance(left, Mapping):
        return left.keys() == right.keys() and all(same(v, right[k]) for k, v in left.items())
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def untimed(run: Run) -> list[dict[str, float]]:
    """The rows of metrics.csv, without the times that they took."""
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in run.epochs()]


def assert_equal_runs(left: Run, right: Run) -> None:
    """Weights, margins, optimiser, noise, tables and picked epoch are the same to the bit."""
    ours, theirs = load_state(left.state), load_state(right.state)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert same(value, theirs[key]), f"{key} differs"
    assert untimed(left) == untimed(right)
    assert left.margins.exists() == right.margins.exists()
    if left.margins.exists():
        assert left.margins.read_text() == right.margins.read_text()
    for which in ("best", "last"):
        assert same(load_weights(left.weights(which)), load_weights(right.weights(which))), which


def given_data(splits: Splits) -> Callable[..., Splits]:
    """A loader that gives these splits, whatever it is asked for."""

    def load_given(path: str | None = None, *, size: int | None = None, seed: int = 0) -> Splits:
        return splits

    return load_given


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


# --- Every method ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_and_leaves_what_a_run_folder_promises(
    name: str, tmp_path: Path
) -> None:
    # Noise that a network of a few epochs can bear.
    gentle = chosen(name, **({"eps": 0.3} if "eps" in taken(name) else {}))
    run, watcher = new(tmp_path / "run", gentle, "train.batch_size=64", method=name), Watch()
    train(run, watcher=watcher)
    rows = run.epochs()
    assert [row["epoch"] for row in rows] == [0, 1] == watcher.epochs
    assert watcher.batches == [(epoch, done, 15) for epoch in (0, 1) for done in range(1, 16)]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["train_accuracy"] > 0.2
    for row in rows:
        assert row["val_score"] == math.sqrt(row["val_accuracy"] * row["val_pgd"])
        assert 0 <= row["val_pgd"] <= row["val_accuracy"] <= 1
        assert row["lr"] == 0.01
    expected = {
        "config.yaml",
        "environment.json",
        "metrics.csv",
        "best.safetensors",
        "last.safetensors",
        "state.safetensors",
    }
    with_margins = "num_samples" in taken(name)
    assert names(run.folder) == expected | ({"margins.csv"} if with_margins else set())
    assert Run.open(run.folder).config() == run.config()


def test_the_histogram_of_margins_counts_every_training_sample(tmp_path: Path) -> None:
    run = train(new(tmp_path / "run", epochs=2))
    samples, other = len(load("digits").train), ("epoch", "cap", "median")
    for row in run.read_margins():
        counts = [value for name, value in row.items() if name not in other]
        assert sum(counts) == samples
        assert row["cap"] == OPTIONS["eps"]
    margins = load_state(run.state)["method"]["margins"]["values"]
    assert margins.shape == (samples,)
    assert float(margins.min()) >= 0
    assert float(margins.max()) <= OPTIONS["eps"]
    assert run.read_margins()[-1]["median"] == float(np.median(margins))
    mean = float((margins.double()).mean())
    edges = [float(name) for name in run.read_margins()[-1] if name not in other]
    counts = [v for k, v in run.read_margins()[-1].items() if k not in other]
    assert sum(c * e for c, e in zip(counts, edges, strict=True)) / samples == pytest.approx(
        mean, abs=OPTIONS["eps"] / len(edges)
    )


def test_the_same_config_gives_the_same_run_and_another_seed_another(tmp_path: Path) -> None:
    first = train(new(tmp_path / "a", epochs=1))
    torch.manual_seed(99)
    torch.rand(5)
    assert_equal_runs(first, train(new(tmp_path / "b", epochs=1)))
    other = train(new(tmp_path / "c", "train.seed=1", epochs=1))
    assert not same(load_weights(first.weights("last")), load_weights(other.weights("last")))


# --- A stopped run continues ----------------------------------------------------------------------


def dropping(channels: int, num_classes: int) -> nn.Module:
    """A network with noise of its own and with running statistics."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
        nn.Linear(36, num_classes),
    )


VARIANTS: dict[str, tuple[str, list[str]]] = {
    **{name: (name, []) for name in METHODS},
    "ima, everything on": (
        "ima",
        [
            chosen("ima", random_start=0.5),
            "optimizer={name: sgd, lr: 0.05, schedule: cosine, weight_decay: 0.001}",
            "train.ema=0.9",
            "train.standard_epochs=1",
        ],
    ),
    "ima, warming beyond the stop": ("ima", ["train.standard_epochs=3"]),
    "ima, dropout and batch statistics": ("ima", [f"network={{name: '{__name__}:dropping'}}"]),
    "sat, adamw, steps, Linf": (
        "sat",
        ["norm=inf", "optimizer={name: adamw, schedule: steps, milestones: [1, 3]}"],
    ),
    "ima, bf16": ("ima", ["train.precision=bf16-mixed"]),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stopped_run_continues_to_the_bit(variant: str, tmp_path: Path) -> None:
    method, overrides = VARIANTS[variant]
    whole = train(new(tmp_path / "whole", *overrides, method=method, epochs=4))

    stopped = new(tmp_path / "stopped", *overrides, method=method, epochs=4)
    for watcher in (Watch(after=1), Watch(amid=(2, 3))):
        with pytest.raises(KeyboardInterrupt):
            train(stopped, watcher=watcher)
        torch.rand(7)
        rest = Watch()
        assert len(stopped.epochs()) == 2
    train(Run.open(stopped.folder, trust=True), watcher=rest)
    assert rest.epochs == [2, 3]
    assert_equal_runs(whole, stopped)


def test_a_run_stopped_before_its_first_epoch_ends_continues_to_the_bit(tmp_path: Path) -> None:
    whole = train(new(tmp_path / "whole"))
    stopped = new(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        train(stopped, watcher=Watch(amid=(0, 2)))
    assert_equal_runs(whole, train(Run.open(stopped.folder, trust=True)))


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    run = train(new(tmp_path / "run"))
    before = {path: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}
    watcher = Watch()
    train(Run.open(run.folder, trust=True), watcher=watcher)
    assert watcher.epochs == []
    assert before == {path: path.read_bytes() for path in run.folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("broken", ["save_weights", "save_state"])
def test_an_epoch_that_could_not_be_written_is_done_again(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(new(tmp_path / "whole", epochs=3))
    stopped = new(tmp_path / "stopped", epochs=3)
    where = {"save_weights": loop, "save_state": state}[broken]
    original: Callable[..., None] = getattr(where, broken)

    def full(path: Path, state: Mapping[str, Any], **said: Any) -> None:
        if len(stopped.epochs()) >= (1 if broken == "save_weights" else 2):
            raise OSError(28, "No space left on device")
        original(path, state, **said)

    with monkeypatch.context() as patch:
        patch.setattr(where, broken, full)
        with pytest.raises(OSError, match="No space"):
            train(stopped)
    assert_equal_runs(whole, train(Run.open(stopped.folder, trust=True)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_files_are_written_waits_until_they_are_whole(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(new(tmp_path / "whole"))
    stopped = new(tmp_path / "stopped")
    original = state.save_state

    def interrupted(path: Path, state: Mapping[str, Any]) -> None:
        signal.raise_signal(number)
        original(path, state)

    def asked(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, asked)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(state, "save_state", interrupted)
            with pytest.raises(KeyboardInterrupt):
                train(stopped)
        assert signal.getsignal(number) is asked
    finally:
        signal.signal(number, before)
    assert load_state(stopped.state)["epoch"] == 0
    assert_equal_runs(whole, train(Run.open(stopped.folder, trust=True)))


def test_a_run_trains_in_a_thread_too(tmp_path: Path) -> None:
    run = new(tmp_path / "thread", epochs=1)
    thread = threading.Thread(target=train, args=(run,))
    thread.start()
    thread.join()
    assert_equal_runs(train(new(tmp_path / "main", epochs=1)), run)


def test_a_killed_process_leaves_whole_files(tmp_path: Path) -> None:
    run = new(tmp_path / "killed", epochs=2000)
    command = [sys.executable, "-m", "ima", "train", "--resume", str(run.folder), "--device", "cpu"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0, errors
    assert "Traceback" not in errors
    done = int(load_state(run.state)["epoch"]) + 1
    assert 1 <= done < 2000
    assert len(run.epochs()) in (done, done + 1)
    assert not [name for name in names(run.folder) if name.endswith(".part")]
    for which in ("best", "last"):
        load_weights(run.weights(which))
    with pytest.raises(KeyboardInterrupt):
        train(Run.open(run.folder, trust=True), watcher=Watch(after=done))
    whole = new(tmp_path / "whole", epochs=2000)
    with pytest.raises(KeyboardInterrupt):
        train(whole, watcher=Watch(after=done))
    assert_equal_runs(whole, run)


def test_a_run_continues_on_the_data_that_it_was_trained_on_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, watcher=Watch(after=0))
    full = load("digits")
    fewer = replace(full, train=Part(full.train.images[:500], full.train.targets[:500]))
    monkeypatch.setitem(DATASETS, "digits", replace(DATASETS["digits"], load=given_data(fewer)))
    with pytest.raises(ValueError, match="897"):
        train(Run.open(run.folder, trust=True))


# --- A time budget --------------------------------------------------------------------------------


class Batches(Budget):
    """A budget of 100 seconds that are gone after so many batches; no clock runs."""

    def __init__(self, batches: int) -> None:
        super().__init__(100.0)
        self.batches = batches

    def left(self) -> float:
        return 100.0 if self.batches > 0 else 0.0


class Spend(Watch):
    """Uses up a budget."""

    def __init__(self, budget: Batches) -> None:
        super().__init__()
        self.budget = budget

    def batch(self, epoch: int, done: int, total: int, sums: Mapping[str, Tensor]) -> None:
        super().batch(epoch, done, total, sums)
        self.budget.batches -= 1


def within(folder: Path, batches: int) -> list[tuple[int, int, int]]:
    """Train the run of a folder for so many batches; those that it did."""
    budget = Batches(batches)
    watcher = Spend(budget)
    fit(Run.open(folder, trust=True), watcher=watcher, device="cpu", budget=budget)
    return watcher.batches


ALL_ON = [
    f"network={{name: '{__name__}:dropping'}}",
    "optimizer={name: sgd, lr: 0.05, schedule: cosine, momentum: 0.9}",
    "train.ema=0.9",
    "data.augment=[crop, flip]",
]
"""Batch statistics, dropout, momentum, averaged weights and augmentation."""

AMID: dict[str, tuple[str, list[str]]] = {
    **{name: (name, ALL_ON) for name in METHODS},
    "ima, released": (
        "ima",
        [*ALL_ON, f"method={json.dumps({'name': 'ima', **OPTIONS, 'variant': 'released'})}"],
    ),
    "sat, warming": ("sat", [*ALL_ON, "train.standard_epochs=1"]),
    "ima, adam, bf16": ("ima", ["train.precision=bf16-mixed"]),
}


@pytest.mark.parametrize("variant", AMID)
def test_a_run_stopped_for_time_within_an_epoch_continues_to_the_bit(
    variant: str, tmp_path: Path
) -> None:
    method, overrides = AMID[variant]
    whole = train(new(tmp_path / "whole", *overrides, method=method, epochs=3))
    stopped = new(tmp_path / "stopped", *overrides, method=method, epochs=3)
    done: list[tuple[int, int, int]] = []
    for number in (1, 2, 6):  # Within an epoch, twice; then over an epoch's end into the third.
        with pytest.raises(OutOfTime, match=r"ima train --resume .*stopped"):
            within(stopped.folder, number)
        kept = load_state(stopped.state)
        torch.rand(5)
        done.append((kept["epoch"], kept["amid"][0]["batches"], len(stopped.epochs())))
    assert done == [(-1, 1, 0), (-1, 3, 0), (1, 1, 2)]
    assert within(stopped.folder, 100) == [(2, number, 4) for number in (2, 3, 4)]
    assert_equal_runs(whole, stopped)


def test_every_batch_is_trained_once_whatever_the_budgets(tmp_path: Path) -> None:
    run = new(tmp_path / "run", "train.batch_size=128", epochs=2)
    seen: list[tuple[int, int, int]] = []
    for number in (3, 1, 4, 1, 5, 9, 2):
        budget = Batches(number)
        watcher = Spend(budget)
        try:
            fit(Run.open(run.folder, trust=True), watcher=watcher, device="cpu", budget=budget)
        except OutOfTime:
            assert len(watcher.batches) == number
        seen += watcher.batches
    assert seen == [(epoch, done, 8) for epoch in (0, 1) for done in range(1, 9)]
    assert_equal_runs(train(new(tmp_path / "whole", "train.batch_size=128", epochs=2)), run)


def test_the_seconds_of_an_epoch_are_those_of_its_parts(tmp_path: Path) -> None:
    run = new(tmp_path / "run", method="standard", epochs=1)
    with pytest.raises(OutOfTime):
        within(run.folder, 2)
    state_ = load_state(run.state)
    first = state_["amid"][0]["seconds"]
    assert first > 0
    state_["amid"][0]["seconds"] = first + 1000.0
    save_state(run.state, state_)
    within(run.folder, 100)
    assert run.epochs()[0]["seconds"] > first + 1000.0


def test_a_budget_that_is_over_at_once_trains_a_batch(tmp_path: Path) -> None:
    run = new(tmp_path / "run")
    with pytest.raises(OutOfTime, match=r"epoch 1 of 2, after 1 of 4 batches \(0 s are left"):
        within(run.folder, 0)
    assert load_state(run.state)["amid"][0]["batches"] == 1
    with pytest.raises(OutOfTime, match="after 2 of 4"):
        within(run.folder, 0)


def test_a_budget_that_is_long_enough_changes_nothing(tmp_path: Path) -> None:
    run = new(tmp_path / "run", method="sat")
    within(run.folder, 100)
    assert_equal_runs(train(new(tmp_path / "free", method="sat")), run)


def test_a_validation_that_does_not_fit_is_left_to_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(new(tmp_path / "whole"))
    run = new(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Pace, "validation_fits", lambda _: False)
        for _ in range(2):
            with pytest.raises(OutOfTime, match="after 4 of 4 batches"):
                within(run.folder, 100)
            assert run.epochs() == []
    assert within(run.folder, 100) == [(1, number, 4) for number in (1, 2, 3, 4)]
    assert_equal_runs(whole, run)


def test_a_first_validation_that_takes_too_long_is_given_up_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new(tmp_path / "run", epochs=1)
    original = loop.validate_epoch

    def slow(fabric: Any, model: Any, part: Any, config: Any, budget: Any) -> Any:
        budget.batches = 0
        return original(fabric, model, part, config, budget)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate_epoch", slow)
        with pytest.raises(OutOfTime, match=r"validation needs more.*comes first .*--resume"):
            within(run.folder, 100)
    assert load_state(run.state)["amid"][0]["batches"] == 4
    assert within(run.folder, 100) == []
    assert_equal_runs(train(new(tmp_path / "whole", epochs=1)), run)


def test_states_from_before_runs_could_stop_within_an_epoch_continue(tmp_path: Path) -> None:
    run = new(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, watcher=Watch(after=0))
    old = load_state(run.state)
    del old["amid"]
    save_state(run.state, old)
    assert_equal_runs(train(new(tmp_path / "whole")), train(Run.open(run.folder, trust=True)))


def test_an_epoch_under_way_needs_as_many_processes_as_it_had(tmp_path: Path) -> None:
    run = new(tmp_path / "run")
    with pytest.raises(OutOfTime):
        within(run.folder, 2)
    kept = load_state(run.state)
    kept["amid"] *= 2
    save_state(run.state, kept)
    with pytest.raises(ValueError, match=r"with 2 processes, and continues with 1.*--devices 2"):
        within(run.folder, 100)


class Left(Budget):
    """A budget of 100 seconds, so many of which are left."""

    def __init__(self, left: float) -> None:
        super().__init__(100.0)
        self.rest, self.worked = left, True

    def left(self) -> float:
        return self.rest


def test_what_fits_is_judged_by_the_slowest_batch_twice_the_last_save_and_a_reserve() -> None:
    pace = Pace(Left(20.1))
    pace.batch, pace.save = 7.0, 4.0  # and 5 % of 100 s: 7 + 2 * 4 + 5 = 20
    assert pace.batch_fits()
    pace.budget = Left(19.9)
    assert not pace.batch_fits()
    # A validation that took 30 s needs 30 + 8 + 5; one that never ran, 20 % of the budget.
    pace.validation = 30.0
    for left, fits in ((43.1, True), (42.9, False)):
        pace.budget = Left(left)
        assert pace.validation_fits() is fits
    pace.validation = None
    for left, fits in ((33.1, True), (32.9, False)):
        pace.budget = Left(left)
        assert pace.validation_fits() is fits
    long = Budget(3600)
    long.did()
    pace.budget, long.end = long, long.end - 3600 + 180 + 8 + 63  # 63 s beyond reserve and saves
    assert pace.validation_fits()
    assert Pace(None).batch_fits() and Pace(None).validation_fits()


def test_what_comes_first_in_a_call_fits_whatever_it_takes() -> None:
    pace = Pace(Budget(10), 30.0)
    pace.batch = 50.0
    assert pace.batch_fits() and pace.validation_fits()
    pace.did()
    assert not pace.batch_fits() and not pace.validation_fits()


def test_calls_without_time_do_a_batch_or_a_validation_each_and_come_to_the_end(
    tmp_path: Path,
) -> None:
    run, calls, over = new(tmp_path / "run"), 0, True
    while over:
        calls += 1
        try:
            assert len(within(run.folder, 0)) <= 1
            over = False
        except OutOfTime as stop:
            assert "continue with `ima train --resume" in str(stop)
    # Two epochs of four batches, each with a validation, which ends the last call.
    assert calls == 10
    assert_equal_runs(train(new(tmp_path / "whole")), run)


def test_a_method_is_told_its_epochs_from_its_own_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    original = SAT.end_epoch

    def end_epoch(self: SAT, epoch: int, epochs: int) -> None:
        told.append((epoch, epochs))
        original(self, epoch, epochs)

    monkeypatch.setattr(SAT, "end_epoch", end_epoch)
    train(new(tmp_path / "run", "train.standard_epochs=2", method="sat", epochs=5))
    assert told == [(0, 3), (1, 3), (2, 3)]


def test_metrics_hold_the_seconds_of_training_and_of_validation(tmp_path: Path) -> None:
    run = train(new(tmp_path / "run", method="standard"))
    for row in run.epochs():
        assert row["seconds"] > 0
        assert row["val_seconds"] > 0


def test_the_command_line_stops_in_time_and_says_how_to_continue(tmp_path: Path) -> None:
    run = new(tmp_path / "run", epochs=5000)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ima", "train", "--resume", str(run.folder)),
            *("--device", "cpu", "--time-budget", "1s"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    assert done.returncode == OUT_OF_TIME == 75, done.stderr
    assert "Traceback" not in done.stderr
    assert f"continue with `ima train --resume {run.folder}`" in done.stderr


PAIR = """
import sys
from pathlib import Path
from test_training import Batches, Spend
from ima.budget import OutOfTime
from ima.training.loop import fit
from ima.training.pace import Pace
from ima.training.run import Run

for folder, *budgets in (words.split(",") for words in sys.argv[1:]):
    for batches in map(int, budgets):
        budget = Batches(batches)
        try:
            fit(Run.open(Path(folder), trust=True), watcher=Spend(budget), device="cpu", devices=2,
                budget=budget)
        except OutOfTime:
            pass
"""


def test_two_processes_stopped_within_an_epoch_continue_to_the_bit(tmp_path: Path) -> None:
    (tmp_path / "pair.py").write_text(PAIR)
    data = f"data={{name: arrays, path: '{npz(tmp_path / 'd.npz', 256)}', augment: [flip]}}"
    small = ["train.batch_size=64", f"network={{name: '{__name__}:dropping'}}"]
    # The curriculum counts in every process what went well in the epoch; TRADES attacks, with
    # running statistics, before the training pass that brings them together.
    methods = ("curriculum", "trades")
    runs = {
        (method, name): new(tmp_path / method / name, data, *small, method=method, epochs=1)
        for method in methods
        for name in ("whole", "stopped")
    }
    budgets = {"whole": "100", "stopped": "3,100"}
    found = os.environ.get("PYTHONPATH", "")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "pair.py"),
            *(f"{run.folder},{budgets[name]}" for (_, name), run in runs.items()),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(tmp_path), found]),
        },
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    for method in methods:
        assert len(runs[method, "stopped"].epochs()) == 1
        assert_equal_runs(runs[method, "whole"], runs[method, "stopped"])


# --- What the settings do -------------------------------------------------------------------------


def test_standard_epochs_are_standard_training(tmp_path: Path) -> None:
    standard = train(new(tmp_path / "standard", method="standard", epochs=2))
    run = new(tmp_path / "ima", "train.standard_epochs=2", epochs=4)
    with pytest.raises(KeyboardInterrupt):
        train(run, watcher=Watch(after=1))
    ours = load_state(run.state)
    assert same(ours["model"], load_state(standard.state)["model"])
    assert same(ours["optimizer"], load_state(standard.state)["optimizer"])
    assert torch.equal(
        ours["method"]["margins"]["values"], torch.full((897,), np.float32(OPTIONS["delta"]))
    )
    assert untimed(run) == untimed(standard)
    assert run.read_margins() == []
    train(run)
    rows = run.epochs()
    assert [("margin" in row) for row in rows] == [False, False, True, True]
    assert [row["epoch"] for row in run.read_margins()] == [2, 3]


def test_averaged_weights_are_the_running_mean_and_are_what_is_validated(tmp_path: Path) -> None:
    one_batch = ["train.batch_size=2048"]
    after: list[Mapping[str, Tensor]] = []
    for epochs in (1, 2, 3):
        plain = train(new(tmp_path / f"plain{epochs}", *one_batch, epochs=epochs))
        after.append(load_weights(plain.weights("last")))
    run = train(new(tmp_path / "ema", "train.ema=0.75", *one_batch, epochs=3))
    for name, value in load_weights(run.weights("last")).items():
        expected = 0.75 * (0.75 * after[0][name] + 0.25 * after[1][name]) + 0.25 * after[2][name]
        torch.testing.assert_close(value, expected, msg=name)
    assert same(load_state(run.state)["model"], after[2])
    assert run.epochs()[-1]["val_accuracy"] == pytest.approx(validated(run)[0])


def validated(run: Run) -> tuple[float, float]:
    """Clean accuracy of a run's last weights on the validation part, and under PGD-10."""
    config, splits = run.config(), load("digits")
    model = build_model(config, splits)
    model.load_state_dict(load_weights(run.weights("last")))
    model.eval()
    x, y = splits.val[list(range(len(splits.val)))]
    found = pgd(model, x, y, config.evaluate.middle, steps=10, norm=config.norm, bounds=(0.0, 1.0))
    with torch.no_grad():
        right = model(x).argmax(1) == y
    return float(right.float().mean()), float((right & ~found.crossed).float().mean())


def test_validation_is_clean_and_pgd_10_accuracy_at_the_middle_radius(tmp_path: Path) -> None:
    run = train(new(tmp_path / "run", "evaluate.eps=[1.5, 0.25, 1.0, 0.5]", "norm=2", epochs=2))
    assert run.config().evaluate.middle == 0.5
    row = run.epochs()[-1]
    assert (row["val_accuracy"], row["val_pgd"]) == pytest.approx(validated(run))
    assert 0 < row["val_accuracy"] < 1


class Sealed(Part):
    """A part that nobody may look at, once it is closed."""

    closed = False

    def __getattribute__(self, name: str) -> Any:
        if name in ("images", "targets") and type(self).closed:
            raise AssertionError("the test part was looked at")
        return super().__getattribute__(name)


def test_training_and_validation_never_look_at_the_test_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = load("digits")
    splits = Splits(
        "digits",
        full.train,
        full.val,
        Sealed(full.test.images, full.test.targets),
        full.classes,
        full.note,
    )
    monkeypatch.setattr(Sealed, "closed", True)
    monkeypatch.setitem(DATASETS, "digits", replace(DATASETS["digits"], load=given_data(splits)))
    run = train(new(tmp_path / "run", epochs=1))
    with pytest.raises(AssertionError, match="looked at"):
        splits.test[[0]]
    monkeypatch.undo()
    assert_equal_runs(train(new(tmp_path / "open", epochs=1)), run)


def test_initial_weights_come_from_either_kind_of_file(tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = small_cnn(1, 10, width=4)
    still = ["optimizer={name: sgd, lr: 1.0e-30, momentum: 0.0}"]
    save_weights(tmp_path / "w.safetensors", model.state_dict())
    torch.save(model.state_dict(), tmp_path / "w.pt")
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "nested.pt")
    for name in ("w.safetensors", "w.pt", "nested.pt"):
        run = new(tmp_path / f"run-{name}", *still, method="standard", epochs=1)
        train(run, init=tmp_path / name)
        assert same(dict(load_weights(run.weights("last"))), dict(model.state_dict())), name


def test_a_run_with_initial_weights_stopped_in_its_first_epoch_starts_from_them_again(
    tmp_path: Path,
) -> None:
    torch.manual_seed(5)
    save_weights(tmp_path / "w.safetensors", small_cnn(1, 10, width=4).state_dict())
    whole = train(new(tmp_path / "whole", epochs=1), init=tmp_path / "w.safetensors")
    stopped = new(tmp_path / "stopped", epochs=1)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, init=tmp_path / "w.safetensors", watcher=Watch(amid=(0, 1)))
    assert_equal_runs(whole, train(Run.open(stopped.folder, trust=True)))


def test_initial_weights_of_a_run_that_never_began_are_not_taken(tmp_path: Path) -> None:
    whole = train(new(tmp_path / "whole", epochs=1))
    # Killed after its initial weights were kept, and before its config was.
    stray = Run.planned(tmp_path / "stray", whole.config())
    stray.folder.mkdir()
    save_weights(stray.initial, small_cnn(1, 10, width=4).state_dict())
    assert_equal_runs(whole, train(stray))
    assert not stray.initial.exists()


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    save_weights(tmp_path / "wide.safetensors", small_cnn(1, 10, width=8).state_dict())
    with pytest.raises(ValueError, match=r"wide.safetensors does not fit"):
        train(new(tmp_path / "run"), init=tmp_path / "wide.safetensors")


def test_half_precision_keeps_whole_weights(tmp_path: Path) -> None:
    run = train(new(tmp_path / "half", "train.precision=bf16-mixed"))
    full = train(new(tmp_path / "full"))
    for which in ("best", "last"):
        assert {v.dtype for v in load_weights(run.weights(which)).values()} == {torch.float32}
    assert not same(load_weights(run.weights("last")), load_weights(full.weights("last")))
    margins = load_state(run.state)["method"]["margins"]["values"]
    assert margins.dtype == torch.float32


def test_the_weights_of_a_run_load_into_a_plain_model(tmp_path: Path) -> None:
    run = train(new(tmp_path / "run", "train.ema=0.9"))
    x, y = load("digits").train[list(range(256))]
    for which in ("best", "last"):
        model = small_cnn(1, 10, width=4)
        model.load_state_dict(load_weights(run.weights(which)))
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        assert bool(torch.isfinite(loss))
        assert all(p.requires_grad and p.grad is not None for p in model.parameters())


def test_training_leaves_signals_and_gradient_mode_as_they_were(tmp_path: Path) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    threads, default = torch.get_num_threads(), torch.get_default_dtype()
    train(new(tmp_path / "run", epochs=1))
    assert handlers == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert torch.is_grad_enabled()
    assert (threads, default) == (torch.get_num_threads(), torch.get_default_dtype())


# --- Learning rate --------------------------------------------------------------------------------


def test_learning_rates_follow_their_schedules(tmp_path: Path) -> None:
    constant = Optimizer(lr=0.2)
    assert [learning_rate(constant, e, 3) for e in range(3)] == [0.2, 0.2, 0.2]
    steps = Optimizer(lr=1.0, schedule="steps", milestones=(3, 1), gamma=0.5)
    assert [learning_rate(steps, e, 5) for e in range(5)] == [1.0, 0.5, 0.5, 0.25, 0.25]
    cosine = Optimizer(lr=1.0, schedule="cosine")
    rates = [learning_rate(cosine, e, 10) for e in range(10)]
    assert rates[0] == 1.0
    assert rates[5] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.1
    assert rates == sorted(rates, reverse=True)

    run = train(new(tmp_path / "run", "optimizer.schedule=cosine", epochs=4))
    expected = [learning_rate(run.config().optimizer, epoch, 4) for epoch in range(4)]
    assert [row["lr"] for row in run.epochs()] == expected
    groups = load_state(run.state)["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == expected[-1:]


# --- The best epoch -------------------------------------------------------------------------------

SHARES = st.sampled_from([0.0, 0.25, 0.5, 1.0])


@given(st.lists(st.tuples(SHARES, SHARES), min_size=1, max_size=8))
def test_best_is_by_score_then_clean_accuracy_then_the_later_epoch(
    rows: list[tuple[float, float]],
) -> None:
    best = Best()
    improved = [best.improved(epoch, score, clean) for epoch, (score, clean) in enumerate(rows)]
    ranked = max(range(len(rows)), key=lambda epoch: (*rows[epoch], epoch))
    assert (best.epoch, best.score, best.clean) == (ranked, *rows[ranked])
    assert improved[0]
    assert max(epoch for epoch, better in enumerate(improved) if better) == ranked


PICKING = [(0.5, 0.5), (0.9, 0.1), (0.8, 0.3), (0.9, 0.0)]
"""Clean accuracy and that under noise, epoch by epoch: the mean is highest in the first."""


def scripted(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Validation finds these accuracies, whatever was trained."""

    def validate(*_: Any) -> tuple[float, float]:
        return PICKING[len(run.epochs())]

    monkeypatch.setattr("ima.training.loop.validate_epoch", validate)


def picks(run: Run) -> int:
    """The epoch whose weights were kept, which all that a run says must name."""
    epoch = load_state(run.state)["best"]["epoch"]
    assert run.picked()["epoch"] == epoch
    assert picked(run)["epoch"] == f"{epoch + 1} of {len(PICKING)}"
    return epoch


@pytest.mark.parametrize("name", METHODS)
def test_only_methods_without_noise_are_picked_by_clean_accuracy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gentle = chosen(name, **({"eps": 0.3, "steps": 1} if "eps" in taken(name) else {}))
    run = new(tmp_path / "run", gentle, method=name, epochs=len(PICKING))
    scripted(monkeypatch, run)

    class Keep(Watch):
        def epoch(self, epoch: int, row: Mapping[str, float]) -> None:
            shutil.copy(run.weights("last"), tmp_path / f"{epoch}.safetensors")

    train(run, watcher=Keep())
    # Of two epochs as good as each other the later one.
    clean = name == "standard"
    assert picks(run) == (3 if clean else 0)
    kept = load_weights(tmp_path / f"{3 if clean else 0}.safetensors")
    assert same(load_weights(run.weights("best")), kept)
    mean = "the geometric mean of clean accuracy and accuracy under PGD-10 at "
    assert picked(run)["picked"].startswith("clean accuracy" if clean else mean)
    # The table of epochs keeps its columns, whatever picks.
    assert [row["val_score"] for row in run.epochs()] == [math.sqrt(c * n) for c, n in PICKING]


@pytest.mark.parametrize(
    ("method", "overrides", "expected"),
    [
        # The first epochs of a method with noise are not its own.
        ("sat", ["train.standard_epochs=1"], 2),
        ("standard", ["train.standard_epochs=1"], 3),
        ("standard", ["train.ema=0.5"], 3),
    ],
)
def test_the_rule_is_the_methods_own_whatever_else_is_set(
    method: str,
    overrides: list[str],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = new(tmp_path / "run", *overrides, method=method, epochs=len(PICKING))
    scripted(monkeypatch, run)
    train(run)
    assert picks(run) == expected


@pytest.mark.parametrize("old", [True, False])
def test_a_run_keeps_the_rule_that_it_began_with(
    old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new(tmp_path / "run", method="standard", epochs=len(PICKING))
    scripted(monkeypatch, run)
    with pytest.raises(KeyboardInterrupt):
        train(run, watcher=Watch(after=1))
    if old:
        # As states were from before there were two rules.
        state = load_state(run.state)
        state["best"] = {"epoch": 0, "score": 0.5, "clean": 0.5}
        save_state(run.state, state)
    train(Run.open(run.folder))
    assert picks(run) == (0 if old else 3)
    assert picked(run)["picked"].startswith("the geometric" if old else "clean accuracy")
    results = evaluate_run(run, "best", attacks=[], device="cpu")
    told = Results.from_csv(run.results("best")).settings
    assert (
        {k: getattr(results.settings, k) for k in picked(run)}
        == picked(run)
        == {"epoch": told.epoch, "picked": told.picked}
    )
    last = evaluate_run(run, "last", attacks=[], device="cpu").settings
    assert not last.picked


def test_the_best_weights_are_those_of_the_best_row(tmp_path: Path) -> None:
    run = new(tmp_path / "run", "optimizer.lr=0.1", method="sat", epochs=5)

    class Keep(Watch):
        def epoch(self, epoch: int, row: Mapping[str, float]) -> None:
            shutil.copy(run.weights("last"), tmp_path / f"{epoch}.safetensors")

    train(run, watcher=Keep())
    rows = run.epochs()
    best = max(rows, key=lambda row: (row["val_score"], row["val_accuracy"], row["epoch"]))
    kept = load_weights(tmp_path / f"{int(best['epoch'])}.safetensors")
    assert same(load_weights(run.weights("best")), kept)
    assert load_state(run.state)["best"]["epoch"] == best["epoch"]


# --- What cannot be trained -----------------------------------------------------------------------


def test_damaged_initial_weights_are_explained_and_leave_nothing_damaged(tmp_path: Path) -> None:
    weights = small_cnn(1, 10, width=4).state_dict()
    weights["0.weight"] = torch.full_like(weights["0.weight"], math.nan)
    save_weights(tmp_path / "nan.safetensors", weights)
    run = new(tmp_path / "run")
    with pytest.raises(FloatingPointError, match=r"loss is nan.*learning rate"):
        train(run, init=tmp_path / "nan.safetensors")
    assert not run.state.exists()
    assert run.epochs() == []
    assert not any(run.weights(which).exists() for which in ("best", "last"))


def test_a_last_step_that_breaks_the_weights_is_no_end(tmp_path: Path) -> None:
    steep = "optimizer={name: sgd, lr: 1.0e+38, weight_decay: 1.0e+4}"
    run = new(tmp_path / "run", steep, "train.batch_size=10000", epochs=1)
    with pytest.raises(FloatingPointError, match=r"weights are not finite after .*learning rate"):
        train(run)
    assert "in epoch 1: the weights" in run.diverged.read_text()
    assert run.epochs() == []


def test_samples_in_another_order_are_refused(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)

    def write(labels: np.ndarray) -> None:
        parts = ("train", "val", "test")
        pictures = {f"{part}_images": images[i::3] for i, part in enumerate(parts)}
        numbers = {f"{part}_labels": labels[i::3] for i, part in enumerate(parts)}
        np.savez(tmp_path / "d.npz", allow_pickle=False, **pictures, **numbers)

    # Sorted by class, as folders are: what tells the samples apart are the images.
    labels = np.arange(30) // 15
    write(labels)
    run = new(tmp_path / "run", f"data={{name: arrays, path: '{tmp_path / 'd.npz'}'}}", epochs=1)
    train(run)
    images = images[::-1].copy()
    write(labels)
    for again in (
        lambda: train(Run.open(run.folder, trust=True)),
        lambda: evaluate_run(run, "best", device="cpu"),
        lambda: measure_margins(run, device="cpu"),
    ):
        with pytest.raises(ValueError, match=r"other samples, or .*in another order .*: .*d\.npz"):
            again()
    images = images[::-1].copy()
    write(labels)
    evaluate_run(run, "best", device="cpu")


def test_samples_that_are_stored_otherwise_are_known_again() -> None:
    images = torch.randint(
        0, 254, (20, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    labels = torch.arange(20) % 2

    def splits(images: Tensor) -> Splits:
        part = Part(images, labels)
        return Splits("stored", part, part, part, ("a", "b"), "")

    known = trace(splits(images))
    # As JPEG changes them, or as floats.
    assert same_samples(known, trace(splits(images + 2)))
    assert same_samples(known, trace(splits(images / 255)))
    assert not same_samples(known, trace(splits(images.flip(0))))


class Fading(nn.Module):
    """Gives NaN from its sixth pass in training mode on, as a run that diverges."""

    passes: Tensor
    cured = False

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = small_cnn(channels, num_classes, width=4)
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.passes += 1
        damaged = self.training and int(self.passes) > 6 and not type(self).cured
        return self.body(x) * (math.nan if damaged else 1.0)


def fading(channels: int, num_classes: int) -> nn.Module:
    return Fading(channels, num_classes)


def test_a_run_that_diverges_keeps_its_last_good_epoch_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = f"network={{name: '{__name__}:fading'}}"
    run = new(tmp_path / "run", network, method="standard", epochs=2)
    for _ in range(2):
        with pytest.raises(FloatingPointError, match="not finite"):
            train(Run.open(run.folder, trust=True))
        assert load_state(run.state)["epoch"] == 0
        assert [row["epoch"] for row in run.epochs()] == [0]
    monkeypatch.setattr(Fading, "cured", True)
    train(Run.open(run.folder, trust=True))
    assert_equal_runs(train(new(tmp_path / "whole", network, method="standard")), run)


def five_classes(channels: int, num_classes: int) -> nn.Module:
    return small_cnn(channels, 5, width=4)


@pytest.mark.parametrize("method", METHODS)
def test_a_label_that_the_network_has_no_output_for_is_named(method: str, tmp_path: Path) -> None:
    run = new(tmp_path / "run", f"network={{name: '{__name__}:five_classes'}}", method=method)
    with pytest.raises(ValueError, match=r"label \d .*out of range.*5 classes"):
        train(run)


def npz(path: Path, train: int, *, others: int = 20) -> Path:
    """The first digits as an .npz file, of `train` training images."""
    full = load("digits")
    arrays: dict[str, np.ndarray] = {}
    for role, part, count in (
        ("train", full.train, train),
        ("val", full.val, others),
        ("test", full.test, others),
    ):
        arrays[f"{role}_images"] = (part.images[:count, 0] * 255).to(torch.uint8).numpy()
        arrays[f"{role}_labels"] = part.targets[:count].numpy()
    np.savez(path, allow_pickle=False, **arrays)
    return path


def test_an_empty_training_part_is_refused_by_name(tmp_path: Path) -> None:
    run = new(tmp_path / "run", f"data={{name: arrays, path: '{npz(tmp_path / 'e.npz', 0)}'}}")
    with pytest.raises(ValueError, match="train_images"):
        train(run)
    assert not run.state.exists()


def test_a_training_part_of_one_sample_trains(tmp_path: Path) -> None:
    with np.load(npz(tmp_path / "all.npz", 1)) as stored:
        # Of one class, because every class must have a training image.
        arrays = {key: stored[key] * key.endswith("images") for key in stored.files}
    np.savez(tmp_path / "one.npz", allow_pickle=False, **arrays)
    data = f"data={{name: arrays, path: '{tmp_path / 'one.npz'}'}}"
    run = train(new(tmp_path / "run", data, epochs=1))
    assert run.epochs()[0]["train_accuracy"] in (0.0, 1.0)


# --- Batches and processes ------------------------------------------------------------------------


@given(
    st.integers(1, 40), st.integers(1, 12), st.integers(1, 5), st.integers(0, 9), st.integers(0, 9)
)
def test_batches_hold_every_sample_once_and_split_evenly(
    samples: int, batch_size: int, world: int, seed: int, epoch: int
) -> None:
    whole = list(batches(samples, batch_size, seed=seed, epoch=epoch))
    assert sorted(torch.cat(whole).tolist()) == list(range(samples))
    assert {len(batch) for batch in whole[:-1]} <= {batch_size}
    parts = [
        list(batches(samples, batch_size, seed=seed, epoch=epoch, rank=rank, world=world))
        for rank in range(world)
    ]
    for number, batch in enumerate(whole):
        shares = [part[number] for part in parts]
        assert len({len(share) for share in shares}) == 1
        together = torch.stack(shares, 1).flatten()
        assert torch.equal(together[: len(batch)], batch)
        padding = together[len(batch) :]
        assert len(padding) < world
        assert all(0 <= int(i) < samples for i in padding)
    assert {len(part) for part in parts} == {len(whole)}


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    orders = {
        tuple(torch.cat(list(batches(50, 8, seed=seed, epoch=epoch))).tolist())
        for seed in range(3)
        for epoch in range(4)
    }
    assert len(orders) == 12


def torchrun(folder: Path, *arguments: str, nodes: int = 1) -> tuple[int, str, str]:
    """The command line in two processes: exit code, stdout, stderr of all.

    nodes: 1 for both on one, 2 for a node each, which meet on loopback.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = ("--nnodes", "2", "--master-addr", "127.0.0.1", "--master-port", port, "--node-rank")
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run"),
                *(["--standalone"] if nodes == 1 else [*address, str(node)]),
                *("--nproc-per-node", str(2 // nodes), "-m", "ima", *arguments),
            ],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for node in range(nodes)
    ]
    ended: list[tuple[str, str]] = []
    for process in processes:
        try:
            ended.append(process.communicate(timeout=200))
        except subprocess.TimeoutExpired:
            for one in processes:
                one.terminate()  # It ends its processes when it is asked, not when killed.
            ended.append(process.communicate())
    code = max(abs(process.returncode) for process in processes)
    return code, "".join(out for out, _ in ended), "".join(errors for _, errors in ended)


@pytest.mark.parametrize("nodes", [1, 2])
def test_two_processes_end_with_the_margins_of_one(nodes: int, tmp_path: Path) -> None:
    data = f"data={{name: arrays, path: '{npz(tmp_path / 'even.npz', 256)}'}}"
    # SGD, because Adam's first steps are as large for rounding as for a gradient.
    sgd = "optimizer={name: sgd, lr: 0.1, momentum: 0.5}"
    alone = new(tmp_path / "alone", data, sgd, "train.batch_size=64", epochs=3)
    train(alone)
    (tmp_path / "recipe.yaml").write_text(alone.config().to_yaml())
    (tmp_path / "empty").mkdir()
    code, out, errors = torchrun(
        tmp_path / "empty",
        # torchrun decides how many there are.
        *("train", "../recipe.yaml", "--out", "pair", "--device", "cpu"),
        nodes=nodes,
    )
    assert code == 0, out + errors
    assert sum(line.startswith("epoch") for line in out.splitlines()) == 3
    pair = Run.open(tmp_path / "empty" / "pair")
    assert names(pair.folder) == names(alone.folder)
    assert [p.name for p in (tmp_path / "empty").iterdir()] == ["pair"]
    one, two = load_state(alone.state), load_state(pair.state)
    torch.testing.assert_close(
        two["method"]["margins"]["values"],
        one["method"]["margins"]["values"],
        atol=1e-3,
        rtol=0,
    )
    torch.testing.assert_close(two["model"], one["model"], atol=1e-4, rtol=1e-3)
    for ours, theirs in zip(untimed(alone), untimed(pair), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-3)


SPOILT = """
import os
import sys
from pathlib import Path
import torch
from ima.training.loop import fit
from ima.training.run import Run
from test_training import Watch

if os.environ.get("LOCAL_RANK") == "1":
    whole = torch.nn.Linear.forward
    torch.nn.Linear.forward = lambda self, x: whole(self, x) * float("nan")
fit(Run.open(Path(sys.argv[1])), watcher=Watch(), device="cpu", devices=2)
"""


def test_a_loss_that_is_not_finite_in_the_second_process_alone_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "spoilt.py").write_text(SPOILT)
    run = new(tmp_path / "run", epochs=1)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "spoilt.py", str(run.folder)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        timeout=280,
    )
    assert done.returncode == 1, done.stderr
    assert run.diverged.read_text().startswith(
        "in epoch 1: the training loss is nan in process 1 of 2;"
    )
    assert not list(run.folder.glob("*.part"))


# --- A network that does not fit ------------------------------------------------------------------


def for_colours(channels: int, num_classes: int) -> nn.Module:
    return small_cnn(3, num_classes, width=4)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ("{name: paper_cnn}", r"expects \(B, channels, 32, 32\)"),
        ("{name: mlp}", r"expected \(B, 1\): mlp takes vectors"),
        (f"{{name: '{__name__}:for_colours'}}", "to have 3 channels, but got 1 channels"),
        (f"{{name: '{__name__}:five_classes'}}", r"label 9 .*5 classes"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_there_is_a_folder(
    network: str, told: str, tmp_path: Path
) -> None:
    settings = [chosen("standard"), "train.epochs=1"]
    run = Run.planned(tmp_path / "run", load_config("digits", [*settings, f"network={network}"]))
    with pytest.raises(ValueError, match=rf"cannot take samples of shape \(1, 8, 8\).*{told}"):
        train(run)
    assert not run.folder.exists()
    # The corrected command begins there.
    train(Run.planned(run.folder, load_config("digits", [*settings, "network.width=4"])))


class Moody(nn.Module):
    """Draws random numbers and keeps statistics, in training mode alone."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(channels), nn.Dropout(0.2))
        self.body = small_cnn(channels, num_classes, width=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.before(x)) + 0 * torch.rand(())


def moody(channels: int, num_classes: int) -> nn.Module:
    return Moody(channels, num_classes)


def test_the_look_at_the_network_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = f"network={{name: '{__name__}:moody'}}"
    looked = train(new(tmp_path / "looked", network))
    monkeypatch.setattr(loop, "check_fits", lambda *_: None)
    assert_equal_runs(looked, train(new(tmp_path / "plain", network)))
