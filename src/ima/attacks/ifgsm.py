"""IFGSM as in the IMA paper's tables (after Kurakin et al., ICLR 2017 workshop).

Ten steps of eps / 4 from the clean sample; the direction is the norm's (a unit gradient in L2,
its sign in L-infinity); only the last point counts.
"""

from __future__ import annotations

from torch import Tensor

from ima.attacks.inputs import Bounds, Model, check_radius, check_samples
from ima.attacks.pgd import pgd
from ima.attacks.walk import Attacked
from ima.norms import Norm
from ima.tasks import Task, Tree


def ifgsm(
    model: Model,
    x: Tensor,
    y: Tree,
    eps: float | Tensor,
    *,
    steps: int = 10,
    norm: Norm | float | str = 2,
    task: Task | None = None,
    bounds: Bounds = None,
) -> Attacked:
    """IFGSM: the last point of `steps` gradient steps of length eps / 4 from x.

    model: maps (B, *dims) to outputs that fit the task; it is left as it was.
    x: (B, *dims), floating, inside `bounds`.
    y: the task's targets, such as (B,) integer labels.
    eps: noise radius, a number or (B,), in x's units and `norm`, 0 or more.
    steps: 1 or more.
    norm: how noise is measured: 2, "linf" or a `Norm`.
    task: what outputs and targets mean; None: `Classification()`.
    bounds: (low, high) of x's entries, numbers or tensors; None: no bounds (z-scored data).

    Returns `Attacked`; `crossed` where the last point is wrong.
    Raises ValueError or TypeError for x outside bounds, wrong shapes, labels out of range.
    Source: Kurakin et al., ICLR 2017 workshop, as in the tables of Ma & Liang, IMA training, 2023.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> ima.ifgsm(model, x, y, eps=0.1, norm="linf").x.shape
    torch.Size([8, 4])
    """
    check_samples(x, bounds)
    stride = check_radius(eps, x) / 4
    return pgd(
        model,
        x,
        y,
        eps,
        steps=steps,
        step_size=stride,
        norm=norm,
        task=task,
        bounds=bounds,
        stop="never",
    )
