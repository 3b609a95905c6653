"""Whether a folder that does not fit into the memory allowed trains in it.

make a folder of COUNT small images
ima train on it, one epoch, in a process of its own
say the most memory that the process held, and how long it took

Run it by `python -m benchmarks.large_folder`; it needs 5 GB of disk, which it gives back.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

COUNT, SIDE, CLASSES = 200_000, 64, 10

LIMIT = 2 * 2**30
"""Bytes that training may hold."""


@dataclass(frozen=True)
class Trained:
    """What a training took. peak: bytes; decoded: bytes of all images; seconds: of the process."""

    peak: int
    decoded: int
    seconds: float
    said: str


def make(folder: Path, count: int, side: int) -> None:
    """Images that no two are alike of, one folder a class: a bright square whose place says it."""
    rng = np.random.default_rng(0)
    for kind in range(CLASSES):
        (folder / f"class{kind}").mkdir(parents=True)
    for number in range(count):
        kind = number % CLASSES
        image = rng.integers(0, 128, (side, side, 3), dtype=np.uint8)
        at = kind * (side - side // 4) // (CLASSES - 1)
        image[at : at + side // 4, at : at + side // 4] += 100
        # Hardly compressed: it would take longer than all the rest.
        Image.fromarray(image).save(folder / f"class{kind}" / f"{number}.png", compress_level=1)


def train(folder: Path, place: Path, *, side: int, overrides: Sequence[str] = ()) -> Trained:
    """Train for an epoch by the command line."""
    command = [
        *(sys.executable, "-c", WATCHED, "train", "digits"),
        f"data={{name: folder, path: '{folder}'}}",
        *("network={name: small_cnn, width: 4}", "train={epochs: 1, batch_size: 256}"),
        *("method={name: ima}", "evaluate={attacks: [pgd-2], eps: [0.5], samples: 100}"),
        *overrides,
        *("--out", str(place / "run"), "--device", "cpu"),
    ]
    environment = {**os.environ, "IMA_CACHE": str(place / "cache")}
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the training stopped:\n{done.stdout}{done.stderr}")
    (peak,) = re.findall(r"^most memory: (\d+) kB$", done.stdout, re.MULTILINE)
    count = sum(1 for _ in folder.glob("*/*.png"))
    seconds = time.monotonic() - begun
    return Trained(1024 * int(peak), 3 * count * side**2, seconds, done.stdout)


WATCHED = """
import resource, sys
from ima.cli import main
try:
    main()
finally:
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss} kB", flush=True)
"""


def told(found: Trained, count: int, side: int) -> str:
    """The answer in one sentence."""
    return (
        f"{count} images of {side}x{side} pixels and 3 channels, {found.decoded / 2**30:.2f} GiB "
        f"decoded: one epoch of IMA held at most {found.peak / 2**30:.2f} GiB (allowed "
        f"{LIMIT / 2**30:g}) and took {found.seconds / 60:.1f} minutes with decoding and validation"
    )


def main() -> None:
    """Make the folder, train, say what it took; exit code 1 where it held more than is allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--side", type=int, default=SIDE)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        make(place / "images", given.count, given.side)
        found = train(place / "images", place, side=given.side)
    print(found.said)
    print(told(found, given.count, given.side))
    sys.exit(found.peak > LIMIT)


if __name__ == "__main__":
    main()
