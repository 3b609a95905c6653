"""The work on a data set, batch by batch: read, recorded, within a budget, with noise of its own.

for each batch:
    on record? take its rows; of another process's share? leave it
    else: the work, on the model as `no_trace` gives it, with a generator seeded by the number
the rows of all batches, of all processes, in order
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
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
from ima.evaluation.mates import Met, meet
from ima.evaluation.naming import Naming
from ima.evaluation.partial import Finished, Partial, batch_mark, fingerprint, kept
from ima.evaluation.reading import Reader
from ima.evaluation.setting import Setting
from ima.evaluation.settings import EVERY_ENTRY, Settings
from ima.evaluation.share import Share
from ima.evaluation.short import Precision, check_precision, pays
from ima.evaluation.verdict import refuse_end, verdict
from ima.evaluation.watch import Counts, OutputWatcher, Watched
from ima.norms import Norm
from ima.tasks import Task, Tree, given, tree_map
from ima.tasks.task import Decision

BatchWork = Callable[[Model, Batch], ColumnLists]
"""work(model, batch): the rows of one batch, as columns."""


TRIAL = -1
"""The number, on record, of what a trial has found."""


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
    distributed: bool = False
    precision: Precision = "float32"

    @property
    def record(self) -> dict[str, Any]:
        """What decides rows, beside the attacks, for the record of what is under way."""
        bounds = None if self.bounds is None else [batch_mark(bound, 0) for bound in self.bounds]
        task = repr(self.task).partition(" at 0x")[0]
        own: dict[str, Any] = {"seed": self.seed, "batch size": self.batch_size}
        own |= {} if self.precision == "float32" else {"precision": self.precision}
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
    check_precision(asked.precision)
    device = device_of(model)
    share, record, network = Share.of(asked.distributed, model), None, fingerprint(model)
    if asked.precision == "auto" and share.world > 1:
        raise ValueError(
            "precision='auto' times one process, and several must do the same; say 'bfloat16' or "
            "'float32'"
        )
    if asked.partial is not None:
        record = Partial(asked.partial, {**settings, **asked.record, "weights": network}, share)
    # Before anyone writes, all must have read.
    share.gather(None)
    with share.together():
        read = _here(model, device, data, work, asked, before, share, record)
    columns, counts, seconds = _joined(share, read)
    if record is not None:
        record.end(read.batches)
    told = {
        "network": network,
        "data_sha256": read.digest.hex(),
        "entries": read.digest.entries,
        "samples": read.samples,
        "total": read.samples,
        "seconds": round(seconds, 1),
        "remarks": verdict(counts, read.kind, read.met),
    }
    told |= {"short": read.short}
    return Done(columns, read.first, told)


@dataclass(frozen=True)
class _Read:
    """What a process has read, and the batches that it has worked on or found on record.

    first: the first sample, (1, *dims); kind, met: of the model, see `OutputWatcher` and `meet`;
    short: whether gradients were short.
    """

    batches: dict[int, Finished]
    first: Tensor
    digest: DataDigest
    samples: int
    kind: Decision
    met: Met
    short: bool


def _here(
    model: nn.Module,
    device: torch.device | None,
    data: Any,
    work: BatchWork,
    asked: Asked,
    before: Callable[[Tensor, Tree], None] | None,
    share: Share,
    record: Partial | None,
) -> _Read:
    task, naming = asked.task, asked.naming
    known = {} if record is None else record.batches
    slowest = max((one.seconds for one in known.values()), default=0.0)
    here: dict[int, Finished] = {}
    tried = known.get(TRIAL)
    short = {"float32": False, "bfloat16": True, "auto": None}[asked.precision]
    if not given(task, "measure").binary:
        # Of a quality between 0 and 1 every point counts, and would need a second pass.
        short = False
    if short is None and tried is not None:
        short, here[TRIAL] = tried.mark == str(True), tried
    offset, first, met, digest = 0, None, None, DataDigest()
    watcher, budget = OutputWatcher(), asked.progress.budget
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
        first = x[:1] if first is None else first
        finished = None if record is None else record.find(number, sign)
        if met is None or met.open:
            met = meet(model, x)
            watcher.start(task, met)
            refuse_end(watcher.kind, met.end)
        if short is None:
            short = _tried(watched, x, y, task)
            if record is not None:
                record.add(TRIAL, Finished(str(short), 0.0, {}))
        if finished is None and share.mine(number):
            if budget is not None and not budget.admits(slowest):
                raise OutOfTime(_out_of_time(number, total, budget, slowest, asked.partial))
            started = time.monotonic()
            # A generator of its own for every batch: its noise does not depend on the others.
            source = Generator().manual_seed(asked.seed * 1_000_003 + number)
            watcher.begin(x)
            with no_trace(watched, x) as inner:
                # Copies, because tensors of inference mode cannot take part in gradients.
                x, y = x.detach().clone(), copied(y)
                setting = Setting(asked.norm, task, box, source, watcher, short)
                new = work(inner, Batch(x, y, places, setting))
            finished = Finished(sign, time.monotonic() - started, new, watcher.counts())
            slowest = max(slowest, finished.seconds)
            asked.progress.tell(number + 1, total)
            if record is not None:
                record.add(number, finished)
            if budget is not None:
                budget.did()
        else:
            asked.progress.tell(number + 1, total)
        if finished is not None:
            here[number] = finished
    assert first is not None
    assert met is not None
    naming.end(offset)
    return _Read(here, first, digest, offset, watcher.kind, met, bool(short))


def _tried(model: nn.Module, x: Tensor, y: Tree, task: Task) -> bool:
    """Whether gradients are short, from a trial on the first batch."""
    with no_trace(model, x) as inner:
        return pays(inner, x.detach().clone(), copied(y), task)


def _joined(share: Share, read: _Read) -> tuple[ColumnLists, Counts, float]:
    """Columns, counts and seconds of all batches; `read` gets those of the other processes.

    Raises ValueError where processes have read other data.
    """
    here = read.batches
    everyone = share.gather((read.digest.hex(), here))
    if len({data for data, _ in everyone}) > 1:
        raise ValueError(
            "the processes have read different data; each must get all of it, in the same order: "
            "pass the data set itself, without a DistributedSampler"
        )
    for _, found in everyone:
        here |= found
    columns: ColumnLists = {}
    counts, seconds = Counts(), 0.0
    for number, finished in sorted(here.items()):
        if number == TRIAL:
            continue
        for name, cells in finished.columns.items():
            columns.setdefault(name, []).extend(cells)
        counts += finished.counts
        seconds += finished.seconds
    return columns, counts, seconds


def _out_of_time(
    number: int, total: int, budget: Budget, slowest: float, partial: str | Path | None
) -> str:
    return (
        f"the time is up after {number} of {total or 'several'} batches "
        f"({max(0, budget.left()):.0f} s are left, a batch took up to {slowest:.0f} s); "
        f"{kept(partial)}"
    )
