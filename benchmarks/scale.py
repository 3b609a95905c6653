"""What grows with the number of training samples, and what ImageNet would cost.

A sample's bytes: those of all tensors that a method holds, and of those that it saves, at two
sizes of the training set; the difference over the number of samples between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.base import BOUNDS, Answer, World
from benchmarks.growth import timed
from benchmarks.rate import AIM, CHIPS, operations
from benchmarks.steps import methods
from ima import IMA, Method
from ima.methods.directions import LIMIT
from ima.networks import build

SIZES = (500, 1500)

WANTED = {"1.3 million": 1_300_000, "1 billion": 10**9}

GPUS, CHIP, EPOCHS, IMAGES = 8, "H200", 90, 1_281_167
"""On what ImageNet would be trained, and for how long."""


def tensors(thing: Any, seen: set[int]) -> Iterator[Tensor]:
    """All tensors that an object of this library holds, each once."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
        return
    inner: Any = ()
    if isinstance(thing, Mapping):
        inner = list(thing.values())
    elif isinstance(thing, list | tuple):
        inner = thing
    elif type(thing).__module__.startswith("ima."):
        inner = list(vars(thing).values())
    for one in inner:
        yield from tensors(one, seen)


def held(thing: Any) -> int:
    """Bytes of the tensors of an object, or of a tree."""
    return sum(one.nbytes for one in tensors(thing, set()))


def forms(world: World, samples: int) -> dict[str, Method]:
    """All methods, and IMA in its forms, for so many training samples."""
    eps = world.small.radius(0.5)
    more = {
        "IMA, clean_drop": IMA(num_samples=samples, bounds=BOUNDS, clean_drop=0.01),
        "IMA (released)": IMA(
            num_samples=samples, bounds=BOUNDS, eps=2 * eps, delta=eps / 100, variant="released"
        ),
    }
    return {**methods(world, samples, eps), **more}


def counted(world: World, samples: int) -> dict[str, tuple[int, int]]:
    """By method the bytes that it holds and those that it saves, once it has met a batch."""
    found: dict[str, tuple[int, int]] = {}
    x, y = world.small.x[:4], world.small.y[:4]
    for name, method in forms(world, samples).items():
        method(world.small.copy(), x, y, torch.arange(len(x)))
        found[name] = (held(method), held(method.state_dict()))
    return found


def each(world: World) -> dict[str, tuple[float, float]]:
    """By method the bytes that one more sample takes: held, and saved."""
    few, many = (counted(world, size) for size in SIZES)
    more = SIZES[1] - SIZES[0]
    return {
        name: tuple((many[name][i] - few[name][i]) / more for i in (0, 1))  # pyright: ignore[reportReturnType]
        for name in few
    }


def imagenet(world: World) -> tuple[float, float, str]:
    """Hours of standard training and of IMA's on ImageNet, and how that was found."""
    method = IMA(num_samples=len(world.small.x), bounds=BOUNDS)
    plain, walked = timed(world, world.small, method)
    if world.image_ms is None:
        net = build("resnet18_in", 3, 1000).to("meta")
        forward = operations(lambda: net(torch.zeros(1, 3, 224, 224, device="meta")))
        seconds = 3 * forward / (AIM * CHIPS[CHIP])
        told = (
            f"computed: three times {forward / 1e9:.2f} GFLOP at {AIM:.0%} of the rate of an "
            f"{CHIP}, which is the aim and was not measured"
        )
    else:
        seconds, told = world.image_ms / 1000, "given with `--image-ms`"
    hours = seconds * IMAGES * EPOCHS / GPUS / 3600
    text = (
        f"A standard step takes {1e6 * seconds:.3g} µs an image, {told}; one of IMA takes "
        f"{walked / plain:.2f} times as long, measured in this run on {world.small.name}"
    )
    return hours, walked / plain * hours, text


def run(world: World) -> Answer:
    """One table of bytes; ImageNet in its text."""
    found, entries = each(world), world.small.x[0].numel()
    standard, method, told = imagenet(world)
    answer = Answer(
        "Scale",
        "What a method holds in memory and saves in a checkpoint, beyond what does not grow with "
        f"the samples. Directions of IMA, {2 * entries:,} bytes a sample here, are kept up to "
        f"{LIMIT / 2**30:.0f} GiB in all; larger sets go on without, as augmented ones do. "
        f"ImageNet ({IMAGES:,} images of 224x224, ResNet-18, {EPOCHS} epochs) on {GPUS} GPUs: "
        f"{standard:.1f} hours by standard training, {method:.1f} by IMA. {told}; loading of "
        "images and exchange of gradients come on top.",
        (
            *("method", "bytes a sample, held", "saved"),
            *(f"{what}, {how}" for what in WANTED for how in ("held", "saved")),
        ),
        unit="bytes a sample, saved, at a billion",
    )
    for name, own in found.items():
        cells: list[str] = [f"{count:,.0f}" for count in own]
        directions = 2 * entries + 1 if own[1] > 2 * entries else 0
        for samples in WANTED.values():
            # What `Directions.fits` says.
            less = directions if samples * entries * 2 > LIMIT else 0
            cells += [_size(samples * (count - less)) for count in own]
            answer.bars[name] = own[1] - less
        answer.rows.append([name, *cells])
    return answer


def _size(count: float) -> str:
    return (
        "0" if count == 0 else f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"
    )
