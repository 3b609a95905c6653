"""How long an evaluation takes at most, told before it begins.

time one gradient of the input on the first batch
times what the attacks need of them, for each radius and batch, if nothing is broken
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence

from ima.attacks.inputs import no_trace
from ima.attacks.walk import ascent
from ima.evaluation.attacks import find_attacks
from ima.evaluation.batches import Batches, device_of
from ima.evaluation.reading import Reader
from ima.evaluation.subject import Subject
from ima.norms import get_norm
from ima.tasks import given, objective_of, tree_map


def foresee(subject: Subject, eps: Sequence[float], attacks: Sequence[str]) -> float:
    """Seconds that the attacks take at most; NaN where that cannot be known.

    What is wrong without noise, or broken early, takes less.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _at_most(subject, eps, attacks)
    except Exception:  # Whatever is wrong with network or data, the evaluation says it by name.
        return math.nan


def _at_most(subject: Subject, eps: Sequence[float], attacks: Sequence[str]) -> float:
    reader = Reader(subject.model, subject.task)
    batches = Batches(subject.data, subject.batch_size, ("image", "label"), reader)
    if not batches.again or not batches.total:
        return math.nan
    device, first = device_of(subject.model), next(iter(batches))
    x, y = first.x.to(device=device), tree_map(lambda t: t.to(device=device), first.y)
    taken, classes = math.inf, 2
    with no_trace(subject.model, x) as model:
        # The first pass of all warms up.
        for _ in range(2):
            begun = time.perf_counter()
            leaf = x.detach().clone().requires_grad_()
            output = model(leaf)
            gradient, _ = ascent(output, leaf, y, objective_of(subject.task))
            # Reading a number waits for the device.
            gradient.flatten()[0].item()
            taken = min(taken, time.perf_counter() - begun)
            classes = given(subject.task, "classes")(output, y) or 2
    found = find_attacks(attacks, subject.task, get_norm(subject.norm), subject.bounds)
    passes = sum(row.passes(steps, classes) for _, row, steps in found)
    return taken * passes * len(set(eps)) * batches.total
