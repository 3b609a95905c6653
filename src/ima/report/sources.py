"""What pages and tables are made from: the files of runs and evaluations, read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ima.environments import read_environment
from ima.epochs import read_epochs
from ima.evaluation import checks_results
from ima.evaluation.checks_results import Checks
from ima.evaluation.distances import Distances
from ima.evaluation.results import CLEAN, Results
from ima.evaluation.settings import Settings, check_same_evaluation
from ima.evaluation.stated import Stated
from ima.plain_yaml import YamlError, read_mapping
from ima.report import overlays
from ima.report.examples import SAID, read_examples
from ima.report.scrub import scrub

WEIGHTS = ("best", "last")

WORDS = ("standard", "curriculum", "customized")
"""Methods whose names are words; the others are abbreviations."""

PREFIX, TRAINER = "results_", "nnUNetTrainer"
"""How names of results files, and of nnU-Net's trainers, may begin."""

DEPTHS = tuple(
    "*/" * deep + inner
    for inner, most in (("", 3), ("ima/", 2), ("fold_*/ima/", 4))
    for deep in range(most)
)
"""Where results lie below a folder that is named: nnU-Net's own folders, and above them."""


@dataclass(frozen=True, eq=False)
class Source:
    """One trained network, as far as its files tell.

    label: its name on the page. results: by the name of its weights, `"best"` first, `"results"`
    where it is not known. config, environment: of the run, without paths of the machine; empty
    without a run. margins: the rows of margins.csv. pictures: the files of samples and of slices
    with noise. checks, distances: where they were made; the checks perhaps of other weights.
    """

    label: str
    results: Mapping[str, Results]
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])
    margins: Sequence[Mapping[str, float]] = ()
    examples: Mapping[str, Any] = field(default_factory=dict[str, Any])
    overlays: Mapping[str, Any] = field(default_factory=dict[str, Any])
    checks: Checks | None = None
    distances: Distances | None = None

    @property
    def seed(self) -> int | None:
        """The seed of its training, where it is known."""
        return self.config.get("train", {}).get("seed")

    @property
    def which(self) -> str:
        """The name of the weights that pages are about."""
        return next(iter(self.results))

    @property
    def main(self) -> Results:
        """The results that pages are about: those of the best weights, where there are some."""
        return self.results[self.which]

    @cached_property
    def own_checks(self) -> Checks | None:
        """The checks, where they are of the weights that the page is about."""
        if self.checks is None:
            return None
        theirs, ours = self.checks.settings, self.main.settings
        # The digest first: the last epoch may be the best one.
        known = theirs.network and ours.network
        same = theirs.network == ours.network if known else theirs.weights in ("", self.which)
        return self.checks if same else None

    @property
    def raised(self) -> tuple[str, ...]:
        """The titles of the checks of these weights that tripped."""
        checks = () if self.own_checks is None else self.own_checks.checks
        return tuple(check.title for check in checks if check.tripped)

    def naming(self, classes: tuple[str, ...]) -> Source:
        """The same, with names of the classes where its results tell none."""
        found = {
            which: r if r.settings.classes else Results(r.columns, r.settings.but(classes=classes))
            for which, r in self.results.items()
        }
        return replace(self, results=found)

    def stating(self, stated: Stated) -> Source:
        """The same with what is stated in place of what its results say.

        Raises ValueError for what does not fit them.
        """
        eps = self.main.eps
        found = {which: _stating(results, stated, eps) for which, results in self.results.items()}
        if not stated.classes:
            return replace(self, results=found)
        olds = (self.main.classes, map(str, self.examples.get("classes", ())))
        renamed = {a: b for names in olds for a, b in zip(names, stated.classes, strict=False)}

        def said(text: str) -> str:
            return " + ".join(renamed.get(one, one) for one in text.split(" + "))

        words = {
            name: np.array(list(map(said, column.tolist())))
            for name, column in self.examples.items()
            if name in SAID
        }
        slices = {"classes": np.array(stated.classes)} if self.overlays else {}
        return replace(
            self,
            results=found,
            examples={**self.examples, **words},
            overlays={**self.overlays, **slices},
        )


def _stating(results: Results, stated: Stated, eps: Sequence[float]) -> Results:
    measure, classes = results.settings.measure, results.classes
    # The last ones of a network's classes may be in no label.
    if not results.settings.classes and len(stated.classes) > len(classes):
        classes = stated.classes
    changes = stated.settings(measure, classes, eps)
    prefix = measure.column
    renamed = {prefix + a: prefix + b for a, b in zip(classes, stated.classes, strict=False)}
    columns = {
        renamed.get(name, name) if prefix else name: column
        for name, column in results.columns.items()
    }
    return Results(columns, results.settings.but(**changes))


