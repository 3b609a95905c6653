"""Attack a trained nnU-Net on its test cases; what is found lies in its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from ima.budget import Budget
from ima.evaluation.partial import discard
from ima.evaluation.results import FILE, PICKED
from ima.evaluation.segmentation_results import CASES, DIGEST, SegmentationResults
from ima.evaluation.segments_on_disk import ATTACKS, Sheet, attack_segmentation
from ima.nnunet.cases import BATCH, Cases
from ima.nnunet.paper import by_dataset
from ima.nnunet.trained import Trained

NAME = "results_nnunet.csv"

DICE = "the moving mean of Dice without noise, on patches of the validation cases"
"""By what nnU-Net picks its best weights, with whatever method they were trained."""


def default_eps(dataset: str) -> tuple[float, ...]:
    """The paper's noise levels for its data sets (Tables 6 to 8), by name; none for others."""
    task = by_dataset(dataset)
    return () if task is None else task.levels


def evaluate_trained(
    trained: Trained,
    eps: Sequence[float] = (),
    attacks: Sequence[str] = ATTACKS,
    *,
    images: Path | None = None,
    labels: Path | None = None,
    samples: int | None = None,
    out: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    budget: Budget | None = None,
) -> tuple[SegmentationResults, Path]:
    """The rows, and the folder that they were written to, beside the slices for pictures.

    eps: noise radii in L2, in units of normalised images, the paper's for its data sets if empty;
    attacks: of `SEGMENT_ATTACKS`, white noise comes by itself; images, labels, samples: see
    `Cases`; out: `ima` in the fold's folder if None. Finished batches stay there, so that the
    same call continues an evaluation that was stopped. Raises ValueError without eps, and as
    `Cases` and `evaluate_segmentation` do.
    """
    # Here, because Fabric's import takes seconds.
    from ima.training.build import build_fabric

    eps = tuple(eps) or default_eps(trained.dataset)
    if not eps:
        raise ValueError(
            f"the paper has no noise levels for {trained.dataset}; say radii with --eps, in L2 "
            "over a slice, in units of normalised images"
        )
    cases = Cases(trained, images, labels, samples)
    folder = trained.folder / "ima" if out is None else out
    sheet = Sheet(folder / NAME, trained.trainer, cases.digest)
    found = attack_segmentation(
        sheet,
        build_fabric(device).to_device(trained.network()),
        cases,
        eps,
        attacks,
        task=trained.task(),
        batch_size=BATCH,
        seed=seed,
        names=cases.names,
        classes=trained.classes,
        settings=_about(trained, cases),
        progress=progress,
        budget=budget,
    )
    discard(sheet.record)
    return found, folder


def _about(trained: Trained, cases: Cases) -> dict[str, str]:
    """How it was made, in words."""
    kind = "slice by slice" if cases.flat else "whole cases, or the central patch of larger ones"
    return {
        "dataset": trained.dataset,
        "trainer": trained.trainer,
        "configuration": trained.configuration,
        "plans": trained.plans.plans_name,
        "fold": trained.folder.name.removeprefix("fold_"),
        "weights": trained.which,
        **({PICKED: DICE} if trained.which == "best" else {}),
        FILE: trained.digest,
        "nnunetv2": version("nnunetv2"),
        "samples are": (
            f"{kind}, on the grid of the plans; one forward pass each, padded with zeros inside "
            "the network, no mirroring and no sliding window"
        ),
        "noise": "in units of normalised images, over the whole sample, without clamping",
        "samples": f"{len(cases.names)} of {cases.total}",
        CASES: cases.where,
        DIGEST: hashlib.sha256(cases.digest.encode()).hexdigest()[:16],
    }
