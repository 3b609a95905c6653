"""The rows of a page: networks that one method gave belong together, others are compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ima.evaluation.results import TEST, Results
from ima.report.html.sources import Source, find
from ima.report.html.sources import read as read_one

OWN = ("arrays", "folder")
"""Data sets that are files of the user's, and are called after them."""


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
        for one in find(path):
            sources.setdefault(one.resolve(), read_one(one))
    return group(list(sources.values()))


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
