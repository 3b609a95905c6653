"""What a model's output means: its loss, whether it is correct, and by how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ima.imported import find_row
from ima.tasks.checked import check_fit, check_task, given, is_own, objective_of
from ima.tasks.classification import Classification
from ima.tasks.multilabel import MultiLabel
from ima.tasks.segmentation import Segmentation
from ima.tasks.task import Compares, Task
from ima.tasks.trees import Tree, full, leaves, output_map, plain, sound, take, targets, tree_map

__all__ = [
    "TASKS",
    "Classification",
    "Compares",
    "MultiLabel",
    "Segmentation",
    "Task",
    "TaskRow",
    "Tree",
    "check_fit",
    "check_task",
    "find_task",
    "full",
    "given",
    "is_own",
    "leaves",
    "objective_of",
    "output_map",
    "plain",
    "sound",
    "take",
    "targets",
    "tree_map",
]


@dataclass(frozen=True)
class TaskRow:
    """One task: its name in configs, its class, one sentence."""

    name: str
    task: Callable[..., Any]
    summary: str


TASKS = {
    row.name: row
    for row in (
        TaskRow("classification", Classification, "One class a sample."),
        TaskRow("multilabel", MultiLabel, "Several findings a sample, each there or not."),
        TaskRow("segmentation", Segmentation, "A class for every pixel, or regions."),
    )
}


def find_task(name: str) -> TaskRow:
    """The row of a task, or one for the class or function at `module:name`.

    Raises ValueError for a name that is neither, naming the nearest, and for what cannot be
    imported.
    """
    return find_row("task", name, TASKS, lambda task: TaskRow(name, task, "A task of your own."))
