"""The small subsets: cut by the rule, written whole or not at all, and found by the experiments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat
from test_cli import call
from test_data import elsewhere, real  # noqa: F401
from test_data_published import (
    FORMATS,
    NAMES,
    batches,
    cifar_archive,
    cifar_folder,
    digits,
    images,
    python2,
    same,
    svhn_folder,
)

from ima.data import DATASETS, load
from ima.data.download import DOWNLOADS
from ima.data.subset import SUBSETS, Stretch, arrays_digest, cut, make_subset
from ima.training.config import load_config
from ima.training.config_errors import packaged

ROLES = ("train", "val", "test")
KEYS = [f"{role}_{kind}" for role in ROLES for kind in ("images", "labels")]
EACH = 3  # images of each batch
DIGITS = {"train": (0, 20), "val": (20, 25), "test": (25, 33)}
TRAIN = "train_32x32.mat"
SHORT: dict[str, Mapping[str, tuple[Stretch, ...]]] = {
    "cifar10": {
        role: tuple(replace(stretch, stop=EACH) for stretch in stretches)
        for role, stretches in SUBSETS["cifar10"].parts.items()
    },
    "svhn": {role: (Stretch(TRAIN, *ends),) for role, ends in DIGITS.items()},
}


def stored(file: Path) -> dict[str, NDArray[np.uint8]]:
    with np.load(file, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def equal(one: Mapping[str, NDArray[np.uint8]], other: Mapping[str, NDArray[np.uint8]]) -> bool:
    return list(one) == list(other) and all(
        one[key].dtype == other[key].dtype and np.array_equal(one[key], other[key]) for key in one
    )


def left(folder: Path) -> list[str]:
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The subsets cut short, so that the tests' small files are enough."""
    for name, parts in SHORT.items():
        monkeypatch.setitem(SUBSETS, name, replace(SUBSETS[name], parts=parts))


def originals(name: str, folder: Path) -> Path:
    """Small files in the published form; of SVHN without the test file, which has no part in it."""
    if name == "cifar10":
        return cifar_folder(folder, batches())
    svhn_folder(folder)
    (folder / "test_32x32.mat").unlink()
    return folder


def expected(name: str) -> dict[str, NDArray[np.uint8]]:
    """The subset of the small files, by hand."""
    made: dict[str, NDArray[np.uint8]] = {}
    for role, numbers in zip(ROLES, ((0, 1, 2, 3), (4,), (5,)), strict=True):
        if name == "cifar10":
            planes = np.concatenate([images(number)[:EACH] for number in numbers])
            made[f"{role}_images"] = np.stack(
                [planes[:, at : at + 1024].reshape(-1, 32, 32) for at in (0, 1024, 2048)], axis=-1
            )
            made[f"{role}_labels"] = np.array([[0], [1], [2]] * len(numbers), np.uint8)
        else:
            start, stop = DIGITS[role]
            pictures, labels = digits(0)["X"], digits(0)["y"]
            made[f"{role}_images"] = np.stack([pictures[..., i] for i in range(start, stop)])
            made[f"{role}_labels"] = np.array([[labels[i, 0] % 10] for i in range(start, stop)])
    return made


# --- The command ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", SUBSETS)
@pytest.mark.parametrize("pointed", [False, True])
def test_the_command_cuts_by_the_rule_and_says_so(name: str, pointed: bool, tmp_path: Path) -> None:
    root, row = tmp_path / "data", SUBSETS[name]
    folder = originals(name, tmp_path / "elsewhere" if pointed else root / name)
    arguments = ("data", "subset", name, *(("--path", str(folder)) if pointed else ()))
    before = left(root)
    said = call(*arguments)
    assert (said.code, said.err) == (0, "")
    file = root / row.place
    assert equal(stored(file), expected(name))
    assert list(stored(file)) == KEYS
    assert left(root) == sorted([*before, row.place])  # and nothing half-written beside it
    counts = [len(stored(file)[f"{role}_labels"]) for role in ROLES]
    told = f"{file}: {counts[0]} images for training, {counts[1]} for validation, {counts[2]} for"
    assert told in said.out
    assert "kept" not in said.out
    assert "NOT the images and labels that the published results" in said.out
    assert f"next: ima compare {row.configs[0]}" in said.out
    # It is what the experiments load.
    data = load("arrays", path=row.place)
    assert [len(part) for part in (data.train, data.val, data.test)] == counts
    # Once more: what is there is equal, and stays.
    then = file.stat().st_mtime_ns
    again = call(*arguments)
    assert (again.code, again.err) == (0, "")
    assert "(it was there, and is kept)" in again.out
    assert file.stat().st_mtime_ns == then


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("archived", [False, True])
def test_all_published_forms_of_cifar_give_the_same(
    kind: str, archived: bool, tmp_path: Path
) -> None:
    at = tmp_path / "c.tar.gz"
    path = cifar_archive(at, batches(kind)) if archived else cifar_folder(at, batches(kind))
    assert equal(cut(SUBSETS["cifar10"], path), expected("cifar10"))


