"""From results to tables and curves: pure functions of the rows that an evaluation wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ima.evaluation.remarks import united
from ima.evaluation.results import CLEAN, EPOCH, PICKED, Results, mean_and_std
from ima.files import read_arrays
from ima.report.inputs import Curve, ExampleRow, MarginHistory, Series
from ima.report.tables import Cell, Measure, Table

Seeds = Sequence[Results]
"""The results of one method, one for each seed."""


def results_table(rows: Sequence[tuple[str, Seeds]], caption: str) -> Table:
    """One row a method: accuracy without noise, and under each attack at each radius.

    A method without results, whose training diverged, has a row of absent values. The caption
    ends with the number of samples, and with what leaves the accuracies in doubt.
    """
    settings = [(attack, e) for attack in _attacks(rows) for e in _radii(rows)]
    columns = ("method", CLEAN, *(f"{attack} at {e:g}" for attack, e in settings))
    lines: list[tuple[Cell, ...]] = []
    for label, seeds in rows:
        cells = [
            measure(r.accuracy(attack, e) for r in seeds) if seeds else Measure(math.nan)
            for attack, e in [(CLEAN, 0.0), *settings]
        ]
        lines.append((label, *cells))
    named = ((label if len(rows) > 1 else "", r.remarks) for label, seeds in rows for r in seeds)
    whole = " ".join(part for part in (caption, f"{count(rows)}.", *united(named)) if part)
    return Table(columns, tuple(lines), whole, ("", *(attack for attack, _ in settings)))


def count(rows: Sequence[tuple[str, Seeds]]) -> str:
    """How many samples the accuracies are shares of, such as `n = 540 test samples`."""
    found = dict.fromkeys(
        r.settings.get("samples", str(len(r.broken(CLEAN, 0.0))))
        for _, seeds in rows
        for r in seeds
    )
    # "540 of 540" is all of them.
    words = [one.partition(" of ") for one in found]
    shown = dict.fromkeys(n if n == whole else n + of + whole for n, of, whole in words)
    parts = dict.fromkeys(r.settings.get("part", "test") for _, seeds in rows for r in seeds)
    return f"n = {' or '.join(shown)} {' and '.join(parts) or 'test'} samples"


def epoch_told(results: Results) -> str:
    """Of which epoch the weights are and what picked it, in a sentence; empty where unknown."""
    told = results.settings
    if EPOCH not in told or PICKED not in told:
        return ""
    return f"Epoch {told[EPOCH]}, picked on validation by {told[PICKED]}."


def times_table(rows: Sequence[tuple[str, Sequence[float]]], standard: str, caption: str) -> Table:
    """One row a method: the median of its epochs' seconds, and how often that of `standard`.

    standard: a row's label, or empty for no such column.
    """
    medians = {label: float(np.median(seconds)) for label, seconds in rows}
    lines: list[tuple[Cell, ...]] = []
    for label, median in medians.items():
        ratio = (f"{median / medians[standard]:.1f}",) if standard else ()
        lines.append((label, _three_digits(median), *ratio))
    against = (f"times {standard}",) if standard else ()
    return Table(("method", "seconds per epoch", *against), tuple(lines), caption)


def _three_digits(value: float) -> str:
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{max(0, decimals)}f}"


def sweep(rows: Sequence[tuple[float, Seeds]], attack: str, *, mean: bool) -> list[Series]:
    """Accuracy over a swept option, one series without noise and one a noise radius.

    rows: the option's value, and the results with it; mean: add the geometric mean of them all.
    """
    ordered = sorted(rows, key=lambda row: row[0])
    radii = _radii([("", seeds) for _, seeds in ordered])
    shares = [
        [[r.accuracy(), *(r.accuracy(attack, e) for e in radii)] for r in seeds]
        for _, seeds in ordered
    ]
    if mean:
        shares = [[[*one, _geometric(one)] for one in seeds] for seeds in shares]
    labels = [CLEAN, *(f"at {e:g}" for e in radii), *(["geometric mean"] if mean else [])]
    found: list[Series] = []
    for number, label in enumerate(labels):
        points = [mean_and_std(one[number] for one in seeds) for seeds in shares]
        known = all(std is not None for _, std in points)
        found.append(
            Series(
                label,
                np.array([value for value, _ in ordered]),
                np.array([share for share, _ in points]),
                np.array([std for _, std in points], dtype=float) if known else None,
            )
        )
    return found


def _geometric(shares: Sequence[float]) -> float:
    return float(np.prod(shares) ** (1 / len(shares)))


def measure(values: Any) -> Measure:
    """Mean and standard deviation of one accuracy over the seeds."""
    array = list(values)
    mean, std = mean_and_std(array)
    return Measure(mean, std, len(array))


def curves(rows: Sequence[tuple[str, Seeds]], attack: str) -> list[Curve]:
    """Accuracy over the noise radius, from 0 (clean), one curve a method."""
    radii = (0.0, *_radii(rows))
    found: list[Curve] = []
    for label, seeds in rows:
        points = [mean_and_std(r.accuracy(attack if e else CLEAN, e) for r in seeds) for e in radii]
        std = np.array([s for _, s in points if s is not None])
        found.append(
            Curve(
                label,
                np.array(radii),
                np.array([mean for mean, _ in points]),
                std if len(std) == len(points) else None,
            )
        )
    return found


EXAMPLES = (
    "id",
    "attack",
    "eps",
    "label",
    "prediction",
    "clean_prediction",
    "clean",
    "noisy",
    "classes",
)
"""The arrays of an examples.npz."""


def margin_history(rows: Sequence[Mapping[str, float]]) -> MarginHistory:
    """The histograms of a run's margins.csv."""
    if not rows:
        raise ValueError("the run has no margins.csv; only methods with margins write one")
    lows = [name for name in rows[0] if name not in ("epoch", "cap", "median")]
    return MarginHistory(
        edges=np.array([*map(float, lows), rows[0]["cap"]]),
        epochs=np.array([row["epoch"] + 1 for row in rows]),
        counts=np.array([[row[name] for name in lows] for row in rows]),
        known=np.array([row.get("median", np.nan) for row in rows]),
    )


