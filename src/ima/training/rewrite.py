"""Weights put back into the layout that they came in: the same keys, prefixes and containers.

What else the file holds stays as it was, such as an optimiser's state; a pickle in it is neither
made nor executed: only the bytes of the tensors change.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ima.files import whole
from ima.training.build import copyable
from ima.training.checkpoint import RUN
from ima.training.layouts import find_fits, search_weights
from ima.training.pt_file import write_pt
from ima.training.stored import Stored
from ima.training.tensor_file import (
    DIGEST,
    TREE_DIGEST,
    CheckpointError,
    read_tensors,
    tree_of,
    write_tensors,
)
from ima.training.weights import is_safetensors, load_file, opened_weights

SAVE = "save model.state_dict() with safetensors or torch.save, and give that file"


def check_rewritable(path: Path, model: nn.Module) -> None:
    """Raise CheckpointError where the network's weights cannot be put back into such a file."""
    with opened_weights(path) as content:
        places = _places(path, content, model.state_dict())
        if not is_safetensors(path) and any(_where(stored) is None for _, stored in places):
            raise CheckpointError(
                f"{path} holds its weights in a form that is read and not written here, such as "
                f"arrays of NumPy's; {SAVE}"
            )


def write_like(path: Path, model: nn.Module, out: Path) -> None:
    """Write the network's weights into a copy of the file that they came from.

    All sets of weights in it that fit the network become these, averaged ones (EMA) too. The file
    appears whole or not at all, and only if the network loads from it. Raises CheckpointError where
    it does not.
    """
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    write = _write_safetensors if is_safetensors(path) else _write_pt
    with whole(out) as beside:
        write(path, beside, weights)
        again = deepcopy(copyable(model))
        load_file(again, beside)
        for name, tensor in again.state_dict().items():
            # Where the file's numbers are shorter than the network's they round.
            if not torch.allclose(tensor.cpu().double(), weights[name].double(), rtol=1e-2):
                raise CheckpointError(f"{out} cannot be written: {name} comes back changed; {SAVE}")


def _places(path: Path, content: Any, wanted: Mapping[str, Any]) -> list[tuple[str, Stored]]:
    """The network's names, with the tensors of the file that stand for them."""
    fits = find_fits(search_weights(content), wanted)
    if not fits:
        raise CheckpointError(
            f"{path} does not hold this network's weights under its own names, so that they cannot "
            f"be put back; {SAVE}"
        )
    return [pair for fit in fits for pair in fit.tensors.items()]


def _where(stored: Stored) -> str | int | None:
    """Where in the file the tensor's numbers are; None where they are within others."""
    storage = stored.storage
    return None if storage is None or storage.where is None else storage.where()


def _write_safetensors(path: Path, out: Path, weights: Mapping[str, Tensor]) -> None:
    tensors, notes = read_tensors(path)
    content = tree_of(path, notes["tree"], tensors) if "tree" in notes else tensors
    new = {id(stored.load()): weights[key] for key, stored in _places(path, content, weights)}
    changed = {
        name: new[id(old)].to(old.dtype).contiguous() if id(old) in new else old
        for name, old in tensors.items()
    }
    if DIGEST in notes:
        # Another run's from now on: its own would take these for what it trained.
        write_tensors(
            out, changed, {k: v for k, v in notes.items() if k not in (DIGEST, TREE_DIGEST, RUN)}
        )
    else:
        out.write_bytes(save(changed, notes or None))


def _write_pt(path: Path, out: Path, weights: Mapping[str, Tensor]) -> None:
    raws: dict[str | int, bytearray] = {}
    with opened_weights(path) as content:
        for key, stored in _places(path, content, weights):
            where = _where(stored)
            if stored.storage is None or stored.view is None or where is None:
                raise CheckpointError(f"{path} cannot be written again; {SAVE}")
            raw = raws.setdefault(where, bytearray(stored.storage.read()))
            stored.view(raw).copy_(weights[key])
    write_pt(path, raws, out)
