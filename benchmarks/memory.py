"""(e): the most memory that a training step of each method holds beyond what it began with.

On the CPU: bytes that torch's allocator gave less those that it took back, in their order, as
`torch.profiler` records them. Weights and the optimiser's state are there before a step; what
remains, its activations above all, is what grows with the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.base import Answer, Target, World
from benchmarks.steps import at_margins, method_step, methods

MOST = 2.1
"""An IMA step's peak in standard steps, at most."""


def peak(run: Callable[[], object]) -> int:
    """The most bytes that a run holds at once beyond those at its start."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    traced: Any = record.profiler
    events = [one for one in traced.kineto_results.events() if one.name() == "[memory]"]
    held, most = 0, 0
    for one in sorted(events, key=lambda event: event.start_ns()):
        held += one.nbytes()
        most = max(most, held)
    return most


def run(world: World) -> Answer:
    """One step of each method, after one that met its samples."""
    on, eps = world.large, world.large.radius(0.5)
    net, found = on.copy(), dict[str, int]()
    # However many steps a walk takes, it holds one at a time.
    world = replace(world, steps=3)
    for name, method in methods(world, len(on.x), eps).items():
        step, before = method_step(net, method, on), at_margins(method, eps)
        before()
        step()
        before()
        found[name] = peak(step)
    unit = found["standard"]
    answer = Answer(
        "Peak memory of a training step",
        f"{len(on.x)} samples on {on.name}; beyond weights and optimiser, a standard step holds "
        f"{unit / 2**20:.0f} MiB at its peak, nearly all of it activations.",
        ("step", "MiB", "standard steps"),
        unit="standard steps",
    )
    for name, held in found.items():
        answer.rows.append([name, f"{held / 2**20:.0f}", f"{held / unit:.2f}"])
        answer.bars[name] = held / unit
    forms = [held / unit for name, held in found.items() if name.startswith("IMA")]
    answer.targets.append(
        Target("peak memory of an IMA step over a standard step's", MOST, max(forms), True)
    )
    return answer
