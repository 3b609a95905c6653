"""The bench: its quick run answers every question, and its sides compute the same."""

from __future__ import annotations

import importlib
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nets import cnn, seeded
from torch import Tensor, nn

from ima import IMA, bpgd

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def module(name: str) -> Any:
    return importlib.import_module(f"benchmarks.{name}")


def test_quick_run_writes_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = module("__main__")
    # Peers, where they are installed, warn of things of their own.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main.main(["--quick", "--out", str(tmp_path)])
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert len(titles) == len(main.QUESTIONS) + 1
    assert "| standard | 1.00 |" in page
    assert "none of its figures" in page
    assert (tmp_path / "chart.png").stat().st_size > 10_000
    # No row is left without its cells.
    widths = [
        {line.count("|") for line in table.splitlines()}
        for table in page.split("\n\n")
        if table.startswith("|")
    ]
    assert all(len(width) == 1 for width in widths)


def test_a_folder_trains_and_says_what_it_held(tmp_path: Path) -> None:
    large = module("large_folder")
    large.make(tmp_path / "images", 200, 16)
    found = large.train(tmp_path / "images", tmp_path, side=16)
    assert found.decoded == 200 * 3 * 16 * 16
    assert 50 * 2**20 < found.peak < large.LIMIT
    assert "epoch   1/1" in found.said
    assert "200 images of 16x16 pixels" in large.told(found, 200, 16)


def batch() -> tuple[nn.Module, Tensor, Tensor]:
    model = cnn(channels=1).eval()
    x = torch.rand(24, 1, 8, 8, generator=seeded(1))
    with torch.no_grad():
        return model, x, model(x).argmax(1)


@pytest.mark.parametrize("algorithm", [2, 3])
def test_textbook_step_is_the_paper_s(algorithm: int) -> None:
    model, x, y = batch()
    y[:3] = (y[:3] + 1) % 3
    method = IMA(
        num_samples=24, eps=9.0, delta=0.1, bounds=(0, 1), steps=8, augmented=algorithm == 3
    )
    ids, margins = torch.arange(24), torch.linspace(0.02, 1.5, 24)
    method.margins.update(ids, margins)
    loss, grown = module("textbook").ima(model, x, y, margins, 0.1, 8, algorithm)
    step = method(model, x, y, ids)
    assert torch.allclose(loss, step.loss, atol=1e-4)
    assert torch.allclose(grown, method.margins[ids], atol=1e-3)
    assert 0 < int(step.metrics["crossed"]) < 21


def test_passes_are_counted_by_kind_and_sample() -> None:
    model, x, y = batch()
    base = module("base")
    net = base.Counted(model)
    found = base.counted(net, base.Call(lambda: bpgd(net, x, y, 0.0, steps=3)))
    # Nobody moves: three gradients, and one look at the end.
    assert found == {"forward": 24, "gradient": 72, "training": 0}
    net.train()
    found = base.counted(net, base.Call(lambda: F.cross_entropy(net(x), y).backward()))
    assert found == {"forward": 0, "gradient": 0, "training": 24}


def test_targets_say_what_they_found() -> None:
    target = module("base").Target
    assert target("a", 1.1, 1.05, True).verdict == "met"
    assert target("a", 1.1, 1.2, True).verdict == "missed"
    assert target("a", 1.3, 1.2, False).verdict == "missed"
    assert target("a", 1.3, None, False).verdict == "not measured"


def test_peak_memory_is_what_is_held_at_once() -> None:
    peak, size = module("memory").peak, 2**20

    def run() -> None:
        first = torch.zeros(size // 4)
        del first
        torch.zeros(size // 2)

    assert 2 * size <= peak(run) < 2.1 * size


def test_peer_that_is_not_installed_is_named() -> None:
    peer = module("peers").attack("nobody", "no_such_library", lambda *_: None)
    assert peer.run is None
    assert "not installed" in peer.lacks


def test_every_sample_costs_a_method_the_same() -> None:
    base, scale = module("base"), module("scale")
    model, x, y = batch()
    on = base.Trained("cnn", model, x, y, torch.linspace(0.1, 1, len(x)))
    world = base.World(on, on, 1, 2, 2, 4, True)
    each = scale.each(world)
    few, many = (scale.counted(world, samples) for samples in (100, 3100))
    for name, costs in each.items():
        grown = [(b - a) / 3000 for a, b in zip(few[name], many[name], strict=True)]
        assert grown == list(costs), name
    # A margin in float32, in memory twice for IMA; a direction in float16, and whether it is known.
    assert each["standard"] == each["sat"] == (0, 0)
    assert each["mma"] == (4, 4)
    assert each["IMA (paper), Algorithm 2"] == each["IMA, augmented"] == (8, 4)
    directions = 2 * x[0].numel() + 1
    assert each["IMA"] == (8 + directions, 4 + directions)
    assert each["IMA, clean_drop"] == (each["IMA"][0] + 1, each["IMA"][1])
    assert each["IMA (released)"] == (8, 8)


def test_a_chip_is_known_by_its_name_and_operations_are_counted() -> None:
    rate = module("rate")
    assert rate.peak("NVIDIA H100 PCIe") < rate.peak("NVIDIA H100 80GB HBM3") == 989e12
    assert rate.peak("a chip of its own") is None
    layer, x = nn.Linear(5, 7), torch.rand(3, 5)
    assert rate.operations(lambda: layer(x)) == 2 * 3 * 5 * 7
    # Backward: of the weights alone, x asks for none.
    assert rate.operations(lambda: layer(x).sum().backward()) == 2 * (2 * 3 * 5 * 7)


def test_hours_of_imagenet_follow_the_time_of_a_step() -> None:
    base, scale = module("base"), module("scale")
    model, x, y = batch()
    on = base.Trained("cnn", model, x, y, torch.linspace(0.1, 1, len(x)))
    world = base.World(on, on, 1, 2, 2, 4, True, image_ms=2.0)
    standard, method, told = scale.imagenet(world)
    assert standard == pytest.approx(1281167 * 90 * 2e-3 / 8 / 3600) and method > standard
    assert "2e+03 µs an image, given" in told
