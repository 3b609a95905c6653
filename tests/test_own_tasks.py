"""Tasks of a user's own through every entrance: what is written is read back equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from own_tasks import OWN_TASKS, Base, Samples, problem
from torch import Tensor, nn

from ima import Distances, Results, evaluate, minimal, run_checks
from ima.evaluation.examples import Examples

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
        assert _same(row.label, _at(data.y, row.id)) and _same(row.prediction, _at(said, row.id))
    assert bool(found.by_class()) == OWN_TASKS[name].classes


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
    if name == "detection":
        with pytest.raises(ValueError, match="targets as one tensor; the data gave a dict.*side by side"):
            run_checks(model, data, [0.1], **asked)
    else:
        assert len(run_checks(model, data, [0.1], **asked).checks) > 5


@pytest.mark.parametrize("name", OWN_TASKS)
def test_samples_for_pictures_are_kept(name: str, tmp_path: Path) -> None:
    model, data, task = problem(name)
    examples = Examples(5, 2, tmp_path / "record", "mark")
    evaluate(model, data, [0.4], ["pgd-4"], norm="linf", task=task, keep=examples.keep)
    examples.save()
    again = Examples(5, 2, tmp_path / "record", "mark")
    assert [e.label for e in again.all()] == [e.label for e in examples.new]
    assert [e.prediction for e in again.all()] == [e.prediction for e in examples.new]


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
    passes: list[Any] = []
    model.register_forward_hook(lambda *_: passes.append(None))
    with pytest.raises(TypeError, match=words):
        entrance(model, data, [0.1], norm="linf", task=task)
    assert len(passes) == 1


@pytest.mark.parametrize(
    "cell", ["cat", '"cat"', "null", "", "1,2", "[1", "[" * 5000, '{"a": "b"}', "[null]"]
)
def test_a_cell_that_is_no_value_is_refused(cell: str, tmp_path: Path) -> None:
    model, data, task = problem("regression", 4)
    file = tmp_path / "results.csv"
    evaluate(model, data, [0.1], ["pgd-1"], norm="linf", task=task).to_csv(file)
    lines = file.read_text().splitlines()
    first = lines[2].split(",")
    quoted = cell.replace('"', '""')
    lines[2] = ",".join([first[0], f'"{quoted}"', *first[2:]])
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="is damaged"):
        Results.from_csv(file)
