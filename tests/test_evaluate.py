"""Evaluation: shares that are known are found, and every row keeps what its columns promise."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
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

import ima.evaluation.evaluate as evaluating
from ima import Classification, Results, Segmentation, evaluate, minimal
from ima.attacks import inputs
from ima.budget import Budget, OutOfTime
from ima.evaluation import batch as batches
from ima.evaluation.batch import Example
from ima.evaluation.earlier import CLASSES
from ima.evaluation.pictures import Worded
from ima.evaluation.results import CLEAN, WORST, Row
from ima.evaluation.settings import Settings
from ima.evaluation.statistics import mean_and_std
from ima.norms import get_norm
from ima.tasks import Task


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
                assert float(distance[i]) * (1 - 1e-5) <= row.size <= eps * (1 + 1e-5)


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
        assert (row.more["label"], row.more["prediction"], row.broken) == (
            y[i],
            clean[i],
            bool(y[i] != clean[i]),
        )
        assert row.size == 0

    for attack in results.attacks:
        before = table(results, CLEAN, 0.0)
        for eps in RADII:
            now = table(results, attack, eps)
            assert sorted(now) == list(range(41))
            for i, row in now.items():
                assert row.more["label"] == y[i]
                assert row.broken == (row.more["prediction"] != row.more["label"])
                assert row.broken or not before[i].broken
                assert math.isnan(row.size) != row.broken
                if not row.broken:
                    continue
                assert row.size <= eps * (1 + 1e-4)
                if before[i].broken:
                    assert row.size <= before[i].size
                elif attack != WORST:
                    example = kept[attack, eps, i]
                    assert row.size == pytest.approx(
                        float(norm.size((example.noisy - example.clean)[None])), rel=1e-5
                    )
                    assert torch.equal(example.clean, x[i])
                    told = row.more["prediction"]
                    assert said(model, example.noisy[None]) == told == int(example.predicted)
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
                assert row.size == min(t[i].size for t in each if t[i].broken)
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


SMALL: dict[str, tuple[nn.Module, Tensor, Tensor, Any, tuple[str, ...]]] = {
    "labels": (mlp((8,)), *labelled(12), None, ("pgd-3", "white-2")),
    "masks": (
        nn.Conv2d(1, 2, 1),
        samples(12, (1, 4, 4)),
        (samples(12, (4, 4), 1) > 0.5).long(),
        Segmentation(),
        ("pgd-3", "ensemble-2", "noise-2", "white-2"),
    ),
}
"""Model, samples, targets, task, attacks."""


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


TASKS: dict[str, Task] = {"labels": Classification(), "masks": Segmentation()}


def restless(kind: str) -> nn.Module:
    """A model in mixed modes, with dropout, running statistics, gradients and a frozen weight."""
    head = (nn.Flatten(), nn.Linear(144, 3)) if kind == "labels" else (nn.Conv2d(4, 3, 1),)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), *head)
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model(torch.rand(4, 1, 6, 6)).sum().backward()
    return model


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("fails", [False, True])
def test_evaluation_leaves_no_trace(fails: bool, kind: str) -> None:
    model = restless(kind)
    x = samples(20, (1, 6, 6))
    y = torch.randint(0, 3, (20, 6, 6), generator=seeded(1))
    y = y[:, 0, 0] if kind == "labels" else y
    attacks = (*ATTACKS, "noise-2", "white-2", *(["ensemble-2"] if kind == "masks" else []))
    options: dict[str, Any] = {"task": TASKS[kind], "batch_size": 8}
    if fails:
        x[13] = math.nan
    modes = [m.training for m in model.modules()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    wanted = [p.requires_grad for p in model.parameters()]
    random, numpy = torch.get_rng_state(), np.random.get_state()[1]

    if fails:
        with pytest.raises(ValueError, match="NaN"):
            evaluate(model, TensorDataset(x, y), [0.1, 0.2], attacks, **options)
    else:
        evaluate(model, TensorDataset(x, y), [0.1, 0.2], attacks, **options)

    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    for parameter, old in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (old is None)
        assert old is None or torch.equal(parameter.grad, old)
    assert wanted == [p.requires_grad for p in model.parameters()]
    assert np.array_equal(np.random.get_state()[1], numpy)
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_evaluation_works_where_gradients_are_switched_off(
    mode: Callable[[], Any], kind: str
) -> None:
    model, x, y, task, attacks = SMALL[kind]
    expected = evaluate(model, TensorDataset(x, y), RADII, attacks, task=task)
    with mode():
        found = evaluate(model, TensorDataset(x, y), RADII, attacks, task=task)
    assert same_rows(found, expected)


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0, -1.0, math.nan, math.inf, [], [0.1, 0.0], [0.1, math.nan, 2]])
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


def test_samples_of_several_sizes_are_batches_of_one_size_each() -> None:
    sizes = [(1, 8, 8), (1, 6, 9)]
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(ValueError, match=r"do not fit into one batch.*list of batches"):
        evaluate(model, [(torch.rand(size), 1) for size in sizes], [0.1], ["pgd-2"])
    parts = [(torch.rand(3, *size), torch.tensor([0, 1, 0])) for size in sizes]
    assert len(evaluate(model, parts, [0.1], ["pgd-2"]).rows) == 12


def test_pictures_are_of_the_first_of_several_sizes(tmp_path: Path) -> None:
    label = torch.arange(2)
    made = [
        Example(i, "", -1, "pgd-2", 0.1, 1, x, x, label[0], label[0], label[1], 1.0, 0.0)
        for i, x in enumerate(map(torch.rand, ((1, 8, 8), (1, 6, 9), (1, 8, 8))))
    ]
    examples = Worded(tmp_path / "part", "data", 1, Classification().words)
    for example in made:
        examples.keep(example)
    examples.write(tmp_path, ["a", "b"], "")
    with np.load(tmp_path / "examples.npz", allow_pickle=False) as file:
        assert file["id"].tolist() == [0, 2] and file["clean"].shape == (2, 1, 8, 8)
        assert file["label"].tolist() == ["a", "a"] and file["prediction"].tolist() == ["b", "b"]


@pytest.mark.parametrize("data", [[torch.rand(4, 8)], TensorDataset(torch.rand(4, 8))])
def test_data_without_labels_is_refused(data: Any) -> None:
    with pytest.raises(TypeError, match=r"\(x, y\)"):
        evaluate(mlp((8,)), data, [0.1], ["pgd-2"])


# --- Results on disk ------------------------------------------------------------------------------

SHARES = st.floats(0, 1)
ROWS = st.builds(
    Row,
    st.integers(0, 10**12),
    st.text(alphabet="abc-1\"',; é", min_size=1, max_size=8),
    st.floats(0, 1e6),
    SHARES,
    st.floats(0, 1e9) | st.just(math.nan),
    st.sampled_from(["chosen", "drawn", "white"]),
    st.text(alphabet='p1,"', max_size=3),
    st.integers(-1, 9),
    st.just(False),
    st.fixed_dictionaries({"label": st.integers(0, 999), "prediction": st.integers(0, 999)}),
)


@given(
    rows=st.lists(ROWS, min_size=1, max_size=6, unique_by=lambda row: (row.attack, row.eps)),
    norm=st.sampled_from(["L2", "Linf"]),
)
def test_results_survive_their_file(
    rows: list[Row], norm: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("results") / "r.csv"
    # Every attack and radius has the same two samples.
    rows = [replace(row, id=rows[0].id + number) for row in rows for number in (0, 1)]
    results = Results.of(rows, Settings(norm=norm))
    results.to_csv(path)
    found = Results.from_csv(path)
    assert same_rows(found, results) and found == results
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["r.csv", "r.json"]


def written(folder: Path) -> Path:
    path = folder / "r.csv"
    evaluate(mlp((8,)), TensorDataset(*labelled(6)), [0.1, 0.5], ["pgd-2"]).to_csv(path)
    return path


def test_accuracy_is_the_same_before_and_after_the_file(tmp_path: Path) -> None:
    results = Results.from_csv(written(tmp_path))
    fresh = evaluate(mlp((8,)), TensorDataset(*labelled(6)), [0.1, 0.5], ["pgd-2"])
    assert same_rows(results, fresh)
    assert results.accuracy("pgd-2", 0.5) == fresh.accuracy("pgd-2", 0.5)
    assert results.broken_rows.tolist() == fresh.broken_rows.tolist()
    assert results == fresh


def changed(column: str, value: str) -> Callable[[str], str]:
    """The file with one value of its third row replaced."""

    def change(text: str) -> str:
        lines = text.splitlines()
        cells = lines[2].split(",")
        cells[lines[0].split(",").index(column)] = value
        return "\n".join([*lines[:2], ",".join(cells), *lines[3:]]) + "\n"

    return change


DAMAGE: dict[str, Callable[[str], str]] = {
    "no text": lambda _: "",
    "another table": lambda _: "epoch,loss\n1,0.5\n",
    "no header": lambda text: text.split("\n", 1)[1],
    "another header": lambda text: text.replace("id,", "x,", 1),
    "cut after the id": lambda text: text.rstrip() + "\n5,",
    "cut amid the last row": lambda text: text.rstrip().rsplit(",", 1)[0],
    "a cell too many": lambda text: text.rstrip() + ",7\n",
    "id": changed("id", "x"),
    "label": changed("label", ""),
    "eps": changed("eps", "high"),
    "prediction": changed("prediction", "1.5"),
    "quality": changed("quality", "0.5"),
    "size": changed("size", "7"),
    "kind": changed("kind", "odd"),
    "zeros": lambda text: text[:60] + "\0" * 20 + text[80:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_results_file_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(DAMAGE[damage](path.read_text()))
    with pytest.raises(ValueError, match=r"r\.csv"):
        Results.from_csv(path)


BESIDE: dict[str, Callable[[str], str]] = {
    "cut": lambda text: text[:-9],
    "a list": lambda _: "[1]",
    "no settings": lambda text: text.replace('"settings"', '"setings"'),
    "a setting of another kind": lambda text: text.replace('"samples": 6', '"samples": "many"'),
    "an unknown setting": lambda text: text.replace('"samples"', '"sampels"'),
    "another number of samples": lambda text: text.replace('"samples": 6', '"samples": 7'),
    "a format to come": lambda text: text.replace('"format": 3', '"format": 4'),
    "an unknown kind": lambda text: text.replace('"id": "int"', '"id": "whole"'),
    "the digest of another table": lambda text: text.replace('"digest": "', '"digest": "0'),
}


@pytest.mark.parametrize("damage", BESIDE)
def test_damaged_settings_are_refused_by_name(damage: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    beside = path.with_suffix(".json")
    text = BESIDE[damage](beside.read_text())
    assert text != beside.read_text()
    beside.write_text(text)
    with pytest.raises(ValueError, match=r"r\.(csv|json)"):
        Results.from_csv(path)
    beside.unlink()
    with pytest.raises(ValueError, match=r"r\.json.*is not there"):
        Results.from_csv(path)


EARLIER = """# {"samples": "2", "seed": "3", "seconds": "1.5", "bounds": "0 to 1", "pgd-2": "two"}
id,label,attack,eps,prediction,broken,distance,norm
0,1,clean,0.0,1,0,nan,Linf
1,2,clean,0.0,1,1,0.0,Linf
0,1,pgd-2,0.5,2,1,0.25,Linf
1,2,pgd-2,0.5,1,1,0.0,Linf
"""


def test_a_file_of_the_version_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(EARLIER)
    old = Results.from_csv(path)
    assert (old.settings.samples, old.settings.seed, old.settings.seconds) == (2, 3, 1.5)
    assert (old.settings.bounds, old.settings.attacks) == ((0.0, 1.0), {"pgd-2": "two"})
    assert (old.norm, old.attacks, old.eps) == ("Linf", ("pgd-2",), (0.5,))
    assert (old.accuracy(), old.accuracy("pgd-2", 0.5)) == (0.5, 0.0)
    assert [row.size for row in old.rows][1:] == [0.0, 0.25, 0.0]
    old.to_csv(tmp_path / "new.csv")
    assert Results.from_csv(tmp_path / "new.csv") == old
    # Before there were settings.
    path.write_text(EARLIER.split("\n", 1)[1])
    assert path.read_text().startswith(",".join(CLASSES))
    assert Results.from_csv(path) == old


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("}", "", 1),
        lambda text: "# [1]\n" + text.split("\n", 1)[1],
        lambda text: text.replace("id,", "x,", 1),
        lambda text: text.rstrip().rsplit(",", 1)[0],
        lambda text: text.replace("0,nan,Linf", "maybe,nan,Linf"),
        lambda text: text.replace("0.25,Linf", "0.25,L2"),
        lambda text: text.replace("0.25", ""),
        lambda text: text.replace("0,1,pgd-2,0.5,2,1,0.25,Linf\n", ""),
    ],
)
def test_damaged_files_of_the_version_before_are_refused(
    change: Callable[[str], str], tmp_path: Path
) -> None:
    path = tmp_path / "r.csv"
    path.write_text(change(EARLIER))
    with pytest.raises(ValueError, match=r"r\.csv"):
        Results.from_csv(path)


def test_settings_survive_the_file(tmp_path: Path) -> None:
    settings = Settings(norm="L2", about={"a, b": 'é"#\n,'}, bounds=(-1, 0.1), classes=("x", "é"))
    row = Row(0, "a", 0.5, 0.0, more={"label": 1, "prediction": 1})
    results = Results.of([row], settings)
    results.to_csv(tmp_path / "r.csv")
    found = Results.from_csv(tmp_path / "r.csv")
    assert found.settings == results.settings and same_rows(found, results)


def test_any_program_reads_the_rows(tmp_path: Path) -> None:
    import pandas as pd

    path = written(tmp_path)
    results, frame = Results.from_csv(path), pd.read_csv(path)
    assert frame["quality"].tolist() == results.columns["quality"].tolist()
    own = results.to_frame()
    assert own["label"].tolist() == frame["label"].tolist() and own.attrs["norm"] == "L2"
    assert len(str(results).splitlines()) < 6 < len(results)


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"r\.csv"):
        Results.from_csv(path)


def test_mean_and_deviation() -> None:
    assert mean_and_std([0.5]) == (0.5, None)
    mean, std = mean_and_std([0.2, 0.4, 0.6])
    assert (mean, std) == pytest.approx((0.4, 0.2))


# --- Stopped and continued ------------------------------------------------------------------------

SHORT: dict[str, Any] = {"eps": [0.1, 0.3], "attacks": ATTACKS, "batch_size": 8}


class Stop(Exception):  # noqa: N818
    """Something ended the evaluation."""


def stop_at(batch: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == batch:
            raise Stop

    return progress


@pytest.fixture
def attacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of the first samples of the batches that were really attacked."""
    first: list[int] = []

    def attack_batch(*args: Any) -> Any:
        first.append(args[1].places[0])
        return batches.attack_batch(*args)

    monkeypatch.setattr(evaluating, "attack_batch", attack_batch)
    return first


