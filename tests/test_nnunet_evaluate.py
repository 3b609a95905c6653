"""A trained nnU-Net under attack: its own folder, its own preprocessing, its own padding."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_nnunet as tiny
import torch
from subjects import evaluate_trained
from test_cli import call
from torch import nn

from ima.budget import Budget, OutOfTime
from ima.cli import main
from ima.evaluation.checks_results import Checks
from ima.evaluation.checks_table import CHECKS
from ima.evaluation.distances import Distances
from ima.evaluation.results import WORST, Results
from ima.evaluation.subject import forget
from ima.methods import Standard
from ima.report.words import counted, of_whole
from ima.tasks import Segmentation
from ima.training.lock import Lock

pytestmark = [
    pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnU-Net is not installed"),
    # nnU-Net and what it needs warn of each other.
    pytest.mark.filterwarnings("ignore"),
]

TRAINER = "nnUNetTrainer"
ATTACKS = ("pgd-3", "ifgsm-2")


def architecture(dims: int) -> dict[str, Any]:
    kind = f"torch.nn.modules.conv.Conv{dims}d"
    norm = f"torch.nn.modules.instancenorm.InstanceNorm{dims}d"
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 8, 8],
            "conv_op": kind,
            "kernel_sizes": [[3] * dims] * 3,
            "strides": [[1] * dims, [2] * dims, [2] * dims],
            "n_conv_per_stage": [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True,
            "norm_op": norm,
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(patch: list[int], spacing: list[float], channels: int) -> dict[str, Any]:
    def resampling(**options: Any) -> dict[str, Any]:
        return {"order_z": 0, "force_separate_z": None, **options}

    function = "resample_data_or_seg_to_shape"
    return {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch,
        "median_image_size_in_voxels": [float(side) for side in patch],
        "spacing": spacing,
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        "resampling_fn_data": function,
        "resampling_fn_data_kwargs": resampling(is_seg=False, order=3),
        "resampling_fn_seg": function,
        "resampling_fn_seg_kwargs": resampling(is_seg=True, order=1),
        "resampling_fn_probabilities": function,
        "resampling_fn_probabilities_kwargs": resampling(is_seg=False, order=1),
        "architecture": architecture(len(patch)),
        "batch_dice": False,
    }


def make(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    kind: str = "2d",
    patch: list[int] | None = None,
    channels: int = 1,
    trainer_class: type[Any] | None = None,
    **raw: Any,
) -> Path:
    """The folder of an untrained network, saved by nnU-Net's own trainer; nnUNet_raw is set.

    trainer_class: another one, perhaps of this library.
    """
    made = tiny.Folders(root)
    data = tiny.make_raw(made.raw, cases=1, test_cases=3, channels=channels, **raw)
    for name, value in made.environment().items():
        if name.startswith("nnUNet_"):
            monkeypatch.setenv(name, value)
    patch = patch or ([24, 24] if kind == "2d" else [8, 24, 24])
    # Volumes are written slices first and slices 3 mm apart.
    spacing = [1.0, 1.0] if kind == "2d" else [3.0, 1.0, 1.0]
    plans: dict[str, Any] = {
        "dataset_name": tiny.DATASET,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [3.0, 1.0, 1.0],
        "original_median_shape_after_transp": [8, 24, 24],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {kind: configuration(patch, spacing, channels)},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(c): {} for c in range(channels)},
    }
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from ima.nnunet.slices import Ids

    dataset_json = json.loads((data / "dataset.json").read_text())
    torch.manual_seed(0)
    trainer_class = nnUNetTrainer if trainer_class is None else trainer_class
    trainer = trainer_class(
        {**plans, "continue_training": False}, kind, 0, dataset_json, torch.device("cpu")
    )
    # The trainer looks how preprocessed data are stored.
    stored = made.preprocessed / tiny.DATASET / "x"
    stored.mkdir(parents=True)
    (stored / "case.b2nd").touch()
    trainer.initialize()
    if hasattr(trainer, "ids"):
        # What a trainer of this library keeps, without data that it has seen.
        trainer.ids, trainer.method = Ids(("case",), (1,)), Standard(task=trainer.task())
    # As after an epoch: nnU-Net logs numbers of numpy.
    trainer.logger.log("mean_fg_dice", np.float64(0.5), 0)
    trainer.logger.log("train_losses", np.mean([np.float32(0.5)]), 0)
    fold = Path(trainer.output_folder)
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    (fold.parent / "plans.json").write_text(json.dumps(plans))
    (fold.parent / "dataset.json").write_text(json.dumps(dataset_json))
    assert fold.parent == made.trained(trainer_class.__name__, kind)
    return fold.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make(tmp_path, monkeypatch)


def images(folder: Path, case: int, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A test case as written, (channels, *S) and labels."""
    import SimpleITK

    def read(path: Path) -> np.ndarray:
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))

    data = folder.parents[2] / "raw" / tiny.DATASET
    name = f"tiny_{case:03d}"
    files = [data / "imagesTs" / f"{name}_{c:04d}.nii.gz" for c in range(channels)]
    return np.stack([read(f) for f in files]), read(data / "labelsTs" / f"{name}.nii.gz")


