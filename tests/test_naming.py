"""Ids, cases and classes as users give them, and what cases do to intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import seeded
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ima import Results, Segmentation, evaluate, minimal
from ima.evaluation.batch import Example
from ima.evaluation.results import CLEAN, Row
from ima.evaluation.settings import Settings
from ima.evaluation.statistics import effective, wilson


class Positive(nn.Module):
    """Class 1, or foreground, where a value is above 0."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x), x], 1)


def slices(cases: int = 4, each: int = 10) -> tuple[Tensor, Tensor, list[str]]:
    """Slices that are nearly alike within a case, and differ between cases."""
    x, names = [], []
    for case in range(cases):
        image = torch.rand(1, 6, 6, generator=seeded(case)) - 0.5 + 0.1 * case
        for _ in range(each):
            x.append(image + 0.01 * torch.rand(1, 6, 6, generator=seeded(len(x))))
            names.append(f"patient {case}")
    y = torch.zeros(len(x), 6, 6, dtype=torch.long)
    y[:, 1:5, 1:5] = 1
    return torch.stack(x), y, names


def width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


# Every way in which cases may come; of each a list of (x, y) and names.
WAYS: dict[str, Callable[[Tensor, Tensor, list[str]], tuple[Any, Any]]] = {
    "list": lambda x, y, names: (TensorDataset(x, y), names),
    "array": lambda x, y, names: (TensorDataset(x, y), np.array(names)),
    "numbers": lambda x, y, names: (TensorDataset(x, y), [int(n[-1]) for n in names]),
    "pairs": lambda x, y, names: (TensorDataset(x, y), [(n, i) for i, n in enumerate(names)]),
    "place": lambda x, y, names: (list(zip(x, y, names, strict=True)), 2),
    "place in a loader": lambda x, y, names: (
        DataLoader(list(zip(x, y, names, strict=True)), batch_size=7, shuffle=True),  # pyright: ignore[reportArgumentType]
        2,
    ),
    "key": lambda x, y, names: (
        [{"image": a, "label": b, "who": n} for a, b, n in zip(x, y, names, strict=True)],
        "who",
    ),
    "key in a loader": lambda x, y, names: (
        DataLoader(
            [  # pyright: ignore[reportArgumentType]
                {"image": a, "label": b, "who": int(n[-1])}
                for a, b, n in zip(x, y, names, strict=True)
            ],
            batch_size=7,
        ),
        "who",
    ),
    "generator": lambda x, y, names: ((one for one in zip(x, y, strict=True)), names),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_interval_of_slices_is_over_cases(way: str) -> None:
    x, y, names = slices()
    task = Segmentation()
    alone = evaluate(Positive(), TensorDataset(x, y), 0.1, ["ifgsm-1"], task=task)
    data, given = WAYS[way](x, y, names)
    found = evaluate(Positive(), data, 0.1, ["ifgsm-1"], task=task, names=given)
    assert len(found.cases) == 4
    assert alone.cases == ()
    assert found.adi() == pytest.approx(alone.adi())
    assert 3 < width(found.interval()) / width(alone.interval()) < 4
    clean = found.of_attack()
    assert len(set(zip(clean["case"].tolist(), clean["slice"].tolist(), strict=True))) == 40
    assert all(row.slice >= 0 for row in found.rows)
    assert all((row.case, row.slice) == ("", -1) for row in alone.rows)


@pytest.mark.parametrize("way", WAYS)
def test_the_interval_of_an_accuracy_is_over_cases(way: str) -> None:
    # Cases are wholly right or wholly wrong: 40 samples are worth 4 - 1.
    x = torch.tensor([1.0, 1, -1, 1]).repeat_interleave(10)[:, None]
    y, names = torch.ones(40).long(), [f"patient {i // 10}" for i in range(40)]
    data, given = WAYS[way](x, y, names)
    found = evaluate(Positive(), data, 0.1, ["ifgsm-1"], names=given)
    assert found.accuracy() == 0.75
    assert found.interval() == pytest.approx(wilson(0.75, 3))
    assert found.interval("ifgsm-1", 0.1) == pytest.approx(wilson(0.75, 3))
    assert len({row.case for row in found.rows}) == 4
    alone = evaluate(Positive(), TensorDataset(x, y), 0.1, ["ifgsm-1"])
    assert alone.interval() == wilson(0.75, 40)
    assert (len(found.cases), alone.cases) == (4, ())


@pytest.mark.parametrize("task", [None, Segmentation()])
def test_pages_say_what_intervals_are_over(task: Any) -> None:
    from ima.report.words import OWN_CASES, told_cases

    x, y, names = slices()
    if task is None:
        x, y = x.flatten(1)[:, :1], y[:, 0, 0]
    alone, found = (
        evaluate(Positive(), TensorDataset(x, y), 0.1, ["ifgsm-1"], task=task, **more)
        for more in ({}, {"names": names})
    )
    assert (told_cases([alone]), told_cases([alone, found])) == (OWN_CASES, OWN_CASES)
    assert told_cases([found]).startswith("Intervals are over 4 cases")


def test_what_samples_of_cases_are_worth() -> None:
    # Independent samples, each a case of its own: about as many as there are.
    assert effective([(i % 2, 1) for i in range(100)]) == pytest.approx(99)
    # Half of each case right: less spread than by chance, and no more than there are.
    assert effective([(5, 10)] * 8) == 80
    assert effective([(10, 10)] * 7) == 7
    assert effective([(0, 10)] * 7) == 7
    assert effective([(9, 10)]) == 0
    # By hand: residuals of 1 and -1, share 0.5, variance 2/1 * 2 / 16.
    assert effective([(2, 2), (0, 2)]) == pytest.approx(0.25 / 0.25)
    row = Row(0, CLEAN, 0.0, 1.0, 0.0, "clean", "p", more={"label": 1, "prediction": 1})
    assert Results.of([row], Settings(norm="L2")).interval() == (0.0, 1.0)
    assert all(map(math.isnan, Results.of([], Settings(norm="L2")).interval()))


def test_intervals_over_cases_cover() -> None:
    # 30 cases of 10: each case has a share of its own, drawn around 0.7.
    draw, hits, naive = np.random.default_rng(0), 0, 0
    for _ in range(400):
        standing = draw.binomial(10, draw.beta(1.4, 0.6, 30))
        share = float(standing.sum()) / 300
        low, high = wilson(share, effective([(int(s), 10) for s in standing]))
        hits += low <= 0.7 <= high
        low, high = wilson(share, 300)
        naive += low <= 0.7 <= high
    assert hits / 400 > 0.92
    assert naive / 400 < 0.75


@pytest.mark.parametrize("task", [None, Segmentation()])
def test_ids_are_those_of_the_user(task: Any) -> None:
    x, y, _ = slices(2, 3)
    if task is None:
        x, y = x.flatten(1)[:, :1], y[:, 0, 0]
    ids, kept = [11, 7, 5, 3, 2, 13], set[int]()

    def keep(example: Example) -> None:
        kept.add(example.id)

    found = evaluate(Positive(), TensorDataset(x, y), 0.1, ["ifgsm-1"], task=task, ids=ids)
    assert {row.id for row in found.rows} == set(ids)
    plain = evaluate(
        Positive(), TensorDataset(x, y), 0.1, ["ifgsm-1"], task=task, ids=ids, keep=keep
    )
    assert plain.rows == found.rows or repr(plain.rows) == repr(found.rows)
    assert kept <= set(ids) and (kept == set(ids) or task is None)
    assert not found.cases and all(row.case == "" for row in found.rows)


def test_names_may_change_between_a_stop_and_its_continuation(tmp_path: Path) -> None:
    x, y, names = slices(2, 3)
    data, task = TensorDataset(x, y), Segmentation()

    def go(data: Any, **more: Any) -> Results:
        return evaluate(Positive(), data, 0.1, ["ifgsm-1"], task=task, batch_size=2, **more)

    record = tmp_path / "record"
    go(data, partial=record)
    found = go(data, partial=record, names=names, ids=range(10, 16))
    assert repr(found.rows) == repr(go(data, names=names, ids=range(10, 16)).rows)
    triples = list(zip(x, y, names, strict=True))
    found = go(triples, partial=record, names=2)
    assert repr(found.rows) == repr(go(data, names=names).rows)


@pytest.mark.parametrize("entrance", ["classification", "segmentation"])
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"ids": range(5)}, ValueError, "ids are 5 for 6 samples"),
        ({"ids": [0, 1, 2, 3, 4, 4]}, ValueError, "ids hold 4 more than once"),
        ({"ids": list("abcdef")}, TypeError, "go into names"),
        ({"ids": [True] * 6}, TypeError, "whole numbers"),
        ({"names": ["a"] * 7}, ValueError, "names are 7 for 6 samples"),
        ({"names": [("a", 0)] * 6}, ValueError, r"names hold \('a', 0\) more than once"),
        ({"names": [("a", "b")] * 6}, TypeError, "pairs of case and number"),
        ({"names": [("a", 0), "a"] * 3}, TypeError, "all of one kind"),
        ({"names": (f"p{i}" for i in range(6))}, TypeError, "names are a generator"),
        ({"names": set("abcdef")}, TypeError, "names are a set"),
        ({"names": [None] * 6}, TypeError, "the case of a sample is None"),
        ({"names": [math.nan] * 6}, TypeError, "the case of a sample is nan"),
        ({"names": [""] * 6}, TypeError, "the case of a sample is ''"),
        ({"names": "who"}, ValueError, "at 'who' of every sample, but one holds 2 values"),
        ({"names": 2}, ValueError, "at 2 of every sample"),
        ({"classes": ["a", "b", "c"]}, ValueError, r"\]; the task has [12] of this network"),
        ({"classes": ["a", "a"]}, ValueError, "classes hold 'a' more than once"),
        ({"classes": [1, 2]}, TypeError, "a name for every class"),
        ({"classes": "ab"}, TypeError, "classes are a str"),
    ],
)
def test_what_does_not_fit_is_refused_before_work(
    entrance: str, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    x, y, _ = slices(2, 3)
    task = Segmentation() if entrance == "segmentation" else None
    if task is None:
        x, y = x.flatten(1)[:, :1], y[:, 0, 0]
    done: list[int] = []
    with pytest.raises(error, match=words):
        evaluate(
            *(Positive(), TensorDataset(x, y), 0.1, ["ifgsm-1"]),
            task=task,
            batch_size=2,
            progress=lambda number, _: done.append(number),
            **arguments,
        )
    assert not done


MASK = Segmentation()


@pytest.mark.parametrize("way", ["set", "loader", "batches", "list", "dicts"])
@pytest.mark.parametrize("task", [None, MASK])
def test_cases_are_neither_samples_nor_targets(task: Any, way: str) -> None:
    x, y, _ = slices(2, 3)
    if task is None:
        x, y = x.flatten(1)[:, :1], y[:, 0, 0]
    pairs = list(zip(x, y, strict=True))
    data: Any = {
        "set": TensorDataset(x, y),
        "loader": DataLoader(TensorDataset(x, y), batch_size=4),
        "batches": [(x, y)],
        "list": pairs,
        "dicts": [{"image": a, "label": b} for a, b in pairs],
    }[way]
    for at, what in ((0, "samples x"), (1, "targets y"), (-1, "targets y"), (-2, "samples x")):
        at = ("image", "label")[at] if way == "dicts" else at
        with pytest.raises(ValueError, match=f"at '?{at}'?, but there are the {what}"):
            evaluate(Positive(), data, 0.1, ["ifgsm-1"], task=task, names=at)


@pytest.mark.parametrize("dicts", [False, True])
def test_a_case_is_no_picture(dicts: bool) -> None:
    x, y, _ = slices(2, 3)
    for other in (x, x[:, 0, 0], x.numpy(), x[:, :1, 0, 0]):
        samples = list(zip(x, y, other, strict=True))
        data: Any = [{"image": a, "label": b, "m": c} for a, b, c in samples] if dicts else samples
        for of in (data, DataLoader(data, batch_size=4)):
            with pytest.raises(TypeError, match=r"the case of a sample is a .{,40}; expected"):
                evaluate(*(Positive(), of, 0.1, ["ifgsm-1"]), task=MASK, names="m" if dicts else 2)


@pytest.mark.parametrize("way", ["list", "pairs", "place", "key"])
def test_names_are_of_one_kind(way: str) -> None:
    x, y, _ = slices(2, 3)
    names: list[Any] = [1, 1, 1, "1", "1", "1"]
    data, given = WAYS[way](x, y, names)
    with pytest.raises(TypeError, match="names hold text and numbers"):
        evaluate(Positive(), data, 0.1, ["ifgsm-1"], task=MASK, names=given, batch_size=3)
    kinds = [np.int64(1), torch.tensor(1), 1, np.array(2), 2, 2]
    data, given = WAYS[way](x, y, kinds)
    if way in ("place", "key"):
        found = evaluate(Positive(), data, 0.1, ["ifgsm-1"], task=MASK, names=given)
        assert set(found.cases) == {"1", "2"}


@pytest.mark.parametrize("count", [5, 7])
def test_names_of_data_without_a_length_are_counted(count: int) -> None:
    x, y, _ = slices(2, 3)
    stream = (one for one in zip(x, y, strict=True))
    with pytest.raises(ValueError, match=f"names are {count} for 6"):
        evaluate(Positive(), stream, 0.1, ["ifgsm-1"], task=Segmentation(), names=["a"] * count)


def test_cases_and_classes_survive_the_file(tmp_path: Path) -> None:
    x = torch.tensor([[1.0], [1], [-1], [1]])
    given: dict[str, Any] = {"names": ['a, "b"', 'a, "b"', "é", "é"], "classes": ["no", "yes"]}
    found = evaluate(Positive(), TensorDataset(x, torch.ones(4).long()), 0.1, ["ifgsm-1"], **given)
    found.to_csv(tmp_path / "results.csv")
    again = Results.from_csv(tmp_path / "results.csv")
    assert repr(again.rows) == repr(found.rows) and again.interval() == found.interval()
    assert again.settings.classes == again.classes == ("no", "yes")
    # Files without cases have no column of them.
    evaluate(Positive(), TensorDataset(x, torch.ones(4).long()), 0.1, ["ifgsm-1"]).to_csv(
        tmp_path / "plain.csv"
    )
    head = (tmp_path / "plain.csv").read_text().splitlines()[0]
    assert head == "id,attack,eps,quality,size,kind,label,prediction,confidence"
    head = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()[0]
    assert head == "id,attack,eps,quality,size,kind,case,slice,label,prediction,confidence"


def test_the_page_says_over_what_intervals_are(tmp_path: Path) -> None:
    from ima.report.words import OWN_CASES

    x = torch.tensor([1.0, 1, -1, 1]).repeat_interleave(10)[:, None]
    y = torch.arange(40) % 2
    x = torch.where(y[:, None] == 1, x, -x)
    names = [f"p{i // 10}" for i in range(40)]
    attacks = ["ifgsm-1", "white-2"]
    data = TensorDataset(x, y)
    told = evaluate(Positive(), data, 0.1, attacks, names=names, classes=["no", "yes"])
    told.to_html(tmp_path / "told.md")
    page = (tmp_path / "told.md").read_text(encoding="utf-8")
    assert "Intervals are over 4 cases" in page and OWN_CASES not in page and "yes" in page
    low, high = wilson(0.75, 3)
    assert f"{100 * low:.1f} to {100 * high:.1f}" in page
    told.to_html(tmp_path / "told.json")
    (network,) = json.loads((tmp_path / "told.json").read_text())["networks"]
    clean = network["accuracy"]["results"][0]
    assert (clean["low"], clean["high"]) == pytest.approx((low, high))
    evaluate(Positive(), data, 0.1, attacks).to_html(tmp_path / "alone.html")
    assert OWN_CASES in (tmp_path / "alone.html").read_text(encoding="utf-8")
    x, y, names = slices()
    for more, words in (({}, OWN_CASES), ({"names": names}, "40 slices of 4 cases")):
        found = evaluate(
            Positive(), TensorDataset(x, y), 0.1, ["ifgsm-1"], task=Segmentation(), **more
        )
        found.to_html(tmp_path / "page.md")
        assert words in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_several_volumes_of_a_case_are_volumes(tmp_path: Path) -> None:
    x, y, names = slices(2, 2)
    found = evaluate(
        *(Positive(), TensorDataset(x[:, :, None], y[:, None]), 0.1, ["ifgsm-1"]),
        task=Segmentation(),
        names=names,
    )
    found.to_html(tmp_path / "page.md")
    assert "4 volumes of 2 cases" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_smallest_noise_has_the_ids_of_the_user() -> None:
    x = torch.tensor([[1.0], [-0.5]])
    found = minimal(Positive(), TensorDataset(x, torch.tensor([1, 0])), 1.0, ids=[5, 4])
    assert [row.id for row in found.rows] == [5, 4]
    with pytest.raises(ValueError, match="ids are 1 for 2 samples"):
        minimal(Positive(), TensorDataset(x, torch.tensor([1, 0])), 1.0, ids=[5])