@pytest.mark.parametrize("source", ["data set", "generator of batches"])
def test_an_evaluation_that_was_stopped_continues_to_the_same_rows(
    source: str, tmp_path: Path, attacked: list[int]
) -> None:
    model, (x, y) = mlp((8,)), labelled(30)
    whole = evaluate(model, TensorDataset(x, y), **SHORT)
    path = tmp_path / "there" / "e.part"
    attacked.clear()
    for batch in (2, 4):
        with pytest.raises(Stop):
            evaluate(model, SOURCES[source](x, y), **SHORT, partial=path, progress=stop_at(batch))
    calls: list[int] = []
    results = evaluate(
        model,
        SOURCES[source](x, y),
        **SHORT,
        partial=path,
        progress=lambda *call: calls.append(call[0]),
    )
    assert same_rows(results, whole)
    # A batch is recorded after progress was called: the one in which it was stopped runs again.
    assert attacked == [0, 8, 8, 16, 24, 24]
    assert calls == [1, 2, 3, 4]
    assert same_rows(evaluate(model, SOURCES[source](x, y), **SHORT, partial=path), whole)
    assert len(attacked) == 6
    assert [entry.name for entry in path.parent.iterdir()] == ["e.part"]


def stopped(path: Path, model: nn.Module, batch: int = 3) -> None:
    with pytest.raises(Stop):
        evaluate(
            model, TensorDataset(*labelled(30)), **SHORT, partial=path, progress=stop_at(batch)
        )


