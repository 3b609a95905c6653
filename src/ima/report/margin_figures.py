"""The pictures of `ima margins`, but the histogram by epoch: pure functions of `Estimates`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ima.evaluation.estimates import Estimate, Estimates
from ima.report import style
from ima.report.inputs import Array
from ima.report.margin_numbers import MarginErrors, precision
from ima.report.panels import SHADES

BINS, CLASSES = 30, 30
SIDE = 0.95  # inches: width of an image in the atlas
LEFT, BOTTOM, HEAD, EDGE = 0.75, 0.66, 0.54, 0.25  # inches
TITLE: dict[str, Any] = {"weight": "bold", "size": style.TITLE, "va": "baseline"}
SMALL: dict[str, Any] = {"size": style.SMALL, "color": style.SOFT}


def classes_shown(estimates: Estimates) -> list[int]:
    """Class numbers that occur, those with the smallest medians where there are too many."""
    labels, margins = np.array([row.label for row in estimates.rows]), estimates.margins
    found: list[int] = np.unique(labels).tolist()
    nearest = sorted(found, key=lambda label: float(np.median(margins[labels == label])))
    return sorted(nearest[:CLASSES])


def by_class(estimates: Estimates) -> Figure:
    """The histogram of the last margins, a line for every class, with its median."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    labels, margins = np.array([row.label for row in estimates.rows]), estimates.margins
    shown = classes_shown(estimates)
    top = min(estimates.cap, 1.05 * float(margins.max())) or estimates.cap
    edges = np.linspace(0, top, BINS + 1)
    medians = np.array([np.median(margins[labels == label]) for label in shown])
    shares = np.array([_shares(margins[labels == label], edges) for label in shown])
    names = [style.shortened(estimates.classes[label]) for label in shown]
    with style.styled():
        left = max(LEFT, 0.45 + max(map(style.text_width, names)))
        wide, high = left + 5.2 + 1.9, BOTTOM + 0.3 * len(shown) + HEAD + 0.12
        figure = Figure(figsize=(wide, high))
        axes = style.add_axes(figure, left, BOTTOM, 5.2, 0.3 * len(shown))
        dark = style.round_up(float(np.quantile(shares[shares > 0], 0.9)))
        colours = LinearSegmentedColormap.from_list("ima-shares", SHADES)
        shade = PowerNorm(0.5, vmin=0, vmax=dark)
        rows = np.arange(len(shown) + 1) - 0.5
        axes.pcolormesh(edges, rows, shares, cmap=colours, norm=shade, rasterized=True)
        for row, (label, median) in enumerate(zip(shown, medians, strict=True)):
            for colour, thick in (("white", 4.0), (style.WRONG, 2.0)):
                look: dict[str, Any] = {"color": colour, "linewidth": thick}
                axes.plot([median] * 2, [row - 0.5, row + 0.5], solid_capstyle="butt", **look)
            told = f"{median:.3g}, {int((labels == label).sum())}"
            axes.text(1.02, row, told, transform=axes.get_yaxis_transform(), va="center_baseline")
        axes.set_yticks(range(len(shown)), names)
        axes.set(xlim=(0, top), ylim=(len(shown) - 0.5, -0.5))
        axes.set_xlabel(f"Margin ({style.norm_name(estimates.norm)})")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.tick_params(axis="y", length=0)
        for line in range(1, len(shown)):
            axes.axhline(line - 0.5, color="white", linewidth=2)
        above = BOTTOM + 0.3 * len(shown) + 0.1
        style.draw_text(figure, left + 5.3, above, "median, samples", va="baseline", **SMALL)
        under = f"shade: share of a class, white 0 to dark {100 * dark:g} % or more; line: median"
        style.draw_text(figure, left, above, under, va="baseline", **SMALL)
        several = len({row.label for row in estimates.rows})
        fewer = f", the {len(shown)} of {several} with the smallest medians"
        title = "Margins by class" + (fewer if len(shown) < several else "")
        style.draw_text(figure, left, high - 0.3, title, **TITLE)
    return figure


