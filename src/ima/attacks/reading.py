"""Whether a network takes samples as a batch: layers of torch take one without a batch too."""

from __future__ import annotations

import warnings
from typing import Protocol

import torch
from torch import Tensor, nn

from ima.attacks.entering import Network, handed
from ima.attacks.inputs import no_trace
from ima.attacks.lockstep import processes
from ima.tasks import Classification, Tree, leaves, tree_map


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


def check_batch(model: nn.Module, task: CanCheck, x: Tensor, y: Tree) -> None:
    """Raise ValueError where samples lack a dimension, or the network takes x for one sample.

    Convolutions take a batch for a sample without one where samples lack the dimension of
    channels; labels of pixels may fit. RuntimeError where the network raises it for another reason.
    """
    # Of several processes, one may have no samples of labels: their passes would not match.
    if isinstance(task, Classification) and processes() > 1:
        return
    x = x.to(_place(model, x))
    with no_trace(model, x) as network:
        assert isinstance(network, Network)
        _check(network, task, x, y)


def _check(model: Network, task: CanCheck, x: Tensor, y: Tree) -> None:
    shape, own = tuple(x.shape), tuple(x.shape[1:])
    lacks = (
        f"samples of shape {own} lack the dimension of channels, which x[:, None] adds to a batch "
        "and x[None] to a sample"
    )
    try:
        output = _look(model, x)
    except Exception as error:  # Whatever a network of a user's raises on what it does not take.
        if fits(model, task, x[:, None], y):
            raise ValueError(f"the network takes no batch of shape {shape}: {lacks}") from error
        # Where memory is short, another class says so. Of other errors what comes after tells, and
        # of those of another process.
        if type(error) is not RuntimeError or processes() > 1:
            return
        raise RuntimeError(f"the network stops at samples of shape {own}: {error}") from error
    if isinstance(task, Classification):
        return
    one, two = tree_map(lambda t: t[None], y), tree_map(lambda t: t[None, None], y)
    if fits(model, task, x[None], one) == 0 or fits(model, task, x[None, None], two) > 0:
        return
    try:
        alone, within = leaves(output)[0], leaves(_look(model, x[None]))[0]
    except Exception:  # What comes after says what the network does not take.
        return
    if alone.shape == within.shape[1:] and torch.allclose(alone, within[0], equal_nan=True):
        raise ValueError(
            f"the network takes a batch of shape {shape} for one sample without a batch: {lacks}; "
            "a sample without a batch gets one by x[None], y[None]"
        )


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