# --- The network, the samples ---------------------------------------------------------------------


def test_the_network_is_that_of_the_trainer_and_pads_as_nnunet_does(folder: Path) -> None:
    from acvl_utils.cropping_and_padding.padding import pad_nd_image
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    from ima.nnunet.trained import Trained

    trained = Trained.open(folder)
    assert (trained.trainer, trained.configuration, trained.which) == (TRAINER, "2d", "final")
    assert trained.classes == ("bright", "dark") and trained.dataset == tiny.DATASET
    assert trained.task() == Segmentation()
    checkpoint = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    plan = architecture(2)
    theirs = get_network_from_plans(
        plan["network_class_name"],
        plan["arch_kwargs"],
        plan["_kw_requires_import"],
        1,
        3,
        deep_supervision=False,
    )
    theirs.load_state_dict(checkpoint["network_weights"])
    network = trained.network()
    assert not network.training
    for size in ((24, 24), (17, 20), (9, 31), (30, 50)):
        x = torch.randn(2, 1, *size)
        # Sides of at least the patch's 24, and multiples of the total stride 4.
        padded, inner = pad_nd_image(x, (24, 24), "constant", {"value": 0}, True, [1, 1, 4, 4])
        with torch.no_grad():
            expected = theirs.eval()(padded)[(..., *inner[2:])]
            assert expected.shape == (2, 3, *size)
            assert torch.equal(network(x), expected)


def test_noise_meets_the_image_alone() -> None:
    from ima.nnunet.trained import Padded

    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.arange(x.shape[2] * x.shape[3]).reshape(x.shape[2:]) + 0 * x

    inner = Padded(Sum(), (4, 4), (2, 2))(torch.zeros(1, 1, 3, 1))[0, 0]
    # 3 by 1 in 4 by 4: one row more at the far end; one column before, two behind.
    assert inner.tolist() == [[1.0], [5.0], [9.0]]


def test_samples_are_slices_as_nnunet_normalises_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    folder = make(tmp_path, monkeypatch, channels=2)
    cases = Cases(Trained.open(folder))
    batches = list(cases)
    assert len(cases) == len(batches) == 3 and cases.total == 24
    assert cases.names == [(f"tiny_{c:03d}", s) for c in (1, 2, 3) for s in range(8)]
    for number, (x, y) in enumerate(batches, start=1):
        image, labels = images(folder, number, 2)
        mean, std = (f(image, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.std))
        expected = ((image - mean) / std).transpose(1, 0, 2, 3)
        np.testing.assert_allclose(x.numpy(), expected, atol=1e-4)
        np.testing.assert_array_equal(y.numpy(), labels)


@pytest.mark.parametrize(("samples", "counts"), [(3, [1, 1, 1]), (10, [3, 4, 3]), (99, [8, 8, 8])])
def test_samples_are_spread_over_all_cases(folder: Path, samples: int, counts: list[int]) -> None:
    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    cases = Cases(Trained.open(folder), samples=samples)
    assert cases.total == 24
    assert [len(x) for x, _ in cases] == counts
    assert len(set(cases.names)) == sum(counts)
    whole = dict(zip(Cases(Trained.open(folder)).names, _slices(folder), strict=True))
    for name, image in zip(cases.names, _slices(folder, samples), strict=True):
        assert torch.equal(whole[name], image)
    # Not the first slices, which hold background.
    assert samples == 99 or all(0 < at < 7 for _, at in cases.names[:1])


