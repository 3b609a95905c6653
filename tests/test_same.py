"""A run that continues is the one that was begun: its config, and each of its samples."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nets import load_weights
from subjects import check_run, distances_run, evaluate_run
from test_cli import assert_refused, call
from test_training import Watch, assert_equal_runs, given_data, new, train, within

from ima.budget import OutOfTime
from ima.data import DATASETS, Part, Splits, load
from ima.environments import data_told
from ima.training.checkpoint import load_state, save_state, save_weights
from ima.training.lengths import describe_lengths, lengths
from ima.training.loop import fit
from ima.training.measuring import measure_margins
from ima.training.run import Run
from ima.training.same import ORIGIN

DIGITS = load("digits")
FEW = 600


def splits(**parts: Part) -> Splits:
    """Of the digits a few, or these parts."""
    train = Part(DIGITS.train.images[:FEW].clone(), DIGITS.train.targets[:FEW].clone())
    return replace(DIGITS, **{"train": train, **parts})


def edit(folder: Path, override: str, value: Any) -> None:
    """Change a setting in the config of a run's folder."""
    path = folder / "config.yaml"
    values = yaml.safe_load(path.read_text())
    *parents, last = override.split(".")
    here = values
    for parent in parents:
        here = here[parent]
    here[last] = value
    path.write_text(yaml.safe_dump(values))


CHANGES = {
    "method.eps": 2.0,
    "method.steps": 4,
    "method.variant": "released",
    "method": {"name": "sat", "eps": 1.0},
    "network.width": 5,
    "network": {"name": "small_resnet"},
    "optimizer.name": "sgd",
    "optimizer.lr": 0.02,
    "optimizer.schedule": "cosine",
    "train.seed": 1,
    "train.ema": 0.9,
    "train.batch_size": 128,
    "train.standard_epochs": 1,
    "train.precision": "bf16-mixed",
    "data.seed": 1,
    "data.augment": ["flip"],
    "data.flip": 0.1,
    "norm": "Linf",
    "evaluate.eps": [0.1, 0.2],
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The state of a run that was stopped within its first epoch."""
    run = new(tmp_path_factory.mktemp("stopped") / "run")
    with pytest.raises(OutOfTime):
        within(run.folder, 1)
    return run.state.read_bytes()


@pytest.mark.parametrize("setting", CHANGES)
def test_a_setting_that_was_changed_is_named_with_both_values(
    setting: str, stopped: bytes, tmp_path: Path
) -> None:
    run = new(tmp_path / "run")
    run.state.write_bytes(stopped)
    before = yaml.safe_load((run.folder / "config.yaml").read_text())
    edit(run.folder, setting, CHANGES[setting])
    found = call("train", "--resume", str(run.folder), "--device", "cpu")
    new_value = CHANGES[setting]
    shown = repr(new_value["name"] if isinstance(new_value, dict) else new_value)
    if setting == "evaluate.eps":
        shown = "0.1"
    assert_refused(found, ["config.yaml", setting, f"and is {shown}", "--out"])
    *parents, last = setting.split(".")
    here = before
    for parent in parents:
        here = here[parent]
    if last in here and not isinstance(here[last], dict | list):
        assert f"{setting} was {here[last]!r}" in found.err
    assert run.state.read_bytes() == stopped


def test_what_changes_nothing_that_is_trained_may_change(stopped: bytes, tmp_path: Path) -> None:
    run = new(tmp_path / "run")
    run.state.write_bytes(stopped)
    for setting, value in {
        "note": "of today",
        "name": "other",
        "train.epochs": 3,
        "evaluate.attacks": ["pgd-1"],
        "evaluate.samples": 5,
        "evaluate.batch_size": 100,
        # Said where it was the default.
        "method.steps": 3,
    }.items():
        edit(run.folder, setting, value)
    assert_equal_runs(train(new(tmp_path / "whole", epochs=3)), train(Run.open(run.folder)))


def other(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, *DIGITS.train.images.shape[1:], generator=torch.manual_seed(seed))


def exchanged(at: torch.Tensor) -> Part:
    """The few training samples, with other images at some places."""
    part = splits().train
    images = part.images.clone()
    images[at] = other(int(at.sum())).to(images.dtype)
    return Part(images, part.targets)


def traced() -> torch.Tensor:
    """The places that the environment's trace looks at."""
    found = torch.zeros(FEW, dtype=torch.bool)
    found[torch.linspace(0, FEW - 1, 64).round().long()] = True
    return found


def all_but_the_traced() -> Splits:
    return splits(train=exchanged(~traced()))


def one_pixel() -> Splits:
    part = splits().train
    images = part.images.clone()
    images[7, 0, 3, 3] = 1.0 - images[7, 0, 3, 3]
    return splits(train=Part(images, part.targets))


def mirrored() -> Splits:
    part = splits().train
    return splits(train=Part(part.images.flip(-1), part.targets))


def two_swapped() -> Splits:
    part = splits().train
    order = torch.arange(FEW)
    order[[10, 11]] = order[[11, 10]]
    return splits(train=Part(part.images[order], part.targets[order]))


def one_label() -> Splits:
    part = splits().train
    targets = part.targets.clone()
    targets[7] = (targets[7] + 1) % 10
    return splits(train=Part(part.images, targets))


def validation() -> Splits:
    part = DIGITS.val
    images = part.images.clone()
    images[7] = other(1)[0]
    return splits(val=Part(images, part.targets))


def fewer() -> Splits:
    part = splits().train
    return splits(train=Part(part.images[:-1], part.targets[:-1]))


DATA: dict[str, tuple[Callable[[], Splits], str]] = {
    "most images": (all_but_the_traced, "training images differ, 536 of 600"),
    "one pixel": (one_pixel, "training images differ, 1 of 600 (the first is number 7)"),
    "mirrored": (mirrored, "samples"),
    "two swapped": (two_swapped, "samples"),
    "one label": (one_label, "labels of 1 of 600"),
    "a validation image": (validation, "validation images differ, 1 of 360"),
    "one fewer": (fewer, "599"),
}


def give(monkeypatch: pytest.MonkeyPatch, data: Splits) -> None:
    monkeypatch.setitem(DATASETS, "digits", replace(DATASETS["digits"], load=given_data(data)))


@pytest.mark.parametrize("case", DATA)
def test_samples_that_were_exchanged_are_told_wherever_a_run_is_used(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, told = DATA[case]
    give(monkeypatch, splits())
    run = new(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, watcher=Watch(after=0))
    state = run.state.read_bytes()
    give(monkeypatch, make())
    for again in (
        lambda: train(Run.open(run.folder)),
        lambda: evaluate_run(Run.open(run.folder), "best", device="cpu"),
        lambda: distances_run(Run.open(run.folder), device="cpu"),
        lambda: measure_margins(Run.open(run.folder), device="cpu"),
    ):
        with pytest.raises(ValueError, match=re.escape(told)):
            again()
    assert run.state.read_bytes() == state
    give(monkeypatch, splits())
    train(Run.open(run.folder))


def test_the_test_part_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, splits())
    run = new(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, watcher=Watch(after=0))
    part = DIGITS.test
    give(monkeypatch, splits(test=Part(other(len(part)), part.targets)))
    train(Run.open(run.folder))


def test_images_that_are_all_stored_otherwise_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, splits())
    run = new(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, watcher=Watch(after=0))
    part = splits().train
    # As JPEG changes them: all, by little.
    images = (part[list(range(FEW))][0] + 0.01).clamp(0, 1)
    give(monkeypatch, splits(train=Part(images, part.targets)))
    train(Run.open(run.folder))


