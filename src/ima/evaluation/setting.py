"""What every attack of an evaluation shares."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Generator, Tensor

from ima.evaluation.watch import OutputWatcher
from ima.norms import Norm
from ima.tasks import Task


@dataclass(frozen=True)
class Setting:
    """Norm and task; box: the bounds as tensors, checked for the batch at hand, or None.

    generator: the source of all noise, seeded for each batch anew; watcher: sees what the model
    gives; short: whether walks take their gradients in bfloat16.
    """

    norm: Norm
    task: Task
    box: tuple[Tensor, Tensor] | None
    generator: Generator
    watcher: OutputWatcher = field(default_factory=OutputWatcher)
    short: bool = False
