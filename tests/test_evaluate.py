"""Evaluation: shares that are known are found, and every row keeps what its columns promise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import Linear2, cnn, mlp, seeded
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ima import Results, evaluate
from ima.evaluation.evaluate import WORST, Example
from ima.evaluation.results import CLEAN, FIELDS, Row, mean_and_std
from ima.networks.small_cnn import small_cnn
from ima.norms import get_norm
from ima.training.checkpoint import save_weights
from ima.training.config import load_config
from ima.training.evaluating import evaluate_run
from ima.training.run import Run


def samples(count: int, shape: Sequence[int], seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=seeded(seed))


def mostly(labels: Tensor, classes: int, seed: int = 7) -> Tensor:
    """Labels of which about one in eight is another."""
    wrong = torch.rand(len(labels), generator=seeded(seed)) < 0.125
    return torch.where(wrong, (labels + 1) % classes, labels)


def said(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        z = model.eval()(x)
        return (z.reshape(-1) > 0).long() if z.ndim == 1 or z.shape[1] == 1 else z.argmax(1)


def table(results: Results, attack: str, eps: float) -> dict[int, Row]:
    return {r.id: r for r in results.rows if r.attack == attack and r.eps == eps}


# --- What is known --------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [2, "Linf"])
@pytest.mark.parametrize("one_logit", [False, True])
@pytest.mark.parametrize("attack", ["pgd-4", "ifgsm-8"])
def test_accuracy_on_a_linear_model_is_the_share_beyond_the_radius(
    norm: float | str, one_logit: bool, attack: str
) -> None:
    model = Linear2(6, one_logit=one_logit)
    x = 4 * samples(80, (6,)) - 2
    y = mostly(model.labels(x), 2)
    distance = model.distance(x, 2.0 if norm == 2 else 1.0)
    right = model.labels(x) == y
    radii = [float(distance.quantile(q)) for q in (0.2, 0.45, 0.7)]
    radii = [r + 1e-3 for r in radii if float((distance - r - 1e-3).abs().min()) > 1e-5]
    assert len(radii) == 3

    results = evaluate(model, TensorDataset(x, y), radii, [attack], norm=norm)
    assert results.accuracy() == pytest.approx(float(right.float().mean()))
    for eps in radii:
        standing = right & (distance > eps)
        assert results.accuracy(attack, eps) == pytest.approx(float(standing.float().mean()))
        for i, row in table(results, attack, eps).items():
            assert row.broken != bool(standing[i])
            if row.broken and right[i]:
                assert float(distance[i]) * (1 - 1e-5) <= row.distance <= eps * (1 + 1e-5)


CASES: dict[str, tuple[nn.Module, tuple[int, ...], int, dict[str, Any]]] = {
    "one logit": (mlp((8,), 1), (8,), 2, {}),
    "vectors, two classes": (mlp((8,), 2), (8,), 2, {"norm": "linf"}),
    "images, three classes, within bounds": (cnn(), (1, 6, 6), 3, {"bounds": (0.0, 1.0)}),
    "batch statistics": (cnn(batch_norm=True), (1, 6, 6), 3, {"bounds": (0.0, 1.0)}),
    "volumes": (cnn(dims=3), (1, 6, 6, 6), 3, {}),
    "signals": (cnn(dims=1, channels=2), (2, 9), 3, {"bounds": (torch.zeros(2, 1), 1.0)}),
    "100 classes": (mlp((8,), 100), (8,), 100, {}),
}
RADII = (0.05, 0.2, 0.6)
ATTACKS = ("pgd-4", "ifgsm-6")


@pytest.mark.parametrize("case", CASES)
def test_every_row_keeps_what_its_columns_promise(case: str) -> None:
    model, shape, classes, options = CASES[case]
    x = samples(41, shape)
    clean = said(model, x)
    y = mostly(clean, classes)
    kept: dict[tuple[str, float, int], Example] = {}

    def keep(example: Example) -> None:
        kept[example.attack, example.eps, example.id] = example

    options = {"batch_size": 16, "keep": keep, **options}
    results = evaluate(model, TensorDataset(x, y), list(reversed(RADII)), ATTACKS, **options)
    norm = get_norm(options.get("norm", 2))
    assert (results.attacks, results.eps, results.norm) == ((*ATTACKS, WORST), RADII, norm.name)
    assert len(results.rows) == 41 * (1 + 3 * 3)

    for i, row in table(results, CLEAN, 0.0).items():
        assert (row.label, row.prediction, row.broken) == (y[i], clean[i], bool(y[i] != clean[i]))
        assert row.distance == 0 if row.broken else math.isnan(row.distance)

    for attack in results.attacks:
        before = table(results, CLEAN, 0.0)
        for eps in RADII:
            now = table(results, attack, eps)
            assert sorted(now) == list(range(41))
            for i, row in now.items():
                assert row.label == y[i]
                assert row.broken == (row.prediction != row.label)
                assert row.broken or not before[i].broken
                assert math.isnan(row.distance) != row.broken
                if not row.broken:
                    continue
                assert row.distance <= eps * (1 + 1e-4)
                if before[i].broken:
                    assert row.distance <= before[i].distance
                elif attack != WORST:
                    example = kept[attack, eps, i]
                    assert row.distance == pytest.approx(
                        float(norm.size((example.noisy - example.clean)[None])), rel=1e-5
                    )
                    assert torch.equal(example.clean, x[i])
                    assert said(model, example.noisy[None]) == row.prediction == example.prediction
            assert results.accuracy(attack, eps) <= results.accuracy()
            before = now
        accuracies = [results.accuracy(attack, eps) for eps in RADII]
        assert accuracies == sorted(accuracies, reverse=True)
    assert results.accuracy(WORST, RADII[-1]) < results.accuracy()

    for eps in RADII:
        each = [table(results, attack, eps) for attack in ATTACKS]
        for i, row in table(results, WORST, eps).items():
            assert row.broken == any(t[i].broken for t in each)
            if row.broken:
                assert row.distance == min(t[i].distance for t in each if t[i].broken)
    # What is already broken is not attacked again.
    assert not [key for key in kept if y[key[2]] != clean[key[2]]]


def test_one_attack_has_no_worst_case() -> None:
    results = evaluate(mlp((8,)), TensorDataset(*labelled(10)), 0.1, ["pgd-2"])
    assert results.attacks == ("pgd-2",)
    assert results.eps == (0.1,)


def test_no_attack_gives_clean_accuracy_only() -> None:
    x, y = labelled(10)
    results = evaluate(mlp((8,)), TensorDataset(x, y), 0.1, [])
    assert len(results.rows) == 10
    assert results.accuracy() == 1
    assert math.isnan(results.accuracy("pgd-100", 0.1))


def labelled(count: int, shape: tuple[int, ...] = (8,)) -> tuple[Tensor, Tensor]:
    x = samples(count, shape)
    return x, said(mlp(shape), x)


def test_an_eps_or_attack_that_is_named_twice_is_run_once() -> None:
    data = TensorDataset(*labelled(6))
    once = evaluate(mlp((8,)), data, [0.1, 0.2], ["pgd-2"])
    twice = evaluate(mlp((8,)), data, [0.2, 0.1, 0.2], ["pgd-2", "pgd-2"])
    assert same_rows(once, twice)


# --- Where the data comes from --------------------------------------------------------------------


def same_rows(left: Results, right: Results) -> bool:
    return left.norm == right.norm and list(map(repr, left.rows)) == list(map(repr, right.rows))


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches that come once, without a length."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)


class MapStyle:
    """What a user writes: no base class, labels as Python numbers."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index], int(self.y[index])


