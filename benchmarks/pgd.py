"""(c) and (d): PGD at 80, 50 and 15 % robust accuracy, over peers and over its floor.

Floor: the passes that the evaluation made, counted by sample, times the cost of a bare pass. Really
needed are all of them but for those at the clean samples beyond the first: a sample that stands
takes every step of four walks, a broken one those up to the first wrong point.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks import textbook
from benchmarks.base import (
    BOUNDS,
    Answer,
    Call,
    Target,
    World,
    counted,
    floor,
    interleaved,
    unit_calls,
)
from benchmarks.peers import Peer, pgd_peers
from ima import evaluate

AIMS = {0.8: 1.6, 0.5: 2.2, 0.15: 4.5}
"""Robust accuracies, and how many times as fast as the best peer."""


def plain(steps: int, eps: float) -> Peer:
    """PGD as a plain loop, four runs on all samples."""

    def run(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
        radius = torch.full((len(x),), eps)
        found: list[Tensor] = []
        for start in range(4):
            noise = F.normalize(torch.randn_like(x).flatten(1), dim=1).view_as(x)
            first = x if start == 0 else (x + eps * noise).clamp(0, 1)
            found.append(textbook.pgd(model, x, y, radius, steps, 10 * radius / steps, first))
        return found

    return Peer("plain loop", run)


def robust(model: nn.Module, y: Tensor, points: list[Tensor]) -> float:
    """The share of the samples that no point breaks."""
    with torch.no_grad():
        return float(torch.stack([model(x).argmax(1) == y for x in points]).all(0).float().mean())


def run(world: World) -> Answer:
    """Time ours and the peers' at each radius, in turn."""
    on, steps = world.large, world.attack_steps
    x, y, net = on.x[: world.samples], on.y[: world.samples], on.frozen()
    data, distances = TensorDataset(x, y), on.distances[: world.samples]
    name = f"pgd-{steps}"
    answer = Answer(
        f"PGD, {steps} steps",
        f"{len(x)} samples that {on.name} has right; radii at the quantiles of the distances that "
        "DDN finds. Ours is `ima.evaluate`, four walks, two with cross-entropy and two with the "
        "margin, each on what still stands. Peers make four walks with cross-entropy, on all "
        "samples; MultiAttack lets each walk go on with what the ones before it left. Times the "
        "cost: of a peer's processor time over ours. The floor is what the passes cost that ours "
        "needs; a run in which all samples took all steps four times would cost 4.",
        ("aim", "attack", "robust", "cost in full walks", "times the cost of ours", "floor")
        + ("over it",),
        unit="times the cost of ours, fastest peer",
    )
    for aim, faster in AIMS.items():
        eps = float(distances.quantile(1 - aim))

        def ours(model: nn.Module, eps: float = eps) -> float:
            found = evaluate(model, data, eps, name, bounds=BOUNDS)
            return found.accuracy(name, eps)

        said: dict[str, float] = {}
        peers = [plain(steps, eps), *pgd_peers(steps, eps)]
        calls = {"ima": Call(lambda: said.__setitem__("ima", ours(net)))}
        for peer in peers:
            if (attack := peer.run) is not None:
                calls[peer.name] = Call(
                    lambda peer=peer, attack=attack: said.__setitem__(
                        peer.name, robust(net, y, attack(net, x, y))
                    )
                )
        units = interleaved(unit_calls(on.copy(), x, y), 5)
        taken = interleaved(calls, 1, warm=False)
        passes = counted(net, ours)
        least = floor({**passes, "training": 0}, units, len(x))
        walk = steps * units["gradient"]
        times = {peer: taken[peer] / taken["ima"] for peer in taken if peer != "ima"}
        best = min(times.values())
        for attack, seconds in taken.items():
            mine = attack == "ima"
            answer.rows.append(
                [
                    f"{aim:.0%}",
                    attack,
                    f"{said[attack]:.1%}",
                    f"{seconds / walk:.2f}",
                    "1" if mine else f"{times[attack]:.2f}",
                    f"{least / walk:.2f}" if mine else "-",
                    f"{seconds / least:.2f}" if mine else "-",
                ]
            )
        for peer in peers:
            if peer.lacks:
                answer.rows.append([f"{aim:.0%}", peer.name, peer.lacks, *["-"] * 4])
        answer.bars[f"{aim:.0%} robust"] = best
        for what, among in _groups(times):
            text = f"PGD at {aim:.0%} robust over {what}, times as fast"
            answer.targets.append(Target(text, faster, min(among), False))
        # In thousandths: no peer may break more than ours, but for a sample in a thousand.
        text = f"PGD at {aim:.0%} robust: accuracy above the lowest peer's, in points"
        lowest = min(said[peer] for peer in times)
        answer.targets.append(Target(text, 0.0, 100 * (said["ima"] - lowest), True))
    return answer


def _groups(times: dict[str, float]) -> list[tuple[str, list[float]]]:
    """The peers on all samples, and with them the one that leaves out what is broken."""
    whole = [ratio for peer, ratio in times.items() if "MultiAttack" not in peer]
    groups = [("the best peer on all samples", whole)]
    if len(whole) < len(times):
        groups.append(("the best peer of all (MultiAttack)", list(times.values())))
    return groups
