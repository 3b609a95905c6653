"""Slices under noise: the truth, and what networks predict without and with noise, in colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ima.files import read_arrays
from ima.measures import ABSENT
from ima.report.inputs import Array
from ima.report.strip import noise_factor

# Of Okabe and Ito's colours those that are bright enough to be seen on gray images.
COLOURS = {
    "#F0E442": "yellow",
    "#56B4E9": "blue",
    "#CC79A7": "pink",
    "#E69F00": "orange",
    "#009E73": "green",
}
"""Of the classes, apart for every colour vision; every second outline is dashed, for gray."""

NOWHERE = 255
"""The label of pixels outside an image that is smaller than others of its file."""

FILL, SIDE, DASH = 0.3, 300, 4
"""Opacity of the colours, least pixels of a picture's longer side, outline's widths in a dash."""

ROUNDING = 1e-3
"""Share of its range by which an image may differ between two networks: floats round."""

ARRAYS = {
    **dict.fromkeys(("clean", "noisy"), ("image", "f")),
    **dict.fromkeys(("truth", "predicted_clean", "predicted_noisy"), ("image", "u")),
    **dict.fromkeys(("id", "slice"), ("row", "iu")),
    **dict.fromkeys(("eps", "dice_clean", "dice_noisy"), ("row", "f")),
    **dict.fromkeys(("case", "attack"), ("row", "U")),
    "classes": ("class", "U"),
}
"""The arrays of an overlays.npz: what they hold one of, and the kind of numbers or text."""

Labels: TypeAlias = NDArray[np.uint8]
NamedOverlays: TypeAlias = tuple[str, Mapping[str, Any]]
"""A network's label, and the arrays of its overlays.npz."""


@dataclass(frozen=True, eq=False)
class SliceView:
    """What one network makes of a slice.

    noisy: (H, W), in the units of the clean one; before, after: (H, W), the predictions without and
    with noise; dice_before, dice_after: 0..1, of the predictions.
    """

    label: str
    noisy: Array
    before: Labels
    after: Labels
    dice_before: float
    dice_after: float


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice as networks see it, with noise of at most `eps` against each of them.

    name: case and slice; clean: (H, W), in any units; truth: (H, W); classes: of labels 1, 2, ...
    """

    name: str
    eps: float
    attack: str
    clean: Array
    truth: Labels
    classes: tuple[str, ...]
    views: tuple[SliceView, ...]

    @property
    def factor(self) -> float:
        """The round factor that makes the noise of all views visible."""
        return noise_factor([self.noise(view) for view in self.views])

    def noise(self, view: SliceView) -> Array:
        """(H, W), the noise against a network, on the image's gray scale of 0..1."""
        low, high = self._window()
        return (view.noisy - self.clean) / (high - low)

    def composed(self, view: SliceView) -> tuple[NDArray[np.uint8], ...]:
        """What is drawn of a view: both predictions, the noise enlarged, and the noisy image."""
        noise = (0.5 + self.factor * self.noise(view)).clip(0, 1)
        noisy, clean = self.gray(view.noisy), self.gray(self.clean)
        before, after = compose(clean, view.before), compose(noisy, view.after)
        return before, after, compose(noise), compose(noisy)

    def gray(self, image: Array) -> Array:
        """(H, W), the clean image or a noisy one on the gray scale of 0..1 that both share."""
        low, high = self._window()
        return ((image - low) / (high - low)).clip(0, 1)

    def _window(self) -> tuple[float, float]:
        # A few bright pixels would leave the rest dark.
        low, high = map(float, np.quantile(self.clean, (0.005, 0.995)))
        return (low, high) if high > low else (low - 0.5, low + 0.5)


def read_overlays(path: Path, classes: int) -> dict[str, Any]:
    """The arrays of an overlays.npz for so many classes; ValueError for any other file."""
    try:
        found = read_arrays(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}; evaluate the network again") from error
    if missing := sorted(set(ARRAYS) - set(found)):
        raise ValueError(f"{path} lacks {', '.join(missing)}; evaluate the network again")
    shape = found["clean"].shape
    shapes = {"image": shape, "row": shape[:1], "class": (classes,)}
    for name, (what, kinds) in ARRAYS.items():
        array = found[name]
        if len(shape) != 3 or array.shape != shapes[what] or array.dtype.kind not in kinds:
            raise ValueError(
                f"{path} is damaged: {name} is {array.dtype} of shape {array.shape} beside images "
                f"of shape {shape} and {classes} classes; evaluate the network again"
            )
    return found


def slice_radii(networks: Sequence[NamedOverlays]) -> list[float]:
    """The noise radii for which all networks have a slice in common, ascending."""
    known = sorted({float(eps) for _, found in networks for eps in found["eps"]})
    return [eps for eps in known if pick_slices(networks, eps)]


