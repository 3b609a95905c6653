"""The charts themselves: each function fills the axes that it is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ima.measures import ACCURACY, Measure
from ima.report import style
from ima.report.inputs import Array, Curve, MarginHistory, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

LINE = style.BODY * 1.35 / 72  # distance of text lines in inches
LEADER = 0.3  # inches from the plot to the labels at its right
SHADES = ("#FFFFFF", "#CFE1F2", "#6FA8D6", "#1F68AE", "#06264D")  # even steps in grayscale too


def label_space(labels: Sequence[str]) -> float:
    """Inches to keep free at the right of a chart for labels or a legend."""
    return LEADER + 0.4 + max(map(style.text_width, labels))


def noise_axes(axes: Axes, norm: str, end: float, measure: Measure, beside: str = "") -> None:
    """What stands at axes on which a quality is drawn over the noise radius, up to `end`."""
    axes.set_xlim(-0.015 * end, end * 1.015)
    quality_axis(axes, measure, beside)
    axes.set_xlabel(f"Noise radius ε ({style.norm_name(norm)})")
    axes.xaxis.set_major_formatter(lambda value, _: "clean" if value == 0 else f"{value:g}")


def quality_axis(axes: Axes, measure: Measure, beside: str = "") -> None:
    """The vertical axis of a quality; beside: what is said behind its name."""
    axes.set_ylim(0, 1.02 * measure.top)
    axes.set_yticks(np.linspace(0, measure.top, 6))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel(measure.title + (" (%)" if measure.percent else "") + beside)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def draw_curves(
    axes: Axes,
    curves: Sequence[Curve],
    *,
    norm: str,
    levels: Sequence[float],
    measure: Measure = ACCURACY,
) -> None:
    """A quality over the noise radius; labels go to the right, outside the axes."""
    end = max(float(curve.eps[-1]) for curve in curves)
    spread = any(curve.std is not None for curve in curves)
    noise_axes(axes, norm, end, measure, ", ± std over seeds" if spread else "")
    _mark_levels(axes, sorted({level for level in levels if level <= end}), end)
    lines = [_draw_curve(axes, one, n, measure.top) for n, one in enumerate(curves)]
    last = np.array([curve.accuracy[-1] if curve.eps[-1] == end else np.nan for curve in curves])
    if np.isnan(last).any() or not label_right(axes, measure.top * last, lines):
        # In the order in which the lines end.
        known = [curve.accuracy[np.isfinite(curve.accuracy)][-1] for curve in curves]
        order: list[int] = np.argsort(-np.array(known), kind="stable").tolist()
        axes.legend(
            handles=[lines[number] for number in order],
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            frameon=False,
            handlelength=2.2,
            borderaxespad=0.8,  # off the last points
        )


def _mark_levels(axes: Axes, levels: Sequence[float], end: float) -> None:
    """Thin vertical lines, named by the axis where they lie apart, else above where they can."""
    if not levels:
        return
    for level in levels:
        axes.axvline(level, color=style.SOFT, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1)
    low, high = axes.get_xlim()
    inch = style.inches(axes)[0] / (high - low)
    ticks = sorted({0.0, end, *levels})
    if len(ticks) > 3 and min(np.diff(ticks)) * inch > 0.5:
        axes.set_xticks(ticks)
        return
    names = [f"{level:g}" for level in levels]
    widest = max(style.text_width(name, style.SMALL) for name in names)
    if len(levels) == 1 or min(np.diff(levels)) * inch > widest + 0.08:
        look: dict[str, Any] = {"color": style.SOFT, "size": style.SMALL, "ha": "center"}
        for level, name in zip(levels, names, strict=True):
            axes.text(level, 1.012, name, va="bottom", transform=axes.get_xaxis_transform(), **look)


LEVEL: dict[str, Any] = {"linewidth": 1.1, "linestyle": (0, (4, 2)), "zorder": 1.5}
"""The look of a level line beside a sweep."""


def draw_sweep(
    axes: Axes, series: Sequence[Series], *, named: bool, measure: Measure = ACCURACY
) -> list[Line2D]:
    """A quality over a swept option, one line a series; named: with the axis' label."""
    values = np.unique(np.concatenate([one.x for one in series]))
    if values[0] > 0 and values[-1] > 12 * values[0]:
        axes.set_xscale("log")
    spread = any(one.std is not None for one in series)
    quality_axis(axes, measure, ", ± std over seeds" if spread else "")
    if not named:
        axes.set_ylabel("")
    axes.tick_params(axis="y", labelleft=named)
    lines = [_draw_curve(axes, one, n, measure.top) for n, one in enumerate(series)]
    for one, line in zip(series, lines, strict=True):
        if not math.isnan(one.level):
            axes.axhline(measure.top * one.level, color=line.get_color(), **LEVEL)
    axes.set_xticks(_apart(axes, values))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return lines


