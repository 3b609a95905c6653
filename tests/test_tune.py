"""Trials: what may be tried, a study that continues, in several processes, with early ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import call, elsewhere

from ima.training.config_errors import ConfigError
from ima.training.run import Run
from ima.training.tune import Span

__all__ = ["elsewhere"]

TINY = (
    "network.width=4",
    "method={name: sat, eps: 1.0, steps: 1}",
    "train={epochs: 2, batch_size: 256}",
)
SEARCH = ("--search", "optimizer.lr=1e-4:0.1:log", "method.eps=0.25,0.5", "--device", "cpu")


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("a.b=0.1:3", Span("a.b", (), 0.1, 3)),
        ("a=1:8", Span("a", (), 1, 8)),
        ("a=1e-4:1e-1:log", Span("a", (), 1e-4, 0.1, log=True)),
        ("a=2,5", Span("a", (2, 5))),
        ("a=cosine,steps", Span("a", ("cosine", "steps"))),
    ],
)
def test_what_is_tried_is_read(text: str, span: Span) -> None:
    assert Span.parse(text) == span


@pytest.mark.parametrize("text", ["a", "a=", "a=3", "a=3:1", "a=0:1:log", "a=1:2:lin", "a=1,"])
def test_what_says_nothing_to_try_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="says no values to try"):
        Span.parse(text)


@pytest.mark.parametrize(
    ("search", "told"),
    [
        (["method.esp=0.1:1"], "did you mean 'method.eps'"),
        (["method.eps=-1:1"], "eps is -1"),
        (["method.eps=1:2", "method.eps=2:3"], "each once"),
    ],
)
def test_a_config_that_takes_no_such_value_is_refused_before_there_is_a_folder(
    search: list[str], told: str, elsewhere: Path
) -> None:
    said = call("tune", "digits", *TINY, "--search", *search)
    assert said.code == 1 and told in said.err.replace("Did", "did")
    assert not (elsewhere / "runs").exists()


def test_a_study_continues_and_names_its_best(elsewhere: Path) -> None:
    pytest.importorskip("optuna", reason="trials need Optuna, ima[tune]")
    words = ("tune", "digits", *TINY, *SEARCH, "--out", "study", "--trials")
    # Stopped in its first trial, which goes on.
    said = call(*words, "1", "--time-budget", "1s")
    assert said.code in (0, 75), said.err
    said = call(*words, "2")
    assert said.code == 0, said.err
    assert sorted(path.name for path in (elsewhere / "study").glob("trial-*")) == [
        "trial-0", "trial-1",
    ]  # fmt: skip
    scores = dict(re.findall(r"^(trial \d): .*: (0\.\d+)$", said.out, re.MULTILINE))
    assert "best: study/trial-" in said.out
    run = Run.open(elsewhere / "study" / "trial-1")
    assert len(run.epochs()) == 2 and 1e-4 <= run.config().optimizer.lr <= 0.1
    assert run.config().method.options["eps"] in (0.25, 0.5)
    assert float(scores["trial 1"]) == pytest.approx(run.picked()["val_score"], abs=1e-3)
    assert re.search(r"^next: ima train digits .*optimizer\.lr=", said.out, re.MULTILINE)
    # Nothing is left to do; another study is another folder.
    said = call(*words, "2")
    assert said.code == 0 and not re.search(r"^trial", said.out, re.MULTILINE)
    said = call(*words, "2", "--search", "train.batch_size=128,256")
    assert said.code == 1 and "holds a study of other settings" in said.err


def test_a_trial_that_is_worse_than_others_ends_early(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    optuna = pytest.importorskip("optuna", reason="trials need Optuna, ima[tune]")
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda self: self.number == 1)
    said = call("tune", "digits", *TINY, *SEARCH, "--out", "study", "--trials", "2")
    assert said.code == 0, said.err
    assert re.search(r"^trial 1: .*ended early", said.out, re.MULTILINE)
    assert "best: study/trial-0" in said.out
    assert len(Run.open(elsewhere / "study" / "trial-1").epochs()) == 1


def test_two_processes_share_a_study(elsewhere: Path) -> None:
    optuna = pytest.importorskip("optuna", reason="trials need Optuna, ima[tune]")
    command = [sys.executable, "-m", "ima", "tune", "digits", *TINY, *SEARCH, "--trials", "4"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=200)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n\n".join(said)
    folder = elsewhere / "runs" / "digits-sat-tune"
    storage = optuna.storages.journal.JournalFileBackend(str(folder / "study.log"))
    study = optuna.load_study(study_name="digits", storage=optuna.storages.JournalStorage(storage))
    assert 4 <= len(study.trials) <= 5
    ended = {one.state.name for one in study.trials}
    assert ended <= {"COMPLETE", "PRUNED"} and "COMPLETE" in ended
    # Each trial was made once.
    told = [int(n) for text in said for n in re.findall(r"^trial (\d+):", text, re.MULTILINE)]
    assert sorted(told) == [*range(len(study.trials))]
