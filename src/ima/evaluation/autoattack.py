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
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from ima.attacks.entering import as_seen
from ima.attacks.inputs import Model, check_radius, check_samples, no_trace
from ima.attacks.walk import Attacked, forward, into
from ima.evaluation.lifted import Broken, Lifted, in_library, layout, plain_layout, unit_box
from ima.evaluation.setting import Setting
from ima.norms import Norm, per_sample
from ima.tasks import Classification, Task, Tree
from ima.tasks.pixels import precise, wide

ITERATIONS = 100
QUERIES = 5000
TARGETS = 9
"""The budgets of "standard": gradient steps, queries of Square, classes that are aimed at."""

STANDARD = {
    2: ("apgd-ce", "square"),
    3: ("apgd-ce", "apgd-dlr", "fab-t", "square"),
    4: ("apgd-ce", "apgd-t", "fab-t", "square"),
}
"""The parts for 2, 3, and 4 or more classes; for 2 the pair of the IMA paper."""

MORE = ("apgd-margin", "fab-t")
"""What `autoattack+` adds, after the parts of `autoattack`: it never breaks fewer samples."""


class Part(Protocol):
    """An attack of the library."""

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        """Images that are attacked, as they were where no noise was found."""
        ...


def parts(
    name: str, classes: int, shape: Sequence[int] | None = None, norm: Norm | None = None
) -> tuple[str, ...]:
    """The parts of `"autoattack"` or `"autoattack+"` for so many classes, in their order.

    shape: of a sample, with the norm: Square is left out where samples are too small for it.
    """
    found = STANDARD[min(max(classes, 2), 4)]
    if name == "autoattack+":
        found += tuple(part for part in MORE if part not in found)
    if shape is not None and norm is not None and layout(shape, norm) is None:
        found = tuple(part for part in found if part != "square")
    return found


def describe(name: str, classes: int, shape: Sequence[int], norm: Norm) -> str:
    """The parts that run, for the record, and whether one was left out."""
    ran, meant = parts(name, classes, shape, norm), parts(name, classes)
    missing = [part for part in meant if part not in ran]
    text = ", ".join(ran)
    return f"{text}; left out, samples too small: {', '.join(missing)}" if missing else text


def autoattack(name: str) -> Callable[[Model, Tensor, Tree, float, int, Setting], Attacked]:
    """The attack `"autoattack"` or `"autoattack+"`, as a row of the table of attacks.

    run(model, x, y, eps, steps, setting): steps are not read. The seed is the generator's, the
    same for every part and radius; as with a random start, noise depends on the batch.
    Raises ValueError without bounds, see `unit_box`, and for norms that the authors' code does not
    know; TypeError for other tasks than classification.
    """

    def run(model: Model, x: Tensor, y: Tree, eps: float, steps: int, setting: Setting) -> Attacked:
        task, norm = setting.task, setting.norm
        if not isinstance(task, Classification):
            raise TypeError(
                f"AutoAttack attacks classifiers, but the task is {task!r}; use pgd-100"
            )
        called, shape = in_library(norm), tuple(x.shape[1:])
        with no_trace(model, x) as inner, random_state_kept():
            # Copies, because tensors of inference mode cannot take part in gradients.
            x, y = x.detach().clone(), y.clone().long()
            box = check_samples(x, setting.bounds)
            low, width = unit_box(box)
            output = forward(inner, x)
            correct, classes = task.correct(output, y), task.logits(output).shape[1]
            image = layout(shape, norm) or plain_layout(shape)
            noisy, crossed = x.clone(), ~correct
            for part in parts(name, classes, shape, norm):
                (left,) = (~crossed).nonzero(as_tuple=True)
                if len(left) == 0:
                    break
                build = _BUILD[part]
                seed = setting.generator.initial_seed()
                broken = Broken(wide(x[left]), norm)
                lifted = Lifted(inner, shape, image, low, width, precise(x), classes, broken)
                attack = build(lifted, eps=eps / float(width), norm=called, seed=seed)
                images = attack.perturb(lifted.up(wide(x[left])), y[left])
                found = broken.within(eps, lifted.down(images.detach()))
                noisy[left], crossed[left] = look_again(
                    inner, x[left], y[left], found, eps, norm, task, box
                )
        return Attacked(noisy, crossed, correct, torch.zeros_like(crossed))

    return run