@pytest.mark.parametrize("cut", [1, 40, 10**9])
def test_a_line_that_was_cut_is_made_again(cut: int, tmp_path: Path, attacked: list[int]) -> None:
    model, path = mlp((8,)), tmp_path / "e.part"
    stopped(path, model)
    text = path.read_text()
    path.write_text(text[: max(text.rindex("\n", 0, -1) + 2, len(text) - cut)])
    attacked.clear()
    whole = evaluate(model, TensorDataset(*labelled(30)), **SHORT)
    assert attacked == [0, 8, 16, 24]
    results = evaluate(model, TensorDataset(*labelled(30)), **SHORT, partial=path)
    assert same_rows(results, whole)
    assert attacked[4:] == [8, 16, 24]


def other_weights() -> nn.Module:
    model = mlp((8,))
    with torch.no_grad():
        model[1].weight[0, 0] += 1e-6
    return model


CHANGES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], list[int]]] = {
    "weights": (other_weights, {}, [0, 8, 16, 24]),
    "radii": (lambda: mlp((8,)), {"eps": [0.1]}, [0, 8, 16, 24]),
    "attacks": (lambda: mlp((8,)), {"attacks": ["pgd-4"]}, [0, 8, 16, 24]),
    "norm": (lambda: mlp((8,)), {"norm": "linf"}, [0, 8, 16, 24]),
    "bounds": (lambda: mlp((8,)), {"bounds": (0, 1)}, [0, 8, 16, 24]),
    "seed": (lambda: mlp((8,)), {"seed": 1}, [0, 8, 16, 24]),
    "batches": (lambda: mlp((8,)), {"batch_size": 16}, [0, 16]),
    "nothing": (lambda: mlp((8,)), {}, [16, 24]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_record_of_other_settings_is_not_used(
    change: str, tmp_path: Path, attacked: list[int]
) -> None:
    make, options, again = CHANGES[change]
    path, data = tmp_path / "e.part", TensorDataset(*labelled(30))
    stopped(path, mlp((8,)))
    attacked.clear()
    results = evaluate(make(), data, **{**SHORT, **options}, partial=path)
    assert attacked == again
    assert same_rows(results, evaluate(make(), data, **{**SHORT, **options}))


def test_batches_of_other_data_are_made_again(tmp_path: Path, attacked: list[int]) -> None:
    model, path = mlp((8,)), tmp_path / "e.part"
    stopped(path, model, batch=4)
    x, y = labelled(30)
    y[9] = (y[9] + 1) % 3
    attacked.clear()
    results = evaluate(model, TensorDataset(x, y), **SHORT, partial=path)
    assert attacked == [8, 16, 24]
    assert same_rows(results, evaluate(model, TensorDataset(x, y), **SHORT))


@pytest.mark.parametrize("text", ["", "mine", "id,label\n1,2\n", "{}\n", "[1]\n", "\xff"])
def test_a_file_of_someone_else_is_not_overwritten(text: str, tmp_path: Path) -> None:
    path = tmp_path / "e.part"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"e\.part is no record"):
        evaluate(mlp((8,)), TensorDataset(*labelled(6)), 0.1, "pgd-2", partial=path)
    assert path.read_bytes() == text.encode("latin-1")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("540s", 540), ("9m", 540), ("1h30m", 5400), (" 2h ", 7200), ("1h1m1s", 3661)],
)
def test_a_time_budget_is_read_as_people_write_it(text: str, seconds: int) -> None:
    budget = Budget.parse(text)
    assert budget.seconds == seconds
    assert seconds - 60 < budget.left() <= seconds and not budget.over()


