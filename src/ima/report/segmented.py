"""What evaluations of segmentation networks left behind, and the Dice indices that follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from ima.evaluation.checks_results import Checks
from ima.evaluation.results import CLEAN, check_network, is_white
from ima.evaluation.segmentation_results import (
    EMPTY_SLICES,
    OVERLAYS,
    WORST,
    SegmentationResults,
    SegmentRow,
)
from ima.nnunet.paper import by_dataset
from ima.report import overlays

PREFIX, CHECKS = "results_", "checks.json"
"""How the names of results files begin, and the file of checks beside them."""

DEPTHS = tuple(
    "*/" * deep + inner
    for inner, most in (("", 3), ("ima/", 2), ("fold_*/ima/", 4))
    for deep in range(most)
)
"""Where results lie below a folder that is named: nnU-Net's own folders, and above them."""

COLUMNS = "id,case,slice,attack,eps,dice,"
"""How the head of a results file begins."""

TRAINER = "nnUNetTrainer"


@dataclass(frozen=True)
class Score:
    """What one attack at one radius leaves; all 0..1, NaN where nothing counts.

    adi: the average Dice index (Ma & Liang, Eq. 14); interval: its 95 % interval; all_classes: the
    same over samples that hold every class; per_class: of every foreground class.
    """

    adi: float
    interval: tuple[float, float]
    all_classes: float
    per_class: tuple[float, ...]


Key: TypeAlias = tuple[str, float]
"""An attack and its radius, 0 for none; for white noise the amplitude."""

Scores: TypeAlias = Mapping[Key, Score]

Run: TypeAlias = tuple[str, SegmentationResults]
"""A network's label, and its results."""


@dataclass(frozen=True, eq=False)
class Segmented:
    """One trained segmentation network, as far as its files tell.

    label: its name on the page; results: one row a sample, attack and radius; overlays: the arrays
    of overlays.npz, none where no slices were kept; checks: where they were made.
    """

    label: str
    results: SegmentationResults
    overlays: Mapping[str, Any] = field(default_factory=dict[str, Any])
    checks: Checks | None = None

    @staticmethod
    def open(path: Path, label: str = "") -> Segmented:
        """Read a results file, or the one in a folder, and the slices beside it.

        label: the trainer's name without nnU-Net's prefix if empty. Raises FileNotFoundError for
        a folder without results, ValueError for damaged files.
        """
        file = path if path.is_file() else next(iter(_tables(path, "")), None)
        if file is None:
            raise FileNotFoundError(
                f"{path} holds no evaluation; make one: `ima evaluate --nnunet FOLDER`"
            )
        results = SegmentationResults.from_csv(file)
        if not any(row.attack == CLEAN for row in results.rows):
            raise ValueError(f"{file} holds no clean pass; evaluate the network again")
        trainer = results.settings.get("trainer", "").removeprefix(TRAINER)
        arrays, checks = file.with_name(OVERLAYS), file.with_name(CHECKS)
        checked = Checks.from_json(checks) if checks.is_file() else None
        if checked is not None:
            check_network(checks, checked.settings, [results.settings])
        return Segmented(
            label or trainer or file.stem.removeprefix(PREFIX),
            results,
            overlays.read(arrays, len(results.classes)) if arrays.is_file() else {},
            checked,
        )

    @property
    def run(self) -> Run:
        """Label and results."""
        return self.label, self.results


def scores(results: SegmentationResults) -> dict[Key, Score]:
    """By attack and radius: clean first, white noise last."""
    found: dict[Key, list[SegmentRow]] = {}
    for row in results.rows:
        found.setdefault((row.attack, row.eps), []).append(row)
    order = [CLEAN, *results.attacks, *results.white]
    keys = sorted(found, key=lambda key: (order.index(key[0]), key[1]))
    return {key: _score(results, found[key], key) for key in keys}


def find(path: Path) -> list[Path]:
    """The results files of segmentation networks in a folder or below it; a file is its own."""
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = [file.readline(10_000), file.readline(10_000)]
        return [path] if any(line.startswith(COLUMNS) for line in lines) else []
    files = dict.fromkeys(file for depth in DEPTHS for file in _tables(path, depth))
    return sorted(files, key=_order)


def labelled(runs: Sequence[Segmented]) -> list[Segmented]:
    """The same with distinct labels."""
    labels = [run.label for run in runs]
    return [
        run
        if labels.count(run.label) == 1
        else replace(run, label=f"{run.label} #{labels[: i + 1].count(run.label)}")
        for i, run in enumerate(runs)
    ]


def checked(runs: Sequence[Run]) -> None:
    """Raise ValueError for runs that do not belong into one table."""
    if not runs:
        raise ValueError("runs is empty, expected one evaluation or more")
    labels = [label for label, _ in runs]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"several runs are labelled {twice}; give distinct labels")
    for what, each in (
        ("norm", [results.norm for _, results in runs]),
        ("data", [results.settings.get("dataset", "unnamed") for _, results in runs]),
        ("classes", [", ".join(results.classes) for _, results in runs]),
    ):
        found = list(dict.fromkeys(each))
        if len(found) > 1:
            raise ValueError(
                f"the runs differ in their {what}: {'; '.join(found)}; make a page for each"
            )
    (first, results), *others = runs
    expected = _samples(results)
    if not expected:
        raise ValueError(f"the results of {first} hold no clean pass; evaluate the network again")
    for label, results in others:
        found = _samples(results)
        if found.keys() != expected.keys():
            raise ValueError(
                f"{label} was evaluated on {len(found)} samples, {first} on {len(expected)}, and "
                "they are not the same ones; evaluate both with the same cases and --samples"
            )
        if other := next((key for key in expected if found[key] != expected[key]), None):
            case, at = other
            where = case if at < 0 else f"{case}, slice {at}"
            raise ValueError(
                f"the truth of {where} has {_held(*found[other])} in the evaluation of {label}, "
                f"{_held(*expected[other])} in that of {first}: their data differ, or the grids "
                "that these lie on; evaluate both on the same, or make a page for each"
            )


