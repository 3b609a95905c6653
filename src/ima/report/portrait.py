"""One trained method in the plane, and how far its margins are from the distances they estimate."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ima.files import read_arrays
from ima.report.inputs import Array

TOLERANCE = 0.001
"""Margins that are this much above the distance count as too large."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """One method in the plane; `ima.training.equilibrium.measure_run` explains the arrays."""

    label: str
    x: Array
    y: Array
    noisy: Array
    right: NDArray[np.bool_]
    margin: Array
    own: Array
    true: Array
    radius: float
    labels: Array
    truth: Array
    clean: float
    area: float

    @staticmethod
    def read(label: str, path: Path) -> Portrait:
        """The arrays of a run; ValueError for a file that lacks one of them."""
        found = read_arrays(path)
        names = [field.name for field in fields(Portrait)[1:]]
        if missing := sorted(set(names) - set(found)):
            raise ValueError(f"{path} lacks {', '.join(missing)}; delete it and measure again")
        arrays: dict[str, Any] = {name: found[name] for name in names}
        return Portrait(label, **{k: v if v.ndim else v.item() for k, v in arrays.items()})

    @property
    def estimates(self) -> bool:
        """Whether the method keeps a margin for every sample."""
        return not bool(np.isnan(self.margin).all())

    @property
    def reach(self) -> Array:
        """(N,), the noise radius of each sample: its margin, or the one radius for all, or NaN."""
        return self.margin if self.estimates else np.full(len(self.x), self.radius)

    @property
    def title(self) -> str:
        """The label, with the radius where there is one for all."""
        alone = not self.estimates and np.isfinite(self.radius)
        return f"{self.label}, radius {self.radius:g}" if alone else self.label

    def errors(self) -> Errors:
        """The errors of the samples that the network has right."""
        right = self.right
        reach, own, true = self.reach[right], self.own[right], self.true[right]
        return Errors(Error.of(reach, own), Error.of(reach, true), Error.of(own, true))


@dataclass(frozen=True)
class Error:
    """How estimates differ from distances, in the units of the square, whose side is 1.

    size: the mean absolute error; bias: the mean error, above 0 where estimates are too large;
    over: the share of estimates that are too large.
    """

    size: float
    bias: float
    over: float

    @staticmethod
    def of(estimate: Array, distance: Array) -> Error | None:
        """Of estimates (N,); None without any, and where a distance is infinite."""
        off = estimate - distance
        if not off.size or not np.isfinite(off).all():
            return None
        over = float((off > TOLERANCE).mean())
        return Error(float(np.abs(off).mean()), float(off.mean()), over)


@dataclass(frozen=True)
class Errors:
    """The errors of one method.

    own: of margins against distances to the network's own boundary; true: against those to the
    true boundary; boundary: of the own boundary's distances against the true one's.
    """

    own: Error | None
    true: Error | None
    boundary: Error | None
