"""What a model's output means: its loss, whether it is correct, and by how much."""

from __future__ import annotations

from ima.tasks.checked import check_fit, check_task, given, is_own, objective_of
from ima.tasks.classification import Classification
from ima.tasks.segmentation import Segmentation
from ima.tasks.task import Compares, Task
from ima.tasks.trees import Tree, full, leaves, output_map, plain, sound, take, targets, tree_map

__all__ = [
    "Classification",
    "Compares",
    "Segmentation",
    "Task",
    "Tree",
    "check_fit",
    "check_task",
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
