"""The page's charts as inline SVG: small enough to be read on a phone, apart in gray too."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ima.measures import ACCURACY, Measure
from ima.report import style
from ima.report.inputs import Array, MarginHistory
from ima.report.panels import draw_margins, label_space, margin_labels, noise_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, HIGH = 4.3, 2.6  # inches: of a figure, of its axes
LEFT, RIGHT, TOP, BOTTOM = 0.62, 0.12, 0.12, 0.5
LINE = 0.178  # inches: of a legend's row
LONGEST = 38  # characters of a label in a legend


_NAMES: dict[str, str] = {
    colour.lower(): name
    for name, colour in (
        *(("card", "#ffffff"), ("ink", style.INK), ("soft", style.SOFT), ("line", style.FAINT)),
        *(("right", style.RIGHT), ("wrong", style.WRONG)),
        *((f"line{number}", colour) for number, colour in enumerate(style.COLOURS)),
    )
}
"""The colours that the page's own colours stand for, which follow the dark mode."""

_COLOUR = re.compile("|".join(_NAMES), re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Line:
    """A line of a chart: x and y (N,), y 0..1, and, where known, how far it may be off.

    low, high: (N,), the ends of the 95 % intervals. look: number of its colour and dashes, such as
    the network's place on the page; its place among the lines if None.
    """

    label: str
    x: Array
    y: Array
    low: Array | None = None
    high: Array | None = None
    look: int | None = None


def over_noise(
    lines: Sequence[Line],
    norm: str,
    measure: Measure = ACCURACY,
    *,
    steps: bool = False,
    end: float = 0.0,
) -> str:
    """A quality over the noise radius; steps: of sorted samples, without markers."""
    with style.styled():
        figure, axes, columns = _figure(lines)
        last = end or max(float(line.x[-1]) for line in lines)
        noise_axes(axes, norm, last, measure)
        for number, line in enumerate(lines):
            _draw(axes, line, number if line.look is None else line.look, steps, measure.top)
        if columns:
            _legend(figure, columns)
        return _svg(figure)


def margins_svg(history: MarginHistory, norm: str) -> str:
    """How the margins spread over the epochs, and their last histogram beside it."""
    from matplotlib.figure import Figure

    cap = history.ceiling
    with style.styled():
        space = label_space(margin_labels(history, cap)) - 0.25
        wide = WIDE + 0.3
        bars_wide, gap, high = 0.75, 0.28, 2.5
        figure = Figure(figsize=(wide, BOTTOM + high + 0.62))
        heat_wide = wide - LEFT - gap - bars_wide - space
        heat = style.add_axes(figure, LEFT, BOTTOM, heat_wide, high)
        bars = style.add_axes(figure, LEFT + heat_wide + gap, BOTTOM, bars_wide, high)
        key = style.add_axes(figure, LEFT + heat_wide - 1.1, BOTTOM + high + 0.42, 1.1, 0.1)
        draw_margins(heat, bars, key, history, cap)
        heat.set_ylabel(f"Margin ({style.norm_name(norm)})")
        beside: dict[str, Any] = {"ha": "right", "va": "center", "size": style.SMALL}
        style.draw_text(
            figure, LEFT + heat_wide - 1.2, BOTTOM + high + 0.47, "Samples in a bin", **beside
        )
        return _svg(figure)


def _figure(lines: Sequence[Line]) -> tuple[Figure, Axes, int]:
    """A figure with room for a legend below, and the legend's columns; none for one line."""
    from matplotlib.figure import Figure

    columns = (
        2
        if max(style.text_width(style.shortened(line.label, LONGEST)) for line in lines) < 1.6
        else 1
    )
    rows = -(-len(lines) // columns) if len(lines) > 1 else 0
    under = rows * LINE + (0.08 if rows else 0)
    figure = Figure(figsize=(WIDE, TOP + HIGH + BOTTOM + under))
    axes = style.add_axes(figure, LEFT, BOTTOM + under, WIDE - LEFT - RIGHT, HIGH)
    return figure, axes, columns if rows else 0


def _legend(figure: Figure, columns: int) -> None:
    wide, _ = style.panel_size(figure)
    figure.legend(
        loc="lower left",
        bbox_to_anchor=(0.1 / wide, 0),
        ncols=columns,
        frameon=False,
        handlelength=2.6,
        columnspacing=1.4,
        borderaxespad=0.2,
        labelspacing=0.25,
    )


def _draw(axes: Axes, line: Line, number: int, steps: bool, top: float) -> None:
    look: dict[str, Any] = {
        **style.line_look(number),
        "label": style.shortened(line.label, LONGEST),
    }
    if steps:
        # The last steps lie beyond the axis.
        look |= {"clip_on": True, "marker": None}
        axes.step(line.x, top * line.y, where="post", **look)
        return
    axes.plot(line.x, top * line.y, **look)
    if line.low is not None and line.high is not None:
        ends = top * line.low, top * line.high
        axes.vlines(line.x, *ends, color=look["color"], linewidth=1.2, alpha=0.7)


def _svg(figure: Figure) -> str:
    """The figure's SVG element, fit to stand inside HTML beside others."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", facecolor="white", metadata=nothing, dpi=150)
    return out.getvalue()


def inline(svg: str, prefix: str, title: str, about: str) -> str:
    """An SVG file's text as an element of an HTML page.

    Names inside it begin with `prefix`, so that those of two figures do not clash; title and about
    are read out in place of the picture.
    """
    from html import escape

    body = svg[svg.index("<svg") :]
    head, body = body.split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', head)
    assert box is not None
    body = re.sub(r"<style[^>]*>.*?</style>|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r' style="[^"]*"', lambda m: _COLOUR.sub(_named, m[0]), body)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", body))
    body = re.sub(
        r' id="([^"]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", body
    )
    body = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{prefix}-", body)
    # The style element held this for all; inside HTML it would reach beyond the figure.
    return (
        f'<svg viewBox="{box[1]}" role="img" aria-labelledby="{prefix}-title {prefix}-about" '
        'stroke-linejoin="round" stroke-linecap="butt">'
        f'<title id="{prefix}-title">{escape(title)}</title>'
        f'<desc id="{prefix}-about">{escape(about)}</desc>{body.rstrip()}'
    )


def _named(colour: re.Match[str]) -> str:
    """A colour as the page's own, where it has one."""
    return f"var(--{_NAMES[colour[0].lower()]}, {colour[0]})"


def steps_of(values: Array, end: float) -> tuple[Array, Array]:
    """Where the share of samples that stand drops, and to what share; from 0 to `end`."""
    n = len(values)
    places, counts = np.unique(values[values <= end], return_counts=True)
    x = np.concatenate([[0.0], places, [end]])
    y = 1 - np.concatenate([[0], np.cumsum(counts), [counts.sum()]]) / n
    # What is wrong without noise is wrong from the start: the first point is the clean accuracy.
    return (x[1:], y[1:]) if len(places) and places[0] == 0 else (x, y)
