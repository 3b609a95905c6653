"""The parts of the equilibrium's picture: each function fills the place that it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ima.report import style
from ima.report.inputs import Array
from ima.report.portrait import Portrait

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REGIONS = ("#DCE9F4", "#F8E4D8")
CLASSES = (style.RIGHT, style.WRONG)
DASHED = (0, (4, 2))
ROW, NAME = 0.24, 0.75  # inches: from line to line of the numbers, and for the lines' names


def draw_regions(axes: Axes, portrait: Portrait, *, named: bool) -> None:
    """The plane: predictions, both boundaries, samples, and where their noise takes them.

    named: whether the vertical axis has numbers.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import ListedColormap

    extent = (0.0, 1.0, 0.0, 1.0)
    shades: dict[str, Any] = {"cmap": ListedColormap(REGIONS), "vmin": 0, "vmax": 1}
    axes.imshow(portrait.labels, origin="lower", extent=extent, interpolation="nearest", **shades)
    if portrait.labels.min() < portrait.labels.max():
        ticks = np.linspace(0, 1, len(portrait.labels))
        axes.contour(
            ticks, ticks, portrait.labels, levels=[0.5], colors=[style.INK], linewidths=[1.4]
        )
    axes.plot(*portrait.truth.T, color=style.INK, linewidth=1.1, linestyle=DASHED)
    for label, colour in enumerate(CLASSES):
        of = portrait.y == label
        moved = of & (portrait.noisy != portrait.x).any(axis=1)
        ends = np.stack([portrait.x[moved], portrait.noisy[moved]], axis=1)
        axes.add_collection(LineCollection(list(ends), colors=colour, linewidths=0.6, alpha=0.5))
        hollow: dict[str, Any] = {"color": "white", "edgecolor": colour, "linewidth": 0.6}
        axes.scatter(*portrait.noisy[moved].T, s=6, zorder=3, **hollow)
        full: dict[str, Any] = {"color": colour, "linewidth": 0, "marker": style.MARKERS[label]}
        axes.scatter(*portrait.x[of].T, s=13, zorder=4, **full)
    marks = (0, 0.5, 1)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=marks, yticks=marks, aspect="equal")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(labelleft=named, labelsize=style.SMALL)


def draw_key(figure: Figure, left: float) -> None:
    """What the marks in the regions mean, in one line at the top, `left` inches from the left."""
    from matplotlib.lines import Line2D

    samples = [
        Line2D([], [], linestyle="none", marker=style.MARKERS[label], markersize=4.5, color=colour)
        for label, colour in enumerate(CLASSES)
    ]
    hollow: dict[str, Any] = {"marker": "o", "markerfacecolor": "white", "markersize": 4}
    marks = {
        "true boundary": Line2D([], [], color=style.INK, linewidth=1.1, linestyle=DASHED),
        "network's own boundary": Line2D([], [], color=style.INK, linewidth=1.4),
        "training sample below": samples[0],
        "training sample above": samples[1],
        "where its noise in training ends": Line2D(
            [], [], color=CLASSES[0], linewidth=0.9, **hollow
        ),
    }
    wide, high = style.panel_size(figure)
    figure.legend(
        list(marks.values()),
        list(marks),
        loc="upper left",
        bbox_to_anchor=((left - 0.06) / wide, 1 - 0.08 / high),
        borderpad=0.2,
        borderaxespad=0,
        columnspacing=1.8,
        fontsize=style.BODY,
        frameon=False,
        handlelength=2.4,
        ncol=len(marks),
    )


def draw_estimates(axes: Axes, portraits: Sequence[Portrait], against: str, name: str) -> None:
    """Margins over distances, of the samples that the network has right.

    against: which distances, `"own"` or `"true"`; name: what they are called.
    """
    shown = [(number, p) for number, p in enumerate(portraits) if not np.isnan(p.reach).all()]
    end = _longest([portrait for _, portrait in shown])
    axes.plot([0, end], [0, end], color=style.SOFT, linewidth=1, zorder=1)
    for number, portrait in shown:
        colour, order = style.COLOURS[number % len(style.COLOURS)], 2 + number
        if portrait.estimates:
            hollow: dict[str, Any] = {"color": "none", "edgecolor": colour, "linewidth": 0.9}
            marker = style.MARKERS[number % len(style.MARKERS)]
            far: Array = getattr(portrait, against)[portrait.right]
            margins = portrait.margin[portrait.right]
            named = f"{portrait.label}'s margins"
            axes.scatter(far, margins, s=18, marker=marker, label=named, zorder=order, **hollow)
        else:
            height, named = portrait.radius, f"{portrait.label}'s one radius"
            axes.axhline(height, color=colour, linestyle=DASHED, label=named, zorder=order)
    axes.set(xlim=(0, end), ylim=(0, end), aspect="equal", xlabel=name)
    axes.set_ylabel("Noise radius in training")
    axes.set_yticks([tick for tick in axes.get_xticks() if tick <= end])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    soft: dict[str, Any] = {"color": style.SOFT, "size": style.SMALL, "transform": axes.transAxes}
    axes.text(0.04, 0.78, "too large", **soft)
    axes.text(0.97, 0.42, "too small", ha="right", **soft)
    axes.grid()
    if shown:
        axes.legend(loc="lower right", frameon=False, fontsize=style.SMALL, handletextpad=0.4)


def _longest(portraits: Sequence[Portrait]) -> float:
    """The end of the charts' axes, the same for both."""
    found = [0.01]
    for portrait in portraits:
        drawn = [portrait.reach]
        if portrait.estimates:
            drawn += [portrait.own, portrait.true]
        found += [float(values[np.isfinite(values)].max(initial=0)) for values in drawn]
    return 1.06 * max(found)


def draw_numbers(
    figure: Figure,
    left: float,
    top: float,
    wide: float,
    names: Sequence[str],
    groups: Mapping[str, Mapping[str, Sequence[str]]],
    note: str,
) -> None:
    """A small table at a place in inches: one column a method, lines in groups with a heading.

    groups: by heading, and in it by the line's name, one text for each of the methods' names;
    note: lines below.
    """
    step = min(0.95, (wide - NAME) / len(names))

    def line(height: float, name: str, texts: Sequence[str], **look: Any) -> None:
        style.draw_text(figure, left, height, name, va="baseline", **look)
        for number, text in enumerate(texts):
            at = left + NAME + (number + 1) * step
            style.draw_text(figure, at, height, text, va="baseline", ha="right", **look)

    line(top, "", names, weight="bold")
    for heading, lines in groups.items():
        top -= 1.35 * ROW
        line(top, heading, (), weight="bold")
        for name, texts in lines.items():
            top -= ROW
            line(top, name, texts)
    small: dict[str, Any] = {"size": style.SMALL, "color": style.SOFT, "va": "top"}
    style.draw_text(figure, left, top - 0.3, note, linespacing=1.5, **small)
