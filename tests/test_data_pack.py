"""The packed CT images load, and are split, as the originals are."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ima.cli import app
from ima.data import load
from ima.data.covid_ct import LOSSY
from ima.data.pack import pack_covid_ct

REAL = Path(os.environ.get("IMA_DATA") or Path(__file__).parents[2] / "shared/data")


def slices(folder: Path, count: int = 240) -> Path:
    """Smooth pictures, all different, one folder a class."""
    rng = np.random.default_rng(0)
    for name in ("COVID", "non-COVID"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            coarse = rng.integers(0, 255, (4, 4), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((40, 36), Image.Resampling.BICUBIC)
            image.save(folder / name / f"{name} ({number}).png")
    return folder


def test_the_pack_keeps_the_split_and_nearly_the_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMA_CACHE", str(tmp_path / "cache"))
    source, target = slices(tmp_path / "source"), tmp_path / "packed.zip"
    with pytest.raises(SystemExit) as done:
        app(["data", "pack", str(target), "--path", str(source), "--size", "32"])
    assert done.value.code in (0, None)
    said = capsys.readouterr().out
    assert "480 images" in said
    assert said.rstrip().endswith(f"next: ima train table5 data.path={target} data.size=32")
    original = load("covid_ct", path=source, size=32)
    packed = load("covid_ct", path=target, size=32)
    for ours, theirs in zip(
        (original.train, original.val, original.test),
        (packed.train, packed.val, packed.test),
        strict=True,
    ):
        assert torch.equal(ours.targets, theirs.targets)
        apart = ours.images.float() - theirs.images.float()
        # Two images of different slices differ by far more.
        assert float(apart.abs().flatten(1).mean(1).max()) < (4 if ours is original.train else 1e-9)
    assert packed.note.endswith(f"Training images are {LOSSY}") and "JPEG" not in original.note
    # Of another split some of the 20 are in the other parts.
    told = re.search(
        rf"(\d+) of 20 training images and (\d+) of 460 validation and test images are {LOSSY}$",
        load("covid_ct", path=target, size=32, seed=1).note,
    )
    assert told and int(told[1]) + int(told[2]) == 20 and int(told[2]) > 0
    again = tmp_path / "again.zip"
    pack_covid_ct(again, path=source, size=32)
    assert again.read_bytes() == target.read_bytes()


def test_the_full_table_advances_in_slices_from_the_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pack_covid_ct(tmp_path / "ct.zip", path=slices(tmp_path / "source"), size=20)
    words = [
        *("compare", "table5", f"data.path={tmp_path / 'ct.zip'}", "data.size=20"),
        "network={name: small_resnet, width: 4}",
        *("train.epochs=1", "evaluate.attacks=[pgd-1]", "evaluate.samples=4"),
        "compare=[{label: IMA, method: {name: ima, eps: 12.0, delta: 12.0, steps: 1}}]",
        *("--out", str(tmp_path / "runs"), "--device", "cpu"),
    ]
    with pytest.raises(SystemExit) as stopped:
        app([*words, "--time-budget", "1s"])
    assert stopped.value.code == 75
    assert "the same command continues" in capsys.readouterr().err
    with pytest.raises(SystemExit) as done:
        app([*words, "--time-budget", "9m"])
    assert done.value.code in (0, None)
    page = (tmp_path / "runs" / "table.md").read_text()
    for said in (
        "small_resnet (width 4)",
        "JPEG",
        "no patient ids",
        "20 training and 60 validation samples",
    ):
        assert said in page
    assert "adam (lr 0.001, constant, weight decay 0), 1 epochs" in page


@pytest.mark.parametrize(
    ("target", "options", "told"),
    [
        ("packed.zip", {"quality": 101}, "quality is 101"),
        ("packed.zip", {"size": 7}, "size is 7; expected at least 8"),
        ("packed.zip", {"size": -1}, "size is -1; expected at least 8"),
        ("", {}, r"is a folder; name the file to write: .*covid_ct\.zip"),
        ("packed.zip", {}, "has 3 non-COVID and 3 COVID images; expected more than 230 of each"),
    ],
)
def test_what_cannot_be_packed_is_told_before_any_work(
    target: str, options: dict[str, int], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = slices(tmp_path / "source", 3)
    monkeypatch.setattr("ima.data.pack.decode", None)  # would fail if it were called
    (tmp_path / "to").mkdir()
    with pytest.raises(ValueError, match=told):
        pack_covid_ct(tmp_path / "to" / target, path=source, **options)
    assert not list((tmp_path / "to").iterdir())


@pytest.mark.skipif(not (REAL / "sars-cov-2-ct").exists(), reason="no CT images in IMA_DATA")
def test_the_real_slices_fit_into_sixty_mebibytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMA_CACHE", str(tmp_path / "cache"))
    target = tmp_path / "ct.zip"
    count, change = pack_covid_ct(target, path=REAL / "sars-cov-2-ct")
    assert count == 2481
    assert target.stat().st_size < 60 * 2**20
    assert change < 2.0
    packed, original = (
        load("covid_ct", path=path, size=224) for path in (target, REAL / "sars-cov-2-ct")
    )
    assert torch.equal(packed.test.images, original.test.images)
