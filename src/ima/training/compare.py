"""Several methods on one data set under one recipe: plan the runs, make them, pick the tuned ones.

Every run is a folder of its own, trained and tested by commands of its own, so a comparison that
was stopped continues where it was, and runs that two rows share are made once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from ima.budget import Budget
from ima.cores import threads
from ima.evaluation import store
from ima.evaluation.results import Results
from ima.evaluation.settings import VALIDATION
from ima.evaluation.subject import record
from ima.files import folder_name
from ima.training.asked import answers_what_was_asked
from ima.training.build import load_splits
from ima.training.checkpoint import peek_state
from ima.training.children import ChildReport, Work, print_done, work_off
from ima.training.config import check_stop, parse_config
from ima.training.config_errors import ConfigError
from ima.training.ending import ended
from ima.training.launch import Launcher
from ima.training.picking import rule
from ima.training.rows import Row, rows
from ima.training.run import Run
from ima.training.settings import Config, Named
from ima.training.tensor_file import CheckpointError
from ima.training.trust import UntrustedError, import_paths


@dataclass(frozen=True)
class Candidate:
    """One setting of a method, and its run for every seed."""

    method: Named
    runs: tuple[Run, ...]

    def diverged(self) -> dict[int, str]:
        """Why its training came to no end, by seed, where it did not."""
        return {
            run.config().train.seed: run.diverged.read_text(
                encoding="utf-8", errors="replace"
            ).strip()
            for run in self.runs
            if run.diverged.exists()
        }

    def score(self) -> float:
        """How it does on validation, mean over the seeds."""
        return fmean(map(validation_score, self.runs))


@dataclass(frozen=True)
class RunPlan:
    """One row of the table: its candidates, of which validation picks one."""

    row: Row
    candidates: tuple[Candidate, ...]

    @property
    def label(self) -> str:
        """The row's label, with the values of swept options."""
        return self.row.title()

    @property
    def tuned(self) -> tuple[str, ...]:
        """The options that validation picks."""
        return self.row.tuned

    def title(self) -> str:
        """The row's label, with the options that are swept and those that validation picked."""
        if not self.tuned or self.chosen().diverged():
            return self.label
        options = self.chosen().method.options
        return self.row.title({key: options[key] for key in self.tuned})

    def remark(self) -> str:
        """How validation judged the candidates; of a row that diverged, where."""
        if self.chosen().diverged():
            return self._how_diverged()
        scores = [
            f"{self._tried(c)} ({'diverged' if c.diverged() else f'{c.score():.3f}'})"
            for c in self.candidates
        ]
        listed = " and ".join([", ".join(scores[:-1]), scores[-1]] if scores[1:] else scores)
        run = self.chosen().runs[0]
        settings, asked = Results.from_csv(run.results(VALIDATION)).settings, run.config().evaluate
        by = rule(run.config()).describe(f"{asked.attacks[0]} at {asked.middle:g}")
        return (
            f"{self.label}: validation (n = {settings.samples}) picked the best of "
            f"{listed}, by {by}.{self._at_the_edge()}"
        )

    def _how_diverged(self) -> str:
        where = [
            (f"{self._tried(c)}, " if self.tuned else "") + f"seed {seed}, {text}"
            for c in self.candidates
            for seed, text in c.diverged().items()
        ]
        each = " with every value that was tried" if self.tuned else ""
        folders = " and ".join(c.runs[0].folder.parent.name for c in self.candidates)
        told = f"{self.label} diverged{each} ({'; '.join(where)})"
        return f"{told}. To train it again, delete {folders}."

    def _at_the_edge(self) -> str:
        best = self.chosen().method.options
        ended = [c for c in self.candidates if not c.diverged()]
        tried = {key: {c.method.options[key] for c in ended} for key in self.tuned}
        ends = [
            key
            for key, values in tried.items()
            if len(values) > 1 and best[key] in (min(values), max(values))
        ]
        if not ends:
            return ""
        return f" The best {' and '.join(ends)} is the last one tried: a better one may lie beyond."

    def _tried(self, candidate: Candidate) -> str:
        options = candidate.method.options
        return ", ".join(f"{key} {options[key]:g}" for key in self.tuned)

    def chosen(self) -> Candidate:
        """The candidate with the best validation score, mean over the seeds.

        One that diverged is chosen only where all did.
        """
        ended = [c for c in self.candidates if not c.diverged()] or [self.candidates[0]]
        return ended[0] if len(ended) == 1 else max(ended, key=Candidate.score)


