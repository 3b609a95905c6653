"""CIFAR-10 and SVHN: the published formats, small files of them, and all that can be wrong."""

import gzip
import io
import os
import pickle
import re
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.io import savemat
from test_data import elsewhere, pixels, real  # noqa: F401

from ima.data import DATASETS, Part, Splits, load
from ima.data.batch_pickle import read_batch

NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
EACH = 20


def images(seed: int, count: int = EACH) -> NDArray[np.uint8]:
    """Flat images, (count, 3072): red, green, blue, each row by row."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def labels(count: int = EACH) -> list[int]:
    return [i % 10 for i in range(count)]


def python2(data: NDArray[np.uint8], told: list[int]) -> bytes:
    """A batch as Python 2 wrote it: protocol 2, pixels in a byte string. By hand, opcode by opcode.

    No Python 3 writes this; the opcodes are those of the published files.
    """

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    raw = data.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text("b") + b"\x87R"
        b"(K\x01J" + struct.pack("<i", len(data)) + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\n" + text("u1") + b"K\x00K\x01\x87R(K\x03" + text("|") + b"NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(raw))
        + raw
        + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in told) + b"e"
    return (
        b"\x80\x02}(" + text("batch_label") + text("made up") + text("labels") + numbers
        + text("data") + array + b"u."
    )  # fmt: skip


def python3(data: NDArray[np.uint8], told: list[int]) -> bytes:
    return pickle.dumps({b"labels": told, b"data": data}, protocol=2)


def binary(data: NDArray[np.uint8], told: list[int]) -> bytes:
    return b"".join(bytes([label]) + row.tobytes() for label, row in zip(told, data, strict=True))


FORMATS: dict[str, tuple[Callable[..., bytes], str]] = {
    "python2": (python2, ""),
    "python3": (python3, ""),
    "binary": (binary, ".bin"),
}


def batches(kind: str = "python2", **change: bytes) -> dict[str, bytes]:
    write, suffix = FORMATS[kind]
    made = {n + suffix: write(images(i), labels()) for i, n in enumerate(NAMES)}
    return {**made, **change}


def cifar_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    return folder


def cifar_archive(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in {**files, "readme.html": b"text"}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return path


def same(one: Splits, other: Splits) -> bool:
    return all(
        torch.equal(getattr(one, role).images, getattr(other, role).images)
        and torch.equal(getattr(one, role).targets, getattr(other, role).targets)
        for role in ("train", "val", "test")
    )


def told(part: Part) -> dict[bytes, int]:
    """The label of every image."""
    return {
        image.numpy().tobytes(): int(label)
        for image, label in zip(part.images, part.targets, strict=True)
    }


# --- CIFAR-10 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("archived", [False, True])
def test_cifar_of_every_format(kind: str, archived: bool, tmp_path: Path) -> None:
    files = batches(kind)
    if archived:
        path = cifar_archive(tmp_path / "c.tar.gz", files)
    else:
        path = cifar_folder(tmp_path / "c", files)
    data = load("cifar10", path=path)
    assert (len(data.train), len(data.val), len(data.test)) == (90, 10, 20)
    assert data.shape == (3, 32, 32)
    assert data.train.images.dtype == torch.uint8
    assert data.classes[3] == "cat"
    assert "10 training images (10 %) were held out with seed 0" in data.note
    # Validation has one of each class, and every image keeps its label.
    assert torch.bincount(data.val.targets).tolist() == [1] * 10
    expected = {
        row.tobytes(): label
        for i in range(5)
        for row, label in zip(images(i), labels(), strict=True)
    }
    assert told(data.train) | told(data.val) == expected
    assert data.test.targets.tolist() == labels()
    # By hand: byte 1024 + 32 * 2 + 7 of a row is green at row 2, column 7.
    assert data.test.images[4, 1, 2, 7].item() == images(5)[4, 1024 + 32 * 2 + 7]
    assert not same(data, load("cifar10", path=path, seed=1))


def test_cifar_is_found_where_people_put_it(tmp_path: Path) -> None:
    expected = load("cifar10", path=cifar_folder(tmp_path / "plain", batches()))
    root = tmp_path / "data"
    cifar_archive(root / "cifar10" / "cifar-10-python.tar.gz", batches())
    assert same(load("cifar10"), expected)
    # Half unpacked: the whole archive beside it counts.
    cifar_folder(root / "cifar10" / "cifar-10-batches-py", {NAMES[0]: b""})
    assert same(load("cifar10"), expected)
    cifar_folder(root / "cifar10" / "cifar-10-batches-bin", batches("binary"))
    assert same(load("cifar10"), expected)
    cifar_folder(root / "cifar10" / "copy", batches())
    with pytest.raises(ValueError, match=r"several sets of batches .*copy.*name one"):
        load("cifar10")
    assert same(load("cifar10", path="cifar10/copy"), expected)


def test_cifar_names_the_batches_that_are_absent(tmp_path: Path) -> None:
    files = batches()
    del files["data_batch_4"]
    folder = cifar_folder(tmp_path / "c", files)
    with pytest.raises(FileNotFoundError, match="data_batch_4") as raised:
        load("cifar10", path=folder)
    assert "data_batch_3" not in str(raised.value)
    assert DATASETS["cifar10"].where in str(raised.value)
    with pytest.raises(ValueError, match=r"only data_batch_1, data_batch_2, .*expected") as refused:
        load("cifar10", path=cifar_archive(tmp_path / "c.tar.gz", files))
    assert DATASETS["cifar10"].where in str(refused.value)


def test_cifar_keeps_the_test_batch_and_leaves_its_copies_out_of_training(tmp_path: Path) -> None:
    files = batches("binary")
    files["data_batch_2.bin"] = binary(np.concatenate([images(1), images(5)[:3]]), labels(23))
    files["data_batch_3.bin"] = binary(np.concatenate([images(2), images(2)]), labels() + labels())
    data = load("cifar10", path=cifar_folder(tmp_path / "c", files))
    assert len(data.test) == 20
    assert not pixels(data.train) & pixels(data.test, data.val)
    assert not pixels(data.val) & pixels(data.test)
    assert re.search(r"\d+ training images that are also in validation or test", data.note)
    assert len(pixels(data.train, data.val)) == 100


class Evil:
    """Makes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def evil(path: Path) -> dict[str, bytes]:
    where = str(path).encode()
    good = {"labels": labels(), "data": images(0)}
    return {
        "posix.mkdir": pickle.dumps(Evil(path), protocol=2),
        # Hidden in a batch that is right otherwise.
        "posix.mkdir ": pickle.dumps({**good, "extra": Evil(path)}, protocol=4),
        "os.mkdir": b"cos\nmkdir\n(S'" + where + b"'\ntR.",
        "builtins.eval": b"\x80\x02cbuiltins\neval\nU\x011\x85R.",
        "numpy.fromfile": b"cnumpy\nfromfile\n(S'" + where + b"'\ntR.",
        # A dotted name below an admitted module.
        "numpy.lib.os.mkdir": b"\x80\x04\x8c\x05numpy\x8c\x0clib.os.mkdir\x93.",
        "changes numpy.dtype": b"\x80\x02cnumpy\ndtype\n}U\x01xK\x01sb.",
        "encodes something": b"\x80\x02c_codecs\nencode\nU\x01xU\x03zip\x86R.",
    }


