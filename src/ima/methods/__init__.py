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
            "The loss on clean samples.",
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
            "Clean samples, and how far noise moves their prediction.",
            segmentation=True,
        ),
        MethodRow(
            "mart",
            "MART",
            MART,
            "Wang et al., ICLR 2020",
            "Noisy samples, with more weight for those with an unsure clean prediction.",
            segmentation=False,
        ),
        MethodRow(
            "mma",
            "MMA",
            MMA,
            "Ding et al., ICLR 2020",
            "Correct samples at their estimated margin up to a limit, wrong ones as they are.",
            segmentation=False,
        ),
        MethodRow(
            "fat",
            "FAT",
            FAT,
            "Zhang et al., ICML 2020",
            "Samples that an attack has only just made wrong.",
            segmentation=True,
        ),
        MethodRow(
            "gairat",
            "GAIRAT",
            GAIRAT,
            "Zhang et al., ICLR 2021",
            "Noisy samples, weighted by how soon the attack breaks them.",
            segmentation=True,
        ),
        MethodRow(
            "iaat",
            "IAAT",
            IAAT,
            "Balaji et al., 2019",
            "Noisy samples, each within a radius that grows while attacks fail.",
            segmentation=True,
        ),
        MethodRow(
            "curriculum",
            "Curriculum AT",
            CurriculumAT,
            "Cai et al., IJCAI 2018",
            "A mixture of attacks with none to k steps; k grows as training succeeds.",
            segmentation=True,
        ),
        MethodRow(
            "ates",
            "ATES",
            ATES,
            "Sitawarin et al., 2020",
            "Samples attacked up to a difficulty that grows over the run.",
            segmentation=False,
        ),
        MethodRow(
            "dat",
            "DAT",
            DAT,
            "Wang et al., ICML 2019",
            "Samples attacked until a convergence criterion that tightens over the run.",
            segmentation=True,
        ),
        MethodRow(
            "customized",
            "Customized AT",
            CustomizedAT,
            "Cheng et al., IJCAI 2022",
            "Noisy samples, each with a radius of its own and a label that softens with it.",
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
