"""Smallest noise: known distances are found, nothing is taken on trust, rows say what is."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_hand import sign
from nets import Linear2, cnn, mlp, seeded
from subjects import distances_run
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import ima.evaluation.minimal as module
from ima import evaluate
from ima.attacks import ddn
from ima.budget import Budget, OutOfTime
from ima.cli import main
from ima.evaluation import store
from ima.evaluation.distances import NONE, Distance, Distances
from ima.evaluation.finders import FINDERS, Finder
from ima.evaluation.minimal import minimal
from ima.evaluation.remarks import Doubt
from ima.evaluation.results import CLEAN
from ima.evaluation.settings import Settings
from ima.evaluation.subject import forget, record
from ima.networks.small_cnn import small_cnn
from ima.norms import get_norm
from ima.report.words import distances_told
from ima.training.checkpoint import save_weights
from ima.training.config import load_config
from ima.training.run import Run

NORMS = [(2, 2.0), ("Linf", 1.0)]
"""Norms, with the order of their duals."""


def points(count: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return 2 * torch.rand(count, *shape, generator=seeded(seed)) - 1


def said(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.eval()(x).argmax(1)


def sizes(found: Tensor, x: Tensor, norm: float | str) -> Tensor:
    return torch.linalg.vector_norm((found - x).flatten(1), get_norm(norm).order, dim=1)


# --- DDN ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8,), (4, 6), (2, 3, 4)])
@pytest.mark.parametrize(("norm", "dual"), NORMS)
@pytest.mark.parametrize("one_logit", [False, True])
def test_ddn_finds_the_distance_of_a_linear_model(
    shape: tuple[int, ...], norm: float | str, dual: float, one_logit: bool
) -> None:
    model = Linear2(math.prod(shape), one_logit=one_logit)
    x = points(12, shape)
    y = model.labels(x)
    y[:3] = 1 - y[:3]
    found = ddn(model, x, y, norm=norm)
    # From x itself the gradient is the shortest way, and the size is known to 5 % of itself,
    # unless it is too small to be reached.
    true = model.distance(x, dual)
    far = (true > 0.02) & (torch.arange(12) >= 3)
    assert far.sum() > 5
    ratio = found.distance[far] / true[far]
    assert ratio.min() >= 1 - 1e-5 and ratio.max() < 1.05
    assert found.distance[:3].tolist() == [0, 0, 0]
    assert torch.equal(found.x[:3], x[:3])
    assert found.correct.tolist() == [False] * 3 + [True] * 9
    assert found.crossed.all() and not found.stuck.any()
    assert torch.equal(model.labels(found.x), 1 - y)
    torch.testing.assert_close(sizes(found.x, x, norm), found.distance)


def test_ddn_is_as_good_as_foolbox() -> None:
    foolbox = pytest.importorskip("foolbox", reason="foolbox, of the dev extra, is missing")
    model = cnn(seed=5, channels=3).eval()
    x = torch.rand(12, 3, 6, 6, generator=seeded(1))
    y = said(model, x)
    theirs = foolbox.attacks.DDNAttack(steps=40, init_epsilon=1.0)
    noisy, *_ = theirs(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=None)
    expected, ours = sizes(noisy, x, 2), ddn(model, x, y, steps=40, bounds=(0, 1))
    assert (said(model, noisy) != y).all() and ours.crossed.all()
    # Ours also looks at the last point, so it may find less: one more step, of 5 %.
    assert (ours.distance <= expected * (1 + 1e-3)).all()
    ratio = ours.distance / expected
    assert ratio.min() > 0.949 and (ratio > 1 - 1e-3).sum() >= 4


@pytest.mark.parametrize("norm", [2, "Linf"])
def test_ddn_stays_inside_the_bounds_and_samples_are_apart(norm: float | str) -> None:
    model = cnn(seed=3, channels=3)
    x = torch.rand(6, 3, 6, 6, generator=seeded(3))
    y = said(model, x)
    model.train()
    found = ddn(model, x, y, norm=norm, bounds=(0, 1), steps=30)
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert found.x.min() >= 0 and found.x.max() <= 1
    for i in range(len(x)):
        alone = ddn(model, x[i : i + 1], y[i : i + 1], norm=norm, bounds=(0, 1), steps=30)
        torch.testing.assert_close(alone.x, found.x[i : i + 1], atol=1e-4, rtol=1e-4)
    (index,) = found.crossed.nonzero(as_tuple=True)
    assert len(index) and (said(model, found.x[index]) != y[index]).all()


def test_ddn_that_finds_nothing_says_so() -> None:
    class Deaf(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2] * 0 + torch.tensor([1.0, 0.0])

    x = points(3, (4,))
    found = ddn(Deaf(), x, torch.tensor([0, 0, 1]), steps=5)
    assert found.distance[:2].isnan().all() and found.distance[2] == 0
    assert found.crossed.tolist() == [False, False, True]
    assert found.stuck.all() and torch.equal(found.x, x)


@pytest.mark.parametrize("radius", [0.01, 30.0])
def test_ddn_reaches_sizes_far_from_where_it_starts(radius: float) -> None:
    model = Linear2(6)
    x = points(20, (6,))
    found = ddn(model, x, model.labels(x), radius=radius)
    ratio = found.distance / model.distance(x, 2.0)
    assert ratio.quantile(0.8) < 1.06


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan])
def test_ddn_refuses_a_radius_that_is_none(radius: float) -> None:
    with pytest.raises(ValueError, match="radius has entries"):
        ddn(Linear2(4), points(2, (4,)), torch.zeros(2, dtype=torch.long), radius=radius)


# --- Minimal distances ----------------------------------------------------------------------------


@pytest.mark.parametrize(("norm", "dual"), NORMS)
@pytest.mark.parametrize("bounds", [(-9, 9), None])
def test_a_linear_models_distances_are_exact(
    norm: float | str, dual: float, bounds: tuple[float, float] | None
) -> None:
    model = Linear2(6, one_logit=bounds is None)
    x = points(40, (6,))
    y = model.labels(x)
    y[::8] = 1 - y[::8]
    found = minimal(model, TensorDataset(x, y), [0.1, 0.3, 1], norm=norm, bounds=bounds)
    true = model.distance(x, dual)
    right = y == model.labels(x)
    values = torch.tensor(found.values)
    assert (values[right] >= true[right] - 1e-6).all()
    assert (values[right] - true[right]).max() < 1e-3
    assert values[~right].tolist() == [0.0] * 5
    assert [row.attack == CLEAN for row in found.rows] == (~right).tolist()
    assert [row.prediction for row in found.rows] == (1 - y).tolist()
    left_out = {"alma (L2 only)": norm != 2, "fab (needs bounds)": bounds is None}
    assert found.settings.left_out == tuple(why for why, said in left_out.items() if said)


@pytest.mark.parametrize(
    "bounds", [(torch.tensor([-9.0, -9, -8]), torch.tensor([9.0, 8, 9])), (-9.0, math.inf)]
)
def test_fab_is_left_out_where_bounds_are_no_cube(bounds: tuple[Any, Any]) -> None:
    model, x = Linear2(3), points(4, (3,))
    found = minimal(model, TensorDataset(x, model.labels(x)), [0.3], bounds=bounds)
    assert found.settings.left_out == ("fab (needs bounds of one finite width)",)
    true = model.distance(x, 2)
    assert (torch.tensor(found.values) - true).abs().max() < 1e-2


def test_no_more_samples_stand_than_under_pgd_at_the_radii() -> None:
    model = cnn(seed=4, channels=3)
    x = torch.rand(10, 3, 6, 6, generator=seeded(5))
    y = said(model, x)
    data, radii = TensorDataset(x, y), [0.05, 0.3]
    found = minimal(model, data, radii, bounds=(0, 1))
    results = evaluate(model, data, radii, ["pgd-100"], bounds=(0, 1))
    for eps in radii:
        assert found.accuracy(eps) <= results.accuracy("pgd-100", eps) + 1e-9
    assert found.accuracy() == results.accuracy()


def liar(name: str) -> Any:
    def find(model: Any, x: Tensor, y: Tensor, *rest: Any) -> Tensor:
        return {"nan": torch.full_like(x, torch.nan), "right": x + 1e-4, "outside": x + 50}[name]

    return find


@pytest.mark.parametrize("lie", ["nan", "right", "outside"])
def test_what_an_attack_says_is_looked_at(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Steps(nn.Module):
        """Class 1 where the first entry is above 0.5; no gradient."""

        def forward(self, x: Tensor) -> Tensor:
            above = (x[:, 0] > 0.5).float()
            return torch.stack([1 - above, above], 1)

    monkeypatch.setattr(module, "FINDERS", (Finder("liar", liar(lie)),))
    x = torch.full((3, 2), 0.25)
    data = TensorDataset(x, torch.zeros(3, dtype=torch.long))
    with pytest.warns(Doubt, match="sum to 1"):
        found = minimal(Steps(), data, [0.1], bounds=(0, 1))
    if lie == "outside":
        # Clamped to (1, 1), which is wrong; two thirds of the way there are not: (0.5, 0.5).
        assert {row.attack for row in found.rows} == {"liar"}
        np.testing.assert_allclose(found.values, 0.25 * math.sqrt(2), rtol=4 / 1024)
        assert (found.values > 0.25 * math.sqrt(2)).all()
    else:
        assert {row.attack for row in found.rows} == {NONE}
        assert np.isinf(found.values).all() and math.isinf(found.median())
        assert {row.prediction for row in found.rows} == {0}


def test_what_was_not_found_is_said() -> None:
    found = rows(math.nan, math.nan, math.nan)
    assert "none found for half" in distances_told(found, [0.1])
    assert "no noise found for 3 samples" in distances_told(found, [0.1])


def test_the_smallest_of_all_attacks_counts_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def towards(which: int) -> Any:
        def find(model: Any, x: Tensor, y: Tensor, *rest: Any) -> Tensor:
            # Three times past the boundary of sum(x) = 1, straight, or along one entry only.
            gap = 1 - x.sum(1, keepdim=True)
            straight = x + 3 * gap / 2
            aside = x + torch.tensor([3.0, 0.0]) * gap
            return torch.where(torch.arange(len(x))[:, None] % 2 == which, straight, aside)

        return find

    class Diagonal(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            # Without a gradient, along which both would come to the same point.
            z = x.detach().sum(1)
            return torch.stack([1 - z, z - 1], 1)

    both = (Finder("one", towards(0)), Finder("two", towards(1)))
    monkeypatch.setattr(module, "FINDERS", both)
    x = points(6, (2,)) / 4
    # Neither of the two follows gradients, so that there is none is no matter.
    found = minimal(Diagonal(), TensorDataset(x, torch.zeros(6, dtype=torch.long)), 0.5)
    assert [row.attack for row in found.rows] == ["one", "two"] * 3
    np.testing.assert_allclose(found.values, (1 - x.sum(1)) / math.sqrt(2), rtol=4e-3)


def test_a_stopped_measurement_continues_to_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = mlp((8,)), points(12, (8,))
    data, path = TensorDataset(x, said(model, x)), tmp_path / "d.part"
    short: dict[str, Any] = {"radii": [0.1, 0.4], "batch_size": 4}
    monkeypatch.setattr(module, "FINDERS", (FINDERS[0], FINDERS[3]))
    monkeypatch.setattr("ima.evaluation.finders.STEPS", 3)
    whole = minimal(model, data, **short)

    def stop(done: int, total: int) -> None:
        assert total == 3
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        minimal(model, data, **short, partial=path, progress=stop)
    begun: list[int] = []
    old = module._of_batch

    def of_batch(*args: Any) -> Any:
        begun.append(args[1].places[0])
        return old(*args)

    monkeypatch.setattr(module, "_of_batch", of_batch)
    again = minimal(model, data, **short, partial=path)
    assert begun == [4, 8]
    assert repr(again.rows) == repr(whole.rows)
    budget = Budget(1)
    budget.end = -math.inf
    with pytest.raises(OutOfTime, match="after 1 of 3"):
        minimal(model, data, [0.2], batch_size=4, partial=path, budget=budget)


def test_what_cannot_be_measured_is_refused() -> None:
    model, x = mlp((8,)), points(4, (8,))
    data = TensorDataset(x, said(model, x))
    for radii in ([], [0.0], [-1.0, 1.0], [math.inf]):
        with pytest.raises(ValueError, match="expected finite noise radii above 0"):
            minimal(model, data, radii)
    with pytest.raises(ValueError, match="empty"):
        minimal(model, [], [0.1])
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(
        FloatingPointError, match=r"not finite on batch of samples 0 to 3.*no distance"
    ):
        minimal(model, data, [0.1])


# --- Rows -----------------------------------------------------------------------------------------


def rows(*distances: float) -> Distances:
    names = [CLEAN if d == 0 else NONE if math.isnan(d) else "ddn" for d in distances]
    found = [Distance(i, 1, 0, d, n) for i, (d, n) in enumerate(zip(distances, names, strict=True))]
    return Distances(tuple(found), Settings(norm="L2", attacks={"ddn": ""}, samples=len(found)))


def test_accuracy_curve_and_median_by_hand() -> None:
    found = rows(0.0, 0.5, 2.0, 0.5, math.nan)
    expected = {0.0: 0.8, 0.4: 0.8, 0.5: 0.4, 1.9: 0.4, 2.0: 0.2, 1e9: 0.2}
    assert {eps: found.accuracy(eps) for eps in expected} == expected
    assert rows(*np.linspace(0.1, 3, 50), math.nan).curve()[1].tolist() == pytest.approx(
        [1, *((50 - i) / 51 for i in range(50))]
    )
    at, shares = found.curve()
    assert at.tolist() == [0.0, 0.5, 2.0] and shares.tolist() == [0.8, 0.4, 0.2]
    # 0.5, 0.5, 2, infinite.
    assert found.median() == 1.25
    assert rows(0.0, 0.5, math.nan).median() == math.inf
    assert math.isnan(rows(0.0).median()) and math.isnan(
        Distances((), Settings(norm="L2")).accuracy()
    )


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    found = rows(0.0, 0.1 + 0.2, math.nan)
    found.to_csv(tmp_path / "d.csv")
    again = Distances.from_csv(tmp_path / "d.csv")
    assert repr(again) == repr(found)
    assert again == found and again.settings == found.settings
    lines = (tmp_path / "d.csv").read_text().splitlines()
    assert lines[0] == "id,label,prediction,distance,attack"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["d.csv", "d.json"]


OLD = """# {"attacks": "ddn", "samples": "2", "norm": "L2"}
id,label,prediction,distance,attack,norm
0,1,0,0.0,clean,L2
1,1,0,0.5,ddn,L2
"""


def test_a_file_of_the_version_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(OLD.replace("\n", "\r\n"), newline="")
    found = Distances.from_csv(path)
    assert found == rows(0.0, 0.5)
    assert (found.settings.samples, list(found.settings.attacks)) == (2, ["ddn"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("distance", "size"),
        ("0,1,0,0.0,clean", "0,1,0,0.0"),
        ("0,1,0,0.0,clean", "0,1,0,0.5,clean"),
        ("1,1,0,0.5,ddn", "1,1,0,nan,ddn"),
        ("1,1,0,0.5,ddn", "1,1,0,-0.5,ddn"),
        ("1,1,0,0.5,ddn", "1,1,0,0.5,none"),
        ("1,1,0,0.5,ddn", "1,1,zero,0.5,ddn"),
        ("1,1,0,0.5,ddn", "1,1.5,0,0.5,ddn"),
        ("1,1,0,0.5,ddn", "0,1,0,0.5,ddn"),
    ],
)
@pytest.mark.parametrize("form", ["now", "now, signed", "before"])
def test_a_damaged_file_is_refused(old: str, new: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    rows(0.0, 0.5).to_csv(path)
    if form == "before":
        path.write_text(OLD)
    text = path.read_bytes().decode()
    assert old in text
    path.write_text(text.replace(old, new))
    if form == "now, signed":
        # As if whoever wrote it had been wrong.
        sign(path)
    with pytest.raises(ValueError, match=r"d\.csv (is no file of|is damaged|holds no) ?.*again"):
        Distances.from_csv(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [("1,1,0,0.5,ddn,L2", "1,1,0,0.5,ddn,Linf"), ("# {", "# ["), ("# {", "#")],
)
def test_a_damaged_file_of_the_version_before_is_refused(
    old: str, new: str, tmp_path: Path
) -> None:
    path = tmp_path / "d.csv"
    path.write_text(OLD.replace(old, new))
    with pytest.raises(ValueError, match=r"d\.csv is no file of distances, or damaged"):
        Distances.from_csv(path)


def test_columns_of_another_kind_are_refused(tmp_path: Path) -> None:
    rows(0.0, 0.5).to_csv(tmp_path / "d.csv")
    told = (tmp_path / "d.json").read_text()
    assert '"distance": "float"' in told
    (tmp_path / "d.json").write_text(told.replace('"distance": "float"', '"distance": "text"'))
    with pytest.raises(ValueError, match=r"d\.csv is damaged"):
        Distances.from_csv(tmp_path / "d.csv")


@pytest.mark.parametrize(
    ("name", "value"), [("distance", [0.5, 0.5]), ("distance", [0.0, -0.5]), ("id", [1, 1])]
)
def test_distances_that_cannot_be_are_refused(name: str, value: list[Any], tmp_path: Path) -> None:
    path, found = tmp_path / "d.csv", rows(0.0, 0.5)
    columns = store.columns_of(found.rows, Distance)
    store.write_results(path, columns, found.settings)
    assert Distances.from_csv(path) == found
    store.write_results(path, columns | {name: np.array(value)}, found.settings)
    with pytest.raises(ValueError, match=r"d\.csv is damaged"):
        Distances.from_csv(path)


def test_distances_that_were_changed_or_lack_their_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    rows(0.0, 0.5).to_csv(path)
    path.write_text(path.read_text().replace("1,1,0,0.5", "1,1,0,0.7"))
    with pytest.raises(ValueError, match=r"d\.csv is no file of distances"):
        Distances.from_csv(path)
    rows(0.0, 0.5).to_csv(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"d\.json, which belongs beside it, is not there"):
        Distances.from_csv(path)


def test_rows_and_estimates_are_readable_without_torch() -> None:
    code = (
        "import sys, ima.evaluation.distances, ima.evaluation.estimates, ima.report.margins_page;"
        "import ima.report.words;"
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


# --- A run ----------------------------------------------------------------------------------------


def small(folder: Path) -> Run:
    settings = "evaluate={attacks: [pgd-2], eps: [0.5, 1.0], batch_size: 4, samples: 10}"
    run = Run.create(folder, load_config("digits", ["network.width=4", settings]))
    torch.manual_seed(3)
    for which in ("best", "last"):
        save_weights(run.weights(which), small_cnn(1, 10, width=4).state_dict())
    return run


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
def test_the_command_measures_prints_and_stays_resumable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    monkeypatch.setattr("ima.evaluation.finders.ITERATIONS", 5)
    monkeypatch.setattr("ima.evaluation.finders.STEPS", 5)
    run = small(tmp_path / "run")

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distances_run(run, device="cpu", progress=stop)
    assert record(run.results("distances")).exists() and not run.results("distances").exists()
    command = ["ima", "evaluate", str(run.folder), "--device", "cpu", "--distances"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code in (0, None)
    out = capsys.readouterr().out
    found = Distances.from_csv(run.results("distances"))
    assert f"{found.accuracy(0.5):.1%}" in out and str(run.results("distances")) in out
    assert (found.settings.samples, found.settings.total) == (10, 540) and len(found.rows) == 10
    assert sorted(entry.name for entry in run.results("distances").parent.iterdir()) == [
        "best.csv",
        "best.json",
        "distances.csv",
        "distances.json",
        "examples.npz",
        "last.csv",
        "last.json",
    ]
    forget([run.results("distances")])
    assert repr(distances_run(run, device="cpu").rows) == repr(found.rows)
