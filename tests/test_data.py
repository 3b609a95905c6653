"""The data layer: what loaders promise, what they refuse, and the real data where it is at hand."""

import io
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, Subset
from torch.utils.data import Dataset as TorchDataset

from ima.data import DATASETS, Indexed, Part, Splits, covid_ct, load
from ima.data.find import locate
from ima.data.split import choose_subset, groups, stratified

# Read here: in every test it names a folder of the test's own.
REAL = os.environ.get("IMA_DATA")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own folders."""
    monkeypatch.setenv("IMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IMA_DATA", str(tmp_path / "data"))


def real(name: str) -> Path:
    if not REAL:
        pytest.skip("real data is looked for in the folder IMA_DATA names, and IMA_DATA is not set")
    path = Path(REAL) / name
    if not path.exists():
        pytest.skip(f"real data looked for at {path.absolute()} (IMA_DATA) and not found")
    return path


def pixels(*parts: Part) -> set[bytes]:
    return {image.numpy().tobytes() for part in parts for image in part.images}


# --- Part and Splits ------------------------------------------------------------------------------


def part(count: int = 6, shape: tuple[int, ...] = (2, 4), **change: torch.Tensor) -> Part:
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=rng)
    return Part(**{"images": images, "targets": torch.arange(count) % 3, **change})


@pytest.mark.parametrize("shape", [(1,), (3, 7), (1, 4, 6), (3, 5, 7, 7)])
@pytest.mark.parametrize("floats", [False, True])
def test_a_batch_equals_its_samples(shape: tuple[int, ...], floats: bool) -> None:
    data = part(shape=shape)
    if floats:
        data = Part(data.images / 255, data.targets)
    for index in ([4, 0, -1], torch.tensor([4, 0, 5]), torch.tensor([4, 0, 5], dtype=torch.uint8)):
        x, y = data[index]
        assert x.dtype == torch.float32
        assert x.shape == (3, *shape)
        assert torch.equal(x, torch.stack([data[i][0] for i in (4, 0, 5)]))
        assert torch.equal(y, torch.stack([data[i][1] for i in (4, 0, 5)]))
    one, target = data[torch.tensor(4)]
    assert torch.equal(one, data[np.int64(4)][0])
    assert target.shape == ()
    assert target.dtype == torch.int64
    assert data[[]][0].shape == (0, *shape)
    assert len([x for x, _ in data]) == 6  # iteration ends


def test_uint8_spans_zero_to_one_exactly() -> None:
    data = Part(torch.tensor([[0], [255], [51]], dtype=torch.uint8), torch.tensor([0, 0, 1]))
    assert data[[0, 1, 2]][0].flatten().tolist() == pytest.approx([0.0, 1.0, 0.2], abs=1e-7)
    assert data[1][0].item() == 1.0


@pytest.mark.parametrize("index", [0, [0, 1]])
def test_what_a_part_gives_is_a_copy(index: Any) -> None:
    data = Part(torch.rand(3, 1, 4), torch.zeros(3, dtype=torch.int64))
    before = data.images.clone()
    x, y = data[index]
    x += 1
    y += 1
    assert torch.equal(data.images, before)
    assert not data.targets.any()


@pytest.mark.parametrize(
    ("index", "error"),
    [
        (6, IndexError),
        (-7, IndexError),
        ([0, 6], IndexError),
        (1.0, TypeError),
        ("0", TypeError),
        ([0.5], TypeError),
        ([True] * 6, TypeError),
        ([[0, 1]], TypeError),
        (slice(2), TypeError),
    ],
)
def test_a_part_refuses_other_indices(index: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        part()[index]


def test_loaders_of_samples_and_of_whole_batches_agree() -> None:
    data = part()
    samples = list(DataLoader(data, batch_size=4))
    sampler = BatchSampler(SequentialSampler(range(6)), 4, drop_last=False)
    batches = list(DataLoader(data, sampler=sampler, batch_size=None))
    for (x, y), (x2, y2) in zip(samples, batches, strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"images": torch.rand(6, 1, 2).double()}, TypeError, "float64"),
        ({"targets": torch.zeros(6)}, TypeError, "expected int64"),
        ({"targets": torch.zeros(5, dtype=torch.int64)}, ValueError, "6 images came with 5"),
        ({"targets": torch.zeros(6, 1, dtype=torch.int64)}, ValueError, r"\(6, 1\)"),
        ({"targets": torch.tensor([0, 1, 2, -1, 0, 1])}, ValueError, "smallest target is -1"),
        ({"images": torch.full((6, 1, 2), 1.01)}, ValueError, r"expected \[0, 1\]"),
        ({"images": torch.full((6, 1, 2), -0.01)}, ValueError, r"expected \[0, 1\]"),
        ({"images": torch.full((6, 1, 2), float("nan"))}, ValueError, "nan"),
        ({"images": torch.zeros(6)}, ValueError, r"\(N, C, \*dims\)"),
        ({"images": torch.zeros(6, 1, 0)}, ValueError, "empty"),
    ],
)
def test_a_part_is_checked(change: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        part(**change)


def test_a_value_just_out_of_range_is_told_to_its_last_digit(tmp_path: Path) -> None:
    above = np.nextafter(np.float32(1), np.float32(2))
    with pytest.raises(ValueError, match=r"from 1.0 to 1.00000011\d+, expected"):
        part(images=torch.full((6, 1, 2), float(above)).index_fill_(0, torch.tensor([0]), 1.0))
    images = np.full((4, 5, 6), np.nextafter(1.0, 2.0))
    np.savez(tmp_path / "mine.npz", **medmnist(val_images=images))
    with pytest.raises(ValueError, match=r"reaches from 1.0000000000000002 to 1.0000000000000002;"):
        load("arrays", path=tmp_path / "mine.npz")


def test_no_sample_makes_no_part() -> None:
    with pytest.raises(ValueError, match="empty"):
        Part(torch.zeros(0, 1, 2), torch.zeros(0, dtype=torch.int64))


def test_splits_tell_their_shape_and_check_their_parts() -> None:
    data = Splits("toy", part(), part(), part(), ("a", "b", "c"), "made up")
    assert (data.num_classes, data.channels, data.shape) == (3, 2, (2, 4))
    with pytest.raises(ValueError, match="test part has target 2, but there are 2 classes"):
        Splits("toy", part(2), part(2), part(), ("a", "b"), "")
    with pytest.raises(ValueError, match=r"val part have shape \(2, 5\), .*training \(2, 4\)"):
        Splits("toy", part(), part(shape=(2, 5)), part(), ("a", "b", "c"), "")


# --- Indexed --------------------------------------------------------------------------------------


def test_indexed_adds_the_id_to_tuples_lists_and_dicts() -> None:
    assert Indexed([("x", "y")])[0] == ("x", "y", 0)
    assert Indexed([["x", "y", "more"]])[0] == ("x", "y", "more", 0)
    item = {"image": 1, "label": 2}
    assert Indexed([item])[0] == {"image": 1, "label": 2, "id": 0}
    assert "id" not in item


def test_indexed_ids_reach_a_shuffled_batch() -> None:
    data = part()
    loader = DataLoader(Indexed(data), batch_size=4, shuffle=True)
    seen: list[int] = []
    for x, y, ids in loader:
        assert ids.dtype == torch.int64
        assert torch.equal(x, data[ids][0])
        assert torch.equal(y, data[ids][1])
        seen += ids.tolist()
    assert sorted(seen) == list(range(6))
    batch = next(iter(DataLoader(Indexed([{"image": torch.zeros(2)}] * 3), batch_size=3)))
    assert torch.equal(batch["id"], torch.arange(3))


@given(count=st.integers(1, 50), data=st.data())
def test_an_id_is_the_position_from_the_front(count: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(-count, count - 1))
    items = Indexed([(i,) for i in range(count)])
    value, sample = items[index]
    assert value == sample == range(count)[index]
    assert type(sample) is int
    for outside in (count, -count - 1):
        with pytest.raises(IndexError, match=f"index {outside} is out of range"):
            items[outside]


def test_indexed_counts_within_a_subset() -> None:
    assert [i for *_, i in Indexed(Subset(part(), [5, 2]))] == [0, 1]
    assert Indexed(part())[torch.tensor(3)][2] == 3


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __len__(self) -> int:
        return 3


class Endless(TorchDataset[int]):
    def __getitem__(self, index: int) -> int:
        return index


@pytest.mark.parametrize("data", [Stream(), Endless(), {1, 2}, 5, {"image": 1}])
def test_indexed_refuses_data_without_numbered_samples(data: Any) -> None:
    with pytest.raises(TypeError, match=rf"Indexed got {type(data).__name__}, .*; give a "):
        Indexed(data)


@pytest.mark.parametrize(
    ("item", "error", "told"),
    [
        (torch.zeros(2), TypeError, "is a Tensor; Indexed expects a tuple"),
        ("xy", TypeError, "is a str"),
        ({"id": 7}, ValueError, 'key "id" already'),
        ([{"image": 1}, {"image": 2}], TypeError, "list of 2 dicts"),
    ],
)
def test_indexed_refuses_other_items(item: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        Indexed([item])[0]
    with pytest.raises(TypeError, match="one whole number as index, got list"):
        Indexed([item])[[0]]  # type: ignore[index]


# --- Pure functions of the split ------------------------------------------------------------------


@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.data())
def test_stratified_is_exact_proportional_and_repeatable(labels: list[int], data: Any) -> None:
    count = data.draw(st.integers(1, len(labels) - 1))
    targets = np.array(labels)
    chosen = stratified(targets, count, seed=3)
    assert chosen.sum() == count
    assert np.array_equal(chosen, stratified(targets, count, seed=3))
    for number in set(labels):
        share = (targets == number).sum() * count / len(labels)
        assert abs(chosen[targets == number].sum() - share) < 1


@given(st.lists(st.integers(1, 5), max_size=10), st.integers(0, 30))
def test_choose_finds_an_exact_sum_when_there_is_one(sizes: list[int], total: int) -> None:
    sums = {0}
    for size in sizes:
        sums |= {size + before for before in sums}
    chosen = choose_subset(sizes, total)
    assert (chosen is not None) == (total in sums)
    if chosen is not None:
        assert sum(sizes[i] for i in chosen) == total
        assert sorted(set(chosen)) == chosen


@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=2), max_size=15))
def test_groups_part_the_samples_and_their_tokens(tokens: list[list[int]]) -> None:
    joined = groups(tokens)
    assert sorted(i for group in joined for i in group) == list(range(len(tokens)))
    owned = [{token for i in group for token in tokens[i]} for group in joined]
    assert sum(map(len, owned)) == len({token for mine in tokens for token in mine})
    assert all(group == sorted(group) for group in joined)
    assert groups([[1], [2], [3, 1], [3, 2], [4]]) == [[0, 1, 2, 3], [4]]


# --- The table ------------------------------------------------------------------------------------


def test_the_table_is_complete() -> None:
    for name, row in DATASETS.items():
        assert row.name == name
        assert row.source
        assert row.where
        assert row.summary.endswith(".")


@pytest.mark.parametrize(
    ("asked", "told"),
    [("covid-ct", "mean 'covid_ct'"), ("digit", "mean 'digits'"), ("", "data set ''")],
)
def test_an_unknown_name_gets_the_nearest(asked: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"{told}.*digits, arrays, covid_ct"):
        load(asked)


@pytest.mark.parametrize("arguments", [{"seed": -1}, {"size": 0}, {"size": 9}, {"path": "x"}])
def test_unfit_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        load("digits", **arguments)


@pytest.mark.parametrize("name", ["covid_ct", "arrays"])
@pytest.mark.parametrize("path", [None, "nowhere"])
def test_missing_data_say_where_from_and_where_to(name: str, path: str | None) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        load(name, path=path)
    text = str(raised.value)
    for told in (
        os.environ["IMA_DATA"],
        DATASETS[name].where,
        "https://",
        "data.path=",
        "IMA_DATA",
    ):
        assert told in text


# --- digits ---------------------------------------------------------------------------------------


def test_digits_are_split_exactly_and_by_seed() -> None:
    data = load("digits")
    parts = (data.train, data.val, data.test)
    assert [len(part) for part in parts] == [897, 360, 540]
    assert data.shape == (1, 8, 8)
    assert data.num_classes == 10
    assert len(pixels(*parts)) == 1797  # all different, so nothing is in two parts
    assert float(data.train.images.max()) == 1.0
    for one in parts:
        share = torch.bincount(one.targets) / len(one)
        assert torch.allclose(share, torch.full((10,), 0.1), atol=0.01)
    assert torch.equal(load("digits").test.images, data.test.images)
    assert not torch.equal(load("digits", seed=1).test.images, data.test.images)


# --- arrays ---------------------------------------------------------------------------------------


def medmnist(shape: tuple[int, ...] = (5, 6), **change: Any) -> dict[str, NDArray[Any]]:
    """Arrays of the layout, all images different; a change to None leaves the array out."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for role, count in (("train", 20), ("val", 4), ("test", 6)):
        arrays[f"{role}_images"] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{role}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    return {key: value for key, value in {**arrays, **change}.items() if value is not None}


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., Path]:
    def save(**arrays: Any) -> Path:
        np.savez_compressed(tmp_path / "mine.npz", **arrays)
        return tmp_path / "mine.npz"

    return save


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ((5, 6), (1, 5, 6)),
        ((5, 6, 1), (1, 5, 6)),
        ((5, 6, 3), (3, 5, 6)),
        ((5, 6, 7), (1, 5, 6, 7)),
        ((5, 6, 7, 1), (1, 5, 6, 7)),
        ((5, 6, 7, 3), (3, 5, 6, 7)),
        ((3, 6, 7, 1), (1, 3, 6, 7)),
    ],
)
def test_arrays_of_every_layout(
    npz: Callable[..., Path], stored: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    arrays = medmnist(stored)
    data = load("arrays", path=npz(**arrays))
    assert data.shape == expected
    assert data.name == "mine"
    assert data.classes == ("0", "1")
    image = arrays["test_images"][2]
    last = image if image.shape[-1] in (1, 3) else image[..., None]
    assert np.array_equal(data.test.images[2].numpy(), np.moveaxis(last, -1, 0))
    assert data.test.targets.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.note == "Split as stored in mine.npz."


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_float_arrays_stay_as_they_are(npz: Callable[..., Path], dtype: Any) -> None:
    arrays = medmnist()
    for role in ("train", "val", "test"):
        arrays[f"{role}_images"] = (arrays[f"{role}_images"] / 256).astype(dtype)
        arrays[f"{role}_labels"] = arrays[f"{role}_labels"].reshape(-1).astype(">i4")
    data = load("arrays", path=npz(**arrays), size=None)
    assert data.train.images.dtype == torch.float32
    assert np.array_equal(data.val[1][0].numpy()[0], arrays["val_images"][1].astype(np.float32))


def test_equal_images_are_left_out_of_training(npz: Callable[..., Path]) -> None:
    arrays = medmnist()
    arrays["train_images"][3] = arrays["train_images"][4] = arrays["val_images"][1]
    arrays["train_images"][7] = arrays["test_images"][0]
    arrays["val_images"][2] = arrays["test_images"][1]
    data = load("arrays", path=npz(**arrays))
    assert (len(data.train), len(data.val), len(data.test)) == (17, 3, 6)
    assert not pixels(data.train) & pixels(data.val, data.test)
    assert not pixels(data.val) & pixels(data.test)
    assert "3 training images that are also in validation or test were left out" in data.note
    assert "1 validation images that are also in test were left out" in data.note
    kept = np.delete(arrays["train_labels"], [3, 4, 7])
    assert data.train.targets.tolist() == kept.tolist()


def test_validation_is_held_out_of_training_when_there_is_none(npz: Callable[..., Path]) -> None:
    arrays = medmnist(val_images=None, val_labels=None)
    arrays["train_images"][7] = arrays["test_images"][0]
    path = npz(**arrays)
    data = load("arrays", path=path, seed=1)
    assert (len(data.train), len(data.val), len(data.test)) == (17, 2, 6)
    assert sorted(data.val.targets.tolist()) == [0, 1]  # one of each class
    assert not pixels(data.train) & pixels(data.val)
    assert not pixels(data.train, data.val) & pixels(data.test)
    assert "2 training images (10 %) were held out with seed 1" in data.note
    assert pixels(load("arrays", path=path, seed=1).val) == pixels(data.val)
    assert any(pixels(load("arrays", path=path, seed=s).val) != pixels(data.val) for s in (2, 3, 4))


def numbers(*values: Any, dtype: Any = np.int64) -> NDArray[Any]:
    return np.resize(np.array(values, dtype=dtype), 4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"test_images": None}, "'test_labels' but no 'test_images'"),
        ({"val_labels": None}, "'val_images' but no 'val_labels'"),
        ({"train_images": None, "train_labels": None}, "no 'train_images'"),
        ({"val_images": np.zeros((0, 5, 6), np.uint8)}, "'val_images' .*empty"),
        ({"val_labels": np.zeros((3, 1), np.uint8)}, "4 'val_images' but 3 'val_labels'"),
        ({"val_labels": np.zeros((4, 14), np.uint8)}, "'val_labels' .*several labels"),
        ({"val_labels": np.zeros((4, 1, 1), np.uint8)}, "'val_labels' .*shape"),
        ({"val_labels": numbers(0.0, 1.0, dtype=float)}, "'val_labels' .*float64"),
        ({"val_labels": numbers(0, -1)}, "'val_labels' .*from -1 to 0"),
        ({"val_labels": numbers(0, 10**9)}, "'val_labels' .*without gaps"),
        ({"val_labels": np.array(["a", "b", "a", "b"])}, "'val_labels' .*<U1"),
        ({"val_labels": np.array([0, 1, 0, None])}, "'val_labels' .*cannot be read.*Object"),
        ({"val_images": np.full((4, 5, 6), 200.0)}, r"'val_images' .*200.*expected \[0, 1\]"),
        ({"val_images": np.full((4, 5, 6), np.nan)}, "'val_images' .*nan"),
        ({"val_images": np.zeros((4, 5, 6), np.int64)}, "'val_images' .*int64"),
        ({"val_images": np.zeros((4, 5, 6), np.float32)}, "'val_images' .*float32.*uint8"),
        ({"val_images": np.zeros((4, 5, 7), np.uint8)}, "'val_images' .*same"),
        ({"val_images": np.zeros((4, 30), np.uint8)}, "'val_images' .*shape"),
        (
            {"val_images": np.zeros((4, 3, 5, 6), np.uint8)},
            "'val_images' .*looks like channels first",
        ),
        ({"val_images": np.zeros((4, 1, 5, 6, 7), np.uint8)}, "'val_images' .*C 1 or 3"),
    ],
)
def test_unfit_arrays_are_named(
    npz: Callable[..., Path], change: dict[str, Any], told: str
) -> None:
    path = npz(**medmnist(**change))
    with pytest.raises(ValueError, match=told) as raised:
        load("arrays", path=path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train_labels": np.arange(20) % 2 * 2}, "no image to train on of class 1, of 0 to 2;"),
        ({"test_labels": np.arange(6)}, "no image to train on of class 2, 3, 4, 5, of 0 to 5;"),
        (
            {"val_labels": np.full(4, 99)},
            r"no image .* 2, 3, 4, 5, 6, 7, 8, 9, \.\.\., of 0 to 99;",
        ),
    ],
)
def test_a_class_without_training_images_is_named(
    npz: Callable[..., Path], change: dict[str, Any], told: str
) -> None:
    path = npz(**medmnist(**change))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} has {told} expected .* without"):
        load("arrays", path=path)


