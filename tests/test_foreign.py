"""Networks from elsewhere on the command line: their weights, code that builds them, and data."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_cli import call
from torch import nn
from torch.utils.data import TensorDataset

from ima.budget import Budget
from ima.data import Part, load
from ima.evaluation.checks_results import Checks
from ima.evaluation.checks_table import CHECKS
from ima.evaluation.distances import Distances
from ima.evaluation.finders import FINDERS
from ima.evaluation.results import Results
from ima.evaluation.subject import evaluate_subject
from ima.tasks import Segmentation
from ima.training.checkpoint import save_weights
from ima.training.foreign import data_digest, foreign_subject

CODE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from ima.networks.small_cnn import small_cnn

def net():
    return small_cnn(1, 10, width=8)

def sized(in_channels, num_classes):
    return small_cnn(in_channels, num_classes, width=8)

class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = net()

    def load_state_dict(self, *args, **kwargs):
        return self.inner.load_state_dict(*args, **kwargs)

    def forward(self, x):
        return self.inner((x * 16).round() / 16)

def samples():
    from ima.data import load
    from torch.utils.data import TensorDataset
    return TensorDataset(*load("digits").test[list(range(40))])

def batches():
    from ima.data import load
    x, y = load("digits").test[list(range(40))]
    return list(zip(x.split(10), y.split(10)))

def generator():
    yield torch.rand(2, 1, 8, 8), torch.zeros(2).long()

def large():
    return [(torch.rand(2, 3, 8, 8), torch.zeros(2).long())]

ready = net()
word = "resnet18"
table = {"conv.weight": torch.zeros(2)}

def nothing():
    return None

class Around(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner, self.kind = net(), kind

    def load_state_dict(self, *args, **kwargs):
        return self.inner.load_state_dict(*args, **kwargs)

    def forward(self, x):
        return self.kind((("logits", self.inner(x)),))

def as_dict():
    return Around(dict)

def as_tuple():
    return Around(lambda pairs: tuple(value for _, value in pairs))

def as_column():
    x, y = samples().tensors
    return [(x, y[:, None])]

class Conv(nn.Module):
    # Labels of pixels, or with one channel a region.
    def __init__(self, dims=2, channels=2):
        super().__init__()
        kind = nn.Conv2d if dims == 2 else nn.Conv3d
        self.conv = kind(1, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(x)

def volumes_net():
    return Conv(3)

def region_net():
    return Conv(2, 1)

def squares(side=12, dims=2, n=5):
    source = torch.Generator().manual_seed(3)
    x = 0.1 * torch.rand(n, 1, *[side] * dims, generator=source)
    y = torch.zeros(n, *[side] * dims, dtype=torch.long)
    for i in range(n):
        y[(i, *[slice(1 + i % 3, 8)] * dims)] = 1
    return x + 0.5 * y[:, None], y

def slices():
    from torch.utils.data import TensorDataset
    return TensorDataset(*squares())

def ignored():
    from torch.utils.data import TensorDataset
    x, y = squares()
    y[:, 0] = 255
    return TensorDataset(x, y)

def regions():
    x, y = squares()
    return [(x[:3], y[:3, None]), (x[3:], y[3:, None])]

def volumes():
    x, y = squares(8, 3)
    return [(x, y[:, None])]

def listed():
    return list(zip(*squares()))

def listed_regions():
    x, y = squares()
    return list(zip(x, y[:, None].float()))

def listed_volumes():
    x, y = squares(8, 3)
    return list(zip(x, y[:, None]))

def one_hot(kind=float):
    x, y = squares()
    return x, torch.stack([1 - y, y], 1)

def hot_samples():
    from torch.utils.data import TensorDataset
    return TensorDataset(*one_hot())

def hot_list():
    x, y = one_hot()
    return list(zip(x, y.float()))

def hot_batches():
    x, y = one_hot()
    return [(x, y.bool())]

def hot_at_first():
    x, y = one_hot()
    y[3] = 0
    return list(zip(x, y))

def overlapping():
    x, y = squares()
    return list(zip(x, torch.stack([y, y], 1)))

class Told(list):
    cases = ["a", "a", "b", "b", "c"]
    classes = ["background", "square"]

def told():
    return Told(listed())

def with_cases():
    x, y = squares()
    return [{"image": a, "label": b, "who": n} for a, b, n in zip(x, y, "aabbc")]

cases = tuple("aabbc")

from ima.tasks import Task

class Parity(Task):
    # Whether a digit is odd, by ten logits.

    def loss(self, output, target):
        return -self.score(output, target)

    def score(self, output, target):
        odd, even = output[:, 1::2].amax(1), output[:, ::2].amax(1)
        return torch.where(target % 2 == 1, odd - even, even - odd)

    def correct(self, output, target):
        return self.score(output, target) > 0

    def predict(self, output):
        return output.argmax(1) % 2

def parity():
    return Parity()

def digits_of_people():
    x, y = samples().tensors
    return [(a, b, i // 8) for i, (a, b) in enumerate(zip(x, y))]
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and a module of a user's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    return tmp_path


def test_a_network_from_elsewhere_is_evaluated_and_checked(
    work: Path, honest: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = {k: v for k, v in CHECKS.items() if k in ("gradients", "probabilities")}
    monkeypatch.setattr("ima.evaluation.checks.CHECKS", keep)
    save_weights(work / "weights.safetensors", honest.state_dict())
    torch.save({"state_dict": honest.state_dict()}, work / "weights.pt")
    common = ("--eps", "0.4", "--attacks", "pgd-2", "--device", "cpu")
    data = ("--data", "theirs:samples", "--bounds", "0", "1")
    said = call("evaluate", "weights.safetensors", "--model", "theirs:net", *data, *common)
    assert said.code == 0, said.err
    folder = work / "weights.safetensors-evaluation"
    names = ["examples.npz", "results.csv", "results.json"]
    assert sorted(p.name for p in folder.iterdir()) == names
    expected = (folder / "results.csv").read_text()
    assert call("report", str(folder), "--out", "page.md").code == 0
    page = (work / "page.md").read_text()
    for words in ("What was evaluated, and where", "theirs:net", "theirs:samples", "0 to 1"):
        assert words in page
    assert "2 steps of 10 eps / 2" in page and torch.__version__ in page
    for words in (
        ["--model", "theirs:net", *data],
        ["--model", "theirs:ready", *data],
        ["--model", "theirs:sized", "--num-classes", "10", *data],
        ["--model", "theirs:sized", "--num-classes", "10", "--channels", "1", *data],
    ):
        said = call("evaluate", "weights.pt", *words, *common)
        assert said.code == 0, said.err
        found = (work / "weights.pt-evaluation" / "results.csv").read_text()
        assert found == expected
    said = call(
        *("evaluate", "weights.pt", "--model", "theirs:Hidden", "--data", "digits", "--strict"),
        *common,
    )
    assert said.code == 3, said.err
    checks = Checks.from_json(work / "weights.pt-evaluation" / "checks.json")
    assert checks.tripped == ("gradients",)


class Bomb:
    """Executes something when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("executed", "w"))


