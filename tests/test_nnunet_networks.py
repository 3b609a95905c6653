"""Trainers with networks of their own: nnU-Net and this library predict with what was trained."""

from __future__ import annotations

import copy
import os
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from test_nnunet_evaluate import make
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import HashStore

OWN = Path(__file__).parent / "own_trainers"

pytestmark = [
    pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnU-Net is not installed"),
    pytest.mark.filterwarnings("ignore"),
]

NAMES = {
    "nnUNetTrainerIMAPaper": "nnUNetTrainer",
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
    from ima.torchvision_compat import mend_torchvision

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


def predicted(folder: Path, x: Tensor, folds: tuple[int, ...] | None = (0,)) -> Tensor:
    """What nnU-Net's own predictor makes of a patch."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor: Any = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(
        str(folder), folds, checkpoint_name="checkpoint_final.pth"
    )
    network: Any = predictor.network
    with torch.no_grad():
        return network.eval()(x)


def predicted_here(folder: Path, x: Tensor, folds: tuple[int, ...] | None = (0,)) -> Tensor:
    """What it makes of it within `ima nnunet predict`."""
    from ima.nnunet import commands

    made: list[Tensor] = []
    module: Any = types.ModuleType("stands_for_nnunet")
    module.entry = lambda: made.append(predicted(folder, x, folds))
    row = replace(commands.COMMANDS["predict"], module=module.__name__, entry="entry")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        patch.setitem(commands.COMMANDS, "predict", row)
        commands.run_command("predict", [])
    return made[0]


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
        from ima.nnunet.networks import check_network

        save = Trainer.save_checkpoint

        def keep(self: Any, filename: str) -> None:
            networks.append(self.network)
            check_network(self)
            modes = [layer.training for layer in self.network.modules()]
            save(self, filename)
            assert modes == [layer.training for layer in self.network.modules()]

        monkeypatch.setattr(Trainer, "save_checkpoint", keep)
    folder = trained(name, tmp_path, monkeypatch)
    x = torch.randn(2, 1, 24, 24)
    assert stored(folder)["trainer_name"] == NAMES[name]
    once, again = predicted(folder, x), evaluated(folder, x)
    assert torch.equal(once, again)
    assert torch.equal(once, predicted_here(folder, x))
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


LATE = {
    "Late": ("other layers", "other layers"),
    "LateAnswers": ("it answers otherwise", "it answers otherwise"),
    "LateLayers": ("other layers", None),
}
"""By trainer that changes its network late what the training, and then who predicts, says of it."""


@pytest.mark.parametrize("name", LATE)
def test_a_network_that_is_changed_where_nnunet_does_not_look_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.base import Trainer
    from ima.nnunet.trained import Trained

    asked, save = list[str](), Trainer.save_checkpoint
    began, later = LATE[name]

    def keep(self: Any, filename: str) -> None:
        state = torch.get_rng_state()
        with pytest.raises(ValueError, match=f"{began}.*build_network_architecture"):
            self.on_train_start()
        assert torch.equal(torch.get_rng_state(), state)
        asked.append(name)
        # Nor is it saved; here it is, to see who predicts with it.
        with pytest.raises(ValueError, match=f"{began}.*build_network_architecture"):
            save(self, filename)
        save(self, filename)

    monkeypatch.setattr(Trainer, "save_checkpoint", keep)
    folder = trained(name, tmp_path, monkeypatch)
    assert asked == [name]
    if later is not None:
        with pytest.raises(ValueError, match=later):
            Trained.open(folder).network()
        # nnU-Net's own predictor would say nothing.
        predicted(folder, torch.randn(1, 1, 24, 24))
        with pytest.raises(ValueError, match=f"{later}.*build_network_architecture"):
            predicted_here(folder, torch.randn(1, 1, 24, 24))


def test_a_network_that_is_changed_when_the_training_begins_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from ima.nnunet.base import Trainer

    def begin(self: Any, _: str) -> None:
        self.on_train_start()
        # Before any data are read.
        self.train_step({"data": torch.empty(0), "target": [], "keys": [], "slices": []})

    # Of nnU-Net's own start nothing is needed here.
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda _: None)
    monkeypatch.setattr(Trainer, "save_checkpoint", begin)
    with pytest.raises(ValueError, match=r"LateStart .*other layers.*build_network_architecture"):
        trained("LateStart", tmp_path, monkeypatch)


def test_a_network_that_only_an_object_builds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.base import Trainer

    monkeypatch.setattr(Trainer, "save_checkpoint", lambda self, _: self.on_train_start())
    with pytest.raises(ValueError, match=r"OfAnObject.*@staticmethod"):
        trained("OfAnObject", tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["nnUNetTrainerIMAPaper", "BatchNormed", "Functional"])
def test_what_is_put_around_a_network_does_not_change_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ima.nnunet.base import Trainer
    from ima.nnunet.networks import check_network

    asked = list[str]()

    def wrap(self: Any, filename: str) -> None:
        plain = self.network
        self.network = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain))
        check_network(self)
        self.network = torch.compile(plain)
        check_network(self)
        distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
        try:
            self.network = nn.parallel.DistributedDataParallel(self.network)
            check_network(self)
        finally:
            distributed.destroy_process_group()
        asked.append(filename)

    monkeypatch.setattr(Trainer, "save_checkpoint", wrap)
    trained(name, tmp_path, monkeypatch)
    assert len(asked) == 1


@pytest.mark.parametrize("folds", [None, (0, 1)])
def test_every_fold_that_predicts_is_looked_at(
    folds: tuple[int, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, x = trained("Mine", tmp_path, monkeypatch), torch.randn(1, 1, 24, 24)
    (folder / "fold_1").mkdir()
    other = stored(folder)
    torch.save(other, folder / "fold_1" / "checkpoint_final.pth")
    assert torch.equal(predicted_here(folder, x, folds), predicted(folder, x))
    other["ima"]["network"]["layers"] = "another"
    torch.save(other, folder / "fold_1" / "checkpoint_final.pth")
    with pytest.raises(ValueError, match=r"fold_1.*other layers"):
        predicted_here(folder, x, folds)


@pytest.mark.parametrize("name", ["Mine", "Functional", "nnUNetTrainerIMAPaper", "Longer"])
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