def test_a_class_whose_training_images_are_all_left_out_is_named(npz: Callable[..., Path]) -> None:
    arrays = medmnist()
    arrays["train_labels"][7] = 2
    arrays["train_images"][7] = arrays["test_images"][0]
    arrays["test_labels"][0] = 2
    with pytest.raises(ValueError, match=r"of class 2, of 0 to 2; .*that are in no other part"):
        load("arrays", path=npz(**arrays))


def test_arrays_refuse_to_be_resized_or_emptied(npz: Callable[..., Path]) -> None:
    path = npz(**medmnist((8, 8)))
    assert load("arrays", path=path, size=8).shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"\(8, 8\) pixels.*size 28"):
        load("arrays", path=path, size=28)
    arrays = medmnist()
    path = npz(**{**arrays, "train_images": np.repeat(arrays["test_images"][:1], 20, axis=0)})
    with pytest.raises(ValueError, match="every image of 'train_images'"):
        load("arrays", path=path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(data=st.data())
def test_damaged_files_are_refused_or_read_right(tmp_path: Path, data: st.DataObject) -> None:
    raw = io.BytesIO()
    np.savez(raw, **medmnist())
    whole = raw.getvalue()
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:at]
    else:
        damaged = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    path = tmp_path / "damaged.npz"
    path.write_bytes(damaged)
    try:
        read = load("arrays", path=path)
    except ValueError as error:
        assert "damaged.npz" in str(error)
    else:
        assert np.array_equal(read.test.images[:, 0].numpy(), medmnist()["test_images"])


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x80\x04\x95pickle", b"PK\x03\x04"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"other.npz is damaged.* cannot be read"):
        load("arrays", path=path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match="single array"):
        load("arrays", path=tmp_path / "one.npy")


