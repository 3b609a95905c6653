"""When a training ends before its last epoch, and what says that margins cannot get there."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from test_training import new, same, train, untimed

import ima
from ima.methods.ima import Unreached
from ima.training.checkpoint import load_state
from ima.training.compare import finished, plan_runs
from ima.training.config import load_config
from ima.training.config_errors import ConfigError
from ima.training.run import Run

STILL = ("method={name: ima, eps: 0.01, delta: 0.01, steps: 1}", "train.batch_size=1024")
"""Margins that begin at their cap: no mean moves."""


def test_a_run_ends_where_its_margins_stand_still(tmp_path: Path) -> None:
    run = train(new(tmp_path / "stop", *STILL, "train.stop=equilibrium", epochs=13))
    assert len(run.epochs()) == 10
    assert finished(run)
    # The rule changes no step before, and going on changes nothing.
    whole = train(new(tmp_path / "whole", *STILL, epochs=10))
    assert untimed(run) == untimed(whole)
    assert same(load_state(run.state)["model"], load_state(whole.state)["model"])
    train(Run.open(run.folder))
    assert len(run.epochs()) == 10


def test_standard_epochs_do_not_count(tmp_path: Path) -> None:
    late = ("train.stop=equilibrium", "train.standard_epochs=2")
    run = train(new(tmp_path / "late", *STILL, *late, epochs=13))
    assert len(run.epochs()) == 12


def test_moving_margins_train_to_the_last_epoch(tmp_path: Path) -> None:
    moving = ("method={name: ima, eps: 9, delta: 0.1, steps: 1}", "train.batch_size=1024")
    run = train(new(tmp_path / "moving", *moving, "train.stop=equilibrium", epochs=12))
    assert len(run.epochs()) == 12
    assert finished(run)


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        (["method={name: standard}"], "standard keeps no margins"),
        (["optimizer.schedule=cosine"], "rate is low at the last epoch only"),
    ],
)
def test_what_cannot_end_early_is_refused(tmp_path: Path, overrides: list[str], word: str) -> None:
    wanted = load_config("digits", [*STILL, "train.stop=equilibrium", *overrides])
    run = Run.planned(tmp_path / "run", wanted)
    with pytest.raises(ConfigError, match=word):
        train(run)
    assert not run.folder.exists()


def test_a_comparison_names_the_row_that_cannot_end_early(tmp_path: Path) -> None:
    constant = "optimizer.schedule=constant"
    with pytest.raises(ConfigError, match=r"compare\.0\.train\.stop.*standard keeps no margins"):
        plan_runs(load_config("digits", ["train.stop=equilibrium", constant]), [0], tmp_path / "a")
    assert not (tmp_path / "a").exists()
    own = "{label: IMA, method: {name: ima}, train: {stop: equilibrium}}"
    rows = f"compare=[{{label: Standard, method: {{name: standard}}}}, {own}]"
    plans = plan_runs(load_config("digits", [rows, constant]), [0], tmp_path / "b")
    stops = [plan.candidates[0].runs[0].config().train.stop for plan in plans]
    assert stops == [None, "equilibrium"]


def test_a_loop_is_told_once_that_margins_cannot_reach_their_cap() -> None:
    method = ima.IMA(num_samples=8, eps=3.0, delta=0.3)
    with pytest.warns(
        Unreached, match=r"in 9 epochs a margin grows to 2.7 at most.*delta to 0.333"
    ):
        method.end_epoch(0, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.end_epoch(1, 9)
        # As many as are needed, to the rounding.
        ima.IMA(num_samples=8, eps=3.0, delta=0.3).end_epoch(0, 10)
        # Margins that are measured do not grow by steps.
        ima.IMA(num_samples=8, eps=3.0).end_epoch(0, 1)
        ima.IMA(num_samples=8).end_epoch(0, 1)


def test_a_config_with_no_delta_says_nothing(tmp_path: Path) -> None:
    from ima.training.config import warnings as said

    run = new(tmp_path / "run", "method={name: ima, eps: 3, delta: null}")
    assert said(run.config()) == []