@pytest.mark.parametrize("name", evil(Path("x")))
def test_a_pickle_that_would_execute_is_refused_and_does_not(name: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    folder = cifar_folder(tmp_path / "c", batches(data_batch_3=evil(made)[name]))
    with pytest.raises(ValueError, match=r"data_batch_3 is refused: .*could execute code") as error:
        load("cifar10", path=folder)
    assert name.strip() in str(error.value)
    assert not made.exists()
    # And it is not the test that is harmless: plain pickle executes it.
    if "posix" in name:
        pickle.loads(evil(made)[name])
        assert made.exists()


def test_nothing_of_numpy_runs_before_it_is_checked() -> None:
    # numpy's own would reserve a terabyte for this.
    raw = python2(images(0, 1), [0]).replace(
        b"K\x01J\x01\x00\x00\x00M\x00\x0c\x86", b"K\x01J\x00\x00\x00\x7fM\x00\x0c\x86"
    )
    with pytest.raises(ValueError, match="expected 2130706432 times 3072 bytes"):
        read_batch(raw, "batch")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list; expected a dict"),
        (python2(images(0)[:0], []), r"has shape \(0, 3072\)"),
        ({"data": images(0)}, "no 'labels', only data"),
        ({"data": images(0), "fine_labels": labels()}, "no 'labels', only data, fine_labels"),
        ({"data": images(0), "labels": labels(19)}, "20 images but 19 labels"),
        ({"data": images(0), "labels": [10] * EACH}, "reach from 10 to 10; expected 0 to 9"),
        ({"data": images(0), "labels": [-1] * EACH}, "reach from -1 to -1"),
        ({"data": images(0), "labels": [0.0] * EACH}, "'labels' of .* is list; .*list of int"),
        ({"data": images(0), "labels": "text"}, "'labels' of .* is str"),
        ({"data": [1, 2], "labels": labels()}, r"'data' of .* is list; .*numpy array \(N, 3072\)"),
        ({"data": images(0)[:, :3071], "labels": labels()}, r"has shape \(20, 3071\)"),
        ({"data": images(0)[0], "labels": [1]}, r"has shape \(3072,\)"),
        ({"data": images(0).astype(np.float32), "labels": labels()}, "is f4; expected u1"),
        ({"data": images(0).astype(object), "labels": labels()}, "is O8; expected u1"),
        ({"data": images(0).astype(np.int8), "labels": labels()}, "is i1; expected u1"),
    ],
)
def test_a_batch_with_something_else_in_it(content: Any, message: str, tmp_path: Path) -> None:
    raw = content if isinstance(content, bytes) else pickle.dumps(content, protocol=2)
    folder = cifar_folder(tmp_path / "c", batches(test_batch=raw))
    with pytest.raises(ValueError, match=message) as error:
        load("cifar10", path=folder)
    assert "test_batch" in str(error.value)


