"""The page of a comparison: tables in four forms and pictures, written into one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ima.files import write_text
from ima.report import figures, summary
from ima.report.inputs import Series
from ima.report.paper import paper_table
from ima.report.summary import Seeds
from ima.report.tables import Table, to_csv, to_latex, to_markdown, to_text

ALTS = {
    "story": "A test image, the noise, and what each network makes of it; accuracy over noise",
    "accuracy": "Accuracy over the noise radius, a line for each method",
    "sweep": "Accuracy over the swept option, a line for each noise radius",
    "margins": "Histogram of the margins of the training samples, epoch by epoch",
}
"""What the pictures show, for those who do not see them."""


@dataclass(frozen=True)
class Entry:
    """What one method of a comparison left behind.

    best, last: its results for every seed, with the weights that validation picked and with the
    last ones, none for a method whose training diverged; margins: the rows of margins.csv of the
    first seed, none for methods without margins; examples: the examples.npz of the first seed;
    method: its name without swept values; swept: those; seconds: of its own epochs, over all seeds,
    none where they are not known.
    """

    label: str
    best: Seeds
    last: Seeds
    margins: Sequence[Mapping[str, float]]
    examples: Path
    method: str = ""
    swept: Mapping[str, float] = field(default_factory=dict[str, float])
    seconds: Sequence[float] = ()


@dataclass(frozen=True)
class Frame:
    """What is said around a comparison: its name, a note on the data, and closing remarks.

    attack: the one that the pictures show; timed: where the times were taken, none are shown if
    empty; standard: the label of the row that times are compared to, empty for none; it may be one
    whose training diverged.
    """

    name: str
    note: str
    norm: str
    attack: str
    remarks: Sequence[str]
    timed: str = ""
    standard: str = ""


def write(folder: Path, entries: Sequence[Entry], frame: Frame) -> str:
    """Write table.md, tables as CSV and LaTeX, and pictures; returns the tables as plain text.

    The first entry is the method that noise fools, the last one the method to show beside it:
    the story picture takes a test sample on which they differ. ValueError where no entry has
    results.
    """
    trained = [entry for entry in entries if entry.best]
    if not trained:
        raise ValueError("no row has results: the training of each diverged, see diverged.txt")
    texts: list[str] = []
    page = [f"# {frame.name}\n"]
    for which, title in (("best", "Epoch picked by validation"), ("last", "Last epoch")):
        rows = [(e.label, e.best if which == "best" else e.last) for e in entries]
        caption = f"{title}; noise in {frame.norm}. {frame.note if which == 'best' else ''}".strip()
        table = summary.results_table(rows, caption)
        texts.append(to_text(table))
        page.append(to_markdown(table))
        write_text(folder / f"table-{which}.csv", to_csv(table))
        write_text(folder / f"table-{which}.tex", to_latex(table))
    theirs = paper_table(frame.name)
    if theirs is not None:
        page.append(to_markdown(theirs))
    times = _times(trained, frame)
    if times is not None:
        texts.append(to_text(times))
        page.append(to_markdown(times))
        write_text(folder / "times.csv", to_csv(times))
    for name, (figure, caption) in _pictures(trained, frame).items():
        page.append(f"![{ALTS[name.partition('-')[0]]}]({name}.png)\n")
        page.append(f"{caption}.\n")
        for suffix in ("png", "svg"):
            figures.save(figure, folder / f"{name}.{suffix}")
    write_text(
        folder / "table.md", "\n".join([*page, *(f"{remark}\n" for remark in frame.remarks)])
    )
    return "\n".join(texts)


def _times(entries: Sequence[Entry], frame: Frame) -> Table | None:
    if not frame.timed or not all(entry.seconds for entry in entries):
        return None
    caption = f"Time per epoch of training, without validation: median over epochs. {frame.timed}"
    rows = [(entry.label, entry.seconds) for entry in entries]
    standard = frame.standard if frame.standard in dict(rows) else ""
    return summary.times_table(rows, standard, caption)


def _pictures(entries: Sequence[Entry], frame: Frame) -> dict[str, tuple[Any, str]]:
    """Figures by name, each with a caption; to accuracies the number of samples belongs."""
    best = [(e.label, e.best) for e in entries]
    drawn = summary.curves(best, frame.attack)
    attack = frame.attack.upper()
    noise: dict[str, Any] = {
        "attack": attack,
        "norm": frame.norm,
        "levels": [e for e in drawn[0].eps if e],
    }
    shown: dict[str, tuple[Any, str]] = {}
    caption = f"Accuracy under {attack}, epoch picked by validation; {summary.count(best)}"
    first, last = entries[0], entries[-1]
    there = first.examples.exists() and last.examples.exists()
    picked = there and summary.pick_example(
        {first.label: first.examples, last.label: last.examples},
        frame.attack,
        fooled=first.label,
        firm=last.label,
    )
    if picked:
        chosen = (
            f"A test image, chosen because with this noise {first.label} gets it wrong and "
            f"{last.label} right"
        )
        shown["story"] = figures.story(*picked, drawn, **noise), f"{chosen}. {caption}"
    shown["accuracy"] = figures.accuracy_over_noise(drawn, **noise), caption
    for option, panels in _swept(entries, frame.attack).items():
        look = {"option": option, "attack": attack, "norm": frame.norm}
        shown[f"sweep-{option}"] = figures.accuracy_over_option(panels, **look), caption
    for number, entry in enumerate(entries):
        if entry.margins:
            name = "margins" if "margins" not in shown else f"margins-{number}"
            history = summary.margin_history(entry.margins)
            cap = float(history.edges[-1])
            figure = figures.margins_by_epoch(history, cap=cap, norm=frame.norm)
            shown[name] = figure, f"{entry.label}, first seed: margins by epoch"
    return shown


def _swept(entries: Sequence[Entry], attack: str) -> dict[str, dict[str, list[Series]]]:
    """By the option that they sweep alone, and the method, the lines of a picture."""
    found: dict[str, dict[str, list[tuple[float, Seeds]]]] = {}
    for entry in entries:
        if len(entry.swept) == 1:
            ((option, value),) = entry.swept.items()
            found.setdefault(option, {}).setdefault(entry.method, []).append((value, entry.best))
    drawn = {
        option: {
            # Growth trades clean accuracy for noisy accuracy: their mean shows where it is best.
            method: summary.sweep(rows, attack, mean=option == "delta")
            for method, rows in methods.items()
            if len(rows) > 1
        }
        for option, methods in found.items()
    }
    return {option: methods for option, methods in drawn.items() if methods}
