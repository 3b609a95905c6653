"""The handbook: its code runs, its commands exist, its links lead somewhere, it builds."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from nets import mlp, seeded
from torch.utils.data import TensorDataset

from ima import IMA, Results, evaluate
from ima.cli import app
from ima.evaluation.checks_table import CHECKS
from ima.methods import METHODS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(name: str, kind: str) -> list[str]:
    text = (DOCS / name).read_text(encoding="utf-8")
    return [code for of, code in _FENCE.findall(text) if of == kind and "--8<--" not in code]


def commands(name: str) -> list[list[str]]:
    """Every command of ours on a page, as words."""
    found: list[list[str]] = []
    for code in blocks(name, ""):
        for line in re.sub(r"\\\n\s*", " ", code).splitlines():
            if not re.match(r"(ima|torchrun|srun) ", line):
                continue
            words = shlex.split(line, comments=True)
            if "-m" in words and words[words.index("-m") + 1] == "ima":
                words = words[words.index("-m") + 1 :]
            if words[:1] == ["srun"]:
                words = words[words.index("ima") :]
            if words[:1] == ["ima"]:
                found.append(words[1:])
    return found


def pages() -> Any:
    spec = importlib.util.spec_from_file_location("pages", DOCS / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def known() -> dict[str, Any]:
    """What pages take as given."""
    torch.manual_seed(0)
    model = mlp((1, 4, 4))
    x = torch.rand(48, 1, 4, 4, generator=seeded(0))
    y = model(x).argmax(1).detach()
    results: Results = evaluate(model, TensorDataset(x, y), 0.1, "pgd-2", bounds=(0, 1))
    return {
        "model": model,
        "train_set": TensorDataset(x, y),
        "test_set": TensorDataset(x[:16], y[:16]),
        "optimizer": torch.optim.Adam(model.parameters()),
        "epochs": 2,
        "x": x[:8],
        "y": y[:8],
        "ids": torch.arange(8),
        "IMA": IMA,
        "results": results,
    }


@pytest.mark.parametrize("name", [name for name in PAGES if blocks(name, "python")])
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_the_code_of_a_page_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = known()
    for code in blocks(name, "python"):
        if "class Logits" in code:
            code = "from torch import nn\n" + code
        exec(compile(code.replace("30m", "20s"), name, "exec"), space)
    if name == "radius.md":
        assert space["radius"] == pytest.approx(1.757, abs=1e-3)
    if name == "frameworks.md":
        hugging_face(space)


def hugging_face(space: dict[str, Any]) -> None:
    """What its `Trainer` calls, with a network that answers as theirs do."""

    class Inner(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = space["model"]

        def forward(self, pixel_values: torch.Tensor) -> Any:
            return type("Output", (), {"logits": self.net(pixel_values)})

    class Trainer:
        method = IMA(num_samples=48, bounds=(0, 1))
        compute_loss = space["compute_loss"]

    inputs = {"pixel_values": space["x"], "labels": space["y"], "id": space["ids"]}
    loss = Trainer().compute_loss(Inner().train(), inputs)
    loss.backward()
    assert Trainer.method.margins.values[:8].any()


@pytest.mark.parametrize("name", [name for name in PAGES if commands(name)])
def test_the_commands_of_a_page_exist(name: str) -> None:
    for words in commands(name):
        # nnU-Net's own words are its business.
        if words[0] == "nnunet" and words[1] in ("plan", "train", "predict"):
            continue
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
        assert command is not None, bound


def test_every_page_is_in_the_menu_and_every_link_leads_somewhere() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for name in PAGES:
        assert f": {name}\n" in menu
        text = (DOCS / name).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            if not link.startswith(("http", "pictures/")):
                assert (DOCS / link).exists(), f"{name}: {link}"
        for shown in re.findall(r'--8<-- "(.+)"', text):
            assert (ROOT / shown).exists()


def test_what_is_made_from_the_code_is_whole() -> None:
    made = pages()
    assert all(f"{{: #{name} }}" in made.checks() for name in CHECKS)
    assert all(f"| `{name}` |" in made.methods() for name in METHODS)
    assert "| `train.epochs` |  | whole number, at least 1 | 100 |" in made.MADE["<!-- keys -->"]()
    reference = made.reference()
    assert "- **num_samples**: size of the training set" in reference
    assert "## evaluate {: #evaluate }" in reference
    assert ">>> import ima" in reference
    assert all((ROOT / picture).exists() for picture in made.PICTURES)


def test_a_docstring_becomes_a_list_and_code() -> None:
    doc = "Do it.\n\na: one\n    line more\nb, c: two\n\nRaises X.\n\n>>> 1\n1"
    assert pages().described(doc) == (
        "Do it.\n\n- **a**: one line more\n- **b, c**: two\n\nRaises X.\n\n```python\n>>> 1\n1\n```"
    )


def test_the_handbook_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    page = (tmp_path / "site" / "reference.html").read_text(encoding="utf-8")
    assert 'id="evaluate"' in page
    # It reads offline: nothing is loaded from elsewhere.
    for file in (tmp_path / "site").glob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', file.read_text()
        )
        assert not [one for one in loaded if "canonical" not in one], file.name
