"""Tables and curves of segmentation networks under noise, and the page that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ima.evaluation.remarks import REMARKS, united
from ima.evaluation.results import CLEAN, FILE, NETWORK, is_white
from ima.evaluation.segmentation_results import DIGEST, WORST, SegmentationResults
from ima.files import write_text
from ima.report.cells import ABSENT, Cell, Measure, Table
from ima.report.html.numbers import attack_name
from ima.report.html.scrub import scrub
from ima.report.inputs import Curve
from ima.report.paper import paper_table
from ima.report.segmented import (
    Key,
    Run,
    Score,
    Scores,
    Segmented,
    aimed,
    checked,
    count,
    empties,
    headline,
    in_patches,
    in_volumes,
    keys_of,
    levels,
    radii,
    scores,
    shown,
    within,
)
from ima.report.style import norm_name
from ima.report.tables import to_csv, to_latex, to_markdown, to_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFINED = (
    "ADI: the Dice of each foreground class, averaged over the samples in which it counts, then "
    "over the classes (Eq. 14)"
)

AVERAGED = "over clean and all attacks at all radii, without the worst case and noise that is drawn"

WIDTH = " of the bounds' width"
WHITE: Mapping[tuple[bool, ...], str] = {
    (False,): "amplitude named",
    (True,): f"share named{WIDTH}",
    (False, True): f"amplitude named, where there are bounds as a share{WIDTH}",
}
"""The size of white noise in words, by whether networks have bounds."""

PICKED = (
    "The worst case takes for each sample the attack that leaves the lowest Dice of the sample; "
    "its average over classes may lie a little above one attack's."
)

ALL, AVERAGE = "clean, all classes", "average"

APART = (NETWORK, FILE, DIGEST, REMARKS, "samples", "seconds", "classes", "empty slices")
"""Settings of an evaluation that captions tell, or that nobody needs."""


class Index(Measure):
    """A measured Dice index, shown as the paper shows it: 0 to 1 with three decimals."""

    @property
    def percent(self) -> str:
        """The index as shown."""
        return shown(self.mean)


class IndexTable(Table):
    """A table of Dice indices; the highest of a column is the best."""

    def note(self) -> str:
        """What the numbers are, in a sentence."""
        cells = [cell for row in self.rows for cell in row if isinstance(cell, Measure)]
        return f"{ABSENT} not measured." if any(cell.absent for cell in cells) else ""


def adi_table(runs: Sequence[Run], note: str = "") -> Table:
    """One row a network: ADI (Eq. 14) without noise and under each attack at each radius.

    `clean, all classes` counts samples alone that hold every class; `average` is the mean of
    clean and of all attacks, without the worst case and noise that is drawn. note: on the data,
    for the caption. Raises ValueError for runs that differ in norm, data, classes or samples.
    """
    checked(runs)
    all_scores = [scores(results) for _, results in runs]
    keys = keys_of(all_scores)
    width = of_width(runs)
    columns = ["method", CLEAN, ALL, *(name_of(key, width) for key in keys[1:]), AVERAGE]
    rows: list[tuple[Cell, ...]] = []
    for (label, _), of_one in zip(runs, all_scores, strict=True):
        adi = {key: score.adi for key, score in of_one.items()}
        cells = [adi.get(key, np.nan) for key in keys]
        mean = average(of_one, keys)
        whole = of_one[CLEAN, 0.0].all_classes
        rows.append((label, *map(Index, [cells[0], whole, *cells[1:], mean])))
    blocks = ("", "", *(attack for attack, _ in keys[1:]), keys[-1][0] if keys[1:] else "")
    return IndexTable(tuple(columns), tuple(rows), _caption(runs, note), blocks)


def class_tables(runs: Sequence[Run]) -> list[Table]:
    """The same for each foreground class by itself, a table each; none where there is one class."""
    checked(runs)
    classes = runs[0][1].classes
    if len(classes) < 2:
        return []
    all_scores = [scores(results) for _, results in runs]
    keys = keys_of(all_scores)
    tables: list[Table] = []
    for number, name in enumerate(classes):
        rows: list[tuple[Cell, ...]] = []
        for (label, _), of_one in zip(runs, all_scores, strict=True):
            found = [_of_class(of_one.get(key), number) for key in keys]
            rows.append((label, *map(Index, found)))
        columns = ("method", CLEAN, *(name_of(key, of_width(runs)) for key in keys[1:]))
        caption = f"{name}: mean Dice over the samples in which this class counts."
        caption = " ".join((caption, *doubts(runs)))
        blocks = ("", *(attack for attack, _ in keys[1:]))
        tables.append(IndexTable(columns, tuple(rows), caption, blocks))
    return tables


def curves(runs: Sequence[Run], attack: str = "") -> list[Curve]:
    """ADI over the noise radius, from 0 (clean), one curve a network.

    attack: if empty the worst case, or where that is not there the first attack.
    """
    checked(runs)
    all_scores = [scores(results) for _, results in runs]
    chosen = attack or headline(all_scores)
    eps = [0.0, *radii(all_scores, chosen)]
    if len(eps) < 2:
        raise ValueError(f"the runs were not attacked with {chosen or 'anything'}; nothing to draw")
    found: list[Curve] = []
    for (label, _), of_one in zip(runs, all_scores, strict=True):
        keys: list[Key] = [(chosen if e else CLEAN, e) for e in eps]
        adi = [of_one[key].adi if key in of_one else np.nan for key in keys]
        found.append(Curve(label, np.array(eps), np.array(adi)))
    return found


def curves_figure(runs: Sequence[Run], attack: str = "") -> Figure:
    """ADI over the noise radius, one line a network; thin lines mark the paper's noise levels."""
    from matplotlib.figure import Figure

    from ima.report import style
    from ima.report.figures import BOTTOM, HEAD, LEFT
    from ima.report.panels import draw_curves, label_space

    drawn, norm = curves(runs, attack), runs[0][1].norm
    chosen = attack or headline([scores(results) for _, results in runs])
    with style.styled():
        labels = label_space([curve.label for curve in drawn])
        figure = Figure(figsize=(LEFT + 4.6 + labels, 4.2))
        wide, high = style.size(figure)
        axes = style.place(figure, LEFT, BOTTOM, wide - LEFT - labels, high - BOTTOM - HEAD)
        draw_curves(axes, drawn, norm=norm, levels=levels(runs[0][1], drawn[0].eps[1:].tolist()))
        # The axis is drawn in percent of what is shown as 0 to 1.
        axes.set_ylabel("Average Dice index (ADI)")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value / 100:g}")
        look = {"weight": "bold", "size": style.TITLE, "va": "baseline"}
        style.write(figure, LEFT, high - 0.3, f"Dice under {under(chosen)}", **look)
    return figure


