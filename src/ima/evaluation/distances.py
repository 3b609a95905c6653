"""The smallest noise that was found for every sample: one row a sample, readable without torch."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ima.evaluation.remarks import remarks_of
from ima.evaluation.results import CLEAN, check_whole, columns, read_settings, unread
from ima.evaluation.values import Value, check_kind, from_cell, to_cell
from ima.files import whole

NONE = "none"
FIELDS = ("id", "label", "prediction", "distance", "attack")


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
class Distances:
    """The rows of one model, and the norm that distances are measured in.

    Every distance is an upper bound: that nothing nearer was found is no proof that nothing is.
    settings: how it was made: the attacks that ran, those left out, samples, seed, seconds.
    """

    rows: tuple[Distance, ...]
    norm: str
    settings: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What leaves the figures in doubt, as sentences."""
        return remarks_of(self.settings)

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
        """Write the settings as a comment, `# {...}`, and the rows; whole or not at all."""
        with whole(Path(path)) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            file.write(f"# {json.dumps(dict(self.settings))}\r\n")
            writer = csv.writer(file)
            writer.writerow((*FIELDS, "norm"))
            for row in self.rows:
                said = to_cell(row.label), to_cell(row.prediction)
                writer.writerow((row.id, *said, row.distance, row.attack, self.norm))

    @staticmethod
    def from_csv(path: Path) -> Distances:
        """Read what `to_csv` wrote; ValueError for any other file."""
        try:
            with path.open(newline="", encoding="utf-8") as file:
                settings = read_settings(file.readline())
                header, *records = list(csv.reader(file)) or [[]]
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f"{path} is no file of distances, or damaged: {unread(error)}; measure the "
                "distances again"
            ) from error
        if tuple(header) != (*FIELDS, "norm"):
            raise ValueError(
                f"{path} is no file of distances, or damaged: {columns(header)}; measure the "
                "distances again"
            )
        norm = records[0][-1] if records else ""
        try:
            rows = tuple(_row(record, norm) for record in records)
            check_kind("label", (row.label for row in rows))
            check_kind("prediction", (row.prediction for row in rows))
            check_whole([(("distances", 0.0), row.id) for row in rows], settings)
            return Distances(rows, norm, settings)
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); measure the distances again") from error


def _row(record: list[str], norm: str) -> Distance:
    if len(record) != len(FIELDS) + 1 or record[-1] != norm:
        raise ValueError(f"a row is {','.join(record)!r}")
    id_, label, prediction, distance, attack, _ = record
    row = Distance(int(id_), from_cell(label), from_cell(prediction), float(distance), attack)
    known = {CLEAN: row.distance == 0, NONE: math.isnan(row.distance)}
    if not known.get(attack, 0 <= row.distance < math.inf):
        raise ValueError(f"a row is {','.join(record)!r}")
    return row
