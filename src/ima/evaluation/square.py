"""Square: a random search that reads outputs only (Andriushchenko et al., ECCV 2020).

In the authors' code (pyautoattack), with fewer queries than AutoAttack's: enough to show where
gradients mislead. What it found is looked at again, as for AutoAttack.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ima.attacks.inputs import Model
from ima.evaluation.autoattack import run_part, square_search
from ima.evaluation.lifted import in_library, layout, unit_box
from ima.evaluation.lowest import Lowest
from ima.evaluation.setting import Setting
from ima.extras import lacking
from ima.tasks import Classification, Tree


def why_not(x: Tensor, setting: Setting) -> str:
    """Why Square cannot run on samples like x; empty where it can."""
    if not isinstance(setting.task, Classification):
        return "Square reads the logits of classes, which this task does not have"
    if told := lacking("autoattack"):
        return f"the authors' code is {told}"
    try:
        in_library(setting.norm)
        unit_box(setting.box)
    except ValueError as error:
        return str(error).replace("AutoAttack", "Square").partition(";")[0]
    if layout(x.shape[1:], setting.norm) is None:
        return f"samples of shape {tuple(x.shape[1:])} are too small for Square"
    return ""


def square(
    model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, queries: int, setting: Setting
) -> None:
    """What Square finds in so many queries, as a row; ValueError where `why_not` has a reason."""
    if reason := why_not(x, setting):
        raise ValueError(f"{reason}; use another attack")
    # The schedule of the few queries, not the first steps of a longer one.
    build = partial(square_search, n_queries=queries, resc_schedule=True)
    run_part(build, model, x, y, lowest, eps, setting)
