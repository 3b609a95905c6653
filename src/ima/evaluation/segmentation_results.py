"""What an evaluation of a segmentation network found: a row for every sample, attack and radius.

Tables and figures are functions of these rows and need neither model nor torch.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ima.evaluation.remarks import remarks_of
from ima.evaluation.results import (
    CLEAN,
    aimed,
    check_whole,
    columns,
    is_white,
    read_settings,
    same_radius,
    unread,
)
from ima.files import whole

WORST = "worst case"
"""For every sample the attack that leaves the lowest Dice."""

OVERLAYS = "overlays.npz"
"""The file of slices for pictures, beside the results."""

EMPTY_SLICES = (
    "a class counts for a sample where it occurs in the truth or in the prediction; a sample "
    "without foreground in both counts for no class, one with predicted foreground only counts "
    "with 0 for every class predicted"
)
"""The convention of `adi`, in words."""

CASES = "test cases"
"""The setting that tells where the test cases of a trained nnU-Net lay."""

OWN = "imagesTs of the data set"
"""What it is where no other folders were named."""

DIGEST = "digest of the cases"
"""The setting that tells the test cases, images and labels, from others."""

FIELDS = ("id", "case", "slice", "attack", "eps", "dice", "noise", "pixels", "present")
CLASS = "dice_"


@dataclass(frozen=True)
class SegmentRow:
    """One sample under one attack.

    id: of the sample; case, slice: where it is from, slice -1 where it is no slice of a case;
    attack: its name, `"clean"` for no noise; eps: the noise radius, for white noise the amplitude,
    see `SegmentationResults`; dice: of the sample, 0 to 1, with the worst noise found; noise: its
    size in the norm; pixels: of foreground in the truth; present: foreground classes in the truth;
    per_class: the Dice of every foreground class, NaN where it is in neither truth nor prediction.
    """

    id: int
    case: str
    slice: int
    attack: str
    eps: float
    dice: float
    noise: float
    pixels: int
    present: int
    per_class: tuple[float, ...]

    @staticmethod
    def of(*values: Any) -> SegmentRow:
        """The row of these values, per_class any sequence."""
        flat: tuple[Any, ...] = values[:-1]
        return SegmentRow(*flat, per_class=tuple(values[-1]))


@dataclass(frozen=True)
class SegmentationResults:
    """The rows of one network's evaluation.

    classes: names of the foreground classes; norm: that eps and noise are measured in, but for
    white noise, whose eps is the amplitude of every entry: a share of the bounds' width, or in the
    samples' units where there are no bounds. settings: how it was made, as far as known: samples,
    seed, seconds, trainer, dataset.
    """

    rows: tuple[SegmentRow, ...]
    classes: tuple[str, ...]
    norm: str
    settings: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What leaves the figures in doubt, as sentences."""
        return remarks_of(self.settings)

    @property
    def attacks(self) -> tuple[str, ...]:
        """The attacks with a radius, in the order in which they ran, the worst case last."""
        return tuple(attack for attack in self._named() if aimed(attack))

    @property
    def white(self) -> tuple[str, ...]:
        """The white noise that was tried: `"white-1"`, `"white-100"`, ..."""
        return tuple(attack for attack in self._named() if is_white(attack))

    @property
    def eps(self) -> tuple[float, ...]:
        """The noise radii, ascending."""
        return tuple(sorted({row.eps for row in self.rows if aimed(row.attack)}))

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases that samples are from, in their order."""
        return tuple(dict.fromkeys(row.case for row in self.rows))

    @property
    def knows_cases(self) -> bool:
        """Whether somebody said the cases; otherwise each is called as its sample's id."""
        return any(row.slice >= 0 or row.case != str(row.id) for row in self.rows)

    def of(self, attack: str = CLEAN, eps: float | None = 0.0) -> tuple[SegmentRow, ...]:
        """The rows of one attack at one radius; at any if eps is None (white noise has one)."""
        return tuple(
            row
            for row in self.rows
            if row.attack == attack and (eps is None or same_radius(row.eps, eps))
        )

    def adi(self, attack: str = CLEAN, eps: float | None = 0.0) -> float:
        """The average Dice index, 0 to 1 (Ma & Liang, Eq. 14): the mean of `adi_per_class`.

        NaN where nothing was run, or no class occurs.
        """
        return _mean(self.adi_per_class(attack, eps))

    def adi_per_class(self, attack: str = CLEAN, eps: float | None = 0.0) -> tuple[float, ...]:
        """For every class the mean Dice over the samples where it is in truth or prediction.

        NaN for a class that is nowhere.
        """
        return self._by_class(self.of(attack, eps))

    def adi_all_classes(self, attack: str = CLEAN, eps: float | None = 0.0) -> float:
        """The same over samples alone whose truth holds every foreground class.

        The authors' code computes this. NaN where there is no such sample.
        """
        rows = self.of(attack, eps)
        return _mean(self._by_class([r for r in rows if r.present == len(self.classes)]))

    def adi_interval(self, attack: str = CLEAN, eps: float | None = 0.0) -> tuple[float, float]:
        """A 95 % interval of `adi`, from how much the cases differ.

        Slices of one case are alike, so that cases are what is independent: ADI ± 1.96 standard
        errors of a ratio whose residuals are summed by case (Cochran, Sampling Techniques, 1977),
        within 0 to 1. Too narrow for few cases. NaN for fewer than two.
        """
        rows = self.of(attack, eps)
        adi, middle = self.adi(attack, eps), self.adi_per_class(attack, eps)
        dice = _matrix(rows, len(self.classes))
        residual = (dice - np.array(middle)) / np.maximum(1, (~np.isnan(dice)).sum(0))
        there = ~np.isnan(np.array(middle))
        if not there.any():
            return math.nan, math.nan
        each = np.nansum(residual[:, there], 1) / there.sum()
        names = np.array([row.case for row in rows])
        sums = np.array([each[names == name].sum() for name in dict.fromkeys(names.tolist())])
        if len(sums) < 2:
            return math.nan, math.nan
        error = math.sqrt(len(sums) / (len(sums) - 1) * float((sums**2).sum()))
        return max(0.0, adi - 1.96 * error), min(1.0, adi + 1.96 * error)

    def to_csv(self, path: str | Path) -> None:
        """Write the settings as a comment, `# {...}`, and the rows.

        The file appears whole or not at all.
        """
        with whole(Path(path)) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            settings = {**self.settings, "classes": json.dumps(self.classes)}
            file.write(f"# {json.dumps(settings)}\r\n")
            writer = csv.writer(file)
            writer.writerow((*FIELDS, *(CLASS + name for name in self.classes), "norm"))
            for row in self.rows:
                dice = ("" if math.isnan(d) else d for d in row.per_class)
                writer.writerow([*(getattr(row, name) for name in FIELDS), *dice, self.norm])

    def to_html(self, path: str | Path, *, title: str = "") -> None:
        """Write a page that says what noise does to the Dice, whole in one file.

        path: its name ends in .html, or in .md or .json for the same content in those forms.
        title: what the network is called on the page.
        """
        # Here, because evaluation knows nothing of reports otherwise.
        from ima.report.html import write_segmented
        from ima.report.segmented import Segmented

        write_segmented(Path(path), [Segmented(title or "this network", self)])

    @staticmethod
    def from_csv(path: Path) -> SegmentationResults:
        """Read what `to_csv` wrote; ValueError for any other file."""
        try:
            with path.open(newline="", encoding="utf-8") as file:
                settings = read_settings(file.readline())
                header, *records = list(csv.reader(file)) or [[]]
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f"{path} is no segmentation results file, or damaged: {unread(error)}; evaluate "
                "the network again"
            ) from error
        named = header[len(FIELDS) : -1]
        if (
            tuple(header) != (*FIELDS, *named, "norm")
            or not named
            or not all(name.startswith(CLASS) for name in named)
        ):
            raise ValueError(
                f"{path} is no segmentation results file, or damaged: {columns(header)}; evaluate "
                "the network again"
            )
        norm = records[0][-1] if records else ""
        try:
            rows = tuple(_row(record, len(header), norm) for record in records)
            check_whole([((row.attack, row.eps), row.id) for row in rows], settings)
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); evaluate the network again") from error
        classes = tuple(name.removeprefix(CLASS) for name in named)
        return SegmentationResults(rows, classes, norm, settings)

    def _named(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.attack for row in self.rows))

    def _by_class(self, rows: Sequence[SegmentRow]) -> tuple[float, ...]:
        return tuple(_mean(column) for column in _matrix(rows, len(self.classes)).T)


def _matrix(rows: Sequence[SegmentRow], classes: int) -> NDArray[np.float64]:
    return np.array([row.per_class for row in rows], dtype=np.float64).reshape(len(rows), classes)


def _mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The mean of those that are not NaN; NaN where all are."""
    known = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _row(record: list[str], columns: int, norm: str) -> SegmentRow:
    if len(record) != columns or record[-1] != norm:
        raise ValueError(f"a row is {','.join(record)!r}")
    id_, case, at, attack, eps, dice, noise, pixels, present, *classes = record[:-1]
    row = SegmentRow(
        int(id_),
        case,
        int(at),
        attack,
        float(eps),
        float(dice),
        float(noise),
        int(pixels),
        int(present),
        tuple(float(value) if value else math.nan for value in classes),
    )
    known = (value for value in row.per_class if not math.isnan(value))
    if not all(0 <= value <= 1 for value in (row.dice, *known)) or not row.noise >= 0:
        raise ValueError(f"a row is {','.join(record)!r}")
    return row
