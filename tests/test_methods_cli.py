"""Every method through the command line, on real images: two epochs, and resumed to the bit."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from nets import load_weights

from ima.cli import app
from ima.methods import METHODS
from ima.training.checkpoint import load_state
from ima.training.run import Run

OPTIONS = {"eps": 1.0, "delta": 0.1, "steps": 3}
VARIANTS = {name: (name, {}) for name in METHODS} | {
    "ima, released": ("ima", {"variant": "released"}),
    "fat, tau 0": ("fat", {"tau": 0}),
    "gairat, weighted": ("gairat", {"begin": 0}),
    "customized, mix": ("customized", {"loss": "mix"}),
    # Its second epoch has noise.
    "curriculum, grown": ("curriculum", {"threshold": 0.05}),
}


def method_override(name: str, more: dict[str, Any]) -> str:
    taken = inspect.signature(METHODS[name].method).parameters
    options = {key: value for key, value in OPTIONS.items() if key in taken} | more
    inner = ", ".join(f"{key}: {value}" for key, value in {"name": name, **options}.items())
    return f"method={{{inner}}}"


def ima(*arguments: str) -> None:
    with pytest.raises(SystemExit) as done:
        app(list(arguments))
    assert done.value.code in (0, None)


def same(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(v, right[k]) for k, v in left.items())
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool((left == right).all()) if hasattr(left, "shape") else bool(left == right)


@pytest.mark.parametrize(("name", "more"), VARIANTS.values(), ids=VARIANTS.keys())
def test_two_epochs_on_digits_and_resumed_to_the_bit(
    name: str,
    more: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [
        "digits",
        "network={name: small_cnn, width: 4}",
        "train.epochs=2",
        # Of 897 images the last batch holds one.
        "train.batch_size=224",
        "evaluate.attacks=[pgd-3]",
        method_override(name, more),
        "--device",
        "cpu",
        "--out",
    ]
    ima("train", *arguments, str(tmp_path / "whole"))
    whole = Run.open(tmp_path / "whole")
    assert len(whole.epochs()) == 2
    assert ("train_noisy_accuracy" in whole.epochs()[1]) == (name != "standard")

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ima.cli.progress.Lines.epoch", stop)
        with pytest.raises(SystemExit, match="130"):
            app(["train", *arguments, str(tmp_path / "stopped")])
    stopped = Run.open(tmp_path / "stopped")
    assert len(stopped.epochs()) == 1
    ima("train", "--resume", str(stopped.folder), "--device", "cpu")
    for which in ("best", "last"):
        assert same(load_weights(whole.weights(which)), load_weights(stopped.weights(which)))
    left, right = load_state(whole.state), load_state(stopped.state)
    assert same(left["method"], right["method"])
    assert same(left["optimizer"], right["optimizer"])
    if name == "curriculum":
        assert left["method"]["lesson"]["strength"] == 2 * len(more)
    assert "PGD-10" in capsys.readouterr().out
