"""What the figures draw: checked arrays, and the small sums that belong to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Series:
    """A quality over a swept option, such as an accuracy.

    label: what is drawn, as shown; x: (N,), the option's values, increasing, N is 2 or more;
    accuracy: (N,), the qualities in 0..1, mean over seeds, NaN where not measured, at least one
    number; std: (N,), standard deviation over seeds, 0..1; None for one seed, NaN where unknown.
    level: the same quality of a method that has no such option, 0..1, NaN for none.
    """

    axis: ClassVar[tuple[str, str]] = ("x", "")

    label: str
    x: Array
    accuracy: Array
    std: Array | None = None
    level: float = math.nan

    def __post_init__(self) -> None:
        (axis, start), name = self.axis, f"{type(self).__name__.lower()} {self.label!r}"
        for part in ("x", "accuracy", *(["std"] if self.std is not None else [])):
            _set(self, part, _vector(f"{part} of {name}", getattr(self, part)))
        wrong = not np.all(np.isfinite(self.x)) or not np.all(np.diff(self.x) > 0)
        if self.x.size < 2 or wrong or (start and self.x[0] != 0):
            raise ValueError(
                f"{axis} of {name} is {self.x.tolist()}, expected two numbers or more, increasing"
                f"{start}"
            )
        for what, values in (("accuracies", self.accuracy), ("std", self.std)):
            if values is None:
                continue
            if values.shape != self.x.shape:
                raise ValueError(
                    f"{name} has {values.size} {what} for {self.x.size} {axis}; give one for each, "
                    "NaN where not measured"
                )
            _shares(f"{what} of {name}", values)
        if not np.any(np.isfinite(self.accuracy)):
            raise ValueError(f"{name} has no measured accuracy; leave the curve out")


@dataclass(frozen=True, eq=False)
class Curve(Series):
    """The quality of one method over the noise radius: x increases from 0, the clean image."""

    axis: ClassVar[tuple[str, str]] = ("eps", " from 0, the clean image")

    @property
    def eps(self) -> Array:
        """The noise radii, (N,)."""
        return self.x


@dataclass(frozen=True, eq=False)
class MarginHistory:
    """How many training samples had which margin, epoch by epoch.

    edges: (bins + 1,), the bins' borders, increasing, in units of the noise radius.
    epochs: (E,), increasing; gaps are allowed.
    counts: (E, bins), numbers of samples, 0 or more; an epoch of zeros is left blank.
    known: (E,), each epoch's median margin, NaN where it was not recorded; None for none.
    cap: the largest margin that training allows, infinite for none; None: the last edge.
    """

    edges: Array
    epochs: Array
    counts: Array
    known: Array | None = None
    cap: float | None = None

    @property
    def ceiling(self) -> float:
        """The cap as a number."""
        return float(self.edges[-1]) if self.cap is None else self.cap

    def __post_init__(self) -> None:
        for name in ("edges", "epochs"):
            values = _vector(name, getattr(self, name))
            _set(self, name, values)
            if not np.all(np.isfinite(values)) or not np.all(np.diff(values) > 0):
                raise ValueError(f"{name} is {values.tolist()}, expected increasing numbers")
        _set(self, "counts", np.asarray(self.counts, dtype=np.float64))
        expected = (self.epochs.size, self.edges.size - 1)
        if self.edges.size < 2 or self.epochs.size < 1 or self.counts.shape != expected:
            raise ValueError(
                f"counts has shape {self.counts.shape} for {self.epochs.size} epochs and "
                f"{self.edges.size} edges, expected (epochs, edges - 1) = {expected}, not empty"
            )
        if not np.all(np.isfinite(self.counts)) or self.counts.min() < 0:
            raise ValueError("counts holds negative or non-finite values, expected 0 or more")
        if not self.counts.any():
            raise ValueError("counts holds only zeros: there is no margin to show")
        if self.known is not None:
            _set(self, "known", _vector("known", self.known))
            if self.known.shape != self.epochs.shape:
                raise ValueError(
                    f"known has {self.known.size} values for {self.epochs.size} epochs"
                )

    def shares(self) -> Array:
        """(E, bins), each epoch's share of samples per bin in 0..1; NaN for an empty epoch."""
        totals = self.counts.sum(axis=1, keepdims=True)
        return np.divide(
            self.counts, totals, out=np.full_like(self.counts, np.nan), where=totals > 0
        )

    def medians(self) -> Array:
        """(E,), each epoch's median margin, linear within its bin where it was not recorded.

        Linear is wrong where many margins are equal, such as at the cap. NaN for an empty epoch.
        """
        medians = np.full(self.epochs.shape, np.nan)
        for row, shares in enumerate(self.shares()):
            if np.isfinite(shares[0]):
                below = np.concatenate([[0.0], np.cumsum(shares)])
                upper = int(np.argmax(below >= 0.5 - 1e-12))
                part = (0.5 - below[upper - 1]) / shares[upper - 1]
                step = self.edges[upper] - self.edges[upper - 1]
                medians[row] = self.edges[upper - 1] + part * step
        if self.known is None:
            return medians
        return np.where(np.isfinite(self.known) & np.isfinite(medians), self.known, medians)

    def last(self) -> int:
        """The row of the last epoch that has samples."""
        return int(np.flatnonzero(self.counts.sum(axis=1))[-1])