def _slices(folder: Path, samples: int | None = None) -> list[torch.Tensor]:
    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    return [image for x, _ in Cases(Trained.open(folder), samples=samples) for image in x]


@pytest.mark.parametrize("ignore", [False, True])
def test_regions_as_nnunet_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignore: bool
) -> None:
    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    folder = make(tmp_path, monkeypatch, regions=True, ignore=ignore)
    trained = Trained.open(folder)
    assert trained.classes == ("whole", "core")
    assert trained.task() == Segmentation(regions=True)
    _, y = next(iter(Cases(trained)))
    _, labels = images(folder, 1)
    expected = [labels > 0, labels == 1] if not ignore else [np.isin(labels, (1, 2)), labels == 1]
    expected += [labels == 3] if ignore else []
    np.testing.assert_array_equal(y.numpy(), np.stack(expected, 1))
    found, where = evaluate_trained(trained, [1.0], ["pgd-2"], samples=6)
    assert found.classes == ("whole", "core") and found.adi("pgd-2", 1.0) <= found.adi()
    with np.load(where / "overlays.npz") as kept:
        assert (255 in kept["truth"]) == ignore


def test_ignored_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ima.nnunet.trained import Trained

    trained = Trained.open(make(tmp_path, monkeypatch, ignore=True))
    assert trained.classes == ("bright", "dark")
    assert trained.task() == Segmentation(ignore_label=3)
    found, where = evaluate_trained(trained, [1.0], ["ifgsm-2"], samples=6)
    # The first row of every slice.
    with np.load(where / "overlays.npz") as kept:
        assert (kept["truth"][:, 0] == 255).all() and not (kept["truth"][:, 1:] == 255).any()
    assert found.columns["pixels"].max() < 23 * 24


@pytest.mark.parametrize("patch", [[8, 32, 32], [4, 16, 16]])
def test_volumes_are_whole_or_their_central_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patch: list[int]
) -> None:
    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    folder = make(tmp_path, monkeypatch, kind="3d_fullres", patch=patch)
    trained = Trained.open(folder)
    (x, y), *_ = list(Cases(trained))
    _, labels = images(folder, 1)
    inner = labels if patch[0] == 8 else labels[2:6, 4:20, 4:20]
    assert x.shape == (1, 1, *inner.shape)
    np.testing.assert_array_equal(y[0].numpy(), inner)
    found, where = evaluate_trained(trained, [2.0], ["pgd-2"])
    clean = found.of_attack()
    assert list(zip(clean["case"].tolist(), clean["slice"].tolist(), strict=True)) == [
        (f"tiny_{c:03d}", -1) for c in (1, 2, 3)
    ]
    assert counted(found) == "3 cases or central patches"
    assert of_whole(found).endswith("of the whole samples (a case, or its central patch)")
    with np.load(where / "overlays.npz") as kept:
        assert kept["clean"].shape == (3, *inner.shape[1:])
        assert all(0 <= at < len(inner) for at in kept["slice"])


# --- Evaluation -----------------------------------------------------------------------------------


