"""The rows of a page: networks that one method gave belong together, others are compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ima.evaluation.results import CLEAN, Results
from ima.evaluation.stated import NOTHING, Stated
from ima.report.leads import Lead, lead_of
from ima.report.scores import NoiseKey, Scores, scores
from ima.report.sources import Source, find_sources, read_source

OWN_DATA = ("arrays", "folder")
"""Data sets that are files of the user's, and are called after them."""


@dataclass(frozen=True, eq=False)
class PageEntry:
    """One row of the page: the networks that one method gave, one for each seed."""

    label: str
    sources: tuple[Source, ...]

    def results(self, which: str) -> tuple[Results, ...]:
        """The results of some weights, one for each seed that has them."""
        return tuple(s.results[which] for s in self.sources if which in s.results)

    @property
    def which(self) -> str:
        """The name of the weights that the page is about."""
        return self.sources[0].which

    @property
    def main(self) -> tuple[Results, ...]:
        """The results that the page is about: those of the best weights, where there are some."""
        return self.results(self.which)

    @cached_property
    def scores(self) -> Scores:
        """What noise leaves with the main weights."""
        return scores(self.main)

    def lead(self, attack: str, eps: float) -> Lead:
        """The lowest that all evidence leaves it with noise of this size."""
        if (attack, eps) not in self._leads:
            own = self.scores[attack, eps]
            self._leads[attack, eps] = lead_of(own, self.sources, self.which, attack, eps)
        return self._leads[attack, eps]

    @cached_property
    def _leads(self) -> dict[NoiseKey, Lead]:
        return {}

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the first seed."""
        return self.sources[0].config

    @property
    def part(self) -> str:
        """The part of the data that it was evaluated on, such as `test`."""
        return self.main[0].settings.part

    @property
    def count(self) -> str:
        """How many samples it was evaluated on, such as `540`; the ends where seeds differ."""
        counts = sorted({len(results.at(CLEAN)) for results in self.main})
        return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))

    def named(self, source: Source) -> str:
        """The label, with the seed where there are several."""
        return self.label + (f", seed {source.seed}" if len(self.sources) > 1 else "")


def read_entries(paths: Sequence[Path], stated: Stated = NOTHING) -> list[PageEntry]:
    """The entries of runs, of folders that hold runs, and of results files, in this order.

    stated: goes before what their results say. Raises FileNotFoundError for what holds no results,
    ValueError for damaged files and for results that do not belong on one page.
    """
    if not paths:
        raise ValueError("no runs are given; name run folders, as in `ima report runs/digits`")
    sources: dict[Path, Source] = {}
    for path in paths:
        found = {one.resolve(): read_source(one) for one in find_sources(path)}
        for place in sorted(found, key=lambda place: _order(found[place], place)):
            sources.setdefault(place, found[place])
    return group([source.stating(stated) for source in sources.values()])


def _order(source: Source, place: Path) -> tuple[Any, ...]:
    """Standard training first, IMA last, as in the comparisons' tables."""
    method = source.config.get("method", {})
    name = str(method.get("name", source.label))
    values = tuple(str(v).zfill(8) for k, v in sorted(method.items()) if k != "name")
    number = int("".join(filter(str.isdigit, source.label)) or 0)
    plain = name.lower() in ("standard", "std")
    return not plain, name.lower().startswith("ima"), name, number, values, str(place)


def group(sources: Sequence[Source]) -> list[PageEntry]:
    """One entry for all seeds of a method; ValueError for what does not belong on one page."""
    # Earlier results do not name their classes; others, or pictures, may.
    told = (r.settings.classes for s in sources for r in s.results.values())
    kept = (tuple(map(str, s.examples.get("classes", ()))) for s in sources)
    names = next((one for one in (*told, *kept) if one), ())
    sources = [source.naming(names) if names else source for source in sources]
    check_comparable([(s.label, r, s.config) for s in sources for r in s.results.values()])
    groups: dict[str, list[Source]] = {}
    for number, source in enumerate(sources):
        # Networks that do not say how they were made stay apart.
        groups.setdefault(_recipe(source) or str(number), []).append(source)
    labels = _labels([found[0] for found in groups.values()])
    return [
        PageEntry(label, tuple(found)) for label, found in zip(labels, groups.values(), strict=True)
    ]


def check_comparable(found: Sequence[tuple[str, Results, Mapping[str, Any]]]) -> None:
    """Raise ValueError for results, with label and config, of which some were measured otherwise.

    In other norms, of other qualities, on other data or parts of them.
    """
    told = [results.settings for _, results, _ in found]
    configs = [config for _, _, config in found if "data" in config]
    theirs = [one.data for one in told if one.data]
    # What a user's own function gives may be what a run has by another name.
    by_name = [name for name in theirs if ":" not in name]
    for what, each in (
        ("measure", [one.measure.name for one in told]),
        ("norm", [one.norm for one in told]),
        ("data", [*(str(config["data"]["name"]) for config in configs), *by_name]),
        ("data", [data_name(config) for config in configs if config["data"].get("path")]),
        ("data", theirs),
        ("bounds", [one.bounds_told for one in told if one.bounds]),
        ("part", [one.part for one in told]),
        ("classes", ["; ".join(one.classes) for one in told if one.measure.column]),
    ):
        distinct = list(dict.fromkeys(each))
        if len(distinct) > 1:
            raise ValueError(
                f"the runs differ in their {what}: {', '.join(distinct)}; make a page for each"
            )
    _check_truth([(label, results) for label, results, _ in found if "pixels" in results.columns])


def _check_truth(found: Sequence[tuple[str, Results]]) -> None:
    """Raise ValueError where networks were tested on other samples, or other labels of these."""
    told = [(label, _truth(results)) for label, results in found]
    for label, truth in told[1:]:
        first, expected = told[0]
        if truth.keys() != expected.keys():
            raise ValueError(
                f"{label} was evaluated on {len(truth)} samples, {first} on {len(expected)}, and "
                "they are not the same ones; evaluate both with the same cases and --samples"
            )
        if other := next((key for key in expected if truth[key] != expected[key]), None):
            case, at = other
            where = case if at < 0 else f"{case}, slice {at}"
            raise ValueError(
                f"the truth of {where} has {_held(*truth[other])} in the evaluation of {label}, "
                f"{_held(*expected[other])} in that of {first}: their data differ, or the grids "
                "that these lie on; evaluate both on the same, or make a page for each"
            )


def _truth(results: Results) -> dict[tuple[str, int], tuple[int, int]]:
    """By case and slice what the truth holds: pixels of foreground, and classes."""
    clean = results.of_attack()
    cases = [case or f"sample {i}" for case, i in zip(clean["case"], clean["id"], strict=True)]
    held = zip(clean["pixels"].tolist(), clean["present"].tolist(), strict=True)
    return dict(zip(zip(cases, clean["slice"].tolist(), strict=True), held, strict=True))


def _held(pixels: int, present: int) -> str:
    return f"{pixels} pixels of foreground in {present} class{'' if present == 1 else 'es'}"


def data_name(config: Mapping[str, Any]) -> str:
    """What a run's data is called: its own files after the file or the folder; "" if unknown."""
    data = config.get("data", {})
    name, path = str(data.get("name", "")), str(data.get("path") or "")
    if name not in OWN_DATA or not path:
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
