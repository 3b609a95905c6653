"""The handbook and the README: what they show runs, what they name and link is there."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from test_cli import call, elsewhere

import ima
from ima.cli import app
from ima.data.own import load_own
from ima.doubt import Doubt
from ima.evaluation.attacks import ATTACKS
from ima.evaluation.checks_table import CHECKS
from ima.methods import METHODS
from ima.methods.ima import Unreached
from ima.networks import NETWORKS
from ima.torchvision_compat import mend_torchvision
from ima.training import hardening
from ima.training.build import check_buildable
from ima.training.config import load_config
from ima.training.keys import find_keys

assert elsewhere  # every test works in an empty folder

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
PUBLIC = sorted(set(ima.__all__) - {"__version__"})
OPTIONAL = {"timm", "monai", "pytorch_lightning", "pandas"}
"""What only some have: a block that imports one of them is left out where it is missing."""

PRELUDE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x = torch.rand(12, 1, 8, 8)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
y = model(x).argmax(1)
ids = torch.arange(12)
train_set = test_set = val_set = TensorDataset(x, y)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
epochs = 2
"""
"""What a reader has, in small."""

MORE = {
    "harden.md": """
class MyNet(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 2))

def MyData(part):
    return TensorDataset(x, known((x - 0.5) / 0.25).argmax(1))

known = MyNet()
torch.save(known.state_dict(), "weights.pt")
""",
    "metrics.md": """
from ima import IMA, Indexed
loader = DataLoader(Indexed(train_set), batch_size=4)
method = IMA(num_samples=len(train_set), bounds=(0, 1))
""",
    "compare.md": """
from ima import evaluate

evaluate(model, test_set, eps=0.5, attacks=["pgd-2"], bounds=(0, 1)).to_csv("rows.csv")
path = "rows.csv"
""",
    "own.md": """
from ima import Noisy, Step, Task
from torch import Tensor

regressor = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
years = regressor(x)[:, 0].detach()
ages = TensorDataset(x, years)
""",
    "questions.md": """
model = nn.Conv2d(3, 2, 3)
""",
    "frameworks.md": """
from collections.abc import Iterator

class HubNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    def forward(self, pixel_values):
        return type("Output", (), {"logits": self.net(pixel_values)})

hub_network = HubNetwork()
masks_set = TensorDataset(torch.randn(4, 1, 8, 8), torch.randint(3, (4, 1, 8, 8)))
""",
}
"""What else a page takes for granted."""