def level_line(label: str) -> Line2D:
    """The key of the level lines."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, color=style.SOFT, **LEVEL)


def _apart(axes: Axes, values: Array) -> list[float]:
    """Those of the values whose names have room below the axis, from the last one down."""
    inches = axes.transData.transform([(value, 0.0) for value in values])[:, 0] / axes.figure.dpi
    kept: list[int] = []
    for number in reversed(range(len(values))):
        width = style.text_width(f"{values[number]:g}")
        if not kept:
            kept.append(number)
            continue
        other = style.text_width(f"{values[kept[-1]]:g}")
        if inches[kept[-1]] - inches[number] > (width + other) / 2 + 0.08:
            kept.append(number)
    return [float(values[number]) for number in reversed(kept)]


def _draw_curve(axes: Axes, curve: Series, number: int, top: float) -> Line2D:
    look = style.line_look(number)
    crowded = curve.x.size > 15 and not np.isnan(curve.accuracy).any()
    (line,) = axes.plot(
        curve.x,
        top * curve.accuracy,
        label=curve.label,
        # Beside a gap every point needs its marker; elsewhere a dozen tell the lines apart.
        markevery=math.ceil(curve.x.size / 12) if crowded else None,
        **look,
    )
    if curve.std is not None:
        low, high = curve.accuracy - curve.std, curve.accuracy + curve.std
        band: dict[str, Any] = {"color": look["color"], "alpha": 0.16, "linewidth": 0, "zorder": 2}
        axes.fill_between(curve.x, top * low.clip(0, 1), top * high.clip(0, 1), **band)
    return line


def label_right(axes: Axes, values: Array, lines: Sequence[Line2D]) -> bool:
    """Write each line's label at the right, at its value; False where that would not be clear."""
    width, height = style.inches(axes)
    low, high = axes.get_ylim()
    wanted = (values - low) / (high - low) * height
    places = style.spread(wanted, LINE, height)
    if places is None or np.abs(places - wanted).max() > 2.1 * LINE:
        return False
    moved = bool(np.abs(places - wanted).max() > 0.25 * LINE)
    start = 1 + (LEADER if moved else 0.1) / width
    for line, at, place in zip(lines, wanted, places, strict=True):
        outside: dict[str, Any] = {"color": line.get_color(), "transform": axes.transAxes}
        if moved:
            ends = [1 + 0.08 / width, start - 0.05 / width]
            axes.plot(ends, [at / height, place / height], linewidth=0.8, clip_on=False, **outside)
        label = str(line.get_label())
        axes.text(start, place / height, label, va="center_baseline", **outside)
    return True


