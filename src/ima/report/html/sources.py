"""What a page is made from: the files of runs and evaluations, read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ima.environments import read_environment
from ima.epochs import read_epochs
from ima.evaluation.checks_results import Checks
from ima.evaluation.distances import Distances
from ima.evaluation.results import NETWORK, Results, check_network
from ima.files import read_arrays
from ima.plain_yaml import YamlError, read_mapping
from ima.report.html.checks import scrubbed
from ima.report.html.scrub import scrub

WEIGHTS = ("best", "last")

WORDS = ("standard", "curriculum", "customized")
"""Methods whose names are words; the others are abbreviations."""


@dataclass(frozen=True)
class Source:
    """One trained network, as far as its files tell.

    label: its name on the page. results: by the name of its weights, `"best"` first, `"results"`
    where it is not known. config, environment: of the run, without paths of the machine; empty
    without a run. margins: the rows of margins.csv. examples: the arrays of examples.npz. checks,
    distances: where they were made; the checks perhaps of other weights, see `own_checks`.
    """

    label: str
    results: Mapping[str, Results]
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])
    margins: Sequence[Mapping[str, float]] = ()
    examples: Mapping[str, Any] = field(default_factory=dict[str, Any])
    checks: Checks | None = None
    distances: Distances | None = None

    @property
    def seed(self) -> int | None:
        """The seed of its training, where it is known."""
        return self.config.get("train", {}).get("seed")

    @property
    def own_checks(self) -> Checks | None:
        """The checks, where they are of the weights that the page is about."""
        if self.checks is None:
            return None
        name, main = next(iter(self.results.items()))
        settings = self.checks.settings
        own, known = settings.get(NETWORK), main.settings.get(NETWORK)
        # The digest first: the last epoch may be the best one.
        same = own == known if own and known else settings.get("weights", name) == name
        return self.checks if same else None

    @property
    def raised(self) -> tuple[str, ...]:
        """The titles of the checks of these weights that tripped."""
        checks = () if self.own_checks is None else self.own_checks.checks
        return tuple(check.title for check in checks if check.tripped)


def holds(path: Path) -> bool:
    """Whether there are results of classification in a folder, or in runs below it."""
    folders = (
        path,
        *(one for depth in ("", "*/", "*/*/") for one in path.glob(f"{depth}evaluation")),
    )
    return path.is_dir() and any(_tables(folder) for folder in folders)


def find(path: Path) -> list[Path]:
    """What a path names: a run, the evaluated runs of a folder, or a results file itself.

    Raises FileNotFoundError where there are no results.
    """
    if path.is_file() or (path / "config.yaml").is_file() or _tables(path):
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path} does not exist; name the folder of a run or of runs")
    runs = sorted(
        file.parent for pattern in ("*", "*/*") for file in path.glob(f"{pattern}/config.yaml")
    )
    evaluated = [run for run in runs if _tables(run / "evaluation")]
    if not evaluated:
        raise FileNotFoundError(
            f"{path} holds no evaluated run, with config.yaml and results; evaluate one first: "
            "`ima evaluate RUN`"
        )
    return sorted(evaluated, key=_order)


def _order(run: Path) -> tuple[Any, ...]:
    """Standard training first, IMA last, as in the comparisons' tables."""
    method = _yaml(run / "config.yaml").get("method", {})
    name = str(method.get("name"))
    values = tuple(str(v).zfill(8) for k, v in sorted(method.items()) if k != "name")
    return name != "standard", name == "ima", name, values, str(run)


def read(path: Path) -> Source:
    """The network of a run, of a folder of results, or of a results file; errors as of `find`.

    Raises ValueError also for damaged files, and for checks and distances of another evaluation.
    """
    if path.is_file():
        # Only a name that runs give tells of which weights it is.
        which = path.stem if path.stem in WEIGHTS else "results"
        return Source(path.stem, {which: Results.from_csv(path)})
    is_run = (path / "config.yaml").is_file()
    folder = path / "evaluation" if is_run else path
    tables = _tables(folder)
    if not tables:
        raise FileNotFoundError(f"{path} is not evaluated yet: `ima evaluate {path}`")
    results = {name: Results.from_csv(file) for name, file in tables.items()}
    if not all(found.rows for found in results.values()):
        raise ValueError(f"{folder} holds results without a row; evaluate the model again")
    config = _yaml(path / "config.yaml") if is_run else {}
    examples = folder / "examples.npz"
    checks, distances = folder / "checks.json", folder / "distances.csv"
    checked = Checks.from_json(checks) if checks.exists() else None
    measured = Distances.from_csv(distances) if distances.exists() else None
    told = [{**one.settings, "norm": one.norm} for one in results.values()]
    if checked is not None:
        check_network(checks, checked.settings, told)
    if measured is not None:
        # Distances stand beside the main weights' accuracies without saying whose they are.
        check_network(distances, {**measured.settings, "norm": measured.norm}, told[:1])
    return Source(
        _method(config) or path.name.removesuffix("-evaluation"),
        results,
        scrub(config),
        scrub(read_environment(path / "environment.json")) if is_run else {},
        read_epochs(path / "margins.csv", ("cap",)),
        _arrays(examples) if examples.exists() else {},
        None if checked is None else scrubbed(checked),
        measured,
    )


def _tables(folder: Path) -> dict[str, Path]:
    """The results files of an evaluation, the best weights' first; none for other folders."""
    known = {name: folder / f"{name}.csv" for name in (*WEIGHTS, "results")}
    return {name: file for name, file in known.items() if file.is_file()}


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


def _arrays(path: Path) -> dict[str, Any]:
    try:
        return read_arrays(path)
    except ValueError as error:
        raise ValueError(f"{error}; evaluate the model again") from error
