"""Whether a network takes samples as a batch: layers of torch take one without a batch too."""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from torch import Tensor, nn

from ima.attacks.entering import Network, handed
from ima.attacks.inputs import no_trace
from ima.tasks import Tree, leaves, tree_map


class CanCheck(Protocol):
    """What can tell whether an output and targets fit together, as every task can."""

    def check(self, output: Tree, target: Tree) -> None:
        """Raise where they do not."""
        ...


def fits(model: nn.Module | Network, task: CanCheck, x: Tensor, y: Tree) -> int:
    """How far x (B, *dims) is a batch: the network takes it: 1; with these targets: 2; else 0."""
    try:
        output = _look(model, x)
        found = leaves(output)
    except Exception:  # Whatever a network of a user's raises on what it does not take.
        return 0
    if not found or any(leaf.ndim == 0 or len(leaf) != len(x) for leaf in found):
        return 0
    try:
        task.check(output, tree_map(lambda t: t.to(found[0].device), y))
    except (ValueError, TypeError, IndexError, RuntimeError):
        return 1
    return 2


def _place(model: nn.Module, x: Tensor) -> torch.device:
    # Methods take functions too.
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    return next((p.device for p in weights), x.device)


@torch.no_grad()
def _look(model: nn.Module | Network, x: Tensor) -> Tree:
    """The output as it is, whatever its first dimension; in evaluation mode, leaving no trace."""
    x = x if isinstance(model, Network) else x.to(_place(model, x))
    with warnings.catch_warnings(), no_trace(model, x) as network:
        # Of layers that doubt what they are given, as this does.
        warnings.simplefilter("ignore")
        assert isinstance(network, Network)
        return handed(network.run, x, network.taken)