@pytest.mark.parametrize("text", ["", "0", "0m", "-5", "9 minutes", "m", "1.5h", "30m1h", "9m9m"])
def test_a_time_budget_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"time budget is .*expected such as .*9m"):
        Budget.parse(text)
    with pytest.raises(ValueError, match="time budget"):
        Budget(-1)


class Clock:
    """A time that passes as told: `batch` seconds with every batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, batch: float) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)

        def attack_batch(*args: Any) -> Any:
            self.now += batch
            return batches.attack_batch(*args)

        monkeypatch.setattr(evaluating, "attack_batch", attack_batch)


@pytest.mark.parametrize("kind", TASKS)
def test_no_batch_is_begun_that_may_not_fit_into_the_budget(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, y, task, _ = SMALL[kind]
    data, path = TensorDataset(x, y), tmp_path / "e.part"
    options: dict[str, Any] = {**SHORT, "batch_size": 3, "task": task}
    whole = evaluate(model, data, **options)
    Clock(monkeypatch, batch=10.0)
    # 25 seconds hold two batches of 10, and what is left no third.
    with pytest.raises(OutOfTime, match=r"after 2 of 4 .*5 s .*10 s.*e\.part.*continue"):
        evaluate(model, data, **options, partial=path, budget=Budget(25))
    # Known to be too long from the last time: one a call, or nothing would ever be done.
    with pytest.raises(OutOfTime, match=r"after 3 of 4 .*0 s .*10 s"):
        evaluate(model, data, **options, partial=path, budget=Budget(9))
    results = evaluate(model, data, **options, partial=path, budget=Budget(1))
    assert same_rows(results, whole)
    assert results.settings.seconds == 40
    with pytest.raises(OutOfTime, match="nothing is kept"):
        evaluate(model, data, **options, budget=Budget(15))


# --- What is done once a batch --------------------------------------------------------------------


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often samples and radii were checked, and a model really entered, by name."""
    counts: Counter[str] = Counter()

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            counts[function.__name__] += 1
            return function(*args, **options)

        return wrapped

    # Each real entry of `no_trace`, and none within another, goes through `in_step`.
    for function in (inputs.check_samples, inputs.check_radius, inputs.in_step):
        wrapped = counted(function)
        for name, module in list(sys.modules.items()):
            if name.startswith("ima.") and getattr(module, function.__name__, None) is function:
                monkeypatch.setattr(module, function.__name__, wrapped)
    return counts


