"""The bench: `make bench`, or `python -m benchmarks --quick`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import (
    autoattack,
    checks,
    distances,
    growth,
    ima_step,
    memory,
    page,
    pgd,
    rate,
    scale,
    steps,
)
from benchmarks.base import Answer, World, world
from ima.cores import keep_freed

QUESTIONS: dict[str, Callable[[World], Answer]] = {
    "steps": steps.run,
    "ima": ima_step.run,
    "memory": memory.run,
    "checks": checks.run,
    "pgd": pgd.run,
    "autoattack": autoattack.run,
    "distances": distances.run,
    "growth": growth.run,
    "scale": scale.run,
    "rate": rate.run,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask the questions, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    parser.add_argument("--only", nargs="+", choices=list(QUESTIONS), metavar="NAME", default=[])
    parser.add_argument("--authors", type=Path, help="a checkout of the IMA authors' code")
    parser.add_argument(
        "--image-ms", type=float, help="of a standard step an image of ImageNet on one GPU"
    )
    parser.add_argument(
        "--out", type=Path, help="a folder for the page; benchmarks/results if none"
    )
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    # As the command line does, for all sides alike; `growth` tells what it is worth.
    keep_freed()
    begun = time.monotonic()
    found = world(quick=asked.quick, authors=asked.authors)
    found = replace(found, image_ms=asked.image_ms)
    # Where folders lie is nobody's business.
    shown = ["python -m benchmarks", *(["--quick"] if asked.quick else [])]
    shown += [*(["--only"] if asked.only else []), *asked.only]
    command = " ".join([*shown, *(["--authors CHECKOUT"] if asked.authors else [])])
    folder = asked.out or Path(__file__).parent / "results"
    answers: list[Answer] = []
    for name, ask in QUESTIONS.items():
        if name in (asked.only or QUESTIONS):
            print(f"{time.monotonic() - begun:5.0f} s  {name}", file=sys.stderr, flush=True)
            answers.append(ask(found))
            page.write(folder, answers, found, command, time.monotonic() - begun)
    print(folder / page.PAGE)


if __name__ == "__main__":
    main()
