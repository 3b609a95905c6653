"""The trainers in the real nnU-Net, on volumes that the test makes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_nnunet as tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ima.attacks.walk import walk
from ima.norms import L2
from ima.tasks import Segmentation

pytestmark = [
    pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnU-Net is not installed"),
    # nnU-Net and what it needs warn of each other.
    pytest.mark.filterwarnings("ignore"),
]

SHORT = {"IMA_DICE": "0.01", "IMA_EPS": "4", "IMA_DELTA": "1", "IMA_STEPS": "3"}
"""Nearly every prediction counts as correct, so that margins move from the first step on."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tiny.Folders:
    """The data set, planned and preprocessed by nnU-Net."""
    made = tiny.Folders(tmp_path_factory.mktemp("nnunet"))
    tiny.make_raw(made.raw)
    tiny.plan(made, "2d")
    return made


@pytest.fixture
def here(folders: tiny.Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tiny.Folders:
    """nnU-Net's variables in this process, with results of the test's own."""
    for name in [name for name in os.environ if name.startswith(("nnUNet_", "IMA_"))]:
        monkeypatch.delenv(name)
    for name, value in folders.environment(**SHORT).items():
        if name.startswith(("nnUNet_", "IMA_")):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    return folders


def trainer(
    folders: tiny.Folders,
    name: str,
    configuration: str = "2d",
    *,
    fold: int | str = 0,
    continued: bool = False,
    labels: dict[str, Any] | None = None,
    **changes: Any,
) -> Any:
    """A trainer on the CPU; changes: of the configuration in the plans."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    import ima.nnunet.trainers as ours

    folder = folders.preprocessed / tiny.DATASET
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": continued}
    plans["configurations"][configuration].update(changes)
    kind = nnUNetTrainer if name == "nnUNetTrainer" else getattr(ours, name)
    described = json.loads((folder / "dataset.json").read_text()) | (labels or {})
    return kind(plans, configuration, fold, described, torch.device("cpu"))


def network(of: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in of.network.state_dict().items()}


def margins(checkpoint: Path) -> Tensor:
    """Read without unpickling code."""
    return torch.load(checkpoint, weights_only=True)["ima"]["method"]["margins"]["values"]


# --- through nnU-Net's own commands -----------------------------------------------------------


def test_killed_continued_and_predicted(folders: tiny.Folders, tmp_path: Path) -> None:
    """One life of a model: trained, killed, continued with --c, used without this library."""
    arguments = [str(tiny.DATASET_ID), "2d", "0", "-tr", "nnUNetTrainerIMAPaper", "-device", "cpu"]
    fold = folders.trained("nnUNetTrainerIMAPaper") / "fold_0"
    long = {"IMA_EPOCHS": "500", "IMA_ITERATIONS": "8", "IMA_VAL_ITERATIONS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "ima", "nnunet", "train", *arguments],
        env=folders.environment(**SHORT, **long),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        until = time.monotonic() + 200
        while not (fold / "checkpoint_best.pth").exists():
            assert running.poll() is None and time.monotonic() < until, running.communicate()[0]
            time.sleep(0.2)
        running.send_signal(signal.SIGKILL)

    killed = torch.load(fold / "checkpoint_best.pth", weights_only=True)
    before = killed["ima"]["method"]["margins"]["values"]
    assert len(before) == 6 * 8 and before.min() >= 0 and before.max() <= 4
    grown = before > 1
    assert 3 < int(grown.sum()) < 48
    epochs = killed["current_epoch"] + 1
    few = {"IMA_EPOCHS": str(epochs), "IMA_ITERATIONS": "3", "IMA_VAL_ITERATIONS": "1"}
    done = tiny.train(folders, "nnUNetTrainerIMAPaper", "--c", **SHORT, **few)
    assert f"Epoch {epochs - 1}" in done.stdout and f"Epoch {epochs - 2}" not in done.stdout
    after = margins(fold / "checkpoint_final.pth")
    # One epoch of three iterations of three slices; all others are as they were.
    assert int((after != before).sum()) <= 9
    assert bool((after[grown] > 1).any())
    assert f"margins: mean {float(before.mean()):.6g}" in done.stdout
    assert "z-scored" in done.stdout or "ZScoreNormalization" in done.stdout
    assert "without clamping" in done.stdout and "IMA_EPS" in done.stdout

    environment = folders.environment()
    assert "nnUNet_extTrainer" not in environment
    command = Path(sys.executable).parent / "nnUNetv2_predict"
    images, out = folders.raw / tiny.DATASET / "imagesTs", tmp_path / "predicted"
    options = "-c 2d -f 0 -tr nnUNetTrainerIMAPaper -device cpu -npp 1 -nps 1 --disable_tta"
    subprocess.run(
        [command, "-d", str(tiny.DATASET_ID), "-i", images, "-o", out, *options.split()],
        env=environment,
        check=True,
        capture_output=True,
    )
    assert sorted(p.name for p in out.glob("*.nii.gz")) == ["tiny_008.nii.gz", "tiny_009.nii.gz"]


# --- in this process --------------------------------------------------------------------------


def test_a_wrong_variable_ends_it_before_anything_is_made(
    here: tiny.Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMA_EPSILON", "3")
    with pytest.raises(ValueError, match=r"IMA_EPSILON is no setting\. Did you mean IMA_EPS?"):
        trainer(here, "nnUNetTrainerSTD")
    assert not list(tmp_path.iterdir())


def test_a_fold_that_does_not_exist_is_refused(here: tiny.Folders, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fold is 7, but .* 5 folds: 0, 1, 2, 3, 4"):
        trainer(here, "nnUNetTrainerIMAPaper", fold=7)
    assert not list(tmp_path.iterdir())
    trainer(here, "nnUNetTrainerIMAPaper", fold="all")


def test_a_name_that_fixes_eps_takes_no_other(here: tiny.Folders) -> None:
    with pytest.raises(ValueError, match="eps is 4"):
        trainer(here, "nnUNetTrainerSAT5")
    os.environ.pop("IMA_EPS")
    os.environ.pop("IMA_DELTA")
    for eps in (5, 10, 15, 20, 25, 40):
        assert trainer(here, f"nnUNetTrainerSAT{eps}").settings.eps == eps
    assert trainer(here, "nnUNetTrainerSTD").settings.eps is None


def test_a_cascade_is_refused_where_noise_is_added(here: tiny.Folders) -> None:
    with pytest.raises(ValueError, match="second stage of a cascade"):
        trainer(here, "nnUNetTrainerIMAPaper", previous_stage="3d_lowres")


@pytest.mark.parametrize("workers", [0, 1])
def test_the_slice_told_is_the_slice_drawn(here: tiny.Folders, workers: int) -> None:
    from batchgenerators.dataloading.nondet_multi_threaded_augmenter import (
        NonDetMultiThreadedAugmenter,
    )

    from ima.nnunet.slices import Ids, SliceLoader

    made = trainer(here, "nnUNetTrainerIMAPaper")
    made.initialize()
    dataset = made.get_tr_and_val_datasets()[0]
    loader = SliceLoader(dataset, 5, (24, 24), (24, 24), made.label_manager, 0.33)
    batches: Any = loader
    if workers:
        batches = NonDetMultiThreadedAugmenter(loader, None, workers, 2, pin_memory=False)
    ids = Ids.of(dataset, dataset.identifiers, flat=True)
    volumes = {name: dataset.load_case(name)[0][:] for name in dataset.identifiers}
    stacked = np.concatenate([volumes[name] for name in sorted(volumes)], axis=1)[0]
    try:
        drawn: list[int] = []
        for _ in range(8):
            batch = next(batches)
            numbers = ids(batch["keys"], batch["slices"])
            for image, case, place, number in zip(
                batch["data"], batch["keys"], batch["slices"], numbers, strict=True
            ):
                # Patches around foreground are shifted and padded with 0; values occur but once.
                values = image[image != 0].numpy()
                assert len(values) > 100
                assert np.isin(values, volumes[case][0, place]).all()
                assert np.isin(values, stacked[number]).all()
            drawn += numbers.tolist()
    finally:
        if workers:
            batches._finish()
    assert len(ids) == len(stacked) == 48 and len(set(drawn)) > 10


def test_nnunets_loader_is_back_afterwards(here: tiny.Folders) -> None:
    from ima.nnunet.slices import slices_told

    home: Any = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")
    before = home.nnUNetDataLoader
    made = trainer(here, "nnUNetTrainerIMAPaper")
    made.initialize()
    loaders = made.get_dataloaders()
    assert home.nnUNetDataLoader is before
    assert all("slices" in next(loader) for loader in loaders)
    within = slices_told()
    within.__enter__()
    assert home.nnUNetDataLoader is not before
    assert not within.__exit__(KeyError, KeyError(), None)
    assert home.nnUNetDataLoader is before


def test_a_case_that_is_not_preprocessed_is_named(here: tiny.Folders) -> None:
    from ima.nnunet.slices import Ids

    made = trainer(here, "nnUNetTrainerIMAPaper")
    made.initialize()
    with pytest.raises(FileNotFoundError, match="the case 'nobody', which is not preprocessed"):
        Ids.of(made.get_tr_and_val_datasets()[0], ["tiny_000", "nobody"], flat=True)


def batch_of(made: Any, slices: list[int], target: Any = None) -> dict[str, Any]:
    """Whole slices of one training case as nnU-Net's batch, with labels at three scales."""
    dataset = made.get_tr_and_val_datasets()[0]
    case = dataset.identifiers[0]
    image, labels = (torch.from_numpy(np.asarray(part[:])) for part in dataset.load_case(case)[:2])
    labels = labels[:, slices].transpose(0, 1).clamp(min=0)
    scales = [labels, labels[:, :, ::2, ::2], labels[:, :, ::4, ::4]]
    scales = scales[: len(made._get_deep_supervision_scales())]
    return {
        "data": image[:, slices].transpose(0, 1).float().contiguous(),
        "target": scales if target is None else target(scales),
        "keys": np.array([case] * len(slices)),
        "slices": np.array(slices),
    }


@pytest.mark.parametrize("scaled", [False, True])
def test_a_standard_step_is_nnunets_own_where_dice_is_not_over_the_batch(
    here: tiny.Folders, scaled: bool
) -> None:
    theirs = trainer(here, "nnUNetTrainer", batch_dice=False)
    ours = trainer(here, "nnUNetTrainerSTD", batch_dice=False)
    theirs.initialize()
    ours.initialize()
    ours.network.load_state_dict(network(theirs))
    start = network(ours)
    if scaled:
        theirs.grad_scaler = torch.amp.GradScaler("cpu")
        ours.grad_scaler = torch.amp.GradScaler("cpu")
    for slices in ([3, 4, 0], [2, 2, 5]):
        losses = [made.train_step(batch_of(made, slices))["loss"] for made in (theirs, ours)]
        np.testing.assert_allclose(*losses, rtol=1e-5)
    for name, value in network(theirs).items():
        torch.testing.assert_close(network(ours)[name], value, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(value, start[name]) for name, value in network(ours).items())


def test_a_step_moves_the_margins_of_its_slices_alone(here: tiny.Folders) -> None:
    made = trainer(here, "nnUNetTrainerIMAPaper")
    made.initialize()
    made.train_step(batch_of(made, [3, 4, 3]))
    values = made.method.margins.values
    assert set((values != 1).nonzero().flatten().tolist()) == {3, 4}
    # Right everywhere, by the low threshold, and not crossed within one step of 1.
    assert values[3] == values[4] == 2


def test_the_default_measures_margins_and_finds_its_radius(
    here: tiny.Folders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("EPS", "DELTA", "STEPS"):
        monkeypatch.delenv(f"IMA_{name}", raising=False)
    made = trainer(here, "nnUNetTrainerIMA")
    made.initialize()
    radii: list[float] = []
    for _ in range(3):
        made.train_step(batch_of(made, [3, 4, 3]))
        radii.append(made.method.measured.radius.value)
    assert radii[0] > radii[1] > radii[2] > 0
    values = made.method.margins.values
    assert set((values != 0).nonzero().flatten().tolist()) <= {3, 4}
    assert f"radius {radii[2]:.6g}, at which" in made._margins()
    file = tmp_path / "there.pth"
    made.save_checkpoint(str(file))
    again = trainer(here, "nnUNetTrainerIMA", continued=True)
    again.load_checkpoint(str(file))
    assert again.method.measured.radius.value == radii[2]
    assert torch.equal(again.method.margins.values, values)


def test_epochs_without_noise_leave_the_margins_and_are_standard_training(
    here: tiny.Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMA_EPOCHS", "3")
    monkeypatch.setenv("IMA_STANDARD_EPOCHS", "2")
    weights: list[dict[str, Tensor]] = []
    start: dict[str, Tensor] = {}
    for name in ("nnUNetTrainerSTD", "nnUNetTrainerIMAPaper"):
        made = trainer(here, name)
        made.initialize()
        start = start or network(made)
        made.network.load_state_dict(start)
        made.current_epoch = 1
        made.train_step(batch_of(made, [3, 4, 3]))
        weights.append(network(made))
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert bool((made.method.margins.values == 1).all())
    made.current_epoch = 2
    made.train_step(batch_of(made, [3, 4, 3]))
    assert made.method.margins.values[3] == 2


def test_regions_and_ignored_pixels(here: tiny.Folders) -> None:
    labels = {
        "labels": {"background": 0, "whole": [1, 2], "core": [1], "ignore": 3},
        "regions_class_order": [2, 1],
    }

    def regions(scales: list[Tensor]) -> list[Tensor]:
        whole = [torch.cat((s > 0, s == 1, torch.zeros_like(s) > 0), 1) for s in scales]
        for scale in whole:
            scale[:, 2, 0] = True
        return whole

    made = trainer(here, "nnUNetTrainerIMAPaper", labels=labels)
    made.initialize()
    task = made.task()
    assert task.regions and task.ignore_label is None
    assert np.isfinite(made.train_step(batch_of(made, [3, 4], regions))["loss"])
    labels = {"labels": {"background": 0, "bright": 1, "dark": 2, "ignore": 3}}
    made = trainer(here, "nnUNetTrainerIMAPaper", labels=labels)
    made.initialize()
    assert made.task().ignore_label == 3

    def rows(scales: list[Tensor]) -> list[Tensor]:
        return [torch.cat((torch.full_like(s[:, :, :1], 3), s[:, :, 1:]), 2) for s in scales]

    assert np.isfinite(made.train_step(batch_of(made, [3, 4], rows))["loss"])


@pytest.mark.parametrize("ours", [True, False])
def test_nnunets_wrapper_gets_a_gradient_for_every_scale(
    here: tiny.Folders, tmp_path: Path, ours: bool
) -> None:
    """nnU-Net's way to train on several GPUs; the plain weights, 0 for the last, stop it."""
    made = trainer(here, "nnUNetTrainerIMAPaper")
    made.initialize()
    batch = batch_of(made, [3, 4, 3])
    assert made._weights() is None
    made.is_ddp = ours
    weights = made._weights()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        made.network = DistributedDataParallel(made.network)
        made.train_step(batch)
        if ours:
            assert sum(weights) == pytest.approx(1) and 0 < min(weights) < 1e-5
            made.train_step(batch)
            assert set((made.method.margins.values != 1).nonzero().flatten().tolist()) == {3, 4}
        else:
            with pytest.raises(RuntimeError, match="finished reduction"):
                made.train_step(batch)
    finally:
        dist.destroy_process_group()


def _on_the_cpu(rank: int, here: tiny.Folders, folder: str, continued: bool) -> None:
    """One of two processes, as nnU-Net starts them one a GPU, from its start to its end."""
    theirs = import_module("nnunetv2.training.nnUNetTrainer.nnUNetTrainer")

    def wrapped(network: nn.Module, device_ids: list[int]) -> nn.Module:
        assert device_ids == [rank]
        return DistributedDataParallel(network)

    torch.set_num_threads(1)
    made = trainer(here, "nnUNetTrainerIMAPaper", continued=continued)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet-{continued}", rank=rank, world_size=2
    )
    # What nnU-Net does by itself where there are GPUs.
    made.is_ddp, made.local_rank = True, rank
    made._set_batch_size_and_oversample()
    theirs.DDP = wrapped
    drawn: list[Tensor] = []
    made.initialize()
    if continued:
        made.load_checkpoint(str(Path(made.output_folder) / "checkpoint_final.pth"))
    before = made._prepare()[1].margins.values.clone()
    ids, method = made._prepare()

    def step(network: Any, x: Any, target: Any, index: Tensor) -> Any:
        drawn.append(index.clone())
        return method(network, x, target, index)

    made._current = lambda: step
    made.run_training()
    found = {
        "before": before,
        "margins": method.margins.values,
        "drawn": torch.cat(drawn),
        "weights": {n: v.clone() for n, v in made.network.state_dict().items()},
        "samples": torch.tensor(len(ids)),
    }
    torch.save(found, f"{folder}/{rank}-{continued}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_hold_the_same_margins_and_continue_with_them(
    here: tiny.Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMA_SEED", "3")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    last: Tensor | None = None
    for continued, number in ((False, 1), (True, 2)):
        epochs(monkeypatch, number)
        mp.spawn(_on_the_cpu, (here, str(tmp_path), continued), nprocs=2)
        one, other = (
            torch.load(tmp_path / f"{rank}-{continued}.pt", weights_only=True) for rank in (0, 1)
        )
        assert torch.equal(one["margins"], other["margins"])
        assert all(torch.equal(v, other["weights"][n]) for n, v in one["weights"].items())
        # Both drew slices of their own, and those of both moved.
        assert len(one["drawn"]) + len(other["drawn"]) == 2 * 3
        assert not torch.equal(one["drawn"], other["drawn"])
        moved = (one["margins"] != one["before"]).nonzero().flatten().tolist()
        assert set(moved) <= {*one["drawn"].tolist(), *other["drawn"].tolist()}
        assert set(moved) & set(one["drawn"].tolist())
        assert set(moved) & set(other["drawn"].tolist())
        if last is not None:
            assert torch.equal(one["before"], last) and torch.equal(other["before"], last)
        (file,) = tmp_path.rglob("checkpoint_final.pth")
        last = margins(file)
        assert torch.equal(last, one["margins"])


def epochs(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    for name, value in (("EPOCHS", number), ("ITERATIONS", 2), ("VAL_ITERATIONS", 1)):
        monkeypatch.setenv(f"IMA_{name}", str(value))


def test_three_dimensions_have_one_margin_a_case(
    here: tiny.Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs(monkeypatch, 1)
    # The volumes' spacing is the plans', so that both configurations share preprocessed data.
    made = trainer(here, "nnUNetTrainerIMAPaper", "3d_fullres", data_identifier="nnUNetPlans_2d")
    made.run_training()
    values = margins(Path(made.output_folder) / "checkpoint_final.pth")
    assert len(values) == 6 and bool((values != 1).any())


@contextmanager
def saved(here: tiny.Folders, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A finished run of two short epochs."""
    epochs(monkeypatch, 2)
    monkeypatch.setenv("IMA_SEED", "5")
    made = trainer(here, "nnUNetTrainerIMAPaper")
    made.run_training()
    yield Path(made.output_folder) / "checkpoint_final.pth"


def test_what_a_continued_run_must_share(
    here: tiny.Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    with saved(here, monkeypatch) as file:
        before = margins(file)
        assert not list(file.parent.glob("*.part"))
        epochs(monkeypatch, 3)
        again = trainer(here, "nnUNetTrainerIMAPaper", continued=True)
        again.load_checkpoint(str(file))
        assert again.current_epoch == 2 and torch.equal(again.method.margins.values, before)
        saved_network = torch.load(file, weights_only=True)["network_weights"]
        assert all(torch.equal(v, saved_network[n]) for n, v in network(again).items())

        # A network is loaded for validation whatever the variables say.
        monkeypatch.setenv("IMA_DELTA", "0.5")
        trainer(here, "nnUNetTrainerIMAPaper").load_checkpoint(str(file))
        text = r"trained with delta = 1\.0, but now delta = 0\.5 \(IMA_DELTA\)"
        with pytest.raises(ValueError, match=text):
            trainer(here, "nnUNetTrainerIMAPaper", continued=True).load_checkpoint(str(file))
        monkeypatch.setenv("IMA_DELTA", "1")

        other = trainer(here, "nnUNetTrainerIMAPaper", fold=1, continued=True)
        with pytest.raises(ValueError, match="trained on 6 cases with 48 margins"):
            other.load_checkpoint(str(file))
        with pytest.raises(ValueError, match="is a checkpoint of nnUNetTrainerIMAPaper"):
            trainer(here, "nnUNetTrainerSAT", continued=True).load_checkpoint(str(file))

        content = torch.load(file, weights_only=True)
        # As in a latest checkpoint: nnU-Net writes it before it notes that its epoch was the best.
        torch.save({**content, "_best_ema": None}, file)
        again = trainer(here, "nnUNetTrainerIMAPaper", continued=True)
        again.load_checkpoint(str(file))
        best = torch.load(file.with_name("checkpoint_best.pth"), weights_only=True)["_best_ema"]
        assert best is not None and again._best_ema == best

        del content["ima"]
        torch.save(content, file)
        fresh = trainer(here, "nnUNetTrainerIMAPaper", continued=True)
        with pytest.raises(ValueError, match="no checkpoint of nnUNetTrainerIMAPaper"):
            fresh.load_checkpoint(str(file))
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(ValueError, match="it is damaged"):
            fresh.load_checkpoint(str(file))
        assert fresh.network is None


def test_a_seed_repeats_a_run(here: tiny.Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for _ in range(2):
        with saved(here, monkeypatch) as file:
            results.append(torch.load(file, weights_only=True))
            log = next(file.parent.glob("training_log_*.txt")).read_text()
            assert "seed: a run that is not stopped repeats itself" in log
    first, second = (content["network_weights"] for content in results)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    first, second = (content["ima"]["method"]["margins"]["values"] for content in results)
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_attacks_gradient_survives_short_numbers(dtype: torch.dtype) -> None:
    """A network that is sure of every pixel: e^-60 is no float16, and the loss's gradient is 0."""

    class Sure(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Conv2d(1, 2, 1, bias=False)
            self.last.weight.data = torch.tensor([-30.0, 30.0]).reshape(2, 1, 1, 1)

        def forward(self, x: Tensor) -> list[Tensor]:
            logits = self.last(x)
            return [logits, logits[:, :, ::2, ::2]]

    x = torch.ones(4, 1, 12, 12) + 0.1 * torch.rand(4, 1, 12, 12)
    x[..., :4] *= -1
    model, task, radius = Sure(), Segmentation(), torch.full((4,), 0.5)
    y = [(x > 0).long(), (x > 0)[..., ::2, ::2].long()]
    with torch.autocast("cpu", dtype=dtype):
        leaf = x.clone().requires_grad_()
        output = model(leaf)
        assert output[0].dtype == dtype
        (gradient,) = torch.autograd.grad(task.loss(output, y).sum(), leaf)
        assert dtype == torch.bfloat16 or not gradient.any()
        walked = walk(
            model, x, y, radius, steps=1, step_size=radius, norm=L2, task=task, bounds=None
        )
    assert not walked.stuck.any() and bool(torch.isfinite(walked.x).all())
    torch.testing.assert_close(L2.size(walked.x - x), radius, rtol=1e-4, atol=0)
    # Towards the other label, at every pixel that it moves.
    assert not (torch.sign(walked.x - x) == torch.sign(x)).any()
