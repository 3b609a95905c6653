"""The pictures of the reports, as matplotlib figures that no global state has touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure, SubFigure

from ima.files import whole
from ima.measures import ACCURACY, Measure
from ima.report import style
from ima.report.inputs import (
    Array,
    Curve,
    ExampleRow,
    MarginHistory,
    Series,
    checked_curves,
    checked_example,
)
from ima.report.panels import (
    draw_curves,
    draw_margins,
    draw_sweep,
    label_space,
    level_line,
    margin_labels,
    margin_ticks,
)
from ima.report.strip import draw_strip, plan_strip, side_for

EDGE, HEAD = 0.2, 0.54  # inches: free border of a figure, height of its title
LEFT, BOTTOM = 0.75, 0.66  # inches: room for the charts' axis labels
KEY = {"ha": "right", "va": "center", "size": style.SMALL, "color": style.SOFT}


def quality_over_noise(
    curves: Sequence[Curve],
    *,
    attack: str,
    norm: str,
    levels: Sequence[float] = (),
    measure: Measure = ACCURACY,
) -> Figure:
    """A quality over the noise radius, one line a method, from the clean image on.

    attack: the attack's name, for the title.
    norm: "L2" or "Linf", the unit of every radius.
    levels: radii to mark by thin vertical lines, for instance those of a table.
    measure: what the quality is called.
    """
    checked_curves(curves, levels)
    with style.styled():
        labels = label_space([curve.label for curve in curves])
        figure = Figure(figsize=(LEFT + 4.9 + labels, 4.2))
        _curves(figure, curves, attack, norm, levels, measure)
    return figure


def quality_over_option(
    panels: Mapping[str, Sequence[Series]],
    *,
    option: str,
    attack: str,
    norm: str,
    measure: Measure = ACCURACY,
    level: str = "",
) -> Figure:
    """A quality over an option of the methods, one panel a method, one line a noise radius.

    panels: by the method's name, with the same series each; option: its name in configs; norm:
    "L2" or "Linf", the unit of radii; attack: its name, for the title; level: the method of the
    series' levels, drawn as dashed lines of the same colours.
    """
    if not panels:
        raise ValueError("panels is empty, expected one method or more")
    unit = style.norm_name(norm)
    names = {"eps": f"Training radius ε ({unit})", "delta": f"Growth Δε of the margins ({unit})"}
    under = names.get(option, option)
    with style.styled():
        named = [one.label for series in panels.values() for one in series]
        labels = label_space([*named, level]) + 0.45
        least = max(map(style.text_width, [under, *panels]))
        side, high, across = max(2.6, least + 0.1), 2.6, min(len(panels), 4)
        down = -(-len(panels) // across)
        gap, rise = 0.3, BOTTOM + high + 0.42
        wide = LEFT + across * (side + gap) - gap + labels
        figure = Figure(figsize=(max(wide, LEFT + 4.5), down * rise + HEAD - 0.1))
        for number, (name, series) in enumerate(panels.items()):
            column, row = number % across, number // across
            left, low = LEFT + column * (side + gap), (down - 1 - row) * rise + BOTTOM
            axes = style.add_axes(figure, left, low, side, high)
            lines = draw_sweep(axes, series, named=column == 0, measure=measure)
            axes.set_xlabel(under)
            style.draw_text(figure, left, low + high + 0.12, name, size=style.BODY, va="baseline")
            if row == 0 and column == across - 1:
                look = {"frameon": False, "handlelength": 2.2, "borderaxespad": 0.0}
                dashed = [level_line(level)] if level else []
                keys = [*lines, *dashed]
                axes.legend(handles=keys, loc="upper left", bbox_to_anchor=(1.04, 1.0), **look)
        _title(figure, f"{measure.title} under {attack}", LEFT)
    return figure


def margins_by_epoch(history: MarginHistory, *, cap: float, norm: str) -> Figure:
    """How the training margins spread over the epochs, and their last histogram.

    cap: the largest margin that training allows, above 0; infinite for none.
    norm: "L2" or "Linf", the unit of the margins.
    """
    if not cap > 0:
        raise ValueError(f"cap is {cap!r}, expected a number above 0")
    with style.styled():
        ticks = [style.text_width(f"{mark:g}") for mark in margin_ticks(history, cap)]
        left = max(LEFT, max(ticks) + 0.45)
        wide, high = left + 6.25, 4.4
        figure = Figure(figsize=(wide + label_space(margin_labels(history, cap)), high))
        height = high - BOTTOM - HEAD - 0.3
        heat = style.add_axes(figure, left, BOTTOM, 4.5, height)
        bars = style.add_axes(figure, wide - 1.45, BOTTOM, 1.45, height)
        key = style.add_axes(figure, wide - 1.45, high - 0.32, 1.45, 0.12)
        draw_margins(heat, bars, key, history, cap)
        heat.set_ylabel(f"Margin ({style.norm_name(norm)})")
        style.draw_text(figure, wide - 1.6, high - 0.26, "Samples in a bin", **KEY)
        _title(figure, "Margins of the training samples", left)
    return figure


def story(
    clean: Array,
    truth: str,
    rows: Sequence[ExampleRow],
    curves: Sequence[Curve],
    *,
    attack: str,
    norm: str,
    levels: Sequence[float] = (),
    measure: Measure = ACCURACY,
) -> Figure:
    """One image as each method sees it, beside `quality_over_noise`; about 12 by 4.5 inches.

    At the left the image clean, the noise enlarged, and noisy. clean: (H, W) or (H, W, 3), in
    0..1; truth: the name of its class, a prediction that equals it is right; norm: the unit of the
    rows' eps too.
    """
    clean = checked_example(clean, rows)
    checked_curves(curves, levels)
    with style.styled():
        high = 4.5
        side = min(1.5, side_for(high - HEAD - EDGE, len(rows)))
        strip = plan_strip(clean, rows, norm, max(side, 0.6))
        high = max(high, strip.height + HEAD + EDGE)
        left = strip.width + 2 * EDGE + 0.15
        labels = label_space([curve.label for curve in curves])
        wide = max(12.0, left + LEFT + 3.5 + labels)
        figure = Figure(figsize=(wide, high))
        halves: Any = figure.subfigures(1, 2, width_ratios=(left, wide - left), wspace=0)
        pictures, chart = halves
        draw_strip(pictures, strip, clean, truth, rows, norm=norm, left=EDGE, top=high - HEAD)
        _title(pictures, f"One image, true class: {truth}", EDGE)
        _curves(chart, curves, attack, norm, levels, measure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a .png (150 dots an inch) or an .svg; the same figure gives the same bytes."""
    form = path.suffix.lower().removeprefix(".")
    if form not in ("png", "svg"):
        raise ValueError(f"cannot write {path.name!r}: expected a name that ends in .png or .svg")
    metadata = {"Date": None} if form == "svg" else {}
    with whole(path) as beside, style.styled():
        figure.savefig(beside, format=form, dpi=150, facecolor="white", metadata=metadata)