def pick_slices(networks: Sequence[NamedOverlays], eps: float, within: str = "") -> list[Slice]:
    """The slices that all networks keep at a radius, in the order of the first one's file.

    Only those of one image, under the same attack. within: said behind a slice's number, where it
    does not count in the case.
    """
    if not networks:
        return []
    places = [_places(found, eps) for _, found in networks]
    arrays = networks[0][1]
    shown: list[Slice] = []
    for (case, number), first in places[0].items():
        rows = [of_one[case, number] for of_one in places if (case, number) in of_one]
        inside = np.isfinite(arrays["clean"][first])
        if len(rows) < len(networks) or not inside.any():
            continue
        kept = [(label, found, row) for (label, found), row in zip(networks, rows, strict=True)]
        if all(_alike(arrays, first, found, row) for _, found, row in kept):
            shown.append(
                Slice(
                    f"{case}, slice {number}{within}" if number >= 0 else case,
                    eps,
                    str(arrays["attack"][first]),
                    _cut(arrays["clean"][first], inside).astype(np.float64),
                    _cut(arrays["truth"][first], inside),
                    tuple(map(str, arrays["classes"])),
                    tuple(_view(label, found, row, inside) for label, found, row in kept),
                )
            )
    return shown


def dice_told(value: float) -> str:
    """The Dice of a slice's sample."""
    return ABSENT if math.isnan(value) else f"{value:.2f}"


def compose(gray: Array, labels: Labels | None = None) -> NDArray[np.uint8]:
    """An image (H, W) in 0..1, enlarged by a whole number, with filled and outlined labels.

    Returns (S·H, S·W, 3); S is such that the longer side has 300 pixels or more.
    """
    scale = max(1, -(-SIDE // max(gray.shape)))
    rgb = np.repeat(_enlarged(gray, scale)[..., None], 3, axis=2) * 255.0
    thick = max(2, round(max(rgb.shape) / 120))
    if labels is not None:
        large = _enlarged(labels, scale)
        for label in sorted({int(one) for one in np.unique(labels)} - {0, NOWHERE}):
            mask = large == label
            colour = np.array(_rgb(label))
            rgb[mask] = (1 - FILL) * rgb[mask] + FILL * colour
            rgb[_outline(mask, thick, dashed=_dashed(label))] = colour
    return rgb.round().astype(np.uint8)


def swatch(label: int) -> NDArray[np.uint8]:
    """A patch of a foreground class as `compose` draws it on middle gray, (28, 48, 3)."""
    colour = np.array(_rgb(label))
    rgb = np.full((28, 48, 3), 127.5) * (1 - FILL) + FILL * colour
    rgb[_outline(np.ones((28, 48), dtype=np.bool_), 4, dashed=_dashed(label))] = colour
    return rgb.round().astype(np.uint8)


def colour_told(label: int) -> str:
    """The colour and the outline of a foreground class in words."""
    name = tuple(COLOURS.values())[(label - 1) % len(COLOURS)]
    return f"{name}, {'dashed' if _dashed(label) else 'solid'} outline"


def _rgb(label: int) -> tuple[int, ...]:
    return tuple(bytes.fromhex(tuple(COLOURS)[(label - 1) % len(COLOURS)][1:]))


def _dashed(label: int) -> bool:
    return label % 2 == 0


def _places(found: Mapping[str, Any], eps: float) -> dict[tuple[str, int], int]:
    rows = np.flatnonzero(np.isclose(found["eps"], eps))
    return {(str(found["case"][i]), int(found["slice"][i])): int(i) for i in rows}


def _alike(one: Mapping[str, Any], first: int, other: Mapping[str, Any], row: int) -> bool:
    """Whether two networks keep the same image, with noise of the same attack."""
    mine, others = one["clean"][first], other["clean"][row]
    inside = np.isfinite(mine)
    if str(one["attack"][first]) != str(other["attack"][row]):
        return False
    # Another preprocessing gives another image of the same slice.
    if not np.array_equal(inside, np.isfinite(others)):
        return False
    most = ROUNDING * float(np.ptp(mine[inside]))
    return bool(np.allclose(mine[inside], others[inside], atol=most))


def _view(label: str, found: Mapping[str, Any], row: int, inside: NDArray[np.bool_]) -> SliceView:
    return SliceView(
        label,
        _cut(found["noisy"][row], inside).astype(np.float64),
        _cut(found["predicted_clean"][row], inside),
        _cut(found["predicted_noisy"][row], inside),
        float(found["dice_clean"][row]),
        float(found["dice_noisy"][row]),
    )


def _cut(array: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[Any]:
    """The part of an array that is no padding."""
    return array[np.ix_(inside.any(1), inside.any(0))]


def _enlarged(array: NDArray[Any], scale: int) -> NDArray[Any]:
    return array.repeat(scale, axis=0).repeat(scale, axis=1)


def _outline(mask: NDArray[np.bool_], thick: int, *, dashed: bool) -> NDArray[np.bool_]:
    """The rim of a mask, inside of it, so that neighbours' outlines lie side by side."""
    inner = mask.copy()
    for _ in range(thick):
        wide = np.pad(inner, 1)
        inner = inner & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    rim = mask & ~inner
    if not dashed:
        return rim
    rows, columns = np.indices(mask.shape) // (DASH * thick)
    return rim & ((rows + columns) % 2 == 0)
