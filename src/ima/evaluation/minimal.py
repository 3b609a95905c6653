"""Minimal distances: for every sample the smallest noise that any of several attacks finds.

wrong without noise: 0
else, for each attack: point = what it finds
                       look at it: finite, inside the bounds, wrong?
                       bisect from x to the point, to 1/1024 of the way; look at the end again
     the smallest

DDN with the loss and with the margin (Rony et al., CVPR 2019), FAB (Croce & Hein, ICML 2020; the
authors' code), and PGD at given radii, where it can still find less. All are upper bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ima.attacks.boundary import CELLS, between, search
from ima.attacks.entering import as_seen
from ima.attacks.inputs import Bounds, Model, check_samples, no_trace
from ima.attacks.walk import forward, into
from ima.budget import Budget
from ima.evaluation.by_batch import by_batch, measured_in
from ima.evaluation.decisions import copied, decide, put, values
from ima.evaluation.distances import NONE, Distance, Distances
from ima.evaluation.finders import FINDERS, Finder
from ima.evaluation.naming import Naming
from ima.evaluation.remarks import warn
from ima.evaluation.results import CLEAN, Row
from ima.evaluation.setting import Setting
from ima.evaluation.watch import Watched
from ima.norms import Norm, get_norm, per_sample
from ima.tasks import Task, Tree, check_fit, check_task, sound, take
from ima.tasks.checked import check_standing
from ima.tasks.pixels import precise, wide


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
    partial: Path | None = None,
    budget: Budget | None = None,
) -> Distances:
    """The smallest noise that makes each sample wrong, as far as it was found.

    radii: of PGD, above 0, in x's units and `norm`; the middle one is also where DDN starts, so
    they should be about as large as the distances. Other arguments, `partial`, `budget` and what
    is raised: as of `evaluate`. FAB runs for classification with bounds only.
    """
    task = check_task(task)
    sizes = sorted(set(torch.as_tensor(radii, dtype=torch.float64).flatten().tolist()))
    if not sizes or not all(0 < radius < float("inf") for radius in sizes):
        raise ValueError(f"radii are {sizes}; expected finite noise radii above 0, one or more")
    naming = Naming.of(ids, None)
    norm = get_norm(norm)
    probe = Setting(norm, task, bounds, Generator())
    ran = [finder for finder in FINDERS if not finder.lacks(probe)]
    left_out = [f"{f.name} ({f.lacks(probe)})" for f in FINDERS if f.lacks(probe)]
    names = [finder.name for finder in ran]

    def work(watched: Watched, x: Tensor, y: Tree, ids: range, source: Generator) -> list[Row]:
        setting = Setting(norm, task, bounds, source, watched.watcher)
        return _of_batch(watched, x, y, ids, sizes, ran, setting)

    settings = {"distances": names, "radii": sizes, **measured_in(norm, bounds, task)}
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
        naming=naming,
    )
    warn(done.remarks, stacklevel=2)
    about = {"attacks": ", ".join(names), "radii": ", ".join(f"{size:g}" for size in sizes)}
    if left_out:
        about["left out"] = ", ".join(left_out)
    rows = (
        Distance(r.id, r.label, r.prediction, r.distance, r.attack) for r in naming.rows(done.rows)
    )
    return Distances(tuple(rows), norm.name, about | done.about())


def _of_batch(
    model: nn.Module,
    x: Tensor,
    y: Tree,
    ids: range,
    radii: list[float],
    finders: Sequence[Finder],
    setting: Setting,
) -> list[Row]:
    task = setting.task
    box = check_samples(x, setting.bounds)
    with no_trace(model, x) as inner:
        # Copies, because tensors of inference mode cannot take part in gradients.
        x, y = x.detach().clone(), copied(y)
        output = forward(inner, x)
        check_fit(task, output, y, len(x))
        if not sound(output):
            raise FloatingPointError(
                f"the model's output is not finite on samples {ids[0]} to {ids[-1]}; its weights "
                "or its inputs are damaged, and no distance can be stated"
            )
        setting.watcher.clean(output, y, task)
        prediction, correct = decide(task, output, y, len(x))
        prediction, wrong = copied(prediction), ~correct
        distance = torch.where(wrong, 0.0, torch.inf).to(precise(x))
        names = [CLEAN if w else NONE for w in wrong.tolist()]
        (right,) = (~wrong).nonzero(as_tuple=True)
        for finder in finders if len(right) else ():
            clean, target, known = x[right], take(y, right), distance[right]
            found = finder.find(inner, clean, target, known, radii, setting)
            found = as_seen(inner, into(wide(found), box), wide(clean)).to(x.dtype)
            point, said, usable = _tightened(inner, clean, target, found, task, box)
            far = setting.norm.size(wide(point) - wide(clean))
            closer = usable & (far < known)
            distance[right[closer]] = far[closer]
            put(prediction, right[closer], take(said, closer))
            if bool(closer.any()):
                setting.watcher.noisy(right[closer], forward(inner, point[closer]), task)
            for at in right[closer].tolist():
                names[at] = finder.name
    distance = torch.where(torch.isfinite(distance), distance, torch.nan)
    said = [values(tree, len(x)) for tree in (y, prediction)]
    columns = zip(ids, said[0], names, said[1], distance.tolist(), strict=True)
    return [Row(i, label, name, 0.0, p, name != NONE, d) for i, label, name, p, d in columns]


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
    output = forward(model, found)
    point, said, usable = found.clone(), copied(task.predict(output)), ~task.correct(output, y)
    check_standing(task, output, y, ~usable)
    usable &= finite
    (index,) = usable.nonzero(as_tuple=True)
    if len(index) == 0:
        return point, said, usable
    scores = (task.score(clean, y)[index], task.score(output, y)[index])
    inside, outside, target = x[index], found[index], take(y, index)
    _, share = search(model, inside, outside, target, scores, task=task, bounds=box)
    left, step = torch.ones_like(index, dtype=torch.bool), 1 / CELLS
    while bool(left.any()):
        # In another batch a sum may round differently: a point that is right now moves on.
        candidate = between(model, inside, outside, share, box, inside)
        output = forward(model, candidate)
        wrong = ~task.correct(output, target)
        settled = left & (wrong | (share >= 1))
        at = index[settled]
        point[at] = candidate[settled]
        put(said, at, take(task.predict(output), settled))
        usable[at] = wrong[settled]
        left &= ~settled
        share, step = torch.where(left, (share + step).clamp(max=1), share), 2 * step
    return point, said, usable