def test_a_run_of_an_earlier_version_continues_and_says_so(stopped: bytes, tmp_path: Path) -> None:
    run = new(tmp_path / "run")
    run.state.write_bytes(stopped)
    old = load_state(run.state)
    del old[ORIGIN]
    save_state(run.state, old)
    found = call("train", "--resume", str(run.folder), "--device", "cpu")
    assert found.code == 0 and "note: " in found.out and "earlier version" in found.out
    assert_equal_runs(train(new(tmp_path / "whole")), run)
    # From now on it is kept.
    again = call("train", "--resume", str(run.folder), "--device", "cpu")
    assert again.code == 0 and "earlier version" not in again.out


@pytest.mark.parametrize("setting", ["optimizer.name", "train.ema", "network.width", "method"])
def test_a_state_of_an_earlier_version_that_does_not_fit_is_named(
    setting: str, stopped: bytes, tmp_path: Path
) -> None:
    run = new(tmp_path / "run")
    run.state.write_bytes(stopped)
    old = load_state(run.state)
    del old[ORIGIN]
    save_state(run.state, old)
    edit(run.folder, setting, CHANGES[setting])
    found = call("train", "--resume", str(run.folder), "--device", "cpu")
    assert_refused(found, ["state.safetensors", "does not fit the run's config"])


def test_the_origin_is_small_and_needs_no_reading_of_the_rest(
    stopped: bytes, tmp_path: Path
) -> None:
    run = new(tmp_path / "run")
    run.state.write_bytes(stopped)
    origin = load_state(run.state)[ORIGIN]
    kept = sum(t.numel() * t.element_size() for t in origin["samples"]["train"].values())
    assert kept <= 50 * len(DIGITS.train)
    assert json.dumps(origin["config"])


