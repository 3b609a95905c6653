"""What people state of an evaluation, for its page: whose it is, names, a limit, the data's unit.

Readable without torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ima.measures import Measure


@dataclass(frozen=True)
class Stated:
    """What is stated; empty or None: nothing.

    >>> import ima
    >>> from ima.measures import ACCURACY
    >>> stated = ima.Stated(author="J. Doe", require=("0.5:70",))
    >>> stated.settings(ACCURACY, ("cat", "dog"), [0.5])
    {'author': 'J. Doe', 'require': ((0.5, 0.7),)}

    Parameters
    ----------
    title: text
        For the page: its title.
    author: text
        For the page: who answers for it.
    purpose: text
        For the page: what the network is for, and who is to read this.
    classes: texts
        Names of the classes in the order of their numbers, such as cat dog; in segmentation without
        the background. Default: the data's.
    positive: text
        Of two classes the one that is looked for: its accuracy is the sensitivity.
    require: texts
        Limits, such as 0.5:70: at least 70 % right with noise of size 0.5; 0:95 without noise.
        Where one is missed, the exit code is 4. A Dice is 0 to 1, as in 0.5:0.8.
    unit: text
        What values of the data are in outside the network, such as HU.
    scale: number above 0
        How many of that unit are 1 in the network's inputs. Default: 1.

    """

    title: str = ""
    author: str = ""
    purpose: str = ""
    classes: tuple[str, ...] = ()
    positive: str = ""
    require: tuple[str, ...] = ()
    unit: str = ""
    scale: float | None = None

    def settings(
        self, measure: Measure, classes: Sequence[str], eps: Sequence[float]
    ) -> dict[str, Any]:
        """The settings that say it, by name; ValueError for what does not fit the evaluation.

        measure: of it; classes: their names where nothing else is stated; eps: its noise radii.
        """
        _check_classes(self.classes, classes)
        names = self.classes or tuple(classes)
        if self.positive:
            _check_positive(self.positive, measure, names)
        scale = self.scale
        if scale is not None and not (self.unit and 0 < scale < math.inf):
            raise ValueError(
                f"--scale is {scale:g}; expected a number above 0, beside --unit, such as --unit "
                "HU --scale 2000"
            )
        found = {
            "title": self.title,
            "author": self.author,
            "purpose": self.purpose,
            "classes": self.classes,
            "positive": self.positive,
            "require": tuple(limit(text, measure, eps) for text in self.require),
            "unit": self.unit,
            "scale": (scale or 1.0) if self.unit else None,
        }
        return {name: value for name, value in found.items() if value}


NOTHING = Stated()
"""Nothing is stated."""


def limit(text: str, measure: Measure, eps: Sequence[float]) -> tuple[float, float]:
    """A limit as a noise radius and the least quality there, 0 to 1; ValueError for other text."""
    unit = "percent" if measure.percent else "0 to 1"
    example = "0.5:70" if measure.percent else "0.5:0.8"
    at, _, least = text.partition(":")
    try:
        radius, value = float(at), float(least.removesuffix("%"))
    except ValueError as error:
        raise ValueError(
            f"--require is {text!r}; expected SIZE:LEAST, a size of noise and the least "
            f"{measure.name} with it, {unit}, such as {example}"
        ) from error
    low, high = (1, 100) if measure.percent else (0, 1)
    # A share below 1 % is no limit, but a percentage that was written as a share.
    if not (low < value <= high or value == high):
        raise ValueError(
            f"--require is {text!r}: the {measure.name} is asked for as {value:g}, but it is "
            f"{'percent, above 1 and' if measure.percent else 'above 0 and'} at most {high}, such "
            f"as {example}"
        )
    known = [0.0, *eps]
    if not any(math.isclose(radius, one, rel_tol=1e-5, abs_tol=1e-8) for one in known):
        raise ValueError(
            f"--require names noise of size {radius:g}, which was not tried: the sizes are "
            f"{', '.join(f'{one:g}' for one in known)}; say one of them, or evaluate with "
            f"--eps {radius:g} too"
        )
    return radius, value / high


def _check_classes(names: Sequence[str], known: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"--classes are {' '.join(names)}; expected a name of its own for each")
    if names and known and len(names) != len(known):
        raise ValueError(
            f"--classes are {len(names)} names ({', '.join(names)}) for {len(known)} classes "
            f"({', '.join(known)}); expected one for each, in the order of their numbers"
        )


def _check_positive(name: str, measure: Measure, names: Sequence[str]) -> None:
    if measure.column or not measure.binary or len(names) != 2:
        what = f"{len(names)} {measure.parts}" if names else f"{measure.parts} without names"
        raise ValueError(
            f"--positive is {name!r}, but there are {what}; it belongs to two classes, of which "
            "each sample has one: leave it out, or name both with --classes"
        )
    if name not in names:
        raise ValueError(f"--positive is {name!r}; the classes are {' and '.join(names)}")