@pytest.mark.usefixtures("short")
def test_a_different_file_in_its_place_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "data" / SUBSETS["svhn"].place
    folder = originals("svhn", tmp_path / "svhn")
    make_subset("svhn", folder)
    whole = file.read_bytes()
    arrays = stored(file)
    changed = arrays["test_labels"].copy()
    changed[0] += 1
    others = {
        "a label": {**arrays, "test_labels": changed},
        "a type": {**arrays, "val_labels": arrays["val_labels"].astype(np.int64)},
        "a shape": {**arrays, "val_labels": arrays["val_labels"][:, 0]},
        "one more": {**arrays, "more": changed},
        "one less": {key: arrays[key] for key in KEYS[:-1]},
    }
    contents = [whole[: len(whole) // 2], b"", b"something else"]
    for saved in others.values():
        np.savez(file, **saved)
        contents.append(file.read_bytes())
    np.save(file.with_suffix(".npy"), changed)
    contents.append(file.with_suffix(".npy").read_bytes())
    for content in contents:
        file.write_bytes(content)
        said = call("data", "subset", "svhn", "--path", str(folder))
        assert (said.code, said.out) == (1, "")
        assert said.err.startswith(f"ima: {file} is there, but does not hold")
        assert "Move it away" in said.err
        assert file.read_bytes() == content
    # Compressed otherwise, it is equal.
    np.savez(file, **arrays)
    assert make_subset("svhn", folder).kept
    file.unlink()
    file.mkdir()
    with pytest.raises(ValueError, match="is there, but does not hold"):
        make_subset("svhn", folder)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", SUBSETS)
def test_missing_originals_say_how_to_get_them(name: str, tmp_path: Path) -> None:
    said = call("data", "subset", name)
    assert (said.code, said.out) == (1, "")
    for part in (str(tmp_path / "data"), DATASETS[name].where, f"ima data get {name}", "--path"):
        assert part in said.err
    # A part of them is missing.
    folder = originals(name, tmp_path / "some")
    absent = "data_batch_4" if name == "cifar10" else TRAIN
    (folder / absent).unlink()
    said = call("data", "subset", name, "--path", str(folder))
    assert (said.code, said.out) == (1, "")
    assert absent in said.err
    assert f"ima data get {name}" in said.err
    assert "Traceback" not in said.err
    assert left(tmp_path / "data") == []


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("name", "file"), [("cifar10", "data_batch_5"), ("svhn", TRAIN)])
def test_damaged_originals_are_told(name: str, file: str, tmp_path: Path) -> None:
    folder = originals(name, tmp_path / "originals")
    whole = (folder / file).read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"no such file" * 100):
        (folder / file).write_bytes(damaged)
        said = call("data", "subset", name, "--path", str(folder))
        assert (said.code, said.out) == (1, "")
        assert re.search(rf"^ima: \S*{file} .*fetch it again", said.err)
    assert left(tmp_path / "data") == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", "data_batch_1 of .* has 20 images; the subset needs at least 1000"),
        ("svhn", f"{TRAIN} of .* has 40 images; the subset needs at least 1083"),
    ],
)
def test_originals_with_too_few_images_are_told(name: str, message: str, tmp_path: Path) -> None:
    folder = originals(name, tmp_path / "originals")
    with pytest.raises(ValueError, match=rf"{message}\. Get .*`ima data get {name}`"):
        make_subset(name, folder)
    assert left(tmp_path / "data") == []


@pytest.mark.usefixtures("short")
def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = originals("svhn", tmp_path / "originals")
    (tmp_path / "data").mkdir()
    in_the_way = (tmp_path / "data" / SUBSETS["svhn"].place).parent
    in_the_way.write_bytes(b"a file")
    said = call("data", "subset", "svhn", "--path", str(folder))
    assert (said.code, said.out) == (1, "")
    assert "svhn_subset.npz cannot be written (" in said.err
    assert "Set IMA_DATA to a folder that can" in said.err
    in_the_way.unlink()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("ima.files.os.replace", full)
    with pytest.raises(OSError, match=r"cannot be written \(No space left"):
        make_subset("svhn", folder)
    assert left(tmp_path / "data") == []


@pytest.mark.parametrize(("asked_for", "nearest"), [("cifar-10", "cifar10"), ("SVHN", "svhn")])
def test_an_unknown_name_gets_the_nearest(asked_for: str, nearest: str) -> None:
    said = call("data", "subset", asked_for)
    assert said.code == 1
    assert f"mean '{nearest}'? There are: cifar10, svhn" in said.err


def test_the_command_explains_itself() -> None:
    said = call("data", "subset", "--help")
    assert (said.code, said.err) == (0, "")
    for part in (*SUBSETS, "--path", "IMA_DATA"):
        assert part in said.out


