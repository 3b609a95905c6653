"""What a researcher asks the command line: keys, whole configs, what a comparison would do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from test_cli import TINY

from ima.cli import app
from ima.methods import METHODS
from ima.training.config import load_config, parse_config
from ima.training.keys import Key, config_keys, meanings, option_keys
from ima.training.settings import Config


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def run(*words: str) -> None:
    app(list(words), result_action="return_value", exit_on_error=False, print_error=False)


def leaves(values: dict[str, object], place: str = "") -> set[str]:
    """The keys of a config that are written, with dots."""
    found: set[str] = set()
    for key, value in values.items():
        model = Config.model_fields[key].annotation if not place else None
        group = isinstance(value, dict) and getattr(model, "__name__", "") not in ("Named", "")
        found |= leaves(value, f"{key}.") if group else {f"{place}{key}"}  # pyright: ignore[reportArgumentType]
    return found


def test_every_key_is_listed_with_its_meaning() -> None:
    keys = {key.name: key for key in config_keys()}
    written = yaml.safe_load(load_config("digits").to_yaml())
    assert leaves(written) - {"compare"} <= set(keys)
    assert not [name for name, key in keys.items() if not key.meaning]
    assert keys["train.epochs"] == Key(
        "train.epochs", "whole number", "100", "how often every sample is seen"
    )
    assert keys["evaluate.eps"].default == "required"
    assert keys["optimizer.name"].kind == "adam or adamw or sgd"


@pytest.mark.parametrize("name", METHODS)
def test_options_of_every_method_have_meanings(name: str) -> None:
    for key in option_keys(METHODS[name].method):
        assert key.meaning, key.name
        assert key.name not in ("num_samples", "bounds", "norm", "task", "seed")


def test_meanings_of_a_docstring() -> None:
    doc = "Do it.\n\na: one; b, c: two and\nthree. d: four (x: y).\n\nRaises E.\n\n>>> 1"
    found = meanings(doc)
    assert found == {"a": "one", **dict.fromkeys("bc", "two and three"), "d": "four (x: y)"}


def test_a_config_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    run("config", "show", "digits", "train.epochs=3")
    values = yaml.safe_load(capsys.readouterr().out)
    assert values["train"]["epochs"] == 3
    assert values["optimizer"]["weight_decay"] == 0
    assert parse_config(values) == load_config("digits", ["train.epochs=3"])


def test_keys_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run("config", "keys")
    out = capsys.readouterr().out
    assert "data.flip: number; default 0.0\n    share of the training labels" in out
    run("config", "keys", "trades")
    assert capsys.readouterr().out.startswith("eps: float; default required\n")
    with pytest.raises(ValueError, match=r"'trade' is no method.* Did you mean 'trades'"):
        run("config", "keys", "trade")


def test_lists_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    for what, count in (("methods", len(METHODS)), ("configs", 8)):
        run("list", what, "--json")
        rows = json.loads(capsys.readouterr().out)
        assert len(rows) >= count
        assert all(set(row) == {"name", "summary", "source"} for row in rows)


COMPARE = (
    "compare=[{label: STD, method: {name: standard}},"
    " {label: SAT, method: {name: sat, steps: 2}, tune: {eps: [0.5, 1.0]}}]"
)


def test_a_dry_run_writes_nothing_and_knows_how_far_runs_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = [word for word in TINY if not word.startswith("method")]
    words = ["compare", "digits", *tiny, COMPARE, "--out", "runs/x", "--device", "cpu"]
    run(*words, "--dry-run", "--seeds", "0", "1")
    lines = capsys.readouterr().out.splitlines()
    assert not (tmp_path / "runs").exists()
    assert [line.split("  ")[0] for line in lines[:-1]] == [
        f"runs/x/{name}/seed{seed}"
        for name in ("standard", "sat-eps=0.5-steps=2", "sat-eps=1-steps=2")
        for seed in (0, 1)
    ]
    assert all("not begun, about" in line for line in lines[:-1])
    assert "SAT: eps 0.5" in lines[2]
    run(*words)
    capsys.readouterr()
    # Seeds that are added later: the first one is kept.
    run(*words, "--dry-run", "--seeds", "0", "1")
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("  ")[2].split(",")[0] for line in lines[:-1]] == [
        "trained",
        "not begun",
    ] * 3
    listed(capsys)


def listed(capsys: pytest.CaptureFixture[str]) -> None:
    """What `ima runs` says of them, and what it deletes."""
    run("runs")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "runs/x/standard/seed0" in lines[2]
    assert "standard on digits  trained, evaluated" in lines[2]
    assert lines[-1].startswith("3 runs, ")
    with pytest.raises(ValueError, match="--yes"):
        run("runs", "--clean")
    capsys.readouterr()
    state = Path("runs/x/standard/seed0/state.safetensors")
    assert state.exists()
    run("runs", "runs", "--clean", "--yes")
    assert "deleted " in capsys.readouterr().out
    assert not state.exists()
    assert state.with_name("best.safetensors").exists()
    run("runs")
    assert capsys.readouterr().out.splitlines()[-1].endswith("0 bytes could be freed by --clean")
    with pytest.raises(ValueError, match=r"runs/x is a comparison of 3 runs.*runs/x/sat-eps=0.5"):
        run("evaluate", "runs/x")


def test_folders_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs" / "odd").mkdir(parents=True)
    run("runs")
    assert capsys.readouterr().out == "runs holds no runs\n"
    (tmp_path / "runs" / "odd" / "config.yaml").write_text("method: [")
    run("runs")
    assert "its config cannot be read" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="no folder"):
        run("runs", "elsewhere")
