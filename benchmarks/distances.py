"""(c): minimal distances, attack by attack, over peers; the median noise found stands beside."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.base import BOUNDS, Answer, Call, World, interleaved, unit_calls
from benchmarks.peers import nearest_peers
from ima import L2, Classification, ddn, minimal
from ima.attacks.alma import alma

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def distances(model: nn.Module, x: Tensor, y: Tensor, found: Tensor) -> Tensor:
    """How far the points are that are wrong, (N,); infinite for the others."""
    with torch.no_grad():
        wrong = model(found).argmax(1) != y
    return torch.where(wrong, (found - x).flatten(1).norm(dim=1), torch.inf)


def run(world: World) -> Answer:
    """Time ours and the peers' in turn, on the same samples."""
    on, steps = world.large, world.attack_steps
    x, y, net = on.x[: world.samples], on.y[: world.samples], on.frozen()
    radius, low, high = on.radius(0.5), torch.zeros(()), torch.ones(())
    ours: dict[str, Attack] = {
        "DDN, ima": lambda model, x, y: (
            ddn(model, x, y, steps=steps, radius=radius, norm=L2, bounds=BOUNDS).x
        ),
        "ALMA, ima": lambda model, x, y: alma(
            model, x, y, steps=steps, radius=radius, task=Classification(), bounds=(low, high)
        ),
    }
    peers = nearest_peers(steps, radius)
    attacks = ours | {peer.name: peer.run for peer in peers if peer.run is not None}
    found: dict[str, Tensor] = {}
    calls = {
        name: Call(
            lambda name=name, attack=attack: found.__setitem__(
                name, distances(net, x, y, attack(net, x, y))
            )
        )
        for name, attack in attacks.items()
    }
    few = TensorDataset(x[: world.samples // 4], y[: world.samples // 4])
    calls["ima.minimal"] = Call(
        lambda: found.__setitem__(
            "ima.minimal",
            torch.tensor([row.distance for row in minimal(net, few, radius, bounds=BOUNDS).rows]),
        )
    )
    units = interleaved(unit_calls(on.copy(), x, y), 5)
    taken = interleaved(calls, 1, warm=False)
    answer = Answer(
        "Minimal distances",
        f"{len(x)} samples that {on.name} has right, {steps} steps of each attack; first size: the "
        "median distance. Cost in gradients of the input a sample: 100 steps take 100 at least. "
        "`ima.minimal` runs five attacks, each followed by a search along the boundary, on the "
        f"first {len(few)} samples, and takes the smallest noise; the medians are over all of "
        "them, and over the first for it.",
        ("attack", "gradients a sample", "over ours", "median noise", "the same on the first"),
        unit="gradients a sample",
    )
    for name, seconds in taken.items():
        each = len(few) if name == "ima.minimal" else len(x)
        cost = seconds / each / (units["gradient"] / len(x))
        mine = taken.get(f"{name.partition(',')[0]}, ima")
        ratio = "-" if mine is None else f"{seconds / mine:.2f}"
        whole = "-" if name == "ima.minimal" else f"{float(found[name].median()):.3f}"
        first = f"{float(found[name][: len(few)].median()):.3f}"
        answer.rows.append([name, f"{cost:.0f}", ratio, whole, first])
        answer.bars[name] = cost
    answer.rows += [[peer.name, peer.lacks, "-", "-", "-"] for peer in peers if peer.lacks]
    return answer
