"""nnU-Net's own commands, called in this process with what they need to find our trainers."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"
WORKERS = "nnUNet_n_proc_DA"
SPLITS = "splits_final.json"

FOLDERS: Mapping[str, str] = {
    RAW: "the data in nnU-Net's raw format, as `ima data msd` writes it",
    PREPROCESSED: "plans and preprocessed data",
    RESULTS: "trained networks",
}
"""nnU-Net's three folders, by the variable that names them."""


@dataclass(frozen=True)
class Command:
    """One of nnU-Net's commands.

    name: in `ima nnunet`; original: its own name; module, entry: the function behind it;
    reads: variables of folders that must exist; writes: of folders that it makes.
    """

    name: str
    original: str
    module: str
    entry: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


COMMANDS: dict[str, Command] = {
    row.name: row
    for row in (
        Command(
            "plan",
            "nnUNetv2_plan_and_preprocess",
            "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
            "plan_and_preprocess_entry",
            (RAW,),
            (PREPROCESSED,),
        ),
        Command(
            "train",
            "nnUNetv2_train",
            "nnunetv2.run.run_training",
            "run_training_entry",
            (PREPROCESSED,),
            (RESULTS,),
        ),
        Command(
            "predict",
            "nnUNetv2_predict",
            "nnunetv2.inference.predict_from_raw_data",
            "predict_entry_point",
            (RESULTS,),
            (),
        ),
    )
}


def run_command(name: str, arguments: Sequence[str]) -> None:
    """Call command `name` of `COMMANDS` with nnU-Net's own `arguments`, in this process.

    Our trainers are found, torchvision is mended where it does not import, and on the CPU no more
    threads are taken than OMP_NUM_THREADS says. The environment is afterwards as before.

    Raises `ValueError` for a missing or wrong folder, `FileNotFoundError` for a dataset that is
    not there or not planned, `ImportError` or `RuntimeError` where nnU-Net is missing or too old;
    all before nnU-Net is loaded. What nnU-Net raises itself passes through.
    """
    row = COMMANDS[name]
    folders = _folders(row)
    if row.name == "plan":
        _one_split(folders, arguments)
    if row.name == "train":
        _planned(folders[PREPROCESSED], arguments)
    from ima.nnunet.environment import EXTERNAL, check_version, external_folder, mend_torchvision
    from ima.training.processes import ending_workers

    check_version()
    found = os.environ.get(EXTERNAL, "").split(os.pathsep)
    changes = {EXTERNAL: os.pathsep.join([str(external_folder()), *filter(None, found)])}
    # Without worker processes training is fine, but planning wants at least one thread.
    if row.name == "plan" and os.environ.get(WORKERS) == "0":
        changes[WORKERS] = "1"
    # nnU-Net's parsers read the words of the command line.
    words = patch.object(sys, "argv", [row.original, *arguments])
    with patch.dict(os.environ, changes), words, _threads(), ending_workers():
        mend_torchvision()
        with _looking(row):
            getattr(import_module(row.module), row.entry)()


def _looking(row: Command) -> AbstractContextManager[None]:
    """Within: who predicts looks whether the network is the one that was trained."""
    if row.name != "predict":
        return nullcontext()
    from ima.nnunet.predicting import networks_checked

    return networks_checked()