def find_sources(path: Path) -> list[Path]:
    """What a path names: a run, a results file, a folder of results, or all that lie below it.

    Raises FileNotFoundError where there are no results.
    """
    if path.is_file() or (path / "config.yaml").is_file() or _tables(path):
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist; name the folder of a run or of runs")
    runs = [one.parent for deep in ("*", "*/*") for one in path.glob(f"{deep}/config.yaml")]
    evaluated = [run for run in runs if _tables(run / "evaluation")]
    others = dict.fromkeys(one for deep in DEPTHS for one in path.glob(f"{deep}{PREFIX}*.csv"))
    if not evaluated and not others:
        raise FileNotFoundError(
            f"{path} holds no evaluated run, with config.yaml and results, and no evaluation of a "
            "trained nnU-Net; evaluate first: `ima evaluate RUN`, `ima evaluate --nnunet FOLDER`"
        )
    return sorted([*evaluated, *others])


def read_source(path: Path, label: str = "") -> Source:
    """The network of a run, of a folder of results, or of a file; errors as of `find_sources`.

    label: what it is called; what its files say if empty. Raises ValueError also for damaged
    files, and for checks and distances of another evaluation.
    """
    is_run = (path / "config.yaml").is_file()
    folder = path.parent if path.is_file() else path / "evaluation" if is_run else path
    beside = _tables(folder)
    if path.is_file():
        # Only a name that runs give tells of which weights it is.
        tables = {path.stem if path.stem in WEIGHTS else "results": path}
    elif not (tables := beside):
        raise FileNotFoundError(f"{path} is not evaluated yet: `ima evaluate {path}`")
    results = {name: Results.from_csv(file) for name, file in tables.items()}
    for name, found in results.items():
        if not len(found.at(CLEAN)):
            raise ValueError(f"the results {tables[name]} hold no clean pass; evaluate again")
    config = _yaml(path / "config.yaml") if is_run else {}
    main = next(iter(results.values()))
    # Other files of a folder are of the weights that its first results are of.
    first = next(iter(tables.values()))
    own = first in list(beside.values())[:1] or first.name.startswith(PREFIX)
    trainer = main.settings.label.removeprefix(TRAINER)
    name = path.stem.removeprefix(PREFIX) if path.is_file() else path.name
    source = Source(
        label or _method(config) or trainer or name.removesuffix("-evaluation"),
        results,
        scrub(config),
        scrub(read_environment(path / "environment.json")) if is_run else {},
        read_epochs(path / "margins.csv", ("cap",)),
    )
    return _with_files(source, folder) if own else source


def _with_files(source: Source, folder: Path) -> Source:
    """The network with the pictures, checks and distances of a folder."""
    checks, distances = folder / "checks.json", folder / "distances.csv"
    checked = Checks.from_json(checks) if checks.exists() else None
    measured = Distances.from_csv(distances) if distances.exists() else None
    told = [one.settings for one in source.results.values()]
    if checked is not None:
        check_same_evaluation(str(checks), checked.settings, told)
    if measured is not None:
        # Distances stand beside the main weights' accuracies without saying whose they are.
        check_same_evaluation(str(distances), measured.settings, told[:1])
    pictures, slices = folder / "examples.npz", folder / "overlays.npz"
    examples = read_examples(pictures) if pictures.exists() else {}
    return replace(
        source,
        examples=examples,
        overlays=overlays.read_overlays(slices, len(source.main.classes))
        if slices.exists()
        else {},
        checks=None if checked is None else _scrubbed(checked),
        distances=measured,
    )


def _scrubbed(checks: Checks) -> Checks:
    """The same without paths of the machine."""
    found = tuple(checks_results.Check(**scrub(asdict(check))) for check in checks.checks)
    settings = checks.settings
    return Checks(Settings(**{**dict(settings), "about": scrub(settings.about)}), found)


def _tables(folder: Path) -> dict[str, Path]:
    """The results files of an evaluation, the best weights' first; none for other folders."""
    known = {name: folder / f"{name}.csv" for name in (*WEIGHTS, "results")}
    found = {name: file for name, file in known.items() if file.is_file()}
    others = sorted(folder.glob(f"{PREFIX}*.csv"))
    return found or ({"results": others[0]} if len(others) == 1 else {})


def _method(config: Mapping[str, Any]) -> str:
    name = str(config.get("method", {}).get("name", ""))
    return name if name in WORDS else name.rpartition(":")[2] if ":" in name else name.upper()


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = read_mapping(path)
    except YamlError as error:
        raise ValueError(f"{error}; the file is damaged") from error
    if not all(
        isinstance(found.get(key, {}), dict) for key in ("method", "train", "data", "network")
    ):
        raise ValueError(f"{path} is damaged: it holds no settings")
    return found
