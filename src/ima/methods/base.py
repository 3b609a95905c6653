"""What every training method is: `method(model, x, y, ids) -> Step`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ima.attacks.inputs import Bounds
from ima.attacks.lockstep import processes
from ima.norms import Norm, get_norm
from ima.tasks import Task, Tree, check_task, leaves, plain, targets

EVERY = {"samples", "correct", "loss"}
"""The metrics of every step."""


@dataclass(frozen=True)
class Step:
    """One training step: the loss to call `backward` on, and what to log.

    loss: scalar with graph, the batch's mean.
    metrics: detached scalars by name, on the model's device; reading one waits for the device.

    Counts in `metrics`: `samples` and `correct` (clean samples) from every method. Those with noise
    add `noisy_samples`, `noisy_correct`, `stuck` (see `Attacked`) and `crossed`: right samples that
    noise made wrong, or for which a search found the boundary within `eps`. Other numbers: `loss`;
    from methods with margins `margin`, the mean of the batch's margins before the step; from IMA
    `growing`, how many of them grew, and where margins are measured `radius` and `kept`, the share
    of what the network knows that it keeps there, 0 to 1; with `clean_drop` also `held_clean` and
    `clean_cost`, quality without noise on the held-out samples and how far it is below its best.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> step = ima.Standard()(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()
    >>> sorted(step.metrics)
    ['correct', 'loss', 'samples']
    """

    loss: Tensor
    metrics: dict[str, Tensor]


class Method(Protocol):
    """A training method: it makes a loss of a batch, uses no optimiser and never moves the model.

    The model may be wrapped (DDP, `torch.compile`, Fabric): attacks run on the module inside, the
    training passes on the wrapper. Set the model to training mode before the call.

    >>> import ima, torch
    >>> model, x, y = torch.nn.Linear(4, 3), torch.rand(8, 4), torch.arange(8) % 3
    >>> method: ima.Method = ima.SAT(eps=0.1)
    >>> step = method(model, x, y, ids=torch.arange(8))
    >>> step.loss.backward()  # then optimizer.step()
    >>> method.end_epoch(0, epochs=10)  # after each epoch
    """

    def __call__(self, model: nn.Module, x: Tensor, y: Tree, ids: Tensor) -> Step:
        """The loss and metrics of one batch.

        model: a module whose output fits the task, in training mode.
        x: (B, *dims), floating, inside the method's bounds.
        y: the task's targets, such as (B,) integer labels.
        ids: (B,) integers, which training samples these are; methods without margins ignore them.

        In a run of several processes all must call it equally often, and a batch may be empty: then
        the loss is 0, with a graph, and counts in the mean of gradients that DDP and FSDP take.
        Raises ValueError or TypeError for x, y, ids or outputs that do not fit, FloatingPointError
        for a loss that is not finite; no margin has changed then.
        """
        ...

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Tell the method that an epoch is over. Every process of a distributed run must call it.

        epoch: which one, from 0.
        epochs: how many the whole run has, 1 or more.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """What must be saved to continue: tensors, numbers and strings, in dicts."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave.

        state: of the same method, built with the same options; ValueError for any other.
        """
        ...


class Stateless:
    """The parts of `Method` for methods that keep nothing between batches."""

    absent = False

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Do nothing: this method does not depend on the epoch."""

    def state_dict(self) -> dict[str, Any]:
        """An empty dict: this method keeps nothing between batches."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Do nothing; ValueError for a state that is not empty: another method saved it."""
        if state:
            saved = state.get("method", "another method")
            raise ValueError(
                f"this state was saved by {saved}, but this is {type(self).__name__}; build "
                f"{saved} with the same options before loading"
            )


@dataclass(frozen=True)
class NoiseSetting:
    """What all noisy methods share: how to measure noise, and what the outputs mean."""

    norm: Norm
    bounds: Bounds
    task: Task

    @staticmethod
    def of(norm: Norm | float | str, bounds: Bounds, task: Task | None) -> NoiseSetting:
        """The setting that a user's arguments describe; raises ValueError for an unknown norm."""
        return NoiseSetting(get_norm(norm), bounds, check_task(task))


def arrived(x: Any, y: Tree, ids: Any) -> tuple[Tensor, Tree]:
    """A batch as plain tensors; TypeError or ValueError that names x, y or ids where it is none.

    ids: compared where there are some; what else they must be, methods with margins say.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}; expected a tensor: torch.as_tensor(x)")
    x, y = plain(x), targets(y)
    each = [("targets", leaf) for leaf in leaves(y)]
    each += [("ids", torch.as_tensor(ids))] if isinstance(ids, Tensor | Integral) else []
    if x.ndim == 0 or any(given.ndim == 0 for _, given in each):
        told = ", ".join(f"{what} {tuple(given.shape)}" for what, given in [("x", x), *each])
        raise ValueError(
            f"one sample came without a batch (shapes: {told}); expected batches, (B, ...): let a "
            "DataLoader make them (batch_size=1 or more), or pass x[None], y[None], ids[None]"
        )
    for what, given in each:
        if len(given) != len(x):
            raise ValueError(
                f"{len(given)} {what} came with {len(x)} samples; expected one for each: x has "
                f"shape {tuple(x.shape)}, {what} {tuple(given.shape)}; one sample without a batch "
                "gets one by x[None], y[None]"
            )
    return x, y


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
    """How many flags are set, as a detached scalar tensor; floating, as loggers expect.

    Raises TypeError for what are no flags.
    """
    if not isinstance(flags, Tensor):
        raise TypeError(f"a metric is to count a {type(flags).__name__}; expected flags, (B,) bool")
    return flags.detach().sum(dtype=torch.float32)


def batch_size(x: Tensor) -> Tensor:
    """The number of samples of a batch, as a scalar tensor on its device."""
    return torch.full((), float(len(x)), device=x.device)
