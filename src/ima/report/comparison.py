"""The page of a comparison: tables in four forms and pictures, written into one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from ima.files import write_text
from ima.report import examples, figures, series, summary
from ima.report.inputs import ExampleRow, Series
from ima.report.overlay_figure import overlays_figure
from ima.report.paper import paper_table
from ima.report.scores import Seeds, attacks_of, headline, levels, scores
from ima.report.tables import to_csv, to_latex, to_markdown, to_text
from ima.report.words import of_whole, under, within_told

TITLES = {"best": "Epoch picked by validation", "last": "Last epoch"}

OPTIONAL = ("story", "overlays")
"""Pictures that not every comparison has."""

Drawn: TypeAlias = dict[str, tuple[Any, str, str]]
"""Figures by name, each with what it shows for those who do not see it, and a caption."""


@dataclass(frozen=True, eq=False)
class Compared:
    """What one method of a comparison left behind.

    best, last: its results for every seed, with the weights that validation picked and with the
    last ones, none for a method whose training diverged, and of the last ones where none were
    evaluated. margins: the rows of margins.csv of the first seed; examples: its examples.npz;
    overlays: the arrays of its overlays.npz; none of each where there are none. method: its name
    without swept values; swept: those; seconds: of its own epochs, over all seeds, none where they
    are not known.
    """

    label: str
    best: Seeds
    last: Seeds = ()
    margins: Sequence[Mapping[str, float]] = ()
    examples: Path | None = None
    overlays: Mapping[str, Any] = field(default_factory=dict[str, Any])
    method: str = ""
    swept: Mapping[str, float] = field(default_factory=dict[str, float])
    seconds: Sequence[float] = ()


@dataclass(frozen=True)
class Frame:
    """What is said around a comparison: its name, a note on the data, and closing remarks.

    attack: the one that the pictures show, the headline's if empty or not run; timed: where the
    times were taken, none are shown if empty; standard: the label of the row that times are
    compared to, empty for none; it may be one whose training diverged.
    """

    name: str
    note: str = ""
    attack: str = ""
    remarks: Sequence[str] = ()
    timed: str = ""
    standard: str = ""


def write_comparison(folder: Path, methods: Sequence[Compared], frame: Frame) -> str:
    """Write table.md, tables as CSV and LaTeX, and pictures; returns the tables as plain text.

    The first method is the one that noise fools, the last one that to show beside it: the story
    picture takes a test sample on which they differ. ValueError where no method has results, and
    for results that differ in norm, data, classes or samples; nothing is written then.
    """
    trained = [one for one in methods if one.best]
    if not trained:
        raise ValueError("no row has results: the training of each diverged, see diverged.txt")
    texts: list[str] = []
    page = [f"# {frame.name}\n"]
    files: dict[str, str] = {}
    rows = {
        "best": [(one.label, one.best) for one in methods],
        "last": [(one.label, one.last) for one in methods if one.last or not one.best],
    }
    several = any(one.last for one in methods)
    for which, found in rows.items() if several else [("best", rows["best"])]:
        title = f"{TITLES[which]}." if several else ""
        note = f"{title} {frame.note if which == 'best' else ''}".strip()
        name = f"table-{which}" if several else "table"
        tables = {name: summary.results_table(found, note)}
        by_class = summary.class_table(found, summary.MOST_CLASSES) if which == "best" else None
        if by_class is not None:
            tables["table-classes"] = by_class
        texts += map(to_text, tables.values())
        page += map(to_markdown, tables.values())
        for file, table in tables.items():
            files[f"{file}.csv"], files[f"{file}.tex"] = to_csv(table), to_latex(table)
    # The page has the lowest classes, the file all.
    if (whole := summary.class_table(rows["best"])) is not None:
        files["table-classes.csv"] = to_csv(whole)
    if (theirs := paper_table(frame.name)) is not None:
        page.append(to_markdown(theirs))
    if frame.timed and all(one.seconds for one in trained):
        caption = (
            f"Time per epoch of training, without validation: median over epochs. {frame.timed}"
        )
        seconds = [(one.label, one.seconds) for one in trained]
        standard = frame.standard if frame.standard in dict(seconds) else ""
        times = summary.times_table(seconds, standard, caption)
        texts.append(to_text(times))
        page.append(to_markdown(times))
        files["times.csv"] = to_csv(times)
    drawn = _pictures(trained, frame)
    for file, text in files.items():
        write_text(folder / file, text)
    figures.save_all(folder, {name: one for name, (one, *_) in drawn.items()}, OPTIONAL)
    for name, (_, alt, caption) in drawn.items():
        page += [f"![{alt}]({name}.png)\n", f"{caption}.\n"]
    page += [f"{remark}\n" for remark in frame.remarks]
    write_text(folder / "table.md", "\n".join(page))
    return "\n".join(texts)


def _pictures(methods: Sequence[Compared], frame: Frame) -> Drawn:
    first, last = methods[0], methods[-1]
    results = first.best[0]
    measure = results.settings.measure
    rows = [(one.label, one.best) for one in methods]
    all_scores = [scores(seeds) for _, seeds in rows]
    # One that could not run draws no line.
    ran = frame.attack in attacks_of(all_scores)
    attack = frame.attack if ran else headline(all_scores)
    shown: Drawn = {}
    if attack:
        drawn = series.curves(rows, attack)
        look: dict[str, Any] = {
            "attack": under(attack),
            "norm": results.norm,
            "levels": levels(results, drawn[0].eps[1:].tolist()),
            "measure": measure,
        }
        picked = "epoch picked by validation; " if any(one.last for one in methods) else ""
        caption = f"{measure.title} under {under(attack)}, {picked}n = {summary.counts(rows)}"
        lines = f"{measure.title} over the noise radius, a line for each method"
        if (example := _story(first, last, attack)) is not None:
            chosen = (
                f"A test image, chosen because with this noise {first.label} gets it wrong and "
                f"{last.label} right"
            )
            alt = f"A test image, the noise, and what each network makes of it; {lines}"
            shown["story"] = figures.story(*example, drawn, **look), alt, f"{chosen}. {caption}"
        name = measure.name.lower().replace(" ", "-")
        shown[name] = figures.quality_over_noise(drawn, **look), lines, caption
        del look["levels"]
        beside = _level(methods)
        for option, panels in _swept(methods, attack, beside).items():
            alt = f"{measure.title} over the swept option, a line for each noise radius"
            level = "" if beside is None else beside.label
            figure = figures.quality_over_option(panels, option=option, level=level, **look)
            shown[f"sweep-{option}"] = figure, alt, caption
    for number, one in enumerate(methods):
        if one.margins:
            name = "margins" if "margins" not in shown else f"margins-{number}"
            history = series.margin_history(one.margins)
            figure = figures.margins_by_epoch(history, cap=history.ceiling, norm=results.norm)
            alt = "Histogram of the margins of the training samples, epoch by epoch"
            shown[name] = figure, alt, f"{one.label}, first seed: margins by epoch"
    ends = [(one.label, one.overlays) for one in dict.fromkeys((first, last))]
    slices = overlays_figure(ends, norm=results.norm, within=within_told(results))
    if slices is not None:
        figure, caption = slices
        alt = "Slices with noise, and what networks predict on them"
        shown["overlays"] = figure, alt, caption + of_whole(results)
    return shown


def _story(
    first: Compared, last: Compared, attack: str
) -> tuple[Any, str, list[ExampleRow]] | None:
    """An image on which noise fools the first method and not the last, at the smallest radius."""
    files = {one.label: one.examples for one in (first, last) if one.examples is not None}
    if len(files) < 2 or not all(path.exists() for path in files.values()):
        return None
    loaded = [(label, examples.read_examples(path)) for label, path in files.items()]
    if not all(examples.drawable(found) for _, found in loaded):
        return None
    threshold = first.best[0].settings.measure.threshold
    for eps in examples.example_radii(loaded, attack):
        found = examples.pick_example(
            loaded, attack, eps, threshold, lambda broken: broken[0] and not broken[-1]
        )
        if found is not None:
            _, views = found
            rows = [ExampleRow(v.label, v.eps, v.noisy, v.before, v.after) for v in views]
            return views[0].clean, views[0].truth, rows
    return None


def _level(methods: Sequence[Compared]) -> Compared | None:
    """What is drawn as level lines beside a sweep: the last row that sweeps nothing."""
    return next((one for one in reversed(methods) if not one.swept and one.best), None)


def _swept(
    methods: Sequence[Compared], attack: str, beside: Compared | None = None
) -> dict[str, dict[str, list[Series]]]:
    """By the option that they sweep alone, and the method, the lines of a picture."""
    level = () if beside is None else beside.best
    found: dict[str, dict[str, list[tuple[float, Seeds]]]] = {}
    for one in methods:
        if len(one.swept) == 1:
            ((option, value),) = one.swept.items()
            found.setdefault(option, {}).setdefault(one.method, []).append((value, one.best))
    drawn = {
        option: {
            # Growth trades clean accuracy for noisy accuracy: their mean shows where it is best.
            method: series.sweep_lines(rows, attack, mean=option == "delta", level=level)
            for method, rows in methods.items()
            if len(rows) > 1
        }
        for option, methods in found.items()
    }
    return {option: methods for option, methods in drawn.items() if methods}
