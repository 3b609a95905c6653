"""`ima evaluate --plan`: how many samples a wanted interval needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

SHARES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Accuracies for which it is told where nothing was measured."""


def tell_plan(half: float, run: Path | None) -> None:
    """Print how many samples, and how many cases, make 95 % intervals of this half width.

    run: an evaluated run, a results file, or a folder that holds some; None: none.
    """
    from ima.evaluation.statistics import needed

    needed(0.5, half)
    print(f"for 95 % intervals of ± {half:g}:")
    for line in _known(half) if run is None else _measured(half, run):
        print(line)


def _known(half: float) -> Iterator[str]:
    from ima.evaluation.statistics import needed

    for share in SHARES:
        yield f"  where {100 * share:g} % are right: {needed(share, half)} samples"
    yield (
        "each of a case (patient) of its own; give the run's folder or a results file, and its "
        "accuracies and cases are counted"
    )


def _measured(half: float, run: Path) -> Iterator[str]:
    from ima.evaluation.statistics import planned
    from ima.report.entries import read_entries
    from ima.report.words import attack_name, counted

    for entry in read_entries([run]):
        results = entry.main[0]
        yield f"{entry.label}, measured on {counted(results)}:"
        for attack, eps in entry.scores:
            if entry.scores[attack, eps].kind == "white" or not len(results.at(attack, eps)):
                continue
            row, places = entry.scores[attack, eps], results.at(attack, eps)
            graded = not results.settings.measure.binary
            values = results.matrix(attack, eps)[:, : None if graded else 0]
            standing, cases = ~results.broken_rows[places], results.columns["case"][places]
            samples, whole = planned(values, standing, cases, half)
            where = attack_name(attack) + (f" at {eps:g}" if eps else "")
            need = f"{samples} samples" if samples else "unknown, with fewer than two cases"
            need += f" of {whole} cases" if whole else ""
            yield f"  {where}, {row.text}: {need}"
