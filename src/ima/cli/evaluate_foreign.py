"""`ima evaluate CHECKPOINT --model ... --data ...`: what noise breaks a network from elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ima.budget import Budget
    from ima.training.foreign import Foreign

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
    ignore_label: int | None,
    regions: bool | None,
    cases: str | None,
    device: str,
    seed: int,
    distances: bool,
    checks: bool,
    strict: bool,
    transfer_from: Path | None,
    budget: Budget | None,
    trust: bool,
) -> None:
    """Attack the network on its data; all that is found goes into a folder beside the weights."""
    from ima.budget import OUT_OF_TIME, OutOfTime
    from ima.cli.batches import lines
    from ima.cli.checking import tell
    from ima.evaluation import segments_on_disk
    from ima.report.distances import told
    from ima.tasks import Segmentation
    from ima.training import foreign_evaluating as evaluating
    from ima.training.foreign import load_foreign
    from ima.training.lock import Lock
    from ima.training.run import Run

    if data is None or not eps:
        raise ValueError(
            "a network from elsewhere has no config: give --data module:function (or a name of "
            "`ima list data`) and noise radii with --eps"
        )
    other = None if transfer_from is None else Run.open(transfer_from, trust=trust)
    if other is not None:
        # Refused before there is work to lose.
        other.config()
    foreign = load_foreign(
        checkpoint,
        model,
        data,
        norm=norm or "2",
        bounds=bounds,
        channels=channels,
        num_classes=num_classes,
        ignore_label=ignore_label,
        regions=regions,
        cases=cases,
        device=device,
    )
    print(f"weights: {foreign.taken}")
    if foreign.note:
        print(f"data: {foreign.note}")
    segments = isinstance(foreign.task, Segmentation)
    names = attacks or (segments_on_disk.ATTACKS if segments else ATTACKS)
    if distances:
        evaluating.has_distances(foreign)
    doing, verdict = "evaluation", None
    with Lock(foreign.folder, "evaluate") as lock:
        lock.take()
        try:
            report = _segment if segments else _classify
            report(foreign, eps, names, seed, budget)
            if distances:
                doing = "smallest noise"
                found = evaluating.distances_foreign(
                    foreign, eps, seed=seed, progress=lines(doing), budget=budget
                )
                print(f"{foreign.distances}")
                print(told(found, eps))
            if checks:
                doing = "checks"
                verdict = evaluating.check_foreign(
                    foreign,
                    eps,
                    names,
                    transfer_from=other,
                    seed=seed,
                    progress=lines(doing, "check"),
                    budget=budget,
                )
        except OutOfTime as stop:
            print(f"ima: {doing}: {stop}", file=sys.stderr)
            sys.exit(OUT_OF_TIME)
        # Not before all are done: a command that is stopped at the last finds the first finished.
        also = {foreign.distances: distances, foreign.checks: checks}
        evaluating.forget([foreign.results, *(path for path, done in also.items() if done)])
    if verdict is not None:
        tell(verdict, foreign.checks, strict=strict)


def _classify(
    foreign: Foreign, eps: Sequence[float], attacks: Sequence[str], seed: int, budget: Budget | None
) -> None:
    from ima.cli.batches import lines
    from ima.report.cases import told_cases
    from ima.report.summary import results_table
    from ima.report.tables import to_text
    from ima.report.white import told
    from ima.training.foreign_evaluating import evaluate_foreign

    line = lines("evaluation")
    results = evaluate_foreign(foreign, eps, attacks, seed=seed, progress=line, budget=budget)
    print(f"{foreign.results}")
    print(to_text(results_table([(foreign.checkpoint.stem, [results])], "")))
    print(told(results))
    print(told_cases([results]))


def _segment(
    foreign: Foreign, eps: Sequence[float], attacks: Sequence[str], seed: int, budget: Budget | None
) -> None:
    from ima.cli.batches import lines
    from ima.evaluation.masks import TRUTH
    from ima.report.cases import told_cases
    from ima.report.segmentation import adi_table, class_tables
    from ima.report.tables import to_text
    from ima.training.foreign_evaluating import segment_foreign

    line = lines("evaluation")
    results = segment_foreign(foreign, eps, attacks, seed=seed, progress=line, budget=budget)
    print(f"{foreign.results}")
    runs = [(foreign.checkpoint.stem, results)]
    for table in (adi_table(runs), *class_tables(runs)):
        print(to_text(table))
    if masks := results.settings.get(TRUTH):
        print(f"masks: {masks}")
    print(told_cases([results]))
