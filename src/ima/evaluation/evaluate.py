"""Attack a trained model on a data set, from the smallest noise radius to the largest.

for each batch:
    clean pass; samples that are wrong count as broken everywhere
    for each attack, for eps ascending: attack the samples that still stand
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ima.attacks.inputs import Bounds, no_trace
from ima.attacks.walk import forward
from ima.budget import Budget, OutOfTime
from ima.evaluation.attacks import AttackRow, find_attack
from ima.evaluation.autoattack import describe
from ima.evaluation.batches import batches, pair
from ima.evaluation.lifted import unit_box
from ima.evaluation.one_batch import WORST, Example, attack_batch
from ima.evaluation.partial import Batch, Partial, fingerprint, mark
from ima.evaluation.results import CLEAN, Results, Row
from ima.evaluation.setting import Setting
from ima.norms import Norm, get_norm
from ima.tasks import Classification, Task


def evaluate(
    model: nn.Module,
    data: Any,
    eps: Sequence[float] | float,
    attacks: Sequence[str] = ("pgd-100",),
    *,
    norm: Norm | float | str = 2,
    bounds: Bounds = None,
    task: Task | None = None,
    batch_size: int = 256,
    seed: int = 0,
    keys: tuple[str, str] = ("image", "label"),
    keep: Callable[[Example], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    partial: Path | None = None,
    budget: Budget | None = None,
) -> Results:
    """The model's predictions on every sample: clean, and under each attack at each eps.

    data: a map-style data set of (x, y), or an iterable of batches (x, y); eps: noise radii in
    x's units and `norm`, above 0; attacks: names such as `"pgd-100"`; bounds: of x's entries;
    seed: of all noise; keys: where x and y are in batches that are dicts. keep is called with
    every sample that an attack was tried on; progress with (batches done, batches, 0 where
    unknown). A sample broken at a smaller eps stays broken at a larger one, and is not attacked
    again. With several attacks, `"worst case"` counts a sample as broken when any broke it.

    partial: a file that takes every batch when it is done, after `progress` was called. The same
    call with the same file continues where it was stopped or killed, and gives the same results;
    keep is not called for finished batches again. The file stays; delete it when done.
    budget: no batch is begun that may not fit into it, judged by the slowest so far.

    Raises ValueError for an empty data set, unknown attacks, inputs outside bounds and outputs
    that do not fit the labels; FloatingPointError where the model's output is not finite;
    OutOfTime when the budget is spent.
    """
    radii = sorted(set(torch.as_tensor(eps, dtype=torch.float64).flatten().tolist()))
    if not all(0 < radius < float("inf") for radius in radii):
        raise ValueError(f"eps are {radii}; expected finite noise radii above 0")
    attacks = [attacks] if isinstance(attacks, str) else list(attacks)
    found = [(name, *find_attack(name)) for name in dict.fromkeys(attacks)]
    task = Classification() if task is None else task
    norm = get_norm(norm)
    if bounds is None and any(row.whole for _, row, _ in found):
        unit_box(None)
    names = [name for name, *_ in found]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    record = None
    if partial is not None:
        settings = {
            "attacks": names,
            "eps": radii,
            "norm": norm.name,
            "bounds": None if bounds is None else [mark(bound, 0) for bound in bounds],
            "task": repr(task).partition(" at 0x")[0],
            "seed": seed,
            "batch size": batch_size,
            "weights": fingerprint(model),
        }
        record = Partial(partial, settings)
    done: list[Batch] = [] if record is None else record.batches
    slowest = max((batch.seconds for batch in done), default=0.0)
    rows: list[Row] = []
    about: dict[str, str] = {}
    seconds, offset = 0.0, 0
    parts = batches(data, batch_size)
    total = len(parts) if hasattr(parts, "__len__") else 0
    for number, batch in enumerate(parts):
        x, y = pair(batch, keys)
        ids = range(offset, offset + len(x))
        offset += len(x)
        sign = "" if record is None else mark(x, y)
        finished = None if record is None else record.find(number, sign)
        if finished is None:
            if budget is not None and budget.left() < slowest:
                raise OutOfTime(_out_of_time(number, total, budget, slowest, partial))
            started = time.monotonic()
            # A generator of its own for every batch: its noise does not depend on the others.
            source = Generator().manual_seed(seed * 1_000_003 + number)
            setting = Setting(norm, task, bounds, source)
            x, y = x.to(device), y.to(device)
            new = attack_batch(model, x, y, ids, radii, found, setting, keep)
            finished = Batch(sign, time.monotonic() - started, tuple(new))
            slowest = max(slowest, finished.seconds)
            if progress is not None:
                progress(number + 1, total)
            if record is not None:
                record.add(finished)
        elif progress is not None:
            progress(number + 1, total)
        rows += finished.rows
        seconds += finished.seconds
        about = about or _about(model, x[:1].to(device), found, norm)
    if not rows:
        raise ValueError("the data set is empty; there is nothing to evaluate")
    order = {CLEAN: 0, **{name: 1 + i for i, name in enumerate([*names, WORST])}}
    rows.sort(key=lambda row: (order[row.attack], row.eps, row.id))
    about |= {"samples": str(offset), "seed": str(seed), "seconds": f"{seconds:.1f}"}
    return Results(tuple(rows), norm.name, about)


def _about(
    model: nn.Module, x: Tensor, attacks: list[tuple[str, AttackRow, int]], norm: Norm
) -> dict[str, str]:
    """What the attacks that are made of parts did run, by name."""
    whole = [name for name, row, _ in attacks if row.whole]
    if not whole:
        return {}
    with no_trace(model, x) as inner:
        classes = Classification().logits(forward(inner, x)).shape[1]
    return {name: describe(name, classes, x.shape[1:], norm) for name in whole}


def _out_of_time(
    number: int, total: int, budget: Budget, slowest: float, partial: Path | None
) -> str:
    kept = (
        "nothing is kept: pass partial=FILE next time"
        if partial is None
        else f"what is finished is in {partial}: run the same again to continue"
    )
    return (
        f"the time is up after {number} of {total or 'several'} batches "
        f"({max(0, budget.left()):.0f} s are left, a batch took up to {slowest:.0f} s); {kept}"
    )
