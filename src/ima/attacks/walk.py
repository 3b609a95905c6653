"""The loop that every attack and every training method shares.

    active = all samples
    repeat `steps` times:
        output = model(point[active])
        samples that `stop` names leave, with the point they stand on
        g = gradient of the objective with respect to the point
        point = clamp(x + project(point + step_size * direction(g) - x))

One forward and one backward pass an iteration, on the samples that still walk; the test of a
point reads the forward pass that its own gradient needs anyway. Samples never influence each
other, because the model is in evaluation mode. Points are kept in float32 where the samples are
shorter; the network gets them rounded towards the clean sample, and only such points are returned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ima.attacks.entering import as_seen
from ima.attacks.inputs import Model, no_trace
from ima.attacks.reach import HEARS
from ima.norms import Norm, per_sample
from ima.tasks import Task, Tree, leaves, objective_of, output_map, take, tree_map
from ima.tasks.checked import one_each
from ima.tasks.pixels import wide

Objective: TypeAlias = Callable[[Tree, Tree], Tensor]
Jitter: TypeAlias = Callable[[int, Tensor], Tensor]
"""jitter(step, index) -> (n, *dims): noise added to a step of the walking samples `index`."""


@dataclass
class Here:
    """Where the samples that still walk stand, before their step number `step`.

    output: of the model, detached; target: theirs; index: (n,) their places in the batch; offset:
    (n, *dims), from the clean sample to here.
    """

    step: int
    output: Tree
    target: Tree
    index: Tensor
    offset: Tensor
    _rise: Callable[[], tuple[Tensor, Tensor]]

    @cached_property
    def rise(self) -> tuple[Tensor, Tensor]:
        """The objective's gradient here, (n, *dims), divided per sample by a factor, (n,)."""
        return self._rise()


Stop: TypeAlias = Callable[[Here], Tensor]
"""stop(here) -> (n,) bool: which of the walking samples stop where they stand."""


@dataclass(frozen=True)
class Attacked:
    """What an attack returns, in the order of the batch.

    x: (B, *dims), the noisy samples.
    crossed: (B,) bool, the attack made the model wrong; see each attack.
    correct: (B,) bool, the model was right at the clean x.
    stuck: (B,) bool, a gradient was exactly zero or not finite, so the sample stood still for at
        least one step.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> found = ima.pgd(model, x, y, eps=5.0)
    >>> robust = found.correct & ~found.crossed
    >>> robust.shape
    torch.Size([8])
    """

    x: Tensor
    crossed: Tensor
    correct: Tensor
    stuck: Tensor


@dataclass(frozen=True)
class Walked:
    """Where the samples of a walk stand.

    x: (B, *dims), the point where a sample stopped, or the last one, which is not tested.
    before: the point one step earlier (the clean sample for those that never moved).
    stopped_at: (B,) int64, gradient steps taken before it stopped; `steps` if it never did.
    stuck: (B,) bool, as in `Attacked`.
    """

    x: Tensor
    before: Tensor
    stopped_at: Tensor
    stuck: Tensor


@torch.no_grad()
def forward(model: Model, x: Tensor) -> Tree:
    """The model's output without a graph, in float32 where it is shorter."""
    return output_map(_widen, model(x))


def eval_forward(model: Model, x: Tensor) -> Tree:
    """The model's output as `forward` gives it, in evaluation mode and leaving no trace."""
    with no_trace(model, x) as inner:
        return forward(inner, x)