@dataclass(frozen=True)
class Frame:
    """What is said around a comparison.

    name: of the comparison; note: on the data, for the table's caption; command: that made it, as
    typed; remarks: closing paragraphs, such as commit and machine.
    """

    name: str
    note: str = ""
    command: str = ""
    remarks: Sequence[str] = ()


def write_comparison(folder: Path, runs: Sequence[Segmented], frame: Frame) -> str:
    """Write table.md, .csv and .tex, curves and overlays as .png and .svg; returns the tables.

    runs: such as `Segmented.open(folder of an evaluation, label)`, the network that noise fools
    first and the one to show beside it last. Raises ValueError for runs that differ in norm, data,
    classes or samples; nothing is written then.
    """
    from ima.report import figures
    from ima.report.overlay_figure import overlays_figure

    named = [run.run for run in runs]
    tables = [adi_table(named, frame.note), *class_tables(named)]
    drawn: dict[str, tuple[Figure, str]] = {}
    attack = headline([scores(results) for _, results in named])
    if attack:
        said = f"ADI under {under(attack)}; n = {count(runs[0].results)}"
        drawn["curves"] = curves_figure(named), said
    first = runs[0].results
    shown_beside = [(run.label, run.overlays) for run in (runs[0], runs[-1])[: len(runs)]]
    pictures = overlays_figure(shown_beside, norm=first.norm, within=within(first))
    if pictures is not None:
        figure, said = pictures
        drawn["overlays"] = figure, said + of_whole(first)
    made = [f"Made by `{frame.command}`."] if frame.command else []
    page = [f"# {frame.name}\n", *(f"{line}\n" for line in (*made, *settings_told(named)))]
    theirs = paper_table(frame.name)
    page += map(to_markdown, tables if theirs is None else [*tables, theirs])
    # Those of an earlier call that this one does not draw would stand beside its page.
    for name in ("curves", "overlays"):
        for suffix in ("png", "svg"):
            path = folder / f"{name}.{suffix}"
            if name in drawn:
                figures.save(drawn[name][0], path)
            else:
                path.unlink(missing_ok=True)
        if name in drawn:
            page.append(f"![{name}]({name}.png)\n\n{drawn[name][1]}.\n")
    page += [f"{remark}\n" for remark in frame.remarks]
    write_text(folder / "table.csv", to_csv(tables[0]))
    for number, table in enumerate(tables[1:], start=1):
        write_text(folder / f"table-class-{number}.csv", to_csv(table))
    write_text(folder / "table.tex", "\n".join(map(to_latex, tables)))
    write_text(folder / "table.md", "\n".join(page))
    return "\n".join(map(to_text, tables))


