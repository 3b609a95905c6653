"""What a training step of each method costs, in steps of standard training.

python benchmarks/step_cost.py [--rounds 8] [--batch 128]

Processor time, so that others on the machine count less; methods take turns, medians of the rounds
after the second. The network is fresh: few samples are right, which makes methods that leave wrong
samples alone look cheap.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from statistics import median
from time import process_time
from typing import Any

import torch

from ima import IMA, SAT, TRADES, Method, Standard
from ima.networks import NETWORKS

SHAPE, CLASSES = (3, 32, 32), 10


def methods(batch: int) -> Mapping[str, Method]:
    """The methods that take turns, by name; the first is the unit."""
    measured: dict[str, Any] = {"num_samples": batch, "bounds": (0, 1)}
    grown: dict[str, Any] = {**measured, "eps": 1.0, "delta": 0.2}
    return {
        "standard": Standard(),
        "IMA": IMA(**measured),
        "IMA, augmented": IMA(**measured, augmented=True),
        "IMA (paper)": IMA(**grown),
        "IMA (paper), augmented": IMA(**grown, augmented=True),
        "SAT, 10 steps": SAT(eps=0.5, bounds=(0, 1), steps=10),
        "TRADES, 10 steps": TRADES(eps=0.5, bounds=(0, 1), steps=10),
    }


def seconds(network: str, batch: int, rounds: int) -> dict[str, float]:
    """The median of a step's processor time, for each method."""
    torch.manual_seed(0)
    x, y, ids = torch.rand(batch, *SHAPE), torch.arange(batch) % CLASSES, torch.arange(batch)
    model = NETWORKS[network].build(SHAPE[0], CLASSES).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    rows = methods(batch)
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, method in rows.items():
            begun = process_time()
            step = method(model, x, y, ids)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
            taken[name].append(process_time() - begun)
    return {name: median(times[2:]) for name, times in taken.items()}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | standard | " + " | ".join(list(methods(2))[1:]) + " |")
    print("|---" * (1 + len(methods(2))) + "|")
    for network in ("paper_cnn", "small_resnet"):
        found = seconds(network, asked.batch, asked.rounds)
        unit = found.pop("standard")
        cells = [f"{value / unit:.1f}" for value in found.values()]
        print(f"| {network} | {unit:.3f} s | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
