"""What `ima evaluate` does with a run, a network from elsewhere, a trained nnU-Net: the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ima.budget import Budget
    from ima.evaluation.results import Results
    from ima.evaluation.subject import Subject
    from ima.report.sources import Source

Given = Mapping[str, Any]
"""The options of the command, by name."""


@dataclass(frozen=True)
class SubjectPlan:
    """What is evaluated.

    folder: that one process at a time writes to; subjects: to be attacked, by what that is called
    while it goes on; nearest, checked: whose smallest noise is looked for, and who is checked;
    other: the model whose noise the checks try; note: on the data, for the tables.
    """

    folder: Path
    subjects: Mapping[str, Callable[[], Subject]]
    nearest: Callable[[], Subject]
    checked: Callable[[], Subject]
    other: Callable[[], Subject] | None = None
    note: str = ""

    @staticmethod
    def of_one(
        doing: str, subject: Subject, other: Callable[[], Subject] | None = None
    ) -> SubjectPlan:
        """The plan of a single subject."""

        def same() -> Subject:
            return subject

        return SubjectPlan(subject.folder, {doing: same}, same, same, other)


def of_run(given: Given) -> SubjectPlan:
    """The weights of a run."""
    from ima.environments import data_told
    from ima.evaluation.settings import VALIDATION
    from ima.training.evaluating import run_subject
    from ima.training.run import Run
    from ima.training.trust import said_again

    folder, asked = given["run"], given["checkpoint"]
    trusted = given["trust"] or said_again(folder, given["model"])
    run = Run.open(folder, trust=trusted)
    other = _other(given, trusted)
    for told in data_told(run.environment()):
        print(f"data: {told}")

    @cache
    def subject(which: str) -> Subject:
        return run_subject(run, which, given["device"])

    names = ("best", "last") if asked in (None, "both") else (asked,)
    return SubjectPlan(
        folder,
        {f"{name} weights": partial(subject, name) for name in names},
        partial(subject, "best"),
        partial(subject, "last" if asked == "last" else "best"),
        other,
        "" if asked == VALIDATION else run.config().note,
    )


def of_foreign(given: Given) -> SubjectPlan:
    """A network from elsewhere; all that is found goes into a folder beside its weights."""
    from ima.training.foreign import foreign_subject

    if given["data"] is None or not given["eps"]:
        raise ValueError(
            "a network from elsewhere has no config: give --data module:function (or a name of "
            "`ima list data`) and noise radii with --eps"
        )
    other = _other(given, given["trust"])
    same = ("model", "data", "eps", "attacks", "task", "bounds", "channels", "num_classes")
    words = {name: given[name] for name in (*same, "ignore_label", "regions", "cases", "device")}
    subject = foreign_subject(given["run"], norm=given["norm"] or "2", **words)
    about = subject.settings.about
    print(f"weights: {about['taken']}")
    if "about the data" in about:
        print(f"data: {about['about the data']}")
    return SubjectPlan.of_one("evaluation", subject, other)


def of_nnunet(given: Given) -> SubjectPlan:
    """A trained nnU-Net on its test cases."""
    from ima.nnunet.evaluating import nnunet_subject
    from ima.nnunet.trained import Trained

    trained = Trained.open(given["nnunet"], given["fold"], given["weights"] or "final")
    same = ("eps", "attacks", "images", "labels", "samples", "out", "device")
    subject = nnunet_subject(trained, **{name: given[name] for name in same})
    return SubjectPlan.of_one(trained.trainer, subject)


def _other(given: Given, trust: Any) -> Callable[[], Subject] | None:
    """The run whose noise the checks try."""
    from ima.training.evaluating import run_subject
    from ima.training.run import Run

    if given["transfer_from"] is None:
        return None
    run = Run.open(given["transfer_from"], trust=trust)
    # Refused before there is work to lose.
    run.config()
    return lambda: run_subject(run, "best", given["device"])


@dataclass(frozen=True)
class Worked:
    """How an evaluation ended: the exit code, and what the page is made from."""

    code: int
    source: Source


def runs_in(folder: Path) -> list[Path]:
    """The folders of the trained runs below a folder; others are named.

    Raises FileNotFoundError where there are none.
    """
    from ima.training.found import find_runs

    found = [one.folder for one in find_runs(folder)]
    ready = [one for one in found if (one / "best.safetensors").is_file()]
    for one in found:
        if one not in ready:
            print(f"note: {one} has no weights yet, and is left out", file=sys.stderr)
    if not ready:
        raise FileNotFoundError(
            f"{folder} is no run, and holds none with weights; train one with `ima train CONFIG`"
        )
    return ready


def work(
    plan: SubjectPlan, given: Given, budget: Budget | None, *, first: bool = True
) -> Worked | None:
    """Attack, measure and check; tables are printed, files go into the folder.

    first: whether this is the first of the processes that share the batches, which writes; the
    others have nothing to tell.
    """
    from ima.budget import OUT_OF_TIME, OutOfTime, Progress
    from ima.cli.batches import announce, lines, unsaid
    from ima.cli.checking import TRIPPED, tell
    from ima.cli.limits import MISSED, tell_limits
    from ima.evaluation import subject as evaluation
    from ima.report.entries import group
    from ima.report.words import distances_told, told_cases
    from ima.training.lock import Lock

    eps, attacks, seed = given["eps"], given["attacks"], given["seed"]
    doing, verdict, done = "", None, list[Path]()
    found: dict[Path, Results] = {}
    judged: Subject | None = None
    told = lines if first else unsaid
    with Lock(plan.folder, "evaluate") if first else nullcontext() as lock:
        if lock is not None:
            lock.take()
        try:
            for doing, make in plan.subjects.items():
                subject, progress = stating(make(), given), Progress(told(doing), budget)
                if first:
                    announce(doing, subject, eps, attacks)
                results = evaluation.evaluate_subject(
                    subject,
                    eps,
                    attacks,
                    seed=seed,
                    progress=progress,
                    distributed=True,
                    precision=given["precision"],
                )
                done.append(subject.results)
                found[subject.results] = results
                judged = judged or subject
                if first:
                    show(subject, results, plan.note)
            print(told_cases(list(found.values())))
            if given["distances"]:
                doing, subject = "smallest noise", stating(plan.nearest(), given)
                nearest = evaluation.measure_distances(
                    subject, seed=seed, progress=Progress(told(doing), budget), distributed=True
                )
                done.append(subject.distances)
                print(f"{subject.distances}")
                print(distances_told(nearest, subject.eps))
                if not (measure := nearest.settings.measure).binary:
                    print(f"broken: a {measure.name} of at most {measure.threshold:g}")
            # One process alone: checks hold what one attack found against another.
            if first and (given["checks"] or given["strict"]):
                doing, subject = "checks", stating(plan.checked(), given)
                verdict = evaluation.check_subject(
                    subject,
                    eps,
                    attacks,
                    transfer=None if plan.other is None else plan.other().model,
                    seed=seed,
                    progress=Progress(lines(doing, "check"), budget),
                )
                done.append(subject.checks)
        except OutOfTime as stop:
            if first:
                print(f"ima: {doing}: {stop}", file=sys.stderr)
            sys.exit(OUT_OF_TIME)
        if not first:
            return None
        # Not before all are done: a command that is stopped at the last finds the first finished.
        evaluation.forget(done)
    tripped = verdict is not None and tell(verdict, done[-1], strict=given["strict"])
    assert judged is not None
    source = _source(plan, judged, found)
    missed = bool(given["stated"].require) and tell_limits(group([source]))
    return Worked(MISSED if missed else TRIPPED if tripped else 0, source)


def stating(subject: Subject, given: Given) -> Subject:
    """The subject with what is stated of it; ValueError, before all work, for what does not fit."""
    from ima.tasks import given as of_task

    stated = given["stated"]
    measure, eps = of_task(subject.task, "measure"), given["eps"] or subject.eps
    said = stated.settings(measure, subject.classes or (), eps)
    settings = subject.settings.but(**said)
    return replace(subject, settings=settings, classes=stated.classes or subject.classes)


def _source(plan: SubjectPlan, subject: Subject, found: Mapping[Path, Results]) -> Source:
    """What was found, with all that lies beside it."""
    from ima.report.sources import WEIGHTS, Source, read_source

    names = {path.stem: results for path, results in found.items()}
    of_run = (plan.folder / "config.yaml").is_file() and names.keys() <= {*WEIGHTS}
    try:
        source = read_source(plan.folder if of_run else subject.results)
    except ValueError:
        # What lies beside them is of another evaluation.
        return Source(subject.name, names if of_run else {"results": found[subject.results]})
    kept = {which: one for which, one in source.results.items() if which in names or not of_run}
    return replace(source, results=kept)


def show(subject: Subject, results: Results, note: str) -> None:
    """Print where the results are, their tables, and what is said beside them."""
    from ima.evaluation.results import CLEAN
    from ima.report.classes import sensitivity
    from ima.report.sizes import felt
    from ima.report.summary import tables_of
    from ima.report.tables import to_text
    from ima.report.words import epoch_told, white_told

    print(f"{subject.results}")
    notes = " ".join(filter(None, (note, epoch_told(results))))
    label = subject.settings.label or subject.name
    for table in tables_of([(label, [results])], notes):
        print(to_text(table))
    masks = results.settings.about.get("masks")
    noise = [key for key in results.keys if results.kind(key[0]) not in ("clean", "white")]
    said = (
        felt(results),
        sensitivity([results], [(CLEAN, 0.0), *noise]).replace("\u00a0", " "),
        white_told(results),
        f"masks: {masks}" if masks else "",
    )
    for line in filter(None, said):
        print(line)
