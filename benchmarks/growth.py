"""(f): how a step grows with the batch, samples, steps, image size and processes.

A method of two processes runs in two more Python processes, each on half of the batch, over gloo;
its figure is the processor time of both.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from benchmarks.base import BOUNDS, Answer, Call, Trained, World, interleaved
from benchmarks.steps import method_step
from ima import IMA, SAT, Method, Standard
from ima.cores import keep_freed
from ima.networks import build

ROOT = Path(__file__).resolve().parents[1]


def enlarged(on: Trained, batch: int, size: int | None = None) -> Trained:
    """The network with so many samples, repeated or left out, of another size."""
    times = -(-batch // len(on.x))
    x = on.x.repeat(times, *[1] * (on.x.ndim - 1))[:batch]
    if size is not None:
        x = F.interpolate(x, (size, size), mode="bilinear")
    return Trained(on.name, on.model, x, on.y.repeat(times)[:batch], on.distances)


def timed(world: World, on: Trained, method: Method) -> tuple[float, float]:
    """Milliseconds a sample of a standard step, and of the method's."""
    net = on.copy()
    sides = {"standard": Standard(), "method": method}
    calls = {name: Call(method_step(net, side, on)) for name, side in sides.items()}
    taken = interleaved(calls, world.rounds)
    each = [1000 * taken[name] / len(on.x) for name in sides]
    return each[0], each[1]


def run(world: World) -> Answer:
    """One table: what changes, and what a step of IMA costs there."""
    on, eps = world.small, world.small.radius(0.5)
    batch = len(on.x)
    answer = Answer(
        "Growth",
        f"Milliseconds of processor time a sample on {on.name}; IMA is the default. Steps: SAT "
        "with so many. In processes: the sum over them, with the gradients' exchange. Freed "
        "memory: kept by the command line and by this bench (`ima.cores.keep_freed`).",
        ("what", "how much", "standard", "method", "method over standard"),
        unit="method over standard",
    )

    def add(what: str, much: str, standard: float, method: float) -> None:
        answer.rows.append(
            [what, much, f"{standard:.3f}", f"{method:.3f}", f"{method / standard:.2f}"]
        )
        answer.bars[f"{what} {much}"] = method / standard

    for count in (16, 32) if world.quick else (32, 128, 512):
        some = enlarged(on, count)
        add("batch", str(count), *timed(world, some, IMA(num_samples=count, bounds=BOUNDS)))
    for count in (10**4, 10**6):
        # Directions of so many samples would not fit where images are large.
        method = IMA(num_samples=count, bounds=BOUNDS, eps=2 * eps, delta=eps / 100)
        add("margins, Algorithm 2", f"{count:,}", *timed(world, on, method))
    for steps in (2, 4) if world.quick else (5, 10, 20, 40):
        add("steps", str(steps), *timed(world, on, SAT(eps=eps, bounds=BOUNDS, steps=steps)))
    for size in (8, 12) if world.quick else (32, 64, 128):
        some = enlarged(on, batch if size < 64 else max(8, batch // 4), size)
        method = IMA(num_samples=len(some.x), bounds=BOUNDS)
        add("pixels", f"{size}x{size}", *timed(world, some, method))
    for count in (2,) if world.quick else (1, 2):
        add("processes", str(count), *together(world, on, count))
    for keep in () if world.quick else (False, True):
        much = "kept" if keep else "given back"
        add(f"{world.large.name}, freed memory", much, *together(world, world.large, 1, keep=keep))
    return answer


def together(world: World, on: Trained, count: int, *, keep: bool = False) -> tuple[float, float]:
    """Milliseconds a sample in so many processes, summed over them; keep: see `keep_freed`."""
    with TemporaryDirectory() as folder:
        torch.save((on.x, on.y), Path(folder) / "samples.pt")
        command = [sys.executable, "-m", "benchmarks.growth", folder, on.name, str(world.rounds)]
        options = ["--width", "8"] if world.quick else []
        options += ["--keep"] if keep else []
        asked = [[*command, str(rank), str(count), *options] for rank in range(count)]
        started = [
            subprocess.Popen(one, cwd=ROOT, stdout=subprocess.PIPE, text=True) for one in asked
        ]
        said = [one.communicate()[0] for one in started]
        if any(one.returncode for one in started):
            raise RuntimeError(f"a process of {' '.join(command)} stopped with an error")
    each = [[float(word) for word in text.split()] for text in said]
    standard, method = (sum(column) for column in zip(*each, strict=True))
    return 1000 * standard / len(on.x), 1000 * method / len(on.x)


def _one_of_several() -> None:
    """One process: print its seconds of a standard step and of IMA's on its share."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("network")
    parser.add_argument("rounds", type=int)
    parser.add_argument("rank", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    if asked.keep and not keep_freed():
        print("this C library cannot keep memory", file=sys.stderr)
    torch.set_num_threads(1)
    x, y = torch.load(asked.folder / "samples.pt", weights_only=True)
    share: list[Tensor] = [one[asked.rank :: asked.count] for one in (x, y)]
    meeting = f"file://{asked.folder}/meeting"
    dist.init_process_group("gloo", meeting, rank=asked.rank, world_size=asked.count)
    torch.manual_seed(0)
    options = {} if asked.width is None else {"width": asked.width}
    net = torch.nn.parallel.DistributedDataParallel(
        build(asked.network, x.shape[1], 10, **options).train()
    )
    on = Trained(asked.network, net, *share, distances=torch.zeros(0))
    ids = torch.arange(len(x))[asked.rank :: asked.count]
    calls: dict[str, Call] = {}
    for name, method in {"s": Standard(), "m": IMA(num_samples=len(x), bounds=BOUNDS)}.items():
        calls[name] = Call(method_step(net, method, on, ids))
    taken = interleaved(calls, asked.rounds)
    dist.destroy_process_group()
    print(taken["s"], taken["m"])


if __name__ == "__main__":
    _one_of_several()
