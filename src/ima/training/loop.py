"""The loop: every method under the same recipe.

for each epoch:
    for each batch: loss = method(model, x, y, ids); backward; optimiser step
    accuracy on the validation part: clean, and under PGD-10 at the middle noise radius
    save; keep the weights of the best epoch (`ima.training.picking`)
with a time budget: before a batch or validation that may not fit, save and stop; but each call does
at least one of them
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NoReturn, Protocol

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ima.attacks.inputs import inside
from ima.budget import Budget, OutOfTime
from ima.data import Part, Splits
from ima.data.augment import augment_share
from ima.data.stored import Images, Stored
from ima.files import write_text
from ima.margins import Margins
from ima.methods import Method, Standard
from ima.methods.base import check_step
from ima.methods.ima import Unreached
from ima.tasks import Task, check_task
from ima.training import lengths
from ima.training.batches import batch_seed, batches, epoch_seed
from ima.training.build import (
    asked,
    build_fabric,
    build_method,
    build_model,
    build_optimizer,
    check_fits,
    copyable,
    describe_device,
    learning_rate,
)
from ima.training.checkpoint import note_of, save_weights
from ima.training.config import build_task, check_stop
from ima.training.ending import ended
from ima.training.epoch_progress import EpochProgress, summary
from ima.training.events import Events, check_log
from ima.training.lock import Lock
from ima.training.pace import Pace
from ima.training.picking import RULES, rule_name
from ima.training.run import Run
from ima.training.same import data_mark, run_origin
from ima.training.samples import splits_of, trace
from ima.training.settings import Config
from ima.training.signals import held_back
from ima.training.state import Best, State
from ima.training.stopping import stopping_together
from ima.training.validating import validate_epoch
from ima.training.weights import load_file

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MARGIN_BINS = 60


class Watcher(Protocol):
    """Who is told how the run goes."""

    def batch(self, epoch: int, done: int, total: int, sums: Mapping[str, Tensor]) -> None:
        """A batch is done; sums are the epoch's so far, on the device."""
        ...

    def epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """An epoch is done; row is its line in metrics.csv."""
        ...


def fit(
    run: Run,
    *,
    watcher: Watcher,
    init: Path | None = None,
    device: str = "auto",
    devices: int = 1,
    budget: Budget | None = None,
    tell: Callable[[str], None] | None = None,
) -> None:
    """Train the run's config to its last epoch, from where the run's folder left off.

    tell: is told, by the first process, what the data set and the first weights say of themselves.
    init: weights to start from; device: an accelerator of Lightning Fabric's; devices: how many
    (torchrun decides when it started this process); budget: time after which to stop, in the
    middle of an epoch too.
    Raises ValueError and FileNotFoundError with what to do; RuntimeError where another process
    trains the run; FloatingPointError when the loss is not finite; OutOfTime when the budget is
    spent. The folder is always in a state that can be resumed, and on the same processor, with as
    many threads, a resumed run equals one that was not stopped to the bit.
    """
    fabric = build_fabric(device, **asked(devices), precision=run.config().train.precision)
    fabric.launch()
    lock = Lock(run.folder, "train")
    with stopping_together(fabric), lock if fabric.is_global_zero else nullcontext():
        trainer = _prepared(fabric, run, lock, watcher, init, budget)
        if tell is not None and fabric.is_global_zero:
            tell(trainer.splits.note)
        trainer.fit()


def _prepared(
    fabric: Fabric,
    run: Run,
    lock: Lock,
    watcher: Watcher,
    init: Path | None,
    budget: Budget | None,
) -> _Trainer:
    config = run.config()
    splits, task = splits_of(run), check_task(build_task(config))
    torch.manual_seed(epoch_seed(config.train.seed, 0))
    model = build_model(config, splits)
    if init is None and run.begun and run.initial.exists():
        init = run.initial
    started = ""
    if init is not None:
        told = load_file(model, init)
        known = init == run.initial
        started = note_of(init) if known else f"Started from the weights {init.name}: {told}."
    check_stop("train", config)
    check_log(run)
    method = build_method(config, len(splits.train), augmented=bool(config.data.augment))
    spans = lengths.lengths(run, config, method)
    said = (splits.note, started, lengths.describe_lengths(spans, config, method))
    if any(said[1:]):
        splits = replace(splits, note=" ".join(filter(None, said)))
    if not run.state.exists():
        check_fits(fabric, model, task, config.network.name, splits)
    if fabric.is_global_zero:
        # Here for a new run, because one that is refused up to here leaves no folder.
        lock.take()
        if init is None:
            # Of a run that was killed before it began.
            run.initial.unlink(missing_ok=True)
        elif init != run.initial:
            # Kept, so that a run that is stopped in its first epoch starts from them again; and
            # before the config, which makes the folder a run.
            save_weights(run.initial, model.state_dict(), started)
        run.begin()
        run.write_flipped(splits.flipped)
    wrapped, optimizer = fabric.setup(model, build_optimizer(config.optimizer, model))
    average = None
    if config.train.ema is not None:
        average = AveragedModel(
            copyable(model), multi_avg_fn=get_ema_multi_avg_fn(config.train.ema), use_buffers=True
        )
    train = replace(
        splits.train,
        images=_on_device(fabric, splits.train.images),
        targets=fabric.to_device(splits.train.targets),
    )
    timed = [row["val_seconds"] for row in run.epochs() if "val_seconds" in row]
    pace = Pace(budget, timed[-1] if timed else None)
    best = Best(picks=rule_name(config))
    known = {**run_origin(config, splits), lengths.LENGTHS: spans}
    state = State(model, wrapped, optimizer, average, method, best, origin=known)
    return _Trainer(
        fabric, run, config, task, splits, train, state, watcher, pace, data_mark(config, splits)
    )