def test_an_evaluation_and_its_files(folder: Path) -> None:
    from ima.nnunet.trained import Trained

    trained = Trained.open(folder / "fold_0")
    found, where = evaluate_trained(trained, [1.0, 4.0], ATTACKS, samples=9)
    assert where == folder / "fold_0" / "ima"
    forget([where / "results_nnunet.csv"])
    names = ["overlays.npz", "results_nnunet.csv", "results_nnunet.json"]
    assert sorted(p.name for p in where.iterdir()) == names
    again = Results.from_csv(where / "results_nnunet.csv")
    assert repr(again.rows) == repr(found.rows)
    assert again.attacks == (*ATTACKS, WORST) and again.white == ("white-1", "white-100")
    told = again.settings
    assert (told.samples, told.total) == (9, 24)
    assert told.cases == "imagesTs of the data set" and len(told.data_digest) == 16
    assert told.label == TRAINER and told.data == tiny.DATASET
    assert told.seed == 0 and told.seconds and told.classes == ("bright", "dark")
    assert told.about.keys() >= {"empty slices", "samples are"}
    for row in again.rows:
        _, labels = images(folder, int(row.case[-1]))
        assert row.more["pixels"] == int((labels[row.slice] > 0).sum())
    with np.load(where / "overlays.npz", allow_pickle=False) as kept:
        assert kept["case"].tolist() == [f"tiny_{c:03d}" for c in (1, 2, 3) for _ in range(2)]
        assert kept["eps"].tolist() == [1.0, 4.0] * 3 and set(kept["attack"].tolist()) == {WORST}
        assert str(kept["trainer"]) == TRAINER and kept["classes"].tolist() == ["bright", "dark"]
        for i in range(6):
            clean = again.of_attack()
            assert kept["pixels"][i] == clean["pixels"][clean["case"] == kept["case"][i]].max()
            size = np.linalg.norm((kept["noisy"][i] - kept["clean"][i]).astype(float))
            assert size <= kept["eps"][i] * (1 + 1e-4)


def test_a_stopped_evaluation_continues_to_the_same_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.trained import Trained

    trained, budget = Trained.open(folder), Budget(3600)

    def go(out: Path, budget: Budget | None = None, stop: bool = False) -> Results:
        def progress(done: int, total: int) -> None:
            assert total == 3
            if stop and done == 2 and budget is not None:
                budget.end = 0.0

        return evaluate_trained(
            trained,
            [1.0, 3.0],
            ATTACKS,
            samples=9,
            out=out,
            progress=progress,
            budget=budget,
        )[0]

    whole = go(tmp_path / "a")
    with pytest.raises(OutOfTime, match="after 2 of 3"):
        go(tmp_path / "b", budget, stop=True)
    assert not (tmp_path / "b" / "results_nnunet.csv").exists()
    assert repr(go(tmp_path / "b").rows) == repr(whole.rows)
    with np.load(tmp_path / "a/overlays.npz") as a, np.load(tmp_path / "b/overlays.npz") as b:
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


