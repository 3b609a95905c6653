"""How a training run shows itself: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ima.training.epoch_progress import summary
from ima.training.run import leads


class Lines:
    """One line an epoch."""

    def __init__(self, epochs: int) -> None:
        self.epochs, self.started, self.seen = epochs, time.monotonic(), 0

    def batch(self, epoch: int, done: int, total: int, sums: Mapping[str, Any]) -> None:
        """Nothing: a batch is no line."""

    def epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Print the epoch's figures and the time left."""
        self.seen += 1
        left = (time.monotonic() - self.started) / self.seen * (self.epochs - epoch - 1)
        print(f"epoch {epoch + 1:>3}/{self.epochs}  {figures(row)}  {left:.0f} s left", flush=True)

    def close(self) -> None:
        """Nothing to close."""


class Bar(Lines):
    """A bar over all batches of the run, with the current epoch's figures."""

    EVERY = 0.2

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self.task = self.progress.add_task("", total=None, figures="")
        self.progress.start()
        self.shown = 0.0

    def batch(self, epoch: int, done: int, total: int, sums: Mapping[str, Any]) -> None:
        """Move the bar; a few times a second, because reading figures waits for the device."""
        if time.monotonic() - self.shown < self.EVERY:
            return
        self.shown = time.monotonic()
        row = summary({name: float(value) for name, value in sums.items()})
        self.progress.update(
            self.task,
            description=f"epoch {epoch + 1}/{self.epochs}",
            figures=figures(row),
            total=self.epochs * total,
            completed=epoch * total + done,
        )

    def epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Leave the epoch's line above the bar."""
        self.progress.console.print(f"epoch {epoch + 1:>3}/{self.epochs}  {figures(row)}")

    def close(self) -> None:
        """Give the terminal back."""
        self.progress.stop()


class Silence(Lines):
    """Says nothing."""

    def epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Nothing."""


def watch(epochs: int) -> Lines:
    """A bar where a person looks, lines where a file listens, nothing from a second process."""
    if not leads():
        return Silence(epochs)
    return Bar(epochs) if sys.stdout.isatty() else Lines(epochs)


def figures(row: Mapping[str, float]) -> str:
    """The figures of an epoch in one line."""
    parts = [f"loss {row['loss']:.3f}", f"clean {row['train_accuracy']:.1%}"]
    if "train_noisy_accuracy" in row:
        parts.append(f"noisy {row['train_noisy_accuracy']:.1%}")
    if "margin" in row:
        parts.append(f"margin {row['margin']:.3g}")
    if "growing" in row:
        parts.append(f"growing {row['growing']:.0%}")
    if "radius" in row:
        parts.append(f"radius {row['radius']:.3g}")
    if "val_accuracy" in row:
        parts.append(f"| val clean {row['val_accuracy']:.1%} pgd-10 {row['val_pgd']:.1%}")
    return "  ".join(parts)
