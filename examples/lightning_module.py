"""IMA in a LightningModule: the margins travel in Lightning's own checkpoints.

Trains on handwritten digits, saves a checkpoint, and goes on from it in a new module, whose margins
grow from where the old ones stood. Writes digits.ckpt into the current folder. Run it with
`python lightning_module.py`; two times `--epochs` epochs take about twenty seconds on one core.
"""

# ruff: noqa: D102 - what Lightning's hooks do, Lightning says.
from __future__ import annotations

import argparse
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ima import IMA, Indexed, evaluate
from ima.data import load
from ima.networks.small_cnn import small_cnn


class Digits(pl.LightningModule):
    """A classifier trained with IMA."""

    def __init__(self, num_samples: int, learning_rate: float = 0.003) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.net = small_cnn(channels=1, num_classes=10, width=8)
        self.method = IMA(num_samples=num_samples, bounds=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y, ids = batch
        step = self.method(self.net, x, y, ids)
        # Tensors, not numbers: Lightning averages them on the device and reads them once an epoch.
        metrics = {
            "train/loss": step.metrics["loss"],
            "train/accuracy": step.metrics["correct"] / len(x),
            "train/crossed": step.metrics["crossed"] / len(x),
            "train/margin": step.metrics["margin"],
        }
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(x), sync_dist=True)
        return step.loss

    def on_train_epoch_end(self) -> None:
        # With max_steps alone nobody knows the number of epochs; IMA has no schedule that needs it.
        if (epochs := self.trainer.max_epochs or 0) > 0:
            self.method.end_epoch(self.current_epoch, epochs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["method"] = self.method.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.method.load_state_dict(checkpoint["method"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


def trainer(epochs: int) -> pl.Trainer:
    """A Trainer on the CPU that says nothing by itself; use your own."""
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def report(run: pl.Trainer) -> None:
    """Print what was logged last."""
    logged = ", ".join(f"{name} {float(value):.3f}" for name, value in run.logged_metrics.items())
    print(f"{run.current_epoch} epochs: {logged}")


def main(epochs: int) -> None:
    pl.seed_everything(0)
    digits = load("digits")
    loader = DataLoader(Indexed(digits.train), batch_size=128, shuffle=True)

    first, run = Digits(num_samples=len(digits.train)), trainer(epochs)
    run.fit(first, loader)
    run.save_checkpoint("digits.ckpt")
    report(run)

    second, run = Digits(num_samples=len(digits.train)), trainer(2 * epochs)
    new = float(second.method.margins.values.max())
    run.fit(second, loader, ckpt_path="digits.ckpt")
    report(run)

    saved, after = (float(module.method.margins.values.max()) for module in (first, second))
    print(f"largest margin: new {new:.3f}, saved {saved:.3f}, {epochs} epochs later {after:.3f}")
    results = evaluate(second, digits.test, eps=0.5, attacks=["pgd-20"], bounds=(0, 1))
    print(
        f"test digits: clean accuracy {results.accuracy():.1%}, "
        f"under noise of size 0.5 {results.accuracy('pgd-20', 0.5):.1%}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5, help="before, and again after, the break")
    main(parser.parse_args().epochs)