SOURCES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "data set": TensorDataset,
    "own data set": MapStyle,
    "loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=8),
    "list of samples": lambda x, y: list(zip(x, y, strict=True)),
    "list of batches": lambda x, y: list(zip(x.split(8), y.split(8), strict=True)),
    "generator of batches": lambda x, y: ((a, b) for a, b in zip(x.split(8), y.split(8))),  # noqa: B905
    "stream": lambda x, y: Stream(list(zip(x.split(8), y.split(8), strict=True))),
    "batches with ids": lambda x, y: DataLoader(
        TensorDataset(x, y, torch.arange(len(x))), batch_size=8
    ),
    "lists": lambda x, y: ([a, b] for a, b in zip(x.split(8), y.split(8), strict=True)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_kind_of_data_gives_the_same_rows(source: str) -> None:
    x, y = labelled(20)
    expected = evaluate(mlp((8,)), TensorDataset(x, y), [0.1, 0.3], ATTACKS, batch_size=8)
    data = SOURCES[source](x, y)
    assert same_rows(evaluate(mlp((8,)), data, [0.1, 0.3], ATTACKS, batch_size=8), expected)


def test_a_single_batch_in_a_list_is_a_list_of_batches() -> None:
    x, y = labelled(20)
    expected = evaluate(mlp((8,)), TensorDataset(x, y), [0.1], ["pgd-2"])
    assert same_rows(evaluate(mlp((8,)), [(x, y)], [0.1], ["pgd-2"]), expected)


@pytest.mark.parametrize(
    "data",
    [[], TensorDataset(torch.zeros(0, 8), torch.zeros(0, dtype=torch.long)), iter([])],
    ids=["list", "data set", "generator"],
)
def test_no_data_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="empty"):
        evaluate(mlp((8,)), data, [0.1], ["pgd-2"])