class ByEye(nn.Module):
    """Bright pixels are of label 1, dark ones of label 2."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), x - self.level, -x - self.level], 1)


def test_smallest_noise_and_checks_of_cases_of_several_sizes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.trained import Trained

    # The last case is smaller than the others.
    image, labels = images(folder, 3)
    raw = folder.parents[2] / "raw" / tiny.DATASET
    tiny._write(raw / "imagesTs" / "tiny_003_0000.nii.gz", image[0, :, 2:-2, 2:-2])
    tiny._write(raw / "labelsTs" / "tiny_003.nii.gz", labels[:, 2:-2, 2:-2])
    monkeypatch.setattr(Trained, "network", lambda _: ByEye())
    keep = {k: v for k, v in CHECKS.items() if k in ("gradients", "monotone")}
    monkeypatch.setattr("ima.evaluation.checks.CHECKS", keep)
    words = ("--eps", "2", "6", "--attacks", "pgd-3", "noise-3", "--device", "cpu")
    said = call("evaluate", "--nnunet", str(folder), *words, "--distances", "--checks")
    assert said.code == 0, said.err
    where = folder / "fold_0" / "ima"
    tables = [
        f"{name}.{end}" for name in ("distances", "results_nnunet") for end in ("csv", "json")
    ]
    names = sorted(["checks.json", "overlays.npz", *tables])
    assert sorted(path.name for path in where.iterdir()) == names
    results = Results.from_csv(where / "results_nnunet.csv")
    distances = Distances.from_csv(where / "distances.csv")
    assert len(distances.rows) == len(results.at()) == 24
    assert distances.accuracy() == results.accuracy() > 0.5
    assert distances.accuracy(6) <= results.accuracy("pgd-3", 6)
    assert "broken: a mean Dice of at most" in said.out
    checks = Checks.from_json(where / "checks.json")
    right = ~results.broken_rows[results.at()]
    alike = results.of_attack()["case"] != "tiny_003"
    # Checks hold samples of one shape against each other: those of the first two cases.
    assert (checks.settings.total, checks.settings.right) == (16, int((right & alike).sum()))
    assert [check.tripped for check in checks.checks] == [False, False]
    assert {one.settings.data for one in (results, distances, checks)} == {tiny.DATASET}


def test_the_command_stops_in_time_alone_in_its_folder_and_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("evaluate", "--nnunet", str(folder), "--eps", "1", "--attacks", "ifgsm-1")
    where, short = folder / "fold_0" / "ima", ("--samples", "3", "--device", "cpu")
    with Lock(where, "evaluate") as lock:
        lock.take()
        said = call(*words, *short)
        assert said.code == 1 and f"already writes to {where}" in said.err
    # Every call does one batch.
    monkeypatch.setattr(Budget, "left", lambda _: 0.0)
    for done in (1, 2):
        said = call(*words, *short, "--time-budget", "9m")
        assert said.code == 75, said.err
        assert f"ima: {TRAINER}: the time is up after {done} of 3" in said.err
        assert not list(where.glob("*.csv"))
    assert call(*words, *short, "--time-budget", "9m").code == 0
    names = ["overlays.npz", "results_nnunet.csv", "results_nnunet.json"]
    assert sorted(path.name for path in where.iterdir()) == names


def test_the_papers_noise_levels() -> None:
    from ima.nnunet.evaluating import default_eps

    assert default_eps("Dataset002_Heart") == (5, 10, 15)
    assert default_eps("Dataset104_hippocampus") == (2, 6, 10)
    assert default_eps("Dataset005_Prostate") == (10, 20, 40)
    assert default_eps("Dataset001_BrainTumour") == ()


def test_the_command_prints_tables_and_needs_no_torchvision(folder: Path) -> None:
    code = (
        "import sys; from ima.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torchvision' not in sys.modules and 'timm' not in sys.modules"
    )
    words = ["evaluate", "--nnunet", str(folder), "--eps", "1", "3", "--samples", "4"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words, "--attacks", *ATTACKS, "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(folder / "fold_0" / "ima" / "results_nnunet.csv") in done.stdout
    assert "n = 4 of 24 slices of 3 cases" in " ".join(done.stdout.split())
    assert "pgd-3 at 1" in done.stdout and "batch 3 of 3" in done.stderr


# --- What is refused ------------------------------------------------------------------------------


class Hostile:
    """A pickle that would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_a_checkpoint_that_would_execute_code_is_refused(folder: Path, tmp_path: Path) -> None:
    from ima.nnunet.trained import Trained

    file = folder / "fold_0" / "checkpoint_final.pth"
    good = torch.load(file, weights_only=False)
    torch.save({**good, "logging": Hostile(tmp_path / "owned")}, file)
    with pytest.raises(ValueError, match="could execute code, so it is refused"):
        Trained.open(folder)
    file.write_bytes(pickle.dumps(Hostile(tmp_path / "owned")))
    with pytest.raises(ValueError, match="could execute code, so it is refused"):
        Trained.open(folder)
    assert not (tmp_path / "owned").exists()


def test_damaged_and_foreign_files_are_refused(folder: Path) -> None:
    from ima.nnunet.trained import Trained

    file = folder / "fold_0" / "checkpoint_final.pth"
    whole, good = file.read_bytes(), torch.load(file, weights_only=False)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged"):
        Trained.open(folder)
    torch.save({"model": good["network_weights"]}, file)
    with pytest.raises(ValueError, match="no checkpoint of nnU-Net"):
        Trained.open(folder)
    weights = dict(good["network_weights"])
    weights.popitem()
    torch.save({**good, "network_weights": weights}, file)
    with pytest.raises(ValueError, match="do not fit the network of its plans"):
        Trained.open(folder).network()
    torch.save({**good, "init_args": {"configuration": "3d_fullres"}}, file)
    with pytest.raises(ValueError, match="no trained nnU-Net"):
        Trained.open(folder)
    file.write_bytes(whole)
    (folder / "plans.json").write_text("{")
    with pytest.raises(ValueError, match=r"plans\.json is damaged"):
        Trained.open(folder)
    (folder / "plans.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no plans\.json"):
        Trained.open(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network_class_name", "os.system"),
        ("network_class_name", "dynamic_network_architectures.architectures.unet.np.save"),
        ("nonlin", "subprocess.Popen"),
        ("nonlin", "torch.nn.modules.module.warnings.warn"),
    ],
)
def test_plans_that_name_other_code_are_refused(folder: Path, key: str, value: str) -> None:
    from ima.nnunet.trained import Trained

    file = folder / "plans.json"
    plans = json.loads(file.read_text())
    plan = plans["configurations"]["2d"]["architecture"]
    (plan if key in plan else plan["arch_kwargs"])[key] = value
    file.write_text(json.dumps(plans))
    with pytest.raises(ValueError, match=r"plans\.json names '" + value):
        Trained.open(folder).network()


