"""Tasks of a user's own through every entrance: what is written is read back equal."""

from __future__ import annotations

import csv
import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from by_hand import sign
from nets import seeded
from own_tasks import OWN_TASKS, Base, Samples, problem
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ima import (
    Classification,
    Distances,
    Results,
    Segmentation,
    Task,
    evaluate,
    minimal,
    run_checks,
)
from ima.attacks import bpgd, ddn, ifgsm, pgd
from ima.evaluation.pictures import Worded
from ima.methods import METHODS
from ima.tasks import given

ATTACKS = ("pgd-4", "ifgsm-2", "noise-3")


@pytest.mark.parametrize("name", OWN_TASKS)
def test_an_evaluation_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    model, data, task = problem(name)
    kept: list[Any] = []
    found = evaluate(
        model, data, [0.05, 0.4], ATTACKS, norm="linf", task=task, batch_size=10, keep=kept.append
    )
    assert kept and {example.id for example in kept} == set(range(1, len(data)))
    found.to_csv(tmp_path / "results.csv")
    again = Results.from_csv(tmp_path / "results.csv")
    assert repr(again.rows) == repr(found.rows)
    assert again.attacks == (*ATTACKS, "worst case") and again.accuracy() == 23 / 24
    assert again.accuracy("worst case", 0.4) <= again.accuracy("pgd-4", 0.4) < 23 / 24
    with torch.no_grad():
        said = task.predict(model(data.x))
    for row in found.rows[:24]:
        assert _same(row.more["label"], _at(data.y, row.id))
        assert _same(row.more["prediction"], _at(said, row.id))
    for part in (found.classes, found.per_class(), found.counts()):
        assert bool(part) == OWN_TASKS[name].classes


def _at(tree: Any, at: int) -> Any:
    return {k: v[at] for k, v in tree.items()} if isinstance(tree, dict) else tree[at]


def _same(value: Any, tensor: Any) -> bool:
    if isinstance(tensor, dict):
        return value.keys() == tensor.keys() and all(_same(value[k], tensor[k]) for k in tensor)
    # In another batch a sum may round differently.
    return bool(torch.isclose(torch.tensor(value).to(tensor), tensor, atol=1e-5).all())


@pytest.mark.parametrize("name", OWN_TASKS)
def test_pages_leave_classes_away_where_labels_are_none(name: str, tmp_path: Path) -> None:
    model, data, task = problem(name)
    found = evaluate(model, data, [0.05, 0.4], ["pgd-4"], norm="linf", task=task)
    for form in ("html", "md", "json"):
        found.to_html(tmp_path / f"page.{form}")
    page, told = (tmp_path / "page.md").read_text(), "The labels are no classes"
    assert (told in page) != OWN_TASKS[name].classes
    assert ("Accuracy by class" in page) == OWN_TASKS[name].classes
    by_class = json.loads((tmp_path / "page.json").read_text())["networks"][0]["by_class"]
    assert bool(by_class) == OWN_TASKS[name].classes


@pytest.mark.parametrize("name", OWN_TASKS)
def test_distances_are_read_as_they_were_written(name: str, tmp_path: Path) -> None:
    model, data, task = problem(name)
    found = minimal(model, data, [0.1, 0.4], norm="linf", task=task)
    assert sum(d < float("inf") for d in found.values) > 12 and found.rows[0].attack == "clean"
    found.to_csv(tmp_path / "distances.csv")
    assert repr(Distances.from_csv(tmp_path / "distances.csv").rows) == repr(found.rows)


@pytest.mark.parametrize("name", OWN_TASKS)
def test_a_stopped_evaluation_continues_to_the_same_rows(name: str, tmp_path: Path) -> None:
    model, data, task = problem(name)
    asked: dict[str, Any] = {"norm": "linf", "task": task, "batch_size": 8}
    whole = evaluate(model, data, [0.05, 0.4], ATTACKS, **asked)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    record = tmp_path / "record"
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, data, [0.05, 0.4], ATTACKS, **asked, partial=record, progress=stop)
    again = evaluate(model, data, [0.05, 0.4], ATTACKS, **asked, partial=record)
    assert repr(again.rows) == repr(whole.rows)


