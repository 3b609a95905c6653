"""A tiny data set for nnU-Net, and nnU-Net's own commands on it, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DATASET_ID = 501
DATASET = "Dataset501_Tiny"
CASES = 8
SHAPE = (8, 24, 24)


@dataclass(frozen=True)
class Folders:
    """nnU-Net's three folders under one root."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed"

    @property
    def results(self) -> Path:
        return self.root / "results"

    def trained(self, trainer: str, configuration: str = "2d") -> Path:
        """The folder of a trained model."""
        return self.results / DATASET / f"{trainer}__nnUNetPlans__{configuration}"

    def environment(self, **more: str) -> dict[str, str]:
        """Variables for a process that runs nnU-Net here; none of this library's own."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("nnUNet_", "IMA_"))}
        return {
            **kept,
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": "0",
            "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "agg",
            **more,
        }


def make_raw(
    raw: Path,
    *,
    cases: int = CASES,
    test_cases: int = 2,
    shape: tuple[int, int, int] = SHAPE,
    channels: int = 1,
    regions: bool = False,
    ignore: bool = False,
    seed: int = 0,
) -> Path:
    """A raw data set of NIfTI volumes: noise with a bright ball (label 1) and a dark one (2).

    shape: (slices, height, width). The first and the last slice hold background only. regions:
    nnU-Net's region-based labels, ball 1 within both; ignore: label 3, in one row of every slice.
    Test cases (imagesTs, labelsTs) follow the training cases. Returns its folder, DATASET in raw.
    """
    folder = raw / DATASET
    generator = np.random.default_rng(seed)
    for number in range(cases + test_cases):
        part = "Tr" if number < cases else "Ts"
        name = f"tiny_{number:03d}"
        image, labels = _volume(shape, channels, generator)
        if ignore:
            labels[:, 0] = 3
        for channel in range(channels):
            _write(folder / f"images{part}" / f"{name}_{channel:04d}.nii.gz", image[channel])
        _write(folder / f"labels{part}" / f"{name}.nii.gz", labels)
    description: dict[str, object] = {
        "channel_names": {str(c): "MRI" for c in range(channels)},
        "labels": _labels(regions, ignore),
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    if regions:
        description["regions_class_order"] = [2, 1]
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def plan(folders: Folders, *configurations: str) -> None:
    """nnU-Net's planning and preprocessing of the data set."""

    def once(timeout: float | None) -> None:
        run(
            folders,
            "plan",
            *("-d", str(DATASET_ID), "-c", *configurations, "-np", *["1"] * len(configurations)),
            *("-npfp", "1"),
            timeout=timeout,
            # Planning sets as many threads as there are augmentation processes: at least one.
            nnUNet_n_proc_DA="1",
        )

    try:
        once(100)
    except subprocess.TimeoutExpired:
        # Its pools of processes were seen to hang, once in many runs.
        once(None)


def run(
    folders: Folders,
    name: str,
    *arguments: str,
    check: bool = True,
    timeout: float | None = None,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """One of nnU-Net's commands (`plan`, `train`, `predict`) through this library's command line.

    check: AssertionError with the output where the command fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "ima", "nnunet", name, *arguments],
        env=folders.environment(**variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0 or not check, done.stdout[-4000:] + done.stderr[-4000:]
    return done


def train(
    folders: Folders,
    trainer: str,
    *more: str,
    configuration: str = "2d",
    fold: str = "0",
    check: bool = True,
    device: str = "cpu",
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """nnU-Net's training; two epochs of three iterations unless `variables` say else."""
    few = {"IMA_EPOCHS": "2", "IMA_ITERATIONS": "3", "IMA_VAL_ITERATIONS": "1"}
    return run(
        folders,
        "train",
        *(str(DATASET_ID), configuration, fold, "-tr", trainer, "-device", device, *more),
        check=check,
        **{**few, **variables},
    )


def _labels(regions: bool, ignore: bool) -> dict[str, object]:
    named: dict[str, object] = (
        {"background": 0, "whole": [1, 2], "core": [1]}
        if regions
        else {"background": 0, "bright": 1, "dark": 2}
    )
    return named | ({"ignore": 3} if ignore else {})


def _volume(
    shape: tuple[int, int, int], channels: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    depth, height, width = shape
    labels = np.zeros(shape, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    for label, column in ((1, 0.3), (2, 0.7)):
        centre = np.array([depth / 2 - 0.5, height / 2, width * column])
        centre[1:] += generator.uniform(-2, 2, 2)
        distance = np.linalg.norm((grid - centre) / [depth / 2 - 1, height / 5, width / 6], axis=-1)
        labels[distance < 1] = label
    image = generator.normal(100, 10, (channels, *shape))
    image += 60 * (labels == 1) - 60 * (labels == 2)
    return image.astype(np.float32), labels


def _write(path: Path, volume: np.ndarray) -> None:
    import SimpleITK

    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(volume)
    image.SetSpacing((1.0, 1.0, 3.0))
    SimpleITK.WriteImage(image, str(path))
