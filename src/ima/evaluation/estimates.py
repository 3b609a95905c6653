"""Margins as estimates: one row a training sample, beside the smallest noise that was found."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ima.evaluation.results import columns, unread
from ima.files import whole

FIELDS = ("id", "label", "true", "prediction", "margin", "distance", "attack")


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
class Estimates:
    """The training samples of a run, by id.

    norm: of margins and distances; cap: the largest margin; classes: their names; settings: run,
    method, epoch, and how the distances were found.
    """

    rows: tuple[Estimate, ...]
    norm: str
    cap: float
    classes: tuple[str, ...]
    settings: Mapping[str, str]

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
        """Write everything; the file appears whole or not at all."""
        head = {"norm": self.norm, "cap": self.cap, "classes": list(self.classes)}
        with whole(Path(path)) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            file.write(f"# {json.dumps({**head, 'settings': dict(self.settings)})}\r\n")
            writer = csv.writer(file)
            writer.writerow(FIELDS)
            writer.writerows(map(astuple, self.rows))

    @staticmethod
    def from_csv(path: Path) -> Estimates:
        """Read what `to_csv` wrote; ValueError for any other file."""
        try:
            with path.open(newline="", encoding="utf-8") as file:
                first = file.readline()
                head: dict[str, Any] = json.loads(first.removeprefix("#"))
                header, *records = list(csv.reader(file)) or [[]]
            if tuple(header) != FIELDS:
                raise ValueError(columns(header))
            rows = tuple(_row(record) for record in records)
            classes, settings = tuple(map(str, head["classes"])), dict(head["settings"])
            return Estimates(rows, str(head["norm"]), float(head["cap"]), classes, settings)
        except (ValueError, TypeError, LookupError, csv.Error) as error:
            raise ValueError(
                f"{path} is no file of margins, or damaged: {unread(error)}; run `ima margins` "
                "again"
            ) from error


def _row(record: list[str]) -> Estimate:
    if len(record) != len(FIELDS):
        raise ValueError(f"a row is {','.join(record)!r}")
    id_, label, true, prediction, margin, distance, attack = record
    numbers = int(id_), int(label), int(true), int(prediction)
    return Estimate(*numbers, float(margin), float(distance), attack)
