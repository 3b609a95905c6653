"""Sizes of noise that a reader can feel: beside a radius, what it is for a single value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ima.evaluation.results import Results
from ima.evaluation.settings import Settings
from ima.norm_names import known_norm
from ima.report.style import norm_name

GREY = 255


@dataclass(frozen=True)
class NoiseSize:
    """Noise of at most a radius, for a single value of a sample.

    rms: the root of the mean square of its values, of the largest and of the smallest sample; None
    where it is not known; largest: that of one value; width: of the bounds, None without; unit,
    scale: what values are in outside the network.
    """

    eps: float
    rms: tuple[float, float] | None
    largest: float
    width: float | None
    unit: str
    scale: float

    @property
    def root(self) -> str:
        """The root mean square."""
        return _range(self.rms, 1)

    @property
    def grey(self) -> str:
        """The same in grey levels of 255."""
        return "" if not self.width else _range(self.rms, GREY / self.width)

    @property
    def own(self) -> str:
        """The same in the data's own unit."""
        return f"{told} {self.unit}" if self.unit and (told := _range(self.rms, self.scale)) else ""

    @property
    def psnr(self) -> str:
        """How far the bounds' width is above it, in decibels."""
        if not self.width or self.rms is None:
            return ""
        ends = {f"{20 * math.log10(self.width / rms):.1f}" for rms in self.rms if rms > 0}
        return " to ".join(sorted(ends, key=float)) + " dB"

    @property
    def single(self) -> str:
        """The largest change of a single value, in the most telling unit."""
        own = f" ({_number(self.largest * self.scale)} {self.unit})" if self.unit else ""
        return f"{_number(self.largest)}{own}"

    @property
    def short(self) -> str:
        """The root mean square in the most telling unit; empty where it is not known."""
        grey = f"{self.grey} of {GREY} grey levels" if self.grey else ""
        return self.own or grey or self.root


def size_of(eps: float, settings: Settings) -> NoiseSize | None:
    """The size of noise of a radius; None for a norm of a user's own."""
    norm = known_norm(settings.norm)
    if norm is None:
        return None
    width = settings.width
    rms = None
    if math.isinf(norm.order):
        rms = (eps, eps)
    elif settings.entries is not None and settings.entries[0] > 0:
        # Of the L1 norm this is the most: all of it in one value.
        few, most = settings.entries
        rms = (eps / math.sqrt(most), eps / math.sqrt(few))
    if width is not None:
        rms = rms and (min(rms[0], width), min(rms[1], width))
    largest = eps if width is None else min(eps, width)
    return NoiseSize(eps, rms, largest, width, settings.unit, settings.scale or 1.0)


def short(eps: float, settings: Settings) -> str:
    """A radius in a unit that a reader can feel; empty if unknown."""
    size = size_of(eps, settings)
    return size.short if size is not None else ""


def with_short(eps: float, settings: Settings) -> str:
    """A radius, and behind it what it is in a unit that a reader can feel."""
    felt = short(eps, settings)
    return f"{eps:.3g}" + (f" ({felt})" if felt else "")


def radius_told(eps: float, settings: Settings, more: str = " a value, root mean square") -> str:
    """A radius, in brackets its norm and what it is in a unit that a reader can feel."""
    felt = short(eps, settings)
    told = [norm_name(settings.norm), felt + more if felt else ""]
    return f"{eps:g} ({'; '.join(filter(None, told))})"


def felt(results: Results) -> str:
    """A line that says of every radius what it is for a single value; empty if unknown."""
    told = [(eps, short(eps, results.settings)) for eps in results.eps]
    said = "; ".join(f"{eps:g} is {text}" for eps, text in told if text)
    return f"noise, root mean square of a value: {said}" if said else ""


COLUMNS: Sequence[tuple[str, Callable[[NoiseSize], str]]] = (
    ("root mean square", lambda one: one.root),
    ("grey levels of 255", lambda one: one.grey),
    ("PSNR, at least", lambda one: one.psnr),
    ("in the data's unit", lambda one: one.own),
    ("largest single value", lambda one: one.single),
)


def size_rows(
    radii: Sequence[float], settings: Settings
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Heads and rows of a table of sizes, without columns that say nothing; no rows if unknown."""
    sizes = [size for eps in radii if (size := size_of(eps, settings)) is not None]
    columns = [(head, [get(size) for size in sizes]) for head, get in COLUMNS]
    columns = [(head, cells) for head, cells in columns if any(cells)]
    rows = zip([f"{size.eps:g}" for size in sizes], *(cells for _, cells in columns), strict=True)
    return ("size of noise", *(head for head, _ in columns)), tuple(rows)


def _range(rms: tuple[float, float] | None, factor: float) -> str:
    if rms is None:
        return ""
    return " to ".join(dict.fromkeys(_number(factor * one) for one in rms))


def _number(value: float) -> str:
    """A number with three digits, or all before the point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