def draw_margins(heat: Axes, bars: Axes, key: Axes, history: MarginHistory, cap: float) -> None:
    """Shares by epoch and margin, the last epoch's histogram beside it, and the shades' key."""
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import MaxNLocator

    epochs, shares, medians = history.epochs, 100 * history.shares(), history.medians()
    edges, last = history.edges, history.last()
    top = _top(history, cap)
    # At the start all samples share one bin, and later many sit at the cap. Shades that reach up
    # to those peaks would leave the rest white: hence the root, and an upper end below the peaks.
    most = float(np.nanmax(shares))
    dark = style.round_up(float(np.quantile(shares[shares > 0], 0.9)))
    shade = PowerNorm(0.5, vmin=0, vmax=dark)
    colours = LinearSegmentedColormap.from_list("ima-shares", SHADES)
    mesh = heat.pcolormesh(
        _borders(epochs), edges, shares.T, cmap=colours, norm=shade, rasterized=True
    )
    heat.set_xlabel("Epoch")
    heat.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    heat.set_yticks(margin_ticks(history, cap))
    heat.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    heat.set_ylim(min(0.0, float(edges[0])), top * 1.03)
    bars.barh(
        edges[:-1], shares[last], height=np.diff(edges), align="edge", color="#6FA8D6", linewidth=0
    )
    bars.set_xlim(0, 1.08 * float(shares[last].max()))
    bars.set_xlabel("Samples (%)")
    small: dict[str, Any] = {"color": style.SOFT, "size": style.SMALL}
    bars.text(0, 1.02, f"epoch {epochs[last]:g}", transform=bars.transAxes, **small)
    bars.set_ylim(heat.get_ylim())
    bars.tick_params(axis="y", length=0, labelleft=False)

    halo = [withStroke(linewidth=3.2, foreground="white")]
    median, limit = margin_labels(history, cap)
    dots = "o" if epochs.size == 1 else None
    (line,) = heat.plot(
        epochs,
        medians,
        color=style.WRONG,
        linewidth=1.6,
        label=median,
        marker=dots,
        path_effects=halo,
    )
    bars.axhline(medians[last], color=style.WRONG, linewidth=1.6, path_effects=halo)
    dashed: dict[str, Any] = {"color": style.INK, "linestyle": (0, (5, 2.5)), "linewidth": 1.2}
    lines = {float(medians[last]): line}
    if np.isfinite(cap):
        lines[cap] = heat.axhline(cap, label=limit, **dashed)
        bars.axhline(cap, **dashed)
    label_right(bars, np.array(list(lines)), list(lines.values()))

    # Under the root, the middle of the key is a quarter of its end.
    ticks = [0.0, style.round_down(dark / 4), dark]
    more = "≥ " if most > dark else ""
    legend = Colorbar(key, mesh, orientation="horizontal", ticks=ticks)
    legend.ax.set_xticklabels(["0", f"{ticks[1]:g}", f"{more}{ticks[2]:g} %"])
    legend.outline.set_linewidth(0.6)
    legend.ax.tick_params(length=2, pad=1.5, labelsize=style.SMALL)
    legend.minorticks_off()


def margin_ticks(history: MarginHistory, cap: float) -> list[float]:
    """The marks of the margins' axis."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(0.0, float(history.edges[0])), _top(history, cap)
    marks = MaxNLocator(nbins=7, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(mark) for mark in marks if low <= mark <= high * 1.001]


def _top(history: MarginHistory, cap: float) -> float:
    return max(float(history.edges[-1]), cap if np.isfinite(cap) else 0.0)


def margin_labels(history: MarginHistory, cap: float) -> tuple[str, str]:
    """What the lines at the last median and at the cap are called."""
    return f"median {history.medians()[history.last()]:.3g}", f"cap {cap:.4g}"


def _borders(epochs: Array) -> Array:
    """The cells' borders around the epochs, half way between neighbours."""
    if epochs.size == 1:
        return np.array([epochs[0] - 0.5, epochs[0] + 0.5])
    middle = (epochs[1:] + epochs[:-1]) / 2
    return np.concatenate([[2 * epochs[0] - middle[0]], middle, [2 * epochs[-1] - middle[-1]]])
