"""Checkpoints: what was saved comes back, nothing half-written, nothing that executes."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import load_weights
from torch import Tensor, nn

from ima.training.checkpoint import load_state, peek_state, save_state, save_weights
from ima.training.tensor_file import CheckpointError
from ima.training.weights import load_file

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


def as_loaded(value: Any) -> Any:
    """What is expected back: tuples come back as lists, tensors on the CPU without a graph."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {key: as_loaded(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_loaded(v) for v in value]
    return value


def assert_same(found: Any, expected: Any) -> None:
    """Equal to the bit, types included."""
    assert type(found) is type(expected)
    if isinstance(expected, Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert torch.equal(found, expected)
        assert not found.requires_grad
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for left, right in zip(found, expected, strict=True):
            assert_same(left, right)
    elif isinstance(expected, float) and math.isnan(expected):
        assert math.isnan(found)
    else:
        assert found == expected


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Of every dtype, also scalars, empty ones, transposed ones and ones with a graph."""
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    seed = draw(st.integers(0, 99))
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 8
    tensor = values.to(dtype)
    if tensor.ndim == 2 and draw(st.booleans()):
        tensor = tensor.T
    if dtype == torch.float32 and draw(st.booleans()):
        tensor = tensor.requires_grad_()
    return tensor


NUMBERS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=5)
)
# One kind of key a dict, as states have them: names, or the optimiser's numbers.
NAMES = st.text(alphabet="abcdefgh_é ", min_size=1, max_size=4)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=3)
    return (
        lists
        | lists.map(tuple)
        | st.dictionaries(NAMES, inner, max_size=3)
        | st.dictionaries(st.integers(-3, 30), inner, max_size=3)
    )


STATES = st.dictionaries(NAMES, st.recursive(NUMBERS | tensors(), nested, max_leaves=8), max_size=4)


@given(state=STATES)
def test_a_state_comes_back_to_the_bit(
    state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    save_state(path, state)
    assert_same(load_state(path), as_loaded(state))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_number_of_a_state_is_read_without_its_tensors(tmp_path: Path) -> None:
    save_state(tmp_path / "s", {"epoch": 7, "model": {"weight": torch.ones(3)}})
    assert peek_state(tmp_path / "s", "epoch") == 7
    save_weights(tmp_path / "w", {"epoch": torch.ones(1)})
    (tmp_path / "damaged").write_bytes(b"\x00" * 9)
    for name, key in (("s", "best"), ("w", "epoch"), ("damaged", "epoch"), ("absent", "epoch")):
        with pytest.raises(CheckpointError, match=f"{name} is damaged or no state"):
            peek_state(tmp_path / name, key)


@pytest.mark.parametrize(
    "state",
    [
        {"a": {"b": torch.tensor(1.0)}, "a.b": torch.tensor(2.0)},
        {"a": {1: torch.tensor(1.0), "1": torch.tensor(2.0)}},
        {"": {"a": torch.tensor(1.0)}, "a": torch.tensor(2.0)},
        {"a": [torch.tensor(1.0)], "a.0": torch.tensor(2.0)},
        {"a": {True: torch.tensor(1.0), "True": torch.tensor(2.0)}},
    ],
    ids=["dots", "number and text", "empty", "list", "bool"],
)
def test_keys_that_look_alike_do_not_share_a_tensor(state: dict[Any, Any], tmp_path: Path) -> None:
    save_state(tmp_path / "s", state)
    assert_same(load_state(tmp_path / "s"), as_loaded(state))


@pytest.mark.parametrize("key", ["__metadata__", "tensor", "dict", "list", "tree", ".", "a\nb"])
def test_any_name_is_a_key(key: str, tmp_path: Path) -> None:
    state = {key: torch.ones(2), "more": {key: {key: 1}, "deep": [{key: None}]}}
    save_state(tmp_path / "s", state)
    assert_same(load_state(tmp_path / "s"), state)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_an_optimiser_continues_from_its_saved_state(kind: str, tmp_path: Path) -> None:
    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(3)
        model = nn.Linear(4, 2)
        if kind == "adam":
            return model, torch.optim.Adam(model.parameters(), lr=0.1)
        return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.ones(3, 4)).square().sum().backward()
            optimizer.step()

    whole, optimizer = fresh()
    steps(whole, optimizer, 4)
    first, optimizer = fresh()
    steps(first, optimizer, 2)
    state = {"model": first.state_dict(), "optimizer": optimizer.state_dict()}
    save_state(tmp_path / "s", state)
    again, optimizer = fresh()
    loaded = load_state(tmp_path / "s")
    again.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])
    steps(again, optimizer, 2)
    assert torch.equal(again.weight, whole.weight)


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, b"bytes", 1j, lambda: None, {"deep": [object()]}],
    ids=["object", "set", "bytes", "complex", "function", "deep"],
)
def test_what_is_no_state_is_refused_and_the_old_file_stays(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "s"
    save_state(path, {"epoch": 1})
    with pytest.raises(TypeError, match="tensors and numbers"):
        save_state(path, {"epoch": 2, "bad": value})
    assert load_state(path) == {"epoch": 1}


@pytest.mark.parametrize("save", [save_state, save_weights])
def test_an_error_while_saving_leaves_the_old_file(
    save: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.safetensors"
    save(path, {"w": torch.ones(3)})
    before = path.read_bytes()

    def full(target: Path, content: bytes) -> None:
        with target.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            save(path, {"w": torch.zeros(3)})
    assert path.read_bytes() == before
    save(path, {"w": torch.zeros(3)})
    assert torch.equal(load_weights_or_state(path)["w"], torch.zeros(3))


def load_weights_or_state(path: Path) -> dict[str, Any]:
    try:
        return load_state(path)
    except CheckpointError:
        return load_weights(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_checkpoint_is_read_by_whoever_may_read_other_files(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", {"w": torch.ones(1)})
    (tmp_path / "other").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("w.safetensors", "other")]
    assert modes[0] == modes[1]


def test_every_truncated_file_is_refused_by_name(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    save_state(whole, {"model": {"w": torch.rand(20)}, "epoch": 3})
    content = whole.read_bytes()
    for length in (0, 1, 7, 8, 9, len(content) // 2, len(content) - 4, len(content) - 1):
        cut.write_bytes(content[:length])
        for read in (load_state, load_weights):
            with pytest.raises(CheckpointError, match=r"cut.safetensors is damaged"):
                read(cut)


def test_a_truncated_pt_file_is_refused_by_name(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.pt", tmp_path / "cut.pt"
    torch.save({"w": torch.rand(20)}, whole)
    content = whole.read_bytes()
    for length in (0, 1, 9, len(content) // 2, len(content) - 4):
        cut.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut.pt is damaged"):
            load_weights(cut)


@pytest.mark.parametrize("read", [load_state, load_weights])
def test_a_missing_file_is_named(read: Callable[[Path], Any], tmp_path: Path) -> None:
    for name in ("absent.safetensors", "absent.pt"):
        with pytest.raises(FileNotFoundError, match=name):
            read(tmp_path / name)


def test_a_weights_file_is_no_state_and_a_state_gives_its_weights(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    save_weights(tmp_path / "w.safetensors", model.state_dict())
    with pytest.raises(CheckpointError, match="weights only"):
        load_state(tmp_path / "w.safetensors")
    save_state(tmp_path / "s.safetensors", {"model": model.state_dict(), "epoch": 1})
    for name in ("w", "s"):
        loaded = load_weights(tmp_path / f"{name}.safetensors")
        assert loaded.keys() == model.state_dict().keys()
        nn.Linear(3, 2).load_state_dict(loaded)
        assert torch.equal(loaded["weight"], model.weight)


def test_a_state_without_weights_is_refused_by_name(tmp_path: Path) -> None:
    save_state(tmp_path / "margins.safetensors", {"margins": torch.ones(3)})
    with pytest.raises(CheckpointError, match=r"margins.safetensors"):
        load_file(nn.Linear(3, 2), tmp_path / "margins.safetensors")


class Tied(nn.Module):
    """Two layers that share one weight, and a view of a larger tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("column", torch.rand(3, 5)[:, 2])
        self.register_buffer("turned", torch.rand(2, 3).T)


def test_shared_and_strided_weights_are_saved_by_value(tmp_path: Path) -> None:
    model = Tied()
    save_weights(tmp_path / "w.safetensors", model.state_dict())
    save_state(tmp_path / "s.safetensors", {"model": model.state_dict(), "again": model.turned})
    for name in ("w", "s"):
        loaded = load_weights(tmp_path / f"{name}.safetensors")
        assert loaded.keys() == model.state_dict().keys()
        for key, value in model.state_dict().items():
            assert torch.equal(loaded[key], value)
    with torch.no_grad():
        model.first.weight.zero_()
    assert bool(load_weights(tmp_path / "w.safetensors")["first.weight"].any())


def test_what_was_loaded_does_not_hang_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    save_state(path, {"w": torch.ones(1000)})
    loaded = load_state(path)
    save_state(path, {"w": torch.zeros(10)})
    loaded["w"] += 1
    assert torch.equal(loaded["w"], torch.full((1000,), 2.0))
    assert torch.equal(load_state(path)["w"], torch.zeros(10))


def test_pt_files_of_common_shapes_give_their_weights(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    weights = model.state_dict()
    for number, content in enumerate(
        (
            weights,
            {"model": weights, "method": {"margins": {"values": torch.ones(3)}}},
            {"state_dict": weights, "epoch": 3, "lr": 0.1},
        )
    ):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        other = nn.Linear(3, 2)
        load_file(other, path)
        assert_same(dict(other.state_dict()), dict(weights))


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), {"lr": 0.1}, 3], ids=str)
def test_pt_files_without_weights_are_refused_by_name(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other.pt does not fit .* The file holds"):
        load_file(nn.Linear(2, 2), tmp_path / "other.pt")


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_file_that_would_execute_code_is_refused_and_does_not(
    form: str, suffix: str, tmp_path: Path
) -> None:
    mark, path = tmp_path / "executed", tmp_path / f"weights{suffix}"
    content = {"w": torch.ones(2), "evil": Malicious(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match="weights"):
        load_weights(path)
    assert not mark.exists()
    with pytest.raises(CheckpointError, match="weights"):
        load_state(path)
    assert not mark.exists()


def test_a_whole_pickled_module_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(CheckpointError, match=r"Save model.state_dict\(\)"):
        load_file(nn.Linear(2, 2), tmp_path / "module.pt")
