"""The loop: every method under the same recipe.

for each epoch:
    for each batch: loss = method(model, x, y, ids); backward; optimiser step
    accuracy on the validation part: clean, and under PGD-10 at the middle noise radius
    save; keep the weights of the best epoch
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ima.attacks import pgd
from ima.attacks.inputs import inside, no_trace
from ima.attacks.walk import forward
from ima.data import Part, Splits, load
from ima.methods import METHODS, Method, Standard
from ima.norms import get_norm
from ima.tasks import Classification
from ima.training.batches import batches, epoch_seed
from ima.training.build import (
    BOUNDS,
    build_fabric,
    build_model,
    build_optimizer,
    learning_rate,
    load_into,
)
from ima.training.checkpoint import load_state, load_weights, save_state, save_weights
from ima.training.config import Config, method_options
from ima.training.events import Events
from ima.training.run import Run
from ima.training.signals import held_back

MARGIN_BINS = 60


class Watcher(Protocol):
    """Who is told how the run goes."""

    def batch(self, epoch: int, done: int, total: int, sums: Mapping[str, Tensor]) -> None:
        """A batch is done; sums are the epoch's so far, on the device."""
        ...

    def epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """An epoch is done; row is its line in metrics.csv."""
        ...


@dataclass
class Best:
    """The epoch that validation picks: by score, then clean accuracy, then the later one."""

    epoch: int = -1
    score: float = -1.0
    clean: float = -1.0

    def improved(self, epoch: int, score: float, clean: float) -> bool:
        """Whether this epoch is better; then it is the best from now on."""
        if (score, clean) < (self.score, self.clean):
            return False
        self.epoch, self.score, self.clean = epoch, score, clean
        return True


def fit(
    run: Run, *, watcher: Watcher, init: Path | None = None, device: str = "auto", devices: int = 1
) -> None:
    """Train the run's config to its last epoch, from where the run's folder left off.

    init: weights to start from; device: an accelerator of Lightning Fabric's; devices: how many
    (torchrun decides when it started this process).
    Raises ValueError and FileNotFoundError with what to do; FloatingPointError when the loss is
    not finite. The folder is always in a state that can be resumed.
    """
    config = run.config()
    fabric = build_fabric(device, devices=devices, precision=config.train.precision)
    fabric.launch()
    splits = load(
        config.data.name, path=config.data.path, size=config.data.size, seed=config.data.seed
    )
    torch.manual_seed(epoch_seed(config.train.seed, 0))
    model = build_model(config, splits)
    if init is None and run.initial.exists():
        init = run.initial
    if init is not None:
        load_into(model, load_weights(init), init)
    method = METHODS[config.method.name].method(
        **method_options(
            config,
            num_samples=len(splits.train),
            norm=config.norm,
            bounds=BOUNDS,
            seed=config.train.seed,
        )
    )
    optimizer = build_optimizer(config.optimizer, model)
    if fabric.is_global_zero:
        run.begin()
        if init is not None and init != run.initial:
            # Kept, so that a run that is stopped in its first epoch starts from them again.
            save_weights(run.initial, model.state_dict())
    trainer = _Trainer(fabric, run, config, splits, method, Best(), watcher)
    trainer.fit(model, optimizer)


