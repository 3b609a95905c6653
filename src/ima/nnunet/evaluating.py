"""A trained nnU-Net as the subject of an evaluation, on its test cases."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from ima.evaluation.attacks import default_attacks
from ima.evaluation.settings import Settings
from ima.evaluation.subject import Subject
from ima.nnunet.cases import BATCH, Cases
from ima.nnunet.paper import by_dataset
from ima.nnunet.trained import Trained

NAME = "results_nnunet"
"""Of the results."""

PICKED = "the moving mean of Dice without noise, on patches of the validation cases"
"""By what nnU-Net picks its best weights, with whatever method they were trained."""


def default_eps(dataset: str) -> tuple[float, ...]:
    """The paper's noise levels for its data sets (Tables 6 to 8), by name; none for others."""
    task = by_dataset(dataset)
    return () if task is None else task.levels


def nnunet_subject(
    trained: Trained,
    eps: Sequence[float] | None = None,
    attacks: Sequence[str] | None = None,
    *,
    images: Path | None = None,
    labels: Path | None = None,
    samples: int | None = None,
    out: Path | None = None,
    device: str = "auto",
) -> Subject:
    """The network, its test cases, and the folder for what is found.

    eps: noise radii in L2, in units of normalised images, the paper's for its data sets if None;
    attacks: the task's usual ones if None; images, labels, samples: see `Cases`; out: `ima` in the
    fold's folder if None. Raises ValueError without eps, and as `Cases` does.
    """
    # Here, because Fabric's import takes seconds.
    from ima.training.build import build_fabric

    eps = tuple(eps or ()) or default_eps(trained.dataset)
    if not eps:
        raise ValueError(
            f"the paper has no noise levels for {trained.dataset}; say radii with --eps, in L2 "
            "over a slice, in units of normalised images"
        )
    cases, task = Cases(trained, images, labels, samples), trained.task()
    kind = "slice by slice" if cases.flat else "whole cases, or the central patch of larger ones"
    settings = Settings(
        label=trained.trainer,
        data=trained.dataset,
        data_digest=hashlib.sha256(cases.digest.encode()).hexdigest()[:16],
        cases=cases.where,
        weights=trained.which,
        file=trained.digest,
        picked=PICKED if trained.which == "best" else "",
        total=cases.total,
        about={
            "configuration": trained.configuration,
            "plans": trained.plans.plans_name,
            "fold": trained.folder.name.removeprefix("fold_"),
            "nnunetv2": version("nnunetv2"),
            "samples are": (
                f"{kind}, on the grid of the plans; one forward pass each, padded with zeros "
                "inside the network, no mirroring and no sliding window"
            ),
            "noise": "in units of normalised images, over the whole sample, without clamping",
            **({"left out, without labels": cases.aside} if cases.aside else {}),
        },
    )
    return Subject(
        build_fabric(device).to_device(trained.network()),
        cases,
        task,
        2,
        None,
        trained.folder / "ima" if out is None else out,
        NAME,
        settings,
        eps=eps,
        attacks=default_attacks(task) if attacks is None else tuple(attacks),
        names=cases.names,
        classes=trained.classes,
        batch_size=BATCH,
        alike=cases.alike(),
    )
