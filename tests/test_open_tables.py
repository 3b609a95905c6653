"""What a user names by `module:name`: methods, networks, data sets and tasks of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from nets import load_weights
from test_cli import call
from test_training import Watch, same, train, untimed
from torch import Tensor

from ima import pgd
from ima.data import Part, load
from ima.data.flip import flip_labels
from ima.data.split import stratified
from ima.tasks import TASKS
from ima.training.build import build_model, load_splits
from ima.training.checkpoint import load_state
from ima.training.config import build_task, load_config, parse_config
from ima.training.config_errors import ConfigError
from ima.training.measuring import measure_margins
from ima.training.run import Run
from ima.training.same import fixed_settings, samples
from ima.training.trust import UntrustedError

CODE = """
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from ima import SAT, Classification, Standard, Task

Path(__file__).with_name("ran").touch()

N = 48


def x_of(seed):
    return torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def findings(path=None, seed=0):
    # Bright in three quarters of the image, each by itself; `path` spoils one target.
    parts = {}
    for at, role in enumerate(("train", "val", "test")):
        x = x_of(3 * seed + at)
        quarters = [x[..., :4, :4], x[..., :4, 4:], x[..., 4:, :4]]
        y = torch.stack([(q.flatten(1).mean(1) > 0.5).float() for q in quarters], 1)
        parts[role] = (x, y)
    if path == "spoilt":
        # Its mean stays.
        mixed = parts["train"][1].std(1).argmax()
        parts["train"][1][mixed] = parts["train"][1][mixed].roll(1)
    return {**parts, "classes": ["mass", "nodule", "edema"], "note": "Made up."}


def masks():
    made = {}
    for at, role in enumerate(("train", "val", "test")):
        x = x_of(at)
        made[role] = TensorDataset(x, (x[:, 0] > 0.6).long())
    return {**made, "classes": ("dark", "bright")}


def grades():
    return {role: (x_of(0), x_of(0).flatten(1).mean(1)) for role in ("train", "val", "test")}


def numbers():
    return {role: (x_of(0), torch.arange(N) % 3) for role in ("train", "val", "test")}


def unnamed():
    return {role: (x_of(0), x_of(0)[:, 0]) for role in ("train", "val", "test")}


def no_data():
    return [1, 2]


def needs(folder):
    return {}


def fails():
    raise KeyError("nothing here")


class Tags(Task):
    def __init__(self, *, weight: float = 1.0):
        self.weight = weight

    def loss(self, output, target):
        found = F.binary_cross_entropy_with_logits(output, target, reduction="none")
        return self.weight * found.mean(1)

    def correct(self, output, target):
        return self.score(output, target) > 0

    def score(self, output, target):
        return (output * (2.0 * target - 1)).amin(1)

    def predict(self, output):
        return output > 0

    def divergence(self, clean, noisy, target=None):
        p = torch.sigmoid(clean)
        return (p * (F.logsigmoid(clean) - F.logsigmoid(noisy))).sum(1)


class Near(Task):
    def loss(self, output, target):
        return (output[:, 0] - target) ** 2

    def correct(self, output, target):
        return self.score(output, target) > 0

    def score(self, output, target):
        return 0.05 - (output[:, 0] - target).abs()

    def predict(self, output):
        return output[:, 0]


def flat(channels, num_classes, *, width: int = 8):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64 * channels, width), nn.ReLU(), nn.Linear(width, num_classes)
    )


def pixels(channels, num_classes):
    return nn.Sequential(nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, num_classes, 1))


class Twice(SAT):
    def __init__(self, *, eps: float, times: int = 2, norm=2, bounds=None, task=None):
        super().__init__(eps=times * eps, norm=norm, bounds=bounds, steps=2, task=task)


class Deaf(Standard):
    def __init__(self):
        super().__init__()


class Loss(Standard):
    def __call__(self, model, x, y, ids):
        return super().__call__(model, x, y, ids).loss


def no_method():
    return 3


