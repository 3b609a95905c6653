"""Image folders of one's own: layouts, splits, gray and colour, and what is refused."""

import io
import shutil
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_data import elsewhere, pixels, real, zipped  # noqa: F401
from test_data_published import same, told

from ima.data import DATASETS, Splits, load
from ima.data.layout import class_of_each
from ima.data.split import assign


def picture(seed: int, mode: str = "L", size: tuple[int, int] = (9, 12)) -> Image.Image:
    """A picture of `size` (width, height) that no other seed has."""
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode=None)


def write(root: Path, places: list[str], mode: str = "L", size: tuple[int, int] = (9, 12)) -> Path:
    for seed, name in enumerate(places):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed, mode, size).save(root / name)
    return root


def classes(count: int = 20, names: tuple[str, ...] = ("dog", "cat"), base: str = "") -> list[str]:
    return [f"{base}{name}/{i}.png" for name in names for i in range(count)]


def parts(train: int = 10, val: int = 2, test: int = 3) -> list[str]:
    counts = {"train": train, "val": val, "test": test}
    return [place for role, n in counts.items() for place in classes(n, base=f"{role}/")]


def counts(data: Splits) -> list[list[int]]:
    return [torch.bincount(part.targets).tolist() for part in (data.train, data.val, data.test)]


# --- Layouts --------------------------------------------------------------------------------------


def test_classes_only_are_split_at_random(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets", [*classes(20, ("dog",)), *classes(33, ("cat",))])
    data = load("folder", path=folder)
    # 20 %, 10 %, the rest; cat, the first by name, has 33.
    assert counts(data) == [[23, 14], [3, 2], [7, 4]]
    assert data.classes == ("cat", "dog")
    assert data.name == "pets"
    assert data.shape == (1, 12, 9)
    assert data.train.images.dtype == torch.uint8
    assert "seed 0: 20 % test and 10 % validation" in data.note
    # Every image is there once, with its folder's class and to the pixel.
    expected = {
        np.asarray(Image.open(file)).tobytes(): label
        for label, name in enumerate(("cat", "dog"))
        for file in (folder / name).iterdir()
    }
    found = told(data.train) | told(data.val) | told(data.test)
    assert found == expected
    assert same(data, load("folder", path=folder))
    assert not same(data, load("folder", path=folder, seed=1))


def test_parts_are_kept_as_they_are(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", parts())
    data = load("folder", path=folder)
    assert counts(data) == [[10, 10], [2, 2], [3, 3]]
    assert data.note == "Split as stored in p."
    assert same(data, load("folder", path=folder, seed=1))
    stored = {np.asarray(Image.open(f)).tobytes() for f in folder.glob("test/*/*.png")}
    assert pixels(data.test) == stored
    # By other names, with hidden files, one folder deeper: the same.
    for role, other in (("train", "Training"), ("val", "validation"), ("test", "TEST")):
        (folder / role).rename(folder / other)
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "TEST" / "dog" / "notes.txt").write_bytes(b"")
    (folder / "TEST" / "dog" / ".cache").mkdir()
    write(folder / "TEST" / "dog" / ".cache", ["x.png"])
    write(folder, [".hidden/1.png", "__MACOSX/train/dog/1.png"])
    assert same(data, load("folder", path=folder))
    folder.rename(tmp_path / "inner")
    (tmp_path / "outer").mkdir()
    (tmp_path / "inner").rename(tmp_path / "outer" / "inner")
    assert same(data, load("folder", path=tmp_path / "outer"))


def test_a_zip_is_as_its_folder(tmp_path: Path) -> None:
    for name, places in (("a", classes()), ("b", parts())):
        folder = write(tmp_path / name, places)
        expected = load("folder", path=folder)
        assert same(expected, load("folder", path=zipped(folder)))
        assert same(expected, load("folder", path=zipped(folder, "around/")))
    # Without entries for its folders, with what the Finder adds, and found by its usual name.
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "images.zip", "w") as archive:
        for file in sorted((tmp_path / "b").rglob("*.png")):
            inside = file.relative_to(tmp_path / "b")
            archive.write(file, f"b/{inside}")
            archive.writestr(f"__MACOSX/b/{inside.parent}/._{inside.name}", b"no image")
    data = load("folder")
    assert same(expected, data)
    assert data.name == "images"


