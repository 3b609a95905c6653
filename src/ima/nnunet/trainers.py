"""Trainers for nnU-Net v2: IMA, SAT, and standard training with the same loss and schedule.

nnUNetv2_train 4 2d 0 -tr nnUNetTrainerIMA

Source: Ma & Liang, IMA training, 3.5 (2-D, one margin a slice); nnU-Net: Isensee et al., Nature
Methods 2021. What the trainers are told stands in `ima.nnunet.settings`.
"""

from __future__ import annotations

from ima.methods import IMA, SAT, Standard
from ima.methods.base import Method
from ima.nnunet.base import Trainer
from ima.nnunet.settings import TRAINERS, used_by
from ima.tasks import Segmentation

__all__ = [*TRAINERS]  # pyright: ignore[reportUnsupportedDunderAll]


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
    """IMA with margins that are measured, and a radius that finds itself: nothing to set."""

    uses = used_by("IMA")

    def _make(self, num_samples: int, task: Segmentation) -> Method:
        return IMA(num_samples=num_samples, bounds=None, augmented=True, task=task)


class nnUNetTrainerIMAPaper(Trainer):  # noqa: N801
    """IMA as in the paper: margins that grow; one a slice, or a case in 3-D."""

    uses = used_by("IMAPaper")

    def _make(self, num_samples: int, task: Segmentation) -> Method:
        given = self.settings.pick("eps", "delta", "steps")
        return IMA(num_samples=num_samples, **given, bounds=None, augmented=True, task=task)


for name, eps in TRAINERS.items():
    if eps is not None:
        own = {"__doc__": f"SAT with noise of {eps:g}.", "__module__": __name__, "eps": eps}
        globals()[name] = type(name, (nnUNetTrainerSAT,), own)
