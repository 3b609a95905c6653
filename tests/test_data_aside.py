"""Images of strangers: each is used, told or refused, turned as noted, bounded in memory."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from test_data import ct_folder, elsewhere, small, zipped  # noqa: F401  # pyright: ignore[reportUnusedImport]
from test_data_folder import classes, counts, picture, write
from test_data_published import same

from ima import memory
from ima.data import load, pictures
from ima.data.folders import SUFFIXES, on_disk
from ima.data.npz import read_parts
from ima.report.examples import read_examples

Put = Callable[[Path], Any]


def pets(tmp_path: Path, count: int = 20) -> Path:
    return write(tmp_path / "pets", classes(count))


def as_form(path: Path, archived: bool) -> Path:
    return zipped(path) if archived else path


def test_suffixes_are_those_of_the_formats_that_are_read() -> None:
    Image.init()
    known = {s for s, form in Image.registered_extensions().items() if form in pictures.FORMATS}
    assert known | {".mpo"} == SUFFIXES


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize(
    "suffix", [".jfif", ".jpe", ".JPG", ".PNG", ".Tif", ".jp2", ".bmp", ".avif", ".tga", ".apng"]
)
def test_images_of_every_known_suffix_are_used(suffix: str, archived: bool, tmp_path: Path) -> None:
    folder = pets(tmp_path)
    form = Image.registered_extensions()[suffix.lower()]
    for i in range(3):
        picture(50 + i, "RGB", (9, 12)).save(folder / "dog" / f"more{i}{suffix}", form)
    assert sum(map(sum, counts(load("folder", path=as_form(folder, archived))))) == 43


UNKNOWN = {
    "no ending": ("scan", "PNG"),
    "another ending": ("scan.001", "JPEG"),
    "a copy": ("scan.png.bak", "PNG"),
    "a format that is not read": ("scan.psb", "ICO"),
    "postscript": ("scan.eps", "EPS"),
    "jpeg 2000": ("scan.img", "JPEG2000"),
}


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("case", UNKNOWN)
def test_images_without_a_known_ending_are_refused_by_name(
    case: str, archived: bool, tmp_path: Path
) -> None:
    name, form = UNKNOWN[case]
    folder = pets(tmp_path)
    picture(50, "RGB", (16, 16)).save(folder / "dog" / name, form)
    with pytest.raises(ValueError, match=rf"dog/{name} .*\({form}\).*give them their usual"):
        load("folder", path=as_form(folder, archived))


APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(200)

HIDDEN = {
    "a dot": (".b8.png", "PNG"),
    "a name of macOS's": ("._a8.png", "PNG"),
    "another ending": ("._a8.png.bak", "PNG"),
    "no ending": (".scan", "JPEG"),
    "a format without a beginning": (".b8.tga", "TGA"),
    "a name of Windows's": ("Thumbs.db", "PNG"),
}


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("case", HIDDEN)
def test_images_with_hidden_names_are_refused_by_name(
    case: str, archived: bool, tmp_path: Path
) -> None:
    name, form = HIDDEN[case]
    folder = pets(tmp_path)
    # However many files of macOS's come before it.
    for i in range(3):
        (folder / "dog" / f"._{i}.png").write_bytes(APPLE_DOUBLE)
    picture(50, "RGB", (16, 16)).save(folder / "dog" / name, form)
    with pytest.raises(ValueError, match=rf"dog/{name} .*\({form}\).*without a dot"):
        load("folder", path=as_form(folder, archived))


@pytest.mark.parametrize("archived", [False, True])
def test_hidden_files_that_are_no_images_are_nobodys(archived: bool, tmp_path: Path) -> None:
    folder = pets(tmp_path)
    plain = load("folder", path=folder)
    for i in range(3):
        (folder / "dog" / f"._{i}.png").write_bytes(APPLE_DOUBLE)
        (folder / "dog" / f"._{i}.tga").write_bytes(APPLE_DOUBLE)
    (folder / "cat" / ".1.dcm").write_bytes(bytes(128) + b"DICM")
    (folder / "__MACOSX").mkdir()
    picture(50).save(folder / "__MACOSX" / ".1.png")
    if not archived:
        # As editors leave them.
        (folder / "dog" / ".#1.png").symlink_to(tmp_path / "absent")
        os.mkfifo(folder / "dog" / ".pipe.png")
    data = load("folder", path=as_form(folder, archived))
    assert same(plain, data) and "left out" not in data.note


@pytest.mark.parametrize("archived", [False, True])
def test_other_files_are_counted_in_the_note(archived: bool, tmp_path: Path) -> None:
    folder = pets(tmp_path)
    plain = load("folder", path=folder)
    for i in range(3):
        (folder / "dog" / f"{i}.dcm").write_bytes(bytes(128) + b"DICM" + bytes(9))
    (folder / "dog" / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(9))
    (folder / "cat" / "labels.txt").write_text("0 0 0 0\n" * 40)
    (folder / "README.md").write_text("pets")
    # What systems put there is nobody's.
    for junk in ("Thumbs.db", "desktop.ini", ".DS_Store", "cat/._1.png"):
        (folder / junk).write_bytes(b"x")
    data = load("folder", path=as_form(folder, archived))
    assert same(plain, data)
    for words in (
        "6 files beside the images were left out: 3 .dcm (DICOM, which is not read: export it",
        "1 without an ending (DICOM",
        "1 .txt",
        "1 .md",
    ):
        assert words in data.note
    assert "left out" not in plain.note


@pytest.mark.parametrize("archived", [False, True])
def test_a_folder_of_other_files_says_what_they_are(archived: bool, tmp_path: Path) -> None:
    folder = pets(tmp_path)
    (folder / "bird").mkdir()
    (folder / "bird" / "1.dcm").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"no image of class bird.*1 \.dcm \(DICOM"):
        load("folder", path=as_form(folder, archived))


def test_links_to_nothing_and_pipes_are_named(tmp_path: Path) -> None:
    folder = pets(tmp_path)
    (folder / "dog" / "link.png").symlink_to(tmp_path / "absent.png")
    with pytest.raises(ValueError, match=r"dog/link\.png cannot be read .* a link to nothing"):
        load("folder", path=folder)
    (folder / "dog" / "link.png").unlink()
    os.mkfifo(folder / "dog" / "pipe.png")
    with pytest.raises(ValueError, match=r"dog/pipe\.png is no file"):
        load("folder", path=folder)
    (folder / "dog" / "pipe.png").unlink()
    # Links to images and to folders are followed.
    shutil.move(folder / "dog", tmp_path / "dogs")
    (folder / "dog").symlink_to(tmp_path / "dogs")
    assert sum(map(sum, counts(load("folder", path=folder)))) == 40


def test_an_archive_with_a_file_twice_or_with_backslashes(tmp_path: Path) -> None:
    folder = pets(tmp_path)
    plain, path = load("folder", path=folder), tmp_path / "windows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.glob("*/*")):
            info = zipfile.ZipInfo("x")
            info.filename = f"pets\\{file.parent.name}\\{file.name}"
            archive.writestr(info, file.read_bytes())
    assert same(plain, load("folder", path=path))
    info = zipfile.ZipInfo("x")
    info.filename = "pets\\dog\\1.png"
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(info, (folder / "cat" / "1.png").read_bytes())
    with pytest.raises(ValueError, match=r"windows\.zip holds pets.dog.1\.png twice"):
        load("folder", path=path)


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.usefixtures("small")
def test_the_ct_loader_counts_and_refuses_too(archived: bool, tmp_path: Path) -> None:
    folder = ct_folder(tmp_path / "ct")
    plain = load("covid_ct", path=folder, size=16)
    (folder / "COVID" / "1.dcm").write_bytes(b"x")
    (folder / "COVID" / "Thumbs.db").write_bytes(b"x")
    (folder / "COVID" / "._1.png").write_bytes(APPLE_DOUBLE)
    data = load("covid_ct", path=as_form(folder, archived), size=16)
    assert same(plain, data)
    assert "1 file beside the images was left out: 1 .dcm (DICOM" in data.note
    picture(50).save(folder / "COVID" / "scan", "PNG")
    with pytest.raises(ValueError, match=r"COVID/scan.* \(PNG\)"):
        load("covid_ct", path=as_form(folder, archived), size=16)
    (folder / "COVID" / "scan").rename(folder / "COVID" / ".1.png")
    with pytest.raises(ValueError, match=r"COVID/\.1\.png.* \(PNG\).*without a dot"):
        load("covid_ct", path=as_form(folder, archived), size=16)
    (folder / "COVID" / ".1.png").rename(tmp_path / "1.png")
    if not archived:
        (folder / "COVID" / ".#1.png").symlink_to(tmp_path / "absent")
    (folder / "COVID" / "more").mkdir()
    picture(50).save(folder / "COVID" / "more" / "1.png")
    with pytest.raises(ValueError, match=r"COVID/more/1\.png.* in a folder inside a class folder"):
        load("covid_ct", path=as_form(folder, archived), size=16)


# --- Turned as noted ------------------------------------------------------------------------------

TURNED = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF", "avif": "AVIF", "mpo": "JPEG"}
LOSSLESS = ("png", "webp", "tif")


def noted(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_the_same_way_in_every_format(orientation: int, tmp_path: Path) -> None:
    # Four quarters that no turn maps onto themselves, smooth so that JPEG keeps them.
    shown = Image.new("L", (32, 48))
    for value, box in ((40, (0, 0, 16, 24)), (120, (16, 0, 32, 24)), (200, (0, 24, 16, 48))):
        shown.paste(value, box)
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    held = shown if undo is None else shown.transpose(Image.Transpose(undo))
    expected = np.asarray(shown)
    for suffix, form in TURNED.items():
        options = {"lossless": True} if form == "WEBP" else {"quality": 100}
        options = {} if form in ("PNG", "TIFF") else options
        path = tmp_path / f"{suffix}" / f"1.{suffix}"
        path.parent.mkdir()
        held.save(path, form, exif=noted(orientation), **options)
        decoded, _ = pictures.decode(pictures_file(path), None, gray=True)
        assert decoded.shape == (1, 48, 32), suffix
        slack = 0 if suffix in LOSSLESS else 12
        assert np.abs(decoded[0].astype(int) - expected).max() <= slack, suffix


def pictures_file(path: Path) -> Any:
    return on_disk(path, 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_or_odd_note_turns_nothing(tmp_path: Path) -> None:
    plain, _ = written(tmp_path / "plain.jpg", None)
    for number, exif in enumerate(
        (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", noted(9))
    ):
        decoded, _ = written(tmp_path / f"{number}.jpg", exif)
        assert np.array_equal(decoded, plain)


def written(path: Path, exif: Any) -> tuple[np.ndarray, str]:
    picture(3, "L", (16, 24)).save(path, **({} if exif is None else {"exif": exif}))
    return pictures.decode(pictures_file(path), None, gray=True)


def test_what_an_older_version_has_decoded_is_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, calls = pets(tmp_path), list[int]()
    load("folder", path=folder)
    monkeypatch.setattr(pictures, "VERSION", 1)
    monkeypatch.setattr(
        "ima.data.folder.decode", lambda *a, **k: calls.append(1) or pictures.decode(*a, **k)
    )
    load("folder", path=folder)
    # The first one also tells how large all are.
    assert len(calls) == 41


# --- More than 8 bits -----------------------------------------------------------------------------


def test_deep_jpeg_2000_and_avif_are_refused(tmp_path: Path) -> None:
    deep = Image.fromarray(np.arange(108, dtype=np.uint16).reshape(12, 9) * 500)
    deep.save(tmp_path / "1.jp2")
    with pytest.raises(ValueError, match="more than 8 bits"):
        pictures.decode(pictures_file(tmp_path / "1.jp2"), None, gray=True)
    picture(1, "RGB").save(tmp_path / "2.avif")
    raw = (tmp_path / "2.avif").read_bytes()
    at = raw.find(b"av1C") + 6
    assert not pictures._deep_avif(raw)  # pyright: ignore[reportPrivateUsage]
    assert pictures._deep_avif(raw[:at] + bytes([raw[at] | 0x40]) + raw[at + 1 :])  # pyright: ignore[reportPrivateUsage]
    picture(1, "RGB").save(tmp_path / "3.jp2")
    raw = (tmp_path / "3.jp2").read_bytes()
    at = raw.find(b"\xff\x4f\xff\x51") + 42
    assert raw[at] == 7 and not pictures._deep_jpeg2000(raw)  # pyright: ignore[reportPrivateUsage]
    assert pictures._deep_jpeg2000(raw[:at] + b"\x0b" + raw[at + 1 :])  # pyright: ignore[reportPrivateUsage]


# --- Memory ---------------------------------------------------------------------------------------


def test_images_that_would_fill_the_memory_are_refused_before_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_FREE", 1 << 20)
    flat, path, decoded = io.BytesIO(), tmp_path / "flat.zip", list[int]()
    Image.new("RGB", (600, 600)).save(flat, "PNG")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in classes():
            archive.writestr(name, flat.getvalue())
    monkeypatch.setattr(
        "ima.data.folder.decode", lambda *a, **k: decoded.append(1) or pictures.decode(*a, **k)
    )
    with pytest.raises(ValueError, match=r"flat\.zip: .* would become 43.2 MB in memory.*600x600"):
        load("folder", path=path)
    assert len(decoded) == 1
    with pytest.raises(ValueError, match=r"would become"):
        load("folder", path=path, size=300)


def test_more_than_the_machine_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_physical", lambda: 1 << 20)
    memory.check_memory("x", 1 << 20, 1 << 20, advice="")
    with pytest.raises(ValueError, match=r"this machine has 1\.049 MB"):
        memory.check_memory("x", 1 << 21, 1 << 20, advice="")


def test_a_picture_of_very_many_pixels_is_refused_by_its_head(tmp_path: Path) -> None:
    folder = pets(tmp_path)
    plain = io.BytesIO()
    Image.new("L", (9, 12)).save(plain, "PNG")
    raw = plain.getvalue()
    head = b"IHDR" + struct.pack(">II", 100_000, 100_000) + raw[24:29]
    huge = raw[:12] + head + struct.pack(">I", zlib.crc32(head)) + raw[33:]
    (folder / "dog" / "7.png").write_bytes(huge)
    with pytest.raises(ValueError, match=r"dog/7\.png cannot be decoded .*pixels"):
        load("folder", path=folder, size=16)


def test_a_zip_entry_of_many_bytes_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ima.data.folders.MOST_BYTES", 1000)
    folder = pets(tmp_path)
    (folder / "dog" / "7.png").write_bytes(bytes(2000))
    for path in (folder, zipped(folder)):
        with pytest.raises(ValueError, match=r"dog/7\.png.* \(it has 2 kB; expected .* 1 kB"):
            load("folder", path=path)


def test_arrays_that_would_fill_the_memory_are_refused_before_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_FREE", 1 << 16)
    path = tmp_path / "bomb.npz"
    images, labels = np.zeros((100, 64, 64), np.uint8), np.zeros(100, np.uint8)
    np.savez_compressed(path, train_images=images, train_labels=labels)
    with pytest.raises(ValueError, match=r"bomb\.npz: .* would become 410 kB"):
        read_parts(path, where="")
    # A head that promises more than there is.
    with zipfile.ZipFile(path, "w") as archive, archive.open("train_images.npy", "w") as file:
        shape = (1 << 40, 64, 64)
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
    with pytest.raises(ValueError, match=r"bomb\.npz: .* would become 4.504e\+06 GB"):
        read_parts(path, where="")


def test_packed_variables_that_would_fill_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_FREE", 1 << 20)
    images = np.zeros((32, 32, 3, 1000), np.uint8)
    for name in ("train", "test"):
        savemat(tmp_path / f"{name}_32x32.mat", {"X": images}, do_compression=True)
    with pytest.raises(ValueError, match=r"train_32x32\.mat: .* would become 3\.07"):
        load("svhn", path=tmp_path)


def test_packed_batches_that_would_fill_the_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_FREE", 1 << 20)
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("data_batch_1.bin", "data_batch_2.bin"):
            info = tarfile.TarInfo(name)
            info.size = 3073 * 1000
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(ValueError, match=r"tar\.gz: .* would become 3\.07"):
        load("cifar10", path=path)


def test_the_arrays_of_a_run_are_bounded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_FREE", 1 << 16)
    path = tmp_path / "examples.npz"
    np.savez_compressed(path, x=np.zeros((100, 64, 64), np.uint8))
    with pytest.raises(ValueError, match=r"examples\.npz: .* would become"):
        read_examples(path)
