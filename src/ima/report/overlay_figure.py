"""The figure of slices under noise: truth, predictions without and with noise, and the noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ima.report import style
from ima.report.overlays import (
    NamedOverlays,
    Slice,
    compose,
    dice_told,
    pick_slices,
    slice_radii,
    swatch,
)
from ima.report.words import under

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLICES = 3  # at most
SIDE = 1.3  # inches of the longer side of an image
EDGE, GAP, BETWEEN, APART = 0.2, 0.1, 0.26, 0.16  # around, in a pair, between networks and rows
TITLE, HEADS, NAME, SAID, KEY = 0.5, 0.5, 0.27, 0.22, 0.3  # heights of lines
HEAD = ("without noise", "with noise")


def overlays_figure(
    networks: Sequence[NamedOverlays],
    *,
    norm: str,
    within: str = "",
) -> tuple[Figure, str] | None:
    """Slices in rows, at the left the truth, then each network: the figure and its caption.

    Above, the truth and the predictions without and with noise; below, the image itself, the image
    with the noise against the network, and the noise enlarged by the factor named.

    networks: label and arrays of overlays.npz, the one that noise fools first. within: see
    `pick_slices`. The noise has the middle one of the radii kept. None where the networks keep no
    slice in common.
    """
    if not all(found for _, found in networks):
        return None
    known = slice_radii(networks)
    radius = known[len(known) // 2] if known else 0.0
    rows = pick_slices(networks, radius, within)[:SLICES]
    if not rows:
        return None
    noise = f"Noise of size at most {radius:g} ({style.norm_name(norm)})"
    with style.styled():
        figure = _draw(rows, noise)
    return figure, f"{noise} under {under(rows[0].attack)}, against each network by itself"


def _draw(rows: Sequence[Slice], title: str) -> Figure:
    from matplotlib.figure import Figure

    labels = [view.label for view in rows[0].views]
    sizes = [np.array(one.clean.shape) * SIDE / max(one.clean.shape) for one in rows]
    heights = [float(high) for high, _ in sizes]
    said = max(map(style.text_width, (*HEAD, "noise × 1000")))
    cell = max(*(float(wide) for _, wide in sizes), said)
    pair = max(2 * cell + GAP, *(style.text_width(label, weight="bold") for label in labels))
    lefts = [EDGE + cell + BETWEEN + number * (pair + BETWEEN) for number in range(len(labels))]
    keys = _key_rows(rows[0].classes, lefts[-1] + pair - EDGE)
    wide = max(lefts[-1] + pair, style.text_width(title, style.TITLE, "bold") + EDGE) + EDGE
    below = EDGE + KEY * len(keys)
    block = [NAME + 2 * (high + SAID) + APART for high in heights]
    figure = Figure(figsize=(wide, TITLE + HEADS + sum(block) + below))
    top = TITLE + HEADS + sum(block) + below
    look: dict[str, Any] = {"va": "baseline"}
    style.draw_text(figure, EDGE, top - 0.32, title, weight="bold", size=style.TITLE, **look)
    top -= TITLE
    for label, left in zip(labels, lefts, strict=True):
        middle = left + pair / 2
        style.draw_text(figure, middle, top - 0.16, label, weight="bold", ha="center", **look)
        rule = style.add_axes(figure, left, top - 0.24, pair, 0.01)
        rule.set_axis_off()
        rule.axhline(0.5, color=style.SOFT, linewidth=0.8)
    heads = [(EDGE + cell / 2, "truth")]
    for left in lefts:
        heads += [(left + (pair - GAP) / 4, HEAD[0]), (left + (3 * pair + GAP) / 4, HEAD[1])]
    for middle, text in heads:
        style.draw_text(figure, middle, top - 0.45, text, color=style.SOFT, ha="center", **look)
    top -= HEADS
    for one, high, space in zip(rows, heights, block, strict=True):
        _slice(figure, one, (top - NAME, high), [middle for middle, _ in heads])
        style.draw_text(figure, EDGE, top - 0.17, one.name, **look)
        top -= space
    _keys(figure, keys, below)
    return figure


def _slice(
    figure: Figure, one: Slice, place: tuple[float, float], middles: Sequence[float]
) -> None:
    """One slice: a row of labels on images, and below it one of images; top and height given."""
    top, high = place
    upper = [(compose(one.gray(one.clean), one.truth), "")]
    lower = [(compose(one.gray(one.clean)), "image")]
    for view in one.views:
        before, after, noise, noisy = one.composed(view)
        told = dice_told(view.dice_before), dice_told(view.dice_after)
        upper += [(before, f"Dice {told[0]}"), (after, f"Dice {told[1]}")]
        lower += [(noise, f"noise × {one.factor:g}"), (noisy, "noisy image")]
    for number, line in enumerate((upper, lower)):
        bottom = top - high - number * (high + SAID)
        for middle, (image, text) in zip(middles, line, strict=True):
            _image(figure, image, middle, bottom, high)
            look: dict[str, Any] = {"ha": "center", "va": "baseline"}
            colour = style.SOFT if number else style.INK
            style.draw_text(figure, middle, bottom - 0.16, text, color=colour, **look)


def _image(figure: Figure, image: Any, middle: float, bottom: float, high: float) -> None:
    wide = high * image.shape[1] / image.shape[0]
    axes = style.add_axes(figure, middle - wide / 2, bottom, wide, high)
    axes.imshow(image, aspect="auto", interpolation="antialiased")
    axes.set_axis_off()


def _key_rows(classes: Sequence[str], room: float) -> list[list[tuple[float, int, str]]]:
    """The classes' names in as many lines as it takes: (place in inches, label, name)."""
    lines: list[list[tuple[float, int, str]]] = [[]]
    x = 0.0
    for label, name in enumerate(classes, start=1):
        text = style.shortened(name, 40)
        width = 0.42 + style.text_width(text) + 0.25
        if lines[-1] and x + width > room:
            lines.append([])
            x = 0.0
        lines[-1].append((x, label, text))
        x += width
    return lines


def _keys(figure: Figure, lines: Sequence[Sequence[tuple[float, int, str]]], below: float) -> None:
    for number, line in enumerate(lines):
        y = below - KEY * (number + 1)
        for x, label, text in line:
            _image(figure, swatch(label), EDGE + x + 0.15, y, 0.175)
            style.draw_text(figure, EDGE + x + 0.38, y + 0.03, text, va="baseline")