def test_arrays_are_found_in_the_data_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"\*.npz"):
        load("arrays")
    np.savez(folder / "a.npz", **medmnist())
    assert load("arrays").name == "a"
    np.savez(folder / "b.npz", **medmnist())
    assert load("arrays", path="mine/b.npz").name == "b"  # relative to IMA_DATA
    with pytest.raises(ValueError, match=re.escape("2 .npz files (mine/a.npz, mine/b.npz)")):
        load("arrays")


def test_an_empty_folder_does_not_hide_another_place(tmp_path: Path) -> None:
    def found(path: str | None = None) -> Path:
        return locate("toy", path, usual=("first", "second", "third"), where="")

    for name in ("first", "second", "third"):
        (tmp_path / "data" / name).mkdir(parents=True)
    assert found() == tmp_path / "data" / "first"  # an error about it says more than "not found"
    (tmp_path / "data" / "second" / "images.bin").touch()
    (tmp_path / "data" / "third" / "images.bin").touch()
    assert found() == tmp_path / "data" / "second"
    (tmp_path / "data" / "second").rename(tmp_path / "data" / "2")
    (tmp_path / "data" / "second").touch()
    assert found() == tmp_path / "data" / "second"
    assert found("first") == tmp_path / "data" / "first"


# --- covid_ct -------------------------------------------------------------------------------------

