"""Checkpoints: one safetensors file each, tensors and JSON; nothing in it can execute."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ima.training.tensor_file import (
    TREE_DIGEST,
    CheckpointError,
    check_digest,
    read_tensors,
    tensors_digest,
    tree_of,
    unpack,
    write_tensors,
)


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers, strings and None.

    The file appears whole or not at all. Raises TypeError for anything else in the state.
    """
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(dict(state), "", tensors))
    write_tensors(path, tensors, {"tree": tree})


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote. Raises CheckpointError for damaged or other files."""
    tensors, metadata = read_tensors(path)
    if "tree" not in metadata:
        raise CheckpointError(f"{path} holds weights only, no training state to continue from")
    return tree_of(path, metadata["tree"], tensors)


_NEEDED: Any = object()


def peek_state(path: Path, name: str, default: Any = _NEEDED) -> Any:
    """One value at the top of what `save_state` wrote, such as a number, all else unread.

    default: where there is none of this name; CheckpointError if not given.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            check_digest(path, metadata, TREE_DIGEST, tensors_digest({}, metadata["tree"]))
            top = dict(json.loads(metadata["tree"])["dict"])
            if name not in top and default is not _NEEDED:
                return default
            return unpack(top[name], _Unread(file))
    except CheckpointError:
        raise
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged or no state of a training ({error!r}); train again"
        ) from error


RUN = "ima_run"


def save_weights(
    path: Path, weights: Mapping[str, Tensor], note: str = "", *, run: str = ""
) -> None:
    """Write a model's state_dict under its plain names, as any safetensors reader expects.

    note: what is to be known of them, see `note_of`; run: which one wrote them, see `run_of`.
    """
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}
    said = {"note": note, RUN: run}
    write_tensors(path, tensors, {key: text for key, text in said.items() if text})


def note_of(path: Path) -> str:
    """What `save_weights` was told of the weights; empty where it was nothing."""
    return read_tensors(path)[1].get("note", "")


def run_of(path: Path) -> str:
    """Which run wrote the weights, as `save_weights` was told; empty where it was not."""
    return read_tensors(path)[1].get(RUN, "")


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