def test_weights_that_cannot_be_trusted_are_refused(work: Path, honest: nn.Module) -> None:
    words = ("--model", "theirs:net", "--data", "theirs:samples", "--eps", "0.4", "--device", "cpu")
    save_weights(work / "good.safetensors", honest.state_dict())
    whole = (work / "good.safetensors").read_bytes()
    (work / "folder.pt").mkdir()
    (work / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    torch.save(honest.state_dict(), work / "good.pt")
    (work / "cut.pt").write_bytes((work / "good.pt").read_bytes()[:1000])
    torch.save({"model": Bomb()}, work / "bomb.pt")
    damaged = {k: v + float("nan") for k, v in honest.state_dict().items()}
    save_weights(work / "nan.safetensors", damaged)
    for name, expected in (
        ("absent.pt", "there is no checkpoint"),
        ("folder.pt", "is a folder; expected a file"),
        ("cut.safetensors", "damaged"),
        ("cut.pt", "damaged"),
        ("bomb.pt", "could execute code"),
        ("nan.safetensors", "not finite"),
    ):
        said = call("evaluate", name, *words, "--strict")
        assert said.code == 1, name
        assert expected in said.err and "Traceback" not in said.err, said.err
        assert not list(work.rglob("results.csv")) and not list(work.rglob("checks.json"))
    assert not (work / "executed").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--eps", "0.4"], ["--model module:function"]),
        (["--norm", "2"], ["--norm", "--model"]),
        (["--model", "theirs:net"], ["--data", "--eps"]),
        (["--model", "theirs:net", "--data", "digits"], ["--data", "--eps"]),
        (["--model", "theirs:absent", "--data", "digits", "--eps", "1"], ["theirs:absent"]),
        (["--model", "absent:net", "--data", "digits", "--eps", "1"], ["absent:net", "PYTHONPATH"]),
        (["--model", "theirs:sized", "--data", "theirs:samples", "--eps", "1"], ["--num-classes"]),
        (["--model", "small_cnn", "--data", "theirs:samples", "--eps", "1"], ["--num-classes"]),
        (["--model", "theirs:nothing", "--data", "digits", "--eps", "1"], ["NoneType", "Module"]),
        (["--model", "theirs:word", "--data", "digits", "--eps", "1"], ["type str", "Module"]),
        (["--model", "theirs:table", "--data", "theirs:samples", "--eps", "1"], ["type dict"]),
        (["--model", "builtins:dict", "--data", "digits", "--eps", "1"], ["Module"]),
        (["--model", "theirs:net", "--data", "nowhere", "--eps", "1"], ["nowhere", "digits"]),
        (["--model", "theirs:net", "--data", "theirs:generator", "--eps", "1"], ["more than once"]),
        (["--model", "theirs:net", "--data", "theirs:nothing", "--eps", "1"], ["NoneType"]),
        (["--model", "theirs:net", "--data", "theirs:large", "--eps", "1"], ["(3, 8, 8)"]),
        (
            ["--model", "theirs:net", "--data", "digits", "--eps", "1", "--checkpoint", "last"],
            ["a run"],
        ),
        (["--model", "theirs:net", "--data", "digits", "--eps", "1", "--norm", "3"], ["linf"]),
        (["--model", "theirs:Hidden", "--data", "digits", "--eps", "-1"], ["above 0"]),
        (["--model", "theirs:as_dict", "--data", "digits", "--eps", "1"], ["a dict", "alone"]),
        (["--model", "theirs:as_tuple", "--data", "digits", "--eps", "1"], ["alone"]),
        (
            ["--model", "theirs:net", "--data", "theirs:as_column", "--eps", "1"],
            ["(1,) a sample", "y.reshape(-1).long()"],
        ),
        (
            ["--model", "theirs:net", "--data", "digits", "--eps", "1", "--bounds", "-1", "0.5"],
            ["bounds (-1.0, 0.5)"],
        ),
        (["--transfer-from", "x"], ["--checks"]),
    ],
)
def test_words_that_do_not_fit_are_refused(
    words: list[str], expected: list[str], work: Path, honest: nn.Module
) -> None:
    if words[0] != "--transfer-from":
        save_weights(work / "w.safetensors", honest.state_dict())
    said = call("evaluate", "w.safetensors", *words)
    assert said.code == 1, said.out + said.err
    assert "Traceback" not in said.err
    for word in expected:
        assert word in said.err
    assert not list(work.rglob("*.csv"))


