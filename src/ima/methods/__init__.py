"""Training methods, one file each, and the table of all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ima.methods.ates import ATES
from ima.methods.base import Method, Step
from ima.methods.curriculum import CurriculumAT
from ima.methods.customized import CustomizedAT
from ima.methods.dat import DAT
from ima.methods.fat import FAT
from ima.methods.gairat import GAIRAT
from ima.methods.iaat import IAAT
from ima.methods.ima import IMA
from ima.methods.mart import MART
from ima.methods.mma import MMA
from ima.methods.sat import SAT
from ima.methods.standard import Standard
from ima.methods.trades import TRADES


@dataclass(frozen=True)
class MethodRow:
    """One method: name in configs, label in tables, class, paper, one sentence, and its limits.

    picks: the row of `ima.training.picking.RULES` by which validation picks its epoch: "clean" for
    a method that trains on no noise.
    """

    name: str
    label: str
    method: type[Any]
    paper: str
    summary: str
    segmentation: bool
    picks: Literal["mean", "clean"] = "mean"


METHODS = {
    row.name: row
    for row in (
        MethodRow(
            "standard",
            "Standard",
            Standard,
            "-",
            "Clean samples only.",
            segmentation=True,
            picks="clean",
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
        MethodRow(
            "trades",
            "TRADES",
            TRADES,
            "Zhang et al., ICML 2019",
            "Clean samples, and how close predictions under noise are to the clean ones.",
            segmentation=True,
        ),
        MethodRow(
            "mart",
            "MART",
            MART,
            "Wang et al., ICLR 2020",
            "Noisy samples; those with an unsure clean prediction get more weight.",
            segmentation=False,
        ),
        MethodRow(
            "mma",
            "MMA",
            MMA,
            "Ding et al., ICLR 2020",
            "Right samples at their estimated margin, up to eps, and wrong ones without noise.",
            segmentation=False,
        ),
        MethodRow(
            "fat",
            "FAT",
            FAT,
            "Zhang et al., ICML 2020",
            "Noisy samples just beyond the boundary: the attack stops soon after it succeeds.",
            segmentation=True,
        ),
        MethodRow(
            "gairat",
            "GAIRAT",
            GAIRAT,
            "Zhang et al., ICLR 2021",
            "Noisy samples; those that the attack breaks sooner get more weight.",
            segmentation=True,
        ),
        MethodRow(
            "iaat",
            "IAAT",
            IAAT,
            "Balaji et al., 2019",
            "Noisy samples, each with its own radius, which grows while attacks fail.",
            segmentation=True,
        ),
        MethodRow(
            "curriculum",
            "Curriculum AT",
            CurriculumAT,
            "Cai et al., IJCAI 2018",
            "Noisy samples after 0 to k attack steps; k grows as training succeeds.",
            segmentation=True,
        ),
        MethodRow(
            "ates",
            "ATES",
            ATES,
            "Sitawarin et al., 2020",
            "Noisy samples; the attack stops at a difficulty that grows over the run.",
            segmentation=False,
        ),
        MethodRow(
            "dat",
            "DAT",
            DAT,
            "Wang et al., ICML 2019",
            "Noisy samples; the attack stops once it has converged, by a criterion that tightens.",
            segmentation=True,
        ),
        MethodRow(
            "customized",
            "Customized AT",
            CustomizedAT,
            "Cheng et al., IJCAI 2022",
            "Noisy samples, each with its own radius and a label that is softer at larger radii.",
            segmentation=False,
        ),
    )
}

__all__ = [
    "ATES",
    "DAT",
    "FAT",
    "GAIRAT",
    "IAAT",
    "IMA",
    "MART",
    "METHODS",
    "MMA",
    "SAT",
    "TRADES",
    "CurriculumAT",
    "CustomizedAT",
    "Method",
    "MethodRow",
    "Standard",
    "Step",
]
