"""Files of tensors with a checksum: safetensors, their notes JSON; nothing in one can execute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ima.files import whole

DIGEST = "ima_digest"
"""The key of the checksum in a file's own notes; files of before version 0.6 have none."""

TREE_DIGEST = "ima_tree_digest"
"""The key of that of the tree of names alone, for who reads no tensors."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the text names the file and what to do."""


_HEAD = 4096
"""So many bytes tell what a file is."""


def check_header(path: Path) -> bytes:
    """The first bytes of a file; FileNotFoundError or CheckpointError where there is none."""
    try:
        there = path.exists()
    except (OSError, ValueError):  # a name that no file can have
        there = False
    if not there:
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; expected a file of weights")
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise type(error)(f"{path} cannot be read ({error.strerror or error})") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file, and its notes; CheckpointError for a damaged one."""
    check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, RuntimeError, ValueError, MemoryError) as error:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({error}); train again, or use another "
            "checkpoint with weights"
        ) from error
    if DIGEST in metadata or TREE_DIGEST in metadata:
        check_digest(
            path, {DIGEST: "", **metadata}, DIGEST, tensors_digest(tensors, _notes(metadata))
        )
        check_digest(path, metadata, TREE_DIGEST, tensors_digest({}, metadata.get("tree", "")))
    return tensors, metadata


def check_digest(path: Path, metadata: Mapping[str, str], key: str, now: str) -> None:
    """Raise CheckpointError where a file is not as it was written; old ones do not say."""
    if metadata.get(key, now) != now:
        raise CheckpointError(
            f"{path} is damaged: its checksum is not that of what was written into it. Put a copy "
            "of the file back, or train again"
        )


def _notes(metadata: Mapping[str, str]) -> str:
    """What a file says beside its tensors, less the checksums."""
    said = {k: v for k, v in metadata.items() if k not in (DIGEST, TREE_DIGEST)}
    return json.dumps(said, sort_keys=True)


def tensors_digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """A checksum of names, types, shapes and bytes, and of what is said beside them."""
    summed = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        summed.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        summed.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return summed.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors and notes with a checksum, whole or not at all."""
    metadata = {**metadata, DIGEST: tensors_digest(tensors, _notes(metadata))}
    if "tree" in metadata:
        metadata[TREE_DIGEST] = tensors_digest({}, metadata["tree"])
    with whole(path) as beside:
        # Not `save_file`, whose files nobody but their owner can read.
        beside.write_bytes(save(tensors, metadata))


def tree_of(path: Path, text: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The nested dicts and lists that a note describes, with their tensors."""
    try:
        tree = unpack(json.loads(text), tensors)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged: its tree of names cannot be read ({type(error).__name__}); train "
            "again, or use another checkpoint with weights"
        ) from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} holds no names and weights")
    return tree


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What a tree of a note stands for, with its tensors."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "dict" in value:
        return {k: unpack(v, tensors) for k, v in value["dict"]}
    return [unpack(v, tensors) for v in value["list"]]
