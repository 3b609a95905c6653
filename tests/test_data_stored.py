"""Images that do not fit into memory: read from a file, and everything else as in memory."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from subjects import evaluate_run
from test_data import zipped
from test_data_folder import classes, write
from test_training import assert_equal_runs, new, train
from torch.utils.data import DataLoader

from ima import memory
from ima.data import Part, load, stored
from ima.data.flip import flip_labels
from ima.data.stored import Stored
from ima.training.run import Run


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From here on, everything is large; and nothing is in the cache."""
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    monkeypatch.setenv("IMA_CACHE", str(tmp_path / "cache"))


def both(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Any, Any]:
    """The splits in memory, and in a file."""
    monkeypatch.setenv("IMA_CACHE", str(folder.parent / "one"))
    inside = load("folder", path=folder, **options)
    monkeypatch.setenv("IMA_CACHE", str(folder.parent / "other"))
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    return inside, load("folder", path=folder, **options)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("archived", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("size", [None, 8])
def test_the_parts_are_those_in_memory(
    mode: str,
    archived: bool,
    size: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write(tmp_path / "pets", classes(), mode)
    folder = zipped(folder) if archived else folder
    inside, outside = both(folder, monkeypatch, size=size)
    assert (inside.note, inside.shape) == (outside.note, outside.shape)
    for role in ("train", "val", "test"):
        one, other = getattr(inside, role), getattr(outside, role)
        assert isinstance(other.images, Stored)
        assert torch.equal(one.targets, other.targets)
        everything = torch.arange(len(one))
        assert torch.equal(one[everything][0], other[everything][0])
        for index in (torch.tensor([2, 0, 2]), [1], torch.tensor([], dtype=torch.long)):
            assert torch.equal(one[index][0], other[index][0])
        assert torch.equal(one[-1][0], other[-1][0])
        assert other.images.shape == one.images.shape
        assert other.images.numel() == one.images.numel()
    # Decoded once: the second time nothing else is needed.
    if not archived:
        monkeypatch.setattr("ima.data.folder.decode", None)
        again = load("folder", path=folder, size=size)
        assert torch.equal(again.test[0][0], inside.test[0][0])


def test_equal_images_are_left_out_as_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pets"
    places = [
        f"{role}/{kind}/{i}.png" for role in ("train", "test") for kind in "ab" for i in "123"
    ]
    write(folder, places)
    shutil.copy(folder / "test/a/1.png", folder / "train/a/9.png")
    inside, outside = both(folder, monkeypatch)
    assert "left out" in outside.note
    assert inside.note == outside.note
    assert [len(inside.train), len(inside.val)] == [len(outside.train), len(outside.val)]


def test_a_run_equals_one_in_memory_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "pets", classes(40), size=(8, 8))
    runs: list[Run] = []
    for name, limit in (("inside", stored.IN_MEMORY), ("outside", 0)):
        monkeypatch.setenv("IMA_CACHE", str(tmp_path / f"cache {name}"))
        monkeypatch.setattr(stored, "IN_MEMORY", limit)
        data = f"data={{name: folder, path: '{folder}', augment: [crop, flip], flip: 0.1}}"
        runs.append(train(new(tmp_path / name, data, "train.batch_size=16")))
        evaluate_run(runs[-1], "best")
    assert_equal_runs(*runs)
    assert (
        runs[0].results("best").read_text().splitlines()[1:]
        == (runs[1].results("best").read_text().splitlines()[1:])
    )


@pytest.mark.usefixtures("small")
def test_workers_read_the_file_too(tmp_path: Path) -> None:
    part = load("folder", path=write(tmp_path / "pets", classes())).train
    whole = torch.stack([part[i][0] for i in range(len(part))])
    for context in ("fork", "spawn"):
        loader = DataLoader(part, 5, num_workers=2, multiprocessing_context=context)
        assert torch.equal(torch.cat([x for x, _ in loader]), whole)
    again: Part = pickle.loads(pickle.dumps(part))
    assert torch.equal(again[3][0], part[3][0])


@pytest.mark.usefixtures("small")
def test_flipped_labels_keep_the_file(tmp_path: Path) -> None:
    splits = load("folder", path=write(tmp_path / "pets", classes()))
    flipped = flip_labels(splits, 0.2, 0)
    assert flipped.train.images is splits.train.images


@pytest.mark.usefixtures("small")
def test_a_file_that_was_cut_is_made_again_or_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets", classes())
    splits = load("folder", path=folder)
    (file,) = (tmp_path / "cache").glob("*.images")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert torch.equal(load("folder", path=folder).train[0][0], splits.train[0][0])
    assert file.read_bytes() == whole
    with file.open("r+b") as opened:
        opened.truncate(10)
    with pytest.raises(ValueError, match=r"in use \(it was cut"):
        splits.train[list(range(len(splits.train)))]


@pytest.mark.usefixtures("small")
def test_a_disk_without_room_is_named_before_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "pets", classes())
    monkeypatch.setattr(memory, "_room", lambda _: 5)
    with pytest.raises(ValueError, match=r"would become 12.\d+ kB in .*cache.*IMA_CACHE"):
        load("folder", path=folder)
    assert not list((tmp_path / "cache").glob("*.images"))


def test_rows_of_an_index_of_numbers_or_a_mask() -> None:
    images = np.arange(24).reshape(4, 6)
    assert stored.chosen_of(images, np.array([3, 1])).tolist() == images[[3, 1]].tolist()
