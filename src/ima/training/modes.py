"""Which parts of a network train as in training, and which stay as they came."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ima.evaluation.batches import device_of
from ima.tasks import Task, Tree, tree_map


def mode_of(network: nn.Module, task: Task, x: Tensor, y: Tree) -> Callable[[], None]:
    """What puts the network into the mode of training.

    As it came, where it came in that mode. Else all of it, but for layers of normalisation whose
    parameters are all frozen; and none of it, where outputs fit the task in evaluation mode alone,
    as of networks with further heads in training.
    """
    came = {module: module.training for module in network.modules()} if network.training else {}

    def train() -> None:
        network.train()
        for module in network.modules():
            own = list(module.parameters(recurse=False))
            frozen = isinstance(module, _NormBase) and own and not any(p.requires_grad for p in own)
            module.training = came.get(module, module.training and not frozen)

    def leave() -> None:
        network.eval()

    place = device_of(network)
    x, y = x.to(place), tree_map(lambda t: t.to(place), y)
    # On a copy: it changes running statistics.
    state = deepcopy(network.state_dict())
    with torch.random.fork_rng(), torch.no_grad():
        train()
        try:
            task.check(network(x.clone()), y)
            fits = True
        except (TypeError, ValueError, RuntimeError, AttributeError):
            fits = False
    network.load_state_dict(state)
    network.eval()
    return train if fits else leave
