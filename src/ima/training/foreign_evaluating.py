"""Evaluate a network from elsewhere, as runs are evaluated; the results lie beside its weights.

Finished batches stay there too, so that the same call continues after a stop; `forget` deletes
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import TensorDataset

from ima.budget import Budget
from ima.data import Part
from ima.evaluation.attacks import ATTACKS
from ima.evaluation.batches import few
from ima.evaluation.by_batch import within
from ima.evaluation.checks import run_checks
from ima.evaluation.checks_results import Checks
from ima.evaluation.distances import Distances
from ima.evaluation.evaluate import evaluate
from ima.evaluation.examples import Examples
from ima.evaluation.minimal import minimal
from ima.evaluation.noise import WHITE_NOISE
from ima.evaluation.partial import discard, mark
from ima.evaluation.remarks import said_beside
from ima.evaluation.results import Results
from ima.evaluation.segmentation_results import SegmentationResults
from ima.evaluation.segments_on_disk import Sheet, attack_segmentation
from ima.tasks import Classification, Segmentation
from ima.training.evaluating import EXAMPLES, load_subject
from ima.training.foreign import KEYS, Foreign
from ima.training.run import Run

FEW = 16
"""So many samples tell data that are not in memory from others."""


@said_beside()
def evaluate_foreign(
    foreign: Foreign,
    eps: Sequence[float],
    attacks: Sequence[str],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    budget: Budget | None = None,
) -> Results:
    """Attack a classifier, as `ima.evaluate` does, with white noise too, and write the rows."""
    record = _part(foreign.results)
    examples = Examples(EXAMPLES, len(attacks) * len(eps), record, data_digest(foreign.data))

    def after_batch(done: int, total: int) -> None:
        examples.save()
        if progress is not None:
            progress(done, total)

    results = evaluate(
        foreign.model,
        foreign.data,
        eps,
        [*attacks, *WHITE_NOISE],
        norm=foreign.norm,
        bounds=foreign.bounds,
        seed=seed,
        names=foreign.names,
        classes=foreign.classes,
        keep=examples.keep,
        progress=after_batch,
        partial=record,
        budget=budget,
    )
    results = Results(results.rows, results.norm, {**results.settings, **foreign.told()})
    examples.write(foreign.examples, np.arange(len(results.rows)), foreign.classes)
    # Written last: it says that all is done.
    results.to_csv(foreign.results)
    return results


@said_beside()
def segment_foreign(
    foreign: Foreign,
    eps: Sequence[float],
    attacks: Sequence[str],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    budget: Budget | None = None,
) -> SegmentationResults:
    """Attack a segmentation network; the rows, and slices for pictures, are written."""
    assert isinstance(foreign.task, Segmentation)
    return attack_segmentation(
        Sheet(foreign.results, foreign.checkpoint.stem, data_digest(foreign.data)),
        foreign.model,
        foreign.data,
        eps,
        attacks,
        task=foreign.task,
        norm=foreign.norm,
        bounds=foreign.bounds,
        seed=seed,
        names=foreign.names,
        classes=foreign.classes,
        settings=foreign.told(),
        progress=progress,
        budget=budget,
    )


@said_beside()
def distances_foreign(
    foreign: Foreign,
    eps: Sequence[float],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    budget: Budget | None = None,
) -> Distances:
    """Find the smallest noise that makes a classifier wrong on each sample, and write it.

    eps: where PGD looks. Raises ValueError for a segmentation network.
    """
    has_distances(foreign)
    found = minimal(
        foreign.model,
        foreign.data,
        eps,
        norm=foreign.norm,
        bounds=foreign.bounds,
        seed=seed,
        progress=progress,
        partial=_part(foreign.distances),
        budget=budget,
    )
    found = replace(found, settings={**found.settings, **_measured(foreign)})
    found.to_csv(foreign.distances)
    return found


def has_distances(foreign: Foreign) -> None:
    """Raise ValueError for a network whose samples are not right or wrong as a whole."""
    if not isinstance(foreign.task, Classification):
        raise ValueError(
            f"the network in {foreign.checkpoint} labels pixels: no noise makes a sample wrong as "
            "a whole, so there are no smallest distances; leave --distances out"
        )


@said_beside()
def check_foreign(
    foreign: Foreign,
    eps: Sequence[float],
    attacks: Sequence[str],
    *,
    transfer_from: Run | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    budget: Budget | None = None,
) -> Checks:
    """Run the checks on the network and on an evaluation with these attacks, and write them.

    Of a segmentation network: whether noise takes a sample's Dice below what counts as right, with
    those of the attacks that stop there.
    """
    device = next((p.device.type for p in foreign.model.parameters()), "cpu")
    other = None if transfer_from is None else load_subject(transfer_from, "best", device).model
    if isinstance(foreign.task, Segmentation):
        attacks = [name for name in attacks if name.partition("-")[0] in ATTACKS]
    found = run_checks(
        foreign.model,
        foreign.data,
        eps,
        attacks,
        norm=foreign.norm,
        bounds=foreign.bounds,
        task=foreign.task,
        transfer=other,
        seed=seed,
        progress=progress,
        partial=_part(foreign.checks),
        budget=budget,
    )
    found = replace(found, settings={**found.settings, **_measured(foreign)})
    found.to_json(foreign.checks)
    return found


def forget(results: Iterable[Path]) -> None:
    """Delete the finished batches of the evaluations whose results these are."""
    for path in results:
        discard(_part(path))


def data_digest(data: Any) -> str:
    """A digest of samples and labels, so that pictures of other data are not taken for theirs.

    Of all where they lie in memory as tensors, of the first few where they do not: to read the
    whole data set once more may take as long as to evaluate it.
    """
    if isinstance(data, Part):
        return mark(data.images, data.targets)
    if isinstance(data, TensorDataset) and len(data.tensors) > 1:
        return mark(*data.tensors[:2])
    return " ".join(mark(x, y) for x, y in few(data, KEYS, FEW))


def _measured(foreign: Foreign) -> dict[str, str]:
    """What the results say too, so that a page tells whether files belong together."""
    return {"bounds": within(foreign.bounds), "data": foreign.named}


def _part(path: Path) -> Path:
    return path.with_suffix(".part")
