"""What a trained run looks like in the plane: margins beside the distances that they estimate.

predictions = f on a grid over the unit square
boundary points = bisection on every edge of the grid whose ends are predicted differently
own(i) = distance of sample i to the nearest boundary point
true(i) = distance of sample i to the data's true boundary, analytic
margin(i) = E(i) as the method kept it; noisy(i) = the sample that it would train on next

The nearest point of the boundary lies between two boundary points, in one cell of the grid. So
`own` is never too small, and too large by at most half a cell's diagonal, 0.0007, and that only for
a sample that lies almost on the boundary: at a distance d it is about 0.0000002 / d. What is
thinner than a cell can be missed.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree
from torch import Tensor, nn

from ima.attacks.inputs import no_trace
from ima.data import Part, plane
from ima.files import write_arrays
from ima.methods import Method
from ima.tasks import Classification
from ima.training.build import build_method, build_model, load_splits
from ima.training.checkpoint import load_state
from ima.training.config_errors import ConfigError
from ima.training.origin import made_at
from ima.training.run import Run
from ima.training.settings import Config
from ima.training.state import epochs_done

_SIDE = 1025
"""Points of the grid along a side of the unit square, so that a cell is 1/1024 wide."""

_ROUNDS = 12
"""Halvings of a grid's edge, down to the rounding of float32."""

_BATCH = 2**16

Array = NDArray[Any]
Predict = Callable[[Tensor], Tensor]
"""Points (N, 2), float32, to class numbers (N,)."""


def measure_run(run: Run) -> Path:
    """Measure a finished run on the data set `plane`; the arrays stay in its folder.

    Written to `equilibrium.npz`, of N training samples: `x` and `noisy` (N, 2), `y`, `right`,
    `margin` (NaN for methods without), `own` (infinite where one class is predicted everywhere)
    and `true` (N,); `radius`, where the method trains at one for all, else NaN; `labels`
    (1025, 1025), predicted classes, second coordinate first; `truth`, points of the true boundary;
    shares `clean`, of the test part that is right, and `area`, of the square that is wrong.

    Raises ConfigError for another data set, or a norm other than L2, FileNotFoundError before the
    run's first epoch is done.
    """
    config = run.config()
    check_plane(config)
    if not run.state.exists():
        raise FileNotFoundError(
            f"{run.folder} has no finished epoch; train it first: ima train --resume {run.folder}"
        )
    splits = load_splits(config)
    state = load_state(run.state)
    epochs_done(state, run.folder)
    # The last epoch's: margins belong to these weights, not to those that validation picked.
    model = build_model(config, splits)
    model.load_state_dict(state["model"])
    method = build_method(config, len(splits.train), augmented=False)
    method.load_state_dict(state["method"])

    x, y = splits.train[torch.arange(len(splits.train))]
    margin, radius = _margins(method, len(x))
    noisy = trained_on(method, model, splits.train)
    with no_trace(model, x) as inner, torch.no_grad():
        task = Classification()

        def predict(points: Tensor) -> Tensor:
            return torch.cat([task.predict(inner(part)) for part in points.split(_BATCH)])

        labels, points = crossings(predict)
        found = predict(x)
        tested, truth = splits.test[list(range(len(splits.test)))]
        clean = predict(tested) == truth
    arrays: dict[str, Array] = {
        "x": x.numpy(),
        "y": y.numpy(),
        "noisy": noisy.numpy(),
        "right": (found == y).numpy(),
        "margin": margin,
        "own": nearest_points(x.numpy(), points),
        "true": plane.distance(x.numpy()),
        "radius": np.array(radius),
        "labels": labels,
        "truth": plane.boundary(501),
        "clean": clean.double().mean().numpy(),
        "area": np.array(wrong_area(labels)),
    }
    path = run.folder / "equilibrium.npz"
    write_arrays(path, arrays)
    return path


def check_plane(config: Config) -> None:
    """Raise ConfigError unless the config is about the data set `plane` and noise in L2."""
    for key, value, expected in (
        ("data.name", config.data.name, "plane"),
        ("norm", config.norm, "L2"),
    ):
        if value != expected:
            raise ConfigError(
                f"{key} is {value!r}; the distances of this picture are known for {expected!r} only"
            )


def plane_origin(runs: Sequence[Run], overrides: Sequence[str] = ()) -> str:
    """Command, epochs, commit and versions of the runs behind a picture, in one paragraph.

    overrides: of the config, as they stand in the command.
    """
    config, found = runs[0].config(), [run.environment() for run in runs]
    words = shlex.join(["ima", "equilibrium", *overrides, "--seed", str(config.train.seed)])
    return (
        f"Made by `{words}`: {len(runs)} runs of {config.train.epochs} epochs under one recipe, "
        f"weights and margins of the last epoch, {made_at(found)}."
    )


def crossings(predict: Predict, side: int = _SIDE) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Predictions on a grid over the unit square, and points of the decision boundary.

    predict: see `Predict`; side: points of the grid along a side, at least 2. Returns classes
    (side, side), second coordinate first, and points (M, 2), one for each edge of the grid whose
    ends are of different classes, wherever the class changes on it; M is 0 where none are.
    """
    if side < 2:
        raise ValueError(f"side is {side}; expected at least 2 points")
    ticks = torch.linspace(0, 1, side)
    grid = torch.stack([ticks.repeat(side), ticks.repeat_interleave(side)], 1)
    labels = predict(grid)
    numbers = torch.arange(side * side).reshape(side, side)
    first = torch.cat([numbers[:, :-1].flatten(), numbers[:-1].flatten()])
    second = torch.cat([numbers[:, 1:].flatten(), numbers[1:].flatten()])
    across = labels[first] != labels[second]
    low, high, known = grid[first[across]], grid[second[across]], labels[first[across]]
    for _ in range(_ROUNDS if len(low) else 0):
        middle = (low + high) / 2
        same = (predict(middle) == known)[:, None]
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    points = ((low.double() + high.double()) / 2).numpy()
    return labels.reshape(side, side).numpy().astype(np.uint8), points


def nearest_points(x: Array, points: Array) -> NDArray[np.float64]:
    """The distance of each of x (N, 2) to the nearest of points (M, 2); infinite where M is 0."""
    if not len(points):
        return np.full(len(x), np.inf)
    return np.asarray(KDTree(points).query(x)[0], dtype=np.float64)


def wrong_area(labels: Array) -> float:
    """The share of the unit square whose class on a grid, (side, side), is not the true one."""
    ticks = np.linspace(0, 1, len(labels))
    across, up = np.meshgrid(ticks, ticks)
    true = plane.side(np.stack([across.ravel(), up.ravel()], 1)).reshape(labels.shape)
    return float(np.mean(labels != true))


def trained_on(method: Method, model: nn.Module, part: Part) -> Tensor:
    """The samples (N, 2) that the method would train on next, each in place of its own.

    They are what the model sees in the last of the method's passes in training mode; the clean
    samples themselves for standard training. The method's margins change.
    """
    x, y = part[torch.arange(len(part))]
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training:
            seen.append(inputs[0].detach().clone())

    hook = model.register_forward_pre_hook(look)
    try:
        model.train()
        method(model, x, y, torch.arange(len(x)))
    finally:
        hook.remove()
    return seen[-1]


def _margins(method: Any, count: int) -> tuple[NDArray[np.float64], float]:
    """The margins of `count` samples, and the radius that is one for all; NaN for what is not."""
    margins = getattr(method, "margins", None)
    if margins is not None:
        return margins.values.double().numpy().copy(), float("nan")
    return np.full(count, np.nan), float(getattr(method, "eps", "nan"))
