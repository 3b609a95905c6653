"""Weights of strangers: files of any usual kind and layout, of which nothing is executed."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ima.inert_pickle import PickleError
from ima.training import pt_file
from ima.training.layouts import (
    TRAINING,
    FoundLayout,
    LayoutError,
    differs,
    search_weights,
    some,
    take_weights,
)
from ima.training.tensor_file import CheckpointError, check_header, read_tensors, tree_of

SHARD = re.compile(r"-\d+-of-\d+\.")
"""In the names of files that hold one part of a network's weights."""

_OTHERS: tuple[tuple[Callable[[bytes, str], bool], str], ...] = (
    (lambda head, _: not head, "damaged: it is empty; fetch or save it again"),
    (
        lambda head, _: head.startswith(b"\x89HDF"),
        "an HDF5 file, as Keras writes weights; this library takes networks of PyTorch",
    ),
    (
        lambda head, name: (
            name.endswith((".onnx", ".ort")) or (head[:1] == b"\x08" and b"onnx" in head)
        ),
        "an ONNX file, which holds a graph and no state_dict; take the weights it was made from",
    ),
    (
        lambda _, name: name.endswith((".pb", ".index", ".tflite")) or ".data-0" in name,
        "a file of TensorFlow's; this library takes networks of PyTorch",
    ),
    (
        lambda head, _: head[:1] == b"{" and b'"weight_map"' in head,
        "the index of weights that lie in several files beside it: load them, put their tensors "
        "into one dict, and save that with safetensors",
    ),
    (
        lambda head, _: head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"\xfd7zXZ", b"BZh", b"Rar!")),
        "packed; unpack it and name the file of weights in it",
    ),
    (
        lambda head, _: head[257:262] == b"ustar",
        "a .tar; unpack it, or save its weights again with a PyTorch of today",
    ),
    (
        lambda head, _: head.startswith(b"version https://git-lfs"),
        "a pointer of Git LFS in the place of weights: fetch them with `git lfs pull`",
    ),
    (
        lambda head, _: head.lstrip()[:1] == b"<",
        "a web page in the place of weights: fetch them again",
    ),
)
"""What files are by their first bytes or their names, and in words what that is."""


class TrainingState(dict[str, Any]):
    """What is in a training state of this library's, whose weights have a known key."""


@contextmanager
def opened_weights(path: Path) -> Generator[Any]:
    """What a file of weights holds, while it is open, its tensors possibly unread.

    Raises CheckpointError, which says what the file is, for one that is damaged or no such file.
    """
    if is_safetensors(path):
        tensors, metadata = read_tensors(path)
        state = "tree" in metadata
        yield TrainingState(tree_of(path, metadata["tree"], tensors)) if state else tensors
        return
    check_file(path)
    try:
        with pt_file.opened_pt(path) as content:
            yield content
    except LayoutError as error:
        raise CheckpointError(f"{path} {_said(error)}") from error
    except CheckpointError:
        raise
    except pt_file.DAMAGED as error:
        told = _said(error) if isinstance(error, PickleError) else f"is damaged ({error})"
        raise CheckpointError(
            f"{path} {told}; expected a state_dict. Save model.state_dict() with safetensors, or "
            "with torch.save, or fetch the weights again"
        ) from error


def load_file(model: nn.Module, path: Path) -> str:
    """Load weights of any usual layout into a network; where they were, in words.

    They may lie below a key of the file, and their names may begin with what wrappers add. Raises
    CheckpointError for a file that cannot be read, that does not fit, or fits in several ways.
    """
    with opened_weights(path) as content:
        found = search_weights(content)
        if _whole(found) and not found.tensors:
            raise CheckpointError(f"{path} holds no state_dict{_whole(found)}")
        try:
            taken = take_weights(found, model.state_dict())
            model.load_state_dict(taken.weights)
            return taken.told
        except (LayoutError, RuntimeError) as error:
            told = _as_is(model, found)
            if told is None:
                part = ". It is one part of several: put them together"
                shard = part if SHARD.search(path.name) else ""
                raise CheckpointError(
                    f"{path} does not fit this network: {error}{shard}{_whole(found)}"
                ) from error
            return told


def _as_is(model: nn.Module, found: FoundLayout) -> str | None:
    """Load the one dict of a file that a network takes as it is, one that translates names too."""
    own = model.state_dict()
    took: list[tuple[str, dict[str, Tensor]]] = []
    for within in dict.fromkeys(name.within for name in found.tensors) or [()]:
        if any(TRAINING.search(part.lower()) for part in within):
            continue
        stored = {n.key: t for n, t in found.tensors.items() if n.within == within}
        if any(differs(tensor, own.get(key)) for key, tensor in stored.items()):
            continue
        weights = {key: tensor.load() for key, tensor in stored.items()}
        try:
            model.load_state_dict(weights)
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError):
            continue
        place = ".".join(within) or "the top of the file"
        took.append((f"{place}, {len(weights)} tensors", weights))
    same = all(_same(took[0][1], weights) for _, weights in took[1:])
    return took[0][0] if took and same else None


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def _whole(found: FoundLayout) -> str:
    """What to do with a network that was pickled whole, "" where there is none."""
    if not found.modules:
        return ""
    return (
        f". It holds a whole network ({some(found.modules)}), which only its own code can load: "
        "where you trust it, load it with torch.load(..., weights_only=False). Save "
        "model.state_dict() of it"
    )


def _said(error: Exception) -> str:
    return str(error).removeprefix("it ")


def is_safetensors(path: Path) -> bool:
    """Whether a file is called one, or is one by its first bytes."""
    if path.suffix == ".safetensors":
        return True
    head = check_header(path)
    size = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 8 + size <= path.stat().st_size


def check_file(path: Path) -> None:
    """Raise an error, without reading all of it, for what is no file of weights.

    FileNotFoundError where there is none, CheckpointError for what is known by its first bytes, or
    its name, as something else.
    """
    head = check_header(path)
    for fits, words in _OTHERS:
        if fits(head, path.name.lower()):
            raise CheckpointError(f"{path} is {words}")
