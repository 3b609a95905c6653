"""What a page is made from: the files of runs and evaluations, read without torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile

import numpy as np
import yaml

from ima.evaluation.checks_results import Checks
from ima.evaluation.distances import Distances
from ima.evaluation.results import NETWORK, TEST, Results, check_network
from ima.report.html.checks import scrubbed
from ima.report.html.scrub import scrub

WEIGHTS = ("best", "last")
OWN = ("arrays", "folder")
"""Data sets that are files of the user's, and are called after them."""

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


@dataclass(frozen=True)
class Entry:
    """One row of the page: the networks that one method gave, one for each seed."""

    label: str
    sources: tuple[Source, ...]

    def results(self, which: str) -> tuple[Results, ...]:
        """The results of some weights, one for each seed that has them."""
        return tuple(s.results[which] for s in self.sources if which in s.results)

    @property
    def which(self) -> str:
        """The name of the weights that the page is about."""
        return next(iter(self.sources[0].results))

    @property
    def main(self) -> tuple[Results, ...]:
        """The results that the page is about: those of the best weights, where there are some."""
        return self.results(self.which)

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the first seed."""
        return self.sources[0].config


def read(paths: Sequence[Path]) -> list[Entry]:
    """The entries of runs, of folders that hold runs, and of results files, in this order.

    Raises FileNotFoundError for what holds no results, ValueError for damaged files and for
    results that do not belong on one page.
    """
    if not paths:
        raise ValueError("no runs are given; name run folders, as in `ima report runs/digits`")
    sources: dict[Path, Source] = {}
    for path in paths:
        for one in _found(path):
            sources.setdefault(one.resolve(), _read(one))
    return group(list(sources.values()))


def holds(path: Path) -> bool:
    """Whether there are results of classification in a folder, or in runs below it."""
    folders = (
        path,
        *(one for depth in ("", "*/", "*/*/") for one in path.glob(f"{depth}evaluation")),
    )
    return path.is_dir() and any(_tables(folder) for folder in folders)


def group(sources: Sequence[Source]) -> list[Entry]:
    """One entry for all seeds of a method; ValueError for what does not belong on one page."""
    _comparable(sources)
    groups: dict[str, list[Source]] = {}
    for number, source in enumerate(sources):
        # Networks that do not say how they were made stay apart.
        groups.setdefault(_recipe(source) or str(number), []).append(source)
    labels = _labels([found[0] for found in groups.values()])
    return [
        Entry(label, tuple(found)) for label, found in zip(labels, groups.values(), strict=True)
    ]


def _comparable(sources: Sequence[Source]) -> None:
    """Raise ValueError for networks of which some were measured otherwise, or on other data."""
    results = [r for s in sources for r in s.results.values()]
    told = [r.settings for r in results]
    configs = [s.config for s in sources if "data" in s.config]
    theirs = [one["data"] for one in told if "data" in one]
    # What a user's own function gives may be what a run has by another name.
    by_name = [name for name in theirs if ":" not in name]
    for what, found in (
        ("norm", [r.norm for r in results]),
        ("data", [*(str(config["data"]["name"]) for config in configs), *by_name]),
        ("data", [data_name(config) for config in configs if config["data"].get("path")]),
        ("data", theirs),
        ("bounds", [one["bounds"] for one in told if "bounds" in one]),
        ("part", [one.get("part", TEST) for one in told]),
    ):
        distinct = list(dict.fromkeys(found))
        if len(distinct) > 1:
            raise ValueError(
                f"the runs differ in their {what}: {', '.join(distinct)}; make a page for each"
            )


def data_name(config: Mapping[str, Any]) -> str:
    """What a run's data is called: its own files after the file or the folder; "" if unknown."""
    data = config.get("data", {})
    name, path = str(data.get("name", "")), str(data.get("path") or "")
    if name not in OWN or not path:
        return name
    file = PurePosixPath(path.replace("\\", "/")).name
    return file.removesuffix(".npz").removesuffix(".zip") or name


def _found(path: Path) -> list[Path]:
    """What a path names: a run, the evaluated runs of a folder, or a results file itself."""
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
            f"{path} holds no evaluated run; evaluate one first: `ima evaluate RUN`"
        )
    return sorted(evaluated, key=_order)


def _order(run: Path) -> tuple[Any, ...]:
    """Standard training first, IMA last, as in the comparisons' tables."""
    method = _yaml(run / "config.yaml").get("method", {})
    name = str(method.get("name"))
    values = tuple(str(v).zfill(8) for k, v in sorted(method.items()) if k != "name")
    return name != "standard", name == "ima", name, values, str(run)


def _read(path: Path) -> Source:
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
        scrub(_json(path / "environment.json")) if is_run else {},
        _margins(path / "margins.csv"),
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


def _recipe(source: Source) -> str:
    """Everything about a run's making but its seed and the place of its data."""
    if not source.config:
        return ""
    config = {key: dict(v) if isinstance(v, dict) else v for key, v in source.config.items()}
    config.get("train", {}).pop("seed", None)
    config.get("data", {}).pop("path", None)
    config.pop("evaluate", None)
    return json.dumps(config, sort_keys=True)


def _labels(sources: Sequence[Source]) -> list[str]:
    """Distinct labels: where a method is there twice, with the options in which it differs."""
    labels: list[str] = []
    for source in sources:
        same = [s.config.get("method", {}) for s in sources if s.label == source.label]
        own = source.config.get("method", {})
        options = [
            f"{key} {_plain(own[key])}" for key in own if len({str(m.get(key)) for m in same}) > 1
        ]
        labels.append(source.label + (f" ({', '.join(options)})" if options else ""))
    return [
        label if labels.count(label) == 1 else f"{label} #{labels[: i + 1].count(label)}"
        for i, label in enumerate(labels)
    ]


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key, {}), dict) for key in ("method", "train", "data", "network")
    ):
        raise ValueError(f"{path} is damaged: it holds no settings")
    return found


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: expected an object, got {type(found).__name__}")
    return found


def _margins(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (BadZipFile, OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged: {error}; evaluate the model again") from error