def _shares(margins: Array, edges: Array) -> Array:
    counts, _ = np.histogram(margins, edges)
    return counts / max(1, len(margins))


def against_distances(estimates: Estimates) -> Figure:
    """Margins over the smallest noise found; above the diagonal they are too large.

    Raises ValueError where no distance is known.
    """
    margins, distances = estimates.pairs()
    errors = MarginErrors.of(estimates)
    if errors is None:
        raise ValueError("no distance is known for any sample that is right; measure some first")
    norm, end = style.norm_name(estimates.norm), 1.05 * float(max(margins.max(), distances.max()))
    with style.styled():
        figure = Figure(figsize=(LEFT + 4.2 + EDGE, BOTTOM + 4.2 + HEAD + 0.12))
        axes = style.add_axes(figure, LEFT, BOTTOM, 4.2, 4.2)
        axes.plot([0, end], [0, end], color=style.INK, linewidth=1.0, zorder=1)
        dots: dict[str, Any] = {"linewidth": 0, "alpha": 0.6, "clip_on": False, "zorder": 3}
        axes.scatter(distances, margins, s=16, color=style.COLOURS[0], **dots)
        if estimates.cap <= end:
            axes.axhline(estimates.cap, color=style.SOFT, linewidth=1.0, linestyle=(0, (5, 2.5)))
            axes.text(end, estimates.cap, "cap", ha="right", va="bottom", **SMALL)
        axes.set(xlim=(0, end), ylim=(0, end), aspect="equal")
        axes.set_xlabel(f"Smallest noise found ({norm})")
        axes.set_ylabel(f"Margin ({norm})")
        for along in (axes.xaxis, axes.yaxis):
            along.set_major_formatter(lambda value, _: f"{value:g}")
        inside: dict[str, Any] = {"transform": axes.transAxes, **SMALL}
        under = f"{errors.count} training samples"
        if errors.free:
            axes.text(0.03, 0.97, f"too large: {errors.over:.0%}", va="top", **inside)
            axes.text(0.97, 0.03, f"too small: {errors.under:.0%}", ha="right", **inside)
            which = "below the cap: " if errors.capped else ""
            under += f"; {which}median margin / noise {errors.ratio:.2f}"
        style.draw_text(figure, LEFT, BOTTOM + 4.3, under, va="baseline", **SMALL)
        high = style.panel_size(figure)[1]
        style.draw_text(
            figure, LEFT, high - 0.3, "Margins against the smallest noise found", **TITLE
        )
    return figure


