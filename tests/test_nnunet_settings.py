"""What the nnU-Net trainers are told: variables, files, defaults, and what is refused."""

from __future__ import annotations

import math
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from ima.nnunet.checkpoints import best_dice, check_fold
from ima.nnunet.environment import check_version, external_folder
from ima.nnunet.settings import ALL as KINDS
from ima.nnunet.settings import CONFIG, KEYS, Settings, reach, used_by, variables
from ima.parent import PARENT

ALL = tuple(KEYS)


def settings(dataset: str = "Dataset501_Tiny", values: int = 576, **environ: str) -> Settings:
    return Settings.of(dataset, values, uses=ALL, environ=environ)


@pytest.mark.parametrize(
    ("dataset", "eps", "delta"),
    [
        ("Dataset002_Heart", 20, 5),
        ("Dataset004_Hippocampus", 15, 2),
        ("Dataset777_PROSTATE", 40, 10),
        ("Dataset501_Tiny", 2.4, 0.3),  # 0.1 * sqrt(576), an eighth of it
        ("Dataset020_HeartValves", 2.4, 0.3),
    ],
)
def test_noise_is_the_papers_or_follows_the_patch(dataset: str, eps: float, delta: float) -> None:
    got = settings(dataset)
    assert (got.eps, got.delta) == (eps, delta)
    assert (got.dice, got.steps, got.epochs, got.iterations) == (0.6, 20, None, None)


def test_another_eps_than_the_papers_does_not_keep_its_growth() -> None:
    assert settings("Dataset004_Hippocampus", IMA_EPS="8").delta == 1
    assert settings("Dataset004_Hippocampus", IMA_EPS="15").delta == 2


def test_a_variable_wins_over_the_file_and_the_file_over_the_paper(tmp_path: Path) -> None:
    file = tmp_path / "ima.yaml"
    file.write_text("eps: 6\nsteps: 5\ndelta: 1e-1\nval_iterations: 7\n")
    got = settings("Dataset002_Heart", IMA_CONFIG=str(file), IMA_EPS="7.5", IMA_SEED="3")
    assert (got.eps, got.delta, got.steps, got.val_iterations, got.seed) == (7.5, 0.1, 5, 7, 3)
    lines = {line.split()[0]: line for line in got.describe()}
    assert "7.5" in lines["eps"] and "IMA_EPS" in lines["eps"]
    assert "IMA_CONFIG" in lines["delta"] and "paper" in lines["dice"]
    assert "epochs" not in lines


