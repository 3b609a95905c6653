"""What the questions share: networks and samples, a clock, counted passes, and answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ima import IMA, ddn
from ima.data import Part, load
from ima.networks import build

BOUNDS = (0, 1)


@dataclass(frozen=True)
class Trained:
    """A network that is trained a little, and samples that it has right.

    x: (N, *dims) in [0, 1]; y: (N,); distances: (N,), the smallest noise that DDN finds.
    """

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    distances: Tensor

    def radius(self, share: float) -> float:
        """The noise radius within which this share of the samples can be broken."""
        return float(self.distances.quantile(share))

    def copy(self) -> nn.Module:
        """The network once more, in training mode."""
        return deepcopy(self.model).train()

    def frozen(self) -> nn.Module:
        """The network once more, for evaluation: its weights need no gradient."""
        return deepcopy(self.model).eval().requires_grad_(False)


@dataclass(frozen=True)
class World:
    """What is measured on.

    large, small: the paper's CNN, and a network of a fifth of its cost; rounds:
    turns of each side; steps: of a training walk; samples: of an evaluation; authors:
    their checkout, or None; image_ms: milliseconds of a standard step an image of ImageNet takes,
    or None.
    """

    large: Trained
    small: Trained
    rounds: int
    steps: int
    attack_steps: int
    samples: int
    quick: bool
    authors: Path | None = None
    image_ms: float | None = None


@dataclass(frozen=True)
class Target:
    """What the project aims at, and what was found; found is None where it could not be measured.

    most: whether `aim` is the most that is allowed, else the least.
    """

    what: str
    aim: float
    found: float | None
    most: bool

    @property
    def verdict(self) -> str:
        """In one word."""
        if self.found is None:
            return "not measured"
        return (
            "met" if (self.found <= self.aim if self.most else self.found >= self.aim) else "missed"
        )


@dataclass
class Answer:
    """The answer to one question.

    rows: cells, numbers or words, one list a row; bars: what the chart shows, by label; unit: of
    the bars.
    """

    title: str
    text: str
    columns: Sequence[str]
    rows: list[list[str]] = field(default_factory=list[list[str]])
    bars: dict[str, float] = field(default_factory=dict[str, float])
    unit: str = ""
    targets: list[Target] = field(default_factory=list[Target])


@dataclass(frozen=True)
class Call:
    """What is timed, and what comes before it and is not."""

    run: Callable[[], object]
    before: Callable[[], object] = lambda: None


def interleaved(calls: Mapping[str, Call], rounds: int, *, warm: bool = True) -> dict[str, float]:
    """The median of each call's processor time in seconds; they take turns.

    Time of this process, so that others on the machine count less. warm: whether a first round,
    which does not count, comes before.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + warm):
        for name, call in calls.items():
            call.before()
            begun = process_time()
            call.run()
            if number >= warm:
                taken[name].append(process_time() - begun)
    return {name: median(times) for name, times in taken.items()}


Kind = Literal["forward", "gradient", "training"]
KINDS: tuple[Kind, ...] = ("forward", "gradient", "training")
"""Passes: without a graph; with the gradient of the input; with that of the weights."""


class Counted(nn.Module):
    """A network whose passes are counted, by sample and kind."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.begin()

    def begin(self) -> None:
        """Count from 0."""
        self.passes: dict[Kind, int] = dict.fromkeys(KINDS, 0)

    def forward(self, x: Tensor) -> Any:
        """The inner network's output."""
        kind: Kind = "forward"
        if torch.is_grad_enabled():
            kind = "gradient" if x.requires_grad else "training" if self.training else "forward"
        self.passes[kind] += len(x)
        return self.inner(x)


def counted(network: Counted, call: Call) -> dict[Kind, int]:
    """The passes that a call makes, in samples."""
    call.before()
    network.begin()
    call.run()
    return network.passes


def unit_calls(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Call]:
    """One bare pass of each kind over a batch, to be timed beside what is made of them."""
    frozen = deepcopy(model).eval().requires_grad_(False)

    def forward() -> None:
        with torch.no_grad():
            frozen(x)

    def gradient() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(frozen(leaf), y, reduction="sum"), leaf)

    def training() -> None:
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()

    return {"forward": Call(forward), "gradient": Call(gradient), "training": Call(training)}


def floor(passes: Mapping[Kind, float], seconds: Mapping[str, float], batch: int) -> float:
    """What passes, counted by sample, cost at least; seconds: of a bare pass over a batch."""
    return sum(passes[kind] * seconds[kind] / batch for kind in KINDS)


def train(name: str, data: Part, test: Part, *, epochs: int, keep: int, **options: Any) -> Trained:
    """A network after a few epochs of IMA, and the first test samples that it has right."""
    torch.manual_seed(0)
    model = build(name, data.images.shape[1], 10, **options).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    method = IMA(num_samples=len(data), bounds=BOUNDS)
    source = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        for index in torch.randperm(len(data), generator=source).split(64):
            step = method(model, *data[index], index)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
        method.end_epoch(epoch, epochs)
    model.eval().zero_grad()
    x, y = test[torch.arange(min(len(test), 8 * keep))]
    with torch.no_grad():
        right = torch.cat([model(part) for part in x.split(64)]).argmax(1) == y
    x, y = x[right][:keep], y[right][:keep]
    found = ddn(model, x, y, bounds=BOUNDS, radius=float(method.margins.values.median()))
    return Trained(name, model, x, y, found.distance.nan_to_num(nan=torch.inf))


def world(*, quick: bool, authors: Path | None) -> World:
    """Train the networks, on data that everyone has: scikit-learn's scans of digits."""
    digits = load("digits")
    parts = (digits.train, digits.test)
    if quick:
        tiny = train("small_cnn", *parts, epochs=3, keep=32, width=8)
        return World(tiny, tiny, 1, 3, 5, 16, True, authors)
    # The size of the paper's images.
    large = [
        Part(F.interpolate(x, (32, 32), mode="bilinear").repeat(1, 3, 1, 1), y)
        for x, y in (part[list(range(len(part)))] for part in parts)
    ]
    paper = train("paper_cnn", large[0], large[1], epochs=5, keep=128)
    small = train("small_resnet", large[0], large[1], epochs=5, keep=128)
    return World(paper, small, 2, 20, 100, 48, False, authors)