@dataclass(frozen=True, eq=False)
class ExampleRow:
    """One method's view of an image before and after noise.

    label: the method's name, as shown.
    eps: radius of the noise, above 0.
    noisy: the image with its noise, in 0..1, shaped as the clean one; the noise shown is
        noisy − clean, so what clamping took away is not shown.
    clean_prediction, noisy_prediction: names of the predicted classes.
    """

    label: str
    eps: float
    noisy: Array
    clean_prediction: str
    noisy_prediction: str

    def __post_init__(self) -> None:
        _set(self, "noisy", checked_image(f"noisy image of {self.label!r}", self.noisy))
        if not 0 < self.eps < np.inf:
            raise ValueError(f"eps of {self.label!r} is {self.eps!r}, expected a number above 0")


def checked_image(name: str, value: ArrayLike) -> Array:
    """An image (H, W) or (H, W, 3) with values in 0..1; rounding beyond that is clipped."""
    image = np.asarray(value, dtype=np.float64)
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or 0 in image.shape:
        raise ValueError(
            f"{name} has shape {image.shape}, expected (H, W) or (H, W, 3); "
            "move channels to the end, drop a single one"
        )
    if not np.all(np.isfinite(image)) or image.min() < -1e-4 or image.max() > 1 + 1e-4:
        low, high = image.min(), image.max()
        raise ValueError(
            f"{name} has values from {low:g} to {high:g}, expected 0 to 1; "
            "scale the image to its value range first"
        )
    return image.clip(0, 1)


def checked_example(clean: ArrayLike, rows: Sequence[ExampleRow]) -> Array:
    """The clean image, after a check that every row is about one of its shape."""
    image = checked_image("clean image", clean)
    if not rows:
        raise ValueError("rows is empty, expected one ExampleRow or more")
    for row in rows:
        if row.noisy.shape != image.shape:
            raise ValueError(
                f"noisy image of {row.label!r} has shape {row.noisy.shape}, "
                f"the clean image {image.shape}; they must agree"
            )
    return image


def checked_curves(curves: Sequence[Curve], levels: Sequence[float]) -> None:
    """Refuse an empty list, two curves of one name, and levels that are no radius."""
    if not curves:
        raise ValueError("curves is empty, expected one Curve or more")
    labels = [curve.label for curve in curves]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"several curves are labelled {twice}; give distinct labels")
    for level in levels:
        if not 0 <= level < np.inf:
            raise ValueError(f"levels holds {level!r}, expected noise radii, 0 or more")


def _set(holder: object, name: str, value: Array) -> None:
    object.__setattr__(holder, name, value)  # the dataclasses are frozen for everyone else


def _vector(name: str, value: ArrayLike) -> Array:
    vector = np.asarray(value, dtype=np.float64)
    if vector.ndim != 1:
        raise ValueError(f"{name} has shape {vector.shape}, expected one dimension")
    return vector


def _shares(name: str, values: Array) -> None:
    known = values[~np.isnan(values)]
    if known.size and (known.min() < 0 or known.max() > 1):
        raise ValueError(
            f"{name} has values from {known.min():g} to {known.max():g}, expected shares from "
            "0 to 1; divide percentages by 100"
        )
