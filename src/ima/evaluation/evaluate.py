"""Attack a trained model on a data set, from the smallest noise radius to the largest.

for each batch:
    clean pass: the quality of every sample
    for each attack, for eps ascending: the lowest quality it finds; worst case: of all attacks
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ima.attacks.inputs import Bounds, Model
from ima.attacks.walk import eval_forward
from ima.budget import Budget, Progress
from ima.evaluation import store
from ima.evaluation.attacks import check_radii, find_attacks
from ima.evaluation.batch import Batch, ColumnLists, Example, attack_batch
from ima.evaluation.by_batch import Asked, by_batch
from ima.evaluation.decisions import PARTS
from ima.evaluation.naming import Names, Naming, check_classes, fit_classes, fit_labels
from ima.evaluation.remarks import warn
from ima.evaluation.results import BASE, CLEAN, WORST, Results
from ima.evaluation.settings import Settings
from ima.evaluation.short import Precision
from ima.norms import Norm, get_norm
from ima.tasks import Task, Tree, check_task, given, tree_map

_FEW = 4
"""So many samples are looked at before all work, for what can be said at once."""


def evaluate(
    model: nn.Module,
    data: Any,
    eps: Sequence[float] | float,
    attacks: Sequence[str] | str = ("pgd-100",),
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
    keep: Callable[[Example], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    partial: str | Path | None = None,
    budget: Budget | None = None,
    distributed: bool = False,
    precision: Precision = "float32",
) -> Results:
    """The quality of every sample: clean, and the lowest that each attack finds at each eps.

    A quality is 0 to 1: whether a label is right, the Dice of a mask, see `Task.quality`. At an eps
    it is at most that at a smaller one, whose ball lies inside: a sample that is broken at a
    smaller eps stays broken. With several attacks, `"worst case"` has the lowest of all.

    model: any module that returns what the task expects; it is left as it was.
    data: a data set or a list of (x, y), a DataLoader, or any finite iterable of samples or
        batches (x, y); one that shuffles is read in the order of its data set.
    eps: noise radii in x's units and `norm`, above 0.
    attacks: names such as `"pgd-100"`; `ima list attacks` tells them all.
    norm: of the noise, 2 or infinity, or a `Norm` of your own.
    bounds: lowest and highest value of x's entries, None where they have none.
    task: what outputs mean, classification if None.
    batch_size: of a data set's samples; 256 if None, 16 for tasks that label pixels.
    seed: of all noise.
    keys: where x and y are in items that are dicts.
    ids: of the samples in the rows, their places if None.
    names: the case (patient) of every sample, or pairs of case and slice; or where an item holds
        it, a dict's key or a tuple's place. Samples of one case are alike: with names, intervals
        are over cases; without, every sample is taken for a case of its own, and where several are
        of one patient they come out too narrow.
    classes: their names, in segmentation of the foreground's.
    keep: is called with every sample that an attack with a radius was tried on.
    progress: is called with (batches done, batches, 0 where unknown).
    partial: a file that takes every batch when it is done, after `progress` was called. The same
        call with the same file continues where it was stopped or killed, and gives the same
        results; keep is not called for finished batches again. The file stays; delete it when done.
    budget: no batch is begun that may not fit into it, judged by the slowest so far; but the first
        of a call always is.
    distributed: True: the processes of `torch.distributed` share the batches out. All of them must
        call this with the same arguments and all the data, and each gets all the rows, the same as
        one process finds alone; keep is called in the process that did the batch.
    precision: of the gradients that PGD and I-FGSM follow to change labels. "bfloat16" may be
        faster; what is broken is still decided in float32. "auto" takes what a trial of at most a
        second finds faster, so that rows may differ from machine to machine; which one it was
        stands in the settings.

    Raises ValueError for an empty data set, unknown attacks, inputs outside bounds, outputs that do
    not fit the labels, an item that may be one sample or a batch of several, and ids, names or
    classes that do not fit; TypeError for data of another kind; FloatingPointError where the
    model's output is not finite; OutOfTime when the budget is spent.

    >>> import ima, torch
    >>> model = torch.nn.Linear(2, 3)
    >>> data = torch.utils.data.TensorDataset(torch.rand(8, 2), torch.arange(8) % 3)
    >>> results = ima.evaluate(model, data, eps=[0.1, 0.2], attacks=["pgd-10"], bounds=(0, 1))
    >>> results.mean("pgd-10", 0.2) <= results.mean()
    True
    """
    task, norm, named = check_task(task), get_norm(norm), check_classes(classes)
    naming = Naming.of(ids, names)
    keep = naming.kept(keep)
    radii, found = check_radii(eps), find_attacks(attacks, task, norm, bounds)
    if not radii and any(row.amplitude is None for _, row, _ in found):
        raise ValueError("eps is empty; expected at least one noise radius above 0")
    if batch_size is None:
        batch_size = 16 if given(task, "drawn") == "labels" else 256
    shown = Progress.of(progress, budget)
    asked = Asked(
        norm, task, bounds, batch_size, seed, keys, naming, shown, partial, distributed, precision
    )
    told = [name for name, *_ in found]
    about: dict[str, Any] = {}

    def work(model: Model, batch: Batch) -> ColumnLists:
        if named and count is None:
            fit_labels(named, batch.y)
        return attack_batch(model, batch, radii, found, keep)

    count: int | None = None

    def before(x: Tensor, y: Tree) -> None:
        nonlocal count
        few = tree_map(lambda t: t[:_FEW], y)
        output = eval_forward(model, x[:_FEW])
        task.check(output, few)
        count = given(task, "classes")(output, few)
        if count is not None:
            fit_classes(named, count)
        about.update(given(task, "about")(output, few))

    done = by_batch(model, data, work, {"attacks": told, "eps": radii}, asked, before)
    warn(done.told["remarks"], stacklevel=2)
    shape = tuple(done.first.shape[1:])
    measure = given(task, "measure")
    short = done.told.pop("short")
    described = {
        name: row.describe(steps, shape, count or 2, norm, short=short)
        for name, row, steps in found
    }
    settings = asked.settings(
        attacks=described,
        eps=tuple(radii),
        classes=named or tuple(f"class {n + 1}" for n in range(count or 0) if measure.column),
        dimensions=max(0, len(shape) - 1),
        about=about,
        **done.told,
    )
    return _sorted(naming.columns(done.columns), settings)


def _sorted(columns: Mapping[str, Sequence[Any]], settings: Settings) -> Results:
    """Columns in their order, rows by attack, radius and id; the parts' columns by their names."""
    prefix, attacks = settings.measure.column, settings.attacks
    order = {name: place for place, name in enumerate([CLEAN, *attacks, WORST])}
    keys = zip(columns["attack"], columns["eps"], columns["id"], strict=True)
    sort = [(order[attack], eps, id_) for attack, eps, id_ in keys]
    places = sorted(range(len(sort)), key=sort.__getitem__)
    parts = columns[PARTS]
    more = {name: columns[name] for name in columns if name not in (*BASE, PARTS)}
    if prefix:
        each = zip(*parts, strict=True)
        more |= {
            prefix + name: list(cells) for name, cells in zip(settings.classes, each, strict=True)
        }
    whole = {**{name: columns[name] for name in BASE}, **more}
    return Results(
        {name: store.to_column([cells[i] for i in places]) for name, cells in whole.items()},
        settings,
    )
