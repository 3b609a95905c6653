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
    """The last point of `steps` gradient steps of eps / 4; arguments and result as in `pgd`."""
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
