"""What a test set leaves open: 95 % intervals of means, over samples or over their cases."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

Z = 1.959964


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share that was measured on n samples, as shares.

    Wilson, Journal of the American Statistical Association, 1927: it holds near 0 and 1 too, where
    share ± 2 standard errors does not. NaN for a NaN share; ValueError for n below 1.
    """
    if n < 1 or not (math.isnan(share) or 0 <= share <= 1):
        raise ValueError(f"share is {share!r} of n = {n!r}; expected 0 to 1, of 1 sample or more")
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    # Rounding errors must not leave the share outside.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def effective(cases: Sequence[tuple[int, int]]) -> float:
    """How many independent samples those of some cases are worth: n over the design effect.

    cases: how many samples of each stand, and how many there are. The design effect is the
    variance of the share, see `_variance`, over that of as many independent samples. Where all
    samples are alike it is not known, and cases count as if theirs were alike: (sum n)^2 / sum n^2
    (Kish, Survey Sampling, 1965), which is their number where they are of one size. 0 for fewer
    than two cases.
    """
    sizes, right = (np.array([case[at] for case in cases], dtype=float) for at in (1, 0))
    n, standing = sizes.sum(), right.sum()
    if len(cases) < 2:
        return 0.0
    if standing in (0, n):
        return float(n**2 / (sizes**2).sum())
    share = standing / n
    variance = _variance(right - share * sizes, sizes, float((right * (1 - right / sizes)).sum()))
    # No more than there are, and one at least: few cases may agree by chance.
    return float(min(n, max(1.0, share * (1 - share) / variance if variance > 0 else n)))


def _variance(sums: Array, sizes: Array, within: float) -> float:
    """The variance of a mean over samples of two or more cases, from residuals by case.

    sums: of the residuals of each case's samples, (C,); sizes: how many they are; within: the
    squares of residuals from their case's mean, summed.

    That of a ratio (Cochran, Sampling Techniques, 1977), every residual divided by the share of
    the other cases, as without its case (the jackknife): a large case pulls the mean to itself, and
    its residual to 0. At least that of cases whose samples are alike in one degree (analysis of
    variance): few cases beside a large one may agree by chance. One where all are of one size.
    """
    n, count = float(sizes.sum()), len(sizes)
    ratio = (count - 1) / count * float(((sums / (1 - sizes / n)) ** 2).sum()) / n**2
    between = float((sums**2 / sizes).sum()) / (count - 1)
    within /= max(1.0, n - count)
    squares = float((sizes**2).sum())
    apart = (between - within) * (count - 1) / (n - squares / n)
    return max(ratio, apart * squares / n**2 + within / n) if apart > 0 else ratio


def worth(standing: NDArray[np.bool_], cases: NDArray[np.str_]) -> float | None:
    """How many independent samples these are worth, by their cases; None where one is unknown."""
    if (cases == "").any():
        return None
    _, of_case = np.unique(cases, return_inverse=True)
    right, sizes = np.bincount(of_case, standing), np.bincount(of_case)
    return effective([(round(r), int(n)) for r, n in zip(right, sizes, strict=True)])


def share_interval(share: float, n: int, samples: float | None) -> tuple[float, float]:
    """The 95 % interval of a share of n samples that are worth so many, n if None.

    Everything where they are worth nothing.
    """
    if samples is None:
        return wilson(share, n)
    return wilson(share, samples) if samples >= 1 else (0.0, 1.0)


def part_means(values: Array) -> Array:
    """The mean of every column of values (n, K) over those that are not NaN, (K,)."""
    known = ~np.isnan(values)
    sums, counts = np.where(known, values, 0).sum(0), known.sum(0)
    return np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)


def mean_of(values: Array) -> float:
    """The mean of `part_means`; NaN where no part counts."""
    means = part_means(values)
    known = means[~np.isnan(means)]
    return math.fsum(known) / len(known) if len(known) else math.nan


def mean_interval(values: Array, cases: NDArray[np.str_]) -> tuple[float, float]:
    """A 95 % interval of `mean_of`, values (n, K) of 0 to 1, from how much the cases differ.

    Samples of one case are alike, so that cases are what is independent: the mean ± 1.96 standard
    errors from residuals by case, see `_variance`, within 0 to 1. Too narrow for few cases. NaN for
    fewer than two.
    """
    means = part_means(values)
    there = ~np.isnan(means)
    if not there.any():
        return math.nan, math.nan
    residual = (values - means) / np.maximum(1, (~np.isnan(values)).sum(0))
    each = len(values) * np.nansum(residual[:, there], 1) / there.sum()
    _, of_case = np.unique(cases, return_inverse=True)
    sums: Array = np.bincount(of_case, each).astype(np.float64)
    sizes = np.bincount(of_case).astype(np.float64)
    if len(sums) < 2:
        return math.nan, math.nan
    error = math.sqrt(_variance(sums, sizes, float(((each - (sums / sizes)[of_case]) ** 2).sum())))
    mean = mean_of(values)
    return max(0.0, mean - 1.96 * error), min(1.0, mean + 1.96 * error)


def needed(share: float, half: float) -> int:
    """How many independent samples make a Wilson interval at a share no wider than ± half.

    Raises ValueError for a half width that is not above 0 and below 0.5.
    """
    if not 0 < half < 0.5:
        raise ValueError(
            f"the interval is to be ± {half:g}; expected above 0 and below 0.5, such as 0.02 for "
            "± 2 points"
        )

    def wide(n: int) -> bool:
        low, high = wilson(share, n)
        return high - low > 2 * half

    most = 1
    while wide(most):
        most *= 2
    # The interval narrows with every sample.
    return bisect_left(range(most), True, lo=1, key=lambda n: not wide(n))


def planned(
    values: Array, standing: NDArray[np.bool_], cases: NDArray[np.str_], half: float
) -> tuple[int, int]:
    """How many samples like these, of how many cases, make intervals of ± half; 0: not known.

    values: (n, K) as of `mean_of`, where qualities fall by degrees; (n, 0) for shares, of which
    `standing` tells; cases: as their names, empty where nobody said.
    """
    n, named = len(standing), not (cases == "").any()
    count = len(np.unique(cases)) if named else 0
    if values.shape[1]:
        own = cases if named else np.arange(n).astype(str)
        low, high = mean_interval(values, own)
        mean = mean_of(values)
        # An end may be cut at 0 or 1.
        ratio = (max(mean - low, high - mean) / half) ** 2
    else:
        samples = worth(standing, cases)
        independent = n if samples is None else samples
        least = needed(float(standing.mean()), half)
        ratio = least / independent if independent >= 1 else math.nan
    if not ratio > 0:
        return 0, 0
    return math.ceil(ratio * n), math.ceil(ratio * count)


def mean_and_std(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation where there are several values."""
    array = np.array(list(values), dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None