def pick_example(
    files: Mapping[str, Path], attack: str, *, fooled: str, firm: str
) -> tuple[np.ndarray, str, list[ExampleRow]] | None:
    """One test sample under several methods, for a picture: (clean image, class, rows), or None.

    files: examples.npz of each method, by label. The sample is right without noise everywhere;
    at the smallest radius at which one exists, the method `fooled` is wrong on it and the method
    `firm` is right.
    """
    loaded = {label: read_arrays(path) for label, path in files.items()}
    for label, path in files.items():
        if lost := [name for name in EXAMPLES if name not in loaded[label]]:
            raise ValueError(f"{path} is damaged: it lacks {lost[0]}; evaluate the model again")
    if loaded[fooled]["clean"].ndim != 4:
        return None  # Vectors and volumes are no pictures.
    radii = np.unique(loaded[fooled]["eps"])
    classes = loaded[fooled]["classes"].tolist()
    for eps in radii:
        at = {
            label: {
                int(data["id"][i]): i
                for i in np.flatnonzero(np.isclose(data["eps"], eps) & (data["attack"] == attack))
            }
            for label, data in loaded.items()
        }
        for sample, i in at[fooled].items():
            found = {label: places.get(sample) for label, places in at.items()}
            if any(place is None for place in found.values()):
                continue
            label = loaded[fooled]["label"][i]
            wrong = loaded[fooled]["prediction"][i] != label
            if wrong and loaded[firm]["prediction"][found[firm]] == label:
                rows = [
                    ExampleRow(
                        name,
                        float(eps),
                        _image(data["noisy"][found[name]]),
                        classes[int(data["clean_prediction"][found[name]])],
                        classes[int(data["prediction"][found[name]])],
                    )
                    for name, data in loaded.items()
                ]
                return _image(loaded[fooled]["clean"][i]), classes[int(label)], rows
    return None


def _image(sample: np.ndarray) -> np.ndarray:
    return sample[0] if sample.shape[0] == 1 else np.moveaxis(sample, 0, -1)


def _attacks(rows: Sequence[tuple[str, Seeds]]) -> list[str]:
    return list(dict.fromkeys(a for _, seeds in rows for r in seeds for a in r.attacks))


def _radii(rows: Sequence[tuple[str, Seeds]]) -> list[float]:
    return sorted({e for _, seeds in rows for r in seeds for e in r.eps})
