"""What `ima.harden` makes of networks that nobody here wrote, on real images.

train the network as its user would, without noise; the best epoch by validation
harden it, in twenty minutes, held out: the validation part
PGD-50 on test images that neither has seen, before and after

Run it by `python -m benchmarks.hardened FOLDER`, with `IMA_DATA` naming the data's folder; it needs
timm and MONAI. The same command continues. Nothing is chosen on test images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from ima import Results, evaluate, harden
from ima.data import Splits
from ima.files import write_text
from ima.training.build import load_splits
from ima.training.config import load_config
from ima.training.run import environment

MINUTES, EPOCHS, TESTED = 20, 12, 400

LEVELS = (0.5, 1, 2)
"""Sizes of noise, in those of the row."""


@dataclass(frozen=True)
class Row:
    """A network of another library, the config of its data, and the middle size of the noise."""

    title: str
    make: Callable[[], nn.Module]
    config: str
    eps: float

    @property
    def sizes(self) -> tuple[float, ...]:
        """The sizes of the noise, in L2."""
        return tuple(self.eps * one for one in LEVELS)


def _densenet() -> nn.Module:
    nets = import_module("monai.networks.nets")
    # It halves images five times, and these have 28 pixels a side.
    return nn.Sequential(
        nn.ZeroPad2d(2), nets.DenseNet121(spatial_dims=2, in_channels=1, out_channels=2)
    )


def _resnet() -> nn.Module:
    return import_module("timm").create_model("resnet10t", num_classes=10)


class Normalized(nn.Module):
    """The network with the usual normalisation inside."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in 0 to 1."""
        return self.net((x - 0.5) / 0.25)


class Blind(nn.Module):
    """Sees nothing of the image, so nothing can be better."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        """The same logits for every image."""
        return self.bias + 0 * x.flatten(1).sum(1, keepdim=True)


ROWS = {
    "monai": Row("MONAI DenseNet121, chest X-rays", _densenet, "pneumonia", 0.25),
    "timm": Row("timm ResNet-10t, CIFAR-10 (4000 images)", _resnet, "table1_small", 0.25),
    "constant": Row("one that cannot learn: the input times 0", Blind, "pneumonia", 0.25),
}


def train(model: nn.Module, splits: Splits, seed: int) -> None:
    """As its user would: Adam, no noise, the epoch that is best on validation."""
    torch.manual_seed(seed)
    loader = DataLoader(splits.train, 64, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    best, kept = -1.0, model.state_dict()
    images, labels = splits.val[torch.arange(len(splits.val))]
    for _ in range(EPOCHS):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            cross_entropy(model(x), y).backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():
            found = float((model.eval()(images).argmax(1) == labels).float().mean())
        if found > best:
            best, kept = found, {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(kept)


def one(row: Row, seed: int, folder: Path) -> dict[str, Any]:
    """Train, harden, attack; what is found stands in a file of the folder."""
    file = folder / "found.json"
    if file.exists():
        return json.loads(file.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    splits = load_splits(load_config(row.config))
    model = Normalized(row.make())
    weights = folder / "trained.pt"
    if not weights.exists():
        train(model, splits, seed)
        torch.save(model.state_dict(), weights)
    model.load_state_dict(torch.load(weights, weights_only=True))
    begun = time.monotonic()
    found = harden(
        model.eval(),
        splits.train,
        bounds=(0, 1),
        time_budget=f"{MINUTES}m",
        held_out=splits.val,
        seed=seed,
        folder=folder / "hardened",
        tell=print,
    )
    told = {
        "better": found.better,
        "said": found.said,
        "epochs": len(found.epochs),
        "minutes": (time.monotonic() - begun) / 60,
        "before": _numbers(tested(model, splits, row), row),
        "after": _numbers(tested(found.model, splits, row), row),
    }
    write_text(file, json.dumps(told, indent=2))
    return told


def tested(model: nn.Module, splits: Splits, row: Row) -> Results:
    """PGD-50 on test images, the same for all."""
    chosen = np.random.default_rng(0).permutation(len(splits.test))[:TESTED]
    x, y = splits.test[torch.as_tensor(chosen)]
    return evaluate(model, TensorDataset(x, y), row.sizes, "pgd-50", bounds=(0, 1), batch_size=200)


def _numbers(found: Results, row: Row) -> list[float]:
    return [found.mean(), *(found.mean("pgd-50", eps) for eps in row.sizes)]


def page(found: dict[str, list[dict[str, Any]]]) -> str:
    """The table, in Markdown."""
    here = environment("cpu")
    lines = [
        "# What `ima.harden` makes of networks of other libraries",
        f"Made by `python -m benchmarks.hardened` at commit {here['commit'] or 'unknown'} on "
        f"{here['processor'] or 'an unknown processor'} with {here['cores']} cores, "
        f"{torch.get_num_threads()} used. Networks were trained without noise for {EPOCHS} epochs, "
        f"then hardened for at most {MINUTES} minutes; the validation part decided. Accuracy in "
        f"percent on {TESTED} test images that nothing was chosen on: without noise, and under "
        "PGD-50 at the sizes named, in L2. Mean ± standard deviation over seeds.",
        "| network, data | seeds | | without noise | small | middle | large |\n"
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    for name, seeds in found.items():
        row = ROWS[name]
        sizes = ", ".join(f"{eps:g}" for eps in row.sizes)
        for which in ("before", "after"):
            cells = np.array([one[which] for one in seeds]) * 100
            spread = cells.std(0, ddof=1) if len(seeds) > 1 else None
            told = [f"{m:.1f}" for m in cells.mean(0)]
            if spread is not None:
                told = [f"{m} ± {s:.1f}" for m, s in zip(told, spread, strict=True)]
            title = f"{row.title}, {sizes}" if which == "before" else ""
            lines[-1] += f"\n| {title} | {len(seeds)} | {which} | {' | '.join(told)} |"
    for name, seeds in found.items():
        lines.append(
            f"{ROWS[name].title}: "
            + " ".join(
                f"Seed {n}: {'better' if one['better'] else 'not better'}, {one['epochs']} epochs "
                f"in {one['minutes']:.0f} minutes."
                for n, one in enumerate(seeds)
            )
        )
    return "\n\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Every row and seed; the page at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    given = parser.parse_args(arguments)
    found = {
        name: [one(ROWS[name], seed, given.folder / name / f"seed{seed}") for seed in given.seeds]
        for name in given.only
    }
    write_text(given.folder / "table.md", page(found))
    print(page(found))


if __name__ == "__main__":
    main()
