"""What every training method is: `method(model, x, y, ids) -> Step`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ima.attacks.inputs import Bounds
from ima.attacks.lockstep import processes
from ima.norms import Norm, get_norm
from ima.tasks import Task, Tree, check_task, plain, targets

EVERY = {"samples", "correct", "loss"}
"""The metrics of every step."""


@dataclass(frozen=True)
class Step:
    """One training step.

    loss: scalar with graph; call `backward` on it. metrics: detached scalar tensors on the
    model's device; reading one is what synchronises. Every method gives `samples`, `correct` (on
    clean samples, a count) and `loss`; methods that add noise `noisy_samples`, `noisy_correct`,
    `crossed` and `stuck` (counts); methods with margins `margin`, the batch's mean of those that
    stood before the step. `crossed`: right samples that noise made wrong; where a method searches
    for the boundary, those of which it found it within `eps`.
    """

    loss: Tensor
    metrics: dict[str, Tensor]


class Method(Protocol):
    """A way to turn a batch into a loss. It never touches the optimiser and never moves the model.

    The model may be wrapped (DDP, `torch.compile`, Fabric): attacks run on the module inside, the
    training passes on the wrapper. Set the model to training mode before the call.
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The step's loss; x: (B, *dims), y: the task's targets, ids: (B,) integers.

        In a run of several processes a batch may be empty: then the loss is 0, with a graph, and
        counts in the mean of all processes' gradients that DDP and FSDP take.
        """
        ...

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Say that epoch number `epoch` (from 0) of `epochs` is over.

        Every process of a distributed run must call it.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What must be saved to continue: tensors and numbers."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        ...


class Stateless:
    """The parts of `Method` for methods that keep nothing between batches."""

    absent = False

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Nothing changes with the epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to load; ValueError where there is something: it is another method's."""
        if state:
            raise ValueError(
                f"the saved state is that of {state.get('method', 'another method')}, this method "
                f"is {type(self).__name__}; make the method as it was made when the state was saved"
            )


@dataclass(frozen=True)
class Setting:
    """What all noisy methods share: how to measure noise, and what the outputs mean."""

    norm: Norm
    bounds: Bounds
    task: Task

    @staticmethod
    def of(norm: Norm | float | str, bounds: Bounds, task: Task | None) -> Setting:
        """The setting that a user's arguments describe; raises ValueError for an unknown norm."""
        return Setting(get_norm(norm), bounds, check_task(task))


def arrived(x: Any, y: Tree) -> tuple[Tensor, Tree]:
    """A batch as plain tensors; TypeError that names x or y where they are none."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}; expected a tensor: torch.as_tensor(x)")
    return plain(x), targets(y)


def positive(**values: float) -> None:
    """Raise ValueError unless every value is a finite number above 0."""
    for name, value in values.items():
        if not isinstance(value, Real) or not 0 < float(value) < float("inf"):
            raise ValueError(f"{name} is {value!r}; expected a finite number above 0")


def one_of(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")


def finite(loss: Tensor, *, everywhere: bool = False) -> Tensor:
    """The loss, if it is finite; FloatingPointError otherwise.

    everywhere: whether all processes of a distributed run come here now; then the error of one is
    the error of all, and none waits for ever for one that stopped.
    """
    mine = loss.detach().reshape(1)
    mine = mine.to(torch.promote_types(mine.dtype, torch.float32))
    found = [mine]
    if everywhere:
        found = [torch.empty_like(mine) for _ in range(processes())]
        dist.all_gather(found, mine)
    values: list[float] = torch.cat(found).tolist()
    for rank, value in enumerate(values):
        if not math.isfinite(value):
            where = f" in process {rank} of {len(values)}" if everywhere else ""
            raise FloatingPointError(
                f"the training loss is {value}{where}; the weights are damaged or the inputs are "
                "not finite: lower the learning rate, clip gradients, or check the data"
            )
    return loss


def check_step(step: Any, method: Method) -> Step:
    """What a method gave, if it is a step with the metrics that every step has; else TypeError."""
    if isinstance(step, Step) and step.metrics.keys() >= EVERY:
        return step
    came = (
        f"a Step with {', '.join(step.metrics)}" if isinstance(step, Step) else type(step).__name__
    )
    raise TypeError(
        f"{type(method).__name__} returned {came}; expected an ima.Step with the metrics "
        f"{', '.join(sorted(EVERY))}"
    )


def count(flags: Tensor) -> Tensor:
    """How many flags are set, as a detached scalar tensor; floating, as loggers expect."""
    return flags.detach().sum(dtype=torch.float32)


def size(x: Tensor) -> Tensor:
    """The number of samples of a batch, as a scalar tensor on its device."""
    return torch.full((), float(len(x)), device=x.device)
