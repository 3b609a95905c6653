"""Minimal distances: for every sample the smallest noise that any of several attacks finds.

wrong without noise: 0
else, for each attack: point = what it finds
                       a few steps along the tangent plane of the boundary, never farther
                       look at it: finite, inside the bounds, wrong?
                       bisect from x to the point, to 1/1024 of the way; look at the end again
     the smallest

DDN with the loss and with the margin (Rony et al., CVPR 2019), ALMA in L2 (Rony et al., ICCV 2021),
FAB (Croce & Hein, ICML 2020; the authors' code), and PGD at given radii, where it can still find
less. All are upper bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ima.attacks.boundary import CELLS, between, search_boundary
from ima.attacks.entering import as_seen
from ima.attacks.inputs import Bounds, Model
from ima.attacks.tangent import follow
from ima.attacks.walk import clamp, forward
from ima.budget import Budget, Progress
from ima.evaluation.attacks import check_radii
from ima.evaluation.batch import Batch, ColumnLists, clean_pass
from ima.evaluation.by_batch import Asked, by_batch
from ima.evaluation.decisions import copied, decide, put, values
from ima.evaluation.distances import NONE, Distance, Distances
from ima.evaluation.finders import FINDERS, Finder
from ima.evaluation.naming import Naming
from ima.evaluation.remarks import warn
from ima.evaluation.results import CLEAN
from ima.norms import Norm, get_norm, per_sample
from ima.tasks import Task, Tree, check_task, take
from ima.tasks.checked import check_standing
from ima.tasks.pixels import precise, wide

TANGENTS = 5
"""Steps along the tangent plane, from each point that was found."""


def minimal(
    model: nn.Module,
    data: Any,
    radii: Sequence[float] | float,
    *,
    norm: Norm | float | str = 2,
    bounds: Bounds = None,
    task: Task | None = None,
    batch_size: int = 256,
    seed: int = 0,
    keys: tuple[str, str] = ("image", "label"),
    ids: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    partial: str | Path | None = None,
    budget: Budget | None = None,
    distributed: bool = False,
) -> Distances:
    """The smallest noise that makes each sample wrong, as far as it was found.

    model: any module that returns what the task expects; it is left as it was.
    data: as `ima.evaluate` takes it.
    radii: of PGD, above 0, in x's units and `norm`. DDN and ALMA start at the middle one: they
        should be about as large as the distances.
    norm: of the noise, 2 or infinity, or a `Norm` of your own.
    bounds: lowest and highest value of x's entries; None: they have none. FAB needs them.
    task: what outputs mean; None: classification. Of masks, wrong is a Dice at the threshold.
    batch_size: of a data set's samples.
    seed: of all noise.
    keys: where x and y are in items that are dicts.
    ids: of the samples in the rows; None: their places.
    progress: is called with (batches done, batches, 0 where unknown).
    partial: a file that takes finished batches, so that the same call continues.
    budget: no batch is begun that may not fit into it, but for the first.
    distributed: True: the processes of `torch.distributed` share the batches, as in `ima.evaluate`.

    Returns `Distances`, upper bounds all. Raises as `ima.evaluate`.

    >>> import ima, torch
    >>> model = torch.nn.Linear(2, 3)
    >>> data = torch.utils.data.TensorDataset(torch.rand(8, 2), torch.arange(8) % 3)
    >>> found = ima.minimal(model, data, [0.1, 0.3])
    >>> 0 <= found.accuracy(0.3) <= found.accuracy(0.1) <= 1
    True
    """
    task, norm, naming = check_task(task), get_norm(norm), Naming.of(ids, None)
    sizes = check_radii(radii, "radii")
    if not sizes:
        raise ValueError("radii are empty; expected finite noise radii above 0, one or more")
    lacking = {finder.name: finder.lacks(task, norm, bounds) for finder in FINDERS}
    ran = [finder for finder in FINDERS if not lacking[finder.name]]
    shown = Progress.of(progress, budget)
    asked = Asked(norm, task, bounds, batch_size, seed, keys, naming, shown, partial, distributed)

    def work(model: Model, batch: Batch) -> ColumnLists:
        return _of_batch(model, batch, sizes, ran)

    names = [finder.name for finder in ran]
    done = by_batch(model, data, work, {"distances": names, "radii": sizes}, asked)
    warn(done.told["remarks"], stacklevel=2)
    del done.told["short"]
    settings = asked.settings(
        attacks=dict.fromkeys(names, ""),
        eps=tuple(sizes),
        left_out=tuple(f"{name} ({reason})" for name, reason in lacking.items() if reason),
        **done.told,
    )
    found = naming.columns(done.columns)
    listed = zip(*(found[one.name] for one in fields(Distance)), strict=True)
    return Distances(tuple(Distance(*values) for values in listed), settings)


def _of_batch(
    model: Model, batch: Batch, radii: Sequence[float], finders: Sequence[Finder]
) -> ColumnLists:
    x, y, setting, n = batch.x, batch.y, batch.setting, len(batch.places)
    task, box = setting.task, setting.box
    clean_pass(model, batch, "distance")
    prediction, correct = decide(task, forward(model, x), y, n)
    prediction, wrong = copied(prediction), ~correct
    distance = torch.where(wrong, 0.0, torch.inf).to(precise(x))
    names = [CLEAN if w else NONE for w in wrong.tolist()]
    (right,) = (~wrong).nonzero(as_tuple=True)
    for finder in finders if len(right) else ():
        clean, target, known = x[right], take(y, right), distance[right]
        found = finder.find(model, clean, target, known, radii, setting)
        found = as_seen(model, clamp(wide(found), box), wide(clean)).to(x.dtype)
        with setting.watcher.uncounted():
            found = follow(
                model, clean, target, found, norm=setting.norm, box=box, task=task, steps=TANGENTS
            )
        point, said, usable = _tightened(model, clean, target, found, task, box)
        far = setting.norm.size(wide(point) - wide(clean))
        closer = usable & (far < known)
        distance[right[closer]] = far[closer]
        put(prediction, right[closer], take(said, closer))
        if bool(closer.any()):
            setting.watcher.noisy(right[closer], forward(model, point[closer]), task)
        for at in right[closer].tolist():
            names[at] = finder.name
    distance = torch.where(torch.isfinite(distance), distance, torch.nan)
    return {
        "id": list(batch.places),
        "label": values(y, n),
        "prediction": values(prediction, n),
        "distance": distance.tolist(),
        "attack": names,
    }


def _tightened(
    model: Model,
    x: Tensor,
    y: Tree,
    found: Tensor,
    task: Task,
    box: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tree, Tensor]:
    """What was found, pulled back to where it is only just wrong.

    Returns points, predictions at them, and whether they are wrong there, (B,).
    """
    clean = forward(model, x)
    finite = torch.isfinite(found.flatten(1)).all(1) if found.ndim > 1 else torch.isfinite(found)
    found = torch.where(per_sample(finite, x), found, x)
    output, found = _wrong_again(model, x, y, found, task, box)
    point, said, usable = found.clone(), copied(task.predict(output)), ~task.correct(output, y)
    check_standing(task, output, y, ~usable)
    usable &= finite
    (index,) = usable.nonzero(as_tuple=True)
    if len(index) == 0:
        return point, said, usable
    scores = (task.score(clean, y)[index], task.score(output, y)[index])
    inside, outside, target = x[index], found[index], take(y, index)
    _, share = search_boundary(model, inside, outside, target, scores, task=task, bounds=box)
    left, step = torch.ones_like(index, dtype=torch.bool), 1 / CELLS
    while bool(left.any()):
        # In another batch a sum may round differently: a point that is right now moves on.
        candidate = between(model, inside, outside, share, box, inside)
        output = forward(model, candidate)
        wrong = left & ~task.correct(output, target)
        at = index[wrong]
        point[at] = candidate[wrong]
        put(said, at, take(task.predict(output), wrong))
        # What is right at its end now, as with random outputs, stays where it was seen wrong.
        left &= ~(wrong | (share >= 1))
        share, step = torch.where(left, (share + step).clamp(max=1), share), 2 * step
    return point, said, usable


def _wrong_again(
    model: Model,
    x: Tensor,
    y: Tree,
    found: Tensor,
    task: Task,
    box: tuple[Tensor, Tensor] | None,
) -> tuple[Tree, Tensor]:
    """Outputs at the points where an attack saw samples wrong, and the points.

    Who answers at random may be right there now: such a point moves on, to twice as far at most.
    """
    output = copied(forward(model, found))
    lost = task.correct(output, y) & (found != x).reshape(len(x), -1).any(1)
    beyond, found = 1 / CELLS, found.clone()
    while bool(lost.any()) and beyond <= 1:
        (at,) = lost.nonzero(as_tuple=True)
        share = torch.full((len(at),), 1 + beyond, dtype=precise(x), device=x.device)
        farther = between(model, x[at], found[at], share, box, x[at])
        new, target = forward(model, farther), take(y, at)
        wrong = ~task.correct(new, target)
        put(output, at[wrong], take(new, wrong))
        found[at[wrong]] = farther[wrong]
        lost[at[wrong]] = False
        beyond *= 2
    return output, found