def weights_of(run: Run, other: Run, which: str) -> Path:
    """Lay the weights of another run into a run's folder."""
    path = run.weights(which)
    path.write_bytes(other.weights(which).read_bytes())
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(new(tmp_path_factory.mktemp("trained") / "run", epochs=1)).folder


OTHERS = {
    "train.seed=1": "train.seed was 1 and is 0 here",
    "optimizer={lr: 0.02}": "optimizer.lr was 0.02 and is 0.01 here",
    "method={name: sat, eps: 1.0}": "method.name was 'sat' and is 'ima' here",
    "network.width=5": "network.width was 5 and is 4 here",
    "data.flip=0.1": "labels",
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("which", ["best", "last"])
def test_weights_of_another_run_are_refused_by_name(
    which: str, other: str, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    strange = train(new(tmp_path / "other", other, epochs=1))
    path = weights_of(run, strange, which)
    told = re.escape(f"{path} holds weights of another run: ") + f".*{re.escape(OTHERS[other])}"
    uses: list[Callable[[], object]] = [lambda: evaluate_run(run, which, device="cpu")]
    if which == "best":
        mine = Run.open(trained)
        uses += [
            lambda: distances_run(run, device="cpu"),
            lambda: evaluate_run(run, "validation", device="cpu"),
            lambda: check_run(run, device="cpu"),
            lambda: check_run(mine, transfer_from=run, device="cpu"),
        ]
    for use in uses:
        with pytest.raises(ValueError, match=told):
            use()
    assert not run.results(which).exists()


def test_weights_that_do_not_tell_of_their_run_and_do_not_fit_are_said_by_tensor(
    trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    own = load_weights(run.weights("best"))
    # As an earlier version wrote them.
    save_weights(run.weights("best"), own)
    evaluate_run(run, "best", attacks=["pgd-1"], eps=[0.1], device="cpu")
    name = next(iter(own))
    wide = {**own, name: torch.cat([own[name]] * 2)}
    save_weights(run.weights("best"), wide)
    with pytest.raises(ValueError, match="does not fit this network") as caught:
        evaluate_run(run, "best", device="cpu")
    text = str(caught.value)
    assert (
        f"{name} (float32 {tuple(wide[name].shape)} in the file" in text and "train again" in text
    )
    assert "state_dict for" not in text


LENGTHS = {
    "cosine": ({"optimizer.schedule": "cosine"}, "ima", "the learning rates of"),
    "steps": ({"optimizer.schedule": "steps", "optimizer.milestones": [1]}, "ima", ""),
    "constant": ({}, "ima", ""),
    "method": ({}, "ates", "what the method changes with the epochs of"),
}


@pytest.mark.parametrize("case", LENGTHS)
def test_a_run_that_is_lengthened_says_which_rates_its_epochs_had(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, splits())
    settings, method, what = LENGTHS[case]
    run = new(tmp_path / "run", method=method, epochs=2)
    for key, value in settings.items():
        edit(run.folder, key, value)
    train(Run.open(run.folder))
    found = [*data_told(run.environment())]
    edit(run.folder, "train.epochs", 3)
    with pytest.raises(KeyboardInterrupt):
        train(Run.open(run.folder), watcher=Watch(amid=(2, 1)))
    # Changed to and fro before it goes on, and then again.
    edit(run.folder, "train.epochs", 4)
    said: list[str] = []
    fit(Run.open(run.folder), watcher=Watch(), device="cpu", tell=said.append)
    note = (
        f"Begun for 2 epochs and lengthened to 4: {what} the first 2 epochs followed the shorter "
        "schedule."
    )
    told = data_told(run.environment())
    if what:
        assert said[0].endswith(note) and said[0] in told and len(told) > 0
        assert json.loads((run.folder / "environment.json").read_text())["resumed"]
        page = call("evaluate", str(run.folder), "--device", "cpu", "--attacks", "pgd-1")
        assert page.code == 0 and note in page.out
    else:
        assert "lengthened" not in said[0] and told == found


def test_every_change_of_the_epochs_is_kept(tmp_path: Path) -> None:
    run = new(tmp_path / "run", "optimizer={schedule: cosine}", epochs=2)
    config = run.config()
    found = [[0, 2], [2, 5], [4, 3]]
    assert describe_lengths(found, config, None) == (
        "Begun for 2 epochs and lengthened to 5: the learning rates of the first 2 epochs followed "
        "the shorter schedule. Begun for 5 epochs and shortened to 3: the learning rates of the "
        "first 4 epochs followed the longer schedule."
    )
    assert lengths(run, config, None) == [[0, 2]]
