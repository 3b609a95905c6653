"""Checkpoints: one safetensors file each, tensors and JSON; nothing in it can execute."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ima.files import whole


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the text names the file and what to do."""


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers, strings and None.

    The file appears whole or not at all. Raises TypeError for anything else in the state.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(dict(state), "", tensors))
    _replace(path, tensors, {"tree": tree})


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote. Raises CheckpointError for damaged or other files."""
    tensors, metadata = _read(path)
    if "tree" not in metadata:
        raise CheckpointError(f"{path} holds weights only, no training state to continue from")
    try:
        return dict(_unpack(json.loads(metadata["tree"]), tensors))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged or no state of a training ({error!r}); train again"
        ) from error


_NEEDED: Any = object()


def peek(path: Path, name: str, default: Any = _NEEDED) -> Any:
    """One value at the top of what `save_state` wrote, such as a number, all else unread.

    default: where there is none of this name; CheckpointError if not given.
    """
    try:
        with safe_open(path, framework="pt") as file:
            top = dict(json.loads((file.metadata() or {})["tree"])["dict"])
            if name not in top and default is not _NEEDED:
                return default
            return _unpack(top[name], _Unread(file))
    except (SafetensorError, OSError, LookupError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged or no state of a training ({error!r}); train again"
        ) from error


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a model's state_dict under its plain names, as any safetensors reader expects."""
    _replace(path, {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}, {})


def load_weights(path: Path) -> dict[str, Tensor]:
    """A state_dict from `.safetensors`, or from a `.pt` file that holds tensors only.

    Raises CheckpointError for a damaged file, and for one that would execute code when loaded.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; expected a file of weights")
    if path.suffix == ".safetensors":
        tensors, metadata = _read(path)
        if "tree" not in metadata:
            return tensors
        state = load_state(path)
        if "model" not in state:
            raise CheckpointError(
                f"{path} holds a state without weights: it has {', '.join(state)}"
            )
        return state["model"]
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} is damaged, or holds more than tensors: loading it could execute code, so it "
            "is refused. Save model.state_dict() with safetensors, or with torch.save"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise CheckpointError(f"{path} holds no state_dict; expected names and tensors")
    return loaded


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; expected a file of weights")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({error}); train again, or use another "
            "checkpoint"
        ) from error


def _replace(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with whole(path) as beside:
        # Not `save_file`, whose files nobody but their owner can read.
        beside.write_bytes(save(tensors, metadata))


class _Unread(Mapping[str, Tensor]):
    """The tensors of an open file, each read when it is asked for."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getitem__(self, name: str) -> Tensor:
        return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.keys())

    def __len__(self) -> int:
        return len(self._file.keys())


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        # Numbered: keys that look alike, as 1 and "1", must not share a name.
        unique = f"{len(tensors)}.{name}"
        tensors[unique] = value.detach().cpu().contiguous().clone()
        return {"tensor": unique}
    if isinstance(value, Mapping):
        # As pairs: JSON would turn the optimiser's integer keys into strings.
        pairs = [
            [k, _pack(v, f"{name}.{k}" if name else str(k), tensors)] for k, v in value.items()
        ]
        return {"dict": pairs}
    if isinstance(value, list | tuple):
        return {"list": [_pack(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is {type(value).__name__}; a checkpoint holds tensors and numbers")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "dict" in value:
        return {k: _unpack(v, tensors) for k, v in value["dict"]}
    return [_unpack(v, tensors) for v in value["list"]]