def test_pixels_stored_by_column_are_put_in_order() -> None:
    raw = pickle.dumps({"data": np.asfortranarray(images(0)), "labels": labels()}, protocol=2)
    assert np.array_equal(read_batch(raw, "batch")[0].reshape(EACH, -1), images(0))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.data())
def test_damaged_batches_are_refused_or_read_whole(data: st.DataObject) -> None:
    """Of the pickle's own bytes; damaged pixels have no checksum that could tell."""
    whole = python2(images(0, 2), [3, 7])
    pixels_at = whole.index(images(0, 2).tobytes())
    places = [i for i in range(len(whole)) if not pixels_at <= i < pixels_at + 2 * 3072]
    at = data.draw(st.sampled_from(places))
    change = data.draw(st.integers(0, 255))
    damaged = whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :] if change else whole[:at]
    try:
        read, numbers = read_batch(damaged, "the batch")
    except ValueError as error:
        assert "the batch" in str(error)
    else:
        assert read.shape == (2, 3, 32, 32)
        assert all(0 <= label <= 9 for label in numbers)


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    path = cifar_archive(tmp_path / "c.tar.gz", batches("binary"))
    whole = path.read_bytes()
    middle = len(whole) // 2
    unzipped = gzip.decompress(whole)
    for damaged in (
        b"",
        b"no archive",
        whole[:-4],  # all the files are there, the checksum is not
        whole[:middle],
        whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        gzip.compress(b"no tar" * 1000),
        gzip.compress(unzipped[: len(unzipped) // 2]),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"c.tar.gz (cannot be read|holds of)") as error:
            load("cifar10", path=path)
        assert DATASETS["cifar10"].where in str(error.value)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "has 0 bytes; expected rows of 3073"),
        (binary(images(0), labels())[:-1], "has 61459 bytes; expected rows of 3073"),
        (bytes([10]) + bytes(3072), "has the label 10; expected 0 to 9"),
    ],
)
def test_damaged_binary_batches_are_refused(raw: bytes, message: str, tmp_path: Path) -> None:
    files = batches("binary", **{"data_batch_1.bin": raw})
    with pytest.raises(ValueError, match=f"data_batch_1.bin {message}"):
        load("cifar10", path=cifar_folder(tmp_path / "c", files))