def save_all(folder: Path, drawn: Mapping[str, Figure], known: Sequence[str] = ()) -> None:
    """Write figures by name, .png and .svg; those of the known names that are not drawn go.

    Those of an earlier call would stand beside a page that does not show them.
    """
    for name in dict.fromkeys((*drawn, *known)):
        for suffix in ("png", "svg"):
            path = folder / f"{name}.{suffix}"
            if name in drawn:
                save(drawn[name], path)
            else:
                path.unlink(missing_ok=True)


def _curves(
    panel: Figure | SubFigure,
    curves: Sequence[Curve],
    attack: str,
    norm: str,
    levels: Sequence[float],
    measure: Measure,
) -> None:
    wide, high = style.panel_size(panel)
    labels = label_space([curve.label for curve in curves])
    axes = style.add_axes(panel, LEFT, BOTTOM, wide - LEFT - labels, high - BOTTOM - HEAD)
    draw_curves(axes, curves, norm=norm, levels=levels, measure=measure)
    _title(panel, f"{measure.title} under {attack}", LEFT)


def _title(panel: Figure | SubFigure, text: str, left: float) -> None:
    _, high = style.panel_size(panel)
    look = {"weight": "bold", "size": style.TITLE, "va": "baseline"}
    style.draw_text(panel, left, high - 0.3, text, **look)
