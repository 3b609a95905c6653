"""What attacks, methods, evaluation and pages must know about a problem.

A task is stateless and never couples samples: every function returns one number a sample.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from ima.measures import ACCURACY, Measure
from ima.tasks.trees import Tree, leaves

Decision: TypeAlias = Literal["one", "classes", "regions", "labels", ""]
"""How a task decides: one logit at 0, the largest of several; regions, or findings, each at 0, or
the largest logit of every pixel. Empty: nothing is known of it."""


class Task(Protocol):
    """What attacks, methods, evaluation and pages must know about a problem.

    Derive your own task from it and write `loss`, `correct`, `score` and `predict`. A class with
    these and `check` is a task too, whatever its base. Every result has shape (B,) unless said.

    measure: the words of `quality`.
    drawn: whether targets and predictions are words below a picture, or labels over it.
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

    measure: Measure = ACCURACY
    drawn: ClassVar[Literal["words", "labels"]] = "words"

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

    def soft_margin(self, output: Tree, target: Tree) -> Tensor:
        """A smooth function whose gradient near the boundary is like the score's, (B,).

        By default the score, which may bend where a rival takes another's place.
        """
        return self.score(output, target)

    @abstractmethod
    def predict(self, output: Tree) -> Tree:
        """The decision for every sample, such as its class."""
        ...

    # What follows is for evaluation alone.

    def quality(self, output: Tree, target: Tree) -> Tensor:
        """How good every output is, 0 to 1; by default 1 where it is correct, else 0."""
        return self.correct(output, target).float()

    def parts(self, output: Tree, target: Tree) -> Tensor | None:
        """The quality of every part of a sample, (B, K), NaN where it does not count; or none.

        K is the number of classes; see `measure.column`.
        """
        return None

    def columns(self, output: Tree, target: Tree) -> dict[str, Tree]:
        """What else is kept of every sample, by name; by default label and prediction."""
        return {"label": target, "prediction": self.predict(output)}

    def climbs(self) -> list[Callable[[Tree, Tree], Tensor]]:
        """What PGD raises, one walk after the other; by default the objective, and minus score."""
        objective = getattr(self, "objective", self.loss)
        return [objective, lambda output, target: -self.score(output, target)]

    def usable(self, output: Tree) -> Tensor:
        """Whether outputs permit a decision, (B,) bool; by default where none of them is NaN."""
        rows = (leaf[:, None] if leaf.ndim == 1 else leaf for leaf in leaves(output))
        return ~torch.stack([leaf.flatten(1).isnan().any(1) for leaf in rows]).any(0)

    def decision(self, output: Tree) -> Decision:
        """How it is decided on such outputs; by default nothing is known of it."""
        return ""

    def truths(self, output: Tree, target: Tree) -> Tensor:
        """What decisions at 0 should be, bool and like the logits, for `"one"` and `"regions"`."""
        raise NotImplementedError

    def classes(self, output: Tree, target: Tree) -> int | None:
        """How many classes have a name; by default nothing is known of it."""
        return None

    def about(self, output: Tree, target: Tree) -> dict[str, str]:
        """What is to be said of how targets are taken, by name, for the record."""
        return {}

    def words(self, value: Any, classes: Sequence[str]) -> str:
        """A label or prediction in words: a class by its name, others as they are."""
        known = isinstance(value, int) and 0 <= value < len(classes)
        return classes[value] if known else str(value)


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
