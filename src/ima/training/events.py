"""TensorBoard events beside metrics.csv, where TensorBoard is installed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from ima.training.run import Run


class Events:
    """Writes one scalar a metric and epoch into the run's folder; does nothing without TensorBoard.

    start: the first epoch that will be written; events of it and later ones, from a run that was
    stopped, are hidden.
    """

    def __init__(self, run: Run, start: int) -> None:
        self._writer: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(run.folder / "events"), purge_step=start)

    def add(self, epoch: int, row: Mapping[str, float]) -> None:
        """Write the metrics of one epoch."""
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