def test_an_output_that_is_not_finite_is_refused(folder: Path) -> None:
    from ima.nnunet.trained import Trained

    file = folder / "fold_0" / "checkpoint_final.pth"
    found = torch.load(file, weights_only=False)
    next(iter(found["network_weights"].values())).fill_(torch.nan)
    torch.save(found, file)
    with pytest.raises(FloatingPointError, match="not finite"):
        evaluate_trained(Trained.open(folder), [1.0], ["pgd-2"])
    assert not (folder / "fold_0" / "ima" / "results_nnunet.csv").exists()


def test_folds_and_weights_that_are_not_there(folder: Path) -> None:
    from ima.nnunet.trained import Trained

    with pytest.raises(FileNotFoundError, match="holds folds 0"):
        Trained.open(folder, "1")
    with pytest.raises(FileNotFoundError, match="checkpoint_best"):
        Trained.open(folder, which="best")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        Trained.open(folder / "nowhere")
    fold = folder / "fold_0"
    (folder / "fold_all").mkdir()
    (folder / "fold_all" / "checkpoint_final.pth").write_bytes(
        (fold / "checkpoint_final.pth").read_bytes()
    )
    with pytest.raises(ValueError, match="holds folds 0, all; say --fold"):
        Trained.open(folder)
    assert Trained.open(folder, "all").folder == folder / "fold_all"
    assert Trained.open(fold).folder == fold
    (folder / "fold_all" / "checkpoint_final.pth").unlink()
    (fold / "checkpoint_final.pth").rename(fold / "checkpoint_best.pth")
    with pytest.raises(FileNotFoundError, match="--weights best"):
        Trained.open(folder)
    assert Trained.open(folder, which="best").which == "best"


