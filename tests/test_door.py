"""The researcher's door: configs and keys to read, runs to list, what comes to programs as JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from small_runs import compared, full
from test_cli import call, elsewhere, files
from test_compare import Commands, commands, undrawn

from ima.budget import how_long
from ima.nnunet.experiment import Experiment
from ima.training.config import load_config
from ima.training.config_errors import packaged
from ima.training.found import find_runs
from ima.training.keys import REQUIRED, find_keys
from ima.training.run import Run

__all__ = ["commands", "elsewhere", "undrawn"]

ROWS = (
    "compare=[{label: Plain, method: {name: standard}},"
    " {label: SAT, method: {name: sat, eps: 1.0, steps: 2}}]"
)
TINY = (
    "network.width=4",
    "train={epochs: 1, batch_size: 256}",
    "evaluate={attacks: [pgd-1], eps: [0.25, 0.5]}",
)


# --- Configs and their keys -----------------------------------------------------------------------


@pytest.mark.parametrize("name", [*packaged(), *packaged("nnunet")])
def test_a_shown_config_is_whole_and_can_be_read_again(name: str, elsewhere: Path) -> None:
    said = call("config", "show", name)
    assert (said.code, said.err) == (0, "")
    (elsewhere / "own.yaml").write_text(said.out)
    kind = "nnunet" if name in packaged("nnunet") else ""
    if kind:
        assert Experiment.model_validate(yaml.safe_load(said.out)).name == name
    else:
        assert load_config(elsewhere / "own.yaml") == load_config(name)
        assert (
            yaml.safe_load(said.out)["train"].keys() == load_config(name).train.model_dump().keys()
        )


def test_a_config_is_shown_with_its_changes() -> None:
    said = call("config", "show", "digits", "train.epochs=7")
    assert yaml.safe_load(said.out)["train"]["epochs"] == 7
    said = call("config", "show", "digits", "train.epoch=7")
    assert said.code == 1 and "did you mean 'train.epochs'" in said.err.lower()
    said = call("config", "show", "hippocampus_smal")
    assert said.code == 1 and "there is no config file" in said.err


@pytest.mark.parametrize("key", [*find_keys(), *find_keys(model=Experiment)], ids=lambda k: k.name)
def test_every_key_says_what_it_takes_and_means(key: object) -> None:
    name, kind, default, about = (getattr(key, n) for n in ("name", "kind", "default", "about"))
    assert len(about) > 8, f"{name} has no words: put them into the docstring of its model"
    assert "None" not in about and "`None`" not in kind
    assert kind and kind != "any", name
    if default != REQUIRED:
        json.loads(default)


def test_keys_know_types_limits_defaults_and_whose_they_are() -> None:
    found = {(key.name, key.of): key for key in find_keys()}
    assert found["train.epochs", ""].kind == "whole number, at least 1"
    assert found["train.epochs", ""].default == "100"
    assert found["train.ema", ""].kind == "null or number, above 0, below 1"
    assert found["evaluate.eps", ""].kind == "list of number, above 0"
    assert found["evaluate.eps", ""].default == REQUIRED
    assert found["optimizer.name", ""].kind == '"adam", "adamw" or "sgd"'
    assert found["method.eps", "sat"].default == REQUIRED
    assert found["method.eps", "ima"].default == "null"
    assert ("method.num_samples", "ima") not in found
    assert ("network.channels", "mlp") not in found
    every = {name for name, _ in found}
    assert {"compare.N.tune", "task.walk", "data.flip", "method.name"} <= every


def test_keys_are_asked_for_by_group_key_and_owner() -> None:
    assert {k.name.partition(".")[0] for k in find_keys("train")} == {"train"}
    assert [k.name for k in find_keys("train.ema")] == ["train.ema"]
    assert {k.of for k in find_keys("mart")} == {"mart"}
    said = call("config", "keys", "trian")
    assert said.code == 1 and "Did you mean 'train'?" in said.err
    said = call("config", "keys", "nnunet", "--json")
    assert "rows.N.trainer" in {one["name"] for one in json.loads(said.out)}
    assert call("config", "keys", "train.ema").out.startswith("train.ema: null or number")


# --- For programs ---------------------------------------------------------------------------------


def test_lists_come_as_json() -> None:
    said = call("list", "methods", "--json")
    rows = json.loads(said.out)
    assert rows[0].keys() == {"name", "summary", "source"}
    assert "sat" in {row["name"] for row in rows}


def test_a_comparison_is_planned_made_and_grown(
    elsewhere: Path, commands: Commands, undrawn: None
) -> None:
    words = ("compare", "digits", *TINY, ROWS, "--device", "cpu", "--json")
    # Told before, which leaves nothing.
    said = call(*words, "--dry-run")
    assert said.code == 0, said.err
    planned = json.loads(said.out)
    assert [(one["row"], one["state"], one["epoch"]) for one in planned] == [
        ("Plain", "new", 0),
        ("SAT", "new", 0),
    ]
    assert all(one["seconds"] > 0 for one in planned)
    assert "2 runs, about " in said.err
    assert not files(elsewhere)
    # Made.
    said = call(*words)
    assert said.code == 0, said.err
    page = json.loads(said.out)
    assert page["folder"] == str(Path("runs/digits"))
    assert [one["name"] for one in page["networks"]] == ["Plain", "SAT"]
    plain = page["networks"][0]["accuracy"]["best"]
    assert {(row["attack"], row["eps"]) for row in plain} >= {("clean", 0.0), ("pgd-1", 0.25)}
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in plain)
    assert "Compared here" in said.err or "[1/2]" in said.err
    # A seed later: what is there stays as it is.
    places = [Path(one["folder"]) for one in planned]
    before = {place: (place / "best.safetensors").stat().st_mtime_ns for place in places}
    commands.ran.clear()
    said = call(*words, "--seeds", "0", "1")
    assert said.code == 0, said.err
    assert {seed for _, seed in commands.ran if "seed0" in seed} == set()
    assert before == {place: (place / "best.safetensors").stat().st_mtime_ns for place in places}
    again = json.loads(said.out)["networks"]
    assert [len(one["seeds"]) for one in again] == [2, 2]
    told = {one["state"]: one["seconds"] for one in json.loads(call(*words, "--dry-run").out)}
    assert told == {"done": 0}
    # All of its runs, by the folder.
    said = call("evaluate", "runs/digits", "--attacks", "pgd-2", "--device", "cpu", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)["networks"]
    assert sorted(len(one["seeds"]) for one in found) == [2, 2]
    for one in found:
        assert one["accuracy"].keys() == {"best", "last"}
        assert "pgd-2" in {row["attack"] for row in one["accuracy"]["best"]}
    # And listed.
    rows = json.loads(call("runs", "--json").out)
    assert [(one["state"], one["epoch"], one["evaluated"]) for one in rows] == [
        ("done", 1, True)
    ] * 4


def test_an_empty_folder_holds_nothing_to_evaluate(elsewhere: Path) -> None:
    (elsewhere / "empty").mkdir()
    said = call("evaluate", "empty")
    assert said.code == 1 and "holds none with weights" in said.err
    Run.create(elsewhere / "new" / "seed0", load_config("digits"))
    said = call("evaluate", "new")
    assert said.code == 1 and "has no weights yet" in said.err


# --- Runs -----------------------------------------------------------------------------------------


def test_runs_are_listed_with_how_far_they_are(elsewhere: Path) -> None:
    compared(elsewhere / "runs")
    Run.create(elsewhere / "runs" / "new", load_config("digits"))
    (elsewhere / "runs" / "mine").mkdir()
    (elsewhere / "runs" / "mine" / "config.yaml").write_text("a: 1\n")
    (elsewhere / "runs" / "mart" / "seed0" / "diverged.txt").write_text("in epoch 1: nan\n")
    found = {
        str(one.folder.relative_to(elsewhere / "runs")): one
        for one in find_runs(elsewhere / "runs")
    }
    assert found["new"].state == "new" and found["new"].epochs == 50
    assert found["mart/seed0"].state == "diverged"
    assert "mine" not in found
    assert found["standard/seed0"].evaluated and not found["mart/seed0"].evaluated
    said = call("runs")
    assert said.code == 0 and said.out.splitlines()[-1].startswith(f"{len(found)} runs, ")
    said = call("runs", "nowhere")
    assert said.code == 1 and "nowhere is no folder" in said.err


def test_runs_are_deleted_when_asked_for(elsewhere: Path) -> None:
    run = full(elsewhere / "runs" / "ima" / "seed0")
    Run.create(elsewhere / "runs" / "new", load_config("digits"))
    said = call("runs", "--delete", "all")
    assert said.code == 1 and "say --yes" in said.err
    assert (run / "config.yaml").exists()
    said = call("runs", "--delete", "new", "--yes")
    assert said.code == 0 and not (elsewhere / "runs" / "new").exists()
    assert (run / "config.yaml").exists()
    (run / "notes.txt").write_text("mine")
    said = call("runs", "--delete", "all", "--yes")
    assert "notes.txt is no run's, and stays" in said.err
    assert files(elsewhere / "runs") == ["ima", "ima/seed0", "ima/seed0/notes.txt"]


def test_a_run_that_is_written_to_is_not_deleted(elsewhere: Path) -> None:
    from ima.training.lock import Lock

    run = full(elsewhere / "runs" / "ima")
    with Lock(run, "train"):
        said = call("runs", "--delete", "all", "--yes")
    assert said.code == 1 and "already writes to" in said.err
    assert (run / "config.yaml").exists()


def test_times_are_told_in_words() -> None:
    assert [how_long(s) for s in (0.5, 42, 119, 150, 7300)] == [
        "0.5 s", "42 s", "2 min", "2 min", "2.0 h",
    ]  # fmt: skip


def test_an_attack_that_cannot_run_is_told_before_anything_is_trained(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ima.extras.find_spec", lambda name: name != "pyautoattack" or None)
    words = ("compare", "digits", *TINY, ROWS, "evaluate.attacks=[autoattack]")
    said = call(*words, "--device", "cpu")
    assert said.code == 1 and "pip install 'ima[autoattack]'" in said.err
    assert not files(elsewhere)


def test_the_shell_completes_commands_and_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    said = call("--install-completion")
    assert said.code == 0, said.err
    (script,) = (tmp_path / ".local").rglob("ima")
    assert {"compare", "harden", "--dry-run", "--clean-drop"} <= set(
        re.findall(r"[-\w]+", script.read_text())
    )


def test_a_plan_is_no_json() -> None:
    said = call("evaluate", "--plan", "0.02", "--json")
    assert said.code == 1 and said.out == "" and "leave --json out" in said.err
