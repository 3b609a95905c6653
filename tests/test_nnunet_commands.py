"""`ima nnunet`: nnU-Net's commands are called as they are, and a whole table by one command."""

from __future__ import annotations

import inspect
import json
import os
import pkgutil
import re
import shlex
import signal
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny_nnunet import DATASET, DATASET_ID, Folders, make_raw

import ima.nnunet.conduct as conducting
import ima.training.children as children
from ima.budget import Budget, OutOfTime
from ima.cli import app, main
from ima.cli.nnunet import page
from ima.evaluation.results import Results, Row
from ima.evaluation.settings import Settings as Made
from ima.files import file_digest
from ima.measures import DICE
from ima.nnunet.cases import OWN_TEST
from ima.nnunet.commands import COMMANDS, Command, dataset_folder, plan_with_batch_size, run_command
from ima.nnunet.environment import external_folder
from ima.nnunet.experiment import Experiment, Place, load_experiment
from ima.nnunet.paper import PAPER_TASKS, by_dataset
from ima.nnunet.plans import with_batch_size
from ima.nnunet.settings import CONFIG, KEYS, TRAINERS, Settings
from ima.nnunet.steps import attack, results
from ima.parent import PARENT
from ima.training.config_errors import ConfigError, packaged

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
REAL = Path(os.environ.get("IMA_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No nnU-Net folders, no settings of trainers, unless a test sets them."""
    for name in list(os.environ):
        if name.startswith(("nnUNet_", "IMA_")):
            monkeypatch.delenv(name)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """nnU-Net's three folders, empty, with a planned data set of number 4."""
    made = {name: tmp_path / name for name in VARIABLES}
    for name, folder in made.items():
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    home = made["nnUNet_preprocessed"] / "Dataset004_Hippocampus"
    home.mkdir()
    (home / "nnUNetPlans.json").write_text("{}")
    return made


class Entry:
    """Stands for nnU-Net's own function; keeps what it saw."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, fails: bool = False) -> None:
        self.seen: dict[str, Any] = {}
        self.fails = fails
        module = types.ModuleType("stands_for_nnunet")
        module.entry = self  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        row = COMMANDS[name]
        stand = Command(name, row.original, module.__name__, "entry", row.reads, row.writes)
        monkeypatch.setitem(COMMANDS, name, stand)

    def __call__(self) -> None:
        torch.set_num_threads(2)
        self.seen = {"argv": list(sys.argv), "threads": torch.get_num_threads(), **os.environ}
        if self.fails:
            raise RuntimeError("nnU-Net's own words")


def told() -> dict[str, str]:
    """The variables that nnU-Net and its threads listen to."""
    return {k: v for k, v in os.environ.items() if k.startswith(("nnUNet_", "IMA_", "OMP_"))}


def said(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of the command line in this process."""
    before, code = sys.argv, 0
    sys.argv = ["ima", *words]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Cyclopts application invoked without tokens")
            main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = before
    shown = capsys.readouterr()
    return code, shown.out, shown.err


# --- nnU-Net's own commands -------------------------------------------------------------------


def test_the_folder_to_export_holds_the_module_that_nnunet_looks_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = said("nnunet", "path", capsys=capsys)
    assert (code, err) == (0, "")
    folder = Path(out.strip())
    assert folder == external_folder()
    assert [module.name for module in pkgutil.iter_modules([str(folder)])] == ["ima_trainers"]


def test_help_and_path_load_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from ima.cli import app\n"
        "for words in (['--help'], ['path', '--help'], ['path'], ['train', '--help'],\n"
        "              ['plan', '-h'], ['compare', '--help']):\n"
        "    try:\n"
        "        app(['nnunet', *words])\n"
        "    except SystemExit:\n"
        "        pass\n"
        "heavy = {'torch', 'numpy', 'nnunetv2', 'pydantic', 'SimpleITK'}\n"
        "sys.exit(' '.join(sorted(heavy & sys.modules.keys())) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, f"loaded: {done.stderr}"
    for name in ("path", "plan", "train", "predict", "compare"):
        assert name in done.stdout


def test_the_help_of_training_says_every_variable_and_the_cost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in ("80", "120"):
        monkeypatch.setenv("COLUMNS", columns)
        code, out, err = said("nnunet", "train", "--help", capsys=capsys)
        assert (code, err) == (0, "")
        rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
        for key in KEYS.values():
            assert key.told in rows[key.variable]
        assert CONFIG in rows
        joined = " ".join(out.split())
        assert "IMA_STEPS + 2 passes" in joined and "1000 epochs of 250" in joined


@pytest.mark.parametrize("name", COMMANDS)
def test_a_missing_folder_is_named_before_nnunet_is_loaded(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, row = Entry(monkeypatch, name), COMMANDS[name]
    for variable in (*row.reads, *row.writes):
        with monkeypatch.context() as without:
            without.setenv(variable, "")
            with pytest.raises(
                ValueError, match=rf"(?s)^{variable} is not set.*export {variable}="
            ):
                run_command(name, ["4", "2d", "0"])
    for variable in row.reads:
        with monkeypatch.context() as wrong:
            wrong.setenv(variable, str(folders[variable] / "none"))
            with pytest.raises(ValueError, match=rf"{variable} is '.*none', and there is no such"):
                run_command(name, ["4", "2d", "0"])
    for variable in row.writes:
        with monkeypatch.context() as wrong:
            file = folders[variable] / "file"
            file.touch()
            wrong.setenv(variable, str(file))
            with pytest.raises(ValueError, match=rf"{variable} is '.*', a file"):
                run_command(name, ["4", "2d", "0"])
    assert not entry.seen


def test_a_missing_nnunet_is_named(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = Entry(monkeypatch, "train")

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("ima.nnunet.environment.metadata.version", missing)
    code, _, err = said("nnunet", "train", "4", "2d", "0", capsys=capsys)
    assert code == 1 and err.startswith("ima: nnU-Net is not installed") and "'ima[nnunet]'" in err
    assert not entry.seen


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("plan", ["-d", "4", "7", "-c", "2d", "--verify_dataset_integrity", "-np", "1"]),
        ("train", ["4", "2d", "0", "-tr", "nnUNetTrainerIMAPaper", "--c", "-device", "cpu"]),
        ("train", ["Dataset004_Hippocampus", "2d", "all", "--npz", "-p", "nnUNetPlans"]),
        ("predict", ["-d", "4", "-i", "in", "-o", "out", "--disable_tta", "-f", "0", "1"]),
    ],
)
def test_arguments_pass_untouched_and_the_process_stays_as_it_was(
    name: str,
    words: list[str],
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = Entry(monkeypatch, name)
    monkeypatch.setenv("nnUNet_extTrainer", "/mine")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = told()
    code, _, err = said("nnunet", name, *words, capsys=capsys)
    assert (code, err) == (0, "")
    original = {"plan": "plan_and_preprocess"}.get(name, name)
    assert entry.seen["argv"] == [f"nnUNetv2_{original}", *words]
    assert entry.seen["nnUNet_extTrainer"] == f"{external_folder()}{os.pathsep}/mine"
    # Planning sets as many threads as there are workers, of which there must be one.
    assert entry.seen["nnUNet_n_proc_DA"] == ("1" if name == "plan" else "0")
    assert entry.seen["threads"] == 1
    assert told() == before


def test_an_error_of_nnunets_own_passes_through(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    Entry(monkeypatch, "train", fails=True)
    before, words, threads = told(), list(sys.argv), torch.set_num_threads
    with pytest.raises(RuntimeError, match="nnU-Net's own words"):
        run_command("train", ["4", "2d", "0"])
    assert told() == before and sys.argv == words
    assert torch.set_num_threads is threads


def test_what_is_not_planned_is_named_before_training(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry(monkeypatch, "train")
    for dataset in ("5", "Dataset005_Prostate", "Hippocampus"):
        with pytest.raises(
            FileNotFoundError, match=rf"'{dataset}' is not planned.*Dataset004_Hipp"
        ):
            run_command("train", [dataset, "2d", "0"])
    with pytest.raises(FileNotFoundError, match="has no plans 'nnUNetPlansB32', but nnUNetPlans"):
        run_command("train", ["4", "2d", "0", "-p", "nnUNetPlansB32"])
    assert not entry.seen
    run_command("train", ["004", "2d", "0"])
    assert entry.seen


def test_another_split_than_the_planned_one_is_refused(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry(monkeypatch, "plan")
    raw = folders["nnUNet_raw"] / "Dataset004_Hippocampus"
    made = folders["nnUNet_preprocessed"] / raw.name / "splits_final.json"
    raw.mkdir()
    (raw / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    made.write_text('[{"train": ["b"], "val": ["a"]}]')
    with pytest.raises(ValueError, match=r"is another split than .*remove the folder"):
        run_command("plan", ["-d", "4", "-c", "2d"])
    assert not entry.seen
    # A list in another layout, or with more folds, is the same split.
    made.write_text('[ {"val": ["b"], "train": ["a"]}, {"train": [], "val": []} ]')
    run_command("plan", ["-d", "4"])
    assert entry.seen


# --- Plans of another batch size --------------------------------------------------------------


def test_only_name_and_batch_size_differ(tmp_path: Path) -> None:
    plans = {
        "plans_name": "nnUNetPlans",
        "configurations": {
            "2d": {"batch_size": 366, "data_identifier": "nnUNetPlans_2d"},
            "3d_fullres": {"batch_size": 9, "data_identifier": "nnUNetPlans_3d_fullres"},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres"},
        },
    }
    file = tmp_path / "nnUNetPlans.json"
    file.write_text(json.dumps(plans))
    assert with_batch_size(tmp_path, 32) == "nnUNetPlansB32"
    made = json.loads((tmp_path / "nnUNetPlansB32.json").read_text())
    plans["plans_name"] = "nnUNetPlansB32"
    plans["configurations"]["2d"]["batch_size"] = 32  # type: ignore[index]
    assert made == plans
    assert json.loads(file.read_text())["configurations"]["2d"]["batch_size"] == 366
    assert with_batch_size(tmp_path, 4, "nnUNetPlansB32", "3d_fullres") == "nnUNetPlansB32B4"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "nnUNetPlans.json",
        "nnUNetPlansB32.json",
        "nnUNetPlansB32B4.json",
    ]
    with pytest.raises(ValueError, match="the batch size is 0; expected at least 1"):
        with_batch_size(tmp_path, 0)
    with pytest.raises(ValueError, match=r"'3d_cascade_fullres' .*expected one of 2d, 3d_fullres"):
        with_batch_size(tmp_path, 4, configuration="3d_cascade_fullres")
    with pytest.raises(FileNotFoundError, match=r"there are: nnUNetPlans, nnUNetPlansB32"):
        with_batch_size(tmp_path, 4, "nnUNetResEncUNetMPlans")


def test_a_batch_size_that_cannot_be_is_refused_before_planning(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry(monkeypatch, "plan")
    with pytest.raises(ValueError, match="batch size is 0"):
        plan_with_batch_size(["-d", "4"], 0)
    with pytest.raises(ValueError, match="-overwrite_plans_name"):
        plan_with_batch_size(["-d", "4", "-pl", "nnUNetPlannerResEncM"], 8)
    assert not entry.seen


# --- The real nnU-Net -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A tiny raw data set with a split of its own."""
    pytest.importorskip("nnunetv2", reason="nnU-Net is an extra, .[nnunet]")
    made = Folders(tmp_path_factory.mktemp("nnunet"))
    raw = make_raw(made.raw, cases=4, test_cases=1)
    names = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    split = [{"train": names[:3], "val": names[3:]}]
    (raw / "splits_final.json").write_text(json.dumps(split))
    return made


def run(tiny: Folders, *words: str, program: Sequence[str] = (), **variables: str) -> str:
    """The output of `ima nnunet` in a process of its own."""
    done = subprocess.run(
        [*(program or (sys.executable, "-m", "ima")), "nnunet", *words],
        env=tiny.environment(**variables),
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_plan_and_train_with_the_real_nnunet(tiny: Folders) -> None:
    words = ("-d", str(DATASET_ID), "-c", "2d", "-np", "1", "-npfp", "1")
    # No workers: training wants that, and planning fails where nobody takes care of it.
    out = run(tiny, "plan", *words, "--batch-size", "4", nnUNet_n_proc_DA="0")
    home = dataset_folder(tiny.preprocessed, str(DATASET_ID))
    assert home is not None and home.name == DATASET
    assert str(home / "nnUNetPlansB4.json") in out
    split = json.loads((tiny.raw / DATASET / "splits_final.json").read_text())
    assert json.loads((home / "splits_final.json").read_text()) == split

    # The installed script: the processes that nnU-Net spawns import it again.
    script = Path(sys.executable).with_name("ima")
    program = (str(script),) if script.exists() else ()
    short = {"IMA_EPOCHS": "1", "IMA_ITERATIONS": "1", "IMA_VAL_ITERATIONS": "1", "IMA_STEPS": "1"}
    words = (str(DATASET_ID), "2d", "0", "-tr", "nnUNetTrainerIMAPaper", "-p", "nnUNetPlansB4")
    run(tiny, "train", *words, "-device", "cpu", program=program, **short)
    trained = tiny.results / DATASET / "nnUNetTrainerIMAPaper__nnUNetPlansB4__2d"
    assert (trained / "fold_0" / "checkpoint_final.pth").exists()
    assert (trained / "fold_0" / "validation" / "summary.json").exists()
    made = json.loads((trained / "plans.json").read_text())
    assert made["configurations"]["2d"]["batch_size"] == 4


# --- Experiments ------------------------------------------------------------------------------


# Table, task, batch, largest margin, growth, SAT's radii, noise levels: Ma & Liang, Tables 6 to 8.
TABLES = {
    "table6": ("Task02_Heart", 40, 20, 5, (5, 15, 25), (5, 10, 15)),
    "table7": ("Task04_Hippocampus", 366, 15, 2, (5, 10, 15), (2, 6, 10)),
    "table8": ("Task05_Prostate", 32, 40, 10, (10, 20, 40), (10, 20, 40)),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_the_settings_of_the_paper(name: str) -> None:
    task, batch, eps, delta, radii, levels = TABLES[name]
    one = load_experiment(name)
    assert (one.name, one.task, one.configuration) == (name, task, "2d")
    assert (one.batch_size, one.epochs, one.iterations, one.steps) == (batch, 50, 50, 20)
    labels = ["STD", *(f"SAT{radius}" for radius in radii), "IMA"]
    assert [row.label for row in one.rows] == labels
    kinds = [*labels[:-1], "IMAPaper"]
    assert [row.trainer for row in one.rows] == [f"nnUNetTrainer{kind}" for kind in kinds]
    assert [(row.eps, row.delta) for row in one.rows] == [(None, None)] * 4 + [(eps, delta)]
    assert one.evaluate.eps == levels and one.evaluate.samples is None
    assert {"pgd-100", "ifgsm-10"} <= set(one.evaluate.attacks)
    # The same facts stand in the table of data sets and in the trainers' defaults.
    row = PAPER_TASKS[task]
    assert (row.batch_size, row.eps, row.delta, row.sat) == (batch, eps, delta, radii)
    assert row.levels == levels
    assert by_dataset(f"Dataset111_{row.title}") is row
    told = Settings.of(row.dataset(), 1, uses=("eps", "delta"), environ={})
    assert (told.eps, told.delta) == (eps, delta)


def test_the_trainers_that_experiments_name_exist_and_mean_what_they_say() -> None:
    pytest.importorskip("nnunetv2", reason="nnU-Net is an extra, .[nnunet]")
    from ima.nnunet.environment import mend_torchvision

    mend_torchvision()
    from ima.nnunet import trainers

    for name in packaged("nnunet"):
        for row in load_experiment(name).rows:
            assert row.trainer in trainers.__all__
            trainer = getattr(trainers, row.trainer)
            if row.label.startswith("SAT"):
                assert trainer.eps == float(row.label.removeprefix("SAT"))
    assert {name: getattr(trainers, name).eps for name in trainers.__all__} == TRAINERS


def test_help_and_page_name_every_trainer_and_nnunets_own_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nnunetv2", reason="nnU-Net is an extra, .[nnunet]")
    from ima.nnunet.environment import mend_torchvision

    mend_torchvision()
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from ima.nnunet import trainers

    monkeypatch.setenv("COLUMNS", "80")
    _, shown, _ = said("nnunet", "train", "--help", capsys=capsys)
    page = (Path(__file__).parents[1] / "docs" / "nnunet.md").read_text()
    for name in trainers.__all__:
        assert re.search(rf"{name}\b", shown) and f"`{name}`" in page
    source = inspect.getsource(nnUNetTrainer.__init__)
    for key, name in (
        ("epochs", "num_epochs"),
        ("iterations", "num_iterations_per_epoch"),
        ("val_iterations", "num_val_iterations_per_epoch"),
    ):
        theirs = KEYS[key].default.removeprefix("nnU-Net's ")
        assert re.search(rf"self\.{name} = {theirs}\b", source)


def test_the_small_experiment_has_one_recipe_for_all_and_lets_margins_reach_the_cap() -> None:
    small, big = load_experiment("hippocampus_small"), load_experiment("table7")
    assert small.task == big.task and small.batch_size == 32
    assert {"STD", "SAT5", "IMA"} <= {row.label for row in small.rows}
    assert small.evaluate.eps == big.evaluate.eps
    assert {"pgd-100", "ifgsm-10"} <= set(small.evaluate.attacks)
    ima = {row.label: row for row in small.rows}["IMA"]
    assert ima.eps == 15 and ima.delta is not None
    # 36 slices a case: visits of a slice on average, times what a margin grows a visit.
    visits = small.epochs * small.iterations * 32 / (36 * (small.train_cases or 208))
    assert visits * ima.delta >= ima.eps


def test_no_experiment_is_taken_for_a_config_of_a_classifier() -> None:
    assert not set(packaged("nnunet")) & set(packaged())
    assert set(packaged("nnunet")) >= {"table6", "table7", "table8", "hippocampus_small"}


FEW: dict[str, Any] = {
    "name": "few",
    "task": "Task04_Hippocampus",
    "batch_size": 8,
    "epochs": 2,
    "iterations": 3,
    "steps": 2,
    "rows": [
        {"label": "STD", "trainer": "nnUNetTrainerSTD"},
        {"label": "IMA", "trainer": "nnUNetTrainerIMAPaper", "eps": 15, "delta": 2.5},
    ],
    "evaluate": {"attacks": ["pgd-3"], "eps": [2, 6], "samples": 4},
}


def few(**changes: Any) -> Experiment:
    return Experiment.model_validate({**FEW, **changes})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"epoch": 3}, r"epoch: unknown key. Did you mean 'epochs'"),
        ({"task": "Task04_Hipocampus"}, r"task: unknown name .* Did you mean 'Task04_Hippocampus'"),
        ({"batch_size": 0}, r"batch_size: is 0"),
        ({"rows": []}, r"rows: is \[\]"),
        ({"rows": [FEW["rows"][0]] * 2}, r"every label once; STD"),
        ({"rows": [{"label": "A", "trainer": "mine"}]}, r"rows.0.trainer: is 'mine'"),
        (
            {"rows": [{**FEW["rows"][0], "label": label} for label in "AB"]},
            r"every trainer once; nnUNetTrainerSTD",
        ),
        ({"configuration": "3d_fullres"}, r"configuration: is '3d_fullres'"),
        ({"evaluate": {"attacks": [], "eps": [1]}}, r"evaluate.attacks"),
        ({"evaluate": {"attacks": ["pgd-3"], "eps": [0]}}, r"evaluate.eps.0"),
        (
            {"rows": [{"label": "A", "trainer": "nnUNetTrainer"}]},
            r"rows.0.trainer: 'nnUNetTrainer' is no trainer .* Did you mean 'nnUNetTrainerSTD'",
        ),
        (
            {"rows": [{**FEW["rows"][1], "trainer": "nnUNetTrainerIMAPaperA"}]},
            r"rows.0.trainer: 'nnUNetTrainerIMAPaperA' .* Did you mean 'nnUNetTrainerIMAPaper'",
        ),
        (
            {"rows": [{"label": "A", "trainer": "nnUNetTrainerSAT5", "eps": 6}]},
            r"rows.0.eps: is 6, but nnUNetTrainerSAT5 trains with 5",
        ),
        (
            {"rows": [FEW["rows"][0], {**FEW["rows"][1], "delta": 15.5}]},
            r"rows.1.delta: is 15.5, above eps, 15; expected at most eps",
        ),
        ({"epochs": True}, r"epochs: is True; expected numbers, not yes or no"),
        ({"evaluate": {"attacks": ["pgd-3"], "eps": [True]}}, r"evaluate.eps: is \[True\]"),
        ({"rows": [{**FEW["rows"][1], "eps": 1e-320}]}, r"rows.0.eps: is 1e-320"),
        ({"standard_epochs": 2}, r"standard_epochs: is 2 of 2 epochs; expected fewer"),
        (
            {"evaluate": {"attacks": ["pgd-3", "pdg-3"], "eps": [1]}},
            r"evaluate.attacks.1: unknown attack 'pdg-3'; .*'pgd-100'",
        ),
        (
            {"evaluate": {"attacks": ["pgd-3", "autoattack"], "eps": [1]}},
            r"evaluate.attacks.1: autoattack cannot run here",
        ),
        (
            {"evaluate": {"attacks": ["white-5"], "eps": [1]}},
            r"evaluate.attacks.0: is 'white-5'; white noise comes by itself",
        ),
    ],
)
def test_a_wrong_experiment_names_its_key(
    changes: dict[str, Any], match: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**FEW, **changes}))
    with pytest.raises(ConfigError, match=match):
        load_experiment(file)


def test_files_that_are_no_experiments(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'table7'.*hippocampus_small"):
        load_experiment("tabel7")
    for text, match in (("- a", "holds list"), ("a: [", "is not YAML")):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(ConfigError, match=match):
            load_experiment(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match="--rows: unknown name 'SAT7'"):
        load_experiment("table7").select("STD,SAT7")
    with pytest.raises(ConfigError, match="expected some of STD"):
        load_experiment("table7").select(" , ")
    assert [r.label for r in load_experiment("table7").select("IMA, STD").rows] == ["STD", "IMA"]


# --- A whole table ----------------------------------------------------------------------------

STUB = """
import json, os, subprocess, sys, time
from pathlib import Path

words = sys.argv[1:]
kept = {k: v for k, v in os.environ.items() if k.startswith(("IMA_", "nnUNet_", "OMP_"))}
home = Path(os.environ["nnUNet_raw"]).parent
with (home / "calls.jsonl").open("a") as log:
    log.write(json.dumps({"words": words, **kept}) + "\\n")
print("this is", *words)
if os.environ.get("IMA_PARENT"):
    from ima.parent import watch_parent

    watch_parent()


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


name = "Dataset004_Hippocampus"
if words[:2] == ["data", "msd"]:
    touch(Path(words[words.index("--raw") + 1]) / name / "dataset.json")
elif words[:2] == ["nnunet", "plan"]:
    batch = words[words.index("--batch-size") + 1]
    touch(Path(os.environ["nnUNet_preprocessed"]) / name / f"nnUNetPlansB{batch}.json")
elif words[:2] == ["nnunet", "train"]:
    trainer = words[words.index("-tr") + 1]
    fold = Path(os.environ["nnUNet_results"]) / name / f"{trainer}__nnUNetPlansB8__2d" / "fold_0"
    if (home / "fail").exists() and trainer == "nnUNetTrainerIMAPaper":
        sys.exit("no memory, says the trainer")
    if (home / "hang").exists():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        (home / "child").write_text(str(child.pid))
        touch(fold / "checkpoint_latest.pth")
        time.sleep(300)
    touch(fold / "checkpoint_final.pth")
else:
    from ima.evaluation.results import Results, Row
    from ima.evaluation.settings import Settings
    from ima.files import file_digest
    from ima.measures import DICE

    if (home / "late").exists():
        sys.exit(75)
    folder = Path(words[words.index("--nnunet") + 1])
    dice = 0.5 if "STD" in folder.name else 0.75
    kinds = {"clean": "clean", "pgd-3": "chosen"}
    rows = [
        Row(n, attack, eps, d := dice - eps / 20, eps, kinds[attack], f"case_{n}", 0,
            more={"pixels": 9, "present": 2, "dice_front": d, "dice_back": d})
        for attack, eps in (("clean", 0.0), ("pgd-3", 2.0), ("pgd-3", 6.0))
        for n in range(4)
    ]
    settings = Settings(
        norm="L2", measure=DICE, classes=("front", "back"), samples=4, total=99, data=name,
        label=folder.name.split("__")[0], eps=(2.0, 6.0), attacks={"pgd-3": "three steps"},
        file=file_digest(folder / "fold_0" / "checkpoint_final.pth"), dimensions=2,
    )
    out = folder / "fold_0" / "ima" / "results_nnunet.csv"
    out.parent.mkdir(parents=True, exist_ok=True)
    Results.of(rows, settings).to_csv(out)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An experiment whose commands are done by a stub, which leaves the files that they leave."""
    stub, data = tmp_path / "stub.py", tmp_path / "data" / "Task04_Hippocampus"
    stub.write_text(STUB)
    data.mkdir(parents=True)
    (data / "dataset.json").touch()
    monkeypatch.setattr(children, "PROGRAM", (sys.executable, str(stub)))
    return Place(few(), tmp_path / "made", tmp_path / "data", "cpu", seed=3)


def calls(place: Place) -> list[dict[str, Any]]:
    file = place.folder / "calls.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def conduct(
    place: Place, *, budget: Budget | None = None, dry_run: bool = False, command: str = ""
) -> str:
    """As `ima nnunet compare` does it: what it prints at the end."""
    if dry_run:
        return conducting.remaining(place)
    conducting.conduct(place, budget=budget)
    return page(place, command)


def done(place: Place) -> list[str]:
    """What was called, in short: the command, and of a row its trainer."""
    short: list[str] = []
    for one in calls(place):
        words = one["words"]
        trainer = [p for w in words for p in w.split("/") if p.startswith("nnUNetTrainer")]
        short.append(" ".join([words[0], words[1].strip("-"), *(t[13:16] for t in trainer)]))
    return short


def test_one_command_does_everything_in_its_order_and_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What the caller's shell says about trainers is not what the experiment says.
    monkeypatch.setenv("IMA_EPS", "99")
    monkeypatch.setenv("IMA_CONFIG", "mine.yaml")
    shown = conduct(place, command="ima nnunet compare few")
    assert done(place) == [
        "data msd",
        "nnunet plan",
        "nnunet train IMA",
        "evaluate nnunet IMA",
        "nnunet train STD",
        "evaluate nnunet STD",
    ]
    whole = place.folder.absolute()
    for one in calls(place):
        for which in ("raw", "preprocessed", "results"):
            assert one[f"nnUNet_{which}"] == str(whole / f"nnUNet_{which}")
        assert (one["nnUNet_def_n_proc"], one["nnUNet_n_proc_DA"]) == ("1", "0")
        assert "IMA_CONFIG" not in one
    msd, plan, margins, attack, standard, _ = calls(place)
    assert msd["words"][2:4] == ["Task04_Hippocampus", str(place.data)]
    assert msd["words"][-2:] == ["--seed", "3"]
    assert plan["words"][-2:] == ["--batch-size", "8"]
    recipe = {"IMA_EPOCHS": "2", "IMA_ITERATIONS": "3", "IMA_STEPS": "2", "IMA_SEED": "3"}
    for one in (standard, margins):
        assert recipe.items() <= one.items() and "IMA_VAL_ITERATIONS" not in one
        assert one["words"][2:5] == ["4", "2d", "0"] and "--c" not in one["words"]
        assert one["words"][one["words"].index("-p") + 1] == "nnUNetPlansB8"
        assert one["words"][one["words"].index("-device") + 1] == "cpu"
    assert "IMA_EPS" not in standard and "IMA_DELTA" not in standard
    assert (margins["IMA_EPS"], margins["IMA_DELTA"]) == ("15", "2.5")
    words = " ".join(attack["words"])
    assert "--attacks pgd-3 --eps 2 6 --samples 4 --seed 3 --device cpu" in words
    # Clean 0.5 and 0.75; at 6 they are 0.3 lower.
    page = (place.folder / "table.md").read_text()
    for row in ("STD", "0.500", "0.200", "IMA", "0.750", "0.450", "ima nnunet compare few"):
        assert row in page and (row in shown or row.startswith("ima"))
    assert page.index("| STD") < page.index("| IMA")
    assert "208 for training, 17 for validation, 35 for test" in page
    said = capsys.readouterr().out
    assert "IMA_EPS=15 IMA_DELTA=2.5 IMA_STEPS=2" in said
    assert f"export nnUNet_raw={whole}" in said

    before = len(calls(place))
    (place.folder / "table.md").unlink()
    conduct(place)
    assert len(calls(place)) == before and (place.folder / "table.md").exists()


def test_a_dry_run_prints_what_remains_and_does_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = conduct(place, dry_run=True).splitlines()
    commands_ = [shlex.split(line) for line in printed if not line.startswith("export ")]
    assert [words[0] for words in commands_].count("ima") == 4
    assert [words[words.index("ima") + 1] for words in commands_] == [
        "data",
        "nnunet",
        "nnunet",
        "evaluate",
        "nnunet",
        "evaluate",
    ]
    # Every command is one that the command line knows.
    for words in commands_:
        app.parse_args(words[words.index("ima") + 1 :])
    assert not place.folder.exists()
    assert "--train-cases" not in printed[-6] + printed[-5]
    less = Place(few(train_cases=40), place.folder, place.data, "cpu", seed=3)
    assert "--seed 3 --train-cases 40" in conduct(less, dry_run=True)
    place.within("raw").mkdir(parents=True)
    printed = conduct(place, dry_run=True)
    assert "data msd" not in printed and "nnunet plan" in printed
    fold = place.trained(place.experiment.rows[1]) / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_best.pth").touch()
    printed = conduct(place, dry_run=True).splitlines()
    assert [line.endswith("--c") for line in printed if "nnunet train" in line] == [False, True]


def test_new_attacks_and_new_weights_are_evaluated_again(place: Place) -> None:
    conduct(place)
    first = len(calls(place))
    fold = place.trained(place.experiment.rows[1]) / "fold_0"
    (fold / "checkpoint_final.pth").write_text("other weights")
    printed = conduct(place, dry_run=True)
    assert "evaluate --nnunet" in printed and "TrainerSTD" not in printed
    for changes in ({"samples": 5}, {"eps": [2]}, {"attacks": ["pgd-3", "ifgsm-2"]}):
        other = few(evaluate={**FEW["evaluate"], **changes})
        again = Place(other, place.folder, place.data, "cpu", seed=3)
        assert conduct(again, dry_run=True).count("evaluate --nnunet") == 2
    # All slices, when there are no more than were asked for before.
    assert len(calls(place)) == first


@pytest.mark.parametrize(
    ("asked", "told", "made"),
    [
        ({}, {}, True),
        ({"eps": [6, 2.0000001, 2]}, {}, True),
        ({"eps": [2]}, {}, False),
        ({"eps": [2, 6, 9]}, {}, False),
        ({"samples": 3}, {}, False),
        ({"samples": None}, {}, False),
        ({}, {"samples": 99}, False),
        ({"samples": 200}, {"samples": 99}, True),
        ({"samples": None}, {"samples": 99}, True),
        ({}, {"seed": 3}, True),
        ({}, {"seed": 4}, False),
        ({}, {"cases": OWN_TEST}, True),
        ({}, {"cases": "images in imagesTr, labels in held_out"}, False),
    ],
)
def test_an_evaluation_of_other_noise_or_samples_is_made_again(
    asked: dict[str, Any], told: dict[str, Any], made: bool, place: Place
) -> None:
    row = place.experiment.rows[0]
    weights = place.trained(row) / "fold_0" / "checkpoint_final.pth"
    weights.parent.mkdir(parents=True)
    weights.write_text("weights")
    known: dict[str, Any] = {"file": file_digest(weights), "samples": 4, "total": 99, **told}
    settings = Made(norm="L2", measure=DICE, classes=("front",), **known)
    more = {"pixels": 9, "present": 1, "dice_front": 0.5}
    rows = [
        Row(n, name, eps, 0.5, eps, kind, "case", 0, more=more)
        for name, kind, eps in (
            ("clean", "clean", 0.0),
            ("pgd-3", "chosen", 2.0),
            ("pgd-3", "chosen", 6.0),
        )
        for n in range(known["samples"])
    ]
    Results.of(rows, settings).to_csv(results(place, row))
    one = few(evaluate={**FEW["evaluate"], **asked})
    assert attack(Place(one, place.folder, None, "cpu", seed=3), row).done == made


def test_numbers_reach_the_commands_as_they_are(place: Place) -> None:
    one = few(
        rows=[{**FEW["rows"][1], "eps": 12.3456789}],
        evaluate={**FEW["evaluate"], "eps": [2, 1.23456789]},
    )
    printed = conduct(Place(one, place.folder, place.data, "cpu", seed=20240115), dry_run=True)
    for word in ("IMA_SEED=20240115", "IMA_EPS=12.3456789", "IMA_DELTA=2.5", "--eps 2 1.23456789"):
        assert f"{word} " in printed
    assert "--seed 20240115 " in printed


def test_a_failed_row_is_told_with_its_last_words_after_the_others(place: Place) -> None:
    place.folder.mkdir()
    (place.folder / "fail").touch()
    with pytest.raises(RuntimeError, match=r"(?s)IMA-train failed, see .*no memory, says the tra"):
        conduct(place)
    assert done(place)[2:] == ["nnunet train IMA", "nnunet train STD", "evaluate nnunet STD"]
    assert not (place.folder / "table.md").exists()
    (place.folder / "fail").unlink()
    conduct(place)
    assert done(place)[-2:] == ["nnunet train IMA", "evaluate nnunet IMA"]
    assert (place.folder / "table.md").exists()


class UntilBegun(Budget):
    """A budget that is spent when a training has left a checkpoint."""

    def __init__(self, folder: Path) -> None:
        super().__init__(200)
        self.folder = folder

    def over(self) -> bool:
        return self.end < time.monotonic() or bool(list(self.folder.rglob("checkpoint_latest.pth")))

    def left(self) -> float:
        return 0.0 if self.over() else super().left()


def gone(process: int) -> bool:
    for _ in range(100):
        state = Path(f"/proc/{process}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


def test_when_the_time_is_up_a_training_ends_with_its_children_and_continues(place: Place) -> None:
    place.folder.mkdir()
    (place.folder / "hang").touch()
    with pytest.raises(OutOfTime, match="IMA-train, STD-train"):
        conduct(place, budget=UntilBegun(place.folder))
    assert done(place)[-1] == "nnunet train IMA"
    assert gone(int((place.folder / "child").read_text()))
    (place.folder / "hang").unlink()
    conduct(place, budget=Budget(200))
    train = [one["words"] for one in calls(place) if "train" in one["words"]]
    assert [words[-1] for words in train] == ["cpu", "--c", "cpu"]
    # The trainers read their settings beside what is said of the budget.
    for one in (one for one in calls(place) if "train" in one["words"]):
        assert one[PARENT] and Settings.of("Dataset501_Tiny", 9, uses=KEYS, environ=one).epochs == 2
    # An evaluation stops itself in time.
    attacks = [one["words"] for one in calls(place) if "evaluate" in one["words"]]
    assert all(words[-2] == "--time-budget" and words[-1].endswith("s") for words in attacks)


def test_an_evaluation_that_stopped_for_time_is_no_failure(place: Place) -> None:
    place.folder.mkdir()
    (place.folder / "late").touch()
    with pytest.raises(OutOfTime, match="IMA-evaluate, STD-evaluate"):
        conduct(place)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL])
def test_a_command_that_ends_leaves_no_training_behind(
    number: signal.Signals, place: Place, tmp_path: Path
) -> None:
    place.folder.mkdir()
    (place.folder / "hang").touch()
    file = tmp_path / "few.yaml"
    file.write_text(yaml.safe_dump(FEW))
    script = (
        "import sys, ima.training.children as c\n"
        "c.PROGRAM = (sys.executable, sys.argv.pop(1))\n"
        "from ima.cli import main\n"
        "main()\n"
    )
    words = ("nnunet", "compare", str(file), "--folder", str(place.folder), "--device", "cpu")
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "stub.py", *words, "--data", str(place.data)]
    )
    try:
        for _ in range(600):
            if list(place.folder.rglob("checkpoint_latest.pth")) or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
    finally:
        process.kill()
        process.wait()
    assert gone(int((place.folder / "child").read_text()))


