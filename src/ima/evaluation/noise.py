"""Noise without any aim: how low a random change alone takes the quality.

White noise, uniform on every entry, is that of the paper's introduction (Ma & Liang); noise in the
ball is what an attack of the same radius must at least equal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ima.attacks.inputs import Model
from ima.evaluation.lowest import Lowest, draw, radius
from ima.evaluation.setting import Setting
from ima.norms import LINF
from ima.tasks import Tree
from ima.tasks.pixels import wide

AMPLITUDE = 0.05
"""Of the paper's white noise, for pixels from 0 to 1."""

DRAWS = 100

WHITE_NOISE = ("white-1", f"white-{DRAWS}")
"""The white noise of an evaluation, as names of attacks: one draw, and the worst of many."""


def white_noise(
    model: Model, x: Tensor, y: Tree, lowest: Lowest, amplitude: float, draws: int, setting: Setting
) -> None:
    """Look at `draws` points, uniform in +-amplitude on every entry; as a row of the attacks.

    amplitude: at least 0, a share of the width of the bounds, or in x's units where there are none.
    The only draw of one is the first of many. Raises ValueError for bounds that are not finite.
    """
    box, wider = setting.box, wide(x)
    reach = torch.as_tensor(
        amplitude if box is None else amplitude * (box[1] - box[0]), dtype=wider.dtype
    )
    if not bool((reach >= 0).all() & torch.isfinite(reach).all()):
        raise ValueError(
            f"white noise of {amplitude!r} has no size within these bounds; expected a number of "
            "at least 0, and bounds that are finite"
        )
    ones, source = wider.new_ones(len(x)), setting.generator
    draw(model, x, y, lowest, draws, lambda: LINF.random(wider, ones, source) * reach, setting)


def noise_in_ball(
    model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, draws: int, setting: Setting
) -> None:
    """Look at `draws` points, uniform in the ball; as a row of the attacks."""
    wider, far = wide(x), radius(eps, x)
    random = setting.norm.random
    draw(model, x, y, lowest, draws, lambda: random(wider, far, setting.generator), setting)