def test_validation_comes_out_of_training_where_there_is_none(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", parts(train=20, val=0))
    data = load("folder", path=folder)
    assert counts(data) == [[18, 18], [2, 2], [3, 3]]
    assert "4 training images (10 %) were held out with seed 0" in data.note
    other = load("folder", path=folder, seed=1)
    assert torch.equal(data.test.images, other.test.images)
    assert not torch.equal(data.val.images, other.val.images)


WRONG = {
    "nothing": ([], r"has class folders \[\]; expected at least two"),
    "loose": (["1.png", "2.png"], r"has class folders \[\]"),
    "one class": (classes(5, ("dog",)), r"has class folders \[\] in dog; expected at least two"),
    "two around": (classes(base="a/b/"), r"has class folders \['b'\] in a;"),
    "loose beside": ([*classes(), "1.png"], "the image 1.png outside the class folders.* CLASS/"),
    "loose in train": ([*parts(), "train/1.png"], "image train/1.png outside .* train/CLASS/"),
    "beside parts": ([*parts(), "more/dog/1.png"], "image more/dog/1.png outside"),
    "too deep": ([*classes(), "dog/more/1.png"], "image dog/more/1.png outside"),
    "deeper still": ([*classes(), "a/b/c/d/1.png"], "image a/b/c/d/1.png outside"),
    "no test": (parts(test=0), "has the folders train, val; expected train and test"),
    "no train": (parts(train=0), "has the folders test, val; expected train and test"),
    "only train": (parts(val=0, test=0), "has the folders train; expected train and test"),
    "two val": (
        [*parts(), *classes(2, base="valid/")],
        "has the folders test, train, val, valid; expected train and test, perhaps val, once",
    ),
    "class missing": (
        [*parts(), "test/bird/1.png"],
        "no image of class bird in train; expected some of each of the classes bird, cat, dog",
    ),
    "class missing in test": (
        [*parts(), "train/bird/1.png"],
        "no image of class bird in (val|test);",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("archived", [False, True])
def test_other_layouts_are_refused(case: str, archived: bool, tmp_path: Path) -> None:
    places, message = WRONG[case]
    (tmp_path / "x").mkdir()
    folder = write(tmp_path / "x", places)
    path = zipped(folder) if archived else folder
    with pytest.raises(ValueError, match=message) as error:
        load("folder", path=path)
    assert str(path) in str(error.value)
    assert DATASETS["folder"].where in str(error.value)


@pytest.mark.parametrize("archived", [False, True])
def test_a_class_folder_without_images_is_told(archived: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "x", classes())
    (folder / "bird").mkdir()
    (folder / "bird" / "1.dcm").write_bytes(b"of a kind that is not read")
    with pytest.raises(ValueError, match="no image of class bird; expected some of each"):
        load("folder", path=zipped(folder) if archived else folder)
    shutil.rmtree(folder / "bird")
    (folder / "dog" / "more").mkdir()
    with pytest.raises(ValueError, match="folder dog/more inside a class folder"):
        load("folder", path=zipped(folder) if archived else folder)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    data = load("folder", path=write(tmp_path / "x", classes(10, ("train", "car", "test"))))
    assert data.classes == ("car", "test", "train")
    assert "Random split" in data.note


def test_a_class_needs_an_image_for_each_part(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", [*classes(3, ("dog",)), *classes(2, ("cat",))])
    with pytest.raises(ValueError, match="2 images of class cat; expected at least 3"):
        load("folder", path=folder)
    picture(99).save(folder / "cat" / "3.png")
    assert counts(load("folder", path=folder)) == [[1, 1]] * 3


def test_place_needs_no_files() -> None:
    placed, known = class_of_each(
        {("x", "train", "b", "1.png"), ("x", "test", "b", "1.png")}
        | {("x", "train", "a", "1.png"), ("x", "test", "a", "1.png")},
        {("x",), ("x", "train"), ("x", "test")}
        | {("x", role, name) for role in ("train", "test") for name in "ab"},
    )
    assert known == ("a", "b")
    assert placed["x", "test", "b", "1.png"] == ("test", 1)
    assert placed["x", "train", "a", "1.png"] == ("train", 0)


# --- Pixels ---------------------------------------------------------------------------------------


def test_gray_is_what_the_pixels_are_not_the_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", classes())
    gray = load("folder", path=folder)
    for file in folder.glob("dog/*.png"):
        mode = "RGB" if int(file.stem) % 2 else "RGBA"
        Image.open(file).convert(mode).save(file)
    assert same(gray, load("folder", path=folder))
    one = folder / "dog" / "7.png"
    image = Image.open(one).convert("RGB")
    red, green, blue = image.getpixel((3, 4))
    image.putpixel((3, 4), (red, green, (blue + 1) % 256))
    image.save(one)
    colour = load("folder", path=folder)
    assert colour.shape == (3, 12, 9)
    assert sum(bool((image != image[:1]).any()) for image in colour.train.images) <= 1
    everywhere = pixels(colour.train, colour.val, colour.test)
    assert np.asarray(image).transpose(2, 0, 1).tobytes() in everywhere


def test_images_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", classes(), "RGB")
    assert load("folder", path=folder).shape == (3, 12, 9)
    picture(99, "RGB", (20, 10)).save(folder / "dog" / "7.png")
    with pytest.raises(ValueError, match=r"cat/0.png has 9x12 .*dog/7.png 20x10; .*data.size=64"):
        load("folder", path=folder)
    data = load("folder", path=folder, size=16)
    assert data.shape == (3, 16, 16)
    by_hand = {
        np.asarray(Image.open(file).resize((16, 16), Image.Resampling.LANCZOS))
        .transpose(2, 0, 1)
        .tobytes()
        for file in folder.glob("*/*.png")
    }
    assert pixels(data.train, data.val, data.test) == by_hand


def test_what_was_decoded_is_kept_and_a_changed_file_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "x", classes())
    before = load("folder", path=folder)
    with monkeypatch.context() as patch:
        patch.setattr("ima.data.folder.decode", None)  # would fail if it were called
        assert same(before, load("folder", path=folder))
    picture(99, size=(9, 12)).save(folder / "dog" / "7.png")
    after = load("folder", path=folder)
    changed = pixels(after.train, after.val, after.test) ^ pixels(
        before.train, before.val, before.test
    )
    assert len(changed) == 2


def test_damaged_images_and_archives_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", classes())
    archive = zipped(folder)
    whole = archive.read_bytes()
    # In the middle of an image's bytes: the archive's checksum tells.
    with zipfile.ZipFile(archive) as opened:
        at = opened.getinfo("dog/7.png").header_offset + 60
    archive.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    with pytest.raises(ValueError, match=r"dog/7.png in .*x.zip cannot be decoded"):
        load("folder", path=archive)
    archive.write_bytes(whole[:-50])
    with pytest.raises(ValueError, match=r"x.zip is neither a folder nor an undamaged .zip"):
        load("folder", path=archive)
    file = folder / "dog" / "7.png"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"dog/7.png cannot be decoded"):
        load("folder", path=folder)
    Image.fromarray(np.zeros((12, 9), np.uint16)).save(file)
    with pytest.raises(ValueError, match=r"dog/7.png cannot be decoded \(.*more than 8 bits"):
        load("folder", path=folder)


@pytest.mark.parametrize("path", [None, "nowhere"])
def test_a_missing_folder_says_what_to_name_and_how(path: str | None, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data.path=\.\.\.") as raised:
        load("folder", path=path)
    assert str(tmp_path / "data") in str(raised.value)
    assert DATASETS["folder"].where in str(raised.value)


def png_of_16_bits() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", 9, 12, 16, 2, 0, 0, 0)
    rows = zlib.compress(bytes(12 * (1 + 9 * 6)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, body) for kind, body in ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    )


def tiff_of_16_bits() -> bytes:
    # Width, height, bits (three shorts behind the table), no compression, RGB, one strip.
    tags = [(256, 3, 1, 9), (257, 3, 1, 12), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 128), (277, 3, 1, 3), (278, 3, 1, 12), (279, 4, 1, 648)]
    table = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + table + bytes(4) + struct.pack("<HHH", 16, 16, 16) + bytes(648)


DEEP = {
    "png": png_of_16_bits(),
    "tif": tiff_of_16_bits(),
    "ppm": b"P6 9 12 65535\n" + bytes(648),
    "pgm": b"P5 9 12 1023\n" + bytes(216),
}
"""Pictures of 9x12 pixels with more than 8 bits a channel."""


@pytest.mark.parametrize("suffix", DEEP)
def test_more_than_8_bits_a_channel_are_refused(suffix: str, tmp_path: Path) -> None:
    with Image.open(io.BytesIO(DEEP[suffix])) as image:
        assert image.size == (9, 12) and image.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
    folder = write(tmp_path / "x", classes())
    (folder / "dog" / f"7.{suffix}").write_bytes(DEEP[suffix])
    with pytest.raises(ValueError, match=rf"dog/7.{suffix} .*\(it holds more than 8 bits a"):
        load("folder", path=folder)


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp"])
def test_files_of_several_pictures_are_refused(suffix: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "x", classes())
    file = folder / "dog" / f"more.{suffix}"
    picture(50, "RGB").save(file)
    assert sum(map(sum, counts(load("folder", path=folder)))) == 41
    picture(50).save(file, save_all=True, append_images=[picture(51), picture(52)])
    with pytest.raises(ValueError, match=rf"more.{suffix} .*\(it holds 3 pictures, each of which"):
        load("folder", path=folder)


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp", "bmp", "ppm", "pgm", "jpg"])
def test_pictures_of_8_bits_are_taken_in_every_format(suffix: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "x", classes())
    file = folder / "dog" / f"more.{suffix}"
    picture(50, "L" if suffix == "pgm" else "RGB").save(file)
    data = load("folder", path=folder)
    with Image.open(file) as image:
        shown = np.asarray(image.convert("RGB")).transpose(2, 0, 1)[: data.channels]
    assert shown.tobytes() in pixels(data.train, data.val, data.test)


# --- Equal images ---------------------------------------------------------------------------------


def test_equal_images_stay_on_one_side_of_a_random_split(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", classes(20))
    for i in range(0, 20, 2):  # every second dog is the one before, stored otherwise
        Image.open(folder / "dog" / f"{i}.png").save(folder / "dog" / f"{i + 1}.bmp")
        (folder / "dog" / f"{i + 1}.png").unlink()
    picture(4).save(folder / "cat" / "5.png")  # a dog among the cats
    for seed in range(5):
        data = load("folder", path=folder, seed=seed)
        assert counts(data)[1:] == [[2, 2], [4, 4]]
        sides = [pixels(part) for part in (data.train, data.val, data.test)]
        assert sum(map(len, sides)) == len(set.union(*sides))
        assert np.asarray(picture(4)).tobytes() not in sides[1] | sides[2]


def test_an_impossible_split_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", classes(5))
    for i in range(1, 5):
        shutil.copy(folder / "dog" / "0.png", folder / "dog" / f"{i}.png")
    with pytest.raises(ValueError, match=r"no 1 dog images can be set aside for test .*duplicates"):
        load("folder", path=folder)


def test_training_images_that_are_in_a_stored_test_part_are_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", parts())
    shutil.copy(folder / "test" / "dog" / "1.png", folder / "train" / "dog" / "3.png")
    shutil.copy(folder / "val" / "cat" / "0.png", folder / "train" / "cat" / "4.png")
    data = load("folder", path=folder)
    assert counts(data) == [[9, 9], [2, 2], [3, 3]]
    assert "2 training images that are also in validation or test were left out" in data.note
    for i in range(10):
        shutil.copy(folder / "test" / "dog" / "1.png", folder / "train" / "dog" / f"{i}.png")
    with pytest.raises(ValueError, match="no training image of dog that is not also in"):
        load("folder", path=folder)


@given(
    labels=st.lists(st.integers(0, 1), min_size=8, max_size=30),
    tokens=st.data(),
    seed=st.integers(0, 9),
)
def test_assign_gives_what_is_wanted_or_refuses(
    labels: list[int], tokens: st.DataObject, seed: int
) -> None:
    mine = [[tokens.draw(st.integers(0, 60))] for _ in labels]
    names = [str(i) for i in range(len(labels))]
    try:
        split = assign(
            labels, names, mine, {"test": [2, 1], "val": [1, 1]}, classes="ab", seed=seed
        )
    except ValueError as error:
        assert "remove duplicates" in str(error)
        return
    assert sorted(i for chosen in split.values() for i in chosen) == list(range(len(labels)))
    assert Counter(labels[i] for i in split["test"]) == {0: 2, 1: 1}
    assert Counter(labels[i] for i in split["val"]) == {0: 1, 1: 1}
    sides = [{mine[i][0] for i in chosen} for chosen in split.values()]
    assert sum(map(len, sides)) == len(set.union(*sides))


# --- Real data ------------------------------------------------------------------------------------


def test_real_slices_are_gray_whatever_their_mode() -> None:
    data = load("folder", path=real("sars-cov-2-ct"), size=32)
    assert data.classes == ("COVID", "non-COVID")
    assert data.shape == (1, 32, 32)
    assert counts(data) == [[877, 860], [125, 123], [250, 246]]
    assert len(pixels(data.train, data.val, data.test)) == 2479
    assert not pixels(data.test) & pixels(data.train, data.val)
    originals = load("folder", path=real("sars-cov-2-ct-originals-sample"), size=32)
    # One of the twelve has channels that differ by 1.
    assert originals.shape == (3, 32, 32)
    with pytest.raises(ValueError, match="differ in size"):
        load("folder", path=real("sars-cov-2-ct-originals-sample"))
