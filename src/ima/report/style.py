"""How the figures look: one style, one palette, and the names of norms and numbers in them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ima.norm_names import known_norm
from ima.report.inputs import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

INK, SOFT, FAINT = "#22262B", "#5F6770", "#DDE1E5"
RIGHT, WRONG = "#00629B", "#A84300"  # blue and brown-orange: apart for every colour vision

# The first four are Okabe and Ito's, darkened until text in them can be read on white.
# Markers and dashes repeat what the colour says, for grayscale prints; their numbers share no
# factor, so that 36 curves differ without colour.
COLOURS = (
    *("#0072B2", "#C24E00", "#007D5A", "#B04A88", "#4A4F55", "#5A2D0C", "#8E4FE0"),
    *("#009FB0", "#0A0A50"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h", "<")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))

BODY, SMALL, TITLE = 10.0, 8.5, 12.5  # type sizes in points

STYLE: dict[str, Any] = {
    # DejaVu Sans comes with matplotlib; where an SVG's reader lacks it, Verdana is as wide.
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": BODY,
    "text.parse_math": False,  # a class may be called "$5 note"
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.labelsize": BODY,
    "axes.labelpad": 5.0,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": BODY,
    "ytick.labelsize": BODY,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "ima",
}


def styled() -> Any:
    """A context with matplotlib's defaults and this style, whatever the user has set up."""
    from matplotlib import style

    return style.context(["default", STYLE])


def line_look(number: int) -> dict[str, Any]:
    """How line number `number` of a chart is drawn, apart from the others; the first on top."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
        "clip_on": False,
        "zorder": 20 - min(number, 15),
    }


def norm_name(norm: str) -> str:
    """The norm as readers know it: "2" or "l2" is L₂, "inf" or "linf" is L∞, others stay."""
    known = known_norm(norm)
    return norm if known is None else known.label


def add_axes(panel: Figure | SubFigure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the panel's lower left corner."""
    wide, high = panel_size(panel)
    return panel.add_axes((x / wide, y / high, width / wide, height / high))


def draw_image(
    panel: Figure | SubFigure,
    x: float,
    y: float,
    width: float,
    height: float,
    image: Array,
    colour: str,
) -> Axes:
    """An image (H, W) or (H, W, 3) of values 0..1 in a frame, at a place given in inches."""
    axes = add_axes(panel, x, y, width, height)
    # Few pixels stay squares; many are averaged, which keeps fine lines.
    smooth = "nearest" if max(image.shape[:2]) <= 64 else "antialiased"
    axes.imshow(image, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation=smooth)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=colour, linewidth=0.8)
    return axes


def draw_text(panel: Figure | SubFigure, x: float, y: float, text: str, **look: Any) -> None:
    """Text at a place given in inches from the panel's lower left corner."""
    wide, high = panel_size(panel)
    panel.text(x / wide, y / high, text, **look)


def panel_size(panel: Figure | SubFigure) -> tuple[float, float]:
    """Width and height of a panel in inches."""
    return panel.bbox.width / panel.dpi, panel.bbox.height / panel.dpi


def inches(axes: Axes) -> tuple[float, float]:
    """Width and height of axes in inches."""
    box, dpi = axes.bbox, axes.figure.dpi
    return box.width / dpi, box.height / dpi


def round_down(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is at most a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(step for step in (0.5, 1, 2, 5, 10) if step * power <= value * (1 + 1e-9)) * power


def round_up(value: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least a positive value."""
    return 1 / round_down(1 / value)


def text_width(text: str, points: float = BODY, weight: str = "normal") -> float:
    """Width of a line of text in inches, within a few percent."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with styled():
        font = FontProperties(family="sans-serif", size=points, weight=weight)
        return float(text_to_path.get_text_width_height_descent(text, font, False)[0]) / 72


def shortened(text: str, most: int = 24) -> str:
    """The text, with an ellipsis for its middle where it is longer than `most` characters."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - half]}…{text[-half:]}"


def spread(wanted: Array, gap: float, top: float) -> Array | None:
    """Positions in 0..top, at least `gap` apart and as near as can be to those wanted.

    Returns None where they do not fit.
    """
    order = np.argsort(wanted, kind="stable")
    room = top - gap * (len(wanted) - 1)
    if room < 0:
        return None
    # Pool adjacent violators: the least-squares order-keeping fit to wanted - gap * rank.
    blocks: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        mean, count = float(wanted[index]) - gap * rank, 1
        while blocks and blocks[-1][0] > mean:
            before, others = blocks.pop()
            mean = (before * others + mean * count) / (others + count)
            count += others
        blocks.append((mean, count))
    fitted = np.concatenate([np.full(count, mean) for mean, count in blocks]).clip(0, room)
    places = np.empty(len(wanted))
    places[order] = fitted + gap * np.arange(len(wanted))
    return places
