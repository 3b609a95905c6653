"""What a task decides on every sample, whatever its shape: held as tensors, written as values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ima.evaluation.results import BASE
from ima.evaluation.values import Value
from ima.tasks import Task, Tree, given, leaves, tree_map
from ima.tasks.checked import describe, is_own, one_each, right_each, task_name

PARTS = "parts"
"""The column of the qualities of a sample's parts."""


def decide(task: Task, output: Tree, target: Tree, n: int) -> tuple[Tree, Tensor]:
    """The task's predictions and whether they are right, (n,) bool, on a batch of n samples.

    Raises TypeError where the task gives something else.
    """
    correct = right_each(task.correct(output, target), n, f"{task_name(task)}.correct")
    said: Any = task.predict(output)
    _check_each(f"{task_name(task)}.predict gave", said, n)
    for what, tree in (("the targets are", target), (f"{task_name(task)}.predict gave", said)):
        if any(part.is_complex() for part in leaves(tree)):
            raise TypeError(
                f"{what} {describe(tree)}; results hold no complex numbers: expected real ones, as "
                "torch.view_as_real makes"
            )
    return said, correct


def quality_of(task: Task, output: Tree, target: Tree, n: int) -> Tensor:
    """The task's quality of every sample, (n,) float; TypeError or ValueError for what is none."""
    name = f"{task_name(task)}.quality"
    found = one_each(given(task, "quality")(output, target), n, name).float().reshape(n)
    if is_own(task) and not bool(((found >= 0) & (found <= 1)).all()):
        raise ValueError(
            f"{name} gave {float(found.min()):g} to {float(found.max()):g}; expected 0 to 1 for "
            "every sample"
        )
    return found


def _check_each(what: str, tree: Any, n: int) -> None:
    """Raise TypeError unless it is tensors of n samples."""
    try:
        fits = all(part.ndim > 0 and len(part) == n for part in leaves(tree))
    except TypeError:
        fits = False
    if not fits or not leaves(tree):
        raise TypeError(
            f"{what} {describe(tree)} for {n} samples; expected a "
            f"tensor, or a list or dict of tensors, whose first dimension is the batch's {n}"
        )


def columns_of(task: Task, output: Tree, target: Tree, n: int) -> dict[str, Tree]:
    """What a task keeps of every sample, by name.

    Raises TypeError and ValueError where a task of a user's own gives something else, or a name
    that results have for themselves.
    """
    found: Any = given(task, "columns")(output, target)
    if not is_own(task):
        return found
    decide(task, output, target, n)
    name = f"{task_name(task)}.columns"
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise TypeError(f"{name} gave {describe(found)}; expected a dict of columns by their names")
    for key, column in found.items():
        _check_each(f"{name} gave, as {key!r},", column, n)
    if taken := [key for key in found if key in (*BASE, PARTS)]:
        raise ValueError(
            f"{name} gave the column {taken[0]!r}, a name that results have for what they hold "
            "themselves; call it something else"
        )
    return found


def copied(tree: Tree) -> Tree:
    """The same values in tensors of their own."""
    return tree_map(torch.clone, tree)


def put(tree: Tree, index: Tensor, new: Tree) -> None:
    """Replace the samples `index` of every tensor, in place."""
    for old, part in zip(leaves(tree), leaves(new), strict=True):
        old[index] = part


def sample(tree: Tree, i: int) -> Tree:
    """One sample of every tensor, on the CPU."""
    return tree_map(lambda tensor: tensor[i].cpu(), tree)


def values(tree: Tree, n: int) -> list[Value]:
    """Every one of n samples as a number, or as lists and dicts of them."""
    if isinstance(tree, Tensor):
        # One truth value a sample is a class, 0 or 1, as it always was.
        found = tree.long() if tree.dtype == torch.bool and tree.ndim == 1 else tree
        return found.tolist()
    if isinstance(tree, dict):
        parts = {str(key): values(part, n) for key, part in tree.items()}
        return [{key: part[i] for key, part in parts.items()} for i in range(n)]
    inner = [values(part, n) for part in tree]
    return [[part[i] for part in inner] for i in range(n)]