@dataclass
class _Trainer:
    fabric: Fabric
    run: Run
    config: Config
    splits: Splits
    method: Method
    best: Best
    watcher: Watcher

    def fit(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        fabric, config, run = self.fabric, self.config, self.run
        wrapped, optimizer = fabric.setup(model, optimizer)
        average = None
        if config.train.ema is not None:
            average = AveragedModel(
                model, multi_avg_fn=get_ema_multi_avg_fn(config.train.ema), use_buffers=True
            )
        start = 0
        if run.state.exists():
            state = load_state(run.state)
            start = state["epoch"] + 1
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            self.method.load_state_dict(state["method"])
            self.best = Best(**state["best"])
            fabric.strategy.precision.load_state_dict(state["precision"])
            if average is not None:
                average.load_state_dict(state["average"])
        elif fabric.is_global_zero:
            run.write_environment(str(fabric.device))
        data = [
            fabric.to_device(part) for part in (self.splits.train.images, self.splits.train.targets)
        ]
        train = Part(data[0], data[1])
        events = Events(run, start) if fabric.is_global_zero else None
        for epoch in range(start, config.train.epochs):
            row = self._train_epoch(epoch, wrapped, optimizer, average, train)
            chosen = model if average is None else average.module
            clean, noisy = self._validate(chosen, epoch)
            row |= {"val_accuracy": clean, "val_pgd": noisy, "val_score": math.sqrt(clean * noisy)}
            with held_back():
                self._save(epoch, row, model, chosen, optimizer, average)
            fabric.barrier()
            if events is not None:
                events.add(epoch, row)
            self.watcher.epoch(epoch, row)
        if events is not None:
            events.close()

    def _train_epoch(
        self,
        epoch: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: AveragedModel | None,
        train: Part,
    ) -> dict[str, float]:
        fabric, config = self.fabric, self.config.train
        torch.manual_seed(epoch_seed(config.seed, epoch) + fabric.global_rank)
        rate = learning_rate(self.config.optimizer, epoch, config.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        warming = epoch < config.standard_epochs
        method = Standard() if warming else self.method
        model.train()
        sums: dict[str, Tensor] = {}
        total = math.ceil(len(train) / config.batch_size)
        order = batches(
            len(train),
            config.batch_size,
            seed=config.seed,
            epoch=epoch,
            rank=fabric.global_rank,
            world=fabric.world_size,
        )
        for number, ids in enumerate(order):
            ids = ids.to(fabric.device)
            x, y = train[ids]
            with fabric.autocast():
                step = method(model, x, y, ids)
            optimizer.zero_grad()
            fabric.backward(step.loss)
            optimizer.step()
            if average is not None:
                average.update_parameters(inside(model))
            for name, value in step.metrics.items():
                weight = len(ids) if name in ("loss", "margin") else 1
                old = sums.get(name, torch.zeros((), device=fabric.device))
                sums[name] = old + value.to(fabric.device) * weight
            self.watcher.batch(epoch, number + 1, total, sums)
        method.end_epoch(epoch, config.epochs)
        return {"epoch": epoch, "lr": rate, **summary(self._over_processes(sums))}

    def _over_processes(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        names = sorted(sums)
        stacked = torch.stack([sums[name] for name in names])
        reduced = torch.as_tensor(self.fabric.all_reduce(stacked, reduce_op="sum"))
        return dict(zip(names, reduced.tolist(), strict=True))

    @torch.no_grad()
    def _validate(self, model: nn.Module, epoch: int) -> tuple[float, float]:
        """Clean and PGD-10 accuracy on the validation part; every process computes them all."""
        config, part = self.config, self.splits.val
        clean = noisy = 0
        for ids in torch.arange(len(part)).split(config.evaluate.batch_size):
            x, y = self.fabric.to_device(part[ids])
            with self.fabric.autocast():
                with no_trace(model, x) as inner:
                    right = Classification().correct(forward(inner, x), y)
                attacked = pgd(
                    model,
                    x,
                    y,
                    config.evaluate.middle,
                    steps=10,
                    norm=get_norm(config.norm),
                    bounds=BOUNDS,
                )
            clean += int(right.sum())
            noisy += int((right & ~attacked.crossed).sum())
        return clean / len(part), noisy / len(part)

    def _save(
        self,
        epoch: int,
        row: dict[str, float],
        model: nn.Module,
        chosen: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: AveragedModel | None,
    ) -> None:
        better = self.best.improved(epoch, row["val_score"], row["val_accuracy"])
        if not self.fabric.is_global_zero:
            return
        run = self.run
        if better:
            save_weights(run.weights("best"), chosen.state_dict())
        save_weights(run.weights("last"), chosen.state_dict())
        run.add_epoch(row)
        margins = getattr(self.method, "margins", None)
        if margins is not None and epoch >= self.config.train.standard_epochs:
            values = margins.values.cpu()
            counts = torch.histc(values, MARGIN_BINS, 0.0, margins.cap)
            edges = torch.linspace(0, margins.cap, MARGIN_BINS + 1).tolist()
            run.add_margins(epoch, edges, [int(c) for c in counts])
        # Written last: whatever was interrupted before is done again.
        save_state(
            run.state,
            {
                "epoch": epoch,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "method": self.method.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "best": vars(self.best),
                "average": None if average is None else average.state_dict(),
            },
        )


def summary(sums: Mapping[str, float]) -> dict[str, float]:
    """An epoch's sums as means and shares, for metrics.csv."""
    samples, noisy = sums["samples"], sums.get("noisy_samples", 0.0)
    row = {"loss": sums["loss"] / samples, "train_accuracy": sums["correct"] / samples}
    if "noisy_samples" in sums:
        shares = {"train_noisy_accuracy": "noisy_correct", "crossed": "crossed", "stuck": "stuck"}
        row |= {name: sums[of] / max(noisy, 1) for name, of in shares.items()}
    if "margin" in sums:
        row["margin"] = sums["margin"] / samples
    return row
