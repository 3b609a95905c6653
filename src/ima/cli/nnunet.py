"""`ima nnunet ...`: nnU-Net's own commands with our trainers, and whole experiments."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from ima.nnunet.settings import variables

if TYPE_CHECKING:
    from ima.nnunet.experiment import Place

Words = Annotated[str, Parameter(allow_leading_hyphen=True)]


def path() -> None:
    """Print the folder to export as nnUNet_extTrainer, so that nnU-Net finds the trainers."""
    from ima.nnunet.environment import external_folder

    print(external_folder())


def plan(*arguments: Words, batch_size: int | None = None) -> None:
    """Plan and preprocess datasets, as nnUNetv2_plan_and_preprocess does.

    Parameters
    ----------
    arguments:
        nnU-Net's own, such as -d 4 -c 2d; `nnUNetv2_plan_and_preprocess -h` lists them.
    batch_size:
        Also write the 2d plan with batches of this size, under its own name, such as nnUNetPlansB32
        for 32; use it with -p.

    """
    from ima.nnunet.commands import plan_with_batch_size, run_command

    if batch_size is None:
        run_command("plan", arguments)
        return
    for file in plan_with_batch_size(arguments, batch_size):
        print(f"plans with batches of {batch_size}: {file}; use them with -p {file.stem}")


train = App(
    name="train",
    help_epilogue=(
        "One iteration of nnUNetTrainerIMA costs 5 passes forward and back, one of SAT or IMAPaper "
        "up to IMA_STEPS + 2 passes; without noise it costs 1. nnU-Net trains 1000 epochs of 250 "
        f"iterations, so try smaller IMA_EPOCHS and IMA_ITERATIONS first.\n\n{variables()}"
    ),
)


@train.default
def training(*arguments: Words) -> None:
    """Train as nnUNetv2_train does, with our trainers.

    Parameters
    ----------
    arguments:
        nnU-Net's own, such as 4 2d 0 -tr nnUNetTrainerIMA; `nnUNetv2_train -h` lists them.
        Trainers: nnUNetTrainerIMA, which needs no setting; nnUNetTrainerIMAPaper, the paper's with
        IMA_EPS and IMA_DELTA; nnUNetTrainerSAT, with noise of IMA_EPS; nnUNetTrainerSAT5,
        nnUNetTrainerSAT10, nnUNetTrainerSAT15, nnUNetTrainerSAT20, nnUNetTrainerSAT25 and
        nnUNetTrainerSAT40, with noise of the size in the name; nnUNetTrainerSTD, without noise.

    """
    from ima.nnunet.commands import run_command

    run_command("train", arguments)


def predict(*arguments: Words) -> None:
    """Predict as nnUNetv2_predict does.

    Parameters
    ----------
    arguments:
        nnU-Net's own, such as -d 4 -c 2d -f 0 -tr nnUNetTrainerIMA -i images -o out;
        `nnUNetv2_predict -h` lists them.

    """
    from ima.nnunet.commands import run_command

    run_command("predict", arguments)


def compare(
    config: str,
    /,
    *,
    folder: Path | None = None,
    data: Path | None = None,
    rows: str | None = None,
    jobs: int = 1,
    device: str = "auto",
    seed: int = 0,
    time_budget: str | None = None,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Prepare, plan, train and attack every row of a table.

    Parameters
    ----------
    config:
        table6, table7, table8, hippocampus_small, or a YAML file like theirs.
    folder:
        The folder for all that is made. Default: `runs/nnunet/NAME`.
    data:
        The Decathlon's folder or .tar. Default: looked for in IMA_DATA.
    rows:
        Only some of the rows, such as STD,IMA.
    jobs:
        How many rows at a time; they share the cores.
    device:
        cpu, cuda, mps or auto.
    seed:
        Seed of the split of the cases, and of the training.
    time_budget:
        Such as 540s, 9m or 1h30m. Stop in time, with exit code 75; the same command continues. A
        training loses its unfinished epoch. Each call does at least one epoch, one batch of
        attacks, or one other step.
    dry_run:
        Print the commands that remain, and run none.

    """
    from ima.budget import OUT_OF_TIME, Budget, OutOfTime

    budget = None if time_budget is None else Budget.parse(time_budget)
    if jobs < 1:
        raise ValueError(f"--jobs is {jobs}; expected at least 1")
    from ima.nnunet.conduct import conduct, remaining
    from ima.nnunet.experiment import Place, load_experiment

    experiment = load_experiment(config).select(rows)
    place = Place(
        experiment,
        Path("runs") / "nnunet" / experiment.name if folder is None else folder,
        data=data,
        device=_device(device),
        seed=seed,
        jobs=jobs,
    )
    if dry_run:
        print(remaining(place))
        return
    try:
        conduct(place, budget=budget)
    except OutOfTime as stop:
        print(f"ima: {stop}; the same command continues", file=sys.stderr)
        sys.exit(OUT_OF_TIME)
    print(page(place, shlex.join(["ima", *sys.argv[1:]])))
    print(f"{place.folder / 'table.md'}: the tables with their pictures")


def page(place: Place, command: str) -> str:
    """Write the tables and pictures of all rows; the tables as text. command: as typed."""
    from ima.nnunet.conduct import provenance
    from ima.nnunet.steps import results
    from ima.report.comparison import Compared, Frame, write_comparison
    from ima.report.sources import read_source
    from ima.report.words import settings_told

    one = place.experiment
    sources = [read_source(results(place, row), row.label) for row in one.rows]
    told = settings_told([(source.label, source.main.settings) for source in sources])
    methods = [Compared(s.label, [s.main], overlays=s.overlays) for s in sources]
    remarks = (f"Made by `{command}`.", *told, provenance(place))
    return write_comparison(place.folder, methods, Frame(one.name, one.note, remarks=remarks))


def _device(name: str) -> str:
    """The device that nnU-Net is told."""
    known = ("auto", "cpu", "cuda", "mps")
    if name not in known:
        raise ValueError(f"--device is {name!r}; expected one of {', '.join(known)}")
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