@pytest.mark.parametrize("name", OWN_TASKS)
def test_checks_run_or_say_what_they_need(name: str) -> None:
    model, data, task = problem(name)
    asked: dict[str, Any] = {"norm": "linf", "task": task, "samples": 10, "steps": 2}
    found = run_checks(model, data, [0.1], **asked)
    assert len(found.checks) > 5
    assert (found.settings.samples, found.settings.right, found.settings.total) == (10, 23, 24)
    assert {check.name for check in found.checks if check.tripped is None} >= {"black-box"}
    assert all(check.tripped in (True, False, None) for check in found.checks)


@pytest.mark.parametrize("name", OWN_TASKS)
def test_samples_for_pictures_are_kept(name: str, tmp_path: Path) -> None:
    model, data, task = problem(name)
    words = given(task, "words")
    examples = Worded(tmp_path / "record", "mark", 1, words)
    evaluate(model, data, [0.4], ["pgd-4"], norm="linf", task=task, keep=examples.keep)
    kept = list(examples.new)
    examples.save(1)
    again = Worded(tmp_path / "record", "mark", 1, words)
    assert len(kept) == 23
    for key in ("id", "label", "prediction", "clean_prediction", "quality", "clean_quality"):
        assert [picture[key] for picture in again.all()] == [picture[key] for picture in kept]
    # What is left says them in words.
    again.write(tmp_path, [], "")
    with np.load(tmp_path / "examples.npz", allow_pickle=False) as found:
        assert found["id"].tolist() == list(range(1, 24))
        assert all(isinstance(label, str) and label for label in found["label"].tolist())


# --- What a task must give ------------------------------------------------------------------------


class Returns(Base):
    """Gives what it is told to."""

    def __init__(self, *, correct: Any = None, predict: Any = None) -> None:
        self._correct, self._predict = correct, predict

    def score(self, output: Any, target: Any) -> Tensor:
        return output[:, 0]

    def correct(self, output: Any, target: Any) -> Any:
        return (output[:, 0] > 0) if self._correct is None else self._correct(output)

    def predict(self, output: Any) -> Any:
        return (output[:, 0] > 0) if self._predict is None else self._predict(output)


class Keeps(Returns):
    """Keeps what it is told to."""

    def __init__(self, keep: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.keep = keep

    def columns(self, output: Any, target: Any) -> Any:
        return self.keep(output)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (lambda o: {"id": o[:, 0]}, "the column 'id', a name that results have"),
        (lambda o: {"mine": o, "eps": o}, "the column 'eps', a name that results have"),
        (lambda o: {"parts": o}, "the column 'parts', a name"),
        (lambda o: {"mine": o[:2]}, r"gave, as 'mine', .*\(2, 2\).*first dimension"),
        (lambda _: {"mine": None}, r"gave, as 'mine', .*NoneType"),
        (lambda o: {3: o}, "columns gave .*expected a dict of columns by their names"),
        (lambda o: o, "columns gave .*expected a dict of columns"),
        (lambda _: None, "columns gave NoneType; expected a dict of columns"),
    ],
)
def test_columns_that_results_cannot_hold_are_refused(
    keep: Callable[[Tensor], Any], words: str
) -> None:
    model, data = (
        nn.Sequential(nn.Flatten(), nn.Linear(16, 2)),
        Samples(torch.rand(12, 1, 4, 4), torch.zeros(12)),
    )
    with pytest.raises((TypeError, ValueError), match=words):
        evaluate(model, data, [0.1], norm="linf", task=Keeps(keep))