SMALL = {"TEST": 6, "VAL": 2}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer images a part, so that small folders do."""
    for name, count in SMALL.items():
        monkeypatch.setattr(covid_ct, name, count)


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(9, 30, 2)
    gray = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))
    return gray.convert("RGB").convert(mode)


def ct_folder(root: Path, count: int = 12, names: tuple[str, str] = ("COVID", "non-COVID")) -> Path:
    for at, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(count):
            mode = ("RGBA", "RGB", "L", "P")[i % 4]
            picture(1000 * at + i, mode).save(root / name / f"{name} ({i + 1}).png")
        (root / name / ".DS_Store").write_bytes(b"no image")
        (root / name / "Thumbs.db").write_bytes(b"no image")
    return root


def zipped(folder: Path, prefix: str = "") -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, prefix + str(file.relative_to(folder)))
    return path


def same(one: Splits, other: Splits) -> bool:
    return all(
        torch.equal(getattr(one, role).images, getattr(other, role).images)
        and torch.equal(getattr(one, role).targets, getattr(other, role).targets)
        for role in ("train", "val", "test")
    )


@pytest.mark.usefixtures("small")
def test_ct_images_of_any_size_and_mode(tmp_path: Path) -> None:
    data = load("covid_ct", path=ct_folder(tmp_path / "ct"), size=16)
    assert (len(data.train), len(data.val), len(data.test)) == (8, 4, 12)
    assert data.shape == (1, 16, 16)
    assert data.train.images.dtype == torch.uint8
    assert data.classes == ("non-COVID", "COVID")
    for one, each in ((data.test, 6), (data.val, 2), (data.train, 4)):
        assert torch.bincount(one.targets).tolist() == [each, each]
    assert "no patient ids" in data.note
    assert "95.5 %" in data.note
    # By hand, from the files: the same images, and the folder decides the class.
    for label, name in enumerate(("non-COVID", "COVID")):
        by_hand = {
            Image.open(file)
            .convert("RGBA")
            .convert("RGB")
            .convert("L")
            .resize((16, 16), Image.Resampling.LANCZOS)
            .tobytes()
            for file in (tmp_path / "ct" / name).glob("*.png")
        }
        found = {
            image.numpy().tobytes()
            for part in (data.train, data.val, data.test)
            for image in part.images[part.targets == label]
        }
        assert found == by_hand
    assert load("covid_ct", path=tmp_path / "ct").shape == (1, 224, 224)


@pytest.mark.usefixtures("small")
def test_ct_layouts_give_one_split(tmp_path: Path) -> None:
    plain = load("covid_ct", path=ct_folder(tmp_path / "ct"), size=16)
    assert same(plain, load("covid_ct", path=zipped(tmp_path / "ct"), size=16))
    assert same(plain, load("covid_ct", path=zipped(tmp_path / "ct", "data/"), size=16))
    ct_folder(tmp_path / "ct" / "smaller copy", 9)  # what lies directly in the folder comes first
    assert same(plain, load("covid_ct", path=tmp_path / "ct", size=16))
    shutil.rmtree(tmp_path / "ct" / "smaller copy")
    nested = tmp_path / "data" / "sars-cov-2-ct" / "inner"
    nested.parent.mkdir(parents=True)
    (tmp_path / "ct").rename(nested)
    (nested / "COVID").rename(nested / "covid")
    (nested / "non-COVID").rename(nested / "Non_Covid")
    assert same(plain, load("covid_ct", size=16))  # from IMA_DATA
    assert not same(plain, load("covid_ct", size=16, seed=1))


@pytest.mark.usefixtures("small")
def test_ct_split_depends_on_names_only(tmp_path: Path) -> None:
    folder = ct_folder(tmp_path / "ct", 14)
    before = load("covid_ct", path=folder, size=16)
    (folder / "COVID" / "COVID (14).png").unlink()
    after = load("covid_ct", path=folder, size=16)
    # One file less moves at most itself and the one that takes its place, in each part.
    assert len(pixels(before.test) - pixels(after.test)) <= 1
    assert len(pixels(before.val) - pixels(after.val)) <= 1


@pytest.mark.usefixtures("small")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    copies=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=8),
    across=st.booleans(),
    seed=st.integers(0, 5),
)
def test_ct_duplicates_stay_together(
    copies: list[tuple[int, int]], across: bool, seed: int
) -> None:
    """On the split itself, without files: images are numbers, copies share them."""
    files = [
        covid_ct.ImageFile(label, f"{i}.png", "", "", bytes) for label in (0, 1) for i in range(12)
    ]
    images = np.arange(24, dtype=np.uint8)[:, None, None].repeat(4, axis=1)
    prints = [str(i) for i in range(24)]
    for to, source in copies:
        prints[to] = prints[source]  # equal before resizing
        images[12 + to] = images[12 + source]  # equal after resizing
    if across:
        images[20] = images[3]
    try:
        split = covid_ct.assign(files, images, prints, seed, Path("ct"))
    except ValueError as error:
        assert "remove duplicates" in str(error)
        return
    assert sorted(i for chosen in split.values() for i in chosen) == list(range(24))
    for role, each in (("test", 6), ("val", 2)):
        assert [sum(files[i].label == label for i in split[role]) for label in (0, 1)] == [each] * 2
    for value in (prints, [image.tobytes() for image in images]):
        sides = [{value[i] for i in chosen} for chosen in split.values()]
        assert sum(map(len, sides)) == len(set(value))


@pytest.mark.usefixtures("small")
def test_ct_too_few_damaged_and_ambiguous(tmp_path: Path) -> None:
    folder = ct_folder(tmp_path / "ct")
    (folder / "COVID" / "COVID (5).png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(ValueError, match=r"COVID \(5\).png cannot be decoded"):
        load("covid_ct", path=folder, size=16)
    with pytest.raises(ValueError, match=r"COVID \(5\).png in .*ct.zip cannot be decoded"):
        load("covid_ct", path=zipped(folder), size=16)
    deep = Image.fromarray(np.zeros((9, 9), np.uint16))
    deep.save(folder / "COVID" / "COVID (5).png")
    with pytest.raises(ValueError, match="more than 8 bits"):
        load("covid_ct", path=folder, size=16)
    for i in range(5, 13):
        (folder / "COVID" / f"COVID ({i}).png").unlink()
    with pytest.raises(ValueError, match=r"12 non-COVID and 4 COVID images; .*more than 8 of each"):
        load("covid_ct", path=folder)
    with pytest.raises(FileNotFoundError, match="non-COVID and COVID"):
        load("covid_ct", path=folder / "COVID")
    ct_folder(tmp_path / "ct 2")
    with pytest.raises(ValueError, match="more than once"):
        load("covid_ct", path=tmp_path)
    (tmp_path / "ct.zip").write_bytes(zipped(folder).read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"undamaged .zip"):
        load("covid_ct", path=tmp_path / "ct.zip")


@pytest.mark.usefixtures("small")
def test_ct_cache_is_used_rebuilt_and_optional(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ct_folder(tmp_path / "ct")
    first = load("covid_ct", path=folder, size=16)
    (kept,) = (tmp_path / "cache").iterdir()  # and nothing half-written beside it

    def never(*_: object) -> None:
        raise AssertionError("decoded although cached")

    with monkeypatch.context() as patch:
        patch.setattr(covid_ct, "decode", never)
        assert same(first, load("covid_ct", path=folder, size=16))
    for content in (b"", kept.read_bytes()[:-100], kept.read_bytes().replace(b"uint8", b"other")):
        kept.write_bytes(content)
        assert same(first, load("covid_ct", path=folder, size=16))
    np.savez(kept, images=np.zeros((24, 16, 16), np.uint8))
    assert same(first, load("covid_ct", path=folder, size=16))

    file = folder / "COVID" / "COVID (1).png"
    os.utime(file, ns=(0, 0))  # a file that changed is read anew
    load("covid_ct", path=folder, size=16)
    assert len(list((tmp_path / "cache").iterdir())) == 2

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        load("covid_ct", path=folder, size=17)
    assert len(list((tmp_path / "cache").iterdir())) == 2  # nothing half-written

    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("IMA_CACHE", str(tmp_path / "file" / "below"))  # cannot be made
    assert same(first, load("covid_ct", path=folder, size=16))


# --- Real data ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_real_ct_split(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = real("sars-cov-2-ct")
    shared = tmp_path_factory.getbasetemp() / "ct-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMA_CACHE", str(shared))
        data = load("covid_ct", path=path, size=64, seed=seed)
    parts = (data.test, data.val, data.train)
    counts = [torch.bincount(part.targets).tolist() for part in parts]
    assert counts == [[200, 200], [30, 30], [1229 - 230, 1252 - 230]]
    # 2479 distinct images: both pairs of equal ones lie within a part.
    assert sum(len(pixels(part)) for part in parts) == len(pixels(*parts)) == 2479


def test_real_ct_originals_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    path = real("sars-cov-2-ct-originals-sample")
    monkeypatch.setattr(covid_ct, "TEST", 4)
    monkeypatch.setattr(covid_ct, "VAL", 1)
    data = load("covid_ct", path=path)
    assert (len(data.train), len(data.val), len(data.test)) == (2, 2, 8)
    assert data.shape == (1, 224, 224)
    # The same slices, turned gray and resized by others as the README says, to the last bit.
    resized = real("sars-cov-2-ct")
    for file in sorted(path.glob("*/*.png")):
        expected = np.asarray(Image.open(resized / file.parent.name / file.name))
        assert expected.tobytes() in pixels(data.train, data.val, data.test)


def test_real_pneumonia_has_its_duplicates_left_out() -> None:
    data = load("arrays", path=real("medmnist/pneumoniamnist.npz"))
    assert data.shape == (1, 28, 28)
    assert (len(data.val), len(data.test)) == (524, 624)
    # 8 validation images are in training too, two of them more than once.
    assert len(data.train) == 4708 - 10
    assert "10 training images" in data.note
    assert not pixels(data.train) & pixels(data.val, data.test)


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("svhn-cropped/svhn_subset.npz", [750, 101, 232]),
        ("cifar-10/cifar10_subset.npz", [4000, 1000, 1000]),
    ],
)
def test_real_colour_arrays(file: str, counts: list[int]) -> None:
    data = load("arrays", path=real(file))
    assert [len(part) for part in (data.train, data.val, data.test)] == counts
    assert data.shape == (3, 32, 32)
    assert data.num_classes == 10
    assert "left out" not in data.note