def hook() -> ModuleType:
    """What the handbook makes from the house."""
    spec = importlib.util.spec_from_file_location("handbook_pages", DOCS / "pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOK = hook()


def written(path: Path) -> str:
    """A page as it is shown."""
    return str(HOOK.expand(path.read_text(encoding="utf-8")))


def fences(text: str, *languages: str) -> Iterator[tuple[int, str]]:
    """The line and content of every block of code in one of these languages."""
    for found in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```$", text, re.M | re.S):
        if found[1] in languages:
            yield text.count("\n", 0, found.start()) + 2, found[2]


def missing(code: str) -> bool:
    """Whether a block imports what is not installed here."""
    named: set[str] = {"pandas"} if "to_frame" in code else set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            named |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named.add(node.module.partition(".")[0])
        # A class of a framework that the block above imported.
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("pl."):
            named.add("pytorch_lightning")
    return any(importlib.util.find_spec(name) is None for name in named & OPTIONAL)


class Accelerator:
    """Does what accelerate's does on one CPU."""

    def prepare(self, *things: Any) -> Any:
        return things

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()


class Trainer:
    """Calls `compute_loss` as the Trainer of Hugging Face does."""

    def __init__(self, *, model: Any, args: Any, train_dataset: Any, data_collator: Any) -> None:
        self.model, self.args = model, args
        self.loader = torch.utils.data.DataLoader(train_dataset, 4, collate_fn=data_collator)

    def train(self) -> None:
        assert not self.args["remove_unused_columns"]
        optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4)
        for _ in range(self.args["num_train_epochs"]):
            for inputs in self.loader:
                optimizer.zero_grad()
                self.compute_loss(self.model.train(), inputs, num_items_in_batch=4).backward()
                optimizer.step()


STAND_INS = {
    "accelerate": {"Accelerator": Accelerator},
    "transformers": {"Trainer": Trainer, "TrainingArguments": lambda _, **more: more},
}
"""What stands in for libraries that the tests do not install."""


CHEAPER = {
    '"autoattack"': '"ifgsm-2"',
    '"pgd-100"': '"pgd-2"',
    '"pgd-20"': '"pgd-2"',
    "run_checks(model, test_set, 0.2,": "run_checks(model, test_set, 0.2, samples=3, steps=2,",
}
"""The weak attack in place of the strong ones, which only take longer."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardening, "MOST_EPOCHS", 1)


# --- What is shown runs ---------------------------------------------------------------------------


def run_page(page: Path) -> dict[str, Any]:
    """What a page's Python leaves behind."""
    blocks = list(fences(written(page), "python"))
    assert blocks
    space: dict[str, Any] = {"__name__": page.stem}
    with warnings.catch_warnings():
        # Frameworks warn of much, and this library of nothing.
        warnings.simplefilter("ignore" if page.stem == "frameworks" else "error")
        for ours in (Doubt, Unreached):
            warnings.simplefilter("error", ours)
        exec(PRELUDE + MORE.get(page.name, ""), space)
        for line, code in blocks:
            if missing(code):
                continue
            for dear, weak in CHEAPER.items():
                code = code.replace(dear, weak)
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), space)
    return space


SHOWN = {page.name: page for page in TEXTS if "```python" in page.read_text(encoding="utf-8")}
# A reference shows calls, and its examples run in test_docstrings.py.
CHECKED_BELOW = {"frameworks.md", "own.md", "radius.md"}


@pytest.mark.parametrize("name", [name for name in SHOWN if name not in CHECKED_BELOW])
def test_the_python_of_a_page_runs(name: str) -> None:
    run_page(SHOWN[name])


def test_the_python_of_the_page_of_frameworks_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    mend_torchvision()
    for name, has in STAND_INS.items():
        if importlib.util.find_spec(name) is None:
            module = ModuleType(name)
            vars(module).update(has)
            monkeypatch.setitem(sys.modules, name, module)
    space = run_page(SHOWN["frameworks.md"])
    assert space["trainer"].method.margins.values.any()
    assert space["batch_ids"].tolist() == [2, 0]


def test_the_radius_of_two_grey_levels_is_the_one_that_is_told() -> None:
    assert run_page(SHOWN["radius.md"])["radius"] == pytest.approx(1.757, abs=1e-3)


def test_what_is_of_ones_own_runs_as_the_page_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    space = run_page(SHOWN["own.md"])
    space["x"] = (255 * space["x"]).byte()
    own = load_own("mydata:load", space["load"])
    assert own.classes == ("cat", "dog", "fox") and len(own.train) == 12
    # Its attack and its task by their names, as the commands give them.
    text = SHOWN["own.md"].read_text(encoding="utf-8")
    blocks = [code for _, code in fences(text, "python")]
    for module, word in (("myattacks", "def one_step"), ("mytasks", "class Within")):
        (code,) = [code for code in blocks if word in code]
        Path(f"{module}.py").write_text(code.partition("\n\n\ntask = ")[0])
    monkeypatch.syspath_prepend(str(Path.cwd()))
    found = ima.evaluate(
        space["model"], space["train_set"], 0.5, ["pgd-2", "myattacks:one_step"], bounds=(0, 1)
    )
    assert found.attacks[:2] == ("pgd-2", "myattacks:one_step")
    torch.save(space["regressor"].state_dict(), "weights.pt")
    Path("mine.py").write_text(
        f"{PRELUDE}{MORE['own.md']}\ndef network():\n    return regressor\n"
        "def test_set():\n    return ages\n"
    )
    said = call(
        *shlex.split(
            "evaluate weights.pt --model mine:network --data mine:test_set --bounds 0 1 --eps 0.5 "
            "--attacks pgd-2 --task mytasks:Within"
        )
    )
    assert said.code == 0, said.err


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of ours in the shell blocks of a page, without `ima`."""
    for _, block in fences(text, ""):
        if not re.search(r"(^|[ (])ima ", block, re.M):
            continue
        waiting = ""
        for line in block.splitlines():
            waiting += line.removesuffix("\\") + ("\n" if not line.endswith("\\") else " ")
            if line.endswith("\\"):
                continue
            try:
                words = shlex.split(waiting.replace("$(", " ").replace(")", ""), comments=True)
            except ValueError:  # a quote that goes on in the next line
                continue
            waiting = ""
            yield from _ours(words)
        assert not waiting, block


def _ours(words: list[str]) -> Iterator[list[str]]:
    place = 0
    while "ima" in words[place:]:
        place = words.index("ima", place) + 1
        told: list[str] = []
        for word in words[place:]:
            if word in ("&&", "|"):
                break
            told.append(word.removesuffix(";"))
            if word.endswith(";"):
                break
        yield told


COMMANDS = {
    f"{page.name}: ima {' '.join(words)}": words
    for page in TEXTS
    for words in commands(page.read_text(encoding="utf-8"))
    # What only says that there is more.
    if "..." not in words
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_of_a_page_is_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = COMMANDS[name]
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command is not None, bound
    if words[0] not in ("train", "compare") or words[1].startswith("-"):
        return
    # A key that does not exist is refused with the nearest one.
    shutil.copy(ROOT / "examples" / "own_method.py", "mymethods.py")
    Path("mine.yaml").write_text(yaml_of("compare.md"))
    monkeypatch.syspath_prepend("")
    own = itertools.takewhile(lambda word: not word.startswith("-"), words[2:])
    loaded = load_config(words[1], list(own))
    # Data that are published elsewhere may be absent.
    if loaded.data.name == "digits":
        check_buildable(loaded)


def yaml_of(name: str) -> str:
    """The config that a page shows."""
    ((_, text),) = fences((DOCS / name).read_text(encoding="utf-8"), "yaml")
    return text


CHEAP = [["list"], ["nnunet", "path"], ["evaluate", "--plan"], ["config"], ["runs"]]


@pytest.mark.parametrize(
    "name", [name for name, words in COMMANDS.items() if any(words[: len(c)] == c for c in CHEAP)]
)
def test_a_cheap_command_of_a_page_runs(name: str) -> None:
    Path("runs").mkdir()
    said = call(*COMMANDS[name])
    assert said.code == 0 and said.out.strip(), said.err


def test_the_commands_for_a_network_of_ones_own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions of `harden.md`, its commands, and those of `evaluate.md`, as they stand."""
    monkeypatch.syspath_prepend(str(Path.cwd()))
    (_, functions), *_ = fences((DOCS / "harden.md").read_text(encoding="utf-8"), "python")
    Path("mynets.py").write_text(PRELUDE + MORE["harden.md"] + functions)
    exec(Path("mynets.py").read_text(), {"__name__": "mynets"})
    hardened, again = commands((DOCS / "harden.md").read_text(encoding="utf-8"))
    assert call(*hardened).code in (0, 3)
    assert Path("weights.pt-hardened", "report.html").is_file()
    # Whether the new weights are there depends on whether they are better.
    shutil.copy("weights.pt", "weights.pt-hardened/weights.pt")
    assert call(*again, "--attacks", "pgd-2").code == 0
    told = [*commands((DOCS / "evaluate.md").read_text(encoding="utf-8"))][:3]
    assert [words[0] for words in told] == ["evaluate", "report", "report"]
    dear = {"autoattack", "--checks", "--distances"}
    weak = [word.replace("pgd-100", "pgd-2") for word in told[0] if word not in dear]
    for words, codes in ((weak, (0,)), (told[1], (0,)), (told[2], (0, 4))):
        said = call(*words)
        assert said.code in codes, said.err
    assert "Triage, version 3" in Path("report.html").read_text(encoding="utf-8")


def test_the_notebook_runs_from_top_to_bottom(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    notebook = json.loads((DOCS / "first.ipynb").read_text(encoding="utf-8"))
    space: dict[str, Any] = {}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        assert cell["execution_count"] == number
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), space)
        # What came out is kept; what depends on no machine must come out again.
        if number in (1, 3):
            assert capsys.readouterr().out.endswith("".join(cell["outputs"][0]["text"]))
    assert space["hardened"].before.eps
    assert space["after"].attacks == space["results"].attacks


