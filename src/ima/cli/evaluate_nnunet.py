"""`ima evaluate --nnunet FOLDER`: how low noise takes the Dice of a trained nnU-Net."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ima.budget import Budget


def refuse(others: Mapping[str, object]) -> None:
    """Raise ValueError where an option is given that does not go with --nnunet."""
    given = [name for name, value in others.items() if value is not None]
    if given:
        raise ValueError(
            f"{given[0]} does not go with --nnunet, which names the network and its data; leave it "
            "out"
        )


def evaluate_nnunet(
    folder: Path,
    *,
    eps: Sequence[float] | None,
    attacks: Sequence[str] | None,
    images: Path | None,
    labels: Path | None,
    samples: int | None,
    fold: str | None,
    weights: Literal["final", "best"],
    out: Path | None,
    device: str,
    seed: int,
    budget: Budget | None,
) -> None:
    """Attack the network on its test cases; tables are printed, files go into its folder."""
    from ima.budget import OUT_OF_TIME, OutOfTime
    from ima.cli.batches import lines
    from ima.nnunet.evaluating import ATTACKS, NAME, evaluate_trained
    from ima.nnunet.trained import Trained
    from ima.report.segmentation import adi_table, class_tables
    from ima.report.tables import to_text

    trained = Trained.open(folder, fold, weights)
    try:
        results, where = evaluate_trained(
            trained,
            eps or (),
            attacks or ATTACKS,
            images=images,
            labels=labels,
            samples=samples,
            out=out,
            device=device,
            seed=seed,
            progress=lines(trained.trainer),
            budget=budget,
        )
    except OutOfTime as stop:
        print(f"ima: {stop}", file=sys.stderr)
        sys.exit(OUT_OF_TIME)
    print(f"{where / NAME}")
    runs = [(trained.trainer, results)]
    for table in (adi_table(runs), *class_tables(runs)):
        print(to_text(table))
