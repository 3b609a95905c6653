"""What an experiment of segmentation is: a YAML file, and the folder that it is made in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from ima.cores import threads
from ima.evaluation.attacks import find_attacks
from ima.files import read_json, write_text
from ima.nnunet.paper import PAPER_TASKS, PaperTask
from ima.nnunet.settings import TRAINERS
from ima.norms import L2
from ima.tasks import Segmentation
from ima.training.config_errors import (
    ConfigError,
    ask,
    check_name,
    check_numbers,
    find_config,
    nearest,
    read_yaml,
    validate,
)
from ima.training.settings import Strict

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]


class Entry(Strict):
    """One row of the table: how it is called, its trainer, and what its margins or noise need.

    label: of the row.
    trainer: such as nnUNetTrainerIMA.
    eps, delta: largest noise and growth of a margin, L2, in z-scored units; where the trainer
    takes none, or its name says eps, they are left out.
    """

    label: Name
    trainer: Annotated[str, Field(pattern=r"^nnUNetTrainer[A-Za-z0-9_]*$")]
    eps: Positive | None = None
    delta: Positive | None = None


class Attacks(Strict):
    """The attacks on the test slices and the noise radii.

    attacks: names of `ima list attacks`.
    eps: noise radii, L2, in z-scored units.
    samples: so many slices; all if null.
    """

    attacks: tuple[str, ...] = Field(min_length=1)
    eps: tuple[Positive, ...] = Field(min_length=1)
    samples: Count | None = None


def _apart(rows: tuple[Entry, ...]) -> tuple[Entry, ...]:
    # nnU-Net names the folder of a trained network by its trainer alone.
    for key in ("label", "trainer"):
        names = [getattr(row, key) for row in rows]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"expected every {key} once; {', '.join(twice)} comes more often")
    return rows


class Experiment(Strict):
    """A data set of the Decathlon, one recipe, and the rows that are trained with it.

    name: of the experiment, and of its folder.
    note: on the data, under the table.
    task: of the Decathlon, one of the paper's.
    configuration: nnU-Net's.
    train_cases: only so many of the paper's; all if null.
    batch_size, epochs, iterations: the recipe, iterations an epoch.
    standard_epochs: of the epochs, at the start, that train without noise.
    val_iterations: a validation; nnU-Net's if null.
    steps: of the attack in training.
    """

    name: Name
    note: str = ""
    task: str
    configuration: Literal["2d"] = "2d"
    train_cases: Count | None = None
    batch_size: Count
    epochs: Count
    standard_epochs: Annotated[int, Field(ge=0)] = 0
    iterations: Count
    val_iterations: Count | None = None
    steps: Count = 20
    rows: Annotated[tuple[Entry, ...], Field(min_length=1), AfterValidator(_apart)]
    evaluate: Attacks

    def select(self, labels: str | None) -> Experiment:
        """With some of the rows only, such as `STD,IMA`; ConfigError for one that is not there."""
        if labels is None:
            return self
        rows = {row.label: row for row in self.rows}
        wanted = [label.strip() for label in labels.split(",") if label.strip()]
        for label in wanted:
            check_name("--rows", label, rows)
        if not wanted:
            raise ConfigError(f"--rows is {labels!r}; expected some of {', '.join(rows)}")
        kept = tuple(row for label, row in rows.items() if label in wanted)
        return self.model_copy(update={"rows": kept})


def load_experiment(source: str | Path) -> Experiment:
    """The experiment in a YAML file, or one that comes with the library, by its name.

    Raises ConfigError for anything that cannot be run, which it names, FileNotFoundError for a
    missing file.
    """
    values = read_yaml(find_config(source, "nnunet"))
    check_numbers(values)
    experiment = validate(Experiment, values)
    check_name("task", experiment.task, PAPER_TASKS)
    _check(experiment)
    return experiment


def _check(one: Experiment) -> None:
    """Raise ConfigError for values of the right kind that cannot be run."""
    if one.standard_epochs >= one.epochs:
        raise ConfigError(
            f"standard_epochs: is {one.standard_epochs} of {one.epochs} epochs; expected fewer, as "
            "the others are those of a row's method"
        )
    for number, row in enumerate(one.rows):
        _check_row(f"rows.{number}", row, PAPER_TASKS[one.task].eps)
    for number, name in enumerate(one.evaluate.attacks):
        place = f"evaluate.attacks.{number}"
        ((_, found, _),) = ask(place, find_attacks, [name], Segmentation(), L2, None)
        if found.amplitude is not None:
            raise ConfigError(
                f"{place}: is {name!r}; white noise comes by itself: expected attacks with a "
                "radius, leave it out"
            )


def _check_row(place: str, row: Entry, papers: float) -> None:
    """The same for a row; papers: the eps of trainers that are told none."""
    if row.trainer not in TRAINERS:
        raise ConfigError(
            f"{place}.trainer: {row.trainer!r} is no trainer of this library, and others do not "
            f"follow the recipe (epochs, iterations, seed).{nearest(row.trainer, TRAINERS)} Known: "
            f"{', '.join(TRAINERS)}"
        )
    fixed = TRAINERS[row.trainer]
    if fixed is not None and row.eps is not None and row.eps != fixed:
        raise ConfigError(
            f"{place}.eps: is {exact(row.eps)}, but {row.trainer} trains with "
            f"{exact(fixed)}; leave it out, or choose nnUNetTrainerSAT"
        )
    eps = row.eps or fixed or papers
    if row.delta is not None and row.delta > eps:
        raise ConfigError(
            f"{place}.delta: is {exact(row.delta)}, above eps, {exact(eps)}; expected at most eps: "
            f"lower it, or raise {place}.eps"
        )


class _Trained(BaseModel):
    trainer: str


class _Record(BaseModel):
    """What must be in the record of an experiment."""

    rows: dict[str, _Trained]


@dataclass(frozen=True)
class Place:
    """Where an experiment is made: one folder with nnU-Net's three in it.

    data: the Decathlon's files, None to look for them; device: cpu, cuda or mps; seed: of the
    split and of the training; jobs: rows at a time.
    """

    experiment: Experiment
    folder: Path
    data: Path | None
    device: str
    seed: int
    jobs: int = 1

    @property
    def task(self) -> PaperTask:
        """The data set's row."""
        return PAPER_TASKS[self.experiment.task]

    @property
    def plans(self) -> str:
        """The name of the plans with the experiment's batch size."""
        return f"nnUNetPlansB{self.experiment.batch_size}"

    def within(self, which: Literal["raw", "preprocessed", "results"]) -> Path:
        """The data set's folder in one of nnU-Net's three."""
        return self.folder / f"nnUNet_{which}" / self.task.dataset()

    def trained(self, row: Entry) -> Path:
        """The folder of a row's trained network."""
        name = f"{row.trainer}__{self.plans}__{self.experiment.configuration}"
        return self.within("results") / name

    def log(self, what: str) -> Path:
        """What a command prints."""
        return self.folder / "logs" / f"{what}.log"

    def environ(self, row: Entry | None = None) -> dict[str, str]:
        """The variables that commands need; for a row, what its trainer is told."""
        whole = self.folder.absolute()
        named = {f"nnUNet_{one}": str(whole / f"nnUNet_{one}") for one in _FOLDERS}
        if self.device == "cpu":
            # Neither a pool of eight processes nor workers that take the cores from the training.
            named |= {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "0"}
        if self.jobs > 1:
            named["OMP_NUM_THREADS"] = str(threads(self.jobs))
        return named | ({} if row is None else self._told(row))

    def _told(self, row: Entry) -> dict[str, str]:
        one = self.experiment
        told: Mapping[str, float | None] = {
            "EPS": row.eps,
            "DELTA": row.delta,
            "STEPS": one.steps,
            "EPOCHS": one.epochs,
            "STANDARD_EPOCHS": one.standard_epochs or None,
            "ITERATIONS": one.iterations,
            "VAL_ITERATIONS": one.val_iterations,
            "SEED": self.seed,
        }
        return {f"IMA_{key}": exact(value) for key, value in told.items() if value is not None}

    def begin(self) -> None:
        """Make the folder, with a record of the experiment.

        Raises ConfigError where it holds another one, whose trained rows are not of this recipe, or
        the trainer of a row under another label.
        """
        record = self.folder / "experiment.json"
        now: dict[str, Any] = {
            **self.experiment.model_dump(mode="json", exclude={"note"}),
            "seed": self.seed,
        }
        rows = {row["label"]: row for row in now.pop("rows")}
        if record.exists():
            then = read_json(record, _Record)
            known = then.pop("rows")
            shared = [key for key in now if key != "evaluate" and now[key] != then.get(key)]
            changed = [label for label in rows if label in known and rows[label] != known[label]]
            if shared or changed:
                raise ConfigError(
                    f"{self.folder} holds an experiment with other values of "
                    f"{', '.join(shared + changed)}; choose another --folder, or remove this one"
                )
            # The first label is the one that was trained.
            labels = {row["trainer"]: label for label, row in reversed(known.items())}
            for label, row in rows.items():
                before = labels.get(row["trainer"], label)
                # One folder a trainer: the row would pass off that network as its own.
                if before != label:
                    raise ConfigError(
                        f"{self.folder} holds {row['trainer']} as row {before}, and a trainer has "
                        f"one network there; expected that label in place of {label}: call it so, "
                        "or choose another --folder"
                    )
            rows = known | rows
        write_text(record, json.dumps({**now, "rows": rows}, indent=2) + "\n")


def exact(value: float) -> str:
    """The text that reads back as the same number: `15` for 15.0, `0.1`, `20240115`."""
    return str(int(value)) if value == int(value) else repr(value)


_FOLDERS = ("raw", "preprocessed", "results")