def test_the_same_seed_gives_the_same_rows_whatever_ran_before() -> None:
    data = TensorDataset(*labelled(30))
    first = evaluate(mlp((8,)), data, RADII, ["pgd-3"], seed=3)
    torch.manual_seed(1234)
    assert same_rows(first, evaluate(mlp((8,)), data, RADII, ["pgd-3"], seed=3))


def test_progress_counts_the_batches() -> None:
    calls: list[tuple[int, int]] = []
    data = TensorDataset(*labelled(20))
    evaluate(
        mlp((8,)),
        data,
        0.1,
        ["pgd-1"],
        batch_size=8,
        progress=lambda *call: calls.append(call),
    )
    assert calls == [(1, 3), (2, 3), (3, 3)]
    calls.clear()
    batches = ((x, y) for x, y in [data[:8], data[8:]])
    evaluate(mlp((8,)), batches, 0.1, ["pgd-1"], progress=lambda *call: calls.append(call))
    assert calls == [(1, 0), (2, 0)]


# --- What it leaves behind ------------------------------------------------------------------------


def restless() -> nn.Module:
    """A model in mixed modes, with dropout, running statistics, gradients and a frozen weight."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
    )
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model(torch.rand(4, 1, 6, 6)).sum().backward()
    return model


@pytest.mark.parametrize("fails", [False, True])
def test_evaluation_leaves_no_trace(fails: bool) -> None:
    model = restless()
    x = samples(20, (1, 6, 6))
    y = torch.randint(0, 3, (20,), generator=seeded(1))
    if fails:
        x[13] = math.nan
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    wanted = [p.requires_grad for p in model.parameters()]
    random, numpy = torch.get_rng_state(), np.random.get_state()[1]

    if fails:
        with pytest.raises(ValueError, match="NaN"):
            evaluate(model, TensorDataset(x, y), [0.1, 0.2], ATTACKS, batch_size=8)
    else:
        evaluate(model, TensorDataset(x, y), [0.1, 0.2], ATTACKS, batch_size=8)

    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    for parameter, old in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (old is None)
        assert old is None or torch.equal(parameter.grad, old)
    assert wanted == [p.requires_grad for p in model.parameters()]
    assert np.array_equal(np.random.get_state()[1], numpy)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_evaluation_works_where_gradients_are_switched_off(mode: Callable[[], Any]) -> None:
    model, data = mlp((8,)), TensorDataset(*labelled(20))
    expected = evaluate(model, data, RADII, ["pgd-3"])
    with mode():
        found = evaluate(model, data, RADII, ["pgd-3"])
    assert same_rows(found, expected)


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0, -1.0, math.nan, math.inf, [0.1, 0.0], [0.1, math.nan, 0.2]])
def test_radii_that_are_none_are_refused(eps: Any) -> None:
    with pytest.raises(ValueError, match="above 0"):
        evaluate(mlp((8,)), TensorDataset(*labelled(4)), eps, ["pgd-2"])


@pytest.mark.parametrize("eps", [np.float32(0.25), torch.tensor(0.25), np.array([0.25]), 0.25])
def test_radii_may_come_as_any_kind_of_number(eps: Any) -> None:
    results = evaluate(mlp((8,)), TensorDataset(*labelled(4)), eps, ["pgd-2"])
    assert results.eps == (0.25,)


@pytest.mark.parametrize("name", ["pdg-100", "pgd-0", "pgd-", "pgd-1.5", "", "PGD 100", "clean"])
def test_an_unknown_attack_is_refused_with_those_that_are_known(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown attack .*pgd-100.*ifgsm-10"):
        evaluate(mlp((8,)), TensorDataset(*labelled(4)), 0.1, [name])


def test_one_attack_may_stand_without_a_list() -> None:
    data = TensorDataset(*labelled(4))
    results = evaluate(mlp((8,)), data, 0.1, "pgd-2")
    assert same_rows(results, evaluate(mlp((8,)), data, 0.1, ["pgd-2"]))


class Damaged(nn.Module):
    """NaN or infinity for some samples."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.body = mlp((8,))

    def forward(self, x: Tensor) -> Tensor:
        z = self.body(x)
        return torch.where(x[:, :1] > 0.9, self.value, z)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_give_no_accuracy(value: float) -> None:
    with pytest.raises(FloatingPointError, match="not finite on batch"):
        evaluate(Damaged(value), TensorDataset(*labelled(60)), [0.1], ["pgd-2"], batch_size=20)


