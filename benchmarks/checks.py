"""How often inputs are checked and a model is put aside, which should be once a batch.

Counted over three batches of one attack at three radii.
"""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

from torch.utils.data import TensorDataset

from benchmarks.base import BOUNDS, Answer, World
from ima import evaluate
from ima.attacks.inputs import check_radius, check_samples, no_trace

WATCHED: tuple[Any, ...] = (check_samples, check_radius, no_trace)


def run(world: World) -> Answer:
    """Count the calls, and of `no_trace` those that are the outermost."""
    on, calls = world.small, Counter[str]()
    codes = {getattr(one, "__wrapped__", one).__code__: one.__name__ for one in WATCHED}
    third = len(on.x) // 3
    data = TensorDataset(on.x[: 3 * third], on.y[: 3 * third])
    radii = [on.radius(share) for share in (0.2, 0.5, 0.85)]
    name = f"pgd-{world.steps}"

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in codes:
            calls[codes[frame.f_code]] += 1

    sys.setprofile(watch)
    try:
        evaluate(on.frozen(), data, radii, name, bounds=BOUNDS, batch_size=third)
    finally:
        sys.setprofile(None)
    rows = [[one.__name__, str(calls[one.__name__])] for one in WATCHED]
    return Answer(
        "Checks",
        f"Calls in three batches of {name} at three radii, by `ima.evaluate`. (A generator such as "
        "`no_trace` is entered twice a use, on the way in and out.)",
        ("function", "calls"),
        rows,
    )
