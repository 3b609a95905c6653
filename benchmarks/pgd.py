"""(c) and (d): PGD at 80, 50 and 15 % robust accuracy, over peers and over its floor.

Floor: the passes that a side made, counted by sample, times the cost of a bare pass in the same
run. Really needed is what ours makes: a sample that stands takes every step of four walks, a broken
one those up to its first wrong point.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks import textbook
from benchmarks.base import (
    BOUNDS,
    Answer,
    Call,
    Counted,
    Kind,
    Target,
    World,
    floor,
    interleaved,
    unit_calls,
)
from benchmarks.peers import Peer, pgd_peers
from ima import evaluate
from ima.evaluation.short import Precision

AIMS = {0.8: 1.6, 0.5: 2.2, 0.15: 4.5}
"""Robust accuracies, and how many times as fast as the best peer."""


SHORT = "ima, bfloat16 where it pays"


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
    # Of a batch of few hardly any are left to share a pass.
    count = 2 * world.samples
    x, y, net = on.x[:count], on.y[:count], Counted(on.frozen()).eval()
    data, distances = TensorDataset(x, y), on.distances[:count]
    name = f"pgd-{steps}"
    answer = Answer(
        f"PGD, {steps} steps",
        f"{len(x)} samples that {on.name} has right; radii at the quantiles of the distances that "
        "DDN finds. Ours is `ima.evaluate`, four walks, two with cross-entropy and two with the "
        "margin, each on what still stands. Peers make four walks with cross-entropy, on all "
        "samples; MultiAttack lets each walk go on with what the ones before it left. A full walk: "
        "all samples take all steps. The floor is what the passes cost, counted by sample, that a "
        'side makes; ratio: its processor time over ours. In bfloat16: `precision="auto"`, which '
        "takes gradients in bfloat16 where a trial finds them faster, and decides in float32; the "
        "trial counts. Aims are those of it; a peer's over it is its ratio over that row's.",
        ("aim", "attack", "robust", "full walks", "floor", "over it", "ratio"),
        unit="times the cost of ours, fastest peer",
    )
    for aim, faster in AIMS.items():
        eps = float(distances.quantile(1 - aim))

        said: dict[str, float] = {}
        passes: dict[str, dict[Kind, int]] = {}

        def ours(precision: Precision = "float32", eps: float = eps) -> float:
            found = evaluate(net, data, eps, name, bounds=BOUNDS, precision=precision)
            return found.accuracy(name, eps)

        def side(
            what: str,
            ask: Callable[[], float],
            said: dict[str, float] = said,
            passes: dict[str, dict[Kind, int]] = passes,
        ) -> Call:
            def ran() -> None:
                said[what] = ask()
                passes[what] = net.passes

            return Call(ran, net.begin)

        peers = [plain(steps, eps), *pgd_peers(steps, eps)]
        calls = {"ima": side("ima", ours), SHORT: side(SHORT, lambda: ours("auto"))}
        for peer in peers:
            if (attack := peer.run) is not None:
                calls[peer.name] = side(
                    peer.name, lambda attack=attack: robust(net, y, attack(net, x, y))
                )
        units = interleaved(unit_calls(on.copy(), x, y), 5)
        taken = interleaved(calls, 1, warm=False)
        walk, times = steps * units["gradient"], dict[str, float]()
        for attack, seconds in taken.items():
            least = floor({**passes[attack], "training": 0}, units, len(x))
            times[attack] = seconds / taken["ima"]
            costs = (seconds / walk, least / walk, seconds / least, times[attack])
            answer.rows.append(
                [f"{aim:.0%}", attack, f"{said[attack]:.1%}", *(f"{cost:.2f}" for cost in costs)]
            )
        short = times[SHORT]
        times = {attack: ratio for attack, ratio in times.items() if attack not in ("ima", SHORT)}
        for peer in peers:
            if peer.lacks:
                answer.rows.append([f"{aim:.0%}", peer.name, peer.lacks, *["-"] * 4])
        answer.bars[f"{aim:.0%} robust"] = min(times.values()) / short
        for what, among in _groups(times):
            text = f"PGD at {aim:.0%} robust over {what}, times as fast"
            answer.targets.append(Target(text, faster, min(among) / short, False))
        text = f"PGD at {aim:.0%} robust: accuracy above the lowest peer's, in points"
        lowest = min(said[peer] for peer in times)
        answer.targets.append(Target(text, 0.0, 100 * (said[SHORT] - lowest), True))
    return answer


def _groups(times: dict[str, float]) -> list[tuple[str, list[float]]]:
    """The peers on all samples, and with them the one that leaves out what is broken."""
    whole = [ratio for peer, ratio in times.items() if "MultiAttack" not in peer]
    groups = [("the best peer on all samples", whole)]
    if len(whole) < len(times):
        groups.append(("the best peer of all (MultiAttack)", list(times.values())))
    return groups