# --- What is named exists -------------------------------------------------------------------------


def options() -> set[str]:
    """Every option of every command."""
    found: set[str] = set()
    waiting = [app]
    while waiting:
        one = waiting.pop()
        for name in one:
            if name.startswith("-"):
                continue
            inner = one[name]
            waiting.append(inner)
            if inner.default_command is not None:
                for argument in inner.assemble_argument_collection():
                    found |= set(argument.names)
    return found


def test_every_option_that_is_named_exists() -> None:
    known = options() | {"--help", "--version", "--no-regions", "--c"}
    for page in TEXTS:
        for found in re.findall(r"`(--[a-z][a-z-]*)", page.read_text(encoding="utf-8")):
            assert found in known, f"{page.name} names {found}"


def test_every_name_of_the_package_that_is_named_exists() -> None:
    for page in TEXTS:
        for found in re.findall(r"`ima\.([A-Za-z_]\w*)[`(]", page.read_text(encoding="utf-8")):
            known = found in ima.__all__ or importlib.util.find_spec(f"ima.{found}") is not None
            assert known, f"{page.name} names ima.{found}"


def anchors(text: str) -> set[str]:
    """What links to a page may end in: its headings, and what is named."""
    found = set(re.findall(r"\{ #([\w.-]+) \}", text))
    for heading in re.findall(r"^#+ +(.+)$", text, re.M):
        plain = re.sub(r"\{.*?\}|\[([^\]]*)\]\([^)]*\)|`", r"\1", heading).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain)).strip("-"))
    return found


