"""Trainers for nnU-Net v2: IMA, SAT, and standard training with the same loss and schedule.

nnUNetv2_train 4 2d 0 -tr nnUNetTrainerIMA

Source: Ma & Liang, IMA training, 3.5 (2-D, one margin a slice); nnU-Net: Isensee et al., Nature
Methods 2021. What the trainers are told stands in `ima.nnunet.settings`.
"""

from __future__ import annotations

from ima.methods import IMA, SAT, Standard
from ima.methods.base import Method
from ima.nnunet.base import Trainer
from ima.nnunet.settings import used_by
from ima.tasks import Segmentation

__all__ = [
    "nnUNetTrainerIMA",
    "nnUNetTrainerSAT",
    "nnUNetTrainerSAT5",
    "nnUNetTrainerSAT10",
    "nnUNetTrainerSAT15",
    "nnUNetTrainerSAT20",
    "nnUNetTrainerSAT25",
    "nnUNetTrainerSAT40",
    "nnUNetTrainerSTD",
]


class nnUNetTrainerSTD(Trainer):  # noqa: N801 - nnU-Net's way to name trainers
    """Standard training."""

    def _make(self, num_samples: int, task: Segmentation) -> Method:
        return Standard(task=task)


class nnUNetTrainerSAT(Trainer):  # noqa: N801
    """Standard adversarial training with noise of one radius, IMA_EPS (Ma & Liang, Eqs. 4, 5)."""

    uses = used_by("SAT")

    def _make(self, num_samples: int, task: Segmentation) -> Method:
        return SAT(**self.settings.pick("eps", "steps"), bounds=None, task=task)


class nnUNetTrainerIMA(Trainer):  # noqa: N801
    """Increasing-margin adversarial training: one margin a slice, or a case in 3-D."""

    uses = used_by("IMA")

    def _make(self, num_samples: int, task: Segmentation) -> Method:
        given = self.settings.pick("eps", "delta", "steps")
        return IMA(num_samples=num_samples, **given, bounds=None, augmented=True, task=task)


class nnUNetTrainerSAT5(nnUNetTrainerSAT):  # noqa: N801
    """SAT with noise of 5, as in the paper's tables."""

    eps = 5.0


class nnUNetTrainerSAT10(nnUNetTrainerSAT):  # noqa: N801
    """SAT with noise of 10."""

    eps = 10.0


class nnUNetTrainerSAT15(nnUNetTrainerSAT):  # noqa: N801
    """SAT with noise of 15."""

    eps = 15.0


class nnUNetTrainerSAT20(nnUNetTrainerSAT):  # noqa: N801
    """SAT with noise of 20."""

    eps = 20.0


class nnUNetTrainerSAT25(nnUNetTrainerSAT):  # noqa: N801
    """SAT with noise of 25."""

    eps = 25.0


class nnUNetTrainerSAT40(nnUNetTrainerSAT):  # noqa: N801
    """SAT with noise of 40."""

    eps = 40.0