def plan_runs(
    config: Config,
    seeds: Sequence[int],
    folder: Path,
    before: Callable[[Config], None] | None = None,
    *,
    write: bool = True,
) -> list[RunPlan]:
    """The rows of the config's comparison with the folders of their runs; makes the folders.

    Raises ConfigError where the config compares nothing, and where a folder holds a run of other
    settings. before: is called with the config before the first new folder is made, so that what it
    refuses leaves none; write: False makes no folder and changes none.
    """
    if not config.compare:
        raise ConfigError(
            f"the config {config.name!r} compares nothing: it has no `compare` rows, such as "
            "compare: [{label: SAT, method: {name: sat, eps: 3.0}}]"
        )
    wanted = rows(config)
    for row in wanted:
        for one in row.candidates:
            check_stop(f"{row.place}.train", one)
    places = [
        folder / slug(one.method, row.differs) / f"seed{seed}" / "config.yaml"
        for row in wanted
        for one in row.candidates
        for seed in seeds
    ]
    if before is not None and not all(place.exists() for place in places):
        before(config)
    plans: list[RunPlan] = []
    for row in wanted:
        candidates = tuple(
            Candidate(
                candidate.method,
                tuple(
                    _run(candidate, seed, folder / slug(candidate.method, row.differs), write)
                    for seed in seeds
                ),
            )
            for candidate in row.candidates
        )
        plans.append(RunPlan(row, candidates))
    return plans


def make_runs(
    plans: Sequence[RunPlan],
    *,
    jobs: int,
    device: str,
    report: ChildReport = print_done,
    budget: Budget | None = None,
    launcher: Launcher | None = None,
) -> None:
    """Train every planned run that is not finished, and test those that the table shows.

    jobs: how many at a time, each in a process of its own with an equal share of the cores;
    launcher: makes each a job, with the cores of a job; report is called with (folder, done,
    total). A run whose loss is not finite has come to its end, and its row says so. Raises
    RuntimeError with the last lines of the runs that failed, after the others have ended; OutOfTime
    when the budget is spent.
    """
    runs = unique(run for p in plans for c in p.candidates for run in c.runs)
    train = [run for run in runs if not finished(run) and not run.diverged.exists()]
    if train:
        # Data that is missing is told once, before anything starts.
        load_splits(train[0].config())
    each = str((launcher and launcher.threads) or threads(jobs))
    environ = {**os.environ, "OMP_NUM_THREADS": each, "MKL_NUM_THREADS": each}
    do = partial(
        work_off, jobs=jobs, environ=environ, budget=budget, report=report, launcher=launcher
    )
    do([[_train(run, device)] for run in train])
    rivals = unique(
        run for p in plans if p.tuned for c in p.candidates if not c.diverged() for run in c.runs
    )
    do([[_evaluate(run, VALIDATION, device)] for run in rivals if not tested(run, VALIDATION)])
    shown = unique(run for p in plans if not p.chosen().diverged() for run in p.chosen().runs)
    do([[_evaluate(run, which, device)] for run in shown if (which := _untested(run)) is not None])


def _trust(run: Run) -> tuple[str, ...]:
    """The word that what its config imports may run: it is what the user's own config names."""
    return ("--trust",) if any(import_paths(run.config().model_dump())) else ()


