"""What noise leaves of networks: means over seeds with their uncertainty, whatever is measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ima.evaluation.distances import Distances
from ima.evaluation.results import CLEAN, WORST, Results
from ima.evaluation.statistics import (
    mean_and_std,
    mean_interval,
    mean_of,
    share_interval,
    worth,
)
from ima.measures import Measure
from ima.nnunet.paper import by_dataset

FEW_RADII = 3
"""So many radii are spoken of."""

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Of samples that noise breaks, of which it is told how large that noise is."""

RADII = ("chosen", "drawn", "worst")
"""Kinds of noise whose size is a radius."""

NoiseKey: TypeAlias = tuple[str, float]
"""An attack and its radius, 0 for none; for white noise the amplitude."""

WITHOUT: NoiseKey = (CLEAN, 0.0)
"""No noise."""


@dataclass(frozen=True)
class Score:
    """What one attack at one radius leaves: all 0..1, NaN where nothing counts.

    mean, std: over seeds, each measured on n samples; interval: 95 %, seeds share the samples, so
    they do not narrow it; kind: of the noise. whole: the mean over samples that hold every part,
    NaN where results do not tell; clean: the mean of these same seeds without noise.
    """

    measure: Measure
    kind: str
    mean: float
    std: float | None
    interval: tuple[float, float]
    n: int
    seeds: int
    whole: float = math.nan
    clean: float = math.nan

    @property
    def shown(self) -> str:
        """The mean without its unit."""
        return self.measure.write(self.mean)

    @property
    def text(self) -> str:
        """The mean in a sentence."""
        return self.measure.said(self.mean)

    @property
    def within(self) -> str:
        """The interval in words, and what it lacks where there is none."""
        low, high = map(self.measure.write, self.interval)
        return "needs two cases" if math.isnan(self.interval[0]) else f"{low} to {high}"

    def __str__(self) -> str:
        return self.shown + ("" if self.std is None else f" ± {self.measure.write(self.std)}")

    def lost(self) -> Score:
        """The share that does not stand, in place of that which does."""
        low, high = self.interval
        return replace(self, mean=1 - self.mean, interval=(1 - high, 1 - low))


Scores: TypeAlias = Mapping[NoiseKey, Score]
"""By attack and noise radius, clean first, white noise last."""

Seeds: TypeAlias = Sequence[Results]
"""The results of one network, one for each seed."""

Measured: TypeAlias = tuple[Results, NDArray[np.intp], NDArray[np.float64]]
"""Some rows of one seed: the results, the rows' places, and the values (n, K) there."""


def scores(seeds: Seeds) -> Scores:
    """What noise leaves of one network, by attack and radius."""
    cleans = {number: results.mean() for number, results in enumerate(seeds)}
    found: dict[NoiseKey, Score] = {}
    for key in dict.fromkeys(key for results in seeds for key in results.keys):
        having = {i: r for i, r in enumerate(seeds) if len(r.at(*key))}
        with_key = list(having.values())
        made = score([(r, r.at(*key), r.matrix(*key)) for r in with_key])
        clean, _ = mean_and_std(cleans[number] for number in having)
        whole = math.nan
        if "present" in with_key[0].columns:
            whole, _ = mean_and_std(r.adi_all_classes(*key) for r in with_key)
        found[key] = replace(made, clean=clean, whole=whole)
    return {key: found[key] for key in keys_of([found])}


def part_scores(seeds: Seeds, attack: str, eps: float) -> dict[str, Score]:
    """The same of every part, by its name, over the samples in which it counts."""
    found: dict[str, list[Measured]] = {}
    for results in seeds:
        places = results.at(attack, eps)
        values = results.parts(places)
        for number, name in enumerate(results.classes):
            known = ~np.isnan(values[:, number])
            if known.any():
                rows = (results, places[known], values[known, number : number + 1])
                found.setdefault(name, []).append(rows)
    return {name: score(rows) for name, rows in found.items()}


def score(seeds: Sequence[Measured]) -> Score:
    """The score of some rows of each seed."""
    first = seeds[0][0]
    measure = first.settings.measure
    mean, std = mean_and_std(mean_of(values) for _, _, values in seeds)
    n = min(len(places) for _, places, _ in seeds)
    # A finding is right or wrong also where a sample's quality is a share of them.
    whole = measure.over == "samples" and all(np.isin(v, (0, 1)).all() for _, _, v in seeds)
    if measure.binary or whole:
        samples = [
            worth(values[:, 0] >= measure.threshold, results.columns["case"][places])
            for results, places, values in seeds
        ]
        known = [one for one in samples if one is not None]
        interval = share_interval(mean, n, min(known) if len(known) == len(samples) else None)
    else:
        ends = [mean_interval(values, _cases(results, places)) for results, places, values in seeds]
        low, high = np.mean(ends, axis=0).tolist()
        interval = (low, high)
    kind = str(first.columns["kind"][seeds[0][1][0]])
    return Score(measure, kind, mean, std, interval, n, len(seeds))


def _cases(results: Results, places: NDArray[np.intp]) -> NDArray[Any]:
    cases = results.columns["case"][places]
    return np.where(cases == "", results.columns["id"][places].astype(str), cases)


def flipped(seeds: Seeds, white: str) -> Score | None:
    """The share of samples, right without noise, that white noise makes wrong; None: not known."""
    places = [(r, r.flips(white)) for r in seeds if white in r.white]
    known = [(r, at, r.columns["quality"][at][:, None]) for r, at in places if len(at)]
    return score(known).lost() if known else None


