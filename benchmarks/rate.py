"""The share of a chip's bfloat16 rate that a training step reaches, plain and with what speeds it.

Operations of a step: all multiplications and additions of its matrix products and convolutions,
forward and backward, as `torch.utils.flop_counter` counts them, over the time that it takes.
WRN-28-4 on a GPU; a tiny network elsewhere, where the share means little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.base import BOUNDS, Answer, Target, World
from benchmarks.steps import training_step
from ima import IMA, Method, Standard
from ima.networks import build

CHIPS = {
    "B200": 2250e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
}
"""Operations a second in bfloat16 without sparsity, as the makers state them, by a part of the
chip's name; the first that fits counts."""

AIM = 0.4
"""The share that a step of IMA is to reach at the largest batch."""


@dataclass(frozen=True)
class Form:
    """How a step is computed: dtype of autocast, None for none; compiled: by `torch.compile`."""

    name: str
    dtype: torch.dtype | None = None
    compiled: bool = False


FORMS = (
    Form("float32"),
    Form("bfloat16", torch.bfloat16),
    Form("bfloat16, compiled", torch.bfloat16, compiled=True),
)


def peak(chip: str) -> float | None:
    """Operations a second of a chip in bfloat16, None for an unknown one."""
    return next((rate for name, rate in CHIPS.items() if name in chip), None)


def operations(step: Callable[[], object]) -> int:
    """Of one call, forward and backward."""
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return counter.get_total_flops()


def seconds(step: Callable[[], object], device: torch.device, rounds: int) -> float:
    """The median of a call's time, by the clock on the wall; the first two warm up."""
    taken: list[float] = []
    for _ in range(2 + rounds):
        begun = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - begun)
    return median(taken[2:])


def steps(net: nn.Module, method: Method, x: Tensor, y: Tensor, form: Form) -> Callable[[], None]:
    """Training steps of a method, in this form."""
    model: Any = torch.compile(net) if form.compiled else net
    ids = torch.arange(len(x), device=x.device)

    def loss() -> Tensor:
        within = torch.autocast(x.device.type, form.dtype) if form.dtype else nullcontext()
        with within:
            return method(model, x, y, ids).loss

    return training_step(model, loss)


def run(world: World) -> Answer:
    """Time a standard step and one of IMA, in every form, at every batch."""
    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    chip = torch.cuda.get_device_name(device) if gpu else "the processor"
    top = peak(chip) if gpu else None
    name = "wide_resnet" if gpu else world.small.name
    shape = (3, 32, 32) if gpu else tuple(world.small.x.shape[1:])
    batches = (128, 1024) if gpu else (8, 16)
    known = "whose rate is not known here" if top is None else f"{top / 1e12:.0f} TFLOP/s of it"
    answer = Answer(
        "Share of the chip",
        f"{'WRN-28-4' if gpu else name} on {chip}, {known}; float32 as torch computes it, which on "
        "a GPU is TF32 in convolutions. Attacks run on the network inside `torch.compile`, so that "
        "a compiled step gains in its training passes alone."
        + ("" if gpu else " Without a GPU: a tiny network, to see that it runs."),
        ("step", "batch", "form", "ms", "TFLOP a step", "TFLOP/s", "share of bfloat16's rate"),
        unit="TFLOP/s",
    )
    best: float | None = None
    for batch in batches:
        source = torch.Generator().manual_seed(0)
        x = torch.rand(batch, *shape, generator=source).to(device)
        y = (torch.arange(batch) % 10).to(device)
        for form in FORMS if gpu else FORMS[:2]:
            for title, method in {
                "standard": Standard(),
                "IMA": IMA(num_samples=batch, bounds=BOUNDS),
            }.items():
                torch.manual_seed(0)
                net = world.small.copy() if not gpu else build(name, shape[0], 10)
                net = net.to(device).train()
                # The first visit of a sample makes one gradient more.
                plain = steps(net, method, x, y, Form("as it is"))
                plain()
                count = operations(plain)
                taken = seconds(steps(net, method, x, y, form), device, max(world.rounds, 3))
                share = None if top is None else count / taken / top
                answer.rows.append(
                    [
                        title,
                        str(batch),
                        form.name,
                        f"{1000 * taken:.1f}",
                        f"{count / 1e12:.3g}",
                        f"{count / taken / 1e12:.3g}",
                        "-" if share is None else f"{share:.1%}",
                    ]
                )
                answer.bars[f"{title}, {batch}, {form.name}"] = count / taken / 1e12
                if title == "IMA" and batch == batches[-1] and share is not None:
                    best = max(share, best or 0.0)
    what = f"share of bfloat16's rate that a step of IMA reaches at batch {batches[-1]}"
    answer.targets.append(Target(what if gpu else f"{what.rpartition(' at')[0]}", AIM, best, False))
    return answer
