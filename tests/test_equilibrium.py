"""The plane, its true boundary, what is measured there, and the command that draws it."""

from __future__ import annotations

import csv
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import load_weights
from torch import Tensor, nn

from ima.cli.equilibrium import equilibrium
from ima.data import load, plane
from ima.measures import ABSENT
from ima.methods import IMA, MMA, SAT, Standard
from ima.networks import build
from ima.report.equilibrium import equilibrium_table, picture, write_equilibrium
from ima.report.portrait import Error, Portrait
from ima.tasks import Classification
from ima.training.checkpoint import load_state
from ima.training.config import load_config
from ima.training.config_errors import ConfigError
from ima.training.equilibrium import crossings, measure_run, nearest_points, trained_on, wrong_area
from ima.training.run import Run

# --- The plane ------------------------------------------------------------------------------------


def test_distances_are_those_of_a_dense_polyline() -> None:
    points = np.random.default_rng(0).random((500, 2))
    points[:4] = [[0, 0], [1, 1], [0, 1], [0.5, 0.5]]
    curve = plane.boundary(20_001)
    slow = np.array([np.hypot(*(curve - point).T).min() for point in points])
    np.testing.assert_allclose(plane.distance(points), slow, atol=2e-6)


def test_distances_by_hand() -> None:
    # The arcs' centres; where the arcs meet; crest and trough.
    radius = (0.25**2 + 0.12**2) ** 0.5
    there = {
        (0.0, 0.5 - 0.12): radius,
        (0.5, 0.5 + 0.12): radius,
        (0.25, 0.5): 0.0,
        (0.75, 0.5): 0.0,
        (0.0, 0.5 + radius - 0.12): 0.0,
        (0.5, 0.5 - radius + 0.12): 0.0,
        (1.0, 0.5): radius - 0.12,
        (0.5, 0.1): 0.4 + 0.12 - radius,
    }
    np.testing.assert_allclose(plane.distance([*there]), [*there.values()], atol=1e-12)


def test_the_boundary_separates_the_sides() -> None:
    curve, up = plane.boundary(101), np.array([0, 1e-9])
    assert plane.side(curve + up).all()
    assert not plane.side(curve - up).any()
    np.testing.assert_allclose(plane.distance(curve), 0, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 7])
def test_samples_lie_where_they_are_said_to(seed: int) -> None:
    splits = load("plane", seed=seed)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [200, 200, 1000]
    for part in (splits.train, splits.val, splits.test):
        x, y = part.images.numpy(), part.targets.numpy()
        assert part.images.dtype == torch.float32
        assert part.images.shape[1:] == (2,)
        assert np.bincount(y).tolist() == [len(y) / 2] * 2
        np.testing.assert_array_equal(plane.side(x), y)
        away = plane.distance(x)
        assert 0.02 - 1e-6 < away.min() < 0.04
        assert 0.19 < away.max() < 0.2 + 1e-6
        # The gap widens: it is 0.065 where the boundary has come three quarters of its way.
        assert away[x[:, 0] > 0.95].min() > 0.065


def test_either_class_has_as_many_samples_along_every_stretch() -> None:
    part = load("plane").test
    x, y = part.images.numpy(), part.targets.numpy()
    curve = plane.boundary(401)
    foot = np.array([curve[np.hypot(*(curve - point).T).argmin(), 0] for point in x])
    for low in (0, 0.25, 0.5, 0.75):
        here = y[(foot >= low) & (foot < low + 0.25)]
        assert len(here) > 150
        assert abs(here.mean() - 0.5) < 0.12  # three standard deviations of 150 tosses


def test_the_seed_decides() -> None:
    one, same, other = (load("plane", seed=seed).train.images for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("key", "value"), [("path", "somewhere"), ("size", 16)])
def test_a_path_or_a_size_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"'{value}'.*leave data\.{key} out"):
        load("plane", **{key: value})


@pytest.mark.parametrize("function", [plane.distance, plane.side])
def test_points_of_another_shape_are_refused(function: Any) -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(N, 2\)"):
        function([0.1, 0.2, 0.3])


def test_mlp_is_as_large_as_it_says_and_refuses_images() -> None:
    model = build("mlp", 2, 3, width=5, depth=2)
    assert sum(p.numel() for p in model.parameters()) == (2 + 1) * 5 + (5 + 1) * 5 + (5 + 1) * 3
    assert model(torch.rand(4, 2)).shape == (4, 3)
    for shape in [(4, 3), (4, 2, 8, 8), (4,)]:
        with pytest.raises(ValueError, match=r"expected \(B, 2\): mlp takes vectors"):
            model(torch.rand(shape))
    for option in ("width", "depth"):
        with pytest.raises(ValueError, match=f"{option} is 0; expected at least 1"):
            build("mlp", 2, 3, **{option: 0})


