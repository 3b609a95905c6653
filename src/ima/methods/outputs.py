"""The passes that a method trains on, and what their outputs say of the network.

An output without a graph cannot be trained on: that is refused. Outputs that are probabilities,
BatchNorm that takes statistics of an attack's samples, and attacks whose gradients do not reach
the samples are warned of, once a method.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from ima.attacks.inputs import call, check_entrance
from ima.attacks.reach import Reach
from ima.attacks.statistics import list_layers, without_statistics
from ima.attacks.walk import Objective
from ima.doubt import Doubt
from ima.tasks import Classification, MultiLabel, Segmentation, Task, Tree, full, leaves
from ima.tasks.checked import check_trained
from ima.tasks.ends import end_of

BATCHES = 8
"""After so many batches it is read once whether all outputs lie between 0 and 1."""

NO_GRAPH = (
    "the model's output has no graph, so the model cannot be trained: its forward pass runs under "
    "torch.no_grad() or torch.inference_mode(), it detaches, or no parameter requires a gradient; "
    "change that in the model"
)


class Outputs:
    """What one method has seen of its network's outputs; flags wait on the device until read.

    attacks: whether the method attacks, so that samples may come alone.
    """

    def __init__(self, task: Task, *, attacks: bool = True) -> None:
        self.task, self.attacks = task, attacks
        self.batches = 0
        self.reach = Reach()
        self.fits = False
        self.outside: Tensor | None = None
        self.done = not isinstance(task, Classification | MultiLabel | Segmentation)

    def __call__(self, model: nn.Module, x: Tensor, y: Tree | None = None) -> Tree:
        """The model's output at x in the mode that it is in, with its graph; x stays as it is.

        y: targets that it must fit. Raises ValueError where it has no graph, and ValueError or
        TypeError where output and targets do not fit together.
        """
        if self.batches == 0:
            _meet_mode(model)
            if self.attacks:
                _meet(model)
            check_entrance(model, x)
        output = call(model, x)
        self.batches += 1
        if y is not None:
            self._check(output, y, getattr(model, "training", False))
        if torch.is_grad_enabled() and not _graph(output):
            raise ValueError(NO_GRAPH)
        self.reach.trained()
        if y is not None and self.batches == 1:
            check_trained(self.task, output, y, len(x))
        if not self.done:
            self._look(output)
        return output

    def fitting(self, objective: Objective) -> Objective:
        """The objective of a walk on the task's targets; checks the first output that it gets.

        Networks may return something else in evaluation mode than in training mode.
        """

        def checked(output: Tree, target: Tree) -> Tensor:
            if not self.fits:
                self.task.check(output, target)
                self.fits = True
            return objective(output, target)

        return objective if self.fits else checked

    def _check(self, output: Tree, y: Tree, training: bool) -> None:
        try:
            self.task.check(output, y)
        except TypeError as error:
            # Networks with auxiliary heads return more in training mode only.
            mode = "in training mode, " if training and str(error).startswith("the model") else ""
            raise TypeError(f"{mode}{error}") from error

    def _look(self, output: Tree) -> None:
        try:
            logits = full(output)
        except TypeError:
            # The task says what it expects.
            self.done = True
            return
        end = end_of(logits)
        if end != "unknown":
            self.done = True
            if end == "probability":
                _warn("end in a sigmoid or softmax")
            return
        with torch.no_grad():
            outside = ((logits < -1e-6) | (logits > 1 + 1e-6)).any()
        self.outside = outside if self.outside is None else self.outside | outside
        if self.batches >= BATCHES:
            self.done = True
            if not bool(self.outside):
                _warn(f"lie between 0 and 1 in all of {self.batches} passes")


def _graph(output: Tree) -> bool:
    """Whether something of the output can be trained on, as far as that is known."""
    try:
        found = leaves(output)
    except TypeError:
        return True
    return not found or any(leaf.requires_grad for leaf in found)


def _meet(model: nn.Module) -> None:
    if layers := without_statistics(model):
        warnings.warn(
            f"{list_layers(layers)}: its statistics come from the batch in an attack too, so a "
            "sample's noise depends on the others, and a batch of one sample may fail. Give the "
            "layer running statistics, or use GroupNorm or LayerNorm",
            stacklevel=4,
        )


def _meet_mode(model: nn.Module) -> None:
    # A network that `torch.jit.freeze` made has no mode.
    if not isinstance(model, nn.Module) or getattr(model, "training", True):
        return
    if layers := [(name or "it", m) for name, m in model.named_modules() if _waits(m)]:
        name, layer = layers[0]
        more = f", and {len(layers) - 1} more layers," if len(layers) > 1 else ""
        warnings.warn(
            f"the model is in evaluation mode, where {name} ({type(layer).__name__}){more} does "
            "not do what it does in training: call model.train() before the steps of each epoch; "
            "layers that are to stay in evaluation mode can be put into it after that",
            Doubt,
            stacklevel=4,
        )


def _waits(module: nn.Module) -> bool:
    """Whether a layer does something else in training; not one of statistics that is frozen."""
    if getattr(module, "training", True):
        return False
    if isinstance(module, _DropoutNd):
        return module.p > 0
    own = list(module.parameters(recurse=False))
    frozen = bool(own) and not any(p.requires_grad for p in own)
    return isinstance(module, _NormBase) and module.running_mean is not None and not frozen


def _warn(seen: str) -> None:
    warnings.warn(
        f"the model's outputs {seen}, as probabilities do; the losses expect logits: give the "
        "model without its last sigmoid or softmax, or return torch.logit(p) or torch.log(p)",
        stacklevel=5,
    )
