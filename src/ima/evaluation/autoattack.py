"""AutoAttack: attacks without parameters, one after the other (Croce & Hein, ICML 2020).

    left = the samples
    for each part: attack `left` in the library
                   look again: inside the ball and the bounds, finite, and wrong?
                   left = those that stand

The parts come from pyautoattack, the authors' code, with the budgets of their "standard" version.
Which parts run depends on the number of classes, because some losses need three or four logits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ima.attacks.entering import as_seen
from ima.attacks.inputs import Bounds, Model
from ima.attacks.walk import clamp, forward
from ima.evaluation.lifted import (
    Broken,
    Lifted,
    in_library,
    in_library_state,
    layout,
    plain_layout,
    unit_box,
)
from ima.evaluation.lowest import Lowest, radius
from ima.evaluation.setting import Setting
from ima.extras import lacking
from ima.norms import Norm, per_sample
from ima.tasks import Classification, Task, Tree
from ima.tasks.pixels import precise, wide

ITERATIONS = 100
_QUERIES = 5000
TARGETS = 9
"""The budgets of "standard": gradient steps, queries of Square, classes that are aimed at."""

_STANDARD = {
    2: ("apgd-ce", "square"),
    3: ("apgd-ce", "apgd-dlr", "fab-t", "square"),
    4: ("apgd-ce", "apgd-t", "fab-t", "square"),
}
"""The parts for 2, 3, and 4 or more classes; for 2 the pair of the IMA paper."""

_MORE = ("apgd-margin", "fab-t")
"""What `autoattack+` adds, after the parts of `autoattack`: it never breaks fewer samples."""


class AttackPart(Protocol):
    """An attack of the library."""

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        """Images that are attacked, as they were where no noise was found."""
        ...


def attack_parts(
    name: str, classes: int, shape: Sequence[int] | None = None, norm: Norm | None = None
) -> tuple[str, ...]:
    """The parts of `"autoattack"` or `"autoattack+"` for so many classes, in their order.

    shape: of a sample, with the norm: Square is left out where samples are too small for it.
    """
    found = _STANDARD[min(max(classes, 2), 4)]
    if name == "autoattack+":
        found += tuple(part for part in _MORE if part not in found)
    if shape is not None and norm is not None and layout(shape, norm) is None:
        found = tuple(part for part in found if part != "square")
    return found


def describe_parts(name: str, classes: int, shape: Sequence[int], norm: Norm) -> str:
    """The parts that run, for the record, and whether one was left out."""
    ran, meant = attack_parts(name, classes, shape, norm), attack_parts(name, classes)
    missing = [part for part in meant if part not in ran]
    text = ", ".join(ran)
    return f"{text}; left out, samples too small: {', '.join(missing)}" if missing else text


def count_passes(name: str, classes: int) -> float:
    """Gradients of the input that the parts need at most; a forward pass is half of one."""
    targets = min(TARGETS, max(classes - 1, 1))
    needs = {"apgd-t": targets * ITERATIONS, "fab-t": targets * ITERATIONS, "square": _QUERIES / 2}
    return sum(needs.get(part, ITERATIONS) for part in attack_parts(name, classes))


def lacks_autoattack(task: Task, norm: Norm, bounds: Bounds) -> str:
    """Why AutoAttack cannot run, or nothing: it needs a classifier, bounds and a known norm."""
    if not isinstance(task, Classification):
        return f"AutoAttack attacks classifiers, but the task is {task!r}"
    if told := lacking("autoattack"):
        return f"the authors' code is {told}"
    try:
        in_library(norm)
        if bounds is None:
            unit_box(None)
    except ValueError as error:
        return str(error).partition("; use pgd-100")[0]
    return ""


def autoattack(
    name: str,
) -> Callable[[Model, Tensor, Tree, Lowest, float, int, Setting], None]:
    """The attack `"autoattack"` or `"autoattack+"`, as a row of the table of attacks.

    run(model, x, y, lowest, eps, steps, setting): steps are not read. The seed is the generator's,
    the same for every part and radius; as with a random start, noise depends on the batch.
    Raises ValueError for bounds of several widths, see `unit_box`.
    """

    def run(
        model: Model, x: Tensor, y: Tree, lowest: Lowest, eps: float, steps: int, setting: Setting
    ) -> None:
        for part in parts_on(name, model, x, setting):
            left = lowest.left
            if len(left) == 0:
                return
            run_part(_BUILD[part], model, x, y, lowest, eps, setting)

    return run


def parts_on(name: str, model: Model, x: Tensor, setting: Setting) -> tuple[str, ...]:
    """The parts that run on such samples."""
    task = setting.task
    assert isinstance(task, Classification)
    classes = task.logits(forward(model, x[:1])).shape[1]
    return attack_parts(name, classes, x.shape[1:], setting.norm)


def run_part(
    build: Callable[..., AttackPart],
    model: Model,
    x: Tensor,
    y: Tree,
    lowest: Lowest,
    eps: float,
    setting: Setting,
) -> None:
    """One attack of the library on the samples that are left; what it finds is looked at."""
    task, norm, box = setting.task, setting.norm, setting.box
    assert isinstance(task, Classification)
    left = lowest.left
    x, y = x[left], y[left].long()
    low, width = unit_box(box)
    shape = tuple(x.shape[1:])
    classes = task.logits(forward(model, x[:1])).shape[1]
    image = layout(shape, norm) or plain_layout(shape)
    broken = Broken(wide(x), norm)
    lifted = Lifted(model, shape, image, low, width, precise(x), classes, broken)
    seed = setting.generator.initial_seed()
    with in_library_state():
        attack = build(lifted, eps=eps / float(width), norm=in_library(norm), seed=seed)
        images = attack.perturb(lifted.up(wide(x)), y)
    found = broken.within(eps, lifted.down(images.detach()))
    noisy, inside = brought_in(model, x, found, eps, norm, box)
    kept = inside.nonzero(as_tuple=True)[0]
    if len(kept):
        lowest.look(left[kept], noisy[kept], forward(model, noisy[kept]), y[kept])


def brought_in(
    model: Model,
    x: Tensor,
    found: Tensor,
    eps: float,
    norm: Norm,
    box: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """What an attack found, brought into the ball and the bounds, and whether it lies there.

    Nothing is taken on trust: what is not finite becomes the clean sample.
    """
    clean = wide(x)
    finite = torch.isfinite(norm.size(found - clean))
    found = torch.where(per_sample(finite, clean), found, clean)
    noisy = clamp(clean + norm.project(found - clean, radius(eps, x)), box)
    noisy = as_seen(model, noisy, clean)
    inside = norm.size(noisy - clean) <= eps * (1 + 1e-5) + 1e-6
    noisy = torch.where(per_sample(inside, clean), noisy, clean)
    return noisy.to(x.dtype), finite & inside


# Warnings of gradients that are zero: what they mean for the result is seen in the result.
_QUIET = logging.Logger("pyautoattack", logging.CRITICAL + 1)


def _apgd(model: Lifted, *, loss: str, **options: Any) -> AttackPart:
    from pyautoattack.autopgd_base import APGDAttack

    return APGDAttack(model, loss=loss, n_iter=ITERATIONS, logger=_QUIET, **options)


def _apgd_margin(model: Lifted, **options: Any) -> AttackPart:
    """APGD on the margin, largest other logit minus the true one: as DLR without its denominator.

    That needs a third logit. Unlike cross-entropy's, the margin's gradient never fades.
    """
    attack: Any = _apgd(model, loss="dlr", **options)
    attack.dlr_loss = lambda logits, y: -Classification().score(logits, y)
    return attack


def _apgd_t(model: Lifted, **options: Any) -> AttackPart:
    from pyautoattack.autopgd_base import APGDAttack_targeted

    targets = min(TARGETS, model.classes - 1)
    return APGDAttack_targeted(
        model, n_iter=ITERATIONS, n_target_classes=targets, logger=_QUIET, **options
    )


def _fab_t(model: Lifted, **options: Any) -> AttackPart:
    from pyautoattack.fab_pt import FABAttack_PT

    targets = min(TARGETS, model.classes - 1)
    return FABAttack_PT(
        model, n_iter=ITERATIONS, targeted=True, n_target_classes=targets, **options
    )


def free_fab(model: Lifted, **options: Any) -> Any:
    """The library's FAB, for the sake of the distances it finds rather than of a radius."""
    from pyautoattack.fab_pt import FABAttack_PT

    return FABAttack_PT(model, targeted=True, eps=1e4, **options)


def square_search(model: Lifted, **options: Any) -> AttackPart:
    """The library's Square. A margin of exactly 0 counts as broken from its first point on.

    Where all margins are 0 or below after that point, and some are 0, the library goes on with no
    sample, and stops with an error.
    """
    from pyautoattack.square import SquareAttack

    attack: Any = SquareAttack(model, p_init=0.8, **options)
    measured = attack.margin_and_loss

    def margin_and_loss(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        margin, loss = measured(x, y)
        return torch.where(margin == 0, -torch.finfo(margin.dtype).tiny, margin), loss

    attack.margin_and_loss = margin_and_loss
    return attack


def _square(model: Lifted, **options: Any) -> AttackPart:
    return square_search(model, n_queries=_QUERIES, resc_schedule=False, **options)


_BUILD: dict[str, Callable[..., AttackPart]] = {
    "apgd-ce": partial(_apgd, loss="ce"),
    "apgd-dlr": partial(_apgd, loss="dlr"),
    "apgd-t": _apgd_t,
    "apgd-margin": _apgd_margin,
    "fab-t": _fab_t,
    "square": _square,
}