def test_rows_side_by_side_share_the_cores(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ima.cores.cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    conduct(Place(place.experiment, place.folder, place.data, "cpu", seed=3, jobs=2))
    assert {one["OMP_NUM_THREADS"] for one in calls(place)} == {"3"}
    assert sorted(done(place)[2:]) == [
        "evaluate nnunet IMA",
        "evaluate nnunet STD",
        "nnunet train IMA",
        "nnunet train STD",
    ]


def test_a_folder_of_another_experiment_is_refused(place: Place) -> None:
    place.begin()
    more = [*FEW["rows"], {"label": "SAT5", "trainer": "nnUNetTrainerSAT5"}]
    # Other attacks and further rows are the same experiment.
    for changes in ({"rows": more}, {"note": "x"}, {"evaluate": {"attacks": ["a"], "eps": [1]}}):
        Place(few(**changes), place.folder, None, "cpu", seed=3).begin()
    rows = [FEW["rows"][0], {**FEW["rows"][1], "eps": 14}]
    for changes, seed, what in (
        ({"epochs": 9}, 3, "epochs"),
        ({}, 4, "seed"),
        ({"rows": rows}, 3, "IMA"),
    ):
        with pytest.raises(ConfigError, match=rf"other values of {what}; choose another --folder"):
            Place(few(**changes), place.folder, None, "cpu", seed=seed).begin()
    other = [FEW["rows"][0], {**FEW["rows"][1], "label": "IMA14", "eps": 14}]
    with pytest.raises(ConfigError, match=r"IMAPaper as row IMA, .* in place of IMA14"):
        Place(few(rows=other), place.folder, None, "cpu", seed=3).begin()


def test_compare_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, match in (
        (["table9"], "Did you mean"),
        (["table7", "--jobs", "0"], "--jobs is 0"),
        (["table7", "--device", "tpu"], "--device is 'tpu'"),
        (["table7", "--time-budget", "soon"], "a time budget is 'soon'"),
        (["table7", "--rows", "SAT1"], "--rows: unknown name 'SAT1'"),
        (["table7", "--device", "cpu"], "Task04_Hippocampus was not found"),
    ):
        code, out, err = said("nnunet", "compare", *words, capsys=capsys)
        assert (code, out) == (1, "") and match in err and err.startswith("ima: ")
    assert not list(tmp_path.iterdir())


def test_the_real_hippocampus_by_its_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = REAL / "msd-hippocampus"
    if not source.is_dir():
        pytest.skip(f"real data looked for at {source.absolute()} (IMA_DATA) and not found")
    monkeypatch.setenv("IMA_DATA", str(REAL.resolve()))
    folder = str(tmp_path / "small")
    words = ("hippocampus_small", "--folder", folder, "--device", "cpu", "--dry-run")
    code, out, err = said("nnunet", "compare", *words, capsys=capsys)
    assert (code, err) == (0, "") and str(source.resolve()) in out
    assert out.count("nnunet train") == len(load_experiment("hippocampus_small").rows)
    assert not (tmp_path / "small").exists()
