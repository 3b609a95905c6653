"""Points in a plane with two classes whose true boundary is known: a wave made of arcs.

The boundary runs from the left to the right edge of the unit square: down from half a crest,
through a trough, up to half a crest, smooth where the arcs meet. Either class has equally many
points along every stretch of it, at distances between a gap, which widens from left to right, and
`REACH`: so margins differ between samples.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ima.data.base import Part, Splits

SOURCE = "-"
SUMMARY = "Points in the unit square, two classes whose true boundary is known, for pictures."
WHERE = "Nothing to get: the points are drawn by the seed."

TRAIN, VAL, TEST = 200, 200, 1000

HALF, DEPTH = 0.25, 0.12
"""Half of an arc's chord, and how far the arc's centre lies behind the chord."""
RADIUS = float(np.hypot(HALF, DEPTH))

GAP, REACH = (0.02, 0.08), 0.2
"""Smallest distance of samples to the boundary, at the left and right edge, and the largest."""

Points = NDArray[np.float64]


def load(path: str | Path | None = None, *, size: int | None = None, seed: int = 0) -> Splits:
    """Draw the points by `seed`: 200 / 200 / 1000, half of them of either class.

    Samples are (2,), float32 in [0, 1]; class 1 lies above the boundary. Raises `ValueError` for a
    path or a size.
    """
    for key, given in (("path", path), ("size", size)):
        if given is not None:
            raise ValueError(
                f"data set 'plane' got the {key} {str(given)!r}, but is drawn by the seed; "
                f"leave data.{key} out"
            )
    rng = np.random.default_rng(seed)
    train, val, test = (_draw(rng, count) for count in (TRAIN, VAL, TEST))
    return Splits(
        name="plane",
        train=train,
        val=val,
        test=test,
        classes=("below", "above"),
        note=f"Drawn with seed {seed}; the distance of every point to the true boundary is known.",
    )


def distance(points: ArrayLike) -> Points:
    """The distance of points (N, 2) in the unit square to the true boundary, (N,).

    It is also the smallest noise, in L2, that takes a point across without leaving the square.
    Raises `ValueError` for another shape.
    """
    x, y = _checked(points).T
    # By symmetry, the right half of the square is like the left one.
    x = np.minimum(x, 1 - x)
    return np.minimum(_to_arc(x, y - 0.5), _to_arc(0.5 - x, 0.5 - y))


def side(points: ArrayLike) -> NDArray[np.int64]:
    """The true class of points (N, 2) in the unit square, (N,): 1 above the boundary, else 0.

    Raises `ValueError` for another shape.
    """
    x, y = _checked(points).T
    return (y > _height(x)).astype(np.int64)


def boundary(count: int) -> Points:
    """`count` points of the true boundary from left to right, (count, 2), for drawing."""
    x = np.linspace(0, 1, count)
    return np.stack([x, _height(x)], axis=1)


def _to_arc(x: Points, y: Points) -> Points:
    """The distance to half a crest, from (0, RADIUS - DEPTH) to (HALF, 0), for x of 0 and more."""
    y = y + DEPTH
    # Seen from the arc's centre: where no point of it is straight ahead, its lower end is nearest.
    # What lies nearer to its upper end is not in the square.
    ahead = DEPTH * x <= HALF * y
    return np.where(ahead, np.abs(np.hypot(x, y) - RADIUS), np.hypot(x - HALF, y - DEPTH))


def _height(x: Points) -> Points:
    """The boundary's second coordinate over its first, (N,)."""
    x = np.minimum(x, 1 - x)
    crest = x <= HALF
    rise = np.sqrt(RADIUS**2 - np.where(crest, x, 0.5 - x) ** 2) - DEPTH
    return 0.5 + np.where(crest, rise, -rise)


def _draw(rng: np.random.Generator, count: int) -> Part:
    """The points of a part, as far from the boundary's points as drawn, along its normals."""
    label = np.arange(count) % 2
    angle = rng.uniform(-1, 1, count) * np.arctan2(HALF, DEPTH)
    crest = rng.random(count) < 0.5
    across = np.where(crest, np.where(angle < 0, 1.0, 0.0), 0.5)
    up = np.where(crest, 1.0, -1.0)
    # Where on the boundary the point belongs decides how wide the gap is.
    gap = GAP[0] + (GAP[1] - GAP[0]) * (across + RADIUS * np.sin(angle))
    away = gap + (REACH - gap) * rng.random(count)
    # Outwards, where the point is above a crest or below a trough.
    radius = RADIUS + np.where(crest == (label == 1), away, -away)
    x = across + radius * np.sin(angle)
    y = 0.5 + up * (radius * np.cos(angle) - DEPTH)
    points = np.stack([x, y], axis=1).astype(np.float32)
    return Part(torch.from_numpy(points), torch.from_numpy(label))


def _checked(points: ArrayLike) -> Points:
    given = np.asarray(points, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] != 2:
        raise ValueError(f"points have shape {given.shape}, expected (N, 2)")
    return given
