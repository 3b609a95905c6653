"""The strip of example images: for each method the clean image, the noise, and their sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ima.report import style
from ima.report.inputs import Array, ExampleRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

HEADS, CAPTION, BETWEEN, GAP = 0.26, 0.24, 0.1, 0.16  # inches


@dataclass(frozen=True)
class StripLayout:
    """Where everything goes, in inches.

    image_width, image_height: of one image.
    pitch: from one column to the next, wide enough for the predictions under the images.
    labels: width of the methods' names at the left.
    """

    image_width: float
    image_height: float
    pitch: float
    labels: float
    rows: int

    @property
    def width(self) -> float:
        """From the methods' names to the right edge of the last column."""
        return self.labels + 3 * self.pitch - GAP

    @property
    def height(self) -> float:
        """From the column heads to the last row's predictions."""
        return HEADS + self.rows * (self.image_height + CAPTION + BETWEEN) - BETWEEN


def plan_strip(clean: Array, rows: Sequence[ExampleRow], norm: str, side: float) -> StripLayout:
    """The layout for images whose longer side is `side` inches."""
    high, wide = clean.shape[:2]
    scale = side / max(high, wide)
    captions = [
        style.text_width(text, weight="bold")
        for row in rows
        for text in (
            _verdict(row.clean_prediction, "")[0],
            _verdict(row.noisy_prediction, "")[0],
            _radius(row, norm),
        )
    ]
    return StripLayout(
        image_width=wide * scale,
        image_height=high * scale,
        pitch=max(wide * scale, *captions) + GAP,
        labels=max(style.text_width(row.label, weight="bold") for row in rows) + 0.18,
        rows=len(rows),
    )


def side_for(height: float, rows: int) -> float:
    """The side of square images with which a strip is `height` inches high."""
    return (height - HEADS + BETWEEN) / rows - CAPTION - BETWEEN


def draw_strip(
    panel: Figure | SubFigure,
    strip: StripLayout,
    clean: Array,
    truth: str,
    rows: Sequence[ExampleRow],
    *,
    norm: str,
    left: float,
    top: float,
) -> None:
    """Draw into a panel, with the strip's upper left corner at inches from the lower left."""
    factor = noise_factor([row.noisy - clean for row in rows])
    cell = strip.pitch - GAP
    middles = [left + strip.labels + column * strip.pitch + cell / 2 for column in range(3)]
    centred: dict[str, Any] = {"ha": "center", "va": "baseline"}
    for middle, head in zip(middles, ("clean", f"noise × {factor:g}", "noisy"), strict=True):
        style.draw_text(panel, middle, top - HEADS + 0.09, head, color=style.SOFT, **centred)
    for number, row in enumerate(rows):
        bottom = top - HEADS - strip.image_height
        bottom -= number * (strip.image_height + CAPTION + BETWEEN)
        style.draw_text(
            panel,
            left,
            bottom + strip.image_height / 2,
            row.label,
            va="center",
            weight="bold",
        )
        noise = (0.5 + factor * (row.noisy - clean)).clip(0, 1)
        captions = [
            _verdict(row.clean_prediction, truth),
            (_radius(row, norm), style.INK, "normal"),
            _verdict(row.noisy_prediction, truth),
        ]
        for middle, image, (text, colour, weight) in zip(
            middles, (clean, noise, row.noisy), captions, strict=True
        ):
            corner = middle - strip.image_width / 2
            size = strip.image_width, strip.image_height
            axes = style.draw_image(panel, corner, bottom, *size, image, colour)
            if weight == "bold":
                axes.spines[:].set(linewidth=2.0)
            style.draw_text(
                panel, middle, bottom - CAPTION + 0.07, text, color=colour, weight=weight, **centred
            )


def noise_factor(noises: Sequence[Array]) -> float:
    """One round factor for all: nearly all of the noise then fills the gray scale."""
    sizes = np.abs(np.concatenate([noise.ravel() for noise in noises]))
    # Some noise sits in single pixels; the largest of them would leave the rest invisible.
    most = float(np.quantile(sizes, 0.995)) or float(sizes.max())
    return style.round_down(0.5 / most) if most > 0 else 1.0


def _verdict(prediction: str, truth: str) -> tuple[str, str, str]:
    if prediction == truth:
        return f"✓ {prediction}", style.RIGHT, "normal"
    return f"✗ {prediction}", style.WRONG, "bold"


def _radius(row: ExampleRow, norm: str) -> str:
    return f"ε = {row.eps:.4g} ({style.norm_name(norm)})"