# --- The experiments ------------------------------------------------------------------------------


def test_every_experiment_on_arrays_has_a_command_that_brings_its_file() -> None:
    made = {row.place: f"ima data subset {name}" for name, row in SUBSETS.items()}
    fetched = {
        f"{row.folder or name}/{file.name}": f"ima data get {name}"
        for name, row in DOWNLOADS.items()
        for file in row.files
    }
    users: dict[str, set[str]] = {place: set() for place in made}
    for name in packaged():
        data = load_config(name).data
        if data.name != "arrays":
            continue
        assert data.path is not None
        with pytest.raises(FileNotFoundError) as raised:
            load("arrays", path=data.path)
        assert f"`{(made | fetched)[data.path]}`" in str(raised.value)
        if data.path in made:
            users[data.path].add(name)
    assert users == {row.place: set(row.configs) for row in SUBSETS.values()}


def test_other_missing_files_say_how_files_are_made() -> None:
    with pytest.raises(FileNotFoundError, match=r"numpy\.savez") as raised:
        load("arrays", path="train_32x32.mat")
    assert "ima data get" not in str(raised.value)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    ("name", "place"), [("cifar10", "cifar-10-python.tar.gz"), ("svhn", "SVHN")]
)
def test_the_subset_does_not_hide_the_originals(name: str, place: str, tmp_path: Path) -> None:
    if name == "cifar10":
        cifar_archive(tmp_path / "data" / place, batches())
    else:
        svhn_folder(tmp_path / "data" / place)
    before = load(name)
    assert not make_subset(name).kept
    assert same(load(name), before)
    assert make_subset(name).kept


# --- Real data ------------------------------------------------------------------------------------


def test_the_first_real_images_are_those_of_the_subset() -> None:
    """Of the published CIFAR-10 batches the first 100 each, of SVHN's digits the first 200."""
    known = stored(real("cifar-10/cifar10_subset.npz"))
    row = SUBSETS["cifar10"]
    parts = {
        role: tuple(replace(stretch, stop=100) for stretch in stretches)
        for role, stretches in row.parts.items()
    }
    made = cut(replace(row, parts=parts), real("cifar-10"))
    assert [len(made[f"{role}_labels"]) for role in ROLES] == [400, 100, 100]
    for key in KEYS:
        # Every batch's first 100 of the subset's 1000.
        by_batch = known[key].reshape(-1, 1000, *known[key].shape[1:])[:, :100]
        assert np.array_equal(made[key], by_batch.reshape(-1, *known[key].shape[1:]))
    known = stored(real("svhn-cropped/svhn_subset.npz"))
    row = replace(SUBSETS["svhn"], parts={"train": (Stretch(TRAIN, 0, 200),)})
    made = cut(row, real("svhn-cropped"))
    assert np.array_equal(made["train_images"], known["train_images"][:200])
    assert np.array_equal(made["train_labels"], known["train_labels"][:200])


def published_cifar10(known: Mapping[str, NDArray[np.uint8]], folder: Path) -> None:
    more = images(9, 17)  # the published batches go on
    for at, file in enumerate(NAMES):
        role, start = ("train", at * 1000) if at < 4 else (("val", "test")[at - 4], 0)
        pictures = known[f"{role}_images"][start : start + 1000]
        flat = pictures.transpose(0, 3, 1, 2).reshape(1000, 3072)
        labels = known[f"{role}_labels"][start : start + 1000, 0].tolist()
        raw = python2(np.concatenate([flat, more]), [*labels, *[0] * 17])
        (folder / file).write_bytes(raw)


def published_svhn(known: Mapping[str, NDArray[np.uint8]], folder: Path) -> None:
    pictures = np.concatenate([known[f"{role}_images"] for role in ROLES])
    labels = np.concatenate([known[f"{role}_labels"] for role in ROLES])
    more = digits(9, 17)
    x = np.concatenate([pictures.transpose(1, 2, 3, 0), more["X"]], axis=3)
    y = np.concatenate([np.where(labels == 0, 10, labels).astype(np.uint8), more["y"]])
    savemat(folder / TRAIN, {"X": x, "y": y})


@pytest.mark.parametrize("name", SUBSETS)
def test_the_whole_real_subset_comes_out_of_files_in_the_published_form(
    name: str, tmp_path: Path
) -> None:
    row = SUBSETS[name]
    known = stored(real(row.place))
    assert arrays_digest(known) == row.digest
    folder = tmp_path / "data" / name
    folder.mkdir(parents=True)
    (published_cifar10 if name == "cifar10" else published_svhn)(known, folder)
    said = call("data", "subset", name)
    assert (said.code, said.err) == (0, "")
    assert "these are the images and labels that the published results were measured" in said.out
    assert equal(stored(tmp_path / "data" / row.place), known)