def look_again(
    model: Model,
    x: Tensor,
    y: Tensor,
    found: Tensor,
    eps: float,
    norm: Norm,
    task: Task,
    box: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """What an attack found, brought into the ball and the bounds, and whether it is wrong there.

    Nothing is taken on trust: what is not finite becomes the clean sample and counts as standing.
    """
    clean = wide(x)
    finite = torch.isfinite(norm.size(found - clean))
    found = torch.where(per_sample(finite, clean), found, clean)
    noisy = into(clean + norm.project(found - clean, check_radius(eps, x)), box)
    noisy = as_seen(model, noisy, clean)
    inside = norm.size(noisy - clean) <= eps * (1 + 1e-5) + 1e-6
    noisy = noisy.to(x.dtype)
    return noisy, finite & inside & ~task.correct(forward(model, noisy), y)


# Warnings of gradients that are zero: what they mean for the result is seen in the result.
_QUIET = logging.Logger("pyautoattack", logging.CRITICAL + 1)


def _apgd(model: Lifted, *, loss: str, **options: Any) -> Part:
    from pyautoattack.autopgd_base import APGDAttack

    return APGDAttack(model, loss=loss, n_iter=ITERATIONS, logger=_QUIET, **options)


def _apgd_ce(model: Lifted, **options: Any) -> Part:
    return _apgd(model, loss="ce", **options)


def _apgd_dlr(model: Lifted, **options: Any) -> Part:
    return _apgd(model, loss="dlr", **options)


def _apgd_margin(model: Lifted, **options: Any) -> Part:
    """APGD on the margin, largest other logit minus the true one: as DLR without its denominator.

    That needs a third logit. Unlike cross-entropy's, the margin's gradient never fades.
    """
    attack: Any = _apgd(model, loss="dlr", **options)
    attack.dlr_loss = lambda logits, y: -Classification().score(logits, y)
    return attack


def _apgd_t(model: Lifted, **options: Any) -> Part:
    from pyautoattack.autopgd_base import APGDAttack_targeted

    targets = min(TARGETS, model.classes - 1)
    return APGDAttack_targeted(
        model, n_iter=ITERATIONS, n_target_classes=targets, logger=_QUIET, **options
    )


def _fab_t(model: Lifted, **options: Any) -> Part:
    from pyautoattack.fab_pt import FABAttack_PT

    targets = min(TARGETS, model.classes - 1)
    return FABAttack_PT(
        model, n_iter=ITERATIONS, targeted=True, n_target_classes=targets, **options
    )


def free_fab(model: Lifted, **options: Any) -> Any:
    """The library's FAB, for the sake of the distances it finds rather than of a radius."""
    from pyautoattack.fab_pt import FABAttack_PT

    return FABAttack_PT(model, targeted=True, eps=1e4, **options)


def square_search(model: Lifted, **options: Any) -> Part:
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


def _square(model: Lifted, **options: Any) -> Part:
    return square_search(model, n_queries=QUERIES, resc_schedule=False, **options)


_BUILD: dict[str, Callable[..., Part]] = {
    "apgd-ce": _apgd_ce,
    "apgd-dlr": _apgd_dlr,
    "apgd-t": _apgd_t,
    "apgd-margin": _apgd_margin,
    "fab-t": _fab_t,
    "square": _square,
}


@contextmanager
def random_state_kept() -> Generator[None]:
    """The library seeds torch and, once it is in use, the current GPU."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        if not devices:
            # A seed for a GPU that is not in use yet waits for it: the last one counts.
            torch.cuda.manual_seed_all(torch.initial_seed())