@pytest.mark.parametrize("entrance", [evaluate, minimal])
@pytest.mark.parametrize(
    ("task", "words"),
    [
        (Returns(correct=lambda o: (o[:, 0] > 0).long()), r"correct gave torch.int64 .*bool"),
        (Returns(correct=lambda o: o > 0), r"correct gave torch.bool of shape \(12, 2\)"),
        (Returns(correct=lambda _: True), "correct gave bool"),
        (Returns(correct=lambda o: o[:1, 0] > 0), r"correct gave torch.bool of shape \(1,\)"),
        (Returns(predict=lambda o: o[0]), r"predict gave .*\(2,\).*first dimension"),
        (Returns(predict=lambda o: o.sum()), r"predict gave .*first dimension"),
        (Returns(predict=lambda o: {"a": o, "b": o[:3]}), r"predict gave .*first dimension"),
        (Returns(predict=lambda o: ["cat"] * len(o)), "predict gave .*list of str"),
        (Returns(predict=lambda _: None), "predict gave .*NoneType"),
    ],
)
def test_a_task_that_gives_something_else_is_refused_before_any_work(
    task: Any, words: str, entrance: Any
) -> None:
    x = torch.rand(12, 1, 4, 4)
    data = Samples(x, torch.zeros(12))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    attacked: list[bool] = []
    model.register_forward_hook(lambda _, given, __: attacked.append(given[0].requires_grad))
    with pytest.raises(TypeError, match=words):
        entrance(model, data, [0.1], norm="linf", task=task)
    # One pass tells how the model ends.
    assert attacked and sum(attacked) <= 1


class Bare:
    """A task without a base, and without `objective`: the middle of the outputs is at least y."""

    def check(self, output: Any, target: Any) -> None:
        """Anything goes."""

    def loss(self, output: Any, target: Any) -> Tensor:
        return F.softplus(-self.score(output, target))

    def correct(self, output: Any, target: Any) -> Tensor:
        return self.score(output, target) > 0

    def score(self, output: Any, target: Any) -> Tensor:
        return output.mean(1) - target

    def predict(self, output: Any) -> Tensor:
        return output.mean(1)


class Based(Task):
    """The same with the library's base, which has `check` and `objective`."""

    loss, correct, score, predict = Bare.loss, Bare.correct, Bare.score, Bare.predict


class Full(Bare):
    """The same with an `objective` that is the loss."""

    objective = Bare.loss


def made(**functions: Any) -> Any:
    """A task as above, some of whose functions are others."""
    return type("Mine", (Bare,), functions)()


N = 12


