"""The work on a data set, batch by batch: read, recorded, within a budget, with noise of its own.

for each batch:
    on record? take its rows
    else: the work, on the model as `no_trace` gives it, with a generator seeded by the number
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import Generator, Tensor, nn

from ima.attacks.inputs import (
    Bounds,
    Model,
    check_entrance,
    check_samples,
    in_company,
    no_trace,
)
from ima.budget import Budget, OutOfTime, Progress
from ima.evaluation.batch import Batch, ColumnLists
from ima.evaluation.batches import Batches, device_of
from ima.evaluation.decisions import copied
from ima.evaluation.digest import DataDigest
from ima.evaluation.mates import meet
from ima.evaluation.naming import Naming
from ima.evaluation.partial import Finished, Partial, batch_mark, fingerprint, kept
from ima.evaluation.reading import Reader
from ima.evaluation.setting import Setting
from ima.evaluation.settings import EVERY_ENTRY, Settings
from ima.evaluation.verdict import refuse_end, verdict
from ima.evaluation.watch import Counts, OutputWatcher, Watched
from ima.norms import Norm
from ima.tasks import Task, Tree, given, tree_map

BatchWork = Callable[[Model, Batch], ColumnLists]
"""work(model, batch): the rows of one batch, as columns."""


@dataclass(frozen=True)
class Asked:
    """What every evaluation is asked for; see `evaluate`."""

    norm: Norm
    task: Task
    bounds: Bounds
    batch_size: int
    seed: int
    keys: tuple[str, str]
    naming: Naming
    progress: Progress
    partial: str | Path | None

    @property
    def record(self) -> dict[str, Any]:
        """What decides rows, beside the attacks, for the record of what is under way."""
        bounds = None if self.bounds is None else [batch_mark(bound, 0) for bound in self.bounds]
        task = repr(self.task).partition(" at 0x")[0]
        own = {"seed": self.seed, "batch size": self.batch_size}
        return {"norm": self.norm.name, "bounds": bounds, "task": task, **own}

    def settings(self, **more: Any) -> Settings:
        """What is known before any work, for the results."""
        return Settings(
            norm=self.norm.name,
            bounds=within(self.bounds),  # pyright: ignore[reportArgumentType]
            measure=given(self.task, "measure"),
            task=self.record["task"],
            seed=self.seed,
            made=datetime.now(UTC).date().isoformat(),
            **more,
        )


@dataclass(frozen=True)
class Done:
    """The rows of all batches, in order, as columns; first: the first sample, (1, *dims).

    told: settings that are known now: digests of weights and data, samples, seconds, remarks.
    """

    columns: ColumnLists
    first: Tensor
    told: dict[str, Any]


def within(bounds: Bounds) -> tuple[float, float] | str:
    """The bounds as settings hold them."""
    if bounds is None:
        return "none"
    low, high = bounds
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return EVERY_ENTRY
    return float(low), float(high)


@in_company
def by_batch(
    model: nn.Module,
    data: Any,
    work: BatchWork,
    settings: Mapping[str, Any],
    asked: Asked,
    before: Callable[[Tensor, Tree], None] | None = None,
) -> Done:
    """The rows of every batch.

    settings: what else decides the rows; a record of other settings, seed, batch size or weights
    is dropped. before: is shown the first batch, on the model's device, before any work.

    Raises ValueError for an empty data set, and for outputs that the task takes wrong decisions on;
    OutOfTime when the budget is spent.
    """
    device, task, naming = device_of(model), asked.task, asked.naming
    record, network = None, fingerprint(model)
    if asked.partial is not None:
        record = Partial(asked.partial, {**settings, **asked.record, "weights": network})
    known = [] if record is None else record.batches
    slowest = max((one.seconds for one in known), default=0.0)
    columns: ColumnLists = {}
    seconds, offset, first, met, digest = 0.0, 0, None, None, DataDigest()
    watcher, counts, budget = OutputWatcher(), Counts(), asked.progress.budget
    watched = Watched(model, watcher)
    parts = Batches(data, asked.batch_size, asked.keys, Reader(model, task), naming.key)
    naming.check(parts)
    total = parts.total
    for number, part in enumerate(parts):
        x, y = part.x, part.y
        total = total if number < total else 0
        naming.add(offset, len(x), part.cases)
        digest.add([naming.id(offset + i) for i in range(len(x))], x, y)
        sign = "" if record is None else batch_mark(x, y)
        x, y = x.to(device=device), tree_map(lambda t: t.to(device=device), y)
        # First: a network says of integers what nobody can follow.
        box = check_samples(x, asked.bounds)
        if number == 0:
            check_entrance(model, x)
        if number == 0 and before is not None:
            before(x, y)
        places = range(offset, offset + len(x))
        offset += len(x)
        finished = None if record is None else record.find(number, sign)
        if met is None or met.open:
            met = meet(model, x)
            watcher.start(task, met)
            refuse_end(watcher.kind, met.end)
        if finished is None:
            if budget is not None and not budget.admits(slowest):
                raise OutOfTime(_out_of_time(number, total, budget, slowest, asked.partial))
            started = time.monotonic()
            # A generator of its own for every batch: its noise does not depend on the others.
            source = Generator().manual_seed(asked.seed * 1_000_003 + number)
            watcher.begin(x)
            setting = Setting(asked.norm, task, box, source, watcher)
            with no_trace(watched, x) as inner:
                # Copies, because tensors of inference mode cannot take part in gradients.
                batch = Batch(x.detach().clone(), copied(y), places, setting)
                new = work(inner, batch)
            finished = Finished(sign, time.monotonic() - started, new, watcher.counts())
            slowest = max(slowest, finished.seconds)
            asked.progress.tell(number + 1, total)
            if record is not None:
                record.add(finished)
            if budget is not None:
                budget.did()
        else:
            asked.progress.tell(number + 1, total)
        for name, cells in finished.columns.items():
            columns.setdefault(name, []).extend(cells)
        counts += finished.counts
        seconds += finished.seconds
        first = x[:1] if first is None else first
    assert first is not None
    assert met is not None
    naming.end(offset)
    told = {
        "network": network,
        "data_sha256": digest.hex(),
        "entries": digest.entries,
        "samples": offset,
        "total": offset,
        "seconds": round(seconds, 1),
        "remarks": verdict(counts, watcher.kind, met),
    }
    return Done(columns, first, told)


def _out_of_time(
    number: int, total: int, budget: Budget, slowest: float, partial: str | Path | None
) -> str:
    return (
        f"the time is up after {number} of {total or 'several'} batches "
        f"({max(0, budget.left()):.0f} s are left, a batch took up to {slowest:.0f} s); "
        f"{kept(partial)}"
    )
