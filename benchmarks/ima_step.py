"""(b): a step of IMA, the paper's and the default, over a textbook step and the authors' code.

All margins stand at one radius, that of the 25th, 50th and 75th percentile of the distances; the
default measures its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import textbook
from benchmarks.base import BOUNDS, Answer, Call, World, interleaved, unit_calls
from benchmarks.peers import released
from benchmarks.steps import at_margins, method_step, paper, training_step
from ima import IMA

SHARES = (0.25, 0.5, 0.75)

Paper = Callable[[nn.Module, Tensor, Tensor, Tensor, float], Tensor]
"""run(model, x, y, margins, delta) gives the loss."""


def book(world: World, algorithm: int) -> Paper:
    """The textbook's step."""
    return lambda model, x, y, margins, delta: textbook.ima(
        model, x, y, margins, delta, world.steps, algorithm
    )[0]


def run(world: World) -> Answer:
    """Time the three sides at three radii, in one run."""
    on = world.large
    net, batch = on.copy(), len(on.x)
    calls = {"standard": unit_calls(net, on.x, on.y)["training"]}
    default = IMA(num_samples=batch, bounds=BOUNDS)
    calls["default"] = Call(method_step(net, default, on))
    places: dict[str, tuple[float, int]] = {}
    for share in SHARES:
        radius = on.radius(share)
        margins = torch.full((batch,), radius)
        for algorithm in (2, 3):
            place = f"{share}, {algorithm}"
            method = paper(world, batch, radius, augmented=algorithm == 3)
            calls[f"ima {place}"] = Call(method_step(net, method, on), at_margins(method, radius))
            others = {"textbook": book(world, algorithm), "authors": released(world, algorithm)}
            for side, loss in others.items():
                if loss is not None:
                    step = training_step(
                        net,
                        lambda loss=loss, margins=margins, radius=radius: loss(
                            net, on.x, on.y, margins, radius / 100
                        ),
                    )
                    calls[f"{side} {place}"] = Call(step)
            places[place] = (share, algorithm)
    # Its first visits take one gradient more.
    calls["default"].run()
    taken = interleaved(calls, world.rounds, warm=False)
    unit = taken["standard"]
    answer = Answer(
        "A step of IMA",
        "In standard steps. Textbook: Algorithm 1 in plain PyTorch with an active set and ten "
        "halvings, `benchmarks/textbook.py`. Authors: their released code, with the options of "
        f"its scripts, where `--authors` names a checkout. {world.steps} gradient steps; the "
        f"default takes its own, and costs {taken['default'] / unit:.2f} standard steps.",
        (
            *("margins at", "algorithm", "ima", "textbook", "authors"),
            *("ima over textbook", "ima over authors", "default over textbook"),
        ),
        unit="over the textbook",
    )
    for place, (share, algorithm) in places.items():
        mine, plain = taken[f"ima {place}"], taken[f"textbook {place}"]
        theirs = taken.get(f"authors {place}")
        label = f"{share:.0%} of distances, Algorithm {algorithm}"
        answer.bars[label] = mine / plain
        answer.rows.append(
            [
                f"{share:.0%} of distances",
                str(algorithm),
                f"{mine / unit:.1f}",
                f"{plain / unit:.1f}",
                "no checkout" if theirs is None else f"{theirs / unit:.1f}",
                f"{mine / plain:.2f}",
                "-" if theirs is None else f"{mine / theirs:.2f}",
                f"{taken['default'] / plain:.2f}",
            ]
        )
    answer.bars["default over the cheapest textbook step"] = taken["default"] / min(
        taken[f"textbook {place}"] for place in places
    )
    return answer
