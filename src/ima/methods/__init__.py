"""Training methods, one file each, and the table of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ima.methods.base import Method, Step
from ima.methods.ima import IMA
from ima.methods.sat import SAT
from ima.methods.standard import Standard


@dataclass(frozen=True)
class MethodRow:
    """One method: name in configs, label in tables, class, paper, one sentence, and its limits."""

    name: str
    label: str
    method: type[Any]
    paper: str
    summary: str
    segmentation: bool


METHODS = {
    row.name: row
    for row in (
        MethodRow(
            "standard",
            "Standard",
            Standard,
            "-",
            "The loss on clean samples.",
            segmentation=True,
        ),
        MethodRow(
            "sat",
            "SAT",
            SAT,
            "Ma & Liang, Eqs. 4 and 5; after Madry et al., ICLR 2018",
            "Clean samples, and samples with noise of one fixed radius.",
            segmentation=True,
        ),
        MethodRow(
            "ima",
            "IMA",
            IMA,
            "Ma & Liang, Algorithms 1 to 3",
            "Clean samples, and samples at their own margin, which grows up to the boundary.",
            segmentation=True,
        ),
    )
}

__all__ = ["IMA", "METHODS", "SAT", "Method", "MethodRow", "Standard", "Step"]