def right_net() -> tuple[nn.Module, Tensor, Tensor]:
    """A network, samples that it has right, and their targets."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.fill_(0.1)
        model[1].bias.fill_(0.0)
    x = torch.rand(N, 1, 4, 4, generator=seeded(1))
    return model, x, model(x).mean(1).detach() - 0.1


def _evaluated(attack: str) -> Any:
    def run(model: nn.Module, x: Tensor, y: Tensor, task: Any, norm: str) -> Any:
        found = evaluate(model, TensorDataset(x, y), [0.02, 0.2], [attack], norm=norm, task=task)
        return [(row.broken, row.size) for row in found.rows]

    return run


def _minimal(model: nn.Module, x: Tensor, y: Tensor, task: Any, norm: str) -> Any:
    return minimal(model, TensorDataset(x, y), [0.2], norm=norm, task=task).values


def _checked(model: nn.Module, x: Tensor, y: Tensor, task: Any, norm: str) -> Any:
    data = TensorDataset(x, y)
    found = run_checks(model, data, [0.1], norm=norm, task=task, samples=8, steps=2)
    return [(check.name, check.tripped, check.sentence) for check in found.checks]


def _attacked(attack: Any) -> Any:
    def run(model: nn.Module, x: Tensor, y: Tensor, task: Any, norm: str) -> Any:
        how = {"radius": 0.2} if attack is ddn else {"eps": 0.2}
        return attack(model, x, y, norm=norm, task=task, steps=3, **how).x.tolist()

    return run


ENTRANCES = {
    "evaluate pgd": _evaluated("pgd-4"),
    "evaluate ifgsm": _evaluated("ifgsm-2"),
    "minimal": _minimal,
    "checks": _checked,
    "pgd": _attacked(pgd),
    "bpgd": _attacked(bpgd),
    "ddn": _attacked(ddn),
    "ifgsm": _attacked(ifgsm),
}


def _trained(name: str) -> Any:
    def run(model: nn.Module, x: Tensor, y: Tensor, task: Any, norm: str) -> Any:
        asked = {"eps": 0.1, "norm": norm, "steps": 3, "num_samples": N, "delta": 0.02}
        of = METHODS[name].method
        known = inspect.signature(of.__init__).parameters
        method = of(task=task, **{k: v for k, v in asked.items() if k in known})
        model.train()
        step = method(model, x, y, torch.arange(N))
        return {key: float(value) for key, value in step.metrics.items()}

    return run


TRAINED = {
    name: _trained(name)
    for name in ("standard", "sat", "ima", "fat", "gairat", "iaat", "curriculum", "dat")
}
EVERYWHERE = ENTRANCES | TRAINED


@pytest.mark.parametrize("norm", ["2", "linf"])
@pytest.mark.parametrize("task", [Bare(), Based()], ids=["no base", "base"])
@pytest.mark.parametrize("entrance", EVERYWHERE)
def test_without_an_objective_attacks_raise_the_loss(entrance: str, task: Any, norm: str) -> None:
    run = EVERYWHERE[entrance]
    expected = run(*right_net(), Full(), norm)
    assert repr(run(*right_net(), task, norm)) == repr(expected)


def test_the_base_asks_for_what_has_no_default() -> None:
    class Half(Task):
        loss, correct, score = Bare.loss, Bare.correct, Bare.score

    with pytest.raises(TypeError, match="predict"):
        Half()  # pyright: ignore[reportAbstractUsage]


class NoCheck:
    loss, correct, score, predict = Bare.loss, Bare.correct, Bare.score, Bare.predict


@pytest.mark.parametrize("entrance", EVERYWHERE)
@pytest.mark.parametrize(
    ("task", "words"),
    [
        (Bare, r"task is the class Bare; expected a task: Bare\(\)"),
        (Segmentation, r"task is the class Segmentation; .*Segmentation\(\)"),
        (Classification, r"task is the class Classification; .*Classification\(\)"),
        ("segmentation", r"task is 'segmentation'; expected a task: .*Segmentation\(\)"),
        (nn.CrossEntropyLoss(), "task is a CrossEntropyLoss; expected a task"),
        (NoCheck(), "the task NoCheck has no function check; expected check, loss, correct"),
        (made(score=None), "the task Mine has no function score"),
    ],
)
def test_what_is_no_task_is_refused_at_once(task: Any, words: str, entrance: str) -> None:
    _, x, y = right_net()
    with pytest.raises(TypeError, match=words):
        EVERYWHERE[entrance](nn.Identity(), x, y, task, "linf")


def _plain(output: Any, target: Any) -> Tensor:
    return F.softplus(target - output.mean(1))


def _loss(self: Any, output: Any, target: Any) -> Tensor:
    return _plain(output, target)


def _column(self: Any, output: Any, target: Any) -> Tensor:
    return _plain(output, target)[:, None]


def _mean(self: Any, output: Any, target: Any) -> Tensor:
    return _plain(output, target).mean()


def _two(self: Any, output: Any, target: Any) -> Tensor:
    return F.softplus(target[:, None] - output)


def _whole(self: Any, output: Any, target: Any) -> Tensor:
    return _plain(output, target).long()


def _list(self: Any, output: Any, target: Any) -> Any:
    return _plain(output, target).tolist()


SHAPES = {"column": _column, "mean": _mean, "two": _two, "whole numbers": _whole, "list": _list}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("function", ["loss", "score", "objective"])
@pytest.mark.parametrize("entrance", EVERYWHERE)
def test_what_is_not_one_number_a_sample_is_refused(
    entrance: str, function: str, shape: str
) -> None:
    task = made(**{"loss": _loss, "correct": _above, function: SHAPES[shape]})
    if function not in _follows(entrance):
        EVERYWHERE[entrance](*right_net(), task, "linf")
        return
    named = r"(the task Mine\.\w+|what the attack raises) gave "
    with pytest.raises(TypeError, match=named + r".* for \d+ samples; expected one number for"):
        EVERYWHERE[entrance](*right_net(), task, "linf")


def _above(self: Any, output: Any, target: Any) -> Tensor:
    return output.mean(1) > target


def _follows(entrance: str) -> tuple[str, ...]:
    """Which functions of a task an entrance asks."""
    if entrance in ENTRANCES or entrance == "ima":
        return ("loss", "score", "objective")
    return ("loss",) if entrance in ("standard", "curriculum", "dat") else ("loss", "objective")


@pytest.mark.parametrize("function", ["score", "objective"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_a_score_that_is_no_number_is_refused(entrance: str, value: float, function: str) -> None:
    def strange(self: Any, output: Any, target: Any) -> Tensor:
        # Of one sample only, and with a graph.
        found = Bare.score(self, output, target)
        return torch.where(target == target.amin(), value, found)

    task = made(**{function: strange}, correct=_above)
    with pytest.raises(
        ValueError, match=rf"Mine\.{function} gave {value} for sample \d+ of a batch"
    ):
        ENTRANCES[entrance](*right_net(), task, "linf")


@pytest.mark.parametrize("entrance", ["evaluate pgd", "evaluate ifgsm", "minimal", "checks"])
def test_a_score_that_ends_beside_the_data_is_refused(entrance: str) -> None:
    def ends(self: Any, output: Any, target: Any) -> Tensor:
        # A number at the samples alone, whose margin is 0.1.
        return (Bare.score(self, output, target) - 0.09999).sqrt()

    def stands(self: Any, output: Any, target: Any) -> Tensor:
        return output.mean(1) > target - 9

    task = made(score=ends, loss=lambda self, o, t: -ends(self, o, t), correct=stands)
    model, x, y = right_net()
    with pytest.raises(ValueError, match="gave nan for sample"):
        ENTRANCES[entrance](model, x, y, task, "linf")


def test_infinite_scores_of_masked_outputs_stay_allowed() -> None:
    model, x, _ = right_net()
    masks = nn.Sequential(model, Masked())
    mine = type("Mine", (Classification,), {})()
    data = TensorDataset(x, torch.zeros(N, dtype=torch.long))
    found = evaluate(masks, data, [0.1], ["pgd-2"], task=mine)
    assert found.accuracy() == 1.0


class Masked(nn.Module):
    """All classes but the first are ruled out."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :1], torch.full_like(x[:, 1:], -torch.inf)], 1)