# --- The network's own boundary -------------------------------------------------------------------


def random_points(count: int) -> np.ndarray:
    return np.random.default_rng(1).random((count, 2))


def test_the_boundary_of_a_linear_network() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        model.bias.copy_(torch.tensor([0.0, -3.3]))
        labels, points = crossings(lambda x: model(x).argmax(1))
    assert labels.shape == (1025, 1025)
    np.testing.assert_allclose(points @ [3, 4], 3.3, atol=5e-6)
    x = random_points(300)
    signed = (x @ [3, 4] - 3.3) / 5
    foot = x - signed[:, None] * [0.6, 0.8]
    inside = ((foot > 0) & (foot < 1)).all(1)
    assert 100 < inside.sum() < 300
    found = nearest_points(x, points)
    np.testing.assert_allclose(found[inside], np.abs(signed[inside]), atol=7e-4)
    # Where the foot is outside the square, the nearest point is an end of the line in it.
    assert (found[~inside] > np.abs(signed[~inside])).all()
    corners = labels[0, 0], labels[0, -1], labels[-1, 0], labels[-1, -1]
    assert corners == (0, 0, 1, 1)  # 3 < 3.3 < 4: the second coordinate comes first


@pytest.mark.parametrize("side", [1025, 65])
def test_the_boundary_of_a_circular_network(side: int) -> None:
    centre, radius = torch.tensor([0.43, 0.52]), 0.217

    def predict(x: Tensor) -> Tensor:
        return ((x - centre).norm(dim=1) < radius).long()

    labels, points = crossings(predict, side)
    assert labels.mean() == pytest.approx(np.pi * radius**2, abs=2 / side)
    x = random_points(400)
    true = np.abs(np.hypot(*(x - centre.numpy()).T) - radius)
    over = nearest_points(x, points) - true
    cell = 1 / (side - 1)
    assert over.min() > -1e-6
    assert over.max() < cell / 2**0.5
    # Half a cell's diagonal along the circle, seen from a distance: Pythagoras, and the curvature.
    far = true > 0.1
    assert (over[far] < 1.1 * cell**2 / 4 * (1 / true[far] + 1 / radius) + 1e-6).all()


def test_a_boundary_is_found_wherever_a_class_changes() -> None:
    # Three stripes: two boundaries, and the nearest one counts.
    _, points = crossings(lambda x: (x[:, 0] > 0.31).long() + (x[:, 0] > 0.62).long(), 129)
    assert len(points) == 2 * 129
    x = np.array([[0.1, 0.5], [0.4, 0.5], [0.6, 0.5], [0.9, 0.5]])
    np.testing.assert_allclose(nearest_points(x, points), [0.21, 0.09, 0.02, 0.28], atol=1e-3)


def test_one_class_everywhere_has_no_boundary() -> None:
    labels, points = crossings(lambda x: torch.ones(len(x), dtype=torch.long), 9)
    assert (labels == 1).all()
    assert points.shape == (0, 2)
    assert np.isinf(nearest_points(random_points(3), points)).all()


def test_a_grid_of_one_point_is_refused() -> None:
    with pytest.raises(ValueError, match="side is 1; expected at least 2"):
        crossings(lambda x: x[:, 0].long(), 1)


def test_wrong_area() -> None:
    ticks = np.linspace(0, 1, 101)
    grid = np.stack([a.ravel() for a in np.meshgrid(ticks, ticks)], 1)
    true = plane.side(grid).reshape(101, 101)
    assert wrong_area(true) == 0
    assert wrong_area(1 - true) == 1
    # The wave has as much above the middle as below: crests and troughs are alike.
    half = (ticks > 0.5)[:, None].repeat(101, 1)
    x = np.linspace(0, 1, 10_001)
    between = np.abs(plane.boundary(10_001)[:, 1] - 0.5)
    assert wrong_area(half) == pytest.approx(np.trapezoid(between, x), abs=0.01)


# --- What a method would train on next ------------------------------------------------------------


@pytest.fixture
def trained() -> nn.Module:
    """A small network that is right on most of the plane's training samples."""
    part = load("plane").train
    model = build("mlp", 2, 2, width=16, depth=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(part.images), part.targets).backward()
        optimizer.step()
    return model