def keys_of(all_scores: Sequence[Scores]) -> list[Key]:
    """Attacks and radii of all runs, in their order: the worst case behind what it sums up."""
    keys = dict.fromkeys(key for scores in all_scores for key in scores)
    attacks = list(dict.fromkeys(attack for attack, _ in keys))
    late = [a for a in attacks if a == WORST] + [a for a in attacks if is_white(a)]
    order = [a for a in attacks if a not in late] + late
    return sorted(keys, key=lambda key: (order.index(key[0]), key[1]))


def headline(all_scores: Sequence[Scores]) -> str:
    """The attack that sentences and curves are about: the worst case, or the first; "" for none."""
    attacks = [attack for attack, _ in keys_of(all_scores) if aimed(attack)]
    return WORST if WORST in attacks else next(iter(attacks), "")


def aimed(attack: str) -> bool:
    """Whether noise was chosen against the network, rather than drawn, or none at all."""
    return attack != CLEAN and attack.partition("-")[0] not in ("noise", "white")


def radii(all_scores: Sequence[Scores], attack: str) -> list[float]:
    """The radii of an attack, ascending, without 0."""
    return sorted({eps for scores in all_scores for name, eps in scores if name == attack})


def levels(results: SegmentationResults, known: Sequence[float]) -> list[float]:
    """The radii to mark: the paper's where data and norm are, and all were measured; else all."""
    task = by_dataset(results.settings.get("dataset", ""))
    marked = () if task is None else task.levels
    paper = results.norm.lower() == "l2" and bool(marked) and set(marked) <= set(known)
    return [float(level) for level in (marked if paper else known)]


def count(results: SegmentationResults) -> str:
    """How many samples were tested, such as `840 slices of 35 cases, 310 without foreground`."""
    clean = [row for row in results.rows if row.attack == CLEAN]
    unit = _unit(results)
    n, _, whole = results.settings.get("samples", "").partition(" of ")
    part = f" (of {whole})" if whole not in ("", n) else ""
    empty = sum(row.pixels == 0 for row in clean)
    bare = f", {empty} without foreground" if empty else ""
    cases = len(results.cases)
    several = unit == "slices" or (results.knows_cases and cases < len(clean))
    of_cases = f" of {cases} case{'s' if cases > 1 else ''}" if several else ""
    return f"{len(clean)} {unit}{part}{of_cases}{bare}"


def in_volumes(results: SegmentationResults) -> bool:
    """Whether samples are volumes, whole or a part of a case, rather than slices or images."""
    dimensions = results.settings.get("dimensions")
    # Several volumes of one case are counted like slices.
    return dimensions == "3" or (dimensions != "2" and all(row.slice < 0 for row in results.rows))


def in_patches(results: SegmentationResults) -> bool:
    """Whether a volume may be the central patch of a larger case."""
    return in_volumes(results) and "central patch" in results.settings.get("samples are", "")


def within(results: SegmentationResults) -> str:
    """What a slice's number counts in, behind it, where that may be another than the case."""
    return " of the sample" if in_volumes(results) else ""


def empties(results: SegmentationResults) -> str:
    """The convention for samples without foreground, in words."""
    return results.settings.get("empty slices", EMPTY_SLICES)


def _samples(results: SegmentationResults) -> dict[tuple[str, int], tuple[int, int]]:
    """By case and slice what its truth holds: pixels of foreground, and foreground classes."""
    return {
        (row.case, row.slice): (row.pixels, row.present)
        for row in results.rows
        if row.attack == CLEAN
    }


def _held(pixels: int, present: int) -> str:
    return f"{pixels} pixels of foreground in {present} class{'' if present == 1 else 'es'}"


def _unit(results: SegmentationResults) -> str:
    if in_volumes(results):
        return "cases or central patches" if in_patches(results) else "volumes"
    return "slices" if any(row.slice >= 0 for row in results.rows) else "images"


def _score(results: SegmentationResults, rows: list[SegmentRow], key: Key) -> Score:
    part = SegmentationResults(tuple(rows), results.classes, results.norm)
    return Score(
        part.adi(*key),
        part.adi_interval(*key),
        part.adi_all_classes(*key),
        part.adi_per_class(*key),
    )


def _tables(folder: Path, depth: str) -> list[Path]:
    return sorted(file for file in folder.glob(f"{depth}{PREFIX}*.csv") if file.is_file())


def _order(file: Path) -> tuple[Any, ...]:
    """Standard training first, IMA last, as in the tables of comparisons."""
    parts = [
        part.partition("__")[0].removeprefix(TRAINER) for part in file.parts if TRAINER in part
    ]
    name = parts[-1] if parts else ""
    digits = "".join(filter(str.isdigit, name))
    return not name.startswith("STD"), name.startswith("IMA"), int(digits or 0), name, str(file)


def shown(value: float, digits: int = 3) -> str:
    """A Dice index as written; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