@pytest.mark.parametrize("kind", SMALL)
def test_checks_and_entries_are_few_a_batch_however_many_attacks(
    kind: str, entered: Counter[str]
) -> None:
    model, x, y, task, attacks = SMALL[kind]
    options: dict[str, Any] = {"task": task, "bounds": (0, 1), "batch_size": 4}
    evaluate(model, TensorDataset(x, y), (), (), **options)
    without = Counter(entered)
    entered.clear()
    found = evaluate(model, TensorDataset(x, y), [0.1, 0.2, 0.4], attacks, **options)
    assert len(found.eps) == 3 and len(found.white) == 1
    # Once a batch; beside that the first samples are looked at, also among other mates.
    assert entered == without
    assert entered["check_samples"] == 3 and entered["check_radius"] == 0
    assert 3 <= entered["in_step"] <= 3 + 4


def test_the_smallest_noise_is_looked_for_within_one_entry_a_batch(entered: Counter[str]) -> None:
    x, y = labelled(12)
    minimal(mlp((8,)), TensorDataset(x, y), [0.1, 0.2], batch_size=4)
    # DDN, twice a batch, is as anybody calls it. The first batch is entered to see whether the
    # network takes it, and to compare its samples.
    assert entered["check_samples"] == 3 * (1 + 2) and 3 <= entered["in_step"] <= 3 + 3
