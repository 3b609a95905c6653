"""What figures draw, from results and from runs: pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ima.evaluation.results import CLEAN
from ima.evaluation.statistics import mean_and_std
from ima.report.inputs import Array, Curve, MarginHistory, Series
from ima.report.scores import WITHOUT, Scores, Seeds, headline, radii_of, scores, seeds_of
from ima.report.summary import Rows, check_rows


def curves(rows: Rows, attack: str = "") -> list[Curve]:
    """What is left over the noise radius, from 0 (clean), one curve a network.

    attack: the headline's if empty. Raises ValueError where it did not run.
    """
    check_rows(rows)
    found = [(label, scores(seeds)) for label, seeds in rows if seeds]
    all_scores = [of_one for _, of_one in found]
    chosen = attack or headline(all_scores)
    radii = [0.0, *radii_of(all_scores, chosen)]
    if len(radii) < 2 or not chosen:
        raise ValueError(f"the runs were not attacked with {chosen or 'anything'}; nothing to draw")
    return [
        Curve(label, np.array(radii), *_points(of_one, chosen, radii)) for label, of_one in found
    ]


def _points(of_one: Scores, attack: str, radii: Sequence[float]) -> tuple[Array, Array | None]:
    points = [of_one.get((attack, eps) if eps else WITHOUT) for eps in radii]
    seeds = seeds_of(of_one)
    known = [one if one is not None and one.seeds == seeds else None for one in points]
    means = np.array([math.nan if one is None else one.mean for one in known])
    stds = [math.nan if one is None else one.std for one in known]
    spread = None if None in stds or seeds < 2 else np.array(stds, dtype=float)
    return means, spread


def sweep_lines(
    rows: Sequence[tuple[float, Seeds]], attack: str, *, mean: bool, level: Seeds = ()
) -> list[Series]:
    """What is left over a swept option, one series without noise and one a noise radius.

    rows: the option's value, and the results with it; mean: add the geometric mean of them all;
    level: the results of a method that has no such option, at the same radii; none if empty.
    """
    ordered = sorted(rows, key=lambda row: row[0])
    radii = sorted({eps for _, seeds in ordered for r in seeds for eps in r.eps})

    def left(seeds: Seeds) -> list[list[float]]:
        each = [[r.mean(), *(r.mean(attack, e) for e in radii)] for r in seeds]
        return [[*one, float(np.prod(one) ** (1 / len(one)))] if mean else one for one in each]

    shares, beside = [left(seeds) for _, seeds in ordered], left(level)
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
                mean_and_std(one[number] for one in beside)[0] if beside else math.nan,
            )
        )
    return found


_NO_BIN = {"epoch", "cap", "median"}
"""Columns of margins.csv that are no bins."""


def margin_history(rows: Sequence[Mapping[str, float]]) -> MarginHistory:
    """The histograms of a run's margins.csv."""
    if not rows:
        raise ValueError("the run has no margins.csv; only methods with margins write one")
    # Without a cap the bins grow with the margins: all are shown on the widest ones.
    lows = max((_lows(row) for row in rows), key=lambda found: found[-1])
    cap = rows[0]["cap"]
    counts = np.zeros((len(rows), len(lows)))
    for number, row in enumerate(rows):
        if np.isfinite(cap) and not np.array_equal(_lows(row), lows):
            raise ValueError(f"epoch {row['epoch'] + 1:g} has other bins than the first")
        for name in row.keys() - _NO_BIN:
            bin_ = np.searchsorted(lows, float(name) * (1 + 1e-6), "right") - 1
            counts[number, bin_] += row[name]
    if not np.isfinite(cap):
        # What lies above the largest margin that ever was need not be drawn.
        used = int(np.flatnonzero(counts.any(0)).max(initial=0)) + 2
        lows, counts = lows[:used], counts[:, :used]
    return MarginHistory(
        edges=np.array([*lows, cap if np.isfinite(cap) else 2 * lows[-1] - lows[-2]]),
        epochs=np.array([row["epoch"] + 1 for row in rows]),
        counts=counts,
        known=np.array([row.get("median", np.nan) for row in rows]),
        cap=cap,
    )


def _lows(row: Mapping[str, float]) -> Array:
    return np.array(sorted(float(name) for name in row.keys() - _NO_BIN))