def test_nothing_is_asked_of_a_trainer_that_it_does_not_use() -> None:
    got = Settings.of("Dataset002_Heart", 1, uses=("epochs",), environ={"IMA_EPS": "3"})
    assert got.eps is None and got.delta is None and got.steps is None


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"IMA_EPSS": "3"}, "IMA_EPSS is no setting. Did you mean IMA_EPS?"),
        ({"IMA_ITERATION": "3"}, "Did you mean IMA_ITERATIONS?"),
        ({"IMA_EPS": "3,5"}, "IMA_EPS is '3,5'; expected a number above 0"),
        ({"IMA_EPS": ""}, "IMA_EPS is ''"),
        ({"IMA_EPS": "0"}, "expected a number above 0"),
        ({"IMA_EPS": "nan"}, "expected a number above 0"),
        ({"IMA_EPS": "inf"}, "expected a number above 0"),
        ({"IMA_EPS": "1e-320"}, "expected a number above 0, of those of float32"),
        ({"IMA_EPS": "1e39"}, "expected a number above 0, of those of float32"),
        ({"IMA_DICE": "1"}, "expected a Dice, 0 to below 1"),
        ({"IMA_DICE": "-0.1"}, "expected a Dice"),
        ({"IMA_STEPS": "2.5"}, "IMA_STEPS is '2.5'; expected a whole number of at least 1"),
        ({"IMA_EPOCHS": "0"}, "expected a whole number of at least 1"),
        ({"IMA_SEED": "-1"}, "IMA_SEED is '-1'"),
        ({"IMA_EPS": "1", "IMA_DELTA": "2"}, r"delta is 2 \(IMA_DELTA\), above eps, 1 \(IMA_EPS\)"),
        ({"IMA_DELTA": "30"}, "above eps, 2.4"),
    ],
)
def test_wrong_variables_are_refused(environ: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        settings(**environ)


@pytest.mark.parametrize(
    ("yaml", "text"),
    [
        ("epochz: 3", "the key 'epochz', which is no setting. Did you mean epochs?"),
        ("IMA_EPS: 3", "no setting"),
        ("3: 3", "no setting"),
        ("eps: true", "eps in .*is True; expected a number above 0"),
        ("eps: [1]", r"is \[1\]"),
        ("epochs: 2.5", "expected a whole number"),
        ("epochs: .inf", "expected a whole number"),
        ("steps:", "is None"),
        ("- 3", "holds list; expected keys and values"),
        ("", "holds NoneType"),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, yaml: str, text: str) -> None:
    file = tmp_path / "ima.yaml"
    file.write_text(yaml)
    with pytest.raises(ValueError, match=text):
        settings(IMA_CONFIG=str(file))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"names 'nowhere\.yaml'"):
        settings(IMA_CONFIG="nowhere.yaml")


def test_the_librarys_other_variables_are_left_alone() -> None:
    others = {"IMA_DATA": "/data", "IMA_CACHE": "/cache", "IMA_JOBS": "2", PARENT: "600"}
    got = settings(OTHER_IMA_EPS="1", **others)
    assert got == settings()


def test_a_trainer_whose_name_says_eps_takes_no_other() -> None:
    for environ, fine in (({}, True), ({"IMA_EPS": "5"}, True), ({"IMA_EPS": "6"}, False)):
        if fine:
            got = Settings.of("Dataset004_Hippocampus", 1, uses=ALL, fixed_eps=5, environ=environ)
            assert (got.eps, got.delta) == (5, 0.625)
        else:
            with pytest.raises(ValueError, match=r"eps is 6 \(IMA_EPS\), but the trainer's name"):
                Settings.of("Dataset001_X", 1, uses=ALL, fixed_eps=5, environ=environ)


def test_margins_that_cannot_reach_their_cap_are_said() -> None:
    short = Settings(eps=10, delta=2)
    # 4 epochs of 10 iterations of 5: 200 draws of 50 slices, 4 each; 5 are needed.
    assert "visit each of 50 samples 4 times" in reach(short, 50, 5, 4, 10)
    assert "needs 5 visits" in reach(short, 50, 5, 4, 10)
    assert not reach(short, 40, 5, 4, 10)
    assert not reach(Settings(eps=10), 50, 5, 4, 10)


def test_values_for_a_checkpoint_are_plain() -> None:
    values = settings(IMA_EPOCHS="4").as_dict()
    assert set(values) == set(KEYS)
    assert {type(v) for v in values.values()} <= {int, float, type(None)}
    assert type(values["epochs"]) is int and math.isclose(values["eps"] or 0, 2.4)


def test_the_page_holds_the_table_of_variables_and_the_table_every_variable() -> None:
    table = variables().splitlines()
    known = [*(key.variable for key in KEYS.values()), CONFIG]
    assert [line.split(" | ")[0] for line in table[2:]] == [f"| {name}" for name in known]
    assert {line.count("|") for line in table} == {5}
    assert variables() in (Path(__file__).parents[1] / "docs" / "nnunet.md").read_text()


def test_every_kind_of_trainer_has_its_settings() -> None:
    schedule = {"dice", "epochs", "iterations", "val_iterations", "seed"}
    assert set(used_by("STD")) == schedule
    assert set(used_by("SAT")) == schedule | {"eps", "steps", "standard_epochs"}
    assert set(used_by("IMA")) == schedule | {"standard_epochs"}
    assert set(used_by("IMAPaper")) == set(KEYS)
    assert all(set(key.trainers) <= set(KINDS) for key in KEYS.values())


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("2.7.0", "nnU-Net 2.7.0 is installed; it does not look for trainers"),
        ("2.6", r"2\.8 is the first"),
        ("1.7.1", "does not look"),
        (None, "nnU-Net is not installed"),
    ],
)
def test_a_missing_or_old_nnunet_is_refused(
    monkeypatch: pytest.MonkeyPatch, version: str | None, text: str
) -> None:
    def told(name: str) -> str:
        assert name == "nnunetv2"
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", told)
    with pytest.raises(RuntimeError, match=text) as caught:
        check_version()
    assert "pip install 'ima[nnunet]'" in str(caught.value)


