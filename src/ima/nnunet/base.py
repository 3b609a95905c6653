"""What the trainers share: nnU-Net's trainer with a method of this library in its loss's place.

loss = mean over the batch of method(cross-entropy + Dice of every sample by itself)

nnU-Net's own trainer takes the Dice of 2-D data over the whole batch; a margin needs a loss and a
verdict of its own sample.
"""

from __future__ import annotations

import random
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from ima.attacks.boundary import ROUNDS
from ima.methods import IMA, Noisy, Standard
from ima.methods.base import Method
from ima.methods.ima import Unreached
from ima.nnunet.checkpoints import best_dice, check_fold, complete, read_checkpoint
from ima.nnunet.environment import check_version
from ima.nnunet.networks import builder_of, check_network, network_told, portrait, refuse_cascade
from ima.nnunet.settings import Settings, reach, used_by
from ima.nnunet.slices import Ids, slices_told
from ima.tasks import Segmentation, tree_map


class Trainer(nnUNetTrainer):
    """nnU-Net's trainer with a training method of this library in the place of its loss.

    uses: the settings that the method needs, see `KEYS`; eps: where the class fixes it.
    """

    uses: ClassVar[tuple[str, ...]] = used_by("STD")
    eps: ClassVar[float | None] = None

    # nnU-Net reads the names of these arguments.
    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ) -> None:
        check_version()
        # Before nnU-Net makes its folders.
        self.continued = bool(plans.get("continue_training", False))
        self.settings = _settings(type(self), plans, configuration, dataset_json)
        if nnUNet_preprocessed.is_set():
            check_fold(nnUNet_preprocessed.require(), str(plans["dataset_name"]), fold)
        super().__init__(plans, configuration, fold, dataset_json, device)  # pyright: ignore[reportArgumentType]
        self.num_epochs = self.settings.epochs or self.num_epochs
        self.num_iterations_per_epoch = self.settings.iterations or self.num_iterations_per_epoch
        self.num_val_iterations_per_epoch = (
            self.settings.val_iterations or self.num_val_iterations_per_epoch
        )
        self.standard_epochs = self.settings.standard_epochs or 0
        # nnU-Net saves every 50th. An epoch with noise takes minutes, a checkpoint a second, and a
        # job with a short limit has to come forward.
        self.save_every = 1
        self.ids: Ids | None = None
        self.method: Method | None = None
        self._seen: dict[str, Tensor] = {}
        # Subclasses may change the network after `on_train_start`: it is looked at again.
        self._unchecked = {"training", "saving"}

    def _make(self, num_samples: int, task: Segmentation) -> Method:
        """The training method."""
        raise NotImplementedError

    def task(self) -> Segmentation:
        """What outputs mean, by the labels of the data set."""
        labels = self.label_manager
        return Segmentation(
            threshold=self.settings.dice,
            regions=labels.has_regions,
            # Of regions, nnU-Net's targets mark ignored pixels themselves.
            ignore_label=None if labels.has_regions else labels.ignore_label,
            weights=self._weights(),
        )

    def _weights(self) -> tuple[float, ...] | None:
        # Several processes need a gradient for every parameter; nnU-Net gives the lowest scale,
        # which counts nothing elsewhere, this weight.
        scales = self._get_deep_supervision_scales()
        if not self.is_ddp or scales is None or len(scales) < 2:
            return None
        raw = [*(0.5**i for i in range(len(scales) - 1)), 1e-6]
        return tuple(weight / sum(raw) for weight in raw)

    def _build_loss(self) -> Any:
        """The loss of validation batches: the one that is trained."""
        task = self.task()
        return lambda output, target: task.loss(output, target).mean()

    def _prepare(self) -> tuple[Ids, Method]:
        """The ids of the training samples, and the method; made when they are first needed."""
        if not self.was_initialized:
            self.initialize()
        if self.ids is None or self.method is None:
            split: Any = self.do_split()
            cases: list[str] = list(split[0])
            dataset: Any = self.dataset_class
            self.ids = Ids.of(
                dataset(self.preprocessed_dataset_folder, [*cases]),
                cases,
                flat=len(self.configuration_manager.patch_size) == 2,
            )
            self.method = self._make(len(self.ids), self.task())
        return self.ids, self.method

    def _current(self) -> Method:
        """The method of this epoch: standard training at the start, where it is asked for."""
        if self.current_epoch < self.standard_epochs:
            return Standard(task=self.task())
        return self._prepare()[1]

    def on_train_start(self) -> None:
        """Seed, make the method, say with what training runs, and start as nnU-Net does."""
        if self.settings.seed is not None:
            _seed(self.settings.seed + self.current_epoch + 1_000_003 * self.local_rank)
        ids, _ = self._prepare()
        check_network(self)
        self._say(ids)
        super().on_train_start()

    def _check(self, moment: str) -> None:
        """Refuse, the first time at this moment, a network that nobody could predict with."""
        if moment in self._unchecked:
            self._unchecked.discard(moment)
            check_network(self)

    def get_dataloaders(self) -> Any:
        """nnU-Net's loaders, which also say which slices they draw."""
        with slices_told():
            return super().get_dataloaders()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's step with the method's loss."""
        ids, _ = self._prepare()
        self._check("training")
        network: Any = self.network
        optimizer: Any = self.optimizer
        data = batch["data"].to(self.device, non_blocking=True)
        target = tree_map(lambda t: t.to(self.device, non_blocking=True), batch["target"])
        drawn = ids(batch["keys"], batch["slices"]).to(self.device, non_blocking=True)

        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda") if self.device.type == "cuda" else nullcontext():
            step = self._current()(network, data, target, drawn)
        if self.grad_scaler is None:
            step.loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimizer.step()
        else:
            self.grad_scaler.scale(step.loss).backward()
            self.grad_scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            self.grad_scaler.step(optimizer)
            self.grad_scaler.update()
        for name, value in step.metrics.items():
            self._seen[name] = self._seen[name] + value if name in self._seen else value
        return {"loss": step.loss.detach().cpu().numpy()}

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Tell the method, and log what it did."""
        super().on_train_epoch_end(train_outputs)
        _, method = self._prepare()
        if self.current_epoch >= self.standard_epochs:
            with warnings.catch_warnings():
                # Said at the start, counted in visits: see `ima.nnunet.settings.reach`.
                warnings.simplefilter("ignore", Unreached)
                method.end_epoch(
                    self.current_epoch - self.standard_epochs,
                    self.num_epochs - self.standard_epochs,
                )
        self.print_to_log_file(self._summary())
        self._seen = {}

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint with what the method needs to continue, in one file.

        nnU-Net's predictor takes it for one of its own trainer, whose network it is, and needs
        neither this library nor nnUNet_extTrainer; but for a subclass with a network of its own,
        which it looks for by name, see `builder_of`.
        """
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        ids, method = self._prepare()
        self._check("saving")
        network: Any = self.network
        ours = {
            "trainer": type(self).__name__,
            "settings": self.settings.as_dict(),
            "method": method.state_dict(),
            "cases": list(ids.cases),
            "slices": list(ids.slices),
            "network": portrait(
                network, int(self.num_input_channels or 0), self.configuration_manager.patch_size
            ),
        }
        complete(super().save_checkpoint, filename, ours, builder_of(type(self)))

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Continue (`--c`) with the margins as they were; or load a network, as nnU-Net does.

        Raises ValueError, before anything is changed, for a checkpoint of another trainer, other
        training cases, or other settings (epochs and iterations may change).
        """
        if self.continued:
            ours = read_checkpoint(filename_or_checkpoint, type(self).__name__, self.settings)
            ids, method = self._prepare()
            if [*ours["cases"]] != [*ids.cases] or [*ours["slices"]] != [*ids.slices]:
                raise ValueError(
                    f"{filename_or_checkpoint} was trained on {len(ours['cases'])} cases with "
                    f"{sum(ours['slices'])} margins, but fold {self.fold} now has other ones "
                    f"({len(ids.cases)} cases, {len(ids)} margins); restore the split and the "
                    "preprocessed data, or start anew without --c"
                )
            method.load_state_dict(ours["method"])
        super().load_checkpoint(filename_or_checkpoint)
        if self.continued and self.output_folder is not None:
            best = Path(self.output_folder) / "checkpoint_best.pth"
            self._best_ema = best_dice(best, self._best_ema)

    def _say(self, ids: Ids) -> None:
        schemes = ", ".join(sorted(set(self.configuration_manager.normalization_schemes)))
        each = "slice" if len(self.configuration_manager.patch_size) == 2 else "case"
        lines = [
            f"{type(self).__name__}: {len(ids)} training {each}s of {len(ids.cases)} cases",
            *self.settings.describe(),
            "loss: cross-entropy and Dice of every sample by itself, also in 2-D, where nnU-Net's "
            "own trainer takes Dice over the batch",
        ]
        if isinstance(self.method, Noisy):
            lines.append(
                f"noise: L2 over a whole patch, in units of normalised images ({schemes}), "
                "without clamping"
            )
        if isinstance(self.method, IMA) and self.settings.steps is None:
            lines.append(
                "cost: an iteration with noise takes 5 passes forward and back, one without noise "
                f"1; {self.num_epochs} epochs of {self.num_iterations_per_epoch} iterations"
            )
        if self.settings.steps is not None:
            search = "" if self.settings.delta is None else f" and {ROUNDS + 1} forward"
            lines.append(
                f"cost: an iteration with noise takes up to {self.settings.steps + 2} passes "
                f"forward and back{search}, one without noise 1; {self.num_epochs} epochs of "
                f"{self.num_iterations_per_epoch} iterations"
            )
        if isinstance(self.method, IMA):
            lines.append(f"one margin a {each}; {self._margins()}")
        if self.settings.delta is not None:
            lines.append(
                reach(
                    self.settings,
                    len(ids),
                    self.configuration_manager.batch_size,
                    self.num_epochs - self.standard_epochs,
                    self.num_iterations_per_epoch,
                )
            )
        lines += network_told(type(self))
        if self.settings.seed is not None:
            lines.append(
                "seed: a run that is not stopped repeats itself with nnUNet_n_proc_DA=0; "
                "one that is stopped and continued (--c) differs from it"
            )
        for line in filter(None, lines):
            self.print_to_log_file(line, add_timestamp=False)

    def _summary(self) -> str:
        seen = {name: float(value) for name, value in self._seen.items()}
        text = f"correct: {seen['correct'] / seen['samples']:.1%} of the drawn samples"
        if "crossed" in seen:
            text += f"; crossed: {seen['crossed'] / max(1.0, seen['correct']):.1%} of these"
        margins = self._margins()
        return f"{text}; {margins}" if margins else text

    def _margins(self) -> str:
        if not isinstance(self.method, IMA):
            return ""
        values, cap = self.method.margins.values, self.method.margins.cap
        mean = f"margins: mean {float(values.mean()):.6g}"
        if self.method.measured is not None:
            radius = self.method.measured.radius
            return f"{mean}; radius {radius.value:.6g}, at which {radius.kept:.0%} is kept"
        return f"{mean}, {float((values >= cap).float().mean()):.1%} at the cap of {cap:g}"


def _settings(
    trainer: type[Trainer],
    plans: dict[str, Any],
    configuration: str,
    dataset_json: dict[str, Any],
) -> Settings:
    manager = PlansManager(plans)
    chosen = manager.get_configuration(configuration)
    if "standard_epochs" in trainer.uses:
        refuse_cascade(configuration, chosen)
    channels = determine_num_input_channels(manager, chosen, dataset_json)
    return Settings.of(
        manager.dataset_name,
        channels * int(np.prod(chosen.patch_size)),
        uses=trainer.uses,
        fixed_eps=trainer.eps,
    )


def _seed(seed: int) -> None:
    seed %= 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