def keys_of(all_scores: Iterable[Scores]) -> list[NoiseKey]:
    """Attacks and radii of all networks: clean first, the worst case behind what it sums up."""
    found = {key: one for of_one in all_scores for key, one in of_one.items()}
    attacks = list(dict.fromkeys(attack for attack, _ in found))
    late = {attack: found[attack, eps].kind == "white" for attack, eps in found}
    order = sorted(attacks, key=lambda a: (a != CLEAN, late[a], a == WORST, attacks.index(a)))
    return sorted(found, key=lambda key: (order.index(key[0]), key[1]))


def radial(all_scores: Sequence[Scores]) -> list[NoiseKey]:
    """Those of noise whose size is a radius."""
    return [key for key in keys_of(all_scores) if noise_kind(key[0], all_scores) in RADII]


def noise_kind(attack: str, all_scores: Sequence[Scores]) -> str:
    """The kind of an attack's noise; "" where none ran."""
    kinds = (
        one.kind for of_one in all_scores for (name, _), one in of_one.items() if name == attack
    )
    return next(kinds, "")


def attacks_of(all_scores: Sequence[Scores]) -> list[str]:
    """The attacks that ran, in their order, without clean and white noise."""
    return list(dict.fromkeys(attack for attack, _ in radial(all_scores)))


def radii_of(all_scores: Sequence[Scores], attack: str = "") -> list[float]:
    """The noise radii, of one attack or of all, ascending."""
    return sorted({eps for name, eps in radial(all_scores) if attack in ("", name)})


def few_radii(radii: Sequence[float], most: int = FEW_RADII) -> list[float]:
    """Those radii that are spoken of: all, or the ends and one between."""
    if len(radii) <= most:
        return list(radii)
    return [radii[0], radii[len(radii) // 2], radii[-1]][:most]


def drawn(attack: str, all_scores: Sequence[Scores]) -> bool:
    """Whether an attack's noise is drawn at random, not chosen; the worst case of draws is."""
    parts = [a for a in attacks_of(all_scores) if a != WORST] if attack == WORST else [attack]
    return bool(parts) and all(noise_kind(part, all_scores) == "drawn" for part in parts)


def chosen(all_scores: Sequence[Scores]) -> list[str]:
    """The attacks whose noise was chosen against networks; all, where each was drawn."""
    attacks = attacks_of(all_scores)
    return [attack for attack in attacks if not drawn(attack, all_scores)] or attacks


def common_keys(of_one: Scores) -> set[NoiseKey]:
    """The attacks and radii that every seed has; the worst case where every seed has its parts."""
    seeds = seeds_of(of_one)
    noisy = [(key, of_one[key].seeds == seeds) for key in radial([of_one])]
    # The worst case of some attacks is no mean with the worst case of others.
    missed = {eps for (_, eps), whole in noisy if not whole}
    return {key for key, whole in noisy if whole and (key[0] != WORST or key[1] not in missed)}


def headline(all_scores: Sequence[Scores]) -> str:
    """The attack that the sentences are about; "" for none.

    The worst case, or the first that was chosen against the networks: of those that every seed of
    every network has, if there are such.
    """
    order = sorted(chosen(all_scores), key=lambda attack: attack != WORST)
    common = [{attack for attack, _ in common_keys(of_one)} for of_one in all_scores]
    alike = len({frozenset(attacks_of([of_one])) for of_one in all_scores}) == 1
    shared = [a for a in order if all(a in one for one in common) and (alike or a != WORST)]
    return next(iter([*shared, *order]), "")


def radii_told(all_scores: Sequence[Scores], attack: str) -> list[float]:
    """The few radii of an attack that are spoken of: those that every seed of a network has.

    Where no seeds have one in common, any.
    """
    common = {eps for of_one in all_scores for name, eps in common_keys(of_one) if name == attack}
    return few_radii(sorted(common) or radii_of(all_scores, attack))


def lacking(one: Score, of_one: Scores) -> str:
    """Of how many seeds a score is, such as `1 of 2 seeds, n = 540`; "" where it is of all."""
    seeds = seeds_of(of_one)
    return "" if one.seeds == seeds else f"{one.seeds} of {seeds} seeds, n = {one.n}"


def seeds_of(of_one: Scores) -> int:
    """How many seeds a network has."""
    return max((one.seeds for one in of_one.values()), default=0)


def average(of_one: Scores, all_scores: Sequence[Scores]) -> float:
    """The mean over clean and all attacks at all radii; NaN where one of them is missing."""
    keys = [
        key
        for key in keys_of(all_scores)
        if key[0] == CLEAN or noise_kind(key[0], all_scores) == "chosen"
    ]
    return float(np.mean([of_one[key].mean if key in of_one else math.nan for key in keys]))


def enough(found: Distances, share: float) -> float:
    """The size of noise by which this share of all samples is broken; infinite if never."""
    values = np.sort(found.values)
    return float(values[max(0, math.ceil(share * len(values)) - 1)])


def levels(results: Results, known: Sequence[float]) -> list[float]:
    """The radii to mark: the paper's where data and norm are, and all were measured; else all."""
    task = by_dataset(results.settings.data)
    marked = () if task is None else task.levels
    paper = results.norm.lower() == "l2" and bool(marked) and set(marked) <= set(known)
    return [float(level) for level in (marked if paper else known)]