@pytest.mark.parametrize("entrance", ["evaluate pgd", "minimal", "pgd", "ddn", "bpgd"])
def test_a_score_without_a_gradient_is_refused(entrance: str) -> None:
    def counted(self: Any, output: Any, target: Any) -> Tensor:
        return _above(self, output, target).float() - 0.5

    task = made(score=counted, loss=counted)
    with pytest.raises(TypeError, match="what the attack raises has no gradient"):
        ENTRANCES[entrance](*right_net(), task, "linf")


@pytest.mark.parametrize("name", TRAINED)
def test_a_loss_without_a_gradient_cannot_be_trained(name: str) -> None:
    def detached(self: Any, output: Any, target: Any) -> Tensor:
        return Bare.loss(self, output, target).detach()

    with pytest.raises(TypeError, match=r"(Mine\.loss|what the attack raises) has no gradient"):
        TRAINED[name](*right_net(), made(loss=detached, objective=Bare.loss), "linf")


@pytest.mark.parametrize("name", TRAINED)
def test_methods_too_say_what_correct_gave(name: str) -> None:
    def numbers(self: Any, output: Any, target: Any) -> Tensor:
        return _above(self, output, target).float()

    with pytest.raises(
        TypeError, match=r"Mine\.correct gave torch.float32 .*expected whether each"
    ):
        TRAINED[name](*right_net(), made(correct=numbers), "linf")


@pytest.mark.parametrize("entrance", ["evaluate pgd", "minimal", "checks"])
@pytest.mark.parametrize("what", ["predict", "targets"])
def test_complex_numbers_are_refused_before_any_work(what: str, entrance: str) -> None:
    model, x, y = right_net()

    def score(self: Any, output: Any, target: Any) -> Tensor:
        return output.mean(1) - target.real

    def predict(self: Any, output: Any) -> Any:
        said = output.mean(1)
        return {"z": torch.complex(said, said)} if what == "predict" else said

    task = made(score=score, predict=predict)
    given = y.to(torch.complex64) if what == "targets" else y
    attacked: list[bool] = []
    model.register_forward_hook(lambda _, came, __: attacked.append(came[0].requires_grad))
    with pytest.raises(TypeError, match="results hold no complex numbers"):
        ENTRANCES[entrance](model, x, given, task, "linf")
    assert sum(attacked) <= 1


