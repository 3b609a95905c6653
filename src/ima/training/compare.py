"""Several methods on one data set under one recipe: plan the runs, make them, pick the tuned ones.

Every run is a folder of its own, trained and tested by commands of its own, so a comparison that
was stopped continues where it was, and runs that two rows share are made once.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ima.evaluation.evaluate import WORST
from ima.evaluation.results import Results
from ima.training.config import Config, ConfigError, Named, parse
from ima.training.run import Run


@dataclass(frozen=True)
class Candidate:
    """One setting of a method, and its run for every seed."""

    method: Named
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """Method and options, as in its folder's name."""
        return slug(self.method)


@dataclass(frozen=True)
class Plan:
    """One row of the table: its candidates, of which validation picks one."""

    label: str
    candidates: tuple[Candidate, ...]
    tuned: tuple[str, ...] = ()

    def title(self) -> str:
        """The row's label, with the options that validation picked."""
        if not self.tuned:
            return self.label
        options = self.chosen().method.options
        return f"{self.label} ({', '.join(f'{key} {options[key]:g}' for key in self.tuned)})"

    def remark(self) -> str:
        """The validation scores of the candidates, the geometric mean of clean and PGD-10."""
        scores = ", ".join(
            f"{c.name} {fmean(best_score(run) for run in c.runs):.3f}" for c in self.candidates
        )
        return f"{self.label}: of {scores} on validation, the best was picked."

    def chosen(self) -> Candidate:
        """The candidate with the best validation score, mean over the seeds."""
        if len(self.candidates) == 1:
            return self.candidates[0]
        return max(self.candidates, key=lambda c: fmean(best_score(run) for run in c.runs))


def plan(config: Config, seeds: Sequence[int], folder: Path) -> list[Plan]:
    """The rows of the config's comparison with the folders of their runs; makes the folders.

    Raises ConfigError where the config compares nothing, and where a folder holds a run of other
    settings.
    """
    if not config.compare:
        raise ConfigError(
            f"the config {config.name!r} compares nothing: it has no `compare` rows, such as "
            "compare: [{label: SAT, method: {name: sat, eps: 3.0}}]"
        )
    plans: list[Plan] = []
    for row in config.compare:
        keys, grids = list(row.tune), list(row.tune.values())
        candidates: list[Candidate] = []
        for values in itertools.product(*grids):
            tuned = dict(zip(keys, values, strict=True))
            method = Named(name=row.method.name, **{**row.method.options, **tuned})
            runs = tuple(_run(config, method, seed, folder) for seed in seeds)
            candidates.append(Candidate(method, runs))
        plans.append(Plan(row.label, tuple(candidates), tuple(keys)))
    return plans


def make(
    plans: Sequence[Plan], *, jobs: int, device: str, report: Callable[[str, int, int], None]
) -> None:
    """Train every planned run that is not finished, and test those that the table shows.

    jobs: how many at a time, each in a process of its own with an equal share of the cores;
    report is called with (folder, done, total). Raises RuntimeError with the last lines of the
    first run that failed, after the others have ended.
    """
    runs = _unique(run for p in plans for c in p.candidates for run in c.runs)
    train = [(run, ["train", "--resume", str(run.folder)]) for run in runs if not finished(run)]
    _all(train, jobs, device, report)
    shown = _unique(run for p in plans for run in p.chosen().runs)
    test = [(run, ["evaluate", str(run.folder)]) for run in shown if not tested(run)]
    _all(test, jobs, device, report)


def provenance(plans: Sequence[Plan], config: Config, seeds: Sequence[int]) -> str:
    """Command, seeds, commit and machine of the runs behind a table, in one paragraph."""
    runs = _unique(run for p in plans for c in p.candidates for run in c.runs)
    found = [run.environment() for run in runs]

    def each(key: str) -> str:
        return ", ".join(dict.fromkeys(str(one.get(key)) for one in found))

    return (
        f"Made by `ima compare {config.name} --seeds {' '.join(map(str, seeds))}`: "
        f"{len(runs)} runs at commit {each('commit')}, ima {each('ima')}, torch {each('torch')}, "
        f"Python {each('python')}, {each('device')} with {each('cores')} cores. All methods share "
        f"optimiser, schedule, {config.train.epochs} epochs, batches of "
        f"{config.train.batch_size}, data order and network; epochs and radii were picked on the "
        "validation part."
    )


def slug(method: Named) -> str:
    """A folder name for a method and its options."""
    options = [
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in sorted(method.options.items())
    ]
    return "-".join([method.name, *options]).replace("/", "_").replace(" ", "")


def finished(run: Run) -> bool:
    """Whether the run has trained to its last epoch."""
    rows = run.epochs()
    return run.state.exists() and bool(rows) and len(rows) == run.config().train.epochs


def tested(run: Run) -> bool:
    """Whether the results of the run are there, newer than its weights, and of its config."""
    wanted = run.config().evaluate

    def fits(path: Path, weights: Path) -> bool:
        if not path.exists() or path.stat().st_mtime < weights.stat().st_mtime:
            return False
        found = Results.from_csv(path)
        return set(wanted.attacks) == set(found.attacks) - {WORST} and set(found.eps) == set(
            wanted.eps
        )

    return all(fits(run.results(which), run.weights(which)) for which in ("best", "last"))


def best_score(run: Run) -> float:
    """The validation score of the run's best epoch."""
    return max(row["val_score"] for row in run.epochs())


def _run(config: Config, method: Named, seed: int, folder: Path) -> Run:
    values: dict[str, Any] = config.model_dump(mode="json")
    values |= {"method": {"name": method.name, **method.options}, "compare": []}
    values["train"] |= {"seed": seed}
    wanted = parse(values)
    place = folder / slug(method) / f"seed{seed}"
    if not (place / "config.yaml").exists():
        return Run.create(place, wanted)
    run = Run.open(place)
    if run.config().model_copy(update={"note": wanted.note}) != wanted:
        raise ConfigError(
            f"{place} holds a run of other settings; name another folder with --out, or delete it"
        )
    return run


def _unique(runs: Iterable[Run]) -> list[Run]:
    return list(dict.fromkeys(runs))


def _all(
    work: list[tuple[Run, list[str]]],
    jobs: int,
    device: str,
    report: Callable[[str, int, int], None],
) -> None:
    if not work:
        return
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environ = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}

    def one(item: tuple[Run, list[str]]) -> str | None:
        run, arguments = item
        command = [sys.executable, "-m", "ima", *arguments, "--device", device]
        with (run.folder / f"{arguments[0]}.log").open("w") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=environ)
        if code.returncode == 0:
            return None
        log = run.folder / f"{arguments[0]}.log"
        tail = log.read_text().splitlines()[-5:]
        return f"{run.folder} failed, see {log}:\n  " + "\n  ".join(tail)

    failures: list[str] = []
    with ThreadPoolExecutor(jobs) as pool:
        for done, (item, failure) in enumerate(zip(work, pool.map(one, work), strict=True)):
            report(str(item[0].folder), done + 1, len(work))
            failures += [failure] if failure else []
    if failures:
        raise RuntimeError("\n".join(failures))