COUNT = 3
"""

KINDS: dict[str, tuple[str, ...]] = {
    "findings": ("data.name=mine:findings", "task.name=mine:Tags", "network={name: 'mine:flat'}"),
    "masks": ("data.name=mine:masks", "task.name=segmentation", "network={name: 'mine:pixels'}"),
    "grades": ("data.name=mine:grades", "task.name=mine:Near", "network={name: 'mine:flat'}"),
}

METHODS = {
    "standard": "method={name: standard}",
    "sat": "method={name: sat, eps: 0.2, steps: 2}",
    "ima": "method={name: ima, eps: 0.2, delta: 0.05, steps: 2}",
    "trades": "method={name: trades, eps: 0.2, steps: 2}",
    "own": "method={name: 'mine:Twice', eps: 0.1}",
}


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's own code; a file `ran` in it tells that the code has run."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mine.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("mine", None)
    return folder


def made(folder: Path, *overrides: str, kind: str = "findings", method: str = "sat") -> Run:
    small = ("train={epochs: 2, batch_size: 16}", "optimizer={lr: 0.01}", "evaluate.eps=[0.1]")
    return Run.create(
        folder, load_config("digits", [*small, *KINDS[kind], METHODS[method], *overrides])
    )


# --- Training with any task -----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_any_task_trains_and_validates_by_what_it_calls_correct(
    kind: str, method: str, tmp_path: Path
) -> None:
    if method == "trades" and kind != "findings":
        # Without a divergence; segmentation has one, and trains too.
        kind = "masks"
    run = train(made(tmp_path / "run", kind=kind, method=method))
    config = run.config()
    task, splits = build_task(config), load_splits(config)
    assert task is not None
    model = build_model(config, splits)
    model.load_state_dict(load_weights(run.weights("last")))
    x, y = splits.val[torch.arange(len(splits.val))]
    with torch.no_grad():
        right = task.correct(model.eval()(x), y)
    noisy = pgd(model, x, y, 0.1, steps=10, bounds=(0, 1), task=task)
    row = run.epochs()[-1]
    assert row["val_accuracy"] == pytest.approx(float(right.float().mean()))
    assert row["val_pgd"] == pytest.approx(float((right & ~noisy.crossed).float().mean()))
    assert run.environment()["samples"] == {"train": 48, "val": 48}


@pytest.mark.parametrize("method", ["ima", "own"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_any_task_that_was_stopped_continues_to_the_bit(
    kind: str, method: str, tmp_path: Path
) -> None:
    whole = train(made(tmp_path / "whole", kind=kind, method=method))
    stopped = made(tmp_path / "stopped", kind=kind, method=method)
    for watcher in (Watch(amid=(0, 2)), Watch(after=0)):
        with pytest.raises(KeyboardInterrupt):
            train(stopped, watcher=watcher)
    again = train(Run.open(stopped.folder, trust=True))
    assert untimed(again) == untimed(whole)
    for which in ("best", "last"):
        assert same(load_weights(again.weights(which)), load_weights(whole.weights(which)))
    assert same(load_state(again.state)["model"], load_state(whole.state)["model"])


def test_a_target_that_was_exchanged_is_told(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, watcher=Watch(after=0))
    path = run.folder / "config.yaml"
    path.write_text(path.read_text().replace("path: null", "path: spoilt"))
    with pytest.raises(ValueError, match="the labels of 1 of 48 "):
        train(Run.open(run.folder, trust=True))


def test_the_task_is_kept_with_the_run(tmp_path: Path) -> None:
    run = made(tmp_path / "run", "task.weight=2.0")
    with pytest.raises(KeyboardInterrupt):
        train(run, watcher=Watch(after=0))
    path = run.folder / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("weight: 2.0", "weight: 3.0"))
    with pytest.raises(ConfigError, match=r"task.weight was 2.0 and is 3.0"):
        train(Run.open(run.folder, trust=True))
    path.write_text(text)
    train(Run.open(run.folder, trust=True))


def test_old_configs_say_nothing_of_a_task_and_mean_classification(tmp_path: Path) -> None:
    config = load_config("digits")
    assert build_task(config) is None
    assert not [key for key in fixed_settings(config) if key.startswith("task")]
    values = config.model_dump(mode="json")
    del values["task"]
    assert parse_config(values) == config
    assert fixed_settings(parse_config(values)) == fixed_settings(
        load_config("digits", ["task={name: classification, walk: loss}"])
    )
    # And a run of theirs cannot become one of another task.
    other = fixed_settings(load_config("digits", ["task={name: classification, walk: margin}"]))
    assert other["task.walk"] == "margin"
    run = Run.create(tmp_path / "run", load_config("digits", ["train.epochs=2", "network.width=4"]))
    with pytest.raises(KeyboardInterrupt):
        train(run, watcher=Watch(after=0))
    path = run.folder / "config.yaml"
    path.write_text(
        path.read_text().replace("name: classification", "walk: margin\n  name: classification")
    )
    with pytest.raises(ConfigError, match=r"task\.walk was not given and is 'margin'"):
        train(Run.open(run.folder))


def test_margins_of_any_task_are_measured(tmp_path: Path) -> None:
    run = train(made(tmp_path / "run", method="ima"))
    found = measure_margins(run, samples=4, device="cpu")
    assert found.classes == ("right", "wrong")
    config = run.config()
    task, splits = build_task(config), load_splits(config)
    assert task is not None
    model = build_model(config, splits)
    model.load_state_dict(load_state(run.state)["model"])
    x, y = splits.train[torch.arange(48)]
    with torch.no_grad():
        right = task.correct(model.eval()(x), y)
    assert [row.prediction == row.label for row in found.rows] == right.tolist()
    assert sum(row.attack != "" for row in found.rows) == 4


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("task={name: segmentaton}",), "Did you mean 'segmentation'"),
        (("task={name: segmentation, threshold: high}",), "task.threshold"),
        (("task={name: segmentation, threshold: 2.0}",), "threshold is 2.0"),
        (("task={name: segmentation, treshold: 0.5}",), "did you mean 'task.threshold'"),
        (("task={name: 'mine:absent'}",), "has no attribute 'absent'"),
        (("task={name: 'mine:no_method'}",), "a int; expected a task"),
        (("task={name: 'mine:COUNT'}",), "is no class or function"),
        (("method={name: 'mine:Deaf'}", "task={name: segmentation}"), "takes no task"),
        (("method={name: mart, eps: 1.0}", "task={name: segmentation}"), "class probabilities"),
        (("method={name: 'mine:no_method'}",), "made an object of type int, which has no __call__"),
        (("method={name: 'mine:Twice'}",), "method.eps: missing"),
        (("method={name: 'mine:Twice', eps: 1.0, time: 3}",), "did you mean 'method.times'"),
        (("method={name: 'mine:Twice', eps: 1.0, times: many}",), "method.times"),
        (("method={name: 'no.such:Method'}",), "method 'no.such:Method' cannot be imported"),
        (("data.name=mine:absent",), "data set 'mine:absent' cannot be imported"),
        (("compare=[{label: A, method: {name: 'mine:absent'}}]",), "compare.0.method.name"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_its_key(overrides: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("digits", overrides)
    assert words.lower() in str(caught.value).lower()


def test_a_method_that_gives_no_step_is_named(tmp_path: Path) -> None:
    run = Run.create(
        tmp_path / "run", load_config("digits", ["method={name: 'mine:Loss'}", "train.epochs=1"])
    )
    with pytest.raises(TypeError, match=r"Loss returned Tensor; expected an ima\.Step"):
        train(run)


def test_images_are_not_moved_away_from_their_masks(tmp_path: Path) -> None:
    run = made(tmp_path / "run", "data.augment=[flip]", kind="masks")
    with pytest.raises(ValueError, match=r"data\.augment is flip, .* leave it out"):
        train(run)


# --- Data -----------------------------------------------------------------------------------------


def test_a_data_set_of_ones_own_is_a_dict_of_tensors_or_data_sets() -> None:
    found = load("mine:findings", seed=2)
    assert (found.name, found.classes, found.note) == (
        "mine:findings",
        ("mass", "nodule", "edema"),
        "Made up.",
    )
    assert (found.shape, found.num_classes) == ((1, 8, 8), 3)
    x, y = found.train[[0, 1]]
    assert (x.shape, y.shape, y.dtype) == ((2, 1, 8, 8), (2, 3), torch.float32)
    masks = load("mine:masks")
    assert masks.train[3][1].shape == (8, 8)
    assert load("mine:grades").num_classes == 1
    numbers = load("mine:numbers")
    assert numbers.num_classes == 3
    assert numbers.train.labels


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mine:no_data", {}, "returned list; expected ima.data.Splits, or a dict"),
        ("mine:needs", {}, "takes (folder), and gets by name what it takes of path, size, seed"),
        ("mine:fails", {}, "failed: KeyError: 'nothing here'"),
        ("mine:masks", {"path": "x"}, "data.path is 'x', and 'mine:masks' takes no path"),
        ("mine:masks", {"seed": 3}, "data.seed is 3"),
        ("mine:unnamed", {}, "'classes': ['background', ...]"),
        ("mine:COUNT", {}, "is no class or function"),
        ("digts", {}, "Did you mean 'digits'"),
    ],
)
def test_what_is_no_data_set_is_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are compared below
        load(name, **options)
    assert words in str(caught.value)


def test_targets_of_one_part_have_one_shape() -> None:
    found = load("mine:findings")
    with pytest.raises(ValueError, match="targets of the val part have shape"):
        replace(found, val=Part(found.val.images, found.val.targets[:, :2], labels=False))
    with pytest.raises(ValueError, match=r"expected \(N, C, \*dims\) and \(N, \.\.\.\)"):
        Part(found.val.images, torch.tensor(1.0), labels=False)


def test_only_class_labels_are_flipped() -> None:
    with pytest.raises(ValueError, match="no class labels"):
        flip_labels(load("mine:findings"), 0.1, 0)


def test_targets_that_are_no_classes_are_drawn_without_them() -> None:
    targets = load("mine:findings").train.targets.numpy()
    chosen = stratified(targets, 10, seed=3)
    assert chosen.sum() == 10
    assert np.array_equal(chosen, stratified(1 - targets, 10, seed=3))
    assert not np.array_equal(chosen, stratified(targets, 10, seed=4))
    assert stratified(targets[:, 0], 10, seed=3).sum() == 10


# --- Trust ----------------------------------------------------------------------------------------


PATHS: dict[str, Callable[[dict[str, Any]], None]] = {
    "data.name": lambda c: c["data"].update(name="mine:findings"),
    "task.name": lambda c: c.update(task={"name": "mine:Tags", "weight": 2.0}),
    "network.name": lambda c: c.update(network={"name": "mine:flat"}),
    "method.name": lambda c: c.update(method={"name": "mine:Twice", "eps": 0.1}),
    "compare.0.method.name": lambda c: c.update(
        compare=[{"label": "A", "method": {"name": "mine:Twice", "eps": 0.1}}]
    ),
    "evaluate.attacks": lambda c: c["evaluate"].update(attacks=["pgd-3", "mine:fails"]),
    "evaluate.last_attacks": lambda c: c["evaluate"].update(last_attacks=["mine:fails"]),
}


@pytest.mark.parametrize("key", PATHS)
def test_an_import_path_in_a_runs_folder_is_followed_on_the_users_word_only(
    key: str, tmp_path: Path, mine: Path
) -> None:
    run = train(
        Run.create(
            tmp_path / "run",
            load_config("digits", ["train={epochs: 1, batch_size: 512}", "network.width=4"]),
        )
    )
    path = run.folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    PATHS[key](config)
    path.write_text(yaml.safe_dump(config))
    sys.modules.pop("mine", None)
    with pytest.raises(UntrustedError, match=rf"{key} is 'mine:\w+', .*{mine}.*--trust"):
        Run.open(run.folder).config()
    with pytest.raises(UntrustedError, match=key):
        load_config(path)
    with pytest.raises(UntrustedError, match=key):
        load_config(path, ["network.name=small_cnn"] if key != "network.name" else ["name=x"])
    for words in (("train", "--resume", str(run.folder)), ("evaluate", str(run.folder))):
        said = call(*words, "--device", "cpu")
        assert (said.code, key in said.err) == (1, True)
    assert not (mine / "ran").exists()


@pytest.mark.parametrize("kind", ["data", "task", "network", "method"])
def test_it_is_followed_where_the_command_says_it_again(
    kind: str, tmp_path: Path, mine: Path
) -> None:
    run = made(tmp_path / "run", method="own")
    with pytest.raises(KeyboardInterrupt):
        train(run, watcher=Watch(after=0))
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    paths = {
        key: f"{key}.name={config[key]['name']}" for key in ("data", "task", "network", "method")
    }
    words = ("train", "--resume", str(run.folder), "--device", "cpu")
    (mine / "ran").unlink()
    sys.modules.pop("mine")
    left = [word for key, word in paths.items() if key != kind]
    said = call(*words, *left)
    assert (said.code, f"{kind}.name" in said.err, (mine / "ran").exists()) == (1, True, False)
    if kind == "method":
        assert call(*words, *paths.values()).code == 0
        assert (mine / "ran").exists()


def test_a_config_of_ones_own_names_all_of_them(tmp_path: Path) -> None:
    run = made(tmp_path / "run", method="own")
    file = tmp_path / "own.yaml"
    file.write_text((run.folder / "config.yaml").read_text())
    said = call("train", str(file), "--out", str(tmp_path / "new"), "--device", "cpu")
    assert said.code == 0, said.err


def test_tasks_are_listed() -> None:
    said = call("list", "tasks").out
    assert [line.split()[0] for line in said.splitlines()] == list(TASKS)


def test_labels_of_a_digest_are_those_of_before() -> None:
    found = samples(load("digits"))["train"]
    assert isinstance(found["labels"], Tensor)
    assert torch.equal(found["labels"], load("digits").train.targets)
