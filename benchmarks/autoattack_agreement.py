"""AutoAttack as `ima.evaluate` runs it, against one whole run of the authors' code.

ours:      `ima.evaluate` on all radii in one call, in batches; stopped after the first batch and
           continued from its record; samples that stand at one radius are attacked at the next
reference: pyautoattack's `AutoAttack(version="standard")`, for each radius once, on all samples in
           one batch, on the network itself; and again with another seed, because it draws too

Both see the same test samples and the same list of attacks. The table, in Markdown, goes to the
standard output; it takes minutes a network and radius on one core.

    python benchmarks/autoattack_agreement.py runs/digits/standard/seed0 --eps 0.5 1
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ima import evaluate
from ima.data import Part
from ima.data.split import stratified
from ima.evaluation.autoattack import attack_parts
from ima.evaluation.results import Results
from ima.evaluation.subject import Subject
from ima.norms import get_norm
from ima.training.build import BOUNDS
from ima.training.evaluating import run_subject
from ima.training.run import Run, environment

BATCH = 100
"""Samples in a batch of ours: several batches, so that the record has something to continue."""

COLUMNS = (
    *("network", "clean", "eps", "ours", "reference", "points", "only ours", "only reference"),
    "reference again",
)


class Stopped(Exception):  # noqa: N818  # nothing went wrong
    """Raised after the first batch, as a signal would."""


def ours(subject: Subject, samples: Part, radii: Sequence[float], seed: int) -> Results:
    """Accuracies through `ima.evaluate`, in batches, stopped and continued."""

    def stop(done: int, total: int) -> None:
        raise Stopped

    def whole(record: Path, progress: Any) -> Results:
        return evaluate(
            subject.model,
            samples,
            radii,
            "autoattack",
            norm=subject.norm,
            bounds=BOUNDS,
            batch_size=BATCH,
            seed=seed,
            progress=progress,
            partial=record,
        )

    with TemporaryDirectory() as folder:
        record = Path(folder) / "record.part"
        try:
            whole(record, stop)
        except Stopped:
            assert record.stat().st_size
        return whole(record, None)


def reference(subject: Subject, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
    """Which samples stand after the authors' code, (N,) bool."""
    from pyautoattack import AutoAttack

    norm, classes = get_norm(subject.norm), len(subject.classes or ())
    options: dict[str, Any] = {"norm": norm.name, "eps": eps, "seed": seed, "version": "standard"}
    library: Any = AutoAttack(subject.model, **options)
    listed = attack_parts("autoattack", classes, x.shape[1:], norm)
    if tuple(library.attacks_to_run) != listed:
        raise ValueError(
            f"ima runs {', '.join(listed)} on {classes} classes, the reference "
            f"{', '.join(library.attacks_to_run)}; name runs of four classes or more"
        )
    _, prediction = library.run_standard_evaluation(x, y, batch_size=len(x))
    return prediction == y


def compare(run: Run, which: str, radii: Sequence[float], count: int, seed: int) -> list[list[str]]:
    """The lines of one network, one a radius."""
    subject = run_subject(run, which, "cpu")
    subject.model.eval().requires_grad_(False)
    if count >= len(subject.data):
        raise ValueError(
            f"{run.folder} is judged by {len(subject.data)} samples; say fewer with --samples"
        )
    chosen = np.flatnonzero(stratified(subject.data.targets.numpy(), count, seed=0))
    x, y = subject.data[torch.as_tensor(chosen)]
    name = "/".join(run.folder.parts[-2:])
    print(f"{name}: ours", file=sys.stderr, flush=True)
    found = ours(subject, Part(x, y), radii, seed)
    lines: list[list[str]] = []
    for eps in radii:
        print(f"{name}: reference at {eps:g}", file=sys.stderr, flush=True)
        stands, again = (reference(subject, x, y, eps, seed + more) for more in (0, 1))
        places = found.at("autoattack", eps)
        mine = torch.empty(len(x), dtype=torch.bool)
        mine[found.columns["id"][places]] = torch.from_numpy(~found.broken_rows[places])
        shares = [100 * float(one.float().mean()) for one in (mine, stands, again)]
        lines.append(
            [
                name,
                f"{100 * found.accuracy():.1f}",
                f"{eps:g}",
                *(f"{share:.2f}" for share in shares[:2]),
                f"{shares[0] - shares[1]:+.2f}",
                str(int((~mine & stands).sum())),
                str(int((mine & ~stands).sum())),
                f"{shares[2]:.2f}",
            ]
        )
    return lines


def main() -> None:
    """Compare, and print the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--eps", nargs="+", type=float, default=[1.0], help="noise radii")
    parser.add_argument("--samples", type=int, default=300, help="so many test samples")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--seed", type=int, default=0, help="of both sides' noise")
    asked = parser.parse_args()
    radii = sorted(set(asked.eps))
    rows: list[list[str]] = []
    for folder in asked.runs:
        rows += compare(Run.open(folder), asked.checkpoint, radii, asked.samples, asked.seed)
    here = environment("cpu")
    command = " ".join(["python benchmarks/autoattack_agreement.py", *sys.argv[1:]])
    cells = [COLUMNS, (":---", *["---:"] * (len(COLUMNS) - 1)), *rows]
    print("# AutoAttack: ours against the reference\n")
    print(
        f"Accuracy in percent on {asked.samples} test samples, {asked.checkpoint} weights. Ours: "
        f"one call of `ima.evaluate` for all radii, in batches of {BATCH}, stopped after the first "
        "and continued. Reference: pyautoattack's `AutoAttack`, version standard, a whole run for "
        "each radius on all samples in one batch, on the network itself. Points: ours less the "
        "reference; `only ours` and `only reference` count samples that one side broke and the "
        "other did not; `reference again` has another seed.\n"
    )
    print("\n".join("| " + " | ".join(row) + " |" for row in cells))
    print(
        f"\nMade by `{command}` at commit {here['commit']}, torch {here['torch']}, Python "
        f"{here['python']}, {here['device']} with {here['cores']} cores."
    )


if __name__ == "__main__":
    main()
