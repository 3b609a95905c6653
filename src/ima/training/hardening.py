"""How a network is hardened: looked at, trained, looked at again, within a time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import Tensor, nn

from ima.budget import Budget
from ima.doubt import Doubt
from ima.evaluation.batches import device_of
from ima.evaluation.results import Results
from ima.methods import IMA
from ima.tasks import tree_map
from ima.training.batches import batches, epoch_seed
from ima.training.better import Gain, gain
from ima.training.checkpoint import load_state, save_state
from ima.training.epoch_progress import EpochProgress, summary
from ima.training.held import Samples
from ima.training.look import Look, line_of
from ima.training.signals import held_back

MOST_EPOCHS = 30
"""No more are trained, however much time there is."""

LR = 1e-3
"""The highest learning rate, of Adam."""

LOOKS = (0.5, 0.75, 1.0)
"""After these shares of the epochs the network is looked at."""

DEAR = 0.5
"""Where all looks would take more than this share of the time, only the last is taken."""

RESERVE = 1.5
"""So many times what the first look took the later ones may: what withstands takes longer."""

STATE = "harden.state.safetensors"
"""What a killed hardening continues from."""


@dataclass(eq=False)
class Best:
    """The best look of those taken after training. epochs: that were trained by then."""

    gain: Gain
    found: Results
    weights: Mapping[str, Tensor]
    epochs: int


@dataclass(eq=False)
class Hardening:
    """A network on its way. trains: puts it into the mode of training.

    budget, spent: what it may take, and what earlier calls took; look_seconds: what a look takes.
    """

    network: nn.Module
    method: IMA
    optimizer: torch.optim.Optimizer
    train: Samples
    look: Look
    budget: Budget
    seed: int
    clean_drop: float | None
    batch_size: int
    trains: Callable[[], None]
    place: Path | None
    mark: Mapping[str, Any]
    tell: Callable[[str], None]
    before: Results = field(init=False)
    look_seconds: float = 0.0
    spent: float = 0.0
    begun: float = field(default_factory=monotonic)
    rows: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    best: Best | None = None
    looks: int = 0
    stopped: str = ""

    def left(self) -> float:
        """Seconds that are left."""
        return self.budget.left() - self.spent

    def run(self) -> None:
        """Look, train and look, from where an earlier call was stopped."""
        if not self._continue():
            started = monotonic()
            self.before = self.look(self.network.eval(), self.look.radii(self.network))
            self.look_seconds = monotonic() - started
            self._write("before", self.before)
            assert self.method.measured is not None
            # From the median, where half is kept: from far above, as for a network that knows
            # nothing, the first epochs would undo what it has learned.
            self.method.measured.radius.value = self.before.eps[1]
            self._save()
        self.tell(f"before: {line_of(self.before)}")
        total = self._plan()
        while len(self.rows) < total and not self.stopped:
            try:
                self._epoch(total)
            except FloatingPointError as error:
                self.stopped = f"training came to no end ({error})"
                break
            total = self._plan()
            if len(self.rows) >= total or len(self.rows) in self._due(total):
                self._judge()
            self._save()

    def _plan(self) -> int:
        """How many epochs there are to be, by how long those so far took."""
        done = len(self.rows)
        if not done:
            return MOST_EPOCHS
        due = sum(at > done for at in self._due(MOST_EPOCHS))
        spare = self.left() - RESERVE * self.look_seconds * max(due, 1)
        fit = math.floor(spare / max(row["seconds"] for row in self.rows))
        return done + max(0, min(MOST_EPOCHS - done, fit))

    def _due(self, total: int) -> set[int]:
        """After how many epochs the network is looked at."""
        dear = RESERVE * len(LOOKS) * self.look_seconds > DEAR * self.budget.seconds
        return {math.ceil(share * total) for share in (LOOKS[-1:] if dear else LOOKS)}

    def _epoch(self, total: int) -> None:
        """One epoch, or what of it the time permits."""
        epoch, progress, started, rate = len(self.rows), EpochProgress(), monotonic(), 0.0
        place = device_of(self.network)
        order = list(batches(len(self.train), self.batch_size, seed=self.seed, epoch=epoch))
        if len(order) > 1 and len(order[-1]) < self.batch_size:
            # A batch of one has no statistics; which samples are left out changes by epoch.
            order.pop()
        with torch.random.fork_rng(), warnings.catch_warnings():
            # That it trains in evaluation mode, where it cannot in another, is known.
            warnings.simplefilter("ignore", Doubt)
            torch.manual_seed(epoch_seed(self.seed, epoch))
            self.trains()
            for number, ids in enumerate(order):
                part = self.train.batch(ids.tolist())
                x, y = part.x.to(place), tree_map(lambda t: t.to(place), part.y)
                rate = _rate(epoch, total, (number + 1) / len(order))
                for group in self.optimizer.param_groups:
                    group["lr"] = rate
                step = self.method(self.network, x, y, ids)
                self.optimizer.zero_grad()
                step.loss.backward()
                self.optimizer.step()
                progress.add(step.metrics, len(ids), 0.0)
                if self.left() < RESERVE * self.look_seconds:
                    break
        if not all(bool(torch.isfinite(p).all()) for p in self.network.parameters()):
            raise FloatingPointError("the weights are not finite")
        self.method.end_epoch(epoch, total)
        row = summary({name: float(value) for name, value in progress.sums.items()})
        self.rows.append({"epoch": epoch, "lr": rate, **row, "seconds": monotonic() - started})
        self.tell(
            f"epoch {epoch + 1}{f' of {total}' if epoch else ''}: loss {row['loss']:.3f}, radius "
            f"{row['radius']:.3g}, at which {row['kept']:.0%} is kept"
        )

    def _judge(self) -> None:
        """Look at the network, and keep it where it is the best so far."""
        started = monotonic()
        found = self.look(self.network.eval(), self.before.eps)
        self.look_seconds = max(self.look_seconds, (monotonic() - started) / RESERVE)
        self.looks += 1
        changed = gain(self.before, found, self.clean_drop)
        self.tell(f"after {len(self.rows)} epochs: {line_of(found)}")
        if self.best is None or changed.order >= self.best.gain.order:
            weights = {name: t.detach().clone() for name, t in self.network.state_dict().items()}
            self.best = Best(changed, found, weights, len(self.rows))
            self._write("after", found)

    def _write(self, name: str, found: Results) -> None:
        if self.place is not None:
            found.to_csv(self.place / f"{name}.csv")

    def _save(self) -> None:
        if self.place is None:
            return
        best = None
        if self.best is not None:
            best = {"weights": self.best.weights, "epochs": self.best.epochs}
        state = {
            "mark": dict(self.mark),
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state_dict(),
            "rows": self.rows,
            "best": best,
            "looks": self.looks,
            "look_seconds": self.look_seconds,
            "spent": self.spent + monotonic() - self.begun,
        }
        with held_back():
            save_state(self.place / STATE, state)

    def _continue(self) -> bool:
        """Take up what an earlier call left; whether there was something.

        Raises ValueError where that was another hardening.
        """
        if self.place is None or not (self.place / STATE).exists():
            return False
        state = load_state(self.place / STATE)
        other = [key for key, value in self.mark.items() if state["mark"].get(key) != value]
        if other:
            raise ValueError(
                f"{self.place} holds a hardening with other {', '.join(other)}; give the same "
                "command as then, or name another folder"
            )
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.method.load_state_dict(state["method"])
        self.rows, self.spent = list(state["rows"]), float(state["spent"])
        self.looks, self.look_seconds = int(state["looks"]), float(state["look_seconds"])
        self.before = Results.from_csv(self.place / "before.csv")
        if state["best"] is not None:
            found = Results.from_csv(self.place / "after.csv")
            changed = gain(self.before, found, self.clean_drop)
            self.best = Best(changed, found, state["best"]["weights"], state["best"]["epochs"])
        return True


def _rate(epoch: int, total: int, share: float) -> float:
    """The learning rate: up over the first epoch, then down along a cosine."""
    if epoch == 0:
        return LR * share
    return LR * (1 + math.cos(math.pi * (epoch - 1) / max(total - 1, 1))) / 2