LINKED = [*TEXTS, ROOT / "examples" / "README.md", ROOT / "results" / "README.md"]


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_house_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", written(page), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https:", "http:", "mailto:")):
            continue
        place, _, anchor = target.partition("#")
        file = HOOK.PICTURES.get(place, (page.parent / place).resolve()) if place else page
        assert file.exists(), f"{page.name} links {target}"
        if anchor:
            assert anchor in anchors(written(file)), f"{page.name} links {target}"
    for shown in re.findall(r'--8<-- "(.+)"', text):
        assert (ROOT / shown).exists()


def test_every_page_is_in_the_contents() -> None:
    told = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f": {page}\n" in told for page in [*(page.name for page in PAGES), HOOK.PAGE])


def test_what_is_made_from_the_house_is_whole() -> None:
    checks, methods = written(DOCS / "checks.md"), written(DOCS / "methods.md")
    for row in CHECKS.values():
        assert f"{{ #check-{row.name} }}" in checks
        assert row.raised in checks and row.means in checks and row.do in checks
    for row in METHODS.values():
        assert f"| `{row.name}` | [`{row.method.__name__}`](reference.md#ima." in methods
        assert row.paper.strip("-") in methods
    assert all(f"| `{name}` |" in methods for name in NETWORKS)
    attacks = written(DOCS / "evaluate.md")
    assert all(f"| `{row.label}` |" in attacks for row in ATTACKS.values())
    keys = written(DOCS / "keys.md")
    rows = [f"| `{k.name}` | {k.of} | {k.kind} | {k.default} |" for k in find_keys()]
    assert all(row in keys for row in rows)
    assert "| `train.epochs` |  | whole number, at least 1 | 100 |" in keys
    assert all(path.exists() for path in HOOK.PICTURES.values())
    for table in re.findall(r"(?:^\|.*\|\n)+", checks + methods + attacks + keys, re.M):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_the_reference_has_every_public_name() -> None:
    text = written(DOCS / "reference.md")
    for public in PUBLIC:
        assert text.count(f"{{ #ima.{public} }}") == 1, public
    assert "- `num_samples`: size of the training set" in text
    assert "- `accuracy(attack='clean', eps=None)`: Share of all samples" in text
    assert ">>> import ima" in text and "----" not in text


def test_a_docstring_becomes_a_list_and_code() -> None:
    assert HOOK.described("Parameters\n----------\na:\n    One.") == "- `a`: One."
    doc = "Do it.\n\na: one *b*\n    line more\nb, c: two\n\nRaises X_Y.\na: three\n\n>>> 1\n1"
    assert HOOK.described(doc) == (
        "Do it.\n\n- `a`: one \\*b\\* line more\n- `b, c`: two\n\nRaises X\\_Y.\n\n- `a`: three\n\n"
        "```pycon\n>>> 1\n1\n```"
    )


