"""Trainers with networks of their own: nnU-Net and this library predict with what was trained."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from test_nnunet_evaluate import make
from torch import Tensor, nn

OWN = Path(__file__).parent / "own_trainers"

pytestmark = [
    pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnU-Net is not installed"),
    pytest.mark.filterwarnings("ignore"),
]

NAMES = {
    "nnUNetTrainerIMA": "nnUNetTrainer",
    "nnUNetTrainerSTD": "nnUNetTrainer",
    "nnUNetTrainerSAT5": "nnUNetTrainer",
    "Longer": "nnUNetTrainer",
    "Shallow": "nnUNetTrainer",
    "BatchNormed": "nnUNetTrainerBN",
    "Mine": "Mine",
    "Grandchild": "Grandchild",
    "Mixed": "Mixed",
    "OldWay": "OldWay",
    "Functional": "Functional",
    "Theirs": "Theirs",
}
"""By trainer the name that stands in its checkpoints: nnU-Net's own wherever the network is."""


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """nnU-Net finds the trainers in `own_trainers`; those that it imports are forgotten."""
    from ima.mending import mend_torchvision

    mend_torchvision()
    for name in [name for name in os.environ if name.startswith("IMA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("IMA_EPS", "5")
    monkeypatch.setenv("IMA_DELTA", "1")
    yield
    sys.modules.pop("trainers_of_ones_own", None)


def kind(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(OWN))
    import trainers_of_ones_own as theirs

    import ima.nnunet.trainers as ours

    return getattr(ours if name.startswith("nnUNetTrainer") else theirs, name)


def trained(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an untrained network of this trainer."""
    if name.startswith("nnUNetTrainerSAT5"):
        monkeypatch.delenv("IMA_EPS")
    folder = make(root, monkeypatch, trainer_class=kind(name, monkeypatch))
    monkeypatch.setenv("nnUNet_extTrainer", str(OWN))
    return folder


def predicted(folder: Path, x: Tensor) -> Tensor:
    """What nnU-Net's own predictor makes of a patch."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    network: Any = predictor.network
    with torch.no_grad():
        return network.eval()(x)


def evaluated(folder: Path, x: Tensor) -> Tensor:
    from ima.nnunet.trained import Trained

    with torch.no_grad():
        return Trained.open(folder).network()(x)


def stored(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_that_predicts_is_the_one_that_was_trained(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks: list[nn.Module] = []
    if name not in ("Theirs",):
        from ima.nnunet.base import Trainer

        save = Trainer.save_checkpoint

        def keep(self: Any, filename: str) -> None:
            networks.append(self.network)
            modes = [layer.training for layer in self.network.modules()]
            save(self, filename)
            assert modes == [layer.training for layer in self.network.modules()]

        monkeypatch.setattr(Trainer, "save_checkpoint", keep)
    folder = trained(name, tmp_path, monkeypatch)
    x = torch.randn(2, 1, 24, 24)
    assert stored(folder)["trainer_name"] == NAMES[name]
    once, again = predicted(folder, x), evaluated(folder, x)
    assert torch.equal(once, again)
    if networks:
        (network,) = networks
        with torch.no_grad():
            output: Any = network.eval()(x)
        expected = output[0] if isinstance(output, list | tuple) else output
        assert torch.equal(once, expected)
    if NAMES[name] == "nnUNetTrainer":
        # Neither this library nor a folder of trainers is needed.
        monkeypatch.delenv("nnUNet_extTrainer")
        assert torch.equal(predicted(folder, x), once)


@pytest.mark.parametrize("name", ["Mine", "Functional", "Theirs"])
def test_a_trainer_that_is_not_found_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.trained import Trained

    folder = trained(name, tmp_path, monkeypatch)
    for elsewhere in (None, tmp_path):
        if elsewhere is None:
            monkeypatch.delenv("nnUNet_extTrainer")
        else:
            monkeypatch.setenv("nnUNet_extTrainer", str(elsewhere))
        with pytest.raises(ValueError, match=rf"trainer {name}, which is found neither in nnU-Net"):
            Trained.open(folder).network()


@pytest.mark.parametrize(("name", "other"), [("Mine", "other layers"), ("Functional", "otherwise")])
def test_another_class_of_the_same_name_is_refused(
    name: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.trained import Trained

    folder = trained(name, tmp_path, monkeypatch)
    changed = tmp_path / "changed"
    changed.mkdir()
    text = (OWN / "trainers_of_ones_own.py").read_text()
    text = text.replace("nn.SiLU()", "nn.ReLU()").replace("torch.tanh(x)", "x - 3 * x.abs()")
    (changed / "later_version.py").write_text(text)
    monkeypatch.setenv("nnUNet_extTrainer", str(changed))
    with pytest.raises(ValueError, match=other):
        Trained.open(folder).network()


def test_a_network_that_is_changed_where_nnunet_does_not_look_is_told_and_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.networks import network_told
    from ima.nnunet.trained import Trained

    told: list[str] = []
    late = kind("Late", monkeypatch)
    initialize = late.initialize

    def keep(self: Any) -> None:
        initialize(self)
        state = torch.get_rng_state()
        told.extend(network_told(self))
        assert torch.equal(torch.get_rng_state(), state)

    monkeypatch.setattr(late, "initialize", keep)
    folder = trained("Late", tmp_path, monkeypatch)
    assert len(told) == 1 and "it was changed after build_network_architecture" in told[0]
    with pytest.raises(ValueError, match="it has other layers than the one that was trained"):
        Trained.open(folder).network()


@pytest.mark.parametrize("name", ["Mine", "Functional", "nnUNetTrainerIMA", "Longer"])
def test_checkpoints_from_before_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained(name, tmp_path, monkeypatch)
    x = torch.randn(1, 1, 24, 24)
    expected = evaluated(folder, x)
    # They called every network nnU-Net's own, and kept nothing of it.
    old = stored(folder) | {"trainer_name": "nnUNetTrainer"}
    del old["ima"]["network"]
    torch.save(old, folder / "fold_0" / "checkpoint_final.pth")
    assert torch.equal(evaluated(folder, x), expected)
