"""Tasks of a user's own, looked at where they come in; the library's own tasks pay nothing.

what is no task is refused at once; what it gives, at the first outputs that it is shown
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ima.tasks.classification import Classification
from ima.tasks.segmentation import Segmentation
from ima.tasks.task import Task
from ima.tasks.trees import Tree, leaves

Function = Callable[[Tree, Tree], Tensor]

NEEDED = ("check", "loss", "correct", "score", "predict")
"""What a task must have; `objective` is the loss where it has none."""


def check_task(task: Task | None) -> Task:
    """The task, classification if None; TypeError for what is none."""
    if task is None:
        return Classification()
    given: Any = task
    if isinstance(given, type):
        raise TypeError(f"task is the class {given.__name__}; expected a task: {given.__name__}()")
    missing = [name for name in NEEDED if not callable(getattr(given, name, None))]
    if len(missing) == len(NEEDED):
        came = repr(given) if isinstance(given, str) else f"a {type(given).__name__}"
        raise TypeError(
            f"task is {came}; expected a task: Classification(), Segmentation(), or one of your "
            "own, see ima.Task"
        )
    if missing:
        raise TypeError(
            f"{task_name(task)} has no function {', '.join(missing)}; expected "
            f"{', '.join(NEEDED)}, see ima.Task"
        )
    return task


def is_own(task: Task) -> bool:
    """Whether it is none of the library's tasks; one made of them may give anything too."""
    return type(task) not in (Classification, Segmentation)


def objective_of(task: Task) -> Function:
    """What an attack raises: the task's objective, the loss where it has none."""
    return getattr(task, "objective", task.loss)


def given(task: Task, name: str) -> Any:
    """What a task has by this name; where it has nothing, because of another base, `Task`'s own."""
    own = getattr(task, name, None)
    default: Any = getattr(Task, name)
    return own if own is not None else default.__get__(task) if callable(default) else default


def check_fit(task: Task, output: Tree, target: Tree, n: int) -> None:
    """Raise ValueError or TypeError where a batch's outputs, targets and task do not fit together.

    output: on n samples. What attacks follow, score and objective, must be one number for every
    sample, and a usual one where the output is.
    """
    task.check(output, target)
    if is_own(task):
        right_each(task.correct(output, target), n, f"{task_name(task)}.correct")
        check_numbers(task, ("score", "objective"), output, target, n)


def check_standing(task: Task, output: Tree, target: Tree, stands: Tensor) -> None:
    """Raise as `check_fit` where an attack ended, (n,) bool: at samples that it left standing."""
    if is_own(task):
        what, n = ("score", "objective"), len(stands)
        check_numbers(task, what, output, target, n, where=stands)


@torch.no_grad()
def check_numbers(
    task: Task,
    names: Sequence[str],
    output: Tree,
    target: Tree,
    n: int,
    *,
    where: Tensor | None = None,
) -> None:
    """Raise TypeError or ValueError where functions of an own task give no number a sample.

    where: (n,) bool, the samples at which it matters; all if None.
    """
    usual = _usual(output, n)
    if usual is None:
        return
    usual = usual if where is None else usual & where
    for name in names:
        function = objective_of(task) if name == "objective" else getattr(task, name)
        found = one_each(function(output, target), n, f"{task_name(task)}.{name}").reshape(n)
        strange = ~torch.isfinite(found) & usual.to(found.device)
        if bool(strange.any()):
            at = int(strange.nonzero()[0])
            raise ValueError(
                f"{task_name(task)}.{name} gave {float(found[at])} for sample {at} of a batch, "
                "though the model's output is finite there; attacks cannot follow it, and "
                "their results say nothing: expected a finite number for every finite output"
            )


def one_each(found: Any, n: int, name: str) -> Tensor:
    """What a function of a task gave for n samples; TypeError where it is not a number for each."""
    # For one sample alone any shape holds the same number.
    shaped = isinstance(found, Tensor) and (found.shape == (n,) or n == found.numel() == 1)
    if shaped and found.is_floating_point():
        return found
    raise TypeError(
        f"{name} gave {describe(found)} for {n} samples; expected one number for each, a "
        f"floating-point tensor of shape ({n},)"
    )


def right_each(found: Any, n: int, name: str) -> Tensor:
    """Whether each of n samples is right, (n,) bool, as a task says; TypeError for what is not."""
    if isinstance(found, Tensor) and found.dtype == torch.bool and found.shape == (n,):
        return found
    raise TypeError(
        f"{name} gave {describe(found)} for {n} samples; expected whether each is right, a tensor "
        f"of torch.bool of shape ({n},)"
    )


def check_trained(task: Task, output: Tree, target: Tree, n: int) -> None:
    """Raise TypeError where an own task cannot be trained on: what it gives for n samples."""
    if not is_own(task):
        return
    name = task_name(task)
    loss = one_each(task.loss(output, target), n, f"{name}.loss")
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise TypeError(
            f"{name}.loss has no gradient: it rounds, counts or detaches the outputs; expected a "
            "continuous function of them"
        )
    right_each(task.correct(output, target), n, f"{name}.correct")


def describe(found: Any) -> str:
    """What came, for an error."""
    if isinstance(found, Tensor):
        return f"{found.dtype} of shape {tuple(found.shape)}"
    if isinstance(found, dict) and found:
        return f"a dict with {', '.join(f'{key}: {describe(one)}' for key, one in found.items())}"
    if isinstance(found, list | tuple) and found:
        return f"a {type(found).__name__} of {describe(found[0])}"
    return type(found).__name__


def task_name(task: Task) -> str:
    """What a task is called in an error."""
    return f"the task {type(task).__name__}"


def _usual(output: Tree, n: int) -> Tensor | None:
    """Which samples' outputs are finite, (n,) bool; None where they cannot be told apart."""
    try:
        parts = leaves(output)
    except TypeError:
        return None
    if not parts or any(part.ndim == 0 or len(part) != n for part in parts):
        return None
    each = [torch.isfinite(part).reshape(n, -1).all(1) for part in parts]
    return torch.stack([flags.to(each[0].device) for flags in each]).all(0)
