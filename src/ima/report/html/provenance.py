"""How the numbers came about: attacks, samples, versions and the config as run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import yaml

from ima.evaluation.results import CLEAN, Results
from ima.report.html.blocks import Block, Code, Grid, Prose
from ima.report.html.numbers import WORST, attack_name, attacks_of, named
from ima.report.html.verdict import Judged

PLACE = ("ima", "commit", "python", "torch", "numpy", "device", "processor", "cores", "threads")
APART = ("network", "samples", "seed", "seconds")
"""Settings of an evaluation that are no attack's parts."""


def how_measured(judged: Sequence[Judged]) -> tuple[Block, ...]:
    """Sentences, the attacks' parts, a table of the runs, and their configs folded away."""
    first = judged[0].entry.main[0]
    attacks = attacks_of([one.scores for one in judged])
    text = f"Noise is measured in {named(first.norm)}, in the units of the samples."
    if WORST in attacks:
        text += " “Worst case” counts a sample as wrong when any of the attacks breaks it."
    blocks: list[Block] = [Prose(text)]
    note = next(
        (str(one.entry.config["note"]) for one in judged if one.entry.config.get("note")), ""
    )
    if note:
        blocks.append(Prose(f"About the data: {note}"))
    parts = {
        (attack_name(name), what)
        for one in judged
        for results in one.entry.main
        for name, what in results.settings.items()
        if name not in APART
    }
    if parts:
        blocks.append(
            Grid("What the attacks ran", ("attack", "parts"), tuple(sorted(parts)), False)
        )
    blocks.append(_evaluations(judged))
    runs = _runs(judged)
    if runs is not None:
        blocks.append(runs)
    for one in judged:
        if one.entry.config:
            text = yaml.safe_dump(dict(one.entry.config), sort_keys=False, allow_unicode=True)
            blocks.append(Code(f"Config of {one.entry.label}", text))
    return tuple(blocks)


def _evaluations(judged: Sequence[Judged]) -> Grid:
    rows = tuple(
        (
            one.entry.label,
            _each(str(s.seed) for s in one.entry.sources if s.seed is not None),
            _each(_samples(r, one.scores[CLEAN, 0.0].n) for r in one.entry.main),
            _each(r.settings.get("seed", "") for r in one.entry.main),
        )
        for one in judged
    )
    columns = ("network", "training seeds", "test samples", "seed of the attacks")
    return Grid("What was evaluated", columns, rows, False)


def _samples(results: Results, n: int) -> str:
    """How many of how many test samples; those that are all are no share."""
    had, of, total = results.settings.get("samples", str(n)).partition(" of ")
    return had if had == total else had + of + total


def _runs(judged: Sequence[Judged]) -> Grid | None:
    found = [
        (one.entry.label, [s.environment for s in one.entry.sources if s.environment])
        for one in judged
    ]
    keys = [key for key in PLACE if any(e.get(key) is not None for _, es in found for e in es)]
    if not keys:
        return None
    rows = tuple(
        (key, *(_each(str(e.get(key)) for e in environments) for _, environments in found))
        for key in keys
    )
    same = all(len(set(row[1:])) == 1 for row in rows)
    whole = found[0][0] if len(found) == 1 else "all networks"
    columns = ("", whole) if same else ("", *(label for label, _ in found))
    return Grid("Where it was trained", columns, tuple(r[:2] if same else r for r in rows), False)


def _each(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(filter(None, values))) or "–"
