"""A model whose outputs are watched while it is attacked, and what that says of the figures.

on every pass: do outputs lie between 0 and 1? do they sum to 1? did a gradient reach the input?
on clean samples: would a decision at 0.5 fit the labels better than one at 0?
on what attacks found: is the output a number at all?

Counted by batch, so that the record of an evaluation carries it. Decided over all batches: those
of a few honest logits may lie between 0 and 1 by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from ima.attacks.entering import by_sample
from ima.attacks.inputs import in_precision, inside
from ima.evaluation.mates import Met
from ima.tasks import Classification, Task, Tree, full, given, leaves
from ima.tasks.task import Decision

_LEAST = 1e-4
"""So far from 1 the sum of a softmax may be in float32."""


@dataclass(frozen=True)
class Counts:
    """What was seen on some batches; counts of two parts of the data add up.

    samples: all; beyond: batches with outputs outside [0, 1]; uneven: with outputs that do not sum
    to 1; above: with clean outputs above 0, low, high: below and above 0.5; at_zero, at_half:
    decisions that fit the labels when taken at 0 and at 0.5; attacked: samples that were attacked
    along a gradient; still: so many of those, at least, that no gradient ever reached;
    broken: samples at whose noise the output was not finite; below: batches with clean outputs of 0
    or less. Of clean outputs by their labels: how many, their sum and their sum of squares.
    """

    samples: int = 0
    beyond: int = 0
    uneven: int = 0
    above: int = 0
    low: int = 0
    high: int = 0
    at_zero: int = 0
    at_half: int = 0
    attacked: int = 0
    still: int = 0
    broken: int = 0
    below: int = 0
    ones: int = 0
    ones_sum: float = 0.0
    ones_squares: float = 0.0
    zeros: int = 0
    zeros_sum: float = 0.0
    zeros_squares: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        mine, others = asdict(self), asdict(other)
        return Counts(**{name: mine[name] + others[name] for name in mine})

    @staticmethod
    def of(values: Mapping[str, Any]) -> Counts:
        """The counts that a record holds; ValueError where they are not whole."""
        names = {one.name for one in fields(Counts)}
        if set(values) != names or not all(isinstance(v, int | float) for v in values.values()):
            raise ValueError(f"counts are {dict(values)!r}")
        return Counts(**values)


class OutputWatcher:
    """What is seen of a model on the batch at hand.

    asked, missed: by radius, how many samples an attack followed; of all its passes the smallest
    number that no gradient reached, and -1 where one reached some; even: samples of one value.
    kind: how the task decides; open: whether all outputs so far lie between 0 and 1; alike: whether
    no batch so far had decisions at 0 of both kinds.
    """

    def __init__(self) -> None:
        self.kind: Decision = ""
        self.task: Task = Classification()
        self.open, self.alike, self.counting = False, True, True
        self.begin()

    def start(self, task: Task, met: Met) -> None:
        """Say what the task is, and what was seen before the first batch."""
        self.task = task
        self.kind = "" if met.output is None else given(task, "decision")(met.output)
        self.open = self.kind != "" and met.end != "linear"

    def begin(self, x: Tensor | None = None) -> None:
        """A batch x (B, *dims) begins, or attacks on samples that were counted before."""
        rows = torch.zeros(0, 1) if x is None else _rows(x)
        self.samples, self.eps = len(rows), 0.0
        # Such as empty slices: there an honest network may have all its units off.
        even = (rows == rows[:, :1]).all(1)
        self.even = int(even.sum()) if rows.shape[1] > 1 else 0
        self.beyond: list[Tensor] = []
        self.asked: dict[float, int] = {}
        self.missed: dict[float, Tensor] = {}
        self.bad: set[int] = set()
        self.decisions = Counts()

    @contextmanager
    def uncounted(self) -> Generator[None]:
        """Within: gradients are asked for on some samples only, and are not counted."""
        self.counting = False
        try:
            yield
        finally:
            self.counting = True

    def under(self, eps: float) -> None:
        """An attack with this radius begins."""
        self.eps = eps

    def counts(self) -> Counts:
        """What was seen on the batch; waits for the device."""
        beyond = [bool(flag) for flag in torch.stack(self.beyond).any(0)] if self.beyond else []
        out, uneven = beyond or (False, False)
        self.open = self.open and not out
        # Larger noise may start where a gradient is: the radius with the most counts.
        still = {eps: self._still(eps, asked) for eps, asked in self.asked.items()}
        most = max(still, key=still.__getitem__, default=0.0)
        own = Counts(
            samples=self.samples,
            beyond=int(out),
            uneven=int(uneven),
            attacked=self.asked.get(most, 0),
            still=still.get(most, 0),
            broken=len(self.bad),
        )
        return own + self.decisions

    def _still(self, eps: float, asked: int) -> int:
        # Where no gradient ever reached one, whoever noise alone broke counts too.
        missed, reached = self.missed[eps].tolist() if eps in self.missed else (asked, 0)
        return max(0, missed - self.even) if reached else asked

    @torch.no_grad()
    def output(self, output: Tree) -> None:
        """See what one pass gave."""
        try:
            logits = full(output) if self.open else None
        except TypeError:
            logits = None
        # What is no tensor of logits, the task refuses by name.
        if logits is None or not logits.is_floating_point():
            return
        # Passes add flags without waiting for the device; a few are folded into one.
        self.beyond.append(_beyond(logits, self.kind))
        if len(self.beyond) > 64:
            self.beyond = [torch.stack(self.beyond).any(0)]

    def asks(self, x: Tensor) -> Callable[[Tree], None]:
        """A gradient may be asked for at the inputs x; tell what is returned the output there.

        A sample that no gradient reaches stands in every pass of an attack: the smallest number
        that one pass missed holds them all. Missed is who has a slope at the output and none at
        the input. Where the output is not a number it is not the gradient that is to blame.
        """
        if not self.counting:
            return lambda _: None
        # The hooks must not hold x, which holds them: its memory would wait for a collection.
        eps, n, device = self.eps, len(x), x.device
        sought, bad = list[Tensor](), list[Tensor]()
        self.asked[eps] = max(self.asked.get(eps, 0), n)

        def felt(gradient: Tensor | None) -> None:
            # A function of one's own may give none.
            if gradient is None:
                return
            rows = _rows(gradient)
            reached = (rows != 0).any(1) & torch.isfinite(rows).all(1) | bad[0].to(device)
            slopes = torch.ones_like(reached)
            if sought:
                slopes = torch.stack([flags.to(device) for flags in sought]).any(0)
            some = reached.any() | ~slopes.any()
            seen = torch.stack(((slopes & ~reached).sum(), -some.long()))
            self.missed[eps] = torch.minimum(self.missed.get(eps, seen), seen)
            sought.clear()

        @torch.no_grad()
        def told(output: Tree) -> None:
            bad.append(~given(self.task, "usable")(output))
            # A mask may ask for nothing, where all is to be ignored; a label asks for something. If
            # its loss has no slope, as AutoAttack's in float32, then outputs are saturated.
            for leaf in [] if isinstance(self.task, Classification) else leaves(output):
                # Beside those of samples, a dict may hold numbers of the whole batch.
                if leaf.requires_grad and leaf.shape[:1] == (n,):
                    leaf.register_hook(lambda slope: sought.append((_rows(slope) != 0).any(1)))

        x.register_hook(felt)
        return told

    @torch.no_grad()
    def clean(self, output: Tree, target: Tree, task: Task) -> None:
        """See the outputs of the clean samples."""
        if not (self.open or self.alike) or self.kind not in ("one", "regions"):
            return
        logits, truth = full(output).float(), given(task, "truths")(output, target)
        above, low, high = ((logits > 0).any(), (logits < 0.5).any(), (logits > 0.5).any())
        below = (logits <= 0).any()
        self.alike = self.alike and not bool(above & below)
        # Masked logits say nothing of the others.
        finite = logits.isfinite()
        one, zero = (logits[part & finite].cpu().double() for part in (truth, ~truth))
        self.decisions = Counts(
            above=int(above),
            below=int(below),
            low=int(low),
            high=int(high),
            at_zero=int(((logits > 0) == truth).sum()),
            at_half=int(((logits > 0.5) == truth).sum()),
            ones=one.numel(),
            ones_sum=float(one.sum()),
            ones_squares=float(one.square().sum()),
            zeros=zero.numel(),
            zeros_sum=float(zero.sum()),
            zeros_squares=float(zero.square().sum()),
        )

    @torch.no_grad()
    def noisy(self, index: Tensor, output: Tree, task: Task) -> None:
        """See the outputs at the noise that was found for the samples `index` of the batch."""
        bad = ~given(task, "usable")(output)
        if bool(bad.any()):
            self.bad.update(index[bad].tolist())


class Watched(nn.Module):
    """The model inside wrappers, in their precision, with a watcher; see `no_trace`."""

    def __init__(self, model: nn.Module, watcher: OutputWatcher) -> None:
        super().__init__()
        # A frozen TorchScript module has no such flag.
        self.training = getattr(model, "training", False)
        self.model, self.watcher = model, watcher
        self.watched: nn.Module = inside(model)

    def forward(self, x: Tensor) -> Tree:
        """What the model gives."""
        asks = torch.is_grad_enabled() and x.requires_grad
        tell = self.watcher.asks(x) if asks else None
        output = by_sample(in_precision(self.model, self.watched)(x), len(x))
        self.watcher.output(output)
        if tell is not None:
            tell(output)
        return output


def _rows(leaf: Tensor) -> Tensor:
    return leaf.reshape(len(leaf), -1)


def _beyond(logits: Tensor, kind: Decision) -> Tensor:
    """Two flags: outputs outside [0, 1], and outputs that do not sum to 1."""
    step = torch.finfo(logits.dtype).eps
    slack = max(1e-6, step)
    # What is not a number says nothing.
    out = ((logits < -slack) | (logits > 1 + slack)).any()
    if kind in ("one", "regions"):
        return torch.stack((out, torch.ones_like(out)))
    return torch.stack((out, (~sums_to_one(logits)).any()))


def sums_to_one(logits: Tensor) -> Tensor:
    """Whether outputs (B, K) sum to 1 but for the rounding of their precision, (B,) bool.

    It may be a shorter one than that of the tensor: a softmax in half precision is cast afterwards.
    """
    off = (logits.float().sum(1) - 1).abs()
    found = ~(off > _LEAST)
    for dtype in (torch.float16, torch.bfloat16):
        on_grid = (logits.to(dtype).to(logits.dtype) == logits).all()
        # Each term is rounded by a share of itself, so that the number of terms does not count.
        found |= on_grid & ~(off > 4 * torch.finfo(dtype).eps)
    return found