def walk(
    model: Model,
    x: Tensor,
    y: Tree,
    radius: Tensor,
    *,
    steps: int,
    step_size: Tensor,
    norm: Norm,
    task: Task,
    bounds: tuple[Tensor, Tensor] | None,
    start: Tensor | None = None,
    objective: Objective | None = None,
    stop: Stop | None = None,
    jitter: Jitter | None = None,
    mode: Literal["eval", "train"] = "eval",
) -> Walked:
    """Walk every sample up the objective's gradient inside its ball: the loop of all attacks.

    model: any callable on x; in evaluation mode, and left as it was.
    x: samples (B, *dims), checked by the caller, as is the model's output.
    y: the task's targets.
    radius: of every ball, (B,), in x's units and `norm`; float32 if x is shorter.
    steps: gradient steps, 1 or more.
    step_size: of every step, (B,), likewise.
    norm: L2, LINF or a `Norm`.
    task: what outputs mean.
    bounds: (low, high) as tensors, or None.
    start: the first point, (B, *dims); None: x.
    objective: what to raise, objective(output, target) -> (B,); None: the task's.
    stop: stop(here) -> (n,) bool, which samples stop where they stand; None: none.
    jitter: jitter(step, index) -> noise added to a step; None: none.
    mode: "train" leaves the modules' modes alone.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> radius, task = torch.full((8,), 0.1), ima.Classification()
    >>> walked = ima.walk(model, x, y, radius, steps=5, step_size=radius / 5, norm=ima.L2,
    ...                   task=task, bounds=None)
    >>> bool(((walked.x - x).norm(dim=1) <= 0.1001).all())
    True
    """
    objective = objective_of(task) if objective is None else objective
    with no_trace(model, x, mode) as module:
        # Tensors made in inference mode cannot take part in a backward pass; clones can.
        y = tree_map(lambda t: t.clone() if t.is_inference() else t, y)
        given, x = x.dtype, wide(x.detach().clone())
        final, before = x.clone(), x.clone()
        stopped_at = torch.full((len(x),), steps, device=x.device)
        stuck = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        index = torch.arange(len(x), device=x.device)
        point, previous = (x if start is None else wide(start.detach().clone())), x
        for step in range(steps):
            seen = as_seen(module, point, x)
            leaf = seen.detach().requires_grad_()
            output = module(leaf)
            here = Here(
                step,
                output_map(detached, output),
                y,
                index,
                seen.detach() - x,
                partial(ascent, output, leaf, y, objective),
            )
            go = torch.arange(len(index), device=x.device)
            if stop is not None:
                halt = stop(here)
                (go,) = (~halt).nonzero(as_tuple=True)
                if len(go) < len(index):
                    gone = index[halt]
                    final[gone], before[gone], stopped_at[gone] = seen[halt], previous[halt], step
                if len(go) == 0:
                    return Walked(final.to(given), before.to(given), stopped_at, stuck)
            gradient, _ = here.rise
            if len(go) < len(index):
                index, x, point, gradient = index[go], x[go], point[go], gradient[go]
                seen = seen[go]
                radius, step_size, y = radius[go], step_size[go], take(y, go)
            direction = norm.direction(gradient)
            stuck[index] |= norm.size(direction) == 0
            previous = seen
            moved = point + per_sample(step_size, point) * direction
            if jitter is not None:
                moved = moved + jitter(step, index)
            point = clamp(x + norm.project(moved - x, radius), bounds)
        final[index], before[index] = as_seen(module, point, x), previous
    return Walked(final.to(given), before.to(given), stopped_at, stuck)


def clamp(x: Tensor, bounds: tuple[Tensor, Tensor] | None) -> Tensor:
    """Clamp x to the bounds."""
    return x if bounds is None else torch.minimum(torch.maximum(x, bounds[0]), bounds[1])


def ascent(output: Tree, x: Tensor, y: Tree, objective: Objective) -> tuple[Tensor, Tensor]:
    """The objective's gradient with respect to x, (B, *dims), divided by a factor for every sample.

    Returns the quotient and the factor, (B,), above 0.

    The gradient with respect to the outputs is brought to largest entry 1 for every sample before
    it is sent back through the network: the direction stays, and neither a confident sample's
    tiny gradient nor half precision lets it vanish on the way. No parameter gradient is computed.
    """
    ends = tree_map(_end, output)
    raised = one_each(objective(ends, y), len(x), "what the attack raises")
    if not raised.requires_grad:
        raise TypeError(
            "what the attack raises has no gradient: the task's objective or score rounds, counts "
            "or detaches the outputs; expected a continuous function of them"
        )
    slopes = torch.autograd.grad(
        raised.sum(),
        [end for end in leaves(ends) if end.requires_grad],
        allow_unused=True,
        materialize_grads=True,
    )
    largest = torch.stack([slope.abs().flatten(1).amax(1) for slope in map(_matrix, slopes)])
    scale = torch.where(largest.amax(0) > 0, largest.amax(0), 1)
    pairs = [
        (end, (slope / per_sample(scale, slope)).to(end.dtype))
        for end, slope in zip(filter(torch.is_floating_point, leaves(output)), slopes, strict=True)
        if end.requires_grad
    ]
    gradient = None
    if pairs:
        ends_, slopes_ = zip(*pairs, strict=True)
        (gradient,) = torch.autograd.grad(ends_, x, slopes_, allow_unused=True)
    if (hears := HEARS.get()) is not None:
        hears(gradient)
    gradient = torch.zeros_like(x) if gradient is None else gradient.detach()
    return gradient, scale.detach()


def _end(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return _widen(tensor).requires_grad_() if tensor.is_floating_point() else tensor


def _matrix(slope: Tensor) -> Tensor:
    return slope.unsqueeze(1) if slope.ndim == 1 else slope


def _widen(tensor: Tensor) -> Tensor:
    # A model that computes in inference mode gives tensors that no gradient can begin at.
    tensor = tensor.clone() if tensor.is_inference() else tensor
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def detached(tensor: Tensor) -> Tensor:
    """The tensor without its graph, in float32 where it is shorter."""
    return _widen(tensor.detach())
