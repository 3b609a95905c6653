"""A network that was trained elsewhere: its weights, code that builds it, and data.

What it is, its answer to one sample tells: a row of logits is a classifier's, a map of them a
segmentation network's. Results lie beside the weights, in a folder of their own.
"""

from __future__ import annotations

import inspect
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ima.attacks.inputs import Bounds
from ima.attacks.walk import look
from ima.data import Splits, load
from ima.evaluation.batches import batches, pair
from ima.networks import build
from ima.tasks import Classification, Segmentation, Tree, full, tree_map
from ima.training.build import BOUNDS, build_fabric
from ima.training.checkpoint import load_file
from ima.training.run import environment
from ima.training.weights import check_file


@dataclass(frozen=True)
class Foreign:
    """A network with its weights on the device, and the data that it is judged by.

    built, named: what builds the network, and the data, as they were asked for; classes: their
    names, numbers where nobody named them; of a segmentation network the foreground's; taken: where
    in the file the weights were; note: what the data set says of itself.
    """

    checkpoint: Path
    model: nn.Module
    built: str
    data: Any
    named: str
    classes: tuple[str, ...]
    task: Classification | Segmentation
    bounds: Bounds
    norm: str
    taken: str
    note: str = ""

    def told(self) -> dict[str, str]:
        """What was loaded, and with what it is evaluated, for the record."""
        device = next((p.device.type for p in self.model.parameters()), "cpu")
        place = environment(device)
        names = ("ima", "commit", "python", "torch", "device", "processor", "cores")
        return {
            "weights": self.checkpoint.name,
            "taken": self.taken,
            "model": self.built,
            "data": self.named,
            **({"about the data": self.note} if self.note else {}),
            **{name: str(place[name]) for name in names if place[name] is not None},
        }

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.checkpoint.with_name(self.checkpoint.name + "-evaluation")

    @property
    def results(self) -> Path:
        """The rows of the evaluation."""
        segments = isinstance(self.task, Segmentation)
        name = f"results_{self.checkpoint.stem}" if segments else "results"
        return self.folder / f"{name}.csv"

    @property
    def examples(self) -> Path:
        """Attacked samples for pictures."""
        return self.folder / "examples.npz"

    @property
    def distances(self) -> Path:
        """The smallest noise found for every sample."""
        return self.folder / "distances.csv"

    @property
    def checks(self) -> Path:
        """What the checks found."""
        return self.folder / "checks.json"


def load_foreign(
    checkpoint: Path,
    model: str,
    data: str,
    *,
    norm: str = "2",
    bounds: tuple[float, float] | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    ignore_label: int | None = None,
    device: str = "auto",
) -> Foreign:
    """The network and its data.

    checkpoint: weights, `.safetensors` or a `.pt` of any usual layout; nothing in it is executed.
    model: `module:function`, called without arguments, or with numbers of channels and classes
    where these are given or known; or of a module itself, of which a copy is taken; or a name of
    `ima list networks`. data: `module:function`, which returns a data set of (x, y) or a list of
    batches; or a name of `ima list data`, of which the test part is taken. bounds: (0, 1) for data
    by name, none else.
    ignore_label: of pixels that count nowhere, for a segmentation network with labels.

    Raises FileNotFoundError or ValueError that says what cannot be loaded, and for weights that do
    not fit the network, and for a network that does not take the data.
    """
    check_file(checkpoint)
    splits = None if ":" in data else load(data)
    samples = _imported(data) if splits is None else splits.test
    x, y = pair(next(iter(batches(samples, 1)), None), ("image", "label"))
    network = _network(model, tuple(x.shape[1:]), splits, channels, num_classes)
    taken = load_file(network, checkpoint)
    network = build_fabric(device).to_device(network).eval()
    place = next((p.device for p in network.parameters()), torch.device("cpu"))
    try:
        output = look(network, x.to(place))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"network {model!r} does not take samples of shape {tuple(x.shape[1:])} and dtype "
            f"{x.dtype}, as {data!r} gives them: {error}"
        ) from error
    if bounds is None and splits is not None:
        bounds = BOUNDS
    task = _task(output, y, ignore_label)
    task.check(output, tree_map(lambda t: t.to(place), y))
    classes = _numbered(task, output) if splits is None else splits.classes
    note = "" if splits is None else splits.note
    return Foreign(
        checkpoint, network, model, samples, data, classes, task, bounds, norm, taken, note
    )


