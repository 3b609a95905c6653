"""(a) and (d): what a training step of each method costs, in standard steps and over its floor.

Floor: the passes through the network that a step really needs, times the cost of a bare pass over
the same batch in the same run. Really needed are all gradient and training passes that the step
makes, counted by sample (a sample that has left a walk makes none), and its forward passes but for
a look at the clean samples whose answer only goes into the record. Whether fewer gradients would
do is for the method to say; question (b) sets IMA's against a textbook's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import textbook
from benchmarks.base import (
    BOUNDS,
    KINDS,
    Answer,
    Call,
    Counted,
    Kind,
    Target,
    Trained,
    World,
    counted,
    floor,
    interleaved,
    unit_calls,
)
from benchmarks.peers import Peer, training_peers
from ima import IMA, Method
from ima.methods import METHODS

LOOKED = ("mart", "fat", "gairat", "iaat", "curriculum", "ates", "dat")
"""Methods that look at the clean samples once more, for the record."""

PAPER = {"IMA (paper), Algorithm 2": False, "IMA (paper), Algorithm 3": True}
"""Names, and whether data are augmented."""

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def methods(world: World, batch: int, eps: float) -> dict[str, Method]:
    """All methods of the table, with their defaults, and IMA in its forms."""
    known: dict[str, Any] = {"num_samples": batch, "bounds": BOUNDS, "eps": eps}
    built: dict[str, Method] = {}
    for row in METHODS.values():
        taken = signature(row.method).parameters
        options = {name: known[name] for name in known if name in taken}
        if row.name == "ima":
            del options["eps"]
            built["IMA"] = IMA(**options)
            built["IMA, augmented"] = IMA(**options, augmented=True)
            for name, augmented in PAPER.items():
                built[name] = paper(world, batch, eps, augmented=augmented)
            continue
        if "steps" in taken:
            options["steps"] = world.steps
        built[row.name] = row.method(**options)
        # Schedules at their end, where they cost most.
        built[row.name].end_epoch(98, 100)
    return built


def paper(world: World, batch: int, eps: float, *, augmented: bool) -> IMA:
    """IMA with margins that grow, as in the paper."""
    return IMA(
        num_samples=batch,
        bounds=BOUNDS,
        eps=2 * eps,
        delta=eps / 100,
        steps=world.steps,
        augmented=augmented,
    )


def at_margins(method: Method, radius: float) -> Callable[[], None]:
    """Sets all margins of a method that grows them, so that every step is the same step."""
    if not isinstance(method, IMA) or method.measured is not None:
        return lambda: None
    ids = torch.arange(len(method.margins))
    return lambda: method.margins.update(ids, torch.full((len(ids),), radius))


def training_step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Loss, backward pass and optimiser; its rate is 0, so that every step meets one network."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def needed(name: str, passes: dict[Kind, int], batch: int) -> dict[Kind, int]:
    """The passes of a step without those that only go into its record."""
    return {**passes, "forward": passes["forward"] - batch * (name in LOOKED)}


def method_step(
    net: nn.Module, method: Method, on: Trained, ids: Tensor | None = None
) -> Callable[[], None]:
    """One training step of a method on all the samples; ids: 0 and up if None."""
    ids = torch.arange(len(on.x)) if ids is None else ids
    return training_step(net, lambda: method(net, on.x, on.y, ids).loss)


def run(world: World) -> Answer:
    """Time all methods, and what peers have of them, in one run."""
    on, eps = world.large, world.large.radius(0.5)
    net, batch = Counted(on.copy()).train(), len(on.x)
    built = methods(world, batch, eps)
    calls = unit_calls(net.inner, on.x, on.y)
    for name, method in built.items():
        calls[name] = Call(method_step(net, method, on), at_margins(method, eps))
    books: dict[str, Loss] = {
        "sat, textbook": partial(textbook.sat, eps=eps, steps=world.steps),
        "trades, textbook": partial(textbook.trades, eps=eps, steps=world.steps),
    }
    peers: list[Peer] = training_peers(world, eps)
    books |= {peer.name: peer.run for peer in peers if peer.run is not None}
    for name, loss in books.items():
        calls[name] = Call(training_step(net, partial(loss, net, on.x, on.y)))
    # The first call of each, which does not count, tells its passes; IMA's first visit has more.
    calls["IMA"].run()
    found = {name: counted(net, call) for name, call in calls.items()}
    taken = interleaved(calls, world.rounds, warm=False)
    answer = Answer(
        "Training steps",
        f"A step of {batch} samples on {on.name}: {1000 * taken['standard']:.0f} ms of processor "
        f"time by standard training, which is the unit. {world.steps} gradient steps where a "
        "method takes steps, radius at the median distance to the boundary. Passes are counted, "
        "in samples of the batch. The floor is what the passes cost that are really needed; over "
        "it: the step over its floor.",
        ("step", "standard steps", *(f"{kind} passes" for kind in KINDS), "floor", "over it"),
        unit="standard steps",
    )
    unit, worst = taken["standard"], 0.0
    none = ["-"] * (len(KINDS) + 2)
    for name in (*built, *books):
        cells = [name, f"{taken[name] / unit:.2f}"]
        answer.bars[name] = taken[name] / unit
        if name in built:
            least = floor(needed(name, found[name], batch), taken, batch)
            worst = max(worst, taken[name] / least)
            cells += [f"{found[name][kind] / batch:.2f}" for kind in KINDS]
            cells += [f"{least / unit:.2f}", f"{taken[name] / least:.2f}"]
        else:
            cells += none
        answer.rows.append(cells)
    answer.rows += [
        [peer.name, peer.lacks, *["-"] * (len(KINDS) + 2)] for peer in peers if peer.lacks
    ]
    answer.targets.append(Target("training step over its floor, the highest", 1.1, worst, True))
    for name in ("sat", "trades"):
        best = min(taken[book] for book in books if book.startswith(name))
        what = f"{name.upper()} step over the fastest peer's"
        answer.targets.append(Target(what, 1.0, taken[name] / best, True))
    return answer