def test_complex_labels_are_no_classes() -> None:
    model, x, _ = right_net()
    y = torch.zeros(N, dtype=torch.complex64)
    with pytest.raises(TypeError, match="expected integer class labels"):
        evaluate(model, TensorDataset(x, y), [0.1], ["pgd-1"])


@pytest.mark.parametrize("y", [torch.ones(N, 3), torch.ones(N, 3, dtype=torch.long)])
def test_labels_of_several_findings_name_their_task(y: torch.Tensor) -> None:
    model, x, _ = right_net()
    with pytest.raises(TypeError, match=r"pass task=MultiLabel\(\), or --task multilabel"):
        evaluate(model, TensorDataset(x, y), [0.1], ["pgd-1"])


@pytest.mark.parametrize("y", [torch.eye(3).repeat(N, 1)[:N], torch.eye(3).long().repeat(N, 1)[:N]])
def test_one_finding_a_sample_is_told_both_ways(y: torch.Tensor) -> None:
    model, x, _ = right_net()
    both = r"of shape \({}\) a sample.*pass {}\.argmax\(1\); .* pass task=MultiLabel\(\)"
    deep = both.format("1, 3", r"y\.flatten\(1\)")
    with pytest.raises(TypeError, match=both.format("3,", "y")):
        evaluate(model, TensorDataset(x, y), [0.1], ["pgd-1"])
    with pytest.raises(TypeError, match=deep):
        evaluate(model, TensorDataset(x, y[:, None]), [0.1], ["pgd-1"])
    # Where x begins with a 1 too, such an item is a batch of one.
    for items, said in ((x, both.format("3,", "y")), (x.expand(-1, 2, 4, 4)[..., :2], deep)):
        with pytest.raises(TypeError, match=said):
            evaluate(model, list(TensorDataset(items, y[:, None])), [0.1], ["pgd-1"])


@pytest.mark.parametrize("listed", [False, True])
def test_labels_in_a_column_are_named_as_they_came(listed: bool) -> None:
    data = TensorDataset(torch.rand(N, 4), torch.zeros(N, 1).long())
    with pytest.raises(TypeError, match=r"int64 of shape \(1,\) a sample.*pass y\.reshape\(-1\)"):
        evaluate(nn.Linear(4, 2), list(data) if listed else data, [0.1], ["pgd-1"])


@pytest.mark.parametrize("name", OWN_TASKS)
def test_names_of_classes_go_with_classes_only(name: str) -> None:
    model, data, task = problem(name)
    asked: dict[str, Any] = {"norm": "linf", "task": task}
    seven = [f"grade {i}" for i in range(7)]
    if OWN_TASKS[name].classes:
        found = evaluate(model, data, [0.1], ["pgd-1"], classes=seven, **asked)
        assert found.settings.classes == found.classes == tuple(seven)
        seven = seven[:1]
    with pytest.raises(
        ValueError, match=r"classes are .*targets (are no classes|hold \d; expected)"
    ):
        evaluate(model, data, [0.1], ["pgd-1"], classes=seven, **asked)


@pytest.mark.parametrize(
    "cell", ["cat", '"cat"', "null", "", "1,2", "[1", "[" * 5000, '{"a": "b"}', "[null]"]
)
@pytest.mark.parametrize("name", ["regression", "tags"])
def test_a_cell_that_is_no_value_is_refused(cell: str, name: str, tmp_path: Path) -> None:
    model, data, task = problem(name, 4)
    file = tmp_path / "results.csv"
    evaluate(model, data, [0.1], ["pgd-1"], norm="linf", task=task).to_csv(file)
    with file.open(newline="") as opened:
        rows = list(csv.reader(opened))
    rows[1][rows[0].index("label")] = cell
    with file.open("w", newline="") as opened:
        csv.writer(opened, lineterminator="\n").writerows(rows)
    with pytest.raises(ValueError, match=r"results\.csv .*damaged"):
        Results.from_csv(file)
    # As if whoever wrote it had been wrong; of numbers an empty cell is NaN.
    sign(file)
    if (cell, name) != ("", "regression"):
        with pytest.raises(ValueError, match=r"results\.csv .*damaged"):
            Results.from_csv(file)
