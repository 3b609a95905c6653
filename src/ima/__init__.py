"""Increasing-Margin Adversarial (IMA) training: networks that are harder to fool with noise.

Importing this package loads nothing heavy; each name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    # What type checkers read; a test compares it with the table below.
    from ima.attacks import Attacked as Attacked
    from ima.attacks import Nearest as Nearest
    from ima.attacks import bpgd as bpgd
    from ima.attacks import ddn as ddn
    from ima.attacks import ifgsm as ifgsm
    from ima.attacks import pgd as pgd
    from ima.budget import Budget as Budget
    from ima.budget import OutOfTime as OutOfTime
    from ima.data.indexed import Indexed as Indexed
    from ima.evaluation.checks import run_checks as run_checks
    from ima.evaluation.checks_results import Checks as Checks
    from ima.evaluation.distances import Distances as Distances
    from ima.evaluation.evaluate import evaluate as evaluate
    from ima.evaluation.minimal import minimal as minimal
    from ima.evaluation.results import Results as Results
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
else:
    # Hidden from type checkers, which would take any name at all for one of `__getattr__`'s.
    from importlib import import_module

    _HOMES = {
        name: home
        for home, names in {
            "ima.attacks": "Attacked Nearest bpgd ddn ifgsm pgd",
            "ima.budget": "Budget OutOfTime",
            "ima.data.indexed": "Indexed",
            "ima.evaluation.checks": "run_checks",
            "ima.evaluation.checks_results": "Checks",
            "ima.evaluation.distances": "Distances",
            "ima.evaluation.evaluate": "evaluate",
            "ima.evaluation.minimal": "minimal",
            "ima.evaluation.results": "Results",
            "ima.margins": "Margins",
            "ima.methods": "ATES DAT FAT GAIRAT IAAT IMA MART MMA SAT TRADES CurriculumAT "
            "CustomizedAT Method Standard Step",
            "ima.norms": "L2 LINF Norm",
            "ima.tasks": "Classification Segmentation Task",
        }.items()
        for name in names.split()
    }
    __all__ = ["__version__", *_HOMES]

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module 'ima' has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)

    def __dir__():
        return sorted({*globals(), *__all__})
