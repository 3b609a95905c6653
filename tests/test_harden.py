"""`ima harden` and `ima.harden`: a better network, or the word that none was found."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import seeded
from safetensors.torch import save_file
from test_cli import call, elsewhere, start
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import ima
import ima.norms
from ima.data import load
from ima.evaluation.results import Results, Row
from ima.evaluation.settings import Settings
from ima.training import hardening
from ima.training.better import gain, told
from ima.training.hardening import STATE
from ima.training.held import MOST, split
from ima.training.modes import mode_of

KEYS = ("image", "label")

assert elsewhere  # every test works in an empty folder

DIGITS = """
from ima.data import load
from ima.networks.small_cnn import small_cnn
from torch.utils.data import TensorDataset

def net():
    return small_cnn(1, 10, width=8)

def train():
    return TensorDataset(*load("digits").train[list(range(600))])

def val():
    return TensorDataset(*load("digits").val[list(range(100))])
"""


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardening, "MOST_EPOCHS", 4)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs enough to become better."""
    monkeypatch.setattr(hardening, "MOST_EPOCHS", 12)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training in which nothing changes."""
    monkeypatch.setattr(hardening, "LR", 0.0)


def digits(part: str = "train", count: int = 600) -> TensorDataset:
    return TensorDataset(*getattr(load("digits"), part)[list(range(count))])


def small(count: int = 40, dims: tuple[int, ...] = (4,), classes: int = 2) -> TensorDataset:
    y = torch.arange(count) % classes
    x = torch.rand(count, *dims, generator=seeded(1)) / 4 + 0.6 * y.view(-1, *(1 for _ in dims))
    return TensorDataset(x.clamp(0, 1), y)


def linear(outputs: int = 2, inputs: int = 4) -> nn.Module:
    """A network that is right about `small`."""
    last = nn.Linear(inputs, outputs)
    with torch.no_grad():
        ramp = torch.linspace(-1, 1, outputs) if outputs > 1 else torch.ones(1)
        last.weight.copy_(ramp[:, None].expand(outputs, inputs))
        last.bias.copy_(-0.5 * inputs * ramp)
    return nn.Sequential(nn.Flatten(), last).eval()


# --- The one call ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("long")
def test_a_network_becomes_harder_to_fool_and_the_old_one_stays(
    honest: nn.Module, tmp_path: Path
) -> None:
    old = {name: value.clone() for name, value in honest.state_dict().items()}
    state = torch.get_rng_state()
    lines: list[str] = []
    found = ima.harden(
        honest,
        digits(),
        bounds=(0, 1),
        held_out=digits("val", 100),
        time_budget="1h",
        tell=lines.append,
    )
    assert found.better and found.said.startswith("better: the mean accuracy over no noise and 3")
    assert found.model is not honest and not found.model.training
    assert all(torch.equal(old[name], value) for name, value in honest.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    eps = found.before.eps[1]
    assert found.after.mean("pgd-10", eps) > found.before.mean("pgd-10", eps) + 0.05
    # The model that is given back is the one that the figures are of.
    again = ima.evaluate(found.model, digits("val", 100), found.after.eps, "pgd-10", bounds=(0, 1))
    assert again.mean() == found.after.mean()
    assert (len(found.epochs), found.before.settings.part) == (12, "validation")
    assert [line.split(":")[0] for line in lines[-2:]] == ["epoch 12 of 12", "after 12 epochs"]
    assert not found.before.remarks
    found.to_html(tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "Remark on after: better: the mean accuracy" in page
    assert "these samples chose among 3 states of the training, and decided" in page
    found.to_html(tmp_path / "page.html")
    assert str(found).endswith(found.said)


@pytest.mark.usefixtures("still")
def test_where_nothing_is_better_the_network_itself_is_given_back(honest: nn.Module) -> None:
    found = ima.harden(honest, digits(), bounds=(0, 1), time_budget="1h")
    assert found.model is honest and not found.better
    assert found.said.startswith("nothing better was found, and the network stays as it was: ")
    assert "changed by +0.0 points" in found.said
    # It was trained on these, which the page says.
    assert "it looks better than it is" in found.before.remarks[-1]


def test_a_training_that_diverges_leaves_the_network_alone(
    honest: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardening, "LR", 1e30)
    found = ima.harden(honest, digits(count=300), bounds=(0, 1), time_budget="1h")
    assert found.model is honest and not found.better
    assert "training came to no end" in found.said + " ".join(found.after.remarks)


def test_a_short_time_trains_one_batch_and_decides(honest: nn.Module) -> None:
    found = ima.harden(honest, digits(), bounds=(0, 1), time_budget=0.01)
    assert len(found.epochs) == 1
    assert found.after.settings.samples == 120


def test_the_same_call_gives_the_same(honest: nn.Module) -> None:
    one, other = (
        ima.harden(honest, digits(count=300), bounds=(0, 1), time_budget="1h", seed=3)
        for _ in range(2)
    )
    assert one.after == other.after
    for a, b in zip(
        one.model.state_dict().values(), other.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


# --- Killed and continued -------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["before", "epoch 1", "epoch 3", "after 3", "epoch 4", "after 4"])
def test_a_killed_hardening_continues_to_the_bit(
    line: str, honest: nn.Module, tmp_path: Path
) -> None:
    def kill(said: str) -> None:
        if said.startswith(line):
            raise KeyboardInterrupt

    asked: dict[str, Any] = {"bounds": (0, 1), "time_budget": "1h", "folder": tmp_path}
    data = digits(count=300)
    with pytest.raises(KeyboardInterrupt):
        ima.harden(honest, data, tell=kill, **asked)
    found = ima.harden(honest, data, **asked)
    alone: dict[str, Any] = {**asked, "folder": None}
    whole = ima.harden(honest, data, **alone)
    assert (found.before, found.after, found.said) == (whole.before, whole.after, whole.said)
    assert [row["loss"] for row in found.epochs] == [row["loss"] for row in whole.epochs]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, found.model.state_dict()[name])


@pytest.mark.usefixtures("still")
def test_another_hardening_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"bounds": (0, 1), "time_budget": "1h", "folder": tmp_path}
    ima.harden(linear(), small(), **asked)
    changes: dict[str, Any] = {"seed": 1, "clean_drop": 0.1}
    for word, value in changes.items():
        changed: dict[str, Any] = {**asked, word: value}
        with pytest.raises(ValueError, match=f"other .*{word}.*name another folder"):
            ima.harden(linear(), small(), **changed)
    with pytest.raises(ValueError, match="other data, held-out samples"):
        ima.harden(linear(), small(60), **asked)


# --- What better means ----------------------------------------------------------------------------


def results(clean: list[float], noisy: list[float], cases: list[str] | None = None) -> Results:
    rows = [
        Row(i, attack, eps, quality, kind=kind, case="" if cases is None else cases[i])
        for attack, eps, kind, found in (
            ("clean", 0.0, "clean", clean),
            ("pgd-10", 0.5, "chosen", noisy),
        )
        for i, quality in enumerate(found)
    ]
    return Results.of(rows, Settings(norm="L2"))


def test_better_is_a_rise_of_the_mean_beyond_its_interval() -> None:
    before = results([1.0] * 10, [0.0] * 10)
    # All samples gain half: no doubt is left.
    sure = gain(before, results([1.0] * 10, [1.0] * 10), None)
    assert (sure.mean, sure.low, sure.high, sure.drop, sure.better) == (0.5, 0.5, 0.5, 0.0, True)
    # One of ten gains half: mean 0.05, standard error sqrt(0.0225 / 90) = 0.05 with n (n - 1).
    one = gain(before, results([1.0] * 10, [1.0] + [0.0] * 9), None)
    assert one.mean == pytest.approx(0.05)
    assert one.low == pytest.approx(0.05 - 1.96 * 0.05)
    assert not one.better
    assert not gain(before, before, None).better


def test_samples_of_one_case_count_as_one() -> None:
    noisy = [1.0] * 6 + [0.0] * 6
    before, zero = [1.0] * 12, [0.0] * 12
    apart = gain(results(before, zero), results(before, noisy), None)
    cases = ["a"] * 6 + ["b"] * 6
    alike = gain(results(before, zero, cases), results(before, noisy, cases), None)
    assert apart.better and not alike.better


def test_clean_drop_is_a_limit_and_comes_first() -> None:
    before = results([1.0] * 10, [0.0] * 10)
    costly = results([0.0] + [1.0] * 9, [1.0] * 10)
    assert gain(before, costly, None).better
    assert gain(before, costly, 0.1).better
    held = gain(before, costly, 0.05)
    assert not held.better and "fell by no more than 5 points" in told(held, before)
    # Of two that were tried, the one that keeps the limit is chosen.
    small_gain = gain(before, results([1.0] * 10, [1.0] * 2 + [0.0] * 8), 0.05)
    assert small_gain.order > held.order


# --- What is held out -----------------------------------------------------------------------------


def held_ids(data: Any, **more: Any) -> tuple[list[int], list[int]]:
    train, judged = split(data, None, more.pop("names", None), KEYS, more.pop("seed", 0))
    known = {tuple(data[at][0].flatten().tolist()): at for at in range(len(data))}
    held: Any = judged.data
    ids = [known[tuple(held[at][0].flatten().tolist())] for at in range(judged.count)]
    return list(train.places), ids


def test_classes_stay_in_proportion_and_no_sample_is_on_both_sides() -> None:
    data = TensorDataset(torch.rand(100, 3), torch.tensor([0] * 80 + [1] * 20))
    train, held = held_ids(data)
    assert sorted(train + held) == list(range(100))
    assert Counter(int(data[at][1]) for at in held) == {0: 16, 1: 4}
    assert held_ids(data) == (train, held) != held_ids(data, seed=1)


def test_samples_of_one_case_stay_together() -> None:
    data = TensorDataset(torch.rand(60, 3), torch.arange(60) % 2)
    names = [f"patient {at // 6}" for at in range(60)]
    train, held = held_ids(data, names=names)
    assert len(held) == 12
    assert not {names[at] for at in train} & {names[at] for at in held}
    within = [(*data[at], name) for at, name in enumerate(names)]
    assert held_ids(within, names=2) == (train, held)
    with pytest.raises(ValueError, match="of one case, 'x', so that none can be held out"):
        held_ids(data, names=["x"] * 60)


def test_no_more_are_looked_at_than_time_permits() -> None:
    many = TensorDataset(torch.rand(5 * MOST + 500, 1), torch.arange(5 * MOST + 500) % 2)
    train, judged = split(many, None, None, KEYS, 0)
    assert (len(train), judged.count) == (4 * MOST + 500, MOST)
    train, judged = split(small(), many, None, KEYS, 0)
    assert (len(train), judged.count, judged.own) == (40, MOST, False)


class Cropped(Dataset[Any]):
    """Samples that are other ones each time they are read."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        return {"image": torch.rand(4), "label": index % 2}


