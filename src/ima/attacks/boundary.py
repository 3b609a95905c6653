"""Where a segment meets the decision boundary (the binary search of Algorithms 2 and 3).

    low, high = 0, 1024                    # grid points: the correct end, the wrong end
    while high - low > 1:
        probe = root of the line through the two scores, rounded to the grid;
                the middle where that root is not between the ends
        probe is moved to within 2 ** (rounds left after this one) cells of both ends
        low or high = probe, as the task decides

The paper halves the bracket ten times. This search ends with a bracket of the same width, on the
same grid: after few forward passes where the scores lie nearly on that line, and after eleven at
most, because no probe leaves a bracket that halvings could not finish in the rounds that are left.
Where a segment meets the boundary once, the two brackets are identical.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ima.attacks.entering import as_seen
from ima.attacks.inputs import Model
from ima.attacks.walk import clamp, forward
from ima.norms import per_sample
from ima.tasks import Task, Tree, take
from ima.tasks.pixels import precise, wide

ROUNDS = 11
"""Forward passes at most: one more than halvings need."""

CELLS = 2**10
"""The final bracket is one cell of this many: ten halvings (paper, 2.2)."""


def search_boundary(
    model: Model,
    inside: Tensor,
    outside: Tensor,
    y: Tree,
    scores: tuple[Tensor, Tensor],
    *,
    task: Task,
    bounds: tuple[Tensor, Tensor] | None,
    x: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The last bracket on every segment, as shares in [0, 1] of the way from inside to outside.

    inside, outside: (B, *dims), the first classified correctly, the second not; scores: the
    task's scores at both, (B,) each; x: the clean samples, `inside` if None. Returns (correct end,
    wrong end), (B,) each, one cell apart.
    """
    # Half precision cannot count to 1024.
    low = torch.zeros(len(inside), dtype=precise(inside), device=inside.device)
    high = torch.full_like(low, CELLS)
    low_score, high_score = (score.to(low.dtype).clone() for score in scores)
    rising = torch.zeros_like(low, dtype=torch.bool)
    x = inside if x is None else x
    rounds = 0
    while True:
        (index,) = (high - low > 1).nonzero(as_tuple=True)
        if len(index) == 0:
            return low / CELLS, high / CELLS
        a, b = low[index], high[index]
        probe = _false_position(a, b, low_score[index], high_score[index], rising[index])
        # Both sides of the probe must be small enough for halvings to finish in time.
        reach = 2 ** (ROUNDS - rounds - 1)
        probe = torch.minimum(torch.maximum(probe, b - reach), a + reach)
        ends = inside[index], outside[index]
        point = between(model, *ends, probe / CELLS, bounds, x[index])
        output, target = forward(model, point), take(y, index)
        right, score = task.correct(output, target), task.score(output, target).to(low.dtype)
        low[index], high[index] = torch.where(right, probe, a), torch.where(right, b, probe)
        low_score[index] = torch.where(right, score, low_score[index])
        high_score[index] = torch.where(right, high_score[index], score)
        rising[index] = right
        rounds += 1


def between(
    model: Model,
    inside: Tensor,
    outside: Tensor,
    share: Tensor,
    bounds: tuple[Tensor, Tensor] | None,
    x: Tensor,
) -> Tensor:
    """The points at `share` (B,) of the way from inside to outside, as `model` sees them.

    x: the clean samples, (B, *dims), towards which points are rounded.
    """
    start, end = wide(inside), wide(outside)
    point = clamp(start + per_sample(share, inside) * (end - start), bounds)
    seen = as_seen(model, point, wide(x))
    if seen is not point:
        # A sum that rounds below the end itself would be the grid's value before it.
        seen = torch.where(per_sample(share == 1, inside), end, seen)
    return seen.to(inside.dtype)


def _middle(low: Tensor, high: Tensor) -> Tensor:
    return ((low + high) / 2).floor()


def _false_position(
    low: Tensor, high: Tensor, low_score: Tensor, high_score: Tensor, rising: Tensor
) -> Tensor:
    # Rounded towards the end that did not move last: once the root's cell is known, the next
    # probe is its other side. Scores that say nothing (NaN, equal, of the wrong sign) give the
    # middle.
    share = low_score / (low_score - high_score)
    root = low + share * (high - low)
    probe = torch.where(rising, root.ceil(), root.floor())
    usable = (share > 0) & (share < 1)
    return torch.where(usable, torch.clamp(probe, low + 1, high - 1), _middle(low, high))
