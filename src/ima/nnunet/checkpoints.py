"""nnU-Net's checkpoints with what a training method needs to continue, and which folds there are.

The key `ima` holds plain values and tensors: trainer, settings, method, cases, slices, network.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ima.files import whole
from ima.nnunet.settings import Settings

KEY = "ima"

_SAME = ("eps", "delta", "dice", "steps", "standard_epochs")
"""Settings that a continued training must share with the one before."""

FOLDS = 5
"""As many folds nnU-Net makes where a data set has no split yet."""


def check_fold(preprocessed: str, dataset: str, fold: int | str) -> None:
    """Raise ValueError for a fold that the data set's split does not have.

    nnU-Net itself would draw a random split.
    """
    if fold == "all":
        return
    file = Path(preprocessed) / dataset / "splits_final.json"
    folds, where = FOLDS, f"{dataset} has no split yet, so nnU-Net makes one"
    if file.is_file():
        try:
            folds = len(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file} holds no list of folds: {error}") from error
        where = f"{file} is a split"
    if not isinstance(fold, int) or not 0 <= fold < folds:
        known = ", ".join(map(str, range(folds)))
        raise ValueError(f"fold is {fold!r}, but {where} with {folds} folds: {known}; or 'all'")


def complete(
    save: Callable[[Any], None], filename: str, ours: dict[str, Any], builder: str
) -> None:
    """Write the checkpoint that `save` writes, with `ours` under the key `ima`, in one piece.

    builder: the trainer that nnU-Net is to ask for the network. The file can be read with
    `torch.load(..., weights_only=True)`.
    """
    memory = io.BytesIO()
    save(memory)
    memory.seek(0)
    # Written a moment ago by this process.
    checkpoint = torch.load(memory, map_location="cpu", weights_only=False)
    checkpoint["trainer_name"] = builder
    # Through a handle: torch writes a name that it is given into the file.
    with whole(Path(filename)) as beside, beside.open("wb") as file:
        torch.save(_plain({**checkpoint, KEY: ours}), file)


def read_checkpoint(filename: str, trainer: str, settings: Settings) -> dict[str, Any]:
    """What `complete` wrote under the key `ima`; nothing is unpickled but values and tensors.

    Raises ValueError for a file of another trainer, or with other settings.
    """
    try:
        checkpoint = torch.load(filename, map_location="cpu", weights_only=True)
        ours = checkpoint[KEY]
    except Exception as error:
        raise ValueError(
            f"{filename} cannot be continued: it is damaged, or no checkpoint of {trainer} "
            "(nnU-Net's own trainers keep no margins); start from its weights with "
            "-pretrained_weights, or anew without --c"
        ) from error
    if ours["trainer"] != trainer:
        raise ValueError(
            f"{filename} is a checkpoint of {ours['trainer']}, not of {trainer}; continue with "
            f"-tr {ours['trainer']}"
        )
    now = settings.as_dict()
    for name in _SAME:
        if ours["settings"][name] != now[name]:
            raise ValueError(
                f"{filename} was trained with {name} = {ours['settings'][name]}, but now {name} = "
                f"{now[name]} ({settings.sources.get(name, 'default')}); set IMA_{name.upper()} as "
                "before, or start anew without --c"
            )
    return ours


def best_dice(file: Path, known: float | None) -> float | None:
    """The moving Dice of the best checkpoint, or the one that is `known`: the higher.

    nnU-Net writes the latest checkpoint of an epoch before it notes that the epoch was the best, so
    what a continued training reads there can be too low, and a worse epoch would pass for the best.
    """
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)["_best_ema"]
    except Exception:
        # Where there is none, or a damaged one, the next epoch above what is known writes it.
        return known
    return max((dice for dice in (found, known) if dice is not None), default=None)


def _plain(value: Any) -> Any:
    """The value without numpy's numbers, which a safe load refuses."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(inner) for inner in value)
    return value.item() if isinstance(value, np.generic) else value