def test_samples_that_change_are_seen_and_those_that_decide_stay() -> None:
    train, judged = split(Cropped(), None, None, KEYS, 0)
    held: Any = judged.data
    assert train.changes() and torch.equal(held[0][0], held[0][0])
    assert not split(small(), None, None, KEYS, 0)[0].changes()


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (DataLoader(small()), TypeError, "data is a DataLoader.*pass loader.dataset"),
        ((pair for pair in small()), TypeError, "with __getitem__ and __len__"),
        ([], ValueError, "data is empty"),
        (small().tensors, TypeError, "make TensorDataset"),
        (TensorDataset(torch.rand(1, 4), torch.zeros(1).long()), ValueError, "data are 1 sample"),
        (small(classes=3), ValueError, "label 2 .* out of range"),
        (TensorDataset(torch.rand(20, 4) + 5, torch.zeros(20).long()), ValueError, "bounds"),
    ],
)
def test_data_that_do_not_fit_are_refused_and_leave_nothing(
    data: Any, error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        ima.harden(linear(), data, bounds=(0, 1), time_budget="1m", folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_network_that_cannot_be_trained_or_knows_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no parameter of the model requires a gradient"):
        ima.harden(linear().requires_grad_(False), small(), bounds=(0, 1), time_budget="1m")
    wrong = linear()
    with torch.no_grad():
        for parameter in wrong.parameters():
            parameter.neg_()
    with pytest.raises(ValueError, match=r"none of 8 held-out samples right.*train it first"):
        ima.harden(wrong, small(), bounds=(0, 1), time_budget="1m")


# --- Networks and tasks ---------------------------------------------------------------------------


class Mask(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([-self.scale * (x - 0.5), self.scale * (x - 0.5)], 1)


def masks() -> list[tuple[Tensor, Tensor]]:
    y = (torch.rand(20, 6, 6, generator=seeded(2)) > 0.5).long()
    return [(0.2 + 0.6 * one[None].float(), one) for one in y]


@pytest.mark.parametrize(
    ("model", "data", "task"),
    [
        (linear(1), small(), None),
        (
            linear(2),
            [(x, torch.stack([1 - y, y])) for x, y in small()],
            ima.MultiLabel(),
        ),
        (Mask(), masks(), ima.Segmentation()),
    ],
)
@pytest.mark.parametrize("norm", [2, "linf"])
def test_every_task_and_norm(model: nn.Module, data: Any, task: Any, norm: Any) -> None:
    held = TensorDataset(*small(12).tensors) if task is None else data
    found = ima.harden(
        model, data, held_out=held, bounds=(0, 1), task=task, norm=norm, time_budget="1h"
    )
    assert found.before.norm == ima.norms.get_norm(norm).name
    assert found.said and len(found.epochs) == 4
    assert 0 <= found.after.mean("pgd-10", found.after.eps[0]) <= found.after.mean()


class Parts(nn.Module):
    """Frozen layers, statistics, and a further head in training, as some classifiers have."""

    def __init__(self, heads: bool) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.head, self.heads = linear(), heads
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(4))
            self.first.bias.zero_()
        for parameter in (*self.first.parameters(), *self.norm.parameters()):
            parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> Any:
        z = self.head(self.norm(self.first(x)))
        return (z, z) if self.heads and self.training else z


@pytest.mark.parametrize("heads", [False, True])
def test_what_is_frozen_stays_and_heads_of_training_do_no_harm(heads: bool) -> None:
    model = Parts(heads).eval()
    found = ima.harden(model, small(), held_out=small(60), bounds=(0, 1), time_budget="1h")
    new = dict(found.model.state_dict())
    for name, value in model.state_dict().items():
        if not name.startswith("head"):
            assert torch.equal(value, new[name]), name


def test_modes_stay_as_they_came_in_training_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model.train()
    model[2].eval()
    x, y = small().tensors
    train = mode_of(model, ima.Classification(), x, y)
    mean = model.get_buffer("1.running_mean").clone()
    train()
    assert [layer.training for layer in model] == [True, True, False, True]
    assert torch.equal(mean, model.get_buffer("1.running_mean"))
    model.eval()
    mode_of(model, ima.Classification(), x, y)()
    assert all(layer.training for layer in model)


# --- The command ----------------------------------------------------------------------------------


@pytest.fixture
def package(honest: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with code and weights, where the command is given."""
    work = tmp_path / "work"
    (work / "mine.py").write_text(DIGITS)
    monkeypatch.syspath_prepend(str(work))
    monkeypatch.setenv("PYTHONPATH", str(work), prepend=":")
    sys.modules.pop("mine", None)
    content = {f"module.{key}": value for key, value in honest.state_dict().items()}
    torch.save({"epoch": 8, "state_dict": content}, work / "net.pt")
    return work


ASKED = ("--model", "mine:net", "--data", "mine:train", "--bounds", "0", "1")


def test_the_command_writes_weights_of_the_same_layout_and_a_page(package: Path) -> None:
    old = (package / "net.pt").read_bytes()
    words = ("--held-out", "mine:val", "--time-budget", "10m", "--out", "new")
    said = start("harden", "net.pt", *ASKED, *words)
    assert (said.code, said.err) == (0, ""), said
    assert "better: the mean accuracy" in said.out and "before: " in said.out
    assert (package / "net.pt").read_bytes() == old
    names = sorted(path.name for path in (package / "new").iterdir())
    assert names == [
        "after.csv",
        "after.json",
        "before.csv",
        "before.json",
        "net.pt",
        "report.html",
    ]
    new: dict[str, Any] = torch.load(package / "new" / "net.pt")
    assert new["epoch"] == 8 and all(key.startswith("module.") for key in new["state_dict"])
    # What was measured is what the file gives.
    after = Results.from_csv(package / "new" / "after.csv")
    said = call("evaluate", "new/net.pt", *ASKED[:2], "--data", "mine:val", "--eps", "0.1")
    assert said.code == 0 and f"{100 * after.mean():.1f}" in said.out


@pytest.mark.usefixtures("still")
def test_where_nothing_is_better_the_command_says_so_and_writes_no_weights(package: Path) -> None:
    said = call("harden", "net.pt", *ASKED, "--time-budget", "1h")
    assert said.code == 3
    assert "nothing better was found, and the network stays as it was" in said.out
    folder = package / "net.pt-hardened"
    assert (folder / "report.html").exists() and not (folder / "net.pt").exists()
    assert not (folder / STATE).exists()
    again = call("harden", "net.pt", *ASKED, "--time-budget", "1h")
    assert again.code == 1 and "already holds a hardening; name another folder" in again.err


@pytest.mark.usefixtures("still")
def test_data_by_name_gives_its_training_part(package: Path) -> None:
    words = ("--model", "mine:net", "--data", "digits", "--time-budget", "1h", "--out", "named")
    assert call("harden", "net.pt", *words).code == 3
    settings = Results.from_csv(package / "named" / "before.csv").settings
    assert (settings.data, settings.bounds_told, settings.samples) == (
        "digits",
        "0 to 1",
        len(load("digits").train) // 5,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--time-budget", "soon"), "a time budget is 'soon'"),
        (("--time-budget", "1m", "--clean-drop", "5"), "clean_drop is 5.0; expected a share"),
        (("--time-budget", "1m", "--held-out", "mine:nothing"), "nothing"),
        (("--time-budget", "1m", "--norm", "3"), "norm"),
        (("--time-budget", "1m", "--out", "."), "holds the weights themselves"),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    words: tuple[str, ...], said: str, package: Path
) -> None:
    before = sorted(path.name for path in package.iterdir() if path.name != "__pycache__")
    done = call("harden", "net.pt", *ASKED, *words)
    assert done.code == 1 and said in done.err and "Traceback" not in done.err
    after = sorted(path.name for path in package.iterdir() if path.name != "__pycache__")
    assert before == after


def test_weights_that_cannot_be_put_back_are_refused_before_training(package: Path) -> None:
    stored = {k: v.numpy() for k, v in torch.load(package / "net.pt")["state_dict"].items()}
    torch.save(stored, package / "arrays.pt")
    done = call("harden", "arrays.pt", *ASKED, "--time-budget", "1m")
    assert done.code == 1 and "save model.state_dict()" in done.err
    assert not (package / "arrays.pt-hardened").exists()


@pytest.mark.usefixtures("long")
def test_safetensors_come_back_as_safetensors(package: Path) -> None:
    content = torch.load(package / "net.pt")["state_dict"]
    save_file({k.removeprefix("module."): v for k, v in content.items()}, "net.safetensors")
    words = ("--held-out", "mine:val", "--time-budget", "1h", "--out", "new")
    assert call("harden", "net.safetensors", *ASKED, *words).code == 0
    assert (package / "new" / "net.safetensors").exists()
    assert np.isfinite(Results.from_csv(package / "new" / "after.csv").mean())
