"""The samples of the checks: those that the model has right, the same ones for a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ima.attacks.inputs import Bounds, check_entrance, check_samples
from ima.attacks.walk import eval_forward
from ima.evaluation.batches import Batches, device_of
from ima.evaluation.decisions import decide
from ima.evaluation.mates import Met, meet
from ima.evaluation.reading import Reader
from ima.evaluation.verdict import refuse_end, verdict
from ima.evaluation.watch import Counts, OutputWatcher, Watched
from ima.tasks import Task, Tree, check_fit, leaves, sound, take, tree_map

BATCH = 250

LEAST = 3
"""No check trips on fewer samples."""


@dataclass(frozen=True)
class Chosen:
    """Samples x (n, *dims) and targets y, on the model's device.

    correct, total: how many of all samples the model has right; met, counts: what was seen of its
    outputs.
    """

    x: Tensor
    y: Tree
    correct: int
    total: int
    met: Met
    counts: Counts


def choose_samples(
    model: nn.Module,
    data: Any,
    task: Task,
    bounds: Bounds,
    samples: int,
    seed: int,
    keys: tuple[str, str],
    watcher: OutputWatcher | None = None,
) -> Chosen:
    """At most `samples` samples that the model has right, each with the same chance.

    watcher: sees the outputs. Raises ValueError for data without at least three of them, and as
    `ima.evaluate` does for samples, labels and outputs that do not fit.
    """
    watcher = OutputWatcher() if watcher is None else watcher
    watched = Watched(model, watcher)
    met, counts = None, Counts()
    device = device_of(model)
    source = Generator().manual_seed(seed)
    kept: Tree = None
    right = total = 0
    for part in Batches(data, BATCH, keys, Reader(model, task)):
        x, y = part.x, part.y
        x, y = x.to(device=device), tree_map(lambda t: t.to(device=device), y)
        if kept is not None and x.shape[1:] != kept[1].shape[1:]:
            raise ValueError(
                f"samples {total} to {total + len(x) - 1} have shape {tuple(x.shape[1:])}, earlier "
                f"ones {tuple(kept[1].shape[1:])}; the checks hold samples against each other in "
                "one batch, so they need samples of one shape: crop or pad them, or leave the "
                "checks out"
            )
        check_samples(x, bounds)
        if met is None or met.open:
            check_entrance(model, x)
            met = meet(model, x)
            watcher.start(task, met)
            refuse_end(watcher.kind, met.end)
        watcher.begin(x)
        output = eval_forward(watched, x)
        check_fit(task, output, y, len(x))
        if not sound(output):
            raise FloatingPointError(
                f"the model's output is not finite on batch of samples {total} to "
                f"{total + len(x) - 1}; its weights or its inputs are damaged, and nothing can be "
                "said about its accuracy"
            )
        watcher.clean(output, y, task)
        counts += watcher.counts()
        _, correct = decide(task, output, y, len(x))
        right, total = right + int(correct.sum()), total + len(x)
        # Every sample draws a lot, and the lowest stay: one pass, also over data without a length.
        lots = torch.rand(len(x), generator=source).to(x.device)
        new = take((lots, x, y), correct)
        if kept is not None:
            new = _both(kept, new)
        kept = take(new, new[0].argsort()[:samples].sort().values)
    if met is not None:
        # Where decisions are wrong, too few samples are right: that is the better reason.
        verdict(counts, watcher.kind, met)
    if met is None or kept is None or len(kept[0]) < LEAST:
        raise ValueError(
            f"the model is right on {right} of {total} samples; the checks need at least {LEAST}: "
            "see that weights, labels and scaling of the inputs belong together"
        )
    _, x, y = kept
    return Chosen(x, y, right, total, met, counts)


def _both(some: Tree, more: Tree) -> Tree:
    """The samples of two trees of one shape."""
    pairs = iter(zip(leaves(some), leaves(more), strict=True))
    return tree_map(lambda _: torch.cat(next(pairs)), more)
