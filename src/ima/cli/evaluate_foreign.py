"""`ima evaluate CHECKPOINT --model ... --data ...`: what noise breaks a network from elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ima.budget import Budget

ATTACKS = ("pgd-100", "ifgsm-10")


def evaluate_foreign(
    checkpoint: Path,
    model: str,
    data: str | None,
    *,
    eps: Sequence[float] | None,
    attacks: Sequence[str] | None,
    norm: str | None,
    bounds: tuple[float, float] | None,
    channels: int | None,
    num_classes: int | None,
    device: str,
    seed: int,
    checks: bool,
    strict: bool,
    transfer_from: Path | None,
    budget: Budget | None,
) -> None:
    """Attack the network on its data; results and checks go into a folder beside the weights."""
    from ima.budget import OUT_OF_TIME, OutOfTime
    from ima.cli.checking import tell
    from ima.report.summary import results_table
    from ima.report.tables import to_text
    from ima.report.white import told
    from ima.training.foreign import check_foreign, load_foreign
    from ima.training.foreign import evaluate_foreign as attack
    from ima.training.run import Run

    if data is None or not eps:
        raise ValueError(
            "a network from elsewhere has no config: say --data module:function (or a name of "
            "`ima list data`) and noise radii with --eps"
        )
    other = None if transfer_from is None else Run.open(transfer_from)
    foreign = load_foreign(
        checkpoint,
        model,
        data,
        norm=norm or "2",
        bounds=bounds,
        channels=channels,
        num_classes=num_classes,
        device=device,
    )
    try:
        results = attack(foreign, eps, attacks or ATTACKS, seed=seed, budget=budget)
    except OutOfTime as stop:
        print(f"ima: {stop}", file=sys.stderr)
        sys.exit(OUT_OF_TIME)
    print(f"{foreign.results}")
    print(to_text(results_table([(checkpoint.stem, [results])], "")))
    print(told(results))
    if checks:
        found = check_foreign(foreign, eps, attacks or ATTACKS, transfer_from=other, seed=seed)
        tell(found, foreign.checks, strict=strict)
