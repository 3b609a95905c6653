"""nnU-Net's predictor, which looks whether its network is the one that was trained."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from ima.nnunet.checkpoints import KEY
from ima.nnunet.networks import bare, check_portrait


@contextmanager
def networks_checked() -> Generator[None]:
    """Within: nnU-Net's predictor refuses a checkpoint whose network is not the one it built.

    It raises ValueError for one of this library's checkpoints with another network on record, see
    `portrait`; others keep no record of theirs.
    """
    kind: Any = import_module("nnunetv2.inference.predict_from_raw_data").nnUNetPredictor
    before = kind.initialize_from_trained_model_folder

    # nnU-Net gives these by name.
    def checked(
        self: Any,
        model_training_output_dir: str,
        use_folds: Any,
        checkpoint_name: str = "checkpoint_final.pth",
    ) -> None:
        before(self, model_training_output_dir, use_folds, checkpoint_name)
        folder = Path(model_training_output_dir)
        if use_folds is None:
            use_folds = kind.auto_detect_available_folds(str(folder), checkpoint_name)
        folds = [use_folds] if isinstance(use_folds, str) else use_folds
        _check(self, [folder / f"fold_{fold}" / checkpoint_name for fold in folds])

    with patch.object(kind, "initialize_from_trained_model_folder", checked):
        yield


def _check(predictor: Any, files: Sequence[Path]) -> None:
    """Raise ValueError where a file's record is not of the predictor's network."""
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    network, weights = bare(predictor.network), predictor.list_of_parameters
    stage = predictor.configuration_manager
    channels = determine_num_input_channels(predictor.plans_manager, stage, predictor.dataset_json)
    for file, own in zip(files, weights, strict=True):
        kept = _record(file)
        if not kept:
            continue
        network.load_state_dict(own)
        check_portrait(
            network,
            kept,
            channels,
            stage.patch_size,
            f"the network that {predictor.trainer_name} builds is not that of {file}",
        )
    network.load_state_dict(weights[0])


def _record(file: Path) -> dict[str, Any]:
    """What a checkpoint keeps of its network; nothing where it is none of this library's."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)[KEY]["network"]
    except Exception:
        # nnU-Net has read it: it is one without a record.
        return {}
