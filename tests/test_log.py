"""Who else is told the figures of every epoch: MLflow, Weights & Biases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_cli import TINY, call, elsewhere

import ima.training.events as events
from ima.training.run import Run

__all__ = ["elsewhere"]


class Logger:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: dict[int, dict[str, float]] = {}
        self.settings: dict[str, Any] = {}
        self.status = ""

    def log_hyperparams(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        assert step not in self.told
        self.told[step] = metrics

    def finalize(self, status: str) -> None:
        self.status = status


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Logger]:
    """Loggers by the name under which a run is known."""
    found: dict[str, Logger] = {}

    def make(run: Run, ident: str | None) -> tuple[Logger, str]:
        ident = ident or f"run {len(found)}"
        return found.setdefault(ident, Logger()), ident

    monkeypatch.setattr(events, "LOGGERS", {"mlflow": make, "wandb": make})
    monkeypatch.setattr(events, "need", lambda _: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere")
    return found


def test_every_epoch_is_told_once_also_after_a_stop(
    elsewhere: Path, told: dict[str, Logger]
) -> None:
    words = ("train", "digits", *TINY, "log=[mlflow, wandb]", "--out", "run", "--device", "cpu")
    assert call(*words, "--time-budget", "1s").code in (0, 75)
    assert call("train", "--resume", "run", "--device", "cpu").code == 0
    assert [*told] == ["run 0", "run 1"]
    rows = Run.open(elsewhere / "run").epochs()
    for logger in told.values():
        assert [*logger.told] == [0, 1] and logger.status == "success"
        assert logger.told[1]["loss"] == pytest.approx(rows[1]["loss"])
        assert logger.settings["method"]["name"] == "ima"


def test_what_is_not_installed_is_told_before_there_is_a_folder(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ima.extras.find_spec", lambda name: name != "wandb" or None)
    said = call("train", "digits", *TINY, "log=[wandb]", "--out", "run", "--device", "cpu")
    assert said.code == 1 and "pip install 'ima[wandb]'" in said.err
    assert not (elsewhere / "run").exists()
    said = call("train", "digits", *TINY, "log=[wandbb]", "--out", "run")
    assert said.code == 1 and "log.0" in said.err


def test_mlflow_has_the_figures(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="MLflow is an extra, ima[mlflow]")
    words = ("train", "digits", *TINY, "log=[mlflow]", "--out", "run", "--device", "cpu")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    said = call(*words)
    assert said.code == 1 and "set MLFLOW_TRACKING_URI" in said.err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{elsewhere}/mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    said = call(*words)
    assert said.code == 0, said.err
    (found,) = (elsewhere / "mlflow").rglob("metrics/val_accuracy")
    assert len(found.read_text().splitlines()) == 2


def test_weights_and_biases_has_the_figures(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is an extra, ima[wandb]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = ("train", "digits", *TINY, "log=[wandb]", "--out", "run", "--device", "cpu")
    assert call(*words).code == 0
    assert list((elsewhere / "run" / "wandb").rglob("*.wandb"))