def test_one_row_is_a_batch_too(tmp_path: Path) -> None:
    for name, (write, suffix) in FORMATS.items():
        files = batches(name, **{f"test_batch{suffix}": write(images(5, 1), [4])})
        data = load("cifar10", path=cifar_folder(tmp_path / name, files))
        data.test.images[0, 0, 0, 0] = 1  # writable: no warning of torch's
        assert data.test.targets.tolist() == [4]


def test_cifar_needs_every_class_and_its_own_size(tmp_path: Path) -> None:
    files = {
        n: python2(images(i), [label if label != 6 else 5 for label in labels()])
        for i, n in enumerate(NAMES)
    }
    folder = cifar_folder(tmp_path / "c", files)
    with pytest.raises(ValueError, match=r"no image of frog; expected some of each of the 10"):
        load("cifar10", path=folder)
    with pytest.raises(ValueError, match="32x32 images, got size 64"):
        load("cifar10", path=folder, size=64)


# --- SVHN -----------------------------------------------------------------------------------------


def digits(seed: int, count: int = 40, **change: Any) -> dict[str, Any]:
    """A file's arrays as published: images last, and 10 for digit 0."""
    rng = np.random.default_rng(seed)
    made = {
        "X": rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8),
        "y": (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None],
        **change,
    }
    return {key: value for key, value in made.items() if value is not None}


def svhn_folder(folder: Path, *, compressed: bool = True, **change: Any) -> Path:
    folder.mkdir(parents=True)
    for seed, name in enumerate(("train", "test")):
        arrays = digits(seed, **(change if name == "train" else {}))
        savemat(folder / f"{name}_32x32.mat", arrays, do_compression=compressed)
    return folder


