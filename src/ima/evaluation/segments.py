"""Attack a segmentation network on a data set: how low noise takes the Dice.

for each batch:
    clean pass: Dice of every sample
    for each attack, for eps ascending: the lowest Dice that it finds, at most that of a smaller eps
        look again: inside the ball and the bounds, finite, and the Dice of a second clean pass
    worst case: for every sample and eps the lowest over the attacks
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ima.attacks.inputs import Bounds
from ima.attacks.walk import look
from ima.budget import Budget
from ima.evaluation.by_batch import by_batch, in_words, measured_in, within
from ima.evaluation.masks import about_masks
from ima.evaluation.naming import Names, Naming, check_classes, fit_classes
from ima.evaluation.remarks import warn
from ima.evaluation.results import CLEAN
from ima.evaluation.segment_attacks import find_segment_attack
from ima.evaluation.segment_batch import SegmentExample, attack_batch
from ima.evaluation.segmentation_results import (
    EMPTY_SLICES,
    WORST,
    SegmentationResults,
    SegmentRow,
)
from ima.evaluation.setting import Setting
from ima.evaluation.watch import Watched
from ima.norms import Norm, get_norm
from ima.tasks import Segmentation, Tree, check_task, tree_map

FEW = 4
"""So many samples are looked at before all work, for what can be said at once."""


def evaluate_segmentation(
    model: nn.Module,
    data: Any,
    eps: Sequence[float] | float,
    attacks: Sequence[str] = ("pgd-100",),
    *,
    norm: Norm | float | str = 2,
    bounds: Bounds = None,
    task: Segmentation | None = None,
    batch_size: int = 16,
    seed: int = 0,
    keys: tuple[str, str] = ("image", "label"),
    ids: Sequence[int] | None = None,
    names: Names | None = None,
    classes: Sequence[str] | None = None,
    keep: Callable[[SegmentExample], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    partial: Path | None = None,
    budget: Budget | None = None,
) -> SegmentationResults:
    """The Dice of every sample: clean, and the lowest that each attack finds at each eps.

    data: samples are (x, y), x (C, *S) and y as the task's targets, or MONAI's dicts; batches are
    of one shape each; attacks: names such as `"pgd-100"`, see `SEGMENT_ATTACKS`; names: without
    slices these are counted within a case, -1 where every case has one sample; the case is the
    sample's id if None; classes: names of the foreground classes. keep is
    called with every sample under every attack but white noise. A sample's Dice at an eps is at
    most that at a smaller one, whose ball lies inside. With several attacks, `"worst case"` has for
    every sample the lowest Dice of all. Other arguments, and what is raised, as of `ima.evaluate`.
    """
    if task is not None and not isinstance(check_task(task), Segmentation):
        raise TypeError(f"the task is a {type(task).__name__}; expected Segmentation(...)")
    naming, given = Naming.of(ids, names), check_classes(classes)
    keep = naming.kept(keep)
    radii = sorted(set(torch.as_tensor(eps, dtype=torch.float64).flatten().tolist()))
    if not all(0 < radius < float("inf") for radius in radii):
        raise ValueError(f"eps are {radii}; expected finite noise radii above 0")
    attacks = [attacks] if isinstance(attacks, str) else list(attacks)
    found = [(name, *find_segment_attack(name)) for name in dict.fromkeys(attacks)]
    if not radii and any(row.amplitude is None for _, row, _ in found):
        raise ValueError("eps is empty; expected at least one noise radius above 0")
    task, norm = Segmentation() if task is None else task, get_norm(norm)
    settings = {
        "attacks": [name for name, *_ in found],
        "eps": radii,
        **measured_in(norm, bounds, task),
    }

    def work(
        watched: Watched, x: Tensor, y: Tree, ids: range, source: Generator
    ) -> list[SegmentRow]:
        where = [(str(i), -1) for i in ids]
        setting = Setting(norm, task, bounds, source, watched.watcher)
        return attack_batch(watched, x, y, ids, where, radii, found, setting, task, keep)

    said: dict[str, str] = {}

    def before(x: Tensor, y: Tree) -> None:
        few = tree_map(lambda t: t[:FEW], y)
        output = look(model, x[:FEW])
        task.check(output, few)
        fit_classes(given, len(task.dice_per_class(output, few)[0]), "foreground classes")
        said.update(about_masks(output, few, task))

    done = by_batch(
        model,
        data,
        work,
        settings,
        task=task,
        batch_size=batch_size,
        seed=seed,
        keys=keys,
        progress=progress,
        partial=partial,
        budget=budget,
        read=SegmentRow.of,
        naming=naming,
        before=before,
    )
    warn(done.remarks, stacklevel=2)
    white = [name for name, row, _ in found if row.amplitude is not None]
    aimed = [name for name, *_ in found if name not in white]
    order = {name: i for i, name in enumerate([CLEAN, *white, *aimed, WORST])}
    rows = sorted(naming.rows(done.rows), key=lambda row: (order[row.attack], row.eps, row.id))
    count = len(rows[0].per_class)
    named = given or tuple(f"class {number}" for number in range(1, count + 1))
    dimensions = {"dimensions": str(done.first.ndim - 2)}
    about = {name: in_words(row.summary, steps) for name, row, steps in found}
    about |= {"empty slices": EMPTY_SLICES, **dimensions, **said}
    about |= {"bounds": within(bounds), **done.about()}
    return SegmentationResults(tuple(rows), named, norm.name, about)
