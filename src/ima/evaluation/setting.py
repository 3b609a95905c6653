"""What every attack of an evaluation shares."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Generator

from ima.attacks.inputs import Bounds
from ima.evaluation.watch import Watcher
from ima.norms import Norm
from ima.tasks import Task


@dataclass(frozen=True)
class Setting:
    """Norm, task and bounds; generator: the source of all noise, seeded for each batch anew.

    watcher: sees what the model gives.
    """

    norm: Norm
    task: Task
    bounds: Bounds
    generator: Generator
    watcher: Watcher = field(default_factory=Watcher)
