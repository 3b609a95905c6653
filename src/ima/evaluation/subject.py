"""A network, its data, and the folder that takes what is found: attack it, measure it, check it.

Builders make subjects of a run, of a network from elsewhere, of a trained nnU-Net. What is finished
lies beside the results, in a record, so that the same call continues what was stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ima.attacks.inputs import Bounds
from ima.budget import Progress
from ima.evaluation.checks import run_checks
from ima.evaluation.checks_results import Checks
from ima.evaluation.distances import Distances
from ima.evaluation.evaluate import evaluate
from ima.evaluation.minimal import minimal
from ima.evaluation.naming import Names
from ima.evaluation.noise import WHITE_NOISE
from ima.evaluation.partial import discard
from ima.evaluation.pictures import collector
from ima.evaluation.remarks import said_beside
from ima.evaluation.results import Results
from ima.evaluation.settings import TEST, Settings
from ima.evaluation.share import Share
from ima.evaluation.short import Precision
from ima.norms import Norm
from ima.tasks import Task


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with its weights on the device, and the data that it is judged by.

    folder, name: of the results, the name without suffix; settings: what is known of network and
    data before any work; eps, attacks: what is tried where nobody asks for others; ids, names,
    classes, batch_size: as `ima.evaluate` takes them; pictures: whether attacked samples are kept;
    alike: samples of one shape for the checks, where not all of the data are.
    """

    model: nn.Module
    data: Any
    task: Task
    norm: Norm | float | str
    bounds: Bounds
    folder: Path
    name: str
    settings: Settings
    eps: tuple[float, ...]
    attacks: tuple[str, ...]
    ids: Sequence[int] | None = None
    names: Names | None = None
    classes: Sequence[str] | None = None
    batch_size: int = 256
    pictures: bool = True
    alike: Any = None

    @property
    def results(self) -> Path:
        """The rows of the evaluation."""
        return self.folder / f"{self.name}.csv"

    @property
    def distances(self) -> Path:
        """The smallest noise found for every sample."""
        return self.folder / "distances.csv"

    @property
    def checks(self) -> Path:
        """What the checks found."""
        return self.folder / "checks.json"

    def describe(self, found: Settings) -> Settings:
        """What was found out, with what is known of the subject, which goes first."""
        unsaid = Settings()
        return found.but(**{k: v for k, v in self.settings if v != getattr(unsaid, k)})


def record(results: Path) -> Path:
    """Where the finished batches of results under way lie."""
    return results.with_suffix(".part")


def forget(results: Iterable[Path]) -> None:
    """Delete the finished batches of the evaluations, distances or checks at these paths."""
    for path in results:
        discard(record(path))


@said_beside()
def evaluate_subject(
    subject: Subject,
    eps: Sequence[float] | None = None,
    attacks: Sequence[str] | None = None,
    *,
    seed: int = 0,
    progress: Progress = Progress(),  # noqa: B008  # it is frozen
    distributed: bool = False,
    precision: Precision = "float32",
) -> Results:
    """Attack the network; rows and pictures are written into the folder, by the first process.

    eps, attacks: the subject's own if None. White noise comes with any attack on the test part.
    The record of finished batches stays; `forget` deletes it. Raises as `ima.evaluate`.
    """
    eps = subject.eps if eps is None else eps
    attacks = list(subject.attacks if attacks is None else attacks)
    white = WHITE_NOISE if attacks and subject.settings.part == TEST else ()
    part, share = record(subject.results), Share.of(distributed, subject.model)
    pictures = None
    if subject.pictures:
        digest = subject.settings.data_digest
        pictures = collector(subject.task, part, digest, attacks, sorted(set(eps)), share)

    def after_batch(done: int, total: int) -> None:
        if pictures is not None:
            pictures.save(done)
        progress.tell(done, total)

    found = evaluate(
        subject.model,
        subject.data,
        eps,
        [*attacks, *white],
        batch_size=subject.batch_size,
        ids=subject.ids,
        names=subject.names,
        classes=subject.classes,
        keep=None if pictures is None else pictures.keep,
        distributed=distributed,
        precision=precision,
        **_asked(subject, subject.results, seed, replace(progress, tell=after_batch)),
    )
    found = Results(found.columns, subject.describe(found.settings))
    if pictures is not None:
        pictures.join()
    if pictures is not None and share.leads:
        pictures.write(subject.folder, found.classes, subject.settings.label)
    if share.leads:
        # Written last: it says that all is done.
        found.to_csv(subject.results)
    return found


@said_beside()
def measure_distances(
    subject: Subject,
    *,
    seed: int = 0,
    progress: Progress = Progress(),  # noqa: B008
    distributed: bool = False,
) -> Distances:
    """Find the smallest noise that breaks each sample, and write it into the folder.

    PGD looks at the subject's own eps. The record stays, as of `evaluate_subject`.
    """
    found = minimal(
        subject.model,
        subject.data,
        subject.eps,
        batch_size=subject.batch_size,
        ids=subject.ids,
        distributed=distributed,
        **_asked(subject, subject.distances, seed, progress),
    )
    found = replace(found, settings=subject.describe(found.settings))
    if Share.of(distributed, subject.model).leads:
        found.to_csv(subject.distances)
    return found


@said_beside()
def check_subject(
    subject: Subject,
    eps: Sequence[float] | None = None,
    attacks: Sequence[str] | None = None,
    *,
    transfer: nn.Module | None = None,
    seed: int = 0,
    progress: Progress = Progress(),  # noqa: B008
) -> Checks:
    """Run the checks on the network and on an evaluation with these attacks, and write them.

    eps, attacks: the subject's own if None; transfer: another network for the same data, whose
    noise is tried on this one. The record stays, as of `evaluate_subject`.
    """
    found = run_checks(
        subject.model,
        subject.data if subject.alike is None else subject.alike,
        subject.eps if eps is None else eps,
        subject.attacks if attacks is None else attacks,
        transfer=transfer,
        **_asked(subject, subject.checks, seed, progress),
    )
    # How many samples there are, checks count for themselves.
    counted = found.settings.total
    found = replace(found, settings=subject.describe(found.settings).but(total=counted))
    found.to_json(subject.checks)
    return found


def _asked(subject: Subject, path: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """What all three take, when their finding goes to this path."""
    return {
        "norm": subject.norm,
        "bounds": subject.bounds,
        "task": subject.task,
        "seed": seed,
        "progress": progress.tell,
        "partial": record(path),
        "budget": progress.budget,
    }
