"""The figures of every epoch, told to others beside metrics.csv.

TensorBoard where it is installed; MLflow and Weights & Biases, which the config's `log` may name,
by their loggers of Lightning.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from ima.extras import need
from ima.files import read_json, write_text
from ima.torchvision_compat import mend_torchvision
from ima.training.run import Run

IDS = "log.json"
"""By what a run is known to those who log it, so that one that continues is the same there."""


def _mlflow(run: Run, ident: str | None) -> tuple[Any, str]:
    from pytorch_lightning.loggers import MLFlowLogger

    logger = MLFlowLogger(run.config().name, str(run.folder), run_id=ident)
    return logger, str(logger.run_id)


def _wandb(run: Run, ident: str | None) -> tuple[Any, str]:
    from pytorch_lightning.loggers import WandbLogger

    ident = ident or uuid.uuid4().hex[:8]
    name, folder = str(run.folder), run.folder
    return WandbLogger(name, folder, project=run.config().name, id=ident, resume="allow"), ident


LOGGERS: Mapping[str, Callable[[Run, str | None], tuple[Any, str]]] = {
    "mlflow": _mlflow,
    "wandb": _wandb,
}
"""By the name in `log`: the logger of a run, and the name by which it is known there."""


def check_log(run: Run) -> None:
    """Raise ImportError where what the run's `log` names is not installed.

    ValueError where nothing says where MLflow is.
    """
    for name in run.config().log:
        need(name)
        if name == "mlflow" and not os.environ.get("MLFLOW_TRACKING_URI"):
            raise ValueError(
                "log names mlflow; set MLFLOW_TRACKING_URI to where it listens, such as "
                "http://localhost:5000"
            )


class Events:
    """Writes one number a metric and epoch to all who log the run.

    start: the first epoch that will be written; TensorBoard hides what it has of that and later
    ones, from a run that was stopped. Whoever else is told an epoch twice keeps both.
    """

    def __init__(self, run: Run, start: int) -> None:
        self._writer: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(run.folder / "events"), purge_step=start)
        path = run.folder / IDS
        known = read_json(path, dict[str, str]) if path.exists() else {}
        self._loggers: list[Any] = []
        if run.config().log:
            # Lightning imports it, also where it was built for another torch.
            mend_torchvision()
        for name in run.config().log:
            logger, known[name] = LOGGERS[name](run, known.get(name))
            logger.log_hyperparams(run.config().model_dump(mode="json"))
            self._loggers.append(logger)
        if known:
            write_text(path, json.dumps(known) + "\n")

    def add(self, epoch: int, row: Mapping[str, float]) -> None:
        """Write the metrics of one epoch."""
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()
        finite = {name: float(value) for name, value in row.items() if math.isfinite(value)}
        for logger in self._loggers:
            logger.log_metrics(finite, step=epoch)

    def close(self) -> None:
        """Close the files, and tell that the run is done."""
        if self._writer is not None:
            self._writer.close()
        for logger in self._loggers:
            logger.finalize("success")