def test_the_noisy_samples_are_the_methods_own(trained: nn.Module) -> None:
    part = load("plane").train
    x, y = part.images, part.targets
    shared: dict[str, Any] = {"norm": 2, "bounds": (0, 1), "steps": 10}
    right = Classification().correct(trained(x), y)
    assert int(right.sum()) >= 180

    assert torch.equal(trained_on(Standard(), trained, part), x)

    away = (trained_on(SAT(eps=0.1, **shared), trained, part) - x).norm(dim=1)
    assert float(away.max()) == pytest.approx(0.1, abs=1e-6)

    ima = IMA(num_samples=200, eps=0.5, delta=0.05, **shared)
    noisy = trained_on(ima, trained, part)
    away = (noisy - x).norm(dim=1)
    assert (away <= 0.05 + 1e-6).all()
    assert (Classification().correct(trained(noisy), y) == right).all()
    assert torch.equal(noisy[~right], x[~right])

    mma = MMA(num_samples=200, eps=0.5, random_start=False, **shared)
    noisy = trained_on(mma, trained, part)
    # Ten halvings of 1.05 eps: the boundary is that near, on either side.
    chosen = right & (mma.margins.values < 0.4)
    assert int(chosen.sum()) > 150
    step = (noisy - x)[chosen]
    step *= (1.05 * 0.5 / 2**9) / step.norm(dim=1, keepdim=True)
    before, behind = trained(noisy[chosen] - step), trained(noisy[chosen] + step)
    assert (Classification().correct(before, y[chosen])).all()
    assert not Classification().correct(behind, y[chosen]).any()
    assert not trained._forward_pre_hooks


# --- Numbers and pictures -------------------------------------------------------------------------


def portrait(**changes: Any) -> Portrait:
    """Four samples, the last of which the network has wrong."""
    labels = np.zeros((33, 33), dtype=np.uint8)
    labels[17:] = 1
    x = np.array([[0.2, 0.2], [0.4, 0.3], [0.6, 0.7], [0.8, 0.8]])
    plain = Portrait(
        label="IMA",
        x=x,
        y=np.array([0, 0, 1, 0]),
        noisy=x + np.array([[0, 0.1], [0, 0.1], [0, -0.1], [0, 0]]),
        right=np.array([True, True, True, False]),
        margin=np.array([0.10, 0.2005, 0.30, 0.9]),
        own=np.array([0.12, 0.20, 0.20, 0.1]),
        true=np.array([0.10, 0.21, 0.31, 0.1]),
        radius=float("nan"),
        labels=labels,
        truth=plane.boundary(50),
        clean=0.75,
        area=0.125,
    )
    return replace(plain, **changes)


def test_errors_by_hand() -> None:
    errors = portrait().errors()
    # Of the three that are right: -0.02, 0.0005, 0.1; 0, -0.0095, -0.01; 0.02, -0.01, -0.11.
    assert errors.own is not None and errors.true is not None and errors.boundary is not None
    assert errors.own.size == pytest.approx(0.1205 / 3)
    assert errors.own.bias == pytest.approx(0.0805 / 3)
    assert errors.own.over == pytest.approx(1 / 3)
    assert errors.true.size == pytest.approx(0.0195 / 3)
    assert errors.true.bias == pytest.approx(-0.0195 / 3)
    assert errors.true.over == 0
    assert errors.boundary.size == pytest.approx(0.14 / 3)


def test_one_radius_for_all_is_its_margin() -> None:
    sat = portrait(label="SAT", margin=np.full(4, np.nan), radius=0.25)
    assert not sat.estimates
    assert sat.title == "SAT, radius 0.25"
    true = sat.errors().true
    assert true is not None
    assert true.bias == pytest.approx((0.15 + 0.04 - 0.06) / 3)


def test_what_cannot_be_told_is_absent() -> None:
    standard = portrait(label="Standard", margin=np.full(4, np.nan))
    constant = portrait(label="Constant", own=np.full(4, np.inf))
    fooled = portrait(label="Fooled", right=np.zeros(4, dtype=bool))
    rows = {row[0]: row[4:] for row in equilibrium_table([standard, constant, fooled], "").rows}
    assert rows["Standard"][:5] == (ABSENT,) * 5
    assert rows["Standard"][5] != ABSENT
    assert [cell == ABSENT for cell in rows["Constant"]] == [True] * 3 + [False] * 2 + [True]
    assert rows["Fooled"] == (ABSENT,) * 6
    assert Error.of(np.zeros(0), np.zeros(0)) is None


