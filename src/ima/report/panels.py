"""The charts themselves: each function fills the axes that it is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ima.report import style
from ima.report.inputs import Array, Curve, MarginHistory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

LINE = style.BODY * 1.35 / 72  # distance of text lines in inches
LEADER = 0.3  # inches from the plot to the labels at its right
SHADES = ("#FFFFFF", "#CFE1F2", "#6FA8D6", "#1F68AE", "#06264D")  # even steps in grayscale too


def label_space(labels: Sequence[str]) -> float:
    """Inches to keep free at the right of a chart for labels or a legend."""
    return LEADER + 0.3 + max(map(style.text_width, labels))


def draw_curves(axes: Axes, curves: Sequence[Curve], *, norm: str, levels: Sequence[float]) -> None:
    """Accuracy in percent over the noise radius; labels go to the right, outside the axes."""
    end = max(float(curve.eps[-1]) for curve in curves)
    axes.set_xlim(-0.015 * end, end * 1.015)
    axes.set_ylim(0, 102)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("Accuracy (%)")
    axes.set_xlabel(f"Noise radius ε ({style.norm_name(norm)})")
    marks = sorted({0.0, end, *(level for level in levels if level <= end)})
    if len(marks) > 3 and min(np.diff(marks)) > 0.09 * end:
        axes.set_xticks(marks)
    axes.xaxis.set_major_formatter(lambda value, _: "clean" if value == 0 else f"{value:g}")
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    for level in levels:
        if level <= end:
            axes.axvline(level, color=style.SOFT, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1)
    lines = [_draw_curve(axes, curve, number) for number, curve in enumerate(curves)]
    last = np.array([curve.accuracy[-1] if curve.eps[-1] == end else np.nan for curve in curves])
    if np.isnan(last).any() or not label_right(axes, 100 * last, lines):
        # In the order in which the lines end.
        known = [curve.accuracy[np.isfinite(curve.accuracy)][-1] for curve in curves]
        order = np.argsort(-np.array(known), kind="stable")
        axes.legend(
            handles=[lines[number] for number in order],
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            frameon=False,
            handlelength=2.2,
            borderaxespad=0.0,
        )


def _draw_curve(axes: Axes, curve: Curve, number: int) -> Line2D:
    colour = style.COLOURS[number % len(style.COLOURS)]
    crowded = curve.eps.size > 15 and not np.isnan(curve.accuracy).any()
    (line,) = axes.plot(
        curve.eps,
        100 * curve.accuracy,
        label=curve.label,
        color=colour,
        linestyle=style.DASHES[number % len(style.DASHES)],
        marker=style.MARKERS[number % len(style.MARKERS)],
        markeredgecolor="white",
        markeredgewidth=0.6,
        # Beside a gap every point needs its marker; elsewhere a dozen tell the lines apart.
        markevery=math.ceil(curve.eps.size / 12) if crowded else None,
        clip_on=False,
        zorder=20 - min(number, 15),  # the first curve on top
    )
    if curve.std is not None:
        low, high = curve.accuracy - curve.std, curve.accuracy + curve.std
        band: dict[str, Any] = {"color": colour, "alpha": 0.16, "linewidth": 0, "zorder": 2}
        axes.fill_between(curve.eps, 100 * low.clip(0, 1), 100 * high.clip(0, 1), **band)
    return line


def label_right(axes: Axes, values: Array, lines: Sequence[Line2D]) -> bool:
    """Write each line's label at the right, at its value; False where that would not be clear."""
    width, height = style.inches(axes)
    low, high = axes.get_ylim()
    wanted = (values - low) / (high - low) * height
    places = style.spread(wanted, LINE, height)
    if places is None or np.abs(places - wanted).max() > 2.1 * LINE:
        return False
    for line, at, place in zip(lines, wanted, places, strict=True):
        outside: dict[str, Any] = {"color": line.get_color(), "transform": axes.transAxes}
        ends = [1 + 0.1 / width, 1 + (LEADER - 0.05) / width]
        axes.plot(ends, [at / height, place / height], linewidth=0.8, clip_on=False, **outside)
        label = str(line.get_label())
        axes.text(1 + LEADER / width, place / height, label, va="center_baseline", **outside)
    return True


def draw_margins(heat: Axes, bars: Axes, key: Axes, history: MarginHistory, cap: float) -> None:
    """Shares by epoch and margin, the last epoch's histogram beside it, and the shades' key."""
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.patheffects import withStroke

    epochs, shares, medians = history.epochs, 100 * history.shares(), history.medians()
    edges, last = history.edges, history.last()
    top = max(float(edges[-1]), cap)
    # The root brings out the few samples far from the rest, who would be white beside a peak.
    shade = PowerNorm(0.5, vmin=0, vmax=float(np.nanmax(shares)))
    colours = LinearSegmentedColormap.from_list("ima-shares", SHADES)
    mesh = heat.pcolormesh(
        _borders(epochs), edges, shares.T, cmap=colours, norm=shade, rasterized=True
    )
    heat.set_xlabel("Epoch")
    heat.xaxis.get_major_locator().set_params(integer=True)
    heat.set_ylim(min(0.0, float(edges[0])), top * 1.03)
    bars.barh(
        edges[:-1], shares[last], height=np.diff(edges), align="edge", color="#6FA8D6", linewidth=0
    )
    bars.set_xlim(0, 1.08 * float(shares[last].max()))
    bars.set_xlabel(f"Samples (%), epoch {epochs[last]:g}")
    bars.set_ylim(heat.get_ylim())
    bars.tick_params(axis="y", length=0, labelleft=False)

    halo = [withStroke(linewidth=3.6, foreground="white")]
    median = f"median {medians[last]:.3g}"
    dots = "o" if epochs.size == 1 else None
    (line,) = heat.plot(
        epochs, medians, color=style.WRONG, label=median, marker=dots, path_effects=halo
    )
    bars.axhline(medians[last], color=style.WRONG, linewidth=1.8, path_effects=halo)
    dashed: dict[str, Any] = {"color": style.INK, "linestyle": (0, (5, 2.5)), "linewidth": 1.2}
    limit = heat.axhline(cap, label=f"cap {cap:g}", path_effects=halo, **dashed)
    bars.axhline(cap, path_effects=halo, **dashed)
    label_right(bars, np.array([medians[last], cap]), [line, limit])

    legend = Colorbar(key, mesh, orientation="horizontal", ticks=_key_ticks(shade.vmax or 100))
    legend.outline.set_linewidth(0.6)
    legend.ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}%")
    legend.ax.tick_params(length=2, pad=1.5, labelsize=style.SMALL)
    legend.minorticks_off()


def _borders(epochs: Array) -> Array:
    """The cells' borders around the epochs, half way between neighbours."""
    if epochs.size == 1:
        return np.array([epochs[0] - 0.5, epochs[0] + 0.5])
    middle = (epochs[1:] + epochs[:-1]) / 2
    return np.concatenate([[2 * epochs[0] - middle[0]], middle, [2 * epochs[-1] - middle[-1]]])


def _key_ticks(most: float) -> list[float]:
    """Zero and three round numbers, about evenly spaced under the root's shades."""
    return [0.0, *(style.round_down(most * part) for part in (0.1, 0.4, 1.0))]