def _on_device(fabric: Fabric, images: Images) -> Images:
    # What is in a file comes batch by batch.
    return images if isinstance(images, Stored) else fabric.to_device(images)


@dataclass
class _Trainer:
    """A run under way. train: the training part, on the device; mark: what weights tell of it."""

    fabric: Fabric
    run: Run
    config: Config
    task: Task
    splits: Splits
    train: Part
    state: State
    watcher: Watcher
    pace: Pace
    mark: str

    def fit(self) -> None:
        fabric, run, epochs = self.fabric, self.run, self.config.train.epochs
        start, progress = 0, EpochProgress()
        if run.state.exists():
            start, progress = self.state.load(run.state, fabric)
        if fabric.is_global_zero and start < epochs:
            # The test part is not looked at here.
            samples = {"train": len(self.train), "val": len(self.splits.val)}
            run.write_environment(
                describe_device(fabric.device), samples, self.splits.note, trace(self.splits)
            )
            run.diverged.unlink(missing_ok=True)
        events = Events(run, start) if fabric.is_global_zero else None
        for epoch in range(start, epochs):
            if self._ended(epoch):
                break
            try:
                row = self._train_epoch(epoch, progress)
            except FloatingPointError as error:
                # Whichever process it was: the first one may not come to know.
                write_text(run.diverged, f"in epoch {epoch + 1}: {error}\n")
                raise
            row |= self._validate(epoch)
            with held_back(), self.pace.saving():
                self._save_epoch(epoch, row)
            fabric.barrier()
            progress = EpochProgress()
            if events is not None:
                events.add(epoch, row)
            self.watcher.epoch(epoch, row)
        if events is not None:
            events.close()

    def _ended(self, done: int) -> bool:
        """Whether margins stand still; the first process has the table that tells."""
        if self.config.train.stop is None or done == 0:
            return False
        leads = self.fabric.is_global_zero
        still = leads and ended(self.config.train, self.run.epochs(), done)
        return bool(self.fabric.broadcast(still))

    def _train_epoch(self, epoch: int, progress: EpochProgress) -> dict[str, float]:
        """The rest of an epoch, `progress` being where it stands."""
        fabric, config = self.fabric, self.config.train
        progress.begin(epoch_seed(config.seed, epoch) + fabric.global_rank, fabric.device)
        rate = learning_rate(self.config.optimizer, epoch, config.epochs)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        warming = epoch < config.standard_epochs
        method = Standard(task=self.task) if warming else self.state.method
        self.state.wrapped.train()
        total = math.ceil(len(self.train) / config.batch_size)
        saved = progress.batches
        order = batches(
            len(self.train),
            config.batch_size,
            seed=config.seed,
            epoch=epoch,
            rank=fabric.global_rank,
            world=fabric.world_size,
        )
        begun = monotonic()
        for number, ids in enumerate(islice(order, saved, None), start=saved):
            if not self._agreed(self.pace.batch_fits()):
                self._stop(epoch, progress, total, saved)
            metrics = self._step(epoch, number, ids.to(fabric.device), method)
            ended = monotonic()
            self.pace.batch = max(self.pace.batch, ended - begun)
            self.pace.did()
            progress.add(metrics, len(ids), ended - begun)
            begun = ended
            self.watcher.batch(epoch, progress.batches, total, progress.sums)
        if not self._agreed(self.pace.validation_fits()):
            self._stop(epoch, progress, total, saved)
        self._check_weights()
        sums = self._over_processes(progress.sums)
        # Reading the sums has waited for the device.
        progress.seconds += monotonic() - begun
        if self.pace.budget is not None and self.pace.validation is None:
            # Nobody knows whether it will fit: what is trained is safe.
            self._save_progress(epoch, progress)
        if not warming:
            # Counted from its own start: a schedule must not begin in the middle.
            with warnings.catch_warnings():
                # Said at the start: see `ima.training.config.warnings`.
                warnings.simplefilter("ignore", Unreached)
                method.end_epoch(
                    epoch - config.standard_epochs, config.epochs - config.standard_epochs
                )
        return {"epoch": epoch, "lr": rate, **summary(sums), "seconds": progress.seconds}

    def _check_weights(self) -> None:
        """Raise FloatingPointError where the epoch's last step has broken the weights."""
        # The loss, which tells of all other steps, is computed before it.
        if not all(bool(torch.isfinite(p).all()) for p in self.state.model.parameters()):
            raise FloatingPointError(
                "the weights are not finite after the epoch's last step; lower the learning rate"
            )

    def _step(self, epoch: int, number: int, ids: Tensor, method: Method) -> dict[str, Tensor]:
        """Train on one batch; the metrics of the method's step."""
        fabric, config, state = self.fabric, self.config.train, self.state
        x, y = fabric.to_device(self.train[ids])
        x = augment_share(
            x,
            self.config.data.augment,
            seed=batch_seed(config.seed, epoch, number),
            rank=fabric.global_rank,
            world=fabric.world_size,
            batch=min(config.batch_size, len(self.train) - number * config.batch_size),
        )
        if fabric.world_size > 1:
            state.share_statistics()
        with fabric.autocast():
            step = check_step(method(state.wrapped, x, y, ids), method)
        state.optimizer.zero_grad()
        fabric.backward(step.loss)
        state.optimizer.step()
        if state.average is not None:
            state.average.update_parameters(inside(state.wrapped))
        return {name: value.to(fabric.device) for name, value in step.metrics.items()}

    def _over_processes(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        names = sorted(sums)
        stacked = torch.stack([sums[name] for name in names])
        reduced = torch.as_tensor(self.fabric.all_reduce(stacked, reduce_op="sum"))
        return dict(zip(names, reduced.tolist(), strict=True))

    def _validate(self, epoch: int) -> dict[str, float]:
        begun = monotonic()
        known = self.pace.validation is not None
        budget = None if known or self.pace.fresh else self.pace.budget
        try:
            clean, noisy = validate_epoch(
                self.fabric, self.state.chosen, self.splits.val, self.config, budget
            )
        except OutOfTime as stop:
            raise OutOfTime(f"{stop}; {self._continue()}") from None
        self.pace.validation = monotonic() - begun
        self.pace.did()
        return {
            "val_accuracy": clean,
            "val_pgd": noisy,
            "val_score": math.sqrt(clean * noisy),
            "val_seconds": self.pace.validation,
        }

    def _agreed(self, fits: bool) -> bool:
        """What the first process says: all must stop before the same batch."""
        return fits if self.pace.budget is None else bool(self.fabric.broadcast(fits))

    def _stop(self, epoch: int, progress: EpochProgress, total: int, saved: int) -> NoReturn:
        if progress.batches > saved:
            self._save_progress(epoch, progress)
        raise OutOfTime(
            f"the time is up in epoch {epoch + 1} of {self.config.train.epochs}, after "
            f"{progress.batches} of {total} batches ({self.pace}); {self._continue()}"
        )

    def _continue(self) -> str:
        return f"continue with `ima train --resume {self.run.folder}`"

    def _save_progress(self, epoch: int, progress: EpochProgress) -> None:
        with held_back(), self.pace.saving():
            self.state.save(self.run.state, self.fabric, epoch - 1, progress)

    def _save_epoch(self, epoch: int, row: dict[str, float]) -> None:
        run, state = self.run, self.state
        if epoch == self.config.train.standard_epochs:
            # Validation picks among the method's own epochs.
            state.best = Best(picks=state.best.picks)
        score = RULES[state.best.picks].score(row["val_accuracy"], row["val_pgd"])
        better = state.best.improved(epoch, score, row["val_accuracy"])
        if not self.fabric.is_global_zero:
            return
        if better:
            save_weights(run.weights("best"), state.chosen.state_dict(), run=self.mark)
        save_weights(run.weights("last"), state.chosen.state_dict(), run=self.mark)
        run.add_epoch(row)
        margins = getattr(state.method, "margins", None)
        if isinstance(margins, Margins) and epoch >= self.config.train.standard_epochs:
            run.add_margins(epoch, margins.cap, *margins.histogram(MARGIN_BINS))
        # Written last: whatever was interrupted before is done again.
        state.save(run.state, self.fabric, epoch)
