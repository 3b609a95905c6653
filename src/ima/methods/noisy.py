"""What methods that train on noisy samples share: settings, noise of their own, one training pass.

start = x, or uniform in the ball, or x with a little Gaussian noise
x~ = walk(start)                                  # evaluation mode
loss = mean of weights * Loss(f(x~), y)           # training mode
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Generator, Tensor, nn

from ima.attacks.inputs import Bounds, Model, check_samples, check_steps, communicates
from ima.attacks.walk import Jitter, Objective, Stop, Walked, clamp, eval_forward, walk
from ima.methods.base import NoiseSetting, Step, arrived, batch_size, count, finite, positive
from ima.methods.outputs import Outputs
from ima.norms import Norm, gaussian
from ima.tasks import Classification, Task, Tree, objective_of
from ima.tasks.checked import right_each, task_name
from ima.tasks.pixels import precise, wide

Box = tuple[Tensor, Tensor] | None

_TINY = 1e-3
"""Deviation of the Gaussian start of TRADES and MART, in x's units (their published code)."""

_UNKNOWN = 2**31
"""The run's length until its first epoch is over: schedules stand at their start."""

_AGAIN = 5
"""How often samples come back, and no epoch ends, before a method with a schedule complains."""


class Noisy:
    """Base of the methods that train on noisy samples, also of a method of your own.

    eps: noise radius in x's units and `norm`, above 0.
    norm: of the noise, 2 or infinity, or a `Norm`.
    bounds: (low, high) of x's entries; None: they have none.
    steps: steps of an attack, 1 or more.
    task: what outputs mean; None: classification.
    seed: of the noise, which starts anew every epoch, so that a resumed run repeats it.

    Derive from it and write `__call__`, see `ima.Method`, with `prepare`, `right`, `full_radius`,
    `uniform_start`, `walk` and `train_on`; what is kept between batches goes into `state_dict`.
    A schedule learns the run's length from `end_epoch`; before the first it stands at its start.

    >>> import ima, torch
    >>> class Mine(ima.Noisy):
    ...     def __call__(self, model, x, y, ids):
    ...         x, y, box = self.prepare(x, y, ids)
    ...         right, radius = self.right(model, x, y), self.full_radius(x)
    ...         walked = self.walk(model, x, y, radius, radius / self.steps, box)
    ...         return self.train_on(model, walked.x, y, right, walked.stuck)
    >>> mine = Mine(eps=0.1, norm=2, bounds=(0, 1), steps=3, task=None, seed=0)
    """

    def __init__(
        self,
        *,
        eps: float,
        norm: Norm | float | str,
        bounds: Bounds,
        steps: int,
        task: Task | None,
        seed: int,
    ) -> None:
        positive(eps=eps)
        check_steps(steps)
        # Numbers of NumPy too, but none of them beyond here: states are plain numbers.
        self.eps, self.steps, self.seed = float(eps), int(steps), seed
        self.setting = NoiseSetting.of(norm, bounds, task)
        self.outputs = Outputs(self.setting.task)
        self.epoch, self.epochs = 0, _UNKNOWN
        # Of the first batch, and how often each came back: see `_miss`.
        self._first: Tensor | None = None
        self._returned = torch.zeros(0)
        self.generator = Generator().manual_seed(_noise_seed(seed, 0))
        self.absent = False

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Tell the method that an epoch is over, see `Method`: schedules move on."""
        if not (isinstance(epoch, Integral) and isinstance(epochs, Integral)):
            raise TypeError(f"epoch is {epoch!r} of {epochs!r}; expected two whole numbers")
        if epoch < 0 or epochs < 1:
            raise ValueError(f"epoch is {epoch} of {epochs}; expected 0 and up, of at least 1")
        self.epoch, self.epochs = int(epoch) + 1, int(epochs)
        self.generator.manual_seed(_noise_seed(self.seed, self.epoch))
        self.outputs.reach.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """What to save: the state of the schedule and of the noise."""
        return {
            "method": self.kind,
            "epoch": self.epoch,
            "epochs": self.epochs,
            "noise": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; ValueError for another method's."""
        self._claim(state)
        self.epoch, self.epochs = int(state["epoch"]), int(state["epochs"])
        self.generator.set_state(state["noise"].cpu())

    @property
    def kind(self) -> str:
        """The name in a saved state; only states of the same name can be loaded."""
        return type(self).__name__

    @property
    def scheduled(self) -> bool:
        """Whether something depends on the epoch, so that end_epoch() must be called."""
        return False

    @property
    def bounds(self) -> Bounds:
        """(low, high) of x's entries, or None."""
        return self.setting.bounds

    def _everywhere(self, model: nn.Module) -> bool:
        """Whether all processes of a distributed run take this step together."""
        return communicates(model)

    def _claim(self, state: Mapping[str, Any]) -> None:
        # States of earlier versions do not name their method.
        saved = state.get("method", self.kind if "noise" in state else "another method")
        if saved != self.kind:
            raise ValueError(
                f"this state was saved by {saved}, but this is {self.kind}; build {saved} "
                "with the same options before loading"
            )

    def prepare(self, x: Tensor, y: Tree, ids: Tensor) -> tuple[Tensor, Tree, Box]:
        """A batch as it came to `__call__`, checked: x, y, and the bounds as tensors or None.

        x: (B, *dims), inside the bounds; y: the task's targets; ids: (B,). Raises TypeError or
        ValueError for what is neither.
        """
        x, y = arrived(x, y, ids)
        if (
            self.scheduled
            and self.epochs == _UNKNOWN
            and not self.absent
            and isinstance(ids, Tensor)
        ):
            self._miss(ids)
        return x, y, check_samples(x, self.setting.bounds)

    def _miss(self, ids: Tensor) -> None:
        """Warn, once, where samples come again and again and no epoch ever ends."""
        if self._first is None:
            self._first, self._returned = ids, torch.zeros(len(ids), device=ids.device)
        elif len(self._first):
            self._returned += torch.isin(self._first, ids)
            if bool((self._returned >= _AGAIN).all()):
                self._first = ids[:0]
                warnings.warn(
                    f"{type(self).__name__} has seen the same samples {_AGAIN + 1} times, and no "
                    "epoch ended: its schedule stands still. Call method.end_epoch(epoch, epochs) "
                    "after each epoch, counted from 0",
                    stacklevel=5,
                )

    def full_radius(self, x: Tensor) -> Tensor:
        """`eps` for every sample of x, (B,)."""
        return torch.full((len(x),), self.eps, dtype=precise(x), device=x.device)

    def uniform_start(self, x: Tensor, radius: Tensor, box: Box) -> Tensor:
        """Points uniform in the balls of `radius` (B,) around x, inside the bounds.

        box: the bounds, from `prepare`.
        """
        x = wide(x)
        return clamp(x + self.setting.norm.random(x, radius.to(x.dtype), self.generator), box)

    def gaussian_start(self, x: Tensor, box: Box) -> Tensor:
        """Points beside x: where an objective is flat at x itself, a walk must not start there.

        box: the bounds, from `prepare`.
        """
        x = wide(x)
        return clamp(x + _TINY * gaussian(x, self.generator), box)

    def walk(
        self,
        model: Model,
        x: Tensor,
        y: Tree,
        radius: Tensor,
        step_size: Tensor,
        box: Box,
        *,
        steps: int | None = None,
        start: Tensor | None = None,
        objective: Objective | None = None,
        stop: Stop | None = None,
        jitter: Jitter | None = None,
    ) -> Walked:
        """Walk every sample up the objective's gradient inside its ball, in evaluation mode.

        x, y, box: from `prepare`; radius: of the ball, and step_size: both (B,), in x's units;
        steps: the method's own if None; start: (B, *dims), x if None; objective: (output, target)
        -> (B,), the task's if None; stop, jitter: see `ima.walk`. Returns `x`, the noisy samples,
        and `stuck`, (B,) bool, where the gradient was zero.
        """
        raised = objective or self.outputs.fitting(objective_of(self.setting.task))
        with self.outputs.reach.seen(model):
            return walk(
                model,
                x,
                y,
                radius.to(precise(x)),
                steps=self.steps if steps is None else steps,
                step_size=step_size.to(precise(x)),
                norm=self.setting.norm,
                task=self.setting.task,
                bounds=box,
                start=start,
                objective=raised,
                stop=stop,
                jitter=jitter,
            )

    def right(self, model: nn.Module, x: Tensor, y: Tree) -> Tensor:
        """Whether the model is right at x in evaluation mode, (B,) bool; checks its output."""
        task = self.setting.task
        output = eval_forward(model, x)
        task.check(output, y)
        return right_each(task.correct(output, y), len(x), f"{task_name(task)}.correct")

    def train_on(
        self,
        model: nn.Module,
        noisy: Tensor,
        y: Tree,
        right: Tensor,
        stuck: Tensor,
        *,
        weights: Tensor | None = None,
        each: Callable[[Tree], Tensor] | None = None,
        **more: Tensor,
    ) -> Step:
        """One training pass at the noisy samples: the mean of their losses, times weights (B,).

        right, stuck: (B,) bool, from `right` and `walk`, for the record; each: (output) -> losses
        (B,), the task's if None; more: further metrics.
        """
        task = self.setting.task
        output = self.outputs(model, noisy, y)
        losses = task.loss(output, y) if each is None else each(output)
        loss = (losses if weights is None else weights * losses).mean()
        still = task.correct(output, y)
        return step_of(loss, right, still, stuck, everywhere=self._everywhere(model), **more)


def step_of(
    loss: Tensor,
    right: Tensor,
    still: Tensor,
    stuck: Tensor,
    *,
    everywhere: bool = False,
    **more: Tensor,
) -> Step:
    """The step of a loss; right, still: correct without and with noise; stuck: see `Attacked`.

    everywhere: see `finite`.
    Raises FloatingPointError for a loss that is not finite.
    """
    metrics = {
        "samples": batch_size(right),
        "correct": count(right),
        "loss": finite(loss, everywhere=everywhere).detach(),
        "noisy_samples": batch_size(right),
        "noisy_correct": count(still),
        "crossed": count(right & ~still),
        "stuck": count(stuck),
    }
    return Step(loss, metrics | more)


def classes_only(task: Task, method: str) -> Classification:
    """The task, where it is classification; ValueError elsewhere."""
    if not isinstance(task, Classification):
        raise ValueError(
            f"{method} needs the class probabilities of whole samples, but the task is "
            f"{type(task).__name__}; use it with Classification, or see `ima list methods`"
        )
    return task


def _noise_seed(seed: int, epoch: int) -> int:
    return (seed * 1_000_003 + epoch) % 2**63
