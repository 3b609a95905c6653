"""Margins as estimates: one row a training sample, beside the smallest noise that was found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ima.evaluation import store
from ima.evaluation.settings import Finding, Settings

_AGAIN = "run `ima margins` again"


@dataclass(frozen=True)
class Estimate:
    """One training sample.

    label: as trained on; true: the class before its label was flipped on purpose, else the label;
    prediction: without noise; margin: E(i); distance, attack: as in `Distance`, where the smallest
    noise was looked for, else NaN and empty.
    """

    id: int
    label: int
    true: int
    prediction: int
    margin: float
    distance: float = math.nan
    attack: str = ""

    @property
    def flipped(self) -> bool:
        """Whether the label was flipped on purpose."""
        return self.label != self.true


@dataclass(frozen=True)
class Estimates(Finding):
    """The training samples of a run, by id.

    settings: norm, cap, classes, epoch, and how the distances were found.
    """

    rows: tuple[Estimate, ...]
    settings: Settings

    @property
    def cap(self) -> float:
        """The largest margin."""
        return math.inf if self.settings.cap is None else self.settings.cap

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.settings.classes

    @property
    def margins(self) -> NDArray[np.float64]:
        """The margins (N,)."""
        return np.array([row.margin for row in self.rows], dtype=np.float64)

    @property
    def flipped(self) -> NDArray[np.bool_]:
        """Which labels were flipped, (N,)."""
        return np.array([row.flipped for row in self.rows], dtype=np.bool_)

    def pairs(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Margin and distance of samples that are right and that some noise was found for."""
        known = [row for row in self.rows if row.label == row.prediction and row.distance > 0]
        found = np.array([(row.margin, row.distance) for row in known], dtype=np.float64)
        return found.reshape(-1, 2)[:, 0], found.reshape(-1, 2)[:, 1]

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as a CSV, and the settings into a JSON beside it; whole or not at all."""
        store.write_results(Path(path), store.columns_of(self.rows, Estimate), self.settings)

    @staticmethod
    def from_csv(path: str | Path) -> Estimates:
        """Read what `to_csv` wrote, also before this version; ValueError for any other file."""
        path = Path(path)
        rows, settings = store.read_rows(path, Estimate, "margins", _AGAIN)
        if settings.cap is None:
            raise ValueError(f"{path} does not say the largest margin; {_AGAIN}")
        return Estimates(tuple(rows), settings)
