"""A network that was trained elsewhere: its weights, code that builds it, and data.

What it is, its answer to one sample tells: a row of logits is a classifier's, a map of them a
segmentation network's. Results lie beside the weights, in a folder of their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ima.attacks.inputs import Bounds
from ima.attacks.walk import look
from ima.data import Splits, load
from ima.evaluation.batches import Batches, peek
from ima.evaluation.masks import one_hot
from ima.evaluation.naming import Names
from ima.evaluation.reading import Reader, sample_shapes
from ima.networks import build
from ima.tasks import Classification, Segmentation, Tree, full, tree_map
from ima.training.build import BOUNDS, build_fabric, copyable
from ima.training.checkpoint import load_file
from ima.training.run import environment
from ima.training.weights import check_file

KEYS = ("image", "label")
"""Where x and y are in items that are dicts."""


@dataclass(frozen=True)
class Foreign:
    """A network with its weights on the device, and the data that it is judged by.

    built, named: what builds the network, and the data, as they were asked for; classes: their
    names, numbers where nobody named them; of a segmentation network the foreground's. taken: where
    in the file the weights were; note: what the data set says of itself; names: of the samples'
    cases, as `ima.evaluate` takes them; channels: what those of a segmentation network are, where
    it was asked for.
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
    names: Names | None = None
    channels: str = ""

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
            **({"channels": self.channels} if self.channels else {}),
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
    regions: bool | None = None,
    cases: str | None = None,
    device: str = "auto",
) -> Foreign:
    """The network and its data.

    checkpoint: weights, `.safetensors` or a `.pt` of any usual layout; nothing in it is executed.
    model: `module:function`, called without arguments, or with numbers of channels and classes
    where these are given or known; or of a module itself, of which a copy is taken; or a name of
    `ima list networks`. data: `module:function`, which returns a data set of (x, y) or a list of
    batches; or a name of `ima list data`, of which the test part is taken. bounds: (0, 1) for data
    by name, none else.
    ignore_label: of pixels that count nowhere, for a segmentation network with labels. regions:
    whether each channel is a region through a sigmoid, for a segmentation network; if None, as the
    masks of the first sample have it: one-hot ones, every pixel in one channel, mean labels. cases:
    `module:name` of a list of the samples' cases, or a function that gives one; or a key of the
    data's dicts, or a place in its tuples; if None the data's own attribute `cases`, where it has
    one. Classes are called as the data's attribute `classes` says, where that fits.

    Raises FileNotFoundError or ValueError that says what cannot be loaded, and for weights that do
    not fit the network, and for a network that does not take the data.
    """
    check_file(checkpoint)
    splits = None if ":" in data else load(data)
    samples = _imported(data) if splits is None else splits.test
    x, y = peek(samples, KEYS)
    shapes = sample_shapes(x, y)
    network, taken = _loaded(checkpoint, model, shapes, splits, channels, num_classes)
    network = build_fabric(device).to_device(network).eval()
    place = next((p.device for p in network.parameters()), torch.device("cpu"))
    first = next(iter(Batches(samples, 1, KEYS, Reader(network, _Guess(ignore_label, regions)))))
    x, y = first.x, first.y
    try:
        output = look(network, x.to(place))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"network {model!r} does not take samples of shape {tuple(x.shape[1:])} and dtype "
            f"{x.dtype}, as {data!r} gives them: {error}"
        ) from error
    if bounds is None and splits is not None:
        bounds = BOUNDS
    task = _task(output, y, ignore_label, regions)
    task.check(output, tree_map(lambda t: t.to(place), y))
    background = isinstance(task, Segmentation) and not task.regions
    numbered = _numbered(task, output)
    classes = _named(samples, numbered, background) if splits is None else splits.classes
    asked = {None: "", True: "regions, as asked for", False: "classes, as asked for"}
    return Foreign(
        *(checkpoint, network, model, samples, data, classes, task, bounds, norm, taken),
        note="" if splits is None else splits.note,
        names=_cases(samples, cases),
        channels=asked[regions],
    )


