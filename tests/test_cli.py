"""The command line as a person meets it: what it does, what it says, what it leaves behind."""

from __future__ import annotations

import csv
import dataclasses
import inspect
import io
import json
import os
import re
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from nets import load_weights
from test_files import forbid
from torch import Tensor

import ima
import ima.cli.progress as progress
from ima import Results
from ima.cli import main
from ima.cli.compare import compare
from ima.cli.equilibrium import equilibrium
from ima.cli.evaluate import evaluate
from ima.cli.harden import harden
from ima.cli.margins import margins
from ima.cli.report import report
from ima.cli.runs import runs
from ima.cli.tables import show_table
from ima.cli.train import train
from ima.cli.tune import tune
from ima.data import DATASETS
from ima.evaluation.attacks import ATTACKS
from ima.evaluation.stated import Stated
from ima.methods import METHODS
from ima.networks import NETWORKS
from ima.networks.small_cnn import small_cnn
from ima.training.checkpoint import load_state, save_weights
from ima.training.config import load_config
from ima.training.config_errors import packaged
from ima.training.run import Run

COMMANDS: dict[str, Callable[..., None]] = {
    "train": train,
    "evaluate": evaluate,
    "harden": harden,
    "compare": compare,
    "list": show_table,
    "equilibrium": equilibrium,
    "margins": margins,
    "report": report,
    "runs": runs,
    "tune": tune,
}

