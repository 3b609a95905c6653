"""What a task's quality is called, and how it is written: readable without torch.

A quality is one number a sample, 0 to 1: right or wrong for a label, the Dice of a mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ABSENT = "–"
"""What stands where nothing was measured."""


@dataclass(frozen=True)
class Measure:
    """The words of a quality.

    name: in a sentence, such as `"accuracy"`; title: of tables and axes; threshold: a sample below
    it is broken; percent: written as percent, else as 0 to 1 with three decimals; binary: a quality
    is 0 or 1; over: what the mean is taken over, samples, or first samples and then parts; part:
    what the parts of a sample are, such as its classes; column: how the names of their columns
    begin, empty where there are none; short: its abbreviation, empty where there is none; defined:
    what it is, for captions, empty where the title says it.
    """

    name: str
    title: str
    threshold: float = 0.5
    percent: bool = True
    binary: bool = True
    over: Literal["samples", "parts"] = "samples"
    part: str = "class"
    column: str = ""
    short: str = ""
    defined: str = ""

    @property
    def parts(self) -> str:
        """The parts of a sample, such as `classes`."""
        return self.part + ("es" if self.part.endswith("s") else "s")

    @property
    def top(self) -> float:
        """The largest value as it is drawn."""
        return 100.0 if self.percent else 1.0

    def write(self, value: float, digits: int = 3) -> str:
        """A value, 0 to 1, without its unit; digits: of one that is no percent."""
        if math.isnan(value):
            return ABSENT
        return f"{100 * value:.1f}" if self.percent else f"{value:.{digits}f}"

    def said(self, value: float, digits: int = 2) -> str:
        """A value, 0 to 1, in a sentence: `83.1 %`, with a space that does not break, or `0.83`."""
        return self.write(value, digits) + ("\u00a0%" if self.percent else "")


ACCURACY = Measure("accuracy", "Accuracy")

DICE = Measure(
    "mean Dice",
    "Average Dice index",
    threshold=0.6,
    percent=False,
    binary=False,
    over="parts",
    column="dice_",
    short="ADI",
    defined="ADI: the Dice of each foreground class, averaged over the samples in which it counts, "
    "then over the classes (Eq. 14)",
)
"""The average Dice index (ADI) of Ma & Liang, Eq. 14: of each class, then of all."""