def _train(run: Run, device: str) -> Work:
    return Work(
        str(run.folder),
        ("train", "--resume", str(run.folder), *_trust(run), "--device", device),
        run.folder / "train.log",
        # One that has diverged would diverge again: that is its result.
        ended=lambda code: code == 0 or run.diverged.exists(),
    )


def _evaluate(run: Run, which: str, device: str) -> Work:
    words = ("evaluate", str(run.folder), *_trust(run), "--checkpoint", which)
    log = run.folder / "evaluate.log"
    return Work(str(run.folder), (*words, "--device", device), log)


def slug(method: Named, differs: Mapping[str, Any] | None = None) -> str:
    """A folder name for a method, its options, and where it leaves the shared recipe."""
    named = [*sorted(method.options.items()), *(differs or {}).items()]
    options = [
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in named
    ]
    return folder_name("-".join([method.name, *options]))


def finished(run: Run) -> bool:
    """Whether the run has trained to its end."""
    # The state is what a training writes last.
    try:
        done = peek_state(run.state, "epoch") + 1 if run.state.exists() else 0
    except CheckpointError:
        # The training says what is wrong with it, after the other runs are made.
        return False
    return ended(run.config().train, run.epochs(), done)


def tested(run: Run, which: str) -> bool:
    """Whether the results of these weights are there, and are what the config asks for."""
    wanted, path = run.config().evaluate, run.results(which)
    weights = run.weights("best" if which == VALIDATION else which)
    if not store.there(path) or not weights.exists():
        return False
    if which == VALIDATION:
        attacks, eps, samples = wanted.attacks[:1], (wanted.middle,), None
    else:
        attacks, samples = wanted.attacks_on(which), wanted.samples
        eps = wanted.eps if attacks else ()
    return answers_what_was_asked(Results.from_csv(path), weights, attacks, eps, samples, seed=0)


def _untested(run: Run) -> str | None:
    """The checkpoints to evaluate, as the command names them."""
    missing = [which for which in ("best", "last") if not tested(run, which)]
    if not missing:
        return None
    # A finished one with its record costs nothing, and the record is deleted when both are done.
    under_way = any(record(run.results(which)).exists() for which in ("best", "last"))
    return missing[0] if len(missing) == 1 and not under_way else "both"


def validation_score(run: Run) -> float:
    """How the best weights do on validation: by what picks the method's epochs, see `picking`.

    The attack is the tables' first one: PGD-10, which picks the epochs, is fooled where training
    has only made gradients useless to it.
    """
    found = Results.from_csv(run.results(VALIDATION))
    noisy = found.accuracy(found.attacks[0], found.eps[0])
    return rule(run.config()).score(found.accuracy(), noisy)


def unique(runs: Iterable[Run]) -> list[Run]:
    """Each run once, in order."""
    return list(dict.fromkeys(runs))


def _run(candidate: Config, seed: int, folder: Path, write: bool) -> Run:
    values: dict[str, Any] = candidate.model_dump(mode="json")
    values["train"] |= {"seed": seed}
    wanted = parse_config(values)
    place = folder / f"seed{seed}"
    if not (place / "config.yaml").exists():
        return Run.create(place, wanted) if write else Run.planned(place, wanted)
    # What the user's config names; a run that names something else is another run.
    named = {name for _, name, _ in import_paths(values)}
    run = Run.open(place, trust=named)
    other = f"{place} holds a run of other settings; name another folder with --out, or delete it"
    try:
        made = run.config()
    except UntrustedError as error:
        raise ConfigError(other) from error
    # A note, who logs it and the attacks on the test part change nothing that was trained; the
    # middle radius does, because it picks the epoch.
    free = {"note": wanted.note, "log": wanted.log, "evaluate": wanted.evaluate}
    if made.model_copy(update=free) != wanted or made.evaluate.middle != wanted.evaluate.middle:
        raise ConfigError(other)
    return run if made == wanted or not write else run.rewrite(wanted)