# --- Distances, pictures, and time ----------------------------------------------------------------


def test_distances_and_pictures_come_as_for_a_run(work: Path, honest: nn.Module) -> None:
    save_weights(work / "w.safetensors", honest.state_dict())
    said = call(
        *("evaluate", "w.safetensors", "--model", "theirs:net", "--data", "theirs:samples"),
        *("--bounds", "0", "1", "--eps", "0.3", "0.8", "--attacks", "pgd-5", "--distances"),
        *("--device", "cpu"),
    )
    assert said.code == 0, said.err
    folder = work / "w.safetensors-evaluation"
    names = ["distances.csv", "distances.json", "examples.npz", "results.csv", "results.json"]
    assert sorted(p.name for p in folder.iterdir()) == names
    found = Distances.from_csv(folder / "distances.csv")
    results = Results.from_csv(folder / "results.csv")
    assert len(found.rows) == 40
    assert found.accuracy() == results.accuracy()
    for eps in (0.3, 0.8):
        # What PGD with a hundred steps finds at a radius, the search for the smallest finds too.
        assert found.accuracy(eps) <= results.accuracy("pgd-5", eps)
        assert f"no noise up to {eps:g} found: {found.accuracy(eps):.1%}" in said.out
    with np.load(folder / "examples.npz", allow_pickle=False) as file:
        assert file["clean"].shape[1:] == (1, 8, 8)
        assert set(file["label"].tolist()) == {str(i) for i in range(10)}
    said = call("report", str(folder), "--out", "page.html")
    assert said.code == 0, said.err
    page = (work / "page.html").read_text()
    assert "Smallest noise that breaks a sample" in page and "Samples with noise" in page