@pytest.mark.parametrize("version", ["2.8", "2.8.1", "2.10.3", "3.0", "2.8rc1", "2.8.0.dev1"])
def test_newer_versions_are_fine(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: version)
    check_version()


def test_the_external_folder_holds_one_module_that_pkgutil_finds() -> None:
    import pkgutil

    found = [module.name for module in pkgutil.iter_modules([str(external_folder())])]
    assert found == ["ima_trainers"]


def test_neither_nnunet_nor_torch_is_loaded_for_the_folder_and_the_settings() -> None:
    import subprocess

    code = (
        "import sys; from ima.nnunet.environment import external_folder; external_folder();"
        "from ima.nnunet.settings import Settings; Settings.of('x', 1, uses=());"
        "print({'torch', 'nnunetv2', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_folds_that_a_split_does_not_have(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset501_Tiny"
    folder.mkdir()
    check_fold(str(tmp_path), folder.name, 4)  # nnU-Net makes five
    check_fold(str(tmp_path), folder.name, "all")
    with pytest.raises(ValueError, match=r"fold is 5, but .* 0, 1, 2, 3, 4; or 'all'"):
        check_fold(str(tmp_path), folder.name, 5)
    (folder / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    check_fold(str(tmp_path), folder.name, 0)
    for fold in (1, -1):
        with pytest.raises(ValueError, match=r"splits_final.json is a split with 1 folds: 0"):
            check_fold(str(tmp_path), folder.name, fold)
    (folder / "splits_final.json").write_text("{")
    with pytest.raises(ValueError, match="holds no list of folds"):
        check_fold(str(tmp_path), folder.name, 0)


def test_the_best_dice_is_that_of_the_best_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint_best.pth"
    assert (best_dice(file, None), best_dice(file, 0.5)) == (None, 0.5)
    torch.save({"_best_ema": 0.7}, file)
    assert [best_dice(file, known) for known in (None, 0.5, 0.9)] == [0.7, 0.7, 0.9]
    file.write_bytes(file.read_bytes()[:50])
    assert best_dice(file, 0.5) == 0.5


@pytest.mark.parametrize("first", ["3", "4"])
def test_some_epochs_must_have_noise(first: str) -> None:
    given = {"IMA_EPOCHS": "3", "IMA_STANDARD_EPOCHS": first}
    with pytest.raises(ValueError, match=rf"standard_epochs is {first} .* of 3 epochs"):
        Settings.of("Dataset501_Tiny", 100, uses=ALL, environ=given)
    with pytest.raises(ValueError, match="of 1000 epochs"):
        Settings.of("Dataset501_Tiny", 100, uses=ALL, environ={"IMA_STANDARD_EPOCHS": "1000"})
    fewer = {**given, "IMA_STANDARD_EPOCHS": "2"}
    assert Settings.of("Dataset501_Tiny", 100, uses=ALL, environ=fewer).standard_epochs == 2


@pytest.mark.parametrize("name", ["EPS", "DELTA"])
def test_the_trainer_that_finds_its_radius_refuses_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name.lower()} is 3 .IMA_{name}., but nnUNetTrainerIMA"):
        Settings.of("Dataset007_Mine", 100, uses=used_by("IMA"), environ={f"IMA_{name}": "3"})
    made = Settings.of("Dataset007_Mine", 100, uses=used_by("IMA"), environ={"IMA_EPOCHS": "3"})
    assert (made.eps, made.delta, made.steps, made.epochs) == (None, None, None, 3)
