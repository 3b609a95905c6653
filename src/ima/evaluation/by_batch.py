"""Work through a data set batch by batch, on record: what is finished is not done again.

for each batch:
    where the record has it: take its rows
    elsewhere: begin it if it fits into the time budget, or is the first of the call; work; record
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from torch import Generator, Tensor, nn

from ima.attacks.inputs import Bounds, together
from ima.budget import Budget, OutOfTime
from ima.evaluation.batches import Batches, device_of
from ima.evaluation.mates import meet
from ima.evaluation.naming import Naming
from ima.evaluation.partial import Batch, Partial, R, fingerprint, kept, mark
from ima.evaluation.reading import Reader
from ima.evaluation.remarks import as_setting
from ima.evaluation.results import NETWORK, Row
from ima.evaluation.watch import Counts, Watched, Watcher, refuse, verdict
from ima.norms import Norm
from ima.tasks import Task, Tree, tree_map

Work = Callable[[Watched, Tensor, Tree, range, Generator], list[R]]
"""work(model, x, y, ids, source) -> rows: of one batch, on the model's device.

source: of all noise; model: with a watcher, which is told what the work finds.
"""


@dataclass(frozen=True)
class Done(Generic[R]):
    """The rows of all batches, in order.

    network: a digest of its weights; first: the first sample, (1, *dims), on the device; remarks:
    what leaves the rows in doubt.
    """

    rows: tuple[R, ...]
    network: str
    samples: int
    seed: int
    seconds: float
    first: Tensor
    remarks: tuple[str, ...]

    def about(self) -> dict[str, str]:
        """How it was made, for the record."""
        return {
            NETWORK: self.network,
            "samples": str(self.samples),
            "seed": str(self.seed),
            "seconds": f"{self.seconds:.1f}",
            **as_setting(self.remarks),
        }


def measured_in(norm: Norm, bounds: Bounds, task: Task) -> dict[str, Any]:
    """Norm, bounds and task as a record's settings."""
    return {
        "norm": norm.name,
        "bounds": None if bounds is None else [mark(bound, 0) for bound in bounds],
        "task": repr(task).partition(" at 0x")[0],
    }


def within(bounds: Bounds) -> str:
    """The bounds in words, for the record."""
    if bounds is None:
        return "none"
    low, high = bounds
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return "of every entry"
    return f"{low:g} to {high:g}"


def in_words(summary: str, steps: int) -> str:
    """What an attack does, its N being `steps`, for the record."""
    return re.sub(r"\bN\b", str(steps), summary).rstrip(".")


@together
def by_batch(
    model: nn.Module,
    data: Any,
    work: Work[R],
    settings: Mapping[str, Any],
    *,
    task: Task,
    batch_size: int,
    seed: int,
    keys: tuple[str, str],
    progress: Callable[[int, int], None] | None,
    partial: Path | None,
    budget: Budget | None,
    read: Callable[..., Any] = Row,
    naming: Naming | None = None,
    before: Callable[[Tensor, Tree], None] | None = None,
) -> Done[R]:
    """The rows of every batch; arguments as of `evaluate`.

    settings: what else decides the rows; a record of other settings, seed, batch size or weights
    is dropped. read: makes a row of its values. naming: ids and cases that must fit the samples.
    before: is shown the first batch, on the model's device, before any work.

    Raises ValueError for an empty data set, and for outputs that the task takes wrong decisions on;
    OutOfTime when the budget is spent.
    """
    device = device_of(model)
    record, network = None, fingerprint(model)
    if partial is not None:
        own = {"seed": seed, "batch size": batch_size, "weights": network}
        record = Partial(partial, {**settings, **own}, read)
    known: list[Batch[R]] = [] if record is None else record.batches
    slowest = max((batch.seconds for batch in known), default=0.0)
    rows: list[R] = []
    seconds, offset, first, met = 0.0, 0, None, None
    watcher, counts = Watcher(), Counts()
    watched = Watched(model, watcher)
    naming = Naming() if naming is None else naming
    parts = Batches(data, batch_size, keys, Reader(model, task), naming.key)
    naming.check(parts)
    total = parts.total
    for number, part in enumerate(parts):
        x, y = part.x, part.y
        total = total if number < total else 0
        naming.add(offset, len(x), part.cases)
        if number == 0 and before is not None:
            before(x.to(device=device), tree_map(lambda t: t.to(device=device), y))
        ids = range(offset, offset + len(x))
        offset += len(x)
        sign = "" if record is None else mark(x, y)
        finished = None if record is None else record.find(number, sign)
        if met is None:
            met = meet(model, x.to(device=device))
            watcher.start(task, met)
            refuse(watcher.kind, met.end)
        if finished is None:
            if budget is not None and not budget.admits(slowest):
                raise OutOfTime(_out_of_time(number, total, budget, slowest, partial))
            started = time.monotonic()
            # A generator of its own for every batch: its noise does not depend on the others.
            source = Generator().manual_seed(seed * 1_000_003 + number)
            watcher.begin(len(x))
            there = tree_map(lambda t: t.to(device=device), y)
            new = work(watched, x.to(device=device), there, ids, source)
            seen = watcher.counts()
            finished = Batch(sign, time.monotonic() - started, tuple(new), seen)
            slowest = max(slowest, finished.seconds)
            if progress is not None:
                progress(number + 1, total)
            if record is not None:
                record.add(finished)
            if budget is not None:
                budget.did()
        elif progress is not None:
            progress(number + 1, total)
        rows += finished.rows
        counts += finished.counts
        seconds += finished.seconds
        first = x[:1].to(device=device) if first is None else first
    if first is None or met is None or not rows:
        raise ValueError(
            "the data set is empty; there is nothing to evaluate (what was read before and gives "
            "its samples once, such as a generator, is empty too)"
        )
    naming.end(offset)
    remarks = verdict(counts, watcher.kind, met)
    return Done(tuple(rows), network, offset, seed, seconds, first, remarks)


def _out_of_time(
    number: int, total: int, budget: Budget, slowest: float, partial: Path | None
) -> str:
    return (
        f"the time is up after {number} of {total or 'several'} batches "
        f"({max(0, budget.left()):.0f} s are left, a batch took up to {slowest:.0f} s); "
        f"{kept(partial)}"
    )