@dataclass(frozen=True)
class _Guess:
    """What tells whether an item is a sample or a batch, before the task is known."""

    ignore_label: int | None
    regions: bool | None

    def check(self, output: Tree, target: Tree) -> None:
        """Raise where output and target do not fit together, whatever the task."""
        _task(output, target, self.ignore_label, self.regions).check(output, target)


def _loaded(
    checkpoint: Path,
    model: str,
    shapes: Sequence[tuple[int, ...]],
    splits: Splits | None,
    channels: int | None,
    num_classes: int | None,
) -> tuple[nn.Module, str]:
    """The network with its weights, for samples of the first of these shapes that it fits.

    Returns it, and where in the file the weights were.
    """
    refused: list[Exception] = []
    for shape in shapes:
        try:
            network = _network(model, shape, splits, channels, num_classes)
            return network, load_file(network, checkpoint)
        except (ValueError, RuntimeError) as error:
            refused.append(error)
    raise refused[0]


def _task(
    output: Tree, target: Tree, ignore_label: int | None, regions: bool | None = None
) -> Classification | Segmentation:
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
        asked = {"ignore_label": ignore_label, "regions": regions}
        if given := [name for name, value in asked.items() if value is not None]:
            raise ValueError(
                f"{given[0]} is for labels of pixels; this network gives one answer a sample, of "
                f"shape {tuple(logits.shape[1:])}: leave it out"
            )
        return Classification()
    if regions is None:
        regions = _are_regions(logits.shape[1], truth.detach().cpu(), logits.ndim)
    return Segmentation(regions=regions, ignore_label=ignore_label)


def _are_regions(channels: int, masks: Tensor, dims: int) -> bool:
    """Whether masks have a channel for each region, or one more for pixels to ignore.

    ValueError where that may be the background as well.
    """
    several = masks.ndim == dims and masks.shape[1] > 1
    if not several:
        return channels == 1
    if not one_hot(masks):
        return True
    if masks.shape[1] == channels + 1:
        raise ValueError(
            f"the masks have {channels + 1} channels, the network's output {channels}, and every "
            "pixel is in exactly one: if the first is the background, leave it out, y[1:]; if the "
            "last marks pixels to ignore, say --regions"
        )
    return channels == 1


def _numbered(task: Classification | Segmentation, output: Tree) -> tuple[str, ...]:
    if isinstance(task, Classification):
        return tuple(map(str, range(max(2, task.logits(output).shape[1]))))
    channels = full(output).shape[1]
    if task.regions:
        return tuple(f"region {number}" for number in range(1, channels + 1))
    return tuple(f"class {number}" for number in range(1, channels))


def _named(data: Any, numbered: tuple[str, ...], background: bool) -> tuple[str, ...]:
    """The data's own names of classes, where they are as many; background: may stand first."""
    own = getattr(data, "classes", None) or getattr(_inside(data), "classes", None)
    if not isinstance(own, list | tuple) or not all(isinstance(name, str) for name in own):
        return numbered
    foreground = own[1:] if background and len(own) == len(numbered) + 1 else own
    fits = len(foreground) == len(numbered) == len(set(foreground))
    return tuple(foreground) if fits else numbered


def _cases(data: Any, asked: str | None) -> Names | None:
    """What names the samples' cases: what was asked for, or what the data say themselves."""
    if asked is None:
        own = getattr(data, "cases", None)
        own = getattr(_inside(data), "cases", None) if own is None else own
        own = own() if callable(own) else own
        return own if hasattr(own, "__len__") else None
    if ":" not in asked:
        return int(asked) if asked.isdigit() else asked
    found = _found(asked)
    return found() if inspect.isroutine(found) else found


def _inside(data: Any) -> Any:
    """The data set that a loader reads."""
    return data.dataset if isinstance(data, DataLoader) else None


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
            return deepcopy(copyable(found))
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
