"""What an attack and a method must know about a problem.

A task is stateless and never couples samples: every function returns one number a sample.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, runtime_checkable

from torch import Tensor

from ima.tasks.trees import Tree


class Task(Protocol):
    """What an attack and a method must know about a problem; all results have shape (B,).

    A base for tasks of one's own: `loss`, `correct`, `score` and `predict` must be written. A class
    of another base with these and `check` is a task too.
    """

    def check(self, output: Tree, target: Tree) -> None:
        """Raise ValueError or TypeError where output and target do not fit; by default all do."""

    @abstractmethod
    def loss(self, output: Tree, target: Tree) -> Tensor:
        """The training loss of every sample."""
        ...

    def objective(self, output: Tree, target: Tree) -> Tensor:
        """What an attack raises; by default the loss."""
        return self.loss(output, target)

    @abstractmethod
    def correct(self, output: Tree, target: Tree) -> Tensor:
        """Whether every sample is right; an output with NaN never is."""
        ...

    @abstractmethod
    def score(self, output: Tree, target: Tree) -> Tensor:
        """By how much every sample is right: continuous, positive where correct."""
        ...

    @abstractmethod
    def predict(self, output: Tree) -> Tree:
        """The decision for every sample."""
        ...


@runtime_checkable
class Compares(Protocol):
    """A task that can tell how far two outputs are apart."""

    def divergence(self, clean: Tree, noisy: Tree, target: Tree = None) -> Tensor:
        """KL(p || q) of the class probabilities of two outputs, (B,), in nats.

        target: says which pixels count, where the task has some that do not.
        """
        ...