@pytest.mark.parametrize(
    ("x", "y", "error", "words"),
    [
        (torch.rand(4, 8), torch.tensor([0, 1, 2, 3]), ValueError, "label 3"),
        (torch.rand(4, 8), torch.tensor([0, 1, -1, 2]), ValueError, "label -1"),
        (torch.rand(4, 8), torch.tensor([0.0, 1, 2, 1]), TypeError, "integer class labels"),
        (torch.rand(4, 8), torch.zeros(4, 1, dtype=torch.long), TypeError, "integer class labels"),
        (2 * torch.rand(4, 8) + 1, torch.zeros(4, dtype=torch.long), ValueError, "bounds"),
        (torch.ones(4, 8, dtype=torch.uint8), torch.zeros(4).long(), TypeError, "floating point"),
    ],
)
def test_data_that_does_not_fit_is_refused(
    x: Tensor, y: Tensor, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        evaluate(mlp((8,)), TensorDataset(x, y), [0.1], ["pgd-2"], bounds=(0, 1))


@pytest.mark.parametrize("data", [[torch.rand(4, 8)], TensorDataset(torch.rand(4, 8))])
def test_data_without_labels_is_refused(data: Any) -> None:
    with pytest.raises(TypeError, match=r"\(x, y\)"):
        evaluate(mlp((8,)), data, [0.1], ["pgd-2"])


# --- Results on disk ------------------------------------------------------------------------------

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.builds(
    Row,
    st.integers(0, 10**12),
    st.integers(0, 999),
    st.text(alphabet="abc-1\"',; é", min_size=1, max_size=8),
    st.floats(0, 1e6),
    st.integers(0, 999),
    st.booleans(),
    FLOATS | st.just(math.nan),
)


@given(rows=st.lists(ROWS, min_size=1, max_size=6), norm=st.sampled_from(["L2", "Linf"]))
def test_results_survive_their_file(
    rows: list[Row], norm: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("results") / "r.csv"
    results = Results(tuple(rows), norm)
    results.to_csv(path)
    assert same_rows(Results.from_csv(path), results)
    assert [entry.name for entry in path.parent.iterdir()] == ["r.csv"]


def written(folder: Path) -> Path:
    path = folder / "r.csv"
    evaluate(mlp((8,)), TensorDataset(*labelled(6)), [0.1, 0.5], ["pgd-2"]).to_csv(path)
    return path


def test_accuracy_is_the_same_before_and_after_the_file(tmp_path: Path) -> None:
    results = Results.from_csv(written(tmp_path))
    fresh = evaluate(mlp((8,)), TensorDataset(*labelled(6)), [0.1, 0.5], ["pgd-2"])
    assert same_rows(results, fresh)
    assert results.accuracy("pgd-2", 0.5) == fresh.accuracy("pgd-2", 0.5)
    assert results.broken("pgd-2", 0.5) == fresh.broken("pgd-2", 0.5)


def changed(column: str, value: str) -> Callable[[str], str]:
    """The file with one value of its third row replaced."""

    def change(text: str) -> str:
        lines = text.splitlines()
        cells = lines[3].split(",")
        cells[(*FIELDS, "norm").index(column)] = value
        return "\n".join([*lines[:3], ",".join(cells), *lines[4:]]) + "\n"

    return change


DAMAGE: dict[str, Callable[[str], str]] = {
    "no text": lambda _: "",
    "another table": lambda _: "epoch,loss\n1,0.5\n",
    "no header": lambda text: text.split("\n", 1)[1],
    "cut after the id": lambda text: text.rstrip() + "\n5,",
    "cut amid the distance": lambda text: text.rstrip().rsplit(",", 1)[0],
    "a cell too many": lambda text: text.rstrip() + ",7\n",
    "id": changed("id", "x"),
    "label": changed("label", ""),
    "eps": changed("eps", "high"),
    "prediction": changed("prediction", "1.5"),
    "broken": changed("broken", "maybe"),
    "distance": changed("distance", ""),
    "another norm": changed("norm", "Linf"),
    "zeros": lambda text: text[:60] + "\0" * 20 + text[80:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_results_file_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(DAMAGE[damage](path.read_text()))
    with pytest.raises(ValueError, match=r"r\.csv"):
        Results.from_csv(path)


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"r\.csv"):
        Results.from_csv(path)


def test_mean_and_deviation() -> None:
    assert mean_and_std([0.5]) == (0.5, None)
    mean, std = mean_and_std([0.2, 0.4, 0.6])
    assert (mean, std) == pytest.approx((0.4, 0.2))


# --- A run's evaluation ---------------------------------------------------------------------------


def constant(folder: Path, says: int, *, labels: int, **evaluate_options: str) -> Run:
    """A run on images of one class, whose network always says another or the same."""
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    arrays: dict[str, np.ndarray] = {}
    for role, numbers in (
        ("train", np.arange(12) % 2),
        ("val", np.arange(12) % 2),
        ("test", np.full(12, labels)),
    ):
        arrays[f"{role}_images"] = np.roll(images, len(role), axis=2)
        arrays[f"{role}_labels"] = numbers
    np.savez(folder / "d.npz", allow_pickle=False, **arrays)
    overrides = [
        f"data={{name: arrays, path: '{folder / 'd.npz'}'}}",
        "network.width=4",
        "evaluate={attacks: [pgd-2, ifgsm-2], eps: [0.1, 0.5]}",
    ]
    run = Run.create(folder / "run", load_config("digits", overrides))
    model = small_cnn(1, 2, width=4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[-1].bias[says] = 1.0
    for which in ("best", "last"):
        save_weights(run.weights(which), model.state_dict())
    return run


def test_a_run_that_is_always_right_on_constant_output_is_never_broken(tmp_path: Path) -> None:
    run = constant(tmp_path, 1, labels=1)
    results = evaluate_run(run, "best", device="cpu")
    assert same_rows(Results.from_csv(run.results("best")), results)
    assert results.accuracy("worst case", 0.5) == 1
    with np.load(run.examples, allow_pickle=False) as examples:
        assert len(examples["id"]) == 12 * 2 * 2
        assert examples["clean"].shape == examples["noisy"].shape == (48, 1, 8, 8)
        assert set(examples["attack"].tolist()) == {"pgd-2", "ifgsm-2"}


def test_a_run_whose_first_test_samples_are_all_wrong_is_evaluated_too(tmp_path: Path) -> None:
    run = constant(tmp_path, 0, labels=1)
    results = evaluate_run(run, "best", device="cpu")
    assert results.accuracy() == 0
    assert same_rows(Results.from_csv(run.results("best")), results)


def test_a_run_is_evaluated_without_attacks_too(tmp_path: Path) -> None:
    run = constant(tmp_path, 1, labels=1)
    assert evaluate_run(run, "best", attacks=[], device="cpu").accuracy() == 1


def test_a_run_that_has_no_weights_yet_is_named(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "fresh", load_config("digits"))
    with pytest.raises(FileNotFoundError, match=r"fresh holds no best weights.*--resume"):
        evaluate_run(run, "best", device="cpu")


def test_attacks_that_fail_leave_the_old_results(tmp_path: Path) -> None:
    run = constant(tmp_path, 1, labels=1)
    evaluate_run(run, "best", device="cpu")
    before = run.results("best").read_bytes()
    with pytest.raises(ValueError, match="above 0"):
        evaluate_run(run, "best", eps=[-1.0], device="cpu")
    assert run.results("best").read_bytes() == before
