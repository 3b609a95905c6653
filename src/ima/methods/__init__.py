"""Training methods, one file each, and the table of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, Literal

from ima.imported import find_row
from ima.methods.ates import ATES as ATES
from ima.methods.base import Method as Method
from ima.methods.base import Step as Step
from ima.methods.curriculum import CurriculumAT as CurriculumAT
from ima.methods.customized import CustomizedAT as CustomizedAT
from ima.methods.dat import DAT as DAT
from ima.methods.fat import FAT as FAT
from ima.methods.gairat import GAIRAT as GAIRAT
from ima.methods.iaat import IAAT as IAAT
from ima.methods.ima import IMA as IMA
from ima.methods.mart import MART as MART
from ima.methods.mma import MMA as MMA
from ima.methods.noisy import Noisy as Noisy
from ima.methods.sat import SAT as SAT
from ima.methods.standard import Standard as Standard
from ima.methods.trades import TRADES as TRADES


@dataclass(frozen=True)
class MethodRow:
    """One method: its name in configs, its class, its source, one sentence.

    segmentation: whether it serves tasks other than classification.
    """

    name: str
    method: Callable[..., Any]
    paper: str
    summary: str
    segmentation: bool = True

    @property
    def picks(self) -> Literal["mean", "clean"]:
        """The row of `ima.training.picking.RULES` by which validation picks its epoch.

        "clean" for a method that trains on no noise: it takes nothing that says how to measure any.
        """
        taken = signature(self.method).parameters
        noisy = isinstance(self.method, type) and issubclass(self.method, Noisy)
        any_name = any(one.kind is Parameter.VAR_KEYWORD for one in taken.values())
        told = not taken.keys().isdisjoint(("eps", "norm", "bounds"))
        return "mean" if noisy or any_name or told else "clean"


METHODS = {
    row.name: row
    for row in (
        MethodRow("standard", Standard, "-", "The loss on clean samples."),
        MethodRow(
            "sat",
            SAT,
            "Ma & Liang, Eqs. 4 and 5; after Madry et al., ICLR 2018",
            "Clean samples, and samples with noise of one fixed radius.",
        ),
        MethodRow(
            "ima",
            IMA,
            "Ma & Liang, Algorithms 1 to 3",
            "Clean and noisy samples, at a radius that finds itself or a margin that grows.",
        ),
        MethodRow(
            "trades",
            TRADES,
            "Zhang et al., ICML 2019",
            "Clean samples, and how far noise moves their prediction.",
        ),
        MethodRow(
            "mart",
            MART,
            "Wang et al., ICLR 2020",
            "Noisy samples, with more weight for those with an unsure clean prediction.",
            segmentation=False,
        ),
        MethodRow(
            "mma",
            MMA,
            "Ding et al., ICLR 2020",
            "Correct samples at their estimated margin up to a limit, wrong ones as they are.",
            segmentation=False,
        ),
        MethodRow(
            "fat",
            FAT,
            "Zhang et al., ICML 2020",
            "Samples that an attack has only just made wrong.",
        ),
        MethodRow(
            "gairat",
            GAIRAT,
            "Zhang et al., ICLR 2021",
            "Noisy samples, weighted by how soon the attack breaks them.",
        ),
        MethodRow(
            "iaat",
            IAAT,
            "Balaji et al., 2019",
            "Noisy samples, each within a radius that grows while attacks fail.",
        ),
        MethodRow(
            "curriculum",
            CurriculumAT,
            "Cai et al., IJCAI 2018",
            "A mixture of attacks with none to k steps; k grows as training succeeds.",
        ),
        MethodRow(
            "ates",
            ATES,
            "Sitawarin et al., 2020",
            "Samples attacked up to a difficulty that grows over the run.",
            segmentation=False,
        ),
        MethodRow(
            "dat",
            DAT,
            "Wang et al., ICML 2019",
            "Samples attacked until a convergence criterion that tightens over the run.",
        ),
        MethodRow(
            "customized",
            CustomizedAT,
            "Cheng et al., IJCAI 2022",
            "Noisy samples, each with a radius of its own and a label that softens with it.",
            segmentation=False,
        ),
    )
}


def find_method(name: str) -> MethodRow:
    """The row of a method, or one for the class or function at `module:name`.

    Raises ValueError for a name that is neither, naming the nearest, and for what cannot be
    imported.
    """

    def own(method: Callable[..., Any]) -> MethodRow:
        return MethodRow(name, method, "-", "A method of your own.")

    return find_row("method", name, METHODS, own)
