"""A network from elsewhere as the subject of an evaluation: weights, code that builds it, data.

What it is, its answer to one sample tells, where nobody names a task: a row of logits is a
classifier's, a map of them a segmentation network's. Results lie beside the weights, in a folder of
their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ima.attacks.walk import eval_forward
from ima.data import Part, Splits, load
from ima.data.stored import bytes_or_digests
from ima.evaluation.attacks import default_attacks
from ima.evaluation.batches import Batches, few, first_batch
from ima.evaluation.naming import Names, own_classes
from ima.evaluation.partial import batch_mark
from ima.evaluation.reading import Reader, sample_shapes
from ima.evaluation.settings import Settings
from ima.evaluation.subject import Subject
from ima.files import file_digest
from ima.imported import import_named
from ima.networks import build
from ima.tasks import (
    Classification,
    Segmentation,
    Task,
    Tree,
    check_fit,
    check_task,
    find_task,
    full,
    given,
    tree_map,
)
from ima.tasks.masks import one_hot
from ima.training.build import BOUNDS, build_fabric, copyable
from ima.training.run import environment
from ima.training.weights import check_file, load_file

KEYS = ("image", "label")
"""Where x and y are in items that are dicts."""

FEW = 16
"""So many samples tell data that are not in memory from others."""

MADE = ("ima", "commit", "python", "torch", "device", "processor", "cores")
"""What the record says of where the evaluation was made."""


def foreign_subject(
    checkpoint: Path,
    model: str,
    data: str,
    eps: Sequence[float],
    attacks: Sequence[str] | None = None,
    *,
    task: str | None = None,
    norm: str = "2",
    bounds: tuple[float, float] | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
    ignore_label: int | None = None,
    regions: bool | None = None,
    cases: str | None = None,
    device: str = "auto",
    part: Literal["train", "test"] = "test",
) -> Subject:
    """The network and its data.

    checkpoint: weights, `.safetensors` or a `.pt` of any usual layout; nothing in it is executed.
    model: `module:function`, called without arguments, or with numbers of channels and classes
    where these are given or known; or of a module itself, of which a copy is taken; or a name of
    `ima list networks`. data: `module:function`, which returns a data set of (x, y) or a list of
    batches; or a name of `ima list data`, of which this part is taken. attacks: the task's
    usual ones if None. task: a name of `ima list tasks`, or `module:name` of a task's class or of a
    function that gives one; if None, the network's answer tells. bounds: (0, 1) for data by name,
    none else.
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
    # Before it is read: what replaces it meanwhile is not what was evaluated.
    file = file_digest(checkpoint)
    named = None if task is None else _named_task(task, ignore_label, regions)
    splits = None if ":" in data else load(data)
    samples = imported_data(data) if splits is None else getattr(splits, part)
    x, y = first_batch(samples, KEYS)
    network, taken = _loaded(checkpoint, model, sample_shapes(x, y), splits, channels, num_classes)
    network = build_fabric(device).to_device(network).eval()
    place = next((p.device for p in network.parameters()), torch.device("cpu"))
    reader = Reader(network, named or _Guess(ignore_label, regions))
    first = next(iter(Batches(samples, 1, KEYS, reader)))
    x, y = first.x, tree_map(lambda t: t.to(place), first.y)
    try:
        output = eval_forward(network, x.to(place))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"network {model!r} does not take samples of shape {tuple(x.shape[1:])} and dtype "
            f"{x.dtype}, as {data!r} gives them: {error}"
        ) from error
    kind = named or _task(output, y, ignore_label, regions)
    check_fit(kind, output, y, len(x))
    labelled = given(kind, "drawn") == "labels"
    asked = {None: "", True: "regions, as asked for", False: "classes, as asked for"}
    made = environment(place.type)
    about = {
        "weights": checkpoint.name,
        "taken": taken,
        "model": model,
        "channels": asked[regions],
        "about the data": "" if splits is None else splits.note,
        **{name: str(made[name] or "") for name in MADE},
    }
    return Subject(
        network,
        samples,
        kind,
        norm,
        BOUNDS if bounds is None and splits is not None else bounds,
        checkpoint.with_name(checkpoint.name + "-evaluation"),
        f"results_{checkpoint.stem}" if labelled else "results",
        Settings(
            label=checkpoint.stem,
            file=file,
            data=data,
            data_digest=data_digest(samples),
            about={name: words for name, words in about.items() if words},
        ),
        eps=tuple(eps),
        attacks=default_attacks(kind) if attacks is None else tuple(attacks),
        names=cases_of(samples, cases),
        batch_size=16 if labelled else 256,
        classes=_classes(kind, output, y, samples if splits is None else splits),
    )


def data_digest(data: Any) -> str:
    """A digest of samples and labels, so that pictures of other data are not taken for theirs.

    Of all where they lie in memory as tensors, of the first few where they do not: to read the
    whole data set once more may take as long as to evaluate it.
    """
    if isinstance(data, Part):
        return batch_mark(bytes_or_digests(data.images), data.targets)
    if isinstance(data, TensorDataset) and len(data.tensors) > 1:
        return batch_mark(*data.tensors[:2])
    return " ".join(batch_mark(x, y) for x, y in few(data, KEYS, FEW))


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


def _named_task(name: str, ignore_label: int | None, regions: bool | None) -> Task:
    """The task of this name, or at this import path; ValueError where there is none."""
    asked = {"--ignore-label": ignore_label, "--regions": regions}
    if said := [option for option, value in asked.items() if value is not None]:
        raise ValueError(
            f"{said[0]} is for a network whose answer tells its task; leave it out with --task"
        )
    return check_task(find_task(name).task())


def _classes(task: Task, output: Tree, target: Tree, data: Any) -> tuple[str, ...] | None:
    """The data's own names of classes, where they are as many, or numbers; None if uncounted.

    In segmentation the background may stand first.
    """
    count: int | None = given(task, "classes")(output, target)
    if count is None:
        return None
    own = own_classes(data)
    if own:
        labels = isinstance(task, Segmentation) and not task.regions
        fits = tuple(own[1:] if labels and len(own) == count + 1 else own)
        if len(fits) == count == len(set(fits)):
            return fits
    if not isinstance(task, Segmentation):
        return tuple(map(str, range(count)))
    return tuple(f"{'region' if task.regions else 'class'} {n}" for n in range(1, count + 1))


def cases_of(data: Any, asked: str | None) -> Names | None:
    """What names the samples' cases: what was asked for, or what the data say themselves."""
    if asked is None:
        own: Any = getattr(data, "cases", None)
        inside = data.dataset if isinstance(data, DataLoader) else None
        own = getattr(inside, "cases", None) if own is None else own
        own = own() if callable(own) else own
        return own if hasattr(own, "__len__") else None
    if ":" not in asked:
        return int(asked) if asked.isdigit() else asked
    found = import_named("list of cases", asked)
    return found() if inspect.isroutine(found) else found


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
        found = import_named("network", name)
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


def imported_data(name: str) -> Any:
    """The data at an import path: what the function returns, or the object itself."""
    found = import_named("data", name)
    data = found() if inspect.isroutine(found) or inspect.isclass(found) else found
    again = hasattr(data, "__iter__") and not hasattr(data, "__next__")
    if not again and not hasattr(data, "__getitem__"):
        raise ValueError(
            f"{name!r} gave {type(data).__name__}; expected a data set of (x, y), or a list of "
            "batches (x, y), which can be read more than once"
        )
    return data