def test_a_page_takes_no_checks_and_distances_of_other_weights(
    work: Path, honest: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = {k: v for k, v in CHECKS.items() if k == "probabilities"}
    monkeypatch.setattr("ima.evaluation.checks.CHECKS", keep)
    save_weights(work / "w.safetensors", honest.state_dict())
    words = (
        *("evaluate", "w.safetensors", "--model", "theirs:net", "--data", "theirs:samples"),
        *("--bounds", "0", "1", "--eps", "0.3", "--attacks", "pgd-1", "--device", "cpu"),
    )
    folder = work / "w.safetensors-evaluation"
    assert call(*words, "--checks", "--distances").code == 0
    assert call("report", str(folder), "--out", "a.json").code == 0
    save_weights(work / "w.safetensors", {k: 1.01 * v for k, v in honest.state_dict().items()})
    assert call(*words).code == 0
    for name, option in (("checks.json", "--checks"), ("distances.csv", "--distances")):
        said = call("report", str(folder), "--out", "b.json")
        assert said.code == 1 and f"{name} was made with other weights" in said.err
        assert not (work / "b.json").exists()
        assert call(*words, option).code == 0
    assert call("report", str(folder), "--out", "b.json").code == 0


def test_a_page_takes_no_checks_and_distances_of_another_evaluation(
    work: Path, honest: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = {k: v for k, v in CHECKS.items() if k == "probabilities"}
    monkeypatch.setattr("ima.evaluation.checks.CHECKS", keep)
    save_weights(work / "w.safetensors", honest.state_dict())
    folder = work / "w.safetensors-evaluation"

    def evaluated(*more: str, data: str = "theirs:samples") -> None:
        words = ("evaluate", "w.safetensors", "--model", "theirs:net", "--data", data, *more)
        said = call(*words, "--eps", "0.3", "--attacks", "pgd-1", "--device", "cpu")
        assert said.code == 0, said.err

    usual = ("--bounds", "0", "1")
    evaluated(*usual, "--checks", "--distances")
    assert call("report", str(folder), "--out", "page.json").code == 0
    for name in ("checks.json", "distances.csv"):
        for other, expected in (
            ((*usual, "--norm", "linf"), "another norm (L2, not Linf)"),
            (("--bounds", "-1", "2"), "other bounds (0 to 1, not -1 to 2)"),
        ):
            evaluated(*other)
            said = call("report", str(folder), "--out", "other.json")
            assert said.code == 1 and f"{name} was made with {expected}" in said.err
        evaluated(*usual, data="theirs:batches")
        said = call("report", str(folder), "--out", "other.json")
        expected = "other data (theirs:samples, not theirs:batches)"
        assert said.code == 1 and f"{name} was made with {expected}" in said.err
        (folder / name).unlink()
    assert not (work / "other.json").exists()


def test_networks_that_were_evaluated_differently_make_no_page(
    work: Path, honest: nn.Module
) -> None:
    for name in ("a", "b"):
        save_weights(work / f"{name}.safetensors", honest.state_dict())
    folders = [str(work / f"{name}.safetensors-evaluation") for name in ("a", "b")]
    for bounds, data, said in (
        (("0", "1"), "theirs:samples", ""),
        (("-1", "2"), "theirs:samples", "differ in their bounds: 0 to 1, -1 to 2"),
        (("0", "1"), "theirs:batches", "differ in their data: theirs:samples, theirs:batches"),
    ):
        for name, its in (("a", (("0", "1"), "theirs:samples")), ("b", (bounds, data))):
            done = call(
                *("evaluate", f"{name}.safetensors", "--model", "theirs:net", "--data", its[1]),
                *("--bounds", *its[0], "--eps", "0.3", "--attacks", "pgd-1", "--device", "cpu"),
            )
            assert done.code == 0, done.err
        report = call("report", *folders, "--out", "page.json")
        assert (report.code, said in report.err) == (int(bool(said)), True), report.err


def test_a_module_is_used_as_it_is_and_left_alone(work: Path, honest: nn.Module) -> None:
    save_weights(work / "w.safetensors", honest.state_dict())
    words: dict[str, Any] = {"bounds": (0, 1), "device": "cpu"}
    data = "theirs:samples"
    subject = foreign_subject(work / "w.safetensors", "theirs:ready", data, (1.0,), **words)
    theirs = sys.modules["theirs"].ready
    ours = subject.model.state_dict()
    assert all(torch.equal(ours[k], v) for k, v in honest.state_dict().items())
    assert any(not torch.equal(ours[k], v) for k, v in theirs.state_dict().items())
    save_weights(work / "other.safetensors", {"weight": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"other\.safetensors"):
        foreign_subject(work / "other.safetensors", "theirs:ready", data, (1.0,), **words)


def test_pictures_of_other_data_under_the_same_name_are_dropped(
    work: Path, honest: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(work / "w.safetensors", honest.state_dict())

    def shown() -> set[int]:
        words: dict[str, Any] = {"bounds": (0, 1), "device": "cpu"}
        weights, data = work / "w.safetensors", "theirs:samples"
        subject = foreign_subject(weights, "theirs:net", data, (0.3,), ("pgd-1",), **words)
        # What is under way stays, as where a command was stopped.
        evaluate_subject(subject)
        with np.load(subject.folder / "examples.npz", allow_pickle=False) as file:
            return set(file["id"].tolist())

    assert max(shown()) >= 10
    theirs = sys.modules["theirs"]
    x, y = theirs.samples().tensors
    monkeypatch.setattr(theirs, "samples", lambda: TensorDataset(x[:10], y[:10]))
    assert max(shown()) < 10


def test_a_digest_of_data_tells_other_samples_and_labels() -> None:
    x, y = load("digits").test[list(range(40))]
    changed = y.clone()
    changed[30] += 1
    same = [data_digest(TensorDataset(x, y)) for _ in range(2)]
    assert len({*same, data_digest(TensorDataset(x, changed))}) == 2
    test = load("digits").test
    parts = [Part(test.images[:n].clone(), test.targets[:n].clone()) for n in (40, 40, 30)]
    assert len({data_digest(part) for part in parts}) == 2
    # Of batches the first, as of whatever is not in memory.
    batches = [list(zip(one.split(10), y.split(10), strict=True)) for one in (x, x, x.flip(0))]
    assert len({data_digest(one) for one in batches}) == 2
    scales = [[(x, [y, other])] for other in (y, y, changed)]
    assert len({data_digest(one) for one in scales}) == 2


def test_what_ran_out_of_time_goes_on_at_every_step(
    work: Path, honest: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = {k: v for k, v in CHECKS.items() if k in ("one-step", "monotone")}
    monkeypatch.setattr("ima.evaluation.checks.CHECKS", keep)
    monkeypatch.setattr("ima.evaluation.minimal.FINDERS", FINDERS[:1])
    save_weights(work / "w.pt.safetensors", honest.state_dict())
    words = (
        *("evaluate", "w.pt.safetensors", "--model", "theirs:net", "--data", "theirs:batches"),
        *("--bounds", "0", "1", "--eps", "0.3", "0.8", "--attacks", "pgd-5", "--distances"),
        *("--checks", "--device", "cpu"),
    )
    folder = work / "w.pt.safetensors-evaluation"

    def files() -> dict[str, str]:
        found = {p.name: p.read_text() for p in folder.iterdir() if p.suffix in (".csv", ".json")}
        # All but how long it took.
        return {k: re.sub(r'"seconds": .*', "", text) for k, text in found.items()}

    assert call(*words).code == 0
    whole = files()
    tables = ["distances.csv", "distances.json", "results.csv", "results.json"]
    assert sorted(whole) == ["checks.json", *tables]
    for path in folder.iterdir():
        path.unlink()
    turns: list[float] = []
    monkeypatch.setattr(Budget, "left", lambda _: turns.pop() if turns else 0.0)
    stops: list[str] = []
    for _ in range(20):
        # Time for two looks at the clock in every call.
        turns[:] = [1e9, 1e9]
        said = call(*words, "--time-budget", "9m")
        if said.code == 0:
            break
        assert said.code == 75, said.err
        stops.append(said.err.rpartition("ima: ")[2].partition(":")[0])
    assert said.code == 0
    assert list(dict.fromkeys(stops)) == ["evaluation", "smallest noise", "checks"]
    assert files() == whole
    assert sorted(p.name for p in folder.iterdir()) == sorted([*whole, "examples.npz"])
    # What another command left unfinished is not this one's to delete.
    left = [folder / "distances.part", folder / "checks.part"]
    for path in left:
        path.write_text("unfinished")
    assert call(*(w for w in words if w not in ("--distances", "--checks"))).code == 0
    assert all(path.read_text() == "unfinished" for path in left)
    assert not (folder / "results.part").exists()


# --- Segmentation ---------------------------------------------------------------------------------


def bright(dims: int, channels: int) -> dict[str, torch.Tensor]:
    """Weights by which a pixel above 0.3 is foreground."""
    weight = torch.zeros(channels, 1, *[3] * dims)
    weight[(-1, 0, *[1] * dims)] = 10.0
    bias = torch.zeros(channels)
    bias[-1] = -3.0
    return {"conv.weight": weight, "conv.bias": bias}


@pytest.mark.parametrize(
    ("model", "data", "dims", "channels", "named", "more"),
    [
        ("theirs:Conv", "theirs:slices", 2, 2, "class 1", ()),
        ("theirs:region_net", "theirs:regions", 2, 1, "region 1", ()),
        ("theirs:volumes_net", "theirs:volumes", 3, 2, "class 1", ()),
        ("theirs:Conv", "theirs:ignored", 2, 2, "class 1", ("--ignore-label", "255")),
    ],
    ids=["labels", "regions", "volumes", "ignored"],
)
def test_a_segmentation_network_is_told_by_its_answer(
    model: str,
    data: str,
    dims: int,
    channels: int,
    named: str,
    more: tuple[str, ...],
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep = {k: v for k, v in CHECKS.items() if k in ("gradients", "monotone", "probabilities")}
    monkeypatch.setattr("ima.evaluation.checks.CHECKS", keep)
    save_weights(work / "theirs.safetensors", bright(dims, channels))
    words = ("evaluate", "theirs.safetensors", "--model", model, "--data", data, *more)
    attacks = ("--attacks", "pgd-10", "ensemble-10", "--eps", "2", "5", "--device", "cpu")
    said = call(*words, *attacks, "--checks")
    assert said.code == 0, said.err
    folder = work / "theirs.safetensors-evaluation"
    names = ["checks.json", "overlays.npz", "results_theirs.csv", "results_theirs.json"]
    assert sorted(p.name for p in folder.iterdir()) == names
    found = Results.from_csv(folder / "results_theirs.csv")
    assert found.classes == (named,)
    assert (found.norm, found.settings.data) == ("L2", data)
    about = found.settings.about
    assert (about["weights"], about["model"]) == ("theirs.safetensors", model)
    assert about["torch"] == torch.__version__
    assert found.adi() == 1.0
    # Pixels are about 0.25 from the threshold: what is 5 long takes hundreds over it.
    assert 1 > found.adi("worst case", 2.0) > found.adi("worst case", 5.0)
    checks = {c.name: c.tripped for c in Checks.from_json(folder / "checks.json").checks}
    assert checks == {"gradients": False, "monotone": False, "probabilities": None}
    assert "worst case" in said.out and "ok: no sign that" in said.out
    assert "unknown: whether outputs look like probabilities. Not run: " in said.out
    for name in ("page.html", "page.md", "page.json"):
        said = call("report", str(folder), "--out", name)
        assert said.code == 0, said.err
    page = (work / "page.html").read_text()
    assert "What noise breaks theirs" in page and "Trust checks" in page
    assert f"n = 5 {'images' if dims == 2 else 'volumes'}" in page
    title, markdown = "Gradients are zero or tiny", (work / "page.md").read_text(encoding="utf-8")
    assert title in page and title in markdown
    (network,) = json.loads((work / "page.json").read_text())["networks"]
    (seed,) = network["seeds"]
    assert [c["name"] for c in seed["checks"]["checks"]] == list(checks)


def loaded(work: Path, data: str, channels: int = 2, dims: int = 2, **more: Any) -> Any:
    weights = work / "w.safetensors"
    save_weights(weights, bright(dims, channels))
    model = {(2, 2): "Conv", (2, 1): "region_net", (3, 2): "volumes_net"}[dims, channels]
    words = (weights, f"theirs:{model}", f"theirs:{data}", (2.0,), ("ifgsm-1",))
    return foreign_subject(*words, device="cpu", **more)


@pytest.mark.parametrize(
    ("data", "channels", "dims", "regions", "asked"),
    [
        ("listed", 2, 2, False, None),
        ("listed_regions", 1, 2, True, None),
        ("listed_regions", 2, 2, False, None),
        ("listed_volumes", 2, 3, False, None),
        ("hot_samples", 2, 2, False, None),
        ("hot_list", 2, 2, False, None),
        ("hot_batches", 2, 2, False, None),
        ("hot_list", 2, 2, True, True),
        ("overlapping", 2, 2, True, None),
        ("listed", 2, 2, False, False),
    ],
)
def test_masks_say_whether_they_are_labels_or_regions(
    data: str, channels: int, dims: int, regions: bool, asked: bool | None, work: Path
) -> None:
    subject = loaded(work, data, channels, dims, regions=asked)
    assert subject.task == Segmentation(regions=regions)
    if asked is None and data != "overlapping":
        found = evaluate_subject(subject)
        assert len(found.at()) == 5 and found.adi() == 1.0
        said = "one-hot, taken as labels" if data.startswith("hot") else ""
        assert found.settings.about.get("masks", "").startswith(said)
        assert ("masks" in found.settings.about) == bool(said)
    else:
        assert asked is None or "asked for" in subject.settings.about["channels"]


def test_masks_that_may_be_either_ask_for_a_word(work: Path, honest: nn.Module) -> None:
    save_weights(work / "h.safetensors", honest.state_dict())
    with pytest.raises(ValueError, match=r"if the first is the background.*say --regions"):
        loaded(work, "hot_list", 1)
    assert loaded(work, "hot_list", 1, regions=True).task.regions
    words = (work / "h.safetensors", "theirs:net", "theirs:samples", (1.0,))
    with pytest.raises(ValueError, match="regions is for labels of pixels"):
        foreign_subject(*words, regions=True)
    subject = loaded(work, "hot_at_first")
    with pytest.raises(ValueError, match=r"not every pixel is 1 in one of them.*--regions"):
        evaluate_subject(subject)
    subject = loaded(work, "hot_list", regions=True)
    weights = bright(2, 2)
    weights["conv.bias"] = weights["conv.bias"] - 100
    subject.model.load_state_dict(weights)
    with pytest.warns(UserWarning, match="ends in a softmax"):
        found = evaluate_subject(subject)
    assert "ends in a softmax" in found.settings.about["masks"]


@pytest.mark.parametrize(
    ("data", "cases"),
    [
        ("told", None),
        ("with_cases", "who"),
        ("listed", "theirs:cases"),
        ("slices", "theirs:cases"),
    ],
)
def test_cases_are_said_on_the_command_line(data: str, cases: str | None, work: Path) -> None:
    save_weights(work / "w.safetensors", bright(2, 2))
    words = ("evaluate", "w.safetensors", "--model", "theirs:Conv", "--data", f"theirs:{data}")
    more = () if cases is None else ("--cases", cases)
    said = call(*words, *more, "--eps", "2", "--attacks", "ifgsm-1", "--device", "cpu")
    assert said.code == 0, said.err
    assert "Intervals are over 3 cases" in said.out
    found = Results.from_csv(work / "w.safetensors-evaluation" / "results_w.csv")
    assert found.cases == ("a", "b", "c")
    assert found.classes == (("square",) if data == "told" else ("class 1",))


def test_a_classifier_has_cases_too(work: Path, honest: nn.Module) -> None:
    save_weights(work / "w.safetensors", honest.state_dict())
    words = ("evaluate", "w.safetensors", "--model", "theirs:net", "--data")
    more = ("--eps", "0.4", "--attacks", "pgd-1", "--device", "cpu")
    said = call(*words, "theirs:digits_of_people", *more, "--cases", "2")
    assert said.code == 0 and "Intervals are over 5 cases" in said.out, said.err
    found = Results.from_csv(work / "w.safetensors-evaluation" / "results.csv")
    assert len(found.cases) == 5
    said = call(*words, "theirs:digits_of_people", *more)
    assert said.code == 0 and "Every sample is taken for a case of its own" in said.out
    said = call(*words, "theirs:digits_of_people", *more, "--cases", "who")
    assert said.code == 1 and "at 'who' of every sample" in said.err
    for at, what in (("0", "samples x"), ("1", "targets y")):
        said = call(*words, "theirs:digits_of_people", *more, "--cases", at)
        assert said.code == 1 and f"at {at}, but there are the {what}" in said.err


def test_a_segmentation_network_has_its_smallest_noise(work: Path) -> None:
    save_weights(work / "w.safetensors", bright(2, 2))
    words = ("evaluate", "w.safetensors", "--model", "theirs:Conv", "--data", "theirs:slices")
    said = call(*words, "--eps", "2", "5", "--attacks", "pgd-10", "--distances", "--device", "cpu")
    assert said.code == 0, said.err
    folder = work / "w.safetensors-evaluation"
    found = Distances.from_csv(folder / "distances.csv")
    results = Results.from_csv(folder / "results_w.csv")
    assert "broken: a mean Dice of at most 0.6" in said.out
    assert found.accuracy() == results.accuracy() == 1
    # Broken is a Dice of at most 0.6: of what PGD finds, the search for the smallest finds all.
    assert min(found.values) > 0 and found.accuracy(5) <= results.accuracy("pgd-10", 5) < 1
    assert found.settings.measure == results.settings.measure
    assert any(name.startswith("fab") for name in found.settings.left_out)


def test_what_does_not_fit_a_segmentation_network_is_refused(work: Path) -> None:
    save_weights(work / "w.safetensors", bright(2, 2))
    words = ("evaluate", "w.safetensors", "--model", "theirs:Conv", "--eps", "1")
    for more, expected in (
        (("--data", "theirs:ignored"), "targets hold 255"),
        (("--data", "theirs:regions"), None),
        (("--data", "theirs:slices", "--attacks", "autoattack"), "autoattack cannot run here"),
        (("--data", "theirs:samples", "--ignore-label", "255"), "shape"),
    ):
        said = call(*words, *more, "--device", "cpu")
        if expected is None:
            # Labels with a channel of their own are labels.
            assert said.code == 0, said.err
        else:
            assert said.code == 1 and expected in said.err, (more, said.err)
            assert "Traceback" not in said.err and not list(work.rglob("*.csv"))
        for path in work.rglob("*.csv"):
            path.unlink()


@pytest.mark.parametrize("task", ["Parity", "parity"])
def test_a_task_of_ones_own_is_named_on_the_command_line(
    task: str, work: Path, honest: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = {k: v for k, v in CHECKS.items() if k == "monotone"}
    monkeypatch.setattr("ima.evaluation.checks.CHECKS", keep)
    monkeypatch.setattr("ima.evaluation.minimal.FINDERS", FINDERS[:1])
    save_weights(work / "w.safetensors", honest.state_dict())
    words = ("evaluate", "w.safetensors", "--model", "theirs:net", "--data", "theirs:samples")
    more = ("--eps", "0.8", "--attacks", "pgd-5", "--bounds", "0", "1", "--device", "cpu")
    folder = work / "w.safetensors-evaluation"
    assert call(*words, *more).code == 0
    usual = Results.from_csv(folder / "results.csv")
    said = call(*words, *more, "--task", f"theirs:{task}", "--distances", "--checks")
    assert said.code == 0, said.err
    found = Results.from_csv(folder / "results.csv")
    assert "Parity" in found.settings.task and "Classification" in usual.settings.task
    assert set(found.columns["prediction"].tolist()) == {0, 1}
    # Who has the digit right has its parity right.
    assert found.accuracy() >= usual.accuracy() > 0.5
    assert found.accuracy("pgd-5", 0.8) > usual.accuracy("pgd-5", 0.8)
    assert Distances.from_csv(folder / "distances.csv").settings.task == found.settings.task
    assert Checks.from_json(folder / "checks.json").settings.task == found.settings.task


def test_a_task_that_is_none_is_refused(work: Path, honest: nn.Module) -> None:
    save_weights(work / "w.safetensors", honest.state_dict())
    save_weights(work / "pixels.safetensors", bright(2, 2))
    (work / "runs").mkdir()
    (work / "runs" / "config.yaml").write_text("")
    own = ("--model", "theirs:net", "--data", "theirs:samples", "--eps", "1", "--device", "cpu")
    for task, words in (
        ("classifcation", ["classifcation", "classification", "module"]),
        ("theirs:absent", ["theirs:absent"]),
        ("theirs:table", ["task", "theirs:table", "class or function"]),
        ("segmentation", ["shape"]),
    ):
        said = call("evaluate", "w.safetensors", *own, "--task", task)
        assert said.code == 1 and "Traceback" not in said.err, said.err
        assert all(word in said.err for word in words), said.err
    said = call("evaluate", "w.safetensors", *own, "--task", "theirs:Parity", "--regions")
    assert said.code == 1 and "--regions" in said.err and "--task" in said.err
    said = call("evaluate", "runs", "--task", "theirs:Parity")
    assert said.code == 1 and "--task belongs to a network from elsewhere" in said.err
    pixels = ("--model", "theirs:Conv", "--data", "theirs:slices", "--eps", "2")
    said = call("evaluate", "pixels.safetensors", *pixels, "--task", "classification")
    assert said.code == 1 and "Traceback" not in said.err
    assert not list(work.rglob("*.csv"))
    few = ("--attacks", "ifgsm-1", "--device", "cpu")
    assert call("evaluate", "pixels.safetensors", *pixels, *few, "--task", "segmentation").code == 0


def test_a_label_to_ignore_is_for_pixels(work: Path, honest: nn.Module) -> None:
    save_weights(work / "w.safetensors", honest.state_dict())
    said = call(
        *("evaluate", "w.safetensors", "--model", "theirs:net", "--data", "theirs:samples"),
        *("--eps", "1", "--ignore-label", "255", "--device", "cpu"),
    )
    assert said.code == 1 and "one answer a sample" in said.err
