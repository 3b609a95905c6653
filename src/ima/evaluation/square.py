"""Square: a random search that reads outputs only (Andriushchenko et al., ECCV 2020).

In the authors' code (pyautoattack), with fewer queries than AutoAttack's: enough to show where
gradients mislead. What it found is looked at again, as for AutoAttack.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ima.attacks.inputs import Model, check_samples, no_trace
from ima.attacks.walk import Attacked, forward
from ima.evaluation.autoattack import look_again, random_state_kept, square_search
from ima.evaluation.lifted import Broken, Lifted, in_library, layout, unit_box
from ima.evaluation.setting import Setting
from ima.tasks import Classification, Tree
from ima.tasks.pixels import precise, wide


def why_not(x: Tensor, setting: Setting) -> str:
    """Why Square cannot run on samples like x; empty where it can."""
    if not isinstance(setting.task, Classification):
        return "Square reads the logits of classes, which this task does not have"
    try:
        in_library(setting.norm)
        unit_box(check_samples(x, setting.bounds))
    except ValueError as error:
        return str(error).replace("AutoAttack", "Square").partition(";")[0]
    if layout(x.shape[1:], setting.norm) is None:
        return f"samples of shape {tuple(x.shape[1:])} are too small for Square"
    return ""


def square(
    model: Model, x: Tensor, y: Tree, eps: float, queries: int, setting: Setting
) -> Attacked:
    """What Square finds in so many queries; ValueError where `why_not` has a reason."""
    if reason := why_not(x, setting):
        raise ValueError(f"{reason}; use another attack")
    task = setting.task
    assert isinstance(task, Classification)
    with no_trace(model, x) as inner, random_state_kept():
        x, y = x.detach().clone(), y.clone().long()
        box = check_samples(x, setting.bounds)
        low, width = unit_box(box)
        output = forward(inner, x)
        correct, classes = task.correct(output, y), task.logits(output).shape[1]
        noisy, crossed = x.clone(), ~correct
        image = layout(x.shape[1:], setting.norm)
        assert image is not None
        shape = tuple(x.shape[1:])
        (left,) = correct.nonzero(as_tuple=True)
        if len(left):
            broken = Broken(wide(x[left]), setting.norm)
            lifted = Lifted(inner, shape, image, low, width, precise(x), classes, broken)
            attack = square_search(
                lifted,
                norm=in_library(setting.norm),
                eps=eps / float(width),
                n_queries=queries,
                # The schedule of the few queries, not the first steps of a longer one.
                resc_schedule=True,
                seed=setting.generator.initial_seed(),
            )
            found = lifted.down(attack.perturb(lifted.up(wide(x[left])), y[left]).detach())
            found = broken.within(eps, found)
            noisy[left], crossed[left] = look_again(
                inner, x[left], y[left], found, eps, setting.norm, task, box
            )
    return Attacked(noisy, crossed, correct, torch.zeros_like(crossed))