def _folders(row: Command) -> dict[str, Path]:
    """The folders that the command needs, by variable; those that it writes to are made."""
    missing = [name for name in (*row.reads, *row.writes) if not os.environ.get(name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        lines = "".join(f"\n  export {name}=/...    # {FOLDERS[name]}" for name in missing)
        raise ValueError(
            f"{' and '.join(missing)} {verb} not set; `ima nnunet {row.name}` needs to know "
            f"nnU-Net's folders:{lines}"
        )
    found = {name: Path(os.environ[name]) for name in (*row.reads, *row.writes)}
    for name in row.reads:
        if not found[name].is_dir():
            raise ValueError(
                f"{name} is {str(found[name])!r}, and there is no such folder; expected the one "
                f"that holds {FOLDERS[name]}"
            )
    for name in row.writes:
        if found[name].exists() and not found[name].is_dir():
            raise ValueError(f"{name} is {str(found[name])!r}, a file; expected a folder")
        found[name].mkdir(parents=True, exist_ok=True)
    return found


def dataset_folder(within: Path, dataset: str) -> Path | None:
    """The folder of a dataset, given by number or whole name, in one of nnU-Net's folders."""
    if dataset.startswith("Dataset"):
        return within / dataset if (within / dataset).is_dir() else None
    if not dataset.isdecimal():
        return None
    return next(iter(sorted(within.glob(f"Dataset{int(dataset):03d}_*/"))), None)


def _planned(preprocessed: Path, arguments: Sequence[str]) -> None:
    """Raise FileNotFoundError where the dataset to train on, or its plans, are not there."""
    dataset = arguments[0] if arguments else ""
    if not dataset or dataset.startswith("-"):
        return  # nnU-Net says itself what it expects, or that its flags come first.
    folder = dataset_folder(preprocessed, dataset)
    if folder is None:
        known = ", ".join(sorted(p.name for p in preprocessed.glob("Dataset*/"))) or "none"
        raise FileNotFoundError(
            f"dataset {dataset!r} is not planned: {preprocessed} (nnUNet_preprocessed) holds "
            f"{known}. Plan it first: ima nnunet plan -d {dataset} -c 2d"
        )
    plans = _after("-p", arguments) or "nnUNetPlans"
    if not (folder / f"{plans}.json").exists():
        known = ", ".join(sorted(p.stem for p in folder.glob("*Plans*.json"))) or "none"
        raise FileNotFoundError(
            f"{folder.name} has no plans {plans!r}, but {known}; choose with -p, or plan with "
            f"`ima nnunet plan -d {dataset}`"
        )


def _one_split(folders: Mapping[str, Path], arguments: Sequence[str]) -> None:
    """Raise ValueError where a dataset's split is not the one it was planned with before."""
    for dataset in values_after("-d", arguments):
        raw = dataset_folder(folders[RAW], dataset)
        made = None if raw is None else folders[PREPROCESSED] / raw.name
        if raw is None or made is None:
            continue  # nnU-Net says so.
        ours, theirs = raw / SPLITS, made / SPLITS
        # nnU-Net itself copies a split that comes with the raw data, and asserts that a copy which
        # is there already begins with the same folds, without a word.
        if ours.exists() and theirs.exists():
            wanted = _folds(ours)
            if _folds(theirs)[: len(wanted)] != wanted:
                raise ValueError(
                    f"{theirs} is another split than {ours}; if the new one is meant, remove the "
                    f"folder {made} and plan again"
                )


def _folds(file: Path) -> list[tuple[set[str], set[str]]]:
    try:
        return [
            (set(fold["train"]), set(fold["val"]))
            for fold in json.loads(file.read_text(encoding="utf-8"))
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} holds no list of folds, each with `train` and `val`; remove it, or make the "
            "data set again"
        ) from error


def plan_with_batch_size(arguments: Sequence[str], batch_size: int) -> list[Path]:
    """`plan`, and then the 2d plan of every dataset with batches of this size; the new files.

    Raises `ValueError` as `call` does, and where the plans' name cannot be told.
    """
    from ima.nnunet.plans import check_batch_size, with_batch_size

    check_batch_size(batch_size)
    base = _after("-overwrite_plans_name", arguments)
    if base is None and "-pl" in arguments:
        raise ValueError(
            "--batch-size with another planner (-pl) needs to know the plans' name; give it with "
            "-overwrite_plans_name"
        )
    run_command("plan", arguments)
    preprocessed = Path(os.environ[PREPROCESSED])
    folders = [dataset_folder(preprocessed, one) for one in values_after("-d", arguments)]
    return [
        folder / f"{with_batch_size(folder, batch_size, base or 'nnUNetPlans')}.json"
        for folder in folders
        if folder is not None
    ]


def values_after(flag: str, arguments: Sequence[str]) -> list[str]:
    """The values that follow `flag`, up to the next flag."""
    if flag not in arguments:
        return []
    values: list[str] = []
    for word in arguments[arguments.index(flag) + 1 :]:
        if word.startswith("-"):
            break
        values.append(word)
    return values


def _after(flag: str, arguments: Sequence[str]) -> str | None:
    return next(iter(values_after(flag, arguments)), None)


@contextmanager
def _threads() -> Generator[None]:
    """Where OMP_NUM_THREADS is set, nobody takes more: on the CPU nnU-Net takes all cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if not asked.isdecimal() or int(asked) < 1:
        yield
        return
    import torch

    before = torch.set_num_threads
    with patch.object(torch, "set_num_threads", lambda number: before(min(number, int(asked)))):
        yield