TINY = (
    "network.width=4",
    "method={name: ima, eps: 1.0, delta: 0.5, steps: 2}",
    "train={epochs: 2, batch_size: 256}",
    "evaluate={attacks: [pgd-3], eps: [0.5, 1.0]}",
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty folder, and finds no data but what comes with the library."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("IMA_DATA", raising=False)
    monkeypatch.setenv("IMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return folder


@dataclass(frozen=True)
class Said:
    """What a command ended with, and what it printed."""

    code: int
    out: str
    err: str


def call(*arguments: str) -> Said:
    """The command line in this process, as Python would end it."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    code: Any = 0
    sys.argv = ["ima", *arguments]
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Cyclopts application invoked without tokens")
            try:
                main()
            except SystemExit as ended:
                code = ended.code
            except Exception:
                traceback.print_exc()
                code = 1
    finally:
        sys.argv = before
    return Said(int(code or 0), out.getvalue(), err.getvalue())


def start(*arguments: str) -> Said:
    """The command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "ima", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def files(folder: Path) -> list[str]:
    """What a folder holds, without TensorBoard's events, which are optional."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted(name for name in found if "events" not in name)


def contents(folder: Path) -> dict[str, bytes]:
    return {n: (folder / n).read_bytes() for n in files(folder) if (folder / n).is_file()}


# --- Help -----------------------------------------------------------------------------------------


def test_help_loads_no_torch() -> None:
    script = (
        "import sys, ima\n"
        "from ima.cli import app\n"
        "for words in (['--help'], ['--version'], *([c, '--help'] for c in sys.argv[1:])):\n"
        "    try:\n"
        "        app(words)\n"
        "    except SystemExit:\n"
        "        pass\n"
        "heavy = {'torch', 'numpy', 'lightning_fabric', 'pydantic', 'matplotlib', 'sklearn'}\n"
        "sys.exit(' '.join(sorted(heavy & sys.modules.keys())) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *COMMANDS], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, f"loaded: {done.stderr}"
    assert "Usage: ima COMMAND" in done.stdout


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_names_every_command_and_says_what_it_does(words: list[str]) -> None:
    said = call(*words)
    assert (said.code, said.err) == (0, "")
    for name in COMMANDS:
        assert re.search(rf"^\W*{name} +\w+.*$", said.out, re.MULTILINE), f"{name}: {said.out}"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_explains_every_parameter(name: str) -> None:
    said = call(name, "--help")
    assert (said.code, said.err) == (0, "")
    shown_as: list[str] = []
    for parameter, about in inspect.signature(COMMANDS[name]).parameters.items():
        option = f"--{parameter.replace('_', '-')}"
        if parameter == "stated":
            # Each field of it is an option.
            shown_as += [f"--{one.name}" for one in dataclasses.fields(Stated)]
        elif about.kind is inspect.Parameter.KEYWORD_ONLY:
            shown_as.append(option)
        else:
            shown_as.append(parameter.upper())
    for shown in shown_as:
        # The name, its type or its other names, and then text.
        assert re.search(rf"{shown}\b(?: +[A-Z]+| --\S+)* +\w+", said.out), f"{shown}: {said.out}"


def test_the_version_is_that_of_the_package() -> None:
    assert call("--version").out.strip() == ima.__version__


# --- List -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "rows"),
    [
        ("methods", METHODS),
        ("attacks", ATTACKS),
        ("data", DATASETS),
        ("networks", NETWORKS),
        ("configs", (*packaged(), *packaged("nnunet"))),
    ],
)
def test_list_has_one_line_for_every_row(what: str, rows: Collection[str]) -> None:
    said = call("list", what)
    assert (said.code, said.err) == (0, "")
    lines = said.out.rstrip("\n").split("\n")
    assert len(lines) == len(rows)
    for name, line in zip(rows, lines, strict=True):
        assert re.match(rf"{re.escape(name)}(-\d+)?  +\w+", line)


# --- Train, evaluate, resume ----------------------------------------------------------------------


def test_train_then_evaluate_leaves_readable_files(elsewhere: Path) -> None:
    said = start("train", "digits", *TINY, "--out", "run", "--device", "cpu")
    assert said.code == 0, said.err
    assert len(re.findall(r"^epoch +\d/2 .*loss \d", said.out, re.MULTILINE)) == 2
    assert said.out.rstrip().endswith("ima evaluate run")
    assert files(elsewhere / "run") == [
        "best.safetensors",
        "config.yaml",
        "environment.json",
        "last.safetensors",
        "margins.csv",
        "metrics.csv",
        "state.safetensors",
    ]
    run = elsewhere / "run"
    assert yaml.safe_load((run / "config.yaml").read_text())["train"]["epochs"] == 2
    assert load_config(run / "config.yaml") == load_config("digits", TINY)
    told = json.loads((run / "environment.json").read_text())
    assert told["command"].startswith("ima train digits network.width=4")
    assert told["ima"] == ima.__version__
    with (run / "metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1"]
    model = small_cnn(1, 10, width=4)
    model.load_state_dict(load_weights(run / "best.safetensors"))

    said = call("evaluate", "run", "--device", "cpu")
    assert said.code == 0, said.err
    for which in ("best", "last"):
        results = Results.from_csv(run / "evaluation" / f"{which}.csv")
        assert (results.attacks, results.eps, results.norm) == (("pgd-3",), (0.5, 1.0), "L2")
        # Clean, two radii, and two kinds of white noise.
        assert len(results) == 540 * 5
        assert results.white == ("white-1", "white-100")
        both = [results.broken_rows[results.flips(name)] for name in results.white]
        once, ever, right = int(both[0].sum()), int(both[1].sum()), len(both[1])
        assert once <= ever <= right == (~results.broken_rows[results.at()]).sum()
        assert f"white noise of ±0.05 flips {ever} of {right}" in said.out
        assert f"{100 * results.accuracy('pgd-3', 0.5):.1f}" in said.out
    with np.load(run / "evaluation" / "examples.npz", allow_pickle=False) as examples:
        assert examples["clean"].shape[1:] == (1, 8, 8)
        columns = ("id", "attack", "eps", "label", "prediction", "clean_prediction", "noisy")
        assert {len(examples[name]) for name in columns} == {len(examples["clean"])}


def trained(folder: Path, *overrides: str) -> Run:
    """A run that was trained in this process."""
    said = call("train", "digits", *TINY, *overrides, "--out", str(folder), "--device", "cpu")
    assert said.code == 0, said.err
    return Run.open(folder)


def test_evaluate_takes_other_attacks_radii_and_one_checkpoint(elsewhere: Path) -> None:
    trained(elsewhere / "run", "train.epochs=1")
    said = call(
        *("evaluate", "run", "--attacks", "pgd-2", "--attacks", "ifgsm-1", "--eps", "0.25"),
        *("--checkpoint", "last", "--device", "cpu"),
    )
    assert said.code == 0, said.err
    results = Results.from_csv(elsewhere / "run" / "evaluation" / "last.csv")
    assert (results.attacks, results.eps) == (("pgd-2", "ifgsm-1", "worst case"), (0.25,))
    assert not (elsewhere / "run" / "evaluation" / "best.csv").exists()


def test_lists_are_written_with_spaces(elsewhere: Path) -> None:
    trained(elsewhere / "run", "train.epochs=1")
    said = call(
        *("evaluate", "run", "--attacks", "pgd-2", "ifgsm-1", "--eps", "0.25", "0.5"),
        *("--checkpoint", "last", "--device", "cpu"),
    )
    assert said.code == 0, said.err
    results = Results.from_csv(elsewhere / "run" / "evaluation" / "last.csv")
    assert results.eps == (0.25, 0.5)
    said = call("compare", "digits", "compare=[]", "--seeds", "0", "1", "2")
    assert "compares nothing" in said.err


def test_the_folder_of_a_run_names_config_method_and_seed(elsewhere: Path) -> None:
    said = call("train", "digits", *TINY, "train.epochs=1", "train.seed=7", "--device", "cpu")
    assert said.code == 0, said.err
    assert (elsewhere / "runs" / "digits-ima-seed7" / "state.safetensors").exists()


def test_a_stopped_run_says_how_to_continue_and_does(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(progress.Lines):
        def batch(self, epoch: int, done: int, total: int, sums: Mapping[str, Tensor]) -> None:
            if (epoch, done) == (1, 2):
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress, "watch", Impatient)
        said = call("train", "digits", *TINY, "--out", "run", "--device", "cpu")
    assert said.code == 130
    assert "ima train --resume run" in said.out
    assert "Traceback" not in said.err
    assert load_state(elsewhere / "run" / "state.safetensors")["epoch"] == 0

    said = call("train", "--resume", "run", "--device", "cpu")
    assert (said.code, said.err) == (0, "")
    assert re.findall(r"^epoch +(\d)/2", said.out, re.MULTILINE) == ["2"]
    whole = trained(elsewhere / "whole")
    for ours, theirs in zip(whole.epochs(), Run.open(elsewhere / "run").epochs(), strict=True):
        times = {"seconds", "val_seconds"}
        assert {k: ours[k] for k in ours.keys() - times} == {
            k: theirs[k] for k in theirs.keys() - times
        }

    said = call("train", "--resume", "run", "--device", "cpu")
    assert (said.code, said.err) == (0, "")
    assert "epoch   " not in said.out


def test_initial_weights_are_taken(elsewhere: Path) -> None:
    torch.manual_seed(8)
    weights = small_cnn(1, 10, width=4).state_dict()
    save_weights(elsewhere / "w.safetensors", weights)
    still = ["train.epochs=1", "optimizer={name: sgd, lr: 1.0e-30, momentum: 0.0}"]
    said = call(
        *("train", "digits", *TINY, *still, "--init", "w.safetensors", "--out", "run"),
        *("--device", "cpu"),
    )
    assert said.code == 0, said.err
    for name, value in load_weights(elsewhere / "run" / "last.safetensors").items():
        assert torch.equal(value, weights[name])


def test_a_schedule_too_short_for_the_margins_is_noted(elsewhere: Path) -> None:
    said = call(
        *("train", "digits", *TINY, "method.delta=0.1", "train.epochs=1", "--device", "cpu"),
        *("--out", "run"),
    )
    assert said.code == 0
    assert said.out.startswith("note: ")
    assert "method.delta" in said.out.split("\n")[0]


# --- What is refused ------------------------------------------------------------------------------

ABSENT = "cuda" if torch.backends.mps.is_available() else "mps"
"""A device that no machine has beside the other."""

REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "unknown key": (["train", "digits", *TINY, "method.detla=1"], ["method.detla", "method.delta"]),
    "wrong type": (
        ["train", "digits", *TINY, "train.epochs=many"],
        ["train.epochs", "many", "integer"],
    ),
    "wrong name": (["train", "digits", *TINY, "method.name=imaa"], ["method.name", "'ima'"]),
    "wrong value": (["train", "digits", *TINY, "method.eps=-1"], ["method", "above 0"]),
    "infinite radius": (["train", "digits", *TINY, "evaluate.eps=[.inf]"], ["evaluate.eps"]),
    "infinite rate": (["train", "digits", *TINY, "optimizer.lr=.inf"], ["optimizer.lr"]),
    "no attacks": (["train", "digits", *TINY, "evaluate.attacks=[]"], ["evaluate.attacks"]),
    "no radii": (["train", "digits", *TINY, "evaluate.eps=[]"], ["evaluate.eps"]),
    "no config": (["train", "digit"], ["digit", "'digits'"]),
    "no config, no run": (["train"], ["--resume"]),
    "a folder as config": (["train", "."], ["'.'", "name a config file"]),
    "missing data": (
        ["train", "table5_small", "--device", "cpu"],
        ["IMA_DATA", "kaggle.com/datasets/plameneduardo/sarscov2-ctscan-dataset", "data.path"],
    ),
    "missing weights": (
        ["train", "digits", *TINY, "--init", "absent.pt", "--device", "cpu"],
        ["absent.pt"],
    ),
    "unknown device": (["train", "digits", *TINY, "--device", "gpu7"], ["gpu7", "cpu"]),
    "absent device": (["train", "digits", *TINY, "--device", ABSENT], [ABSENT, "cpu"]),
    "no devices": (
        ["train", "digits", *TINY, "--device", "cpu", "--devices", "0"],
        ["devices", "0"],
    ),
    "resume without a run": (["train", "--resume", "absent"], ["absent", "config.yaml"]),
    "evaluate without a run": (["evaluate", "absent"], ["absent", "no run"]),
    "compare nothing": (["compare", "digits", "compare=[]"], ["compares nothing"]),
    "compare with no jobs": (["compare", "digits", *TINY, "--jobs", "0"], ["--jobs", "0"]),
    "compare with a wrong seed": (["compare", "digits", "--seeds", "-1"], ["seed", "-1"]),
}


def assert_refused(said: Said, words: list[str]) -> None:
    """One message on stderr, no traceback, exit code 1."""
    assert said.code == 1, said
    assert "Traceback" not in said.err, said.err
    assert said.err.startswith("ima: ")
    assert len(re.findall(r"^ima: ", said.err, re.MULTILINE)) == 1
    for word in words:
        assert word.lower() in said.err.lower()


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(case: str, elsewhere: Path) -> None:
    arguments, words = REFUSED[case]
    said = call(*arguments)
    assert_refused(said, words)
    assert files(elsewhere) == []


def test_a_process_of_its_own_refuses_in_the_same_way(elsewhere: Path) -> None:
    said = start("train", "digits", "method.detla=1")
    assert_refused(said, ["method.detla: unknown key. Did you mean 'method.delta'?"])
    assert said.out == ""
    assert files(elsewhere) == []


def test_a_folder_with_another_run_is_left_alone(elsewhere: Path) -> None:
    run = trained(elsewhere / "run", "train.epochs=1")
    before = contents(run.folder)
    said = call("train", "digits", *TINY, "--out", "run", "--device", "cpu")
    assert_refused(said, ["already holds a run", "--resume", "--out"])
    assert contents(run.folder) == before


def test_resuming_takes_no_other_settings(elsewhere: Path) -> None:
    run = trained(elsewhere / "run", "train.epochs=1")
    before = contents(elsewhere)
    for more in (["--out", "other"], ["--init", "w.pt"]):
        assert_refused(call("train", "--resume", str(run.folder), *more), ["--resume"])
    assert_refused(call("train", "digits", "--resume", str(run.folder)), ["--resume"])
    assert contents(elsewhere) == before


def test_a_file_in_place_of_a_folder_is_refused(elsewhere: Path) -> None:
    (elsewhere / "taken").write_text("mine")
    said = call("train", "digits", *TINY, "--out", "taken", "--device", "cpu")
    assert_refused(said, ["taken"])
    assert (elsewhere / "taken").read_text() == "mine"
    assert_refused(call("evaluate", "taken"), ["taken", "no run"])


def test_a_folder_that_may_not_be_made_is_named(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(elsewhere / "ro", monkeypatch)
    said = call("train", "digits", *TINY, "--out", str(elsewhere / "ro" / "x"), "--device", "cpu")
    assert_refused(said, [f"{elsewhere / 'ro' / 'x'} cannot be written (Permission denied); name"])


def test_a_run_that_was_stopped_before_it_began_is_not_to_be_resumed(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(run: Run) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ima.training.loop.splits_of", stopped)
    said = call("train", "digits", *TINY, "--out", "run", "--device", "cpu")
    assert said.code == 130
    assert "--resume" not in said.out + said.err
    assert "give the same command again" in said.out
    assert files(elsewhere) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--attacks", "pdg-3"], ["pdg-3", "pgd-"]),
        (["--eps", "-1"], ["eps", "above 0"]),
        (["--device", "gpu7"], ["gpu7", "cpu"]),
    ],
)
def test_an_evaluation_that_is_refused_writes_nothing(
    more: list[str], words: list[str], elsewhere: Path
) -> None:
    run = Run.create(elsewhere / "run", load_config("digits", TINY))
    for which in ("best", "last"):
        save_weights(run.weights(which), small_cnn(1, 10, width=4).state_dict())
    before = files(elsewhere)
    assert_refused(call("evaluate", "run", *more), words)
    assert files(elsewhere) == before


def test_evaluating_before_the_first_epoch_says_what_to_do(elsewhere: Path) -> None:
    Run.create(elsewhere / "run", load_config("digits", TINY))
    assert_refused(call("evaluate", "run", "--device", "cpu"), ["ima train --resume run"])


@pytest.mark.parametrize("name", ["state", "best"])
def test_a_damaged_file_of_a_run_is_named(name: str, elsewhere: Path) -> None:
    run = trained(elsewhere / "run", "train.epochs=1")
    path = run.folder / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    command = ["train", "--resume", "run"] if name == "state" else ["evaluate", "run"]
    assert_refused(call(*command, "--device", "cpu"), [path.name, "damaged"])


@pytest.mark.parametrize("text", ["", "epochs", "a: [", "name: x\n"])
def test_a_damaged_config_of_a_run_is_named(text: str, elsewhere: Path) -> None:
    run = Run.create(elsewhere / "run", load_config("digits", TINY))
    (run.folder / "config.yaml").write_text(text)
    for command in (["train", "--resume", "run"], ["evaluate", "run"]):
        assert_refused(call(*command, "--device", "cpu"), ["config.yaml"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["trian", "train"]),
        (["list"], ["what"]),
        (["list", "nothing"], ["nothing", "methods", "configs"]),
        (["train", "digits", "--outt", "x"], ["--outt", "--out"]),
        (["evaluate"], ["run"]),
        (["evaluate", "x", "--checkpoint", "first"], ["first", "best", "last", "both"]),
        (["evaluate", "x", "--eps", "high"], ["high", "eps"]),
        (["compare", "digits", "--jobs", "two"], ["two", "jobs"]),
    ],
)
def test_what_is_no_command_is_refused_with_what_is(
    arguments: list[str], words: list[str], elsewhere: Path
) -> None:
    said = call(*arguments)
    assert said.code != 0
    assert said.out == ""
    assert "Traceback" not in said.err
    for word in words:
        assert word.lower() in said.err.lower()
    assert files(elsewhere) == []


def test_an_error_that_is_no_refusal_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("ima.training.config.load_config", broken)
    said = call("train", "digits")
    assert said.code == 1
    assert "Traceback" in said.err
