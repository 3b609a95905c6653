"""Weights put back into the layout that they came in: of every usual layout, nothing else moves."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from test_weights import LAYOUTS, RAW, adam, lightning, net, under, weights
from torch import Tensor, nn

from ima.training.checkpoint import note_of, run_of, save_weights
from ima.training.rewrite import check_rewritable, write_like
from ima.training.tensor_file import CheckpointError
from ima.training.weights import load_file


@pytest.fixture
def new() -> nn.Module:
    model = net(7)
    model.load_state_dict(weights(7))
    return model


def same(model: nn.Module, path: Path) -> bool:
    """Whether the file holds the model's weights."""
    again = net(0)
    load_file(again, path)
    return all(
        torch.allclose(a.float(), b.float(), atol=1e-3)
        for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", [n for n in LAYOUTS if "arrays" not in n])
def test_every_layout_comes_back_as_it_was_with_other_weights(
    name: str, zipped: bool, tmp_path: Path, new: nn.Module
) -> None:
    old, out = tmp_path / "old.pt", tmp_path / "new.pt"
    torch.save(LAYOUTS[name][0], old, _use_new_zipfile_serialization=zipped)
    before = old.read_bytes()
    try:
        load_file(net(0), old)
    except CheckpointError:
        pytest.skip("no network's weights")
    check_rewritable(old, new)
    write_like(old, new, out)
    assert same(new, out)
    assert old.read_bytes() == before
    if not zipped:
        assert len(out.read_bytes()) == len(before)
        return
    with zipfile.ZipFile(old) as one, zipfile.ZipFile(out) as other:
        assert one.namelist() == other.namelist()
        for entry in one.namelist():
            if "/data/" not in entry:
                assert one.read(entry) == other.read(entry)
    torch.load(out, weights_only=False, mmap=True)


def test_averaged_weights_become_the_new_ones_and_the_rest_stays(
    tmp_path: Path, new: nn.Module
) -> None:
    old, out = tmp_path / "old.pt", tmp_path / "new.pt"
    content = {"state_dict": RAW, "state_dict_ema": weights(2), "optimizer": adam(), "epoch": 3}
    torch.save(content, old)
    write_like(old, new, out)
    found: dict[str, Any] = torch.load(out, weights_only=False)
    assert found["epoch"] == 3
    for key, value in new.state_dict().items():
        assert torch.equal(found["state_dict"][key], value)
        assert torch.equal(found["state_dict_ema"][key], value)
    for key, value in adam()["state"].items():
        assert torch.equal(found["optimizer"]["state"][key]["exp_avg"], value["exp_avg"])


def test_whoever_loaded_a_lightning_checkpoint_loads_the_new_one(
    tmp_path: Path, new: nn.Module
) -> None:
    old, out = tmp_path / "old.ckpt", tmp_path / "new.ckpt"
    torch.save(lightning(), old)
    write_like(old, new, out)
    found = torch.load(out, weights_only=False)
    assert found["hyper_parameters"]["net"].width == 3
    model = nn.ModuleDict({"model": net(0)})
    model.load_state_dict(found["state_dict"])
    assert torch.equal(model.get_parameter("model.fc.weight"), new.get_parameter("fc.weight"))


def test_tensors_that_share_their_numbers_and_lie_across_them(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)

    block = torch.arange(20.0)
    stored = {"a.weight": block[1:10].view(3, 3).t(), "b.weight": block[11:].view(3, 3)}
    torch.save(stored, tmp_path / "old.pt")
    model = Tied()
    write_like(tmp_path / "old.pt", model, tmp_path / "new.pt")
    found: dict[str, Tensor] = torch.load(tmp_path / "new.pt")
    assert torch.equal(found["a.weight"], model.a.weight)
    assert torch.equal(found["b.weight"], model.b.weight)
    assert found["a.weight"].stride() == (1, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_numbers_keep_their_kind(
    dtype: torch.dtype, suffix: str, tmp_path: Path, new: nn.Module
) -> None:
    old, out = tmp_path / f"old.{suffix}", tmp_path / f"new.{suffix}"
    stored = {k: v.to(dtype) if v.is_floating_point() else v for k, v in RAW.items()}
    (torch.save if suffix == "pt" else save_file)(stored, old)
    write_like(old, new, out)
    again = net(0)
    load_file(again, out)
    rounded = new.get_parameter("fc.weight").to(dtype).float()
    assert torch.equal(again.get_parameter("fc.weight"), rounded)


def test_safetensors_keep_their_names_notes_and_strangers(tmp_path: Path, new: nn.Module) -> None:
    old, out = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    stored = {**under("module."), "loss_fn.weight": torch.ones(3)}
    save_file(stored, old, {"format": "pt", "by": "me"})
    write_like(old, new, out)
    assert same(new, out)
    with safe_open(out, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "by": "me"}
        assert set(file.keys()) == set(stored)
        assert torch.equal(file.get_tensor("loss_fn.weight"), torch.ones(3))


def test_weights_of_a_run_are_no_longer_that_runs(tmp_path: Path, new: nn.Module) -> None:
    old, out = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    save_weights(old, RAW, "noted", run="this one")
    write_like(old, new, out)
    assert same(new, out)
    assert (note_of(out), run_of(out), run_of(old)) == ("noted", "", "this one")


@pytest.mark.parametrize(
    "content",
    [
        {k: v.numpy() for k, v in RAW.items()},
        {"state_dict": {k: np.asarray(v) for k, v in RAW.items()}},
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(
    content: Any, tmp_path: Path, new: nn.Module
) -> None:
    old = tmp_path / "old.pt"
    torch.save(content, old)
    load_file(net(0), old)
    with pytest.raises(CheckpointError, match=r"read and not written here.*save model.state_dict"):
        check_rewritable(old, new)
    with pytest.raises(CheckpointError, match="cannot be written again"):
        write_like(old, new, tmp_path / "new.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["old.pt"]


def test_a_network_that_translates_names_is_refused(tmp_path: Path) -> None:
    class Translates(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net(0)

        def load_state_dict(self, state_dict: Any, *more: Any, **named: Any) -> Any:
            known = {k.replace("first", "conv"): v for k, v in state_dict.items()}
            return self.inner.load_state_dict(known)

    old = tmp_path / "old.pt"
    torch.save({k.replace("conv", "first"): v for k, v in RAW.items()}, old)
    model = Translates()
    load_file(model, old)
    with pytest.raises(CheckpointError, match="under its own names"):
        check_rewritable(old, model)
