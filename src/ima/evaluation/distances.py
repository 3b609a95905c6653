"""The smallest noise that was found for every sample: one row a sample, readable without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ima.evaluation import store
from ima.evaluation.results import CLEAN, check_whole
from ima.evaluation.settings import Finding, Settings
from ima.evaluation.values import Value

NONE = "none"

_AGAIN = "measure the distances again"


@dataclass(frozen=True)
class Distance:
    """The smallest noise found for one sample.

    id, label: of the sample; prediction: with this noise (without any where none was found);
    distance: the noise's size, 0 where the sample is wrong without noise, NaN where none was
    found; attack: which one found it, `"clean"` for no noise, `"none"` where none did.
    """

    id: int
    label: Value
    prediction: Value
    distance: float
    attack: str


@dataclass(frozen=True)
class Distances(Finding):
    """The smallest noise found for every sample of one model.

    rows: one `Distance` a sample. Every distance is an upper bound: that nothing nearer was found
        is no proof that nothing is.
    settings: how it was made: the norm, the attacks that ran, those left out, samples, seed.

    >>> import ima
    >>> from ima.evaluation.distances import Distance
    >>> from ima.evaluation.settings import Settings
    >>> found = ima.Distances((Distance(0, 1, 2, 0.25, "ddn"),), Settings(norm="L2"))
    >>> found.accuracy(0.2), found.accuracy(0.3)
    (1.0, 0.0)
    """

    rows: tuple[Distance, ...]
    settings: Settings

    def __eq__(self, other: object) -> bool:
        """Whether the rows are the same, NaN as NaN; how they were made does not count."""
        if not isinstance(other, Distances):
            return NotImplemented
        return self.norm == other.norm and list(map(repr, self.rows)) == list(map(repr, other.rows))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    @property
    def values(self) -> NDArray[np.float64]:
        """The distances (N,), infinite where no noise was found."""
        found = np.array([row.distance for row in self.rows], dtype=np.float64)
        return np.where(np.isnan(found), np.inf, found)

    def accuracy(self, eps: float = 0.0) -> float:
        """Share of samples that no noise of size `eps` was found for; NaN without rows.

        A sample that is wrong without noise counts as wrong at every size.
        """
        # A point on the ball's surface is in the ball, however its size was rounded.
        return float((self.values > eps * (1 + 1e-6)).mean()) if self.rows else math.nan

    def curve(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Accuracy at every size at which it falls: sizes, ascending from 0, and shares."""
        values = np.sort(self.values)
        sizes = np.unique([0.0, *values[np.isfinite(values)]])
        standing = len(values) - np.searchsorted(values, sizes * (1 + 1e-6), side="right")
        return sizes, standing / len(values) if len(values) else np.full(1, math.nan)

    def median(self) -> float:
        """The median distance of the samples that are right without noise.

        Infinite where no noise was found for half of them, NaN where none is right.
        """
        right = np.sort(self.values[[row.attack != CLEAN for row in self.rows]])
        if not len(right):
            return math.nan
        low, high = right[(len(right) - 1) // 2], right[len(right) // 2]
        return float(low + (high - low) / 2) if math.isfinite(high) else math.inf

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as a CSV, and the settings into a JSON beside it; whole or not at all."""
        store.write_results(Path(path), store.columns_of(self.rows, Distance), self.settings)

    @staticmethod
    def from_csv(path: str | Path) -> Distances:
        """Read what `to_csv` wrote, also before this version; ValueError for any other file."""
        path = Path(path)
        rows, settings = store.read_rows(path, Distance, "distances", _AGAIN)
        try:
            for row in rows:
                known = {CLEAN: row.distance == 0, NONE: math.isnan(row.distance)}
                if not known.get(row.attack, 0 <= row.distance < math.inf):
                    raise ValueError(
                        f"the distance of sample {row.id} is {row.distance}, found by "
                        f"{row.attack!r}"
                    )
            check_whole([("distances", 0.0)] * len(rows), [row.id for row in rows], settings)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); {_AGAIN}") from error
        return Distances(tuple(rows), settings)