@pytest.mark.parametrize("compressed", [True, False])
def test_svhn_turns_images_and_labels_round(compressed: bool, tmp_path: Path) -> None:
    folder = svhn_folder(tmp_path / "data" / "svhn", compressed=compressed)
    data = load("svhn")
    assert same(data, load("svhn", path=folder))
    assert (len(data.train), len(data.val), len(data.test)) == (36, 4, 40)
    assert data.shape == (3, 32, 32)
    assert data.classes == tuple("0123456789")
    stored = digits(1)
    assert data.test.targets[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert data.test.images[7, 2, 5, 30].item() == stored["X"][5, 30, 2, 7]
    expected = {
        digits(0)["X"][..., i].transpose(2, 0, 1).tobytes(): (i % 10 + 1) % 10 for i in range(40)
    }
    assert told(data.train) | told(data.val) == expected
    assert "held out with seed 0" in data.note
    assert "same house number" in data.note
    with pytest.raises(ValueError, match="32x32 images, got size 28"):
        load("svhn", size=28)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": None}, "no 'X'; expected images 'X' and labels 'y'"),
        ({"y": None}, "no 'y'"),
        ({"X": np.zeros((32, 32, 3, 40))}, r"'X' of .* float64 of .*expected uint8 of \(32, 32, 3"),
        ({"X": np.zeros((40, 32, 32, 3), np.uint8)}, r"'X' of .* \(40, 32, 32, 3\)"),
        ({"X": np.zeros((32, 32, 3), np.uint8)}, r"'X' of .* \(32, 32, 3\)"),
        ({"X": np.zeros((32, 32, 3, 0), np.uint8)}, r"\(40, 1\); expected whole numbers of \(0"),
        ({"X": np.array(["a", 1, 2.5], dtype=object)}, "'X' of .* is object"),
        ({"X": "text"}, "'X' of .* is <U"),
        ({"y": np.ones((39, 1), np.uint8)}, r"'y' of .* \(39, 1\); expected .*\(40, 1\)"),
        ({"y": np.ones((1, 40), np.uint8)}, r"'y' of .* \(1, 40\)"),
        ({"y": np.ones((40, 1))}, "'y' of .* float64"),
        ({"y": np.arange(40)[:, None] % 10}, "from 0 to 9; expected 1 to 10, where 10 is digit 0"),
        ({"y": np.arange(40)[:, None] % 11 + 1}, "from 1 to 11"),
        ({"y": np.arange(40)[:, None] % 9 + 1}, "no image of 0; expected some of each"),
    ],
)
def test_svhn_of_another_layout(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load("svhn", path=svhn_folder(tmp_path / "svhn", **change))


def test_svhn_names_the_file_that_is_absent(tmp_path: Path) -> None:
    folder = svhn_folder(tmp_path / "svhn")
    (folder / "test_32x32.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"svhn/test_32x32.mat\n") as error:
        load("svhn", path=folder)
    assert "svhn/train_32x32.mat\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"is a file; expected the folder with train_32x32.mat"):
        load("svhn", path=folder / "train_32x32.mat")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.data())
def test_damaged_svhn_files_are_refused_or_read_right(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "svhn"
    if not folder.exists():
        svhn_folder(folder)
        (folder / "kept").write_bytes((folder / "test_32x32.mat").read_bytes())
    whole = (folder / "kept").read_bytes()
    at = data.draw(st.one_of(st.integers(0, 300), st.integers(0, len(whole) - 1)))
    change = data.draw(st.integers(0, 255))
    damaged = whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :] if change else whole[:at]
    (folder / "test_32x32.mat").write_bytes(damaged)
    try:
        read = load("svhn", path=folder)
    except ValueError as error:
        assert "test_32x32.mat" in str(error)
    else:
        assert np.array_equal(read.test.images.numpy(), digits(1)["X"].transpose(3, 2, 0, 1))
        assert np.array_equal(read.test.targets.numpy(), digits(1)["y"][:, 0] % 10)


# --- Both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "svhn"])
@pytest.mark.parametrize("path", [None, "nowhere"])
def test_missing_files_say_where_from_and_where_to(name: str, path: str | None) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        load(name, path=path)
    for part in (os.environ["IMA_DATA"], DATASETS[name].where, f"ima data get {name}", "http"):
        assert part in str(raised.value)


# --- Real data ------------------------------------------------------------------------------------


def stored_subset(name: str) -> dict[bytes, int]:
    """Labels by image of the same data in MedMNIST's layout, made independently."""
    with np.load(real(name)) as stored:
        return {
            np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes(): int(label)
            for role in ("train", "val", "test")
            for image, label in zip(
                stored[f"{role}_images"], stored[f"{role}_labels"][:, 0], strict=True
            )
        }


def test_real_cifar_batches_agree_with_the_subset() -> None:
    known = stored_subset("cifar-10/cifar10_subset.npz")
    data = load("cifar10", path=real("cifar-10"))
    assert (len(data.train), len(data.val), len(data.test)) == (450, 50, 100)
    for part in (data.train, data.val, data.test):
        for image, label in told(part).items():
            assert known[image] == label
    assert len(pixels(data.train, data.val, data.test)) == 600


def test_real_svhn_files_agree_with_the_subset() -> None:
    known = stored_subset("svhn-cropped/svhn_subset.npz")
    data = load("svhn", path=real("svhn-cropped"))
    assert (len(data.train), len(data.val), len(data.test)) == (180, 20, 100)
    for part in (data.train, data.val, data.test):
        for image, label in told(part).items():
            assert known[image] == label
