"""The commands of an experiment, one after the other, and whether they are done."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ima.files import read_json, write_text
from ima.nnunet.experiment import Entry, Place, exact
from ima.nnunet.msd import locate_task
from ima.training.children import Work
from ima.training.run import environment


def shown(step: Work) -> str:
    """The command as typed, behind the variables of its own."""
    own = [f"{name}={value}" for name, value in step.environ.items() if name.startswith("IMA_")]
    return shlex.join([*own, "ima", *step.words])


def exports(place: Place) -> str:
    """The variables that all commands share, as a shell sets them."""
    return "\n".join(f"export {n}={shlex.quote(v)}" for n, v in place.environ().items())


def preparation(place: Place) -> Work:
    """The Decathlon's files in nnU-Net's raw format."""
    target = place.within("raw")
    source = target if target.exists() else locate_task(place.task, place.data)
    words = ("data", "msd", place.task.name, str(source), "--raw", str(target.parent))
    few = place.experiment.train_cases
    less = () if few is None else ("--train-cases", str(few))
    return _step(place, "prepare", (*words, "--seed", str(place.seed), *less), target.exists)


def plan_steps(place: Place) -> Work:
    """nnU-Net's plan and preprocessed data, and the plan of the experiment's batch size."""
    one = place.experiment
    words = ("-d", str(place.task.number), "-c", one.configuration, "-np", "1", "-npfp", "1")
    # The plan of a name of its own is written last, when all data are preprocessed.
    made = place.within("preprocessed") / f"{place.plans}.json"
    batch = ("--batch-size", str(one.batch_size))
    return _step(place, "plan", ("nnunet", "plan", *words, *batch), made.exists)


def train_network(place: Place, row: Entry) -> Work:
    """A row's training, continued where it was stopped."""
    fold = place.trained(row) / "fold_0"
    begun = any((fold / f"checkpoint_{which}.pth").exists() for which in ("latest", "best"))
    return _step(
        place,
        f"{row.label}-train",
        (
            *("nnunet", "train", str(place.task.number), place.experiment.configuration, "0"),
            *("-tr", row.trainer, "-p", place.plans, "-device", place.device),
            *(("--c",) if begun else ()),
        ),
        (fold / "checkpoint_final.pth").exists,
        row=row,
        renews=fold / "checkpoint_latest.pth",
    )


def attack(place: Place, row: Entry) -> Work:
    """The attacks on a row's trained network."""
    asked = place.experiment.evaluate
    samples = () if asked.samples is None else ("--samples", str(asked.samples))
    return _step(
        place,
        f"{row.label}-evaluate",
        (
            *("evaluate", "--nnunet", str(place.trained(row)), "--attacks", *asked.attacks),
            *("--eps", *map(exact, asked.eps), *samples),
            *("--seed", str(place.seed), "--device", place.device),
        ),
        partial(_attacked, place, row),
        timed=True,
    )


def _step(
    place: Place,
    name: str,
    words: tuple[str, ...],
    there: Callable[[], bool],
    *,
    timed: bool = False,
    row: Entry | None = None,
    renews: Path | None = None,
) -> Work:
    """A step. there: whether what it makes is; row: that it trains; renews: its checkpoint."""
    return Work(
        name,
        words,
        place.log(name),
        place.environ(row),
        done=there(),
        ended=lambda code: code == 0 and there(),
        timed=timed,
        renewed=partial(_written, renews),
        begin=partial(_begin, place, row is not None),
    )


def _written(file: Path | None) -> int | None:
    """When a file was written, None where there is none."""
    with suppress(OSError):
        return None if file is None else file.stat().st_mtime_ns
    return None


def _begin(place: Place, trains: bool, step: Work) -> None:
    """Say which command begins; of a training, add with what and where, for the page."""
    print(f"{shown(step)}\n  log: {step.log}", flush=True)
    if trains:
        made = [*recorded(place, step.name), environment(place.device)]
        write_text(_record(place, step.name), json.dumps(made, indent=2) + "\n")


def _record(place: Place, name: str) -> Path:
    return place.log(name).with_suffix(".json")


def recorded(place: Place, name: str) -> list[dict[str, Any]]:
    """With what and where a network was trained, of each time that its training went on."""
    file = _record(place, name)
    return read_json(file, list) if file.exists() else []


def results(place: Place, row: Entry) -> Path:
    """Where `ima evaluate --nnunet` writes what it found."""
    return place.trained(row) / "fold_0" / "ima" / "results_nnunet.csv"


def _attacked(place: Place, row: Entry) -> bool:
    """Whether the attacks that are asked for were made, on the weights that are there."""
    from ima.evaluation import store
    from ima.evaluation.results import Results
    from ima.nnunet.cases import OWN_TEST
    from ima.training.asked import answers_what_was_asked

    asked, file = place.experiment.evaluate, results(place, row)
    weights = place.trained(row) / "fold_0" / "checkpoint_final.pth"
    if not store.there(file) or not weights.exists():
        return False
    found = Results.from_csv(file)
    # Results from before the place of the cases was recorded pass.
    own = found.settings.cases in ("", OWN_TEST)
    return own and answers_what_was_asked(
        found, weights, asked.attacks, asked.eps, asked.samples, place.seed
    )