def _task(output: Tree, target: Tree, ignore_label: int | None) -> Classification | Segmentation:
    """What a network does, by its answer: logits (B, K) or (B,), or a map of them."""
    try:
        logits, truth = full(output), full(target)
    except TypeError:
        logits, truth = None, None
    if logits is None or truth is None or (logits.ndim < 3 and not isinstance(output, Tensor)):
        raise ValueError(
            f"the network answers with a {type(output).__name__}; expected a tensor of logits, or "
            "for segmentation a list of them (deep supervision): name a function that puts the "
            "network into a module which returns its logits alone"
        )
    if logits.ndim < 3:
        if ignore_label is not None:
            raise ValueError(
                "ignore_label is for labels of pixels; this network gives one answer a sample, of "
                f"shape {tuple(logits.shape[1:])}: leave it out"
            )
        return Classification()
    one_hot = truth.ndim == logits.ndim and truth.shape[1] > 1
    if logits.shape[1] > 1 and not one_hot:
        return Segmentation(ignore_label=ignore_label)
    # A channel for each region: as many in the labels, or one more for pixels to ignore.
    return Segmentation(regions=True, ignore_label=ignore_label)


def _numbered(task: Classification | Segmentation, output: Tree) -> tuple[str, ...]:
    if isinstance(task, Classification):
        return tuple(map(str, range(max(2, task.logits(output).shape[1]))))
    channels = full(output).shape[1]
    if task.regions:
        return tuple(f"region {number}" for number in range(1, channels + 1))
    return tuple(f"class {number}" for number in range(1, channels))


def _network(
    name: str,
    shape: tuple[int, ...],
    splits: Splits | None,
    channels: int | None,
    num_classes: int | None,
) -> nn.Module:
    if num_classes is None and splits is not None:
        num_classes = splits.num_classes
    if ":" in name:
        found = _found(name)
        if isinstance(found, nn.Module):
            # Another call may put other weights into it.
            return deepcopy(found)
        signature = _signature(name, found)
        if not signature.parameters or (num_classes is None and channels is None):
            return _called(name, found, signature)
    if num_classes is None:
        raise ValueError(f"network {name!r} needs a number of classes; say it with --num-classes")
    return build(name, shape[0] if channels is None else channels, num_classes)


def _signature(name: str, found: Any) -> inspect.Signature:
    """What is to be called with; ValueError for what cannot be called."""
    try:
        return inspect.signature(found)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"network {name!r} is of type {type(found).__name__}; expected a function or a class "
            "that builds a torch.nn.Module, or such a module itself"
        ) from error


def _called(name: str, function: Any, signature: inspect.Signature) -> nn.Module:
    try:
        signature.bind()
    except TypeError as error:
        raise ValueError(
            f"network {name!r} cannot be built without arguments ({error}); say --channels and "
            "--num-classes, or name a function of your own that needs none"
        ) from error
    network = function()
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"network {name!r} made an object of type {type(network).__name__}; expected a "
            "torch.nn.Module"
        )
    return network


def _imported(name: str) -> Any:
    """The data at an import path: what the function returns, or the object itself."""
    found = _found(name)
    data = found() if inspect.isroutine(found) or inspect.isclass(found) else found
    again = hasattr(data, "__iter__") and not hasattr(data, "__next__")
    if not again and not hasattr(data, "__getitem__"):
        raise ValueError(
            f"{name!r} gave {type(data).__name__}; expected a data set of (x, y), or a list of "
            "batches (x, y), which can be read more than once"
        )
    return data


def _found(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{name!r} cannot be imported: {error}; expected 'module:function', the module "
            "installed or its folder in PYTHONPATH"
        ) from error
