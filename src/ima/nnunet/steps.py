"""The commands of an experiment, one after the other, and whether they are done."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ima.files import digest
from ima.nnunet.experiment import Entry, Place, exact
from ima.nnunet.msd import locate_task


@dataclass(frozen=True)
class Step:
    """One command.

    what: its name; words: after `ima`; environ: variables that it needs; done: whether it is;
    timed: whether it takes --time-budget, and stops itself; trains: whether it trains a network;
    renews: the file from which it continues, written again and again.
    """

    what: str
    words: tuple[str, ...]
    environ: Mapping[str, str]
    done: bool
    timed: bool = False
    trains: bool = False
    renews: Path | None = None

    def renewed(self) -> int | None:
        """When the file from which it continues was written; None where there is none."""
        try:
            return None if self.renews is None else self.renews.stat().st_mtime_ns
        except OSError:
            return None

    def shown(self) -> str:
        """The command as typed, behind the variables of its own."""
        own = [f"{name}={value}" for name, value in self.environ.items() if name.startswith("IMA_")]
        return shlex.join([*own, "ima", *self.words])


def exports(place: Place) -> str:
    """The variables that all commands share, as a shell sets them."""
    return "\n".join(f"export {n}={shlex.quote(v)}" for n, v in place.environ().items())


def prepare(place: Place) -> Step:
    """The Decathlon's files in nnU-Net's raw format."""
    target = place.within("raw")
    done = target.exists()
    source = target if done else locate_task(place.task, place.data)
    words = ("data", "msd", place.task.name, str(source), "--raw", str(target.parent))
    few = place.experiment.train_cases
    less = () if few is None else ("--train-cases", str(few))
    return Step("prepare", (*words, "--seed", str(place.seed), *less), place.environ(), done)


def plan(place: Place) -> Step:
    """nnU-Net's plan and preprocessed data, and the plan of the experiment's batch size."""
    one = place.experiment
    words = ("-d", str(place.task.number), "-c", one.configuration, "-np", "1", "-npfp", "1")
    # The plan of a name of its own is written last, when all data are preprocessed.
    done = (place.within("preprocessed") / f"{place.plans}.json").exists()
    batch = ("--batch-size", str(one.batch_size))
    return Step("plan", ("nnunet", "plan", *words, *batch), place.environ(), done)


def train(place: Place, row: Entry) -> Step:
    """A row's training, continued where it was stopped."""
    fold = place.trained(row) / "fold_0"
    begun = any((fold / f"checkpoint_{which}.pth").exists() for which in ("latest", "best"))
    return Step(
        f"{row.label}-train",
        (
            *("nnunet", "train", str(place.task.number), place.experiment.configuration, "0"),
            *("-tr", row.trainer, "-p", place.plans, "-device", place.device),
            *(("--c",) if begun else ()),
        ),
        place.environ(row),
        (fold / "checkpoint_final.pth").exists(),
        trains=True,
        renews=fold / "checkpoint_latest.pth",
    )


def attack(place: Place, row: Entry) -> Step:
    """The attacks on a row's trained network."""
    asked = place.experiment.evaluate
    samples = () if asked.samples is None else ("--samples", str(asked.samples))
    return Step(
        f"{row.label}-evaluate",
        (
            *("evaluate", "--nnunet", str(place.trained(row)), "--attacks", *asked.attacks),
            *("--eps", *map(exact, asked.eps), *samples),
            *("--seed", str(place.seed), "--device", place.device),
        ),
        place.environ(),
        _attacked(place, row),
        timed=True,
    )


def results(place: Place, row: Entry) -> Path:
    """Where `ima evaluate --nnunet` writes what it found."""
    return place.trained(row) / "fold_0" / "ima" / "results_nnunet.csv"


def _attacked(place: Place, row: Entry) -> bool:
    """Whether the attacks that are asked for were made, on the weights that are there."""
    from ima.evaluation import store
    from ima.evaluation.results import WORST, Results
    from ima.nnunet.cases import OWN

    asked, file = place.experiment.evaluate, results(place, row)
    weights = place.trained(row) / "fold_0" / "checkpoint_final.pth"
    if not store.there(file) or not weights.exists():
        return False
    found = Results.from_csv(file)
    told = found.settings
    # Results from before one of these was recorded pass.
    return (
        told.file == digest(weights)
        and set(found.attacks) - {WORST} == set(asked.attacks)
        and _same_radii(found.eps, asked.eps)
        and told.covers(asked.samples) in (None, True)
        and told.seed in (None, place.seed)
        and told.cases in ("", OWN)
    )


def _same_radii(ones: Sequence[float], others: Sequence[float]) -> bool:
    """Whether both hold the same radii; one that is named twice counts once."""
    from ima.evaluation.results import same_radius

    pairs = ((ones, others), (others, ones))
    return all(any(same_radius(a, b) for b in there) for here, there in pairs for a in here)