def average(of_one: Scores, keys: Sequence[Key]) -> float:
    """The mean ADI over clean and all attacks at all radii; NaN where one of them is missing."""
    single = [key for key in keys if key[0] == CLEAN or (aimed(key[0]) and key[0] != WORST)]
    return float(np.mean([of_one[key].adi if key in of_one else np.nan for key in single]))


def name_of(key: Key, width: str = "") -> str:
    """An attack and its radius as a table's column; width: see `of_width`."""
    attack, eps = key
    return f"{attack} at {size(key, width)}" if eps else attack


def size(key: Key, width: str) -> str:
    """A radius, or the amplitude of white noise; width: see `of_width`."""
    attack, eps = key
    return f"±{eps:g}{width}" if is_white(attack) else f"{eps:g}"


def of_width(runs: Sequence[Run]) -> str:
    """What the amplitude of white noise is a share of, behind it; nothing without bounds."""
    return WIDTH if all(map(_bounded, runs)) else ""


def doubts(runs: Sequence[Run]) -> list[str]:
    """What leaves the Dice indices in doubt, as sentences."""
    return united((label if len(runs) > 1 else "", results.remarks) for label, results in runs)


def white_told(runs: Sequence[Run]) -> str:
    """What white noise is, in a sentence."""
    named = WHITE[tuple(sorted(set(map(_bounded, runs))))]
    return f"White noise is uniform in ± the {named}, the worst of so many draws."


def of_whole(results: SegmentationResults) -> str:
    """What is said of the Dice beside a picture of one slice; nothing where that is the sample."""
    kind = " (a case, or its central patch)" if in_patches(results) else ""
    return f"; the Dice are those of the whole samples{kind}" if in_volumes(results) else ""


def under(attack: str) -> str:
    """An attack behind "under"."""
    return "the worst of all attacks" if attack == WORST else attack_name(attack)


def settings_told(runs: Sequence[Run]) -> list[str]:
    """How the evaluations were made: what they share in one sentence, then what they do not."""
    keys = dict.fromkeys(key for _, results in runs for key in results.settings)
    same: list[str] = []
    apart: list[str] = []
    for key in keys:
        if key in APART:
            continue
        values = [scrub(results.settings.get(key, ABSENT)) for _, results in runs]
        if len(set(values)) == 1:
            same.append(f"{key} {values[0]}")
        else:
            each = zip(runs, values, strict=True)
            apart.append(f"{key} {', '.join(f'{label} {value}' for (label, _), value in each)}")
    lines = (("Evaluated with", same), ("Different between the networks:", apart))
    return [f"{what} {'; '.join(said)}." for what, said in lines if said]


def _caption(runs: Sequence[Run], note: str) -> str:
    first = runs[0][1]
    white = any(is_white(attack) for attack, _ in keys_of([scores(r) for _, r in runs]))
    parts = [
        f"{DEFINED}; noise in {norm_name(first.norm)}, n = {count(first)}. Convention: "
        f"{empties(first)}. “{ALL}” counts only samples whose truth holds every class; "
        f"“{AVERAGE}” is {AVERAGED}.",
        PICKED if any(WORST in results.attacks for _, results in runs) else "",
        white_told(runs) if white else "",
        note,
        *doubts(runs),
    ]
    return " ".join(part for part in parts if part)


def _bounded(run: Run) -> bool:
    # Files from before bounds were recorded do not say.
    return run[1].settings.get("bounds", "none") != "none"


def _of_class(score: Score | None, number: int) -> float:
    return float("nan") if score is None else score.per_class[number]
