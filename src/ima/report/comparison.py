"""The page of a comparison: tables in four forms and pictures, written into one folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ima.report import figures, summary
from ima.report.summary import Seeds
from ima.report.tables import to_csv, to_latex, to_markdown, to_text


@dataclass(frozen=True)
class Entry:
    """What one method of a comparison left behind.

    best, last: its results for every seed, with the weights that validation picked and with the
    last ones; margins: the rows of margins.csv of the first seed, none for methods without
    margins; examples: the examples.npz of the first seed.
    """

    label: str
    best: Seeds
    last: Seeds
    margins: Sequence[Mapping[str, float]]
    examples: Path


@dataclass(frozen=True)
class Frame:
    """What is said around a comparison: its name, a note on the data, and closing remarks.

    attack: the one that the pictures show.
    """

    name: str
    note: str
    norm: str
    attack: str
    remarks: Sequence[str]


def write(folder: Path, entries: Sequence[Entry], frame: Frame) -> str:
    """Write table.md, tables as CSV and LaTeX, and pictures; returns the tables as plain text.

    The first entry is the method that noise fools, the last one the method to show beside it:
    the story picture takes a test sample on which they differ.
    """
    texts: list[str] = []
    page = [f"# {frame.name}\n"]
    for which, title in (("best", "Epoch picked by validation"), ("last", "Last epoch")):
        rows = [(e.label, e.best if which == "best" else e.last) for e in entries]
        caption = f"{title}; noise in {frame.norm}. {frame.note if which == 'best' else ''}".strip()
        table = summary.results_table(rows, caption)
        texts.append(to_text(table))
        page.append(to_markdown(table))
        _write(folder / f"table-{which}.csv", to_csv(table))
        _write(folder / f"table-{which}.tex", to_latex(table))
    for name, figure in _pictures(entries, frame).items():
        page.append(f"![{name}]({name}.png)\n")
        for suffix in ("png", "svg"):
            figures.save(figure, folder / f"{name}.{suffix}")
    _write(folder / "table.md", "\n".join([*page, *(f"{remark}\n" for remark in frame.remarks)]))
    return "\n".join(texts)


def _pictures(entries: Sequence[Entry], frame: Frame) -> dict[str, Any]:
    best = [(e.label, e.best) for e in entries]
    drawn = summary.curves(best, frame.attack)
    noise: dict[str, Any] = {
        "attack": frame.attack.upper(),
        "norm": frame.norm,
        "levels": [e for e in drawn[0].eps if e],
    }
    shown: dict[str, Any] = {}
    first, last = entries[0], entries[-1]
    there = first.examples.exists() and last.examples.exists()
    picked = there and summary.pick_example(
        {first.label: first.examples, last.label: last.examples},
        frame.attack,
        fooled=first.label,
        firm=last.label,
    )
    if picked:
        shown["story"] = figures.story(*picked, drawn, **noise)
    shown["accuracy"] = figures.accuracy_over_noise(drawn, **noise)
    for number, entry in enumerate(entries):
        if entry.margins:
            name = "margins" if "margins" not in shown else f"margins-{number}"
            history = summary.margin_history(entry.margins)
            cap = float(history.edges[-1])
            shown[name] = figures.margins_by_epoch(history, cap=cap, norm=frame.norm)
    return shown


def _write(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".part")
    beside.write_text(text)
    os.replace(beside, path)
