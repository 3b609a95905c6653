"""Attack a trained nnU-Net on its test cases; what is found lies in its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from ima.budget import Budget
from ima.evaluation.noise import WHITE_NOISE
from ima.evaluation.overlays import Overlays
from ima.evaluation.segment_attacks import find_segment_attack
from ima.evaluation.segmentation_results import WORST, SegmentationResults
from ima.evaluation.segments import evaluate_segmentation
from ima.nnunet.cases import BATCH, Cases
from ima.nnunet.paper import by_dataset
from ima.nnunet.trained import Trained

ATTACKS = ("pgd-100", "ifgsm-10", "ensemble-100", "noise-100")

NAME, OVERLAYS = "results_nnunet.csv", "overlays.npz"


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
    attacks = list(dict.fromkeys(attacks))
    aimed = [name for name in attacks if find_segment_attack(name)[0].amplitude is None]
    cases = Cases(trained, images, labels, samples)
    folder = trained.folder / "ima" if out is None else out
    record, task = folder / "results_nnunet.part", trained.task()
    strongest = WORST if len(aimed) > 1 else next(iter(aimed), "")
    overlays = Overlays(strongest, record, cases.digest, ignore_label=task.ignore_label)

    def after_batch(done: int, total: int) -> None:
        overlays.save()
        if progress is not None:
            progress(done, total)

    found = evaluate_segmentation(
        build_fabric(device).to_device(trained.network()),
        cases,
        eps,
        [*attacks, *(name for name in WHITE_NOISE if name not in attacks)],
        task=task,
        batch_size=BATCH,
        seed=seed,
        names=cases.names,
        classes=trained.classes,
        keep=overlays.keep,
        progress=after_batch,
        partial=record,
        budget=budget,
    )
    settings = {**_about(trained, cases), **found.settings}
    settings["samples"] = f"{len(cases.names)} of {cases.total}"
    found = replace(found, settings=settings)
    found.to_csv(folder / NAME)
    overlays.write(folder / OVERLAYS, found.classes, trained.trainer)
    for path in (record, overlays.beside):
        path.unlink(missing_ok=True)
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
        "nnunetv2": version("nnunetv2"),
        "samples are": (
            f"{kind}, on the grid of the plans; one forward pass each, padded with zeros inside "
            "the network, no mirroring and no sliding window"
        ),
        "noise": "in units of normalised images, over the whole sample, without clamping",
    }
