"""Increasing-Margin Adversarial (IMA) training: networks that are harder to fool with noise.

Importing this package loads nothing heavy; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ima.attacks import Attacked as Attacked
    from ima.attacks import Nearest as Nearest
    from ima.attacks import bpgd as bpgd
    from ima.attacks import ddn as ddn
    from ima.attacks import ifgsm as ifgsm
    from ima.attacks import pgd as pgd
    from ima.data.indexed import Indexed as Indexed
    from ima.evaluation.distances import Distances as Distances
    from ima.evaluation.evaluate import evaluate as evaluate
    from ima.evaluation.minimal import minimal as minimal
    from ima.evaluation.results import Results as Results
    from ima.evaluation.segmentation_results import SegmentationResults as SegmentationResults
    from ima.margins import Margins as Margins
    from ima.methods import ATES as ATES
    from ima.methods import DAT as DAT
    from ima.methods import FAT as FAT
    from ima.methods import GAIRAT as GAIRAT
    from ima.methods import IAAT as IAAT
    from ima.methods import IMA as IMA
    from ima.methods import MART as MART
    from ima.methods import MMA as MMA
    from ima.methods import SAT as SAT
    from ima.methods import TRADES as TRADES
    from ima.methods import CurriculumAT as CurriculumAT
    from ima.methods import CustomizedAT as CustomizedAT
    from ima.methods import Method as Method
    from ima.methods import Standard as Standard
    from ima.methods import Step as Step
    from ima.norms import L2 as L2
    from ima.norms import LINF as LINF
    from ima.norms import Norm as Norm
    from ima.tasks import Classification as Classification
    from ima.tasks import Segmentation as Segmentation
    from ima.tasks import Task as Task

__version__ = "0.1.0"

_HOMES = {
    "Attacked": "ima.attacks",
    "Classification": "ima.tasks",
    "ATES": "ima.methods",
    "DAT": "ima.methods",
    "FAT": "ima.methods",
    "GAIRAT": "ima.methods",
    "IAAT": "ima.methods",
    "MART": "ima.methods",
    "MMA": "ima.methods",
    "TRADES": "ima.methods",
    "CurriculumAT": "ima.methods",
    "CustomizedAT": "ima.methods",
    "Distances": "ima.evaluation.distances",
    "IMA": "ima.methods",
    "Indexed": "ima.data.indexed",
    "L2": "ima.norms",
    "LINF": "ima.norms",
    "Margins": "ima.margins",
    "Method": "ima.methods",
    "Nearest": "ima.attacks",
    "Norm": "ima.norms",
    "SAT": "ima.methods",
    "Segmentation": "ima.tasks",
    "SegmentationResults": "ima.evaluation.segmentation_results",
    "Standard": "ima.methods",
    "Step": "ima.methods",
    "Task": "ima.tasks",
    "Results": "ima.evaluation.results",
    "bpgd": "ima.attacks",
    "ddn": "ima.attacks",
    "evaluate": "ima.evaluation.evaluate",
    "ifgsm": "ima.attacks",
    "minimal": "ima.evaluation.minimal",
    "pgd": "ima.attacks",
}

__all__ = [
    "ATES",
    "DAT",
    "FAT",
    "GAIRAT",
    "IAAT",
    "IMA",
    "L2",
    "LINF",
    "MART",
    "MMA",
    "SAT",
    "TRADES",
    "Attacked",
    "Classification",
    "CurriculumAT",
    "CustomizedAT",
    "Distances",
    "Indexed",
    "Margins",
    "Method",
    "Nearest",
    "Norm",
    "Results",
    "Segmentation",
    "SegmentationResults",
    "Standard",
    "Step",
    "Task",
    "__version__",
    "bpgd",
    "ddn",
    "evaluate",
    "ifgsm",
    "minimal",
    "pgd",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ima' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
