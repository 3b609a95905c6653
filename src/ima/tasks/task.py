"""What an attack and a method must know about a problem.

A task is stateless and never couples samples: every function returns one number a sample.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, runtime_checkable

from torch import Tensor

from ima.tasks.trees import Tree


class Task(Protocol):
    """What attacks and methods must know about a problem; every result has shape (B,).

    Derive your own task from it and write `loss`, `correct`, `score` and `predict`. A class with
    these and `check` is a task too, whatever its base. In all of them

    output: what the model returned for a batch: a tensor, or a list or dict of tensors.
    target: the batch's targets, in the same forms.

    >>> import ima, torch
    >>> class Regression(ima.Task):
    ...     def loss(self, output, target): return (output - target).square().mean(1)
    ...     def score(self, output, target): return 0.1 - self.loss(output, target)
    ...     def correct(self, output, target): return self.score(output, target) > 0
    ...     def predict(self, output): return output
    >>> model, x, y = torch.nn.Linear(4, 2), torch.rand(8, 4), torch.rand(8, 2)
    >>> found = ima.pgd(model, x, y, eps=0.1, task=Regression())
    """

    def check(self, output: Tree, target: Tree) -> None:
        """Raise ValueError or TypeError if output and target do not fit; by default all fit."""

    @abstractmethod
    def loss(self, output: Tree, target: Tree) -> Tensor:
        """The training loss of every sample, (B,), with its graph."""
        ...

    def objective(self, output: Tree, target: Tree) -> Tensor:
        """What an attack raises, (B,); by default the loss."""
        return self.loss(output, target)

    @abstractmethod
    def correct(self, output: Tree, target: Tree) -> Tensor:
        """Whether every sample is right, (B,) bool; False for an output with NaN."""
        ...

    @abstractmethod
    def score(self, output: Tree, target: Tree) -> Tensor:
        """By how much every sample is right, (B,): continuous, positive where correct."""
        ...

    @abstractmethod
    def predict(self, output: Tree) -> Tree:
        """The decision for every sample, such as its class."""
        ...


@runtime_checkable
class Compares(Protocol):
    """A task that can say how far apart two outputs are."""

    def divergence(self, clean: Tree, noisy: Tree, target: Tree = None) -> Tensor:
        """KL(p || q) of the class probabilities of two outputs, (B,), in nats.

        clean: the output that p is read from.
        noisy: the output that q is read from.
        target: says which pixels to ignore, for tasks with such pixels; None: none.
        """
        ...