def test_test_cases_that_are_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    trained = Trained.open(folder)
    with pytest.raises(ValueError, match="no noise levels for Dataset501_Tiny"):
        evaluate_trained(trained)
    with pytest.raises(ValueError, match="samples is 0"):
        Cases(trained, samples=0)
    raw = folder.parents[2] / "raw" / tiny.DATASET
    with pytest.raises(ValueError, match="say both --images and --labels"):
        Cases(trained, images=raw / "imagesTs")
    others = Cases(trained, raw / "imagesTr", raw / "labelsTr")
    assert len(others.names) == 8 and others.where == "images in imagesTr, labels in labelsTr"
    with pytest.raises(FileNotFoundError, match="tiny_000_0000"):
        Cases(trained, raw / "imagesTs", raw / "labelsTr")
    (raw / "imagesTs" / "tiny_002_0000.nii.gz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="case tiny_002 cannot be preprocessed"):
        Cases(trained)
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(ValueError, match="nnUNet_raw is not set"):
        Cases(trained)
    monkeypatch.setenv("nnUNet_raw", str(raw))
    with pytest.raises(FileNotFoundError, match="test cases need images and labels"):
        Cases(trained)


# --- Files of other formats -----------------------------------------------------------------------


def other_files(folder: Path, reader: str, ending: str, channels: int = 3) -> Path:
    """The same network, for files of another format.

    Returns the raw data's folder, whose test cases are gone.
    """
    plans = json.loads((folder / "plans.json").read_text())
    (folder / "plans.json").write_text(json.dumps(plans | {"image_reader_writer": reader}))
    description = json.loads((folder / "dataset.json").read_text())
    names = {str(c): name for c, name in enumerate("RGB"[:channels])}
    changed = {"file_ending": ending, "channel_names": names}
    (folder / "dataset.json").write_text(json.dumps(description | changed))
    raw = folder.parents[2] / "raw" / tiny.DATASET
    for part in ("imagesTs", "labelsTs"):
        for file in (raw / part).iterdir():
            file.unlink()
    return raw


def png(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(image).save(path)


def colours(seed: int, channels: int = 3) -> np.ndarray:
    drawn = np.random.default_rng(seed).integers(0, 256, (20, 24, channels))
    return drawn.astype(np.uint8)


def square() -> np.ndarray:
    labels = np.zeros((20, 24), np.uint8)
    labels[5:12, 6:15], labels[6:9, 8:12] = 1, 2
    return labels


@pytest.mark.parametrize("files", ["one in colour", "one a channel", "several cases"])
def test_pictures_are_read_as_nnunet_reads_them(
    files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    folder = make(tmp_path, monkeypatch, channels=3)
    raw = other_files(folder, "NaturalImage2DIO", ".png")
    cases = ["a", "a_0000", "b.c"] if files == "several cases" else ["a"]
    for number, case in enumerate(cases):
        picture = colours(number)
        if files == "one a channel":
            for c in range(3):
                png(raw / "imagesTs" / f"{case}_{c:04d}.png", picture[..., c])
        else:
            png(raw / "imagesTs" / f"{case}_0000.png", picture)
        png(raw / "labelsTs" / f"{case}.png", square())
    trained = Trained.open(folder)
    found = Cases(trained)
    assert found.names == [(case, 0) for case in cases]
    for number, (x, y) in enumerate(found):
        image = colours(number).transpose(2, 0, 1)[:, None].astype(np.float32)
        mean, std = (f(image, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.std))
        np.testing.assert_allclose(x.numpy(), ((image - mean) / std)[None, :, 0], atol=1e-4)
        np.testing.assert_array_equal(y.numpy(), square()[None])
    results, where = evaluate_trained(trained, [1.0], ["pgd-2"])
    assert len(results.at()) == len(cases)
    with np.load(where / "overlays.npz") as kept:
        assert kept["clean"].shape[1:] == (20, 24)


@pytest.mark.parametrize("others", [0, 1, 5])
def test_images_without_labels_are_told(
    others: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.trained import Trained

    folder = make(tmp_path, monkeypatch, channels=3)
    raw = other_files(folder, "NaturalImage2DIO", ".png")
    png(raw / "imagesTs" / "a_0000.png", colours(0))
    png(raw / "labelsTs" / "a.png", square())
    for number in range(others):
        png(raw / "imagesTs" / f"b{number}_0000.png", colours(number))
    found, _ = evaluate_trained(Trained.open(folder), [1.0], ["pgd-2"])
    assert len(found.at()) == 1
    told = {0: None, 1: "b0", 5: "b0, b1, b2 and 2 more"}[others]
    assert found.settings.about.get("left out, without labels") == told


@pytest.mark.parametrize(
    ("image", "labels", "error", "text"),
    [
        (colours(0, 4), square(), ValueError, "case a has 4 channels in a_0000.png"),
        (
            colours(0)[..., 0],
            square(),
            ValueError,
            "case a has 1 channel in a_0000.png.* or also a_0001.png",
        ),
        (colours(0), np.stack([square()] * 3, -1), ValueError, "case a has 3 labels .* expected 1"),
        (colours(0)[:10], square(), ValueError, "case a "),
    ],
)
def test_pictures_of_other_channels_are_refused(
    image: np.ndarray,
    labels: np.ndarray,
    error: type[Exception],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    folder = make(tmp_path, monkeypatch, channels=3)
    raw = other_files(folder, "NaturalImage2DIO", ".png")
    png(raw / "imagesTs" / "a_0000.png", image)
    png(raw / "labelsTs" / "a.png", labels)
    with pytest.raises(error, match=text):
        Cases(Trained.open(folder))


def test_one_gray_picture_among_those_in_colour_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    folder = make(tmp_path, monkeypatch, channels=3)
    raw = other_files(folder, "NaturalImage2DIO", ".png")
    for number, case in enumerate(("a", "b", "c")):
        gray = case == "b"
        png(raw / "imagesTs" / f"{case}_0000.png", colours(number)[..., 0 if gray else slice(None)])
        png(raw / "labelsTs" / f"{case}.png", square())
    with pytest.raises(ValueError, match=r"case b has 1 channel in b_0000\.png, .* has 3: "):
        Cases(Trained.open(folder))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_channel_is_named(
    missing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    folder = make(tmp_path, monkeypatch, channels=3)
    raw = other_files(folder, "NaturalImage2DIO", ".png")
    for c in range(3):
        if c != missing:
            png(raw / "imagesTs" / f"a_{c:04d}.png", colours(0)[..., c])
    png(raw / "labelsTs" / "a.png", square())
    with pytest.raises(FileNotFoundError, match=rf"has no image .*a_000{missing}\.png"):
        Cases(Trained.open(folder))


def test_volumes_of_tiff_bring_their_spacing_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tifffile

    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    folder = make(tmp_path, monkeypatch, channels=2, kind="3d_fullres", patch=[8, 16, 16])
    raw = other_files(folder, "Tiff3DIO", ".tif", channels=2)
    drawn = np.random.default_rng(0).normal(size=(2, 4, 12, 14)).astype(np.float32)
    labels = np.zeros((4, 12, 14), np.uint8)
    labels[:, 3:9, 4:8] = 1
    for c in range(2):
        tifffile.imwrite(raw / "imagesTs" / f"a_{c:04d}.tif", drawn[c])
    tifffile.imwrite(raw / "labelsTs" / "a.tif", labels)
    for part in ("imagesTs", "labelsTs"):
        # Slices 6 mm apart: nnU-Net makes twice as many of the plans' 3 mm.
        (raw / part / "a.json").write_text(json.dumps({"spacing": [6.0, 1.0, 1.0]}))
    ((x, y),) = list(Cases(Trained.open(folder)))
    assert x.shape == (1, 2, 8, 12, 14) and y.shape == (1, 8, 12, 14)
    assert set(y.unique().tolist()) == {0, 1}


def test_the_reader_is_the_one_that_the_data_set_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    folder = make(tmp_path, monkeypatch, channels=2)
    ((x, y), *_) = list(Cases(Trained.open(folder)))
    plans = json.loads((folder / "plans.json").read_text())
    # SimpleITK writes rows from the right and from the front, which the second reader turns.
    for reader, turned in (("NibabelIO", ()), ("NibabelIOWithReorient", (-1, -2))):
        (folder / "plans.json").write_text(json.dumps(plans | {"image_reader_writer": reader}))
        ((again, labels), *_) = list(Cases(Trained.open(folder)))
        torch.testing.assert_close(again.flip(turned), x)
        assert torch.equal(labels.flip(turned), y)


def test_labels_that_the_network_does_not_know(folder: Path) -> None:
    from ima.nnunet.cases import Cases
    from ima.nnunet.trained import Trained

    raw = folder.parents[2] / "raw" / tiny.DATASET
    _, labels = images(folder, 2)
    labels[3, 2, 2] = 7
    tiny._write(raw / "labelsTs" / "tiny_002.nii.gz", labels)
    with pytest.raises(ValueError, match="tiny_002 holds the label 7; the network knows 0, 1, 2"):
        Cases(Trained.open(folder))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["run", "--nnunet", "f"], "a run does not go with --nnunet"),
        (["--nnunet", "f", "--model", "m:n"], "--model does not go with --nnunet"),
        (["--nnunet", "f", "--bounds", "0", "1"], "--bounds does not go with --nnunet"),
        (["--nnunet", "f", "--transfer-from", "r"], "--transfer-from does not go with --nnunet"),
        (["--nnunet", "f", "--checkpoint", "best"], "--checkpoint does not go with --nnunet"),
        (["run", "--fold", "0"], "--fold belongs to a trained nnU-Net"),
        ([], "there is nothing to evaluate"),
        (["--nnunet", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_options_that_do_not_belong_together(
    words: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ima", "evaluate", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert text in capsys.readouterr().err