def test_the_page_has_the_numbers(tmp_path: Path) -> None:
    constant = np.ones((33, 33), dtype=np.uint8)
    sat = portrait(label="SAT", margin=np.full(4, np.nan), radius=0.25)
    flat = replace(sat, label="Flat", own=np.full(4, np.inf), labels=constant)
    standard = portrait(label="Standard", margin=np.full(4, np.nan))
    text = write_equilibrium(tmp_path, [standard, sat, flat, portrait()], "A note.", ["A remark."])
    for suffix in ("png", "svg"):
        assert (tmp_path / f"equilibrium.{suffix}").stat().st_size > 10_000
    page = (tmp_path / "equilibrium.md").read_text()
    for said in ("A note.", "0.0402", "+0.0268", "33.3%", "3 of 4", "75.0", "87.5"):
        assert said in text and said.replace("%", "") in page.replace("\\", "")
    assert "A remark." in page
    with (tmp_path / "equilibrium.csv").open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert float(rows["IMA"]["own: error"]) == pytest.approx(0.1205 / 3)
    assert float(rows["IMA"]["area"]) == 0.875
    assert (rows["IMA"]["right"], rows["IMA"]["samples"]) == ("3", "4")
    assert rows["Standard"]["own: error"] == ""
    assert not list(tmp_path.glob("*.part"))


def test_a_picture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="portraits is empty"):
        picture([])


def test_a_file_without_an_array_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "equilibrium.npz", x=np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"lacks area, clean, .*measure again"):
        Portrait.read("IMA", tmp_path / "equilibrium.npz")


# --- The command ----------------------------------------------------------------------------------

TINY = (
    "network={name: mlp, width: 8, depth: 1}",
    "train={epochs: 2, batch_size: 100}",
    "evaluate={attacks: [pgd-1], eps: [0.05]}",
    "compare=[{label: IMA, method: {name: ima, eps: 0.25, delta: 0.125, steps: 2}}]",
)


def test_the_command_from_training_to_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    equilibrium(*TINY, out=folder, device="cpu")
    first = capsys.readouterr().out
    assert " of 200" in first
    assert str(folder / "equilibrium.md") in first
    made = {n: (folder / f"equilibrium.{n}").read_bytes() for n in ("png", "svg", "csv", "md")}
    # What stands there can be pasted: a shell takes the words apart as they were given.
    command = made["md"].decode().partition("Made by `")[2].partition("`")[0]
    assert shlex.split(command) == ["ima", "equilibrium", *TINY, "--seed", "0"]

    # What the folder holds is what independent code finds there.
    (run,) = (Run(path.parent) for path in folder.glob("ima*/seed0/config.yaml"))
    found = Portrait.read("IMA", run.folder / "equilibrium.npz")
    part = load("plane").train
    np.testing.assert_array_equal(found.x, part.images)
    np.testing.assert_allclose(found.true, plane.distance(found.x))
    margins = load_state(run.state)["method"]["margins"]["values"]
    np.testing.assert_array_equal(found.margin, margins)
    assert 0.125 <= found.margin.max() <= 0.25
    model = build("mlp", 2, 2, width=8, depth=1)
    model.load_state_dict(load_weights(run.weights("last")))
    np.testing.assert_array_equal(found.right, model(part.images).argmax(1) == part.targets)
    test = load("plane").test
    right = model(test.images).argmax(1) == test.targets
    assert found.clean == pytest.approx(float(right.float().mean()))
    assert found.labels[0, -1] == int(model(torch.tensor([[1.0, 0.0]])).argmax())

    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    equilibrium(*TINY, out=folder, device="cpu")
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    for suffix, data in made.items():
        assert (folder / f"equilibrium.{suffix}").read_bytes() == data


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((), {"jobs": 0}, "--jobs is 0; expected at least 1"),
        ((), {"seed": -1}, "--seed is -1; expected at least 0"),
        (("data.name=digits",), {}, r"data\.name is 'digits'.*'plane'"),
        (("norm=linf",), {}, "norm is 'Linf'.*'L2'"),
        (("trian.epochs=2",), {}, r"trian.*did you mean 'train'"),
    ],
)
def test_what_the_command_refuses(
    tmp_path: Path, arguments: tuple[str, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=f"(?i){said}"):
        equilibrium(*arguments, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_untrained_run_is_refused(tmp_path: Path) -> None:
    config = load_config("equilibrium", ["compare=[]"])
    run = Run.create(tmp_path / "run", config)
    with pytest.raises(FileNotFoundError, match=r"ima train --resume .*run"):
        measure_run(run)
    other = Run.create(tmp_path / "other", load_config("digits", ["compare=[]"]))
    with pytest.raises(ConfigError, match="'plane' only"):
        measure_run(other)