def flips_found(estimates: Estimates) -> Figure:
    """The share of flipped labels among the k smallest margins, over k.

    Raises ValueError where no label was flipped.
    """
    flipped, shares = estimates.flipped, 100 * precision(estimates)
    count = int(flipped.sum())
    if not count:
        raise ValueError("no label of this run was flipped; train with data.flip=0.1, for example")
    end = min(len(shares), 3 * count)
    with style.styled():
        figure = Figure(figsize=(LEFT + 4.6 + 1.75, BOTTOM + 3.0 + HEAD))
        axes = style.add_axes(figure, LEFT, BOTTOM, 4.6, 3.0)
        number = np.arange(1, len(shares) + 1)
        axes.plot(number[:end], shares[:end], color=style.COLOURS[0], clip_on=False)
        chance = 100 * count / len(shares)
        axes.axhline(chance, color=style.SOFT, linewidth=1.0, linestyle=(0, (5, 2.5)))
        axes.axvline(count, color=style.SOFT, linewidth=0.7, linestyle=(0, (2, 2)))
        at = float(shares[count - 1])
        axes.plot([count], [at], marker="o", color=style.WRONG, zorder=5)
        beside: dict[str, Any] = {"xytext": (7, 7), "textcoords": "offset points"}
        axes.annotate(f"{at:.0f} % of {count}", (count, at), color=style.WRONG, **beside)
        axes.set(xlim=(0, end), ylim=(0, 102), yticks=range(0, 101, 20))
        axes.set_xlabel("Samples with the smallest margins")
        axes.set_ylabel("Flipped among them (%)")
        axes.grid(axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        right: dict[str, Any] = {"transform": axes.get_yaxis_transform(), **SMALL}
        axes.text(1.02, chance, f"chance, {chance:.1f} %", va="center_baseline", **right)
        style.draw_text(
            figure, LEFT, BOTTOM + 3.24, "Flipped labels found by their margin", **TITLE
        )
    return figure


def atlas(estimates: Estimates, ids: Sequence[int], images: Sequence[Array]) -> Figure:
    """The images with the smallest and with the largest margins, labelled.

    ids: of the images, the smallest margins first; images: (H, W) or (H, W, 3), in 0..1.
    Raises ValueError without images.
    """
    if not len(ids):
        raise ValueError("there are no images to show")
    half = (len(ids) + 1) // 2
    blocks = [(ids[:half], images[:half]), (ids[half:], images[half:])]
    blocks = [(some, shown) for some, shown in blocks if len(some)]
    by_id = {row.id: row for row in estimates.rows}
    names = [style.shortened(name, 12) for name in estimates.classes]
    captions = {i: _caption(by_id[i], names) for i in ids}
    columns = 8
    with style.styled():
        widest = max(style.text_width(t, 8.5, "bold") for c in captions.values() for t, *_ in c)
        pitch = max(SIDE, widest) + 0.16
        image_high = SIDE * max(image.shape[0] / image.shape[1] for image in images)
        steps = [image_high + 0.16 * max(len(captions[i]) for i in s) + 0.2 for s, _ in blocks]
        lines = [-(-len(some) // columns) for some, _ in blocks]
        heights = [line * step for line, step in zip(lines, steps, strict=True)]
        wide = max(2 * EDGE + columns * pitch - 0.16, 6.6)
        high = HEAD + 0.22 + sum(height + 0.42 for height in heights)
        figure = Figure(figsize=(wide, high))
        style.draw_text(figure, EDGE, high - 0.3, "Training samples by margin", **TITLE)
        unit = style.norm_name(estimates.norm)
        flipped = any(by_id[i].flipped for i in ids)
        under = f"label, → prediction where it differs; margin ({unit})"
        under += "; was: the class before the label was flipped" if flipped else ""
        style.draw_text(figure, EDGE, high - 0.56, under, va="baseline", **SMALL)
        top = high - HEAD - 0.22
        heads = ("The smallest margins", "The largest margins")
        for head, (some, shown), row, height in zip(heads, blocks, steps, heights, strict=False):
            style.draw_text(figure, EDGE, top - 0.24, head, weight="bold", va="baseline")
            for number, (sample, image) in enumerate(zip(some, shown, strict=True)):
                left = EDGE + number % columns * pitch
                low = top - 0.34 - number // columns * row - SIDE * image.shape[0] / image.shape[1]
                _draw(figure, left, low, image, captions[sample])
            top -= height + 0.42
    return figure


def _caption(row: Estimate, names: Sequence[str]) -> list[tuple[str, str, str]]:
    right = row.label == row.prediction
    colour, weight = (style.RIGHT, "normal") if right else (style.WRONG, "bold")
    label, prediction = str(names[row.label]), f"→ {names[row.prediction]}"
    first = [label] if right else [f"{label} {prediction}"]
    if style.text_width(first[0], style.SMALL, "bold") > SIDE:
        first = [label] if right else [label, prediction]
    lines = [(text, colour, weight) for text in first]
    lines.append((f"{row.margin:.3g}", style.INK, "normal"))
    if row.flipped:
        lines.append((f"was {names[row.true]}", style.SOFT, "normal"))
    return lines


def _draw(
    figure: Figure,
    left: float,
    low: float,
    image: Array,
    caption: Sequence[tuple[str, str, str]],
) -> None:
    high = SIDE * image.shape[0] / image.shape[1]
    style.draw_image(figure, left, low, SIDE, high, image, caption[0][1])
    for number, (text, colour, weight) in enumerate(caption):
        look: dict[str, Any] = {"color": colour, "weight": weight, "size": style.SMALL}
        style.draw_text(figure, left, low - 0.15 - 0.155 * number, text, va="baseline", **look)
