"""Attack a trained model on a data set, from the smallest noise radius to the largest.

for each batch:
    clean pass; samples that are wrong count as broken everywhere
    for each attack, for eps ascending: attack the samples that still stand
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Generator, Tensor, nn

from ima.attacks.inputs import Bounds
from ima.attacks.walk import look
from ima.budget import Budget
from ima.evaluation.attacks import AttackRow, find_attack
from ima.evaluation.autoattack import describe
from ima.evaluation.by_batch import by_batch, in_words, measured_in, within
from ima.evaluation.lifted import unit_box
from ima.evaluation.naming import Names, Naming, check_classes, fit_classes, fit_labels
from ima.evaluation.one_batch import WORST, Example, attack_batch
from ima.evaluation.remarks import warn
from ima.evaluation.results import CLASSES, CLEAN, Results, Row
from ima.evaluation.segment_batch import SegmentExample
from ima.evaluation.segmentation_results import SegmentationResults
from ima.evaluation.segments import evaluate_segmentation
from ima.evaluation.setting import Setting
from ima.evaluation.watch import Watched
from ima.norms import Norm, get_norm
from ima.tasks import Classification, Segmentation, Task, Tree, check_task, tree_map


@overload
def evaluate(  # pyright: ignore[reportOverlappingOverload]  # a Segmentation is a Task too
    model: nn.Module,
    data: Any,
    eps: Sequence[float] | float,
    attacks: Sequence[str] = ...,
    *,
    task: Segmentation,
    norm: Norm | float | str = ...,
    bounds: Bounds = ...,
    batch_size: int | None = ...,
    seed: int = ...,
    keys: tuple[str, str] = ...,
    ids: Sequence[int] | None = ...,
    names: Names | None = ...,
    classes: Sequence[str] | None = ...,
    keep: Callable[[SegmentExample], None] | None = ...,
    progress: Callable[[int, int], None] | None = ...,
    partial: Path | None = ...,
    budget: Budget | None = ...,
) -> SegmentationResults: ...


@overload
def evaluate(
    model: nn.Module,
    data: Any,
    eps: Sequence[float] | float,
    attacks: Sequence[str] = ...,
    *,
    norm: Norm | float | str = ...,
    bounds: Bounds = ...,
    task: Task | None = ...,
    batch_size: int | None = ...,
    seed: int = ...,
    keys: tuple[str, str] = ...,
    ids: Sequence[int] | None = ...,
    names: Names | None = ...,
    classes: Sequence[str] | None = ...,
    keep: Callable[[Example], None] | None = ...,
    progress: Callable[[int, int], None] | None = ...,
    partial: Path | None = ...,
    budget: Budget | None = ...,
) -> Results: ...


def evaluate(
    model: nn.Module,
    data: Any,
    eps: Sequence[float] | float,
    attacks: Sequence[str] = ("pgd-100",),
    *,
    norm: Norm | float | str = 2,
    bounds: Bounds = None,
    task: Task | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    keys: tuple[str, str] = ("image", "label"),
    ids: Sequence[int] | None = None,
    names: Names | None = None,
    classes: Sequence[str] | None = None,
    keep: Callable[[Any], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    partial: Path | None = None,
    budget: Budget | None = None,
) -> Results | SegmentationResults:
    """The model's predictions on every sample: clean, and under each attack at each eps.

    data: a data set or a list of (x, y), a DataLoader, or any finite iterable of samples or
    batches (x, y); one that shuffles is read in the order of its data set. eps: noise radii in
    x's units and `norm`, above 0; attacks: names such as `"pgd-100"`; bounds: of x's entries;
    seed: of all noise; keys: where x and y are in items that are dicts. keep is called with
    every sample that an attack with a radius was tried on; progress with (batches done, batches,
    0 where unknown). A sample broken at a smaller eps stays broken at a larger one, and is not
    attacked again. With several attacks, `"worst case"` counts a sample as broken when any broke
    it.

    ids: of the samples in the rows, their places if None. names: the case (patient) of every
    sample, or pairs of case and slice; or where an item holds it, a dict's key or a tuple's place.
    Samples of one case are alike: with names, intervals are over cases; without, every sample is
    taken for a case of its own, and where several are of one patient they come out too narrow.
    classes: their names, in segmentation of the foreground's.

    batch_size: 256 if None. With `task=Segmentation(...)`: what `evaluate_segmentation` says, in
    batches of 16 if None.

    partial: a file that takes every batch when it is done, after `progress` was called. The same
    call with the same file continues where it was stopped or killed, and gives the same results;
    keep is not called for finished batches again. The file stays; delete it when done.
    budget: no batch is begun that may not fit into it, judged by the slowest so far; but the first
    of a call always is.

    Raises ValueError for an empty data set, unknown attacks, inputs outside bounds, outputs that do
    not fit the labels, an item that may be one sample or a batch of several, and ids, names or
    classes that do not fit; TypeError for data of another kind; FloatingPointError where the
    model's output is not finite; OutOfTime when the budget is spent.
    """
    if isinstance(task, Segmentation):
        return evaluate_segmentation(
            model,
            data,
            eps,
            attacks,
            norm=norm,
            bounds=bounds,
            task=task,
            batch_size=16 if batch_size is None else batch_size,
            seed=seed,
            keys=keys,
            ids=ids,
            names=names,
            classes=classes,
            keep=keep,
            progress=progress,
            partial=partial,
            budget=budget,
        )
    task = check_task(task)
    naming, named = Naming.of(ids, names), check_classes(classes)
    keep = naming.kept(keep)
    radii = sorted(set(torch.as_tensor(eps, dtype=torch.float64).flatten().tolist()))
    if not all(0 < radius < float("inf") for radius in radii):
        raise ValueError(f"eps are {radii}; expected finite noise radii above 0")
    attacks = [attacks] if isinstance(attacks, str) else list(attacks)
    found = [(name, *find_attack(name)) for name in dict.fromkeys(attacks)]
    if not radii and any(row.amplitude is None for _, row, _ in found):
        raise ValueError("eps is empty; expected at least one noise radius above 0")
    norm = get_norm(norm)
    if bounds is None and any(row.whole for _, row, _ in found):
        unit_box(None)
    told = [name for name, *_ in found]
    settings = {"attacks": told, "eps": radii, **measured_in(norm, bounds, task)}

    def work(watched: Watched, x: Tensor, y: Tree, ids: range, source: Generator) -> list[Row]:
        if named and not isinstance(task, Classification):
            fit_labels(named, y)
        setting = Setting(norm, task, bounds, source, watched.watcher)
        return attack_batch(watched, x, y, ids, radii, found, setting, keep)

    def before(x: Tensor, y: Tree) -> None:
        output = look(model, x[:1])
        task.check(output, tree_map(lambda t: t[:1], y))
        if isinstance(task, Classification):
            fit_classes(named, task.logits(output).shape[1], "classes")

    done = by_batch(
        model,
        data,
        work,
        settings,
        task=task,
        batch_size=256 if batch_size is None else batch_size,
        seed=seed,
        keys=keys,
        progress=progress,
        partial=partial,
        budget=budget,
        naming=naming,
        before=before if named else None,
    )
    warn(done.remarks, stacklevel=2)
    rows = naming.rows(done.rows)
    order = {CLEAN: 0, **{name: 1 + i for i, name in enumerate([*told, WORST])}}
    rows.sort(key=lambda row: (order[row.attack], row.eps, row.id))
    about = _about(model, done.first, found, norm) | {"bounds": within(bounds)} | done.about()
    if named:
        about[CLASSES] = json.dumps(named, ensure_ascii=False)
    return Results(tuple(rows), norm.name, about)


def _about(
    model: nn.Module, x: Tensor, attacks: list[tuple[str, AttackRow, int]], norm: Norm
) -> dict[str, str]:
    """What the attacks did, by name: in words, or the parts that ran."""
    told = {name: in_words(row.summary, steps) for name, row, steps in attacks}
    whole = [name for name, row, _ in attacks if row.whole]
    if whole:
        classes = Classification().logits(look(model, x)).shape[1]
        told |= {name: describe(name, classes, x.shape[1:], norm) for name in whole}
    return told