def test_a_part_of_an_example_is_shown_whole() -> None:
    shown = HOOK.part("examples/own_method.py", "Ramp")
    assert shown.startswith('```python title="examples/own_method.py"\nclass Ramp(Noisy):\n')
    assert shown.endswith("walked.stuck)\n```")
    with pytest.raises(ValueError, match="has no function or class Lamp"):
        HOOK.part("examples/own_method.py", "Lamp")
    with pytest.raises(KeyError, match="nothing"):
        HOOK.expand("<!-- nothing -->")


SOURCES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(Path(ima.__file__).parent.rglob("*.py"))
}


INSIDE = {"_Enough", "Pruned"}
"""What ends a trial, and reaches nobody."""


def test_every_error_and_warning_of_its_own_has_its_entry() -> None:
    found = anchors(written(DOCS / "checks.md"))
    own: set[str] = set()
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base) for base in node.bases]
                if any(re.search(r"(Error|Exception|Warning)$", base) for base in bases):
                    own.add(node.name)
    assert own and own - INSIDE <= found, own - INSIDE - found


def said_in(node: ast.AST) -> list[str]:
    """The texts of a part of a program."""
    texts: list[str] = []
    for inner in ast.walk(node):
        if isinstance(inner, ast.JoinedStr):
            parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in inner.values]
            texts.append("".join(map(str, parts)))
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            texts.append(inner.value)
    return texts


def test_every_doubt_has_its_entry() -> None:
    """A call of `warnings.warn`, and a remark of the verdict, is quoted on the page."""
    page = (DOCS / "checks.md").read_text(encoding="utf-8")
    quoted = re.findall(r'^\*"(.+?)"\*$', page, re.M)
    said = {path: said_in(tree) for path, tree in SOURCES.items()}
    for quote in quoted:
        assert any(quote in text for texts in said.values() for text in texts), quote
    for path, tree in SOURCES.items():
        # What warns of remarks, which the verdict makes.
        if path.name == "remarks.py":
            continue
        calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
        calls = [name for name in calls if ast.unparse(name) == "warnings.warn"]
        here = [quote for quote in quoted if any(quote in text for text in said[path])]
        assert len(here) >= len(calls), f"{path.name} warns of what the handbook does not tell"
    (verdict,) = [one for one in SOURCES if one.parts[-2:] == ("evaluation", "verdict.py")]
    makers = [node for node in SOURCES[verdict].body if isinstance(node, ast.FunctionDef)]
    for maker in [one for one in makers if one.name != "refuse_end" and "refusal" not in one.name]:
        assert any(quote in text for quote in quoted for text in said_in(maker)), maker.name


# --- The whole handbook ---------------------------------------------------------------------------


def test_the_handbook_builds_without_a_warning_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(site)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0 and not done.stderr.strip(), done.stdout + done.stderr
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'(src|srcset)="(https?:)?//', text), page.name
        assert not re.search(r'<link [^>]*href="(https?:)?//', text), page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\((https?:)?//", style.read_text(encoding="utf-8")), style.name
    reference = (site / "reference.html").read_text(encoding="utf-8")
    assert all(f'id="ima.{public}"' in reference for public in PUBLIC)
    checks = (site / "checks.html").read_text(encoding="utf-8")
    assert all(f'id="check-{check}"' in checks for check in CHECKS)
    # Every link that begins within the site ends there, and at what it names.
    ids = {
        page.name: set(re.findall(r' id="([^"]+)"', page.read_text(encoding="utf-8")))
        for page in site.glob("*.html")
    }
    for name in ids:
        text = (site / name).read_text(encoding="utf-8")
        for target in re.findall(r'<a [^>]*href="([^":]+)"', text):
            place, _, anchor = target.partition("#")
            assert not place or (site / place.removeprefix("/")).exists(), f"{name} links {target}"
            if anchor and (place or name) in ids and anchor != "__skip":
                assert anchor in ids[place or name], f"{name} links {target}"
    # The notebook is a page, with what came out, and there to take along.
    notebook = (site / "first.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in notebook and "training samples of shape" in notebook
    assert (site / "first.ipynb").is_file() and 'href="first.html"' in reference
    assert not list(site.glob("*.py"))


def test_issue_templates_have_a_name_and_say_what_for() -> None:
    templates = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md"))
    assert len(templates) > 1
    for path in templates:
        assert re.match(r"---\nname: .+\nabout: .+\n", path.read_text(encoding="utf-8")), path.name
