"""Classes in sentences: sensitivity, those that are never right, and how sure the network is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ima.evaluation.results import Results
from ima.measures import ACCURACY
from ima.report.scores import NoiseKey, Seeds, part_scores
from ima.report.words import listed

MOST = 6
"""So many classes are named."""


def with_noise(key: NoiseKey) -> str:
    """Noise behind a sentence."""
    return f"with noise of size {key[1]:g}" if key[1] else "without noise"


def sensitivity(seeds: Seeds, keys: Sequence[NoiseKey]) -> str:
    """Sensitivity and specificity by noise, in a sentence each; empty where nothing is positive."""
    settings, names = seeds[0].settings, seeds[0].classes
    positive = settings.positive
    if positive not in names or len(names) != 2:
        return ""
    other = names[1 - names.index(positive)]
    parts = {key: part_scores(seeds, *key) for key in keys}
    said: list[str] = []
    for word, name, what in (
        ("Sensitivity", positive, f"the share of “{positive}” that is taken for “{positive}”"),
        ("Specificity", other, f"the share of “{other}” that is taken for “{other}”"),
    ):
        known = [(key, of_key[name]) for key, of_key in parts.items() if name in of_key]
        if known:
            each = [f"{score.text} ({score.within}) {with_noise(key)}" for key, score in known]
            said.append(f"{word}, {what}: {', '.join(each)}.")
    return " ".join(said)


def never_right(seeds: Seeds, keys: Sequence[NoiseKey]) -> list[str]:
    """For each noise the classes of which no sample is right, and what they are taken for."""
    said: list[str] = []
    known: set[str] = set()
    measure = seeds[0].settings.measure
    for key in keys:
        parts = part_scores(seeds, *key)
        wrong = [name for name, one in parts.items() if one.mean == 0]
        # What is never right without noise need not be said again.
        new = [name for name in wrong if name not in known]
        known |= set(wrong)
        if not new or len(parts) < 2:
            continue
        when = with_noise(key)
        graded = measure.over == "parts"
        if len(wrong) == len(parts):
            said.append(
                f"The {measure.name} of every {measure.part} is 0 {when}."
                if graded
                else f"No {measure.part} is ever right {when}."
            )
            continue
        each = [f"“{name}” ({_taken(seeds, key, name, parts[name].n)})" for name in new[:MOST]]
        more = f" and {len(new) - MOST} more" if len(new) > MOST else ""
        start = f"A {measure.name} of 0" if graded else "Never right"
        said.append(f"{start} {when}: {listed(each)}{more}.")
    return said


def _taken(seeds: Seeds, key: NoiseKey, name: str, n: int) -> str:
    """How many samples a class has, and what most of them are taken for."""
    told = f"{n} sample{'' if n == 1 else 's'}"
    first = seeds[0]
    if first.settings.measure.column or "prediction" not in first.columns:
        return told
    taken: list[int] = []
    for results in seeds:
        rows = results.of_attack(*key)
        labels, said = rows["label"], rows["prediction"]
        if labels.dtype.kind != "i" or said.dtype.kind != "i":
            return told
        taken += said[labels == results.classes.index(name)].tolist()
    number, count = Counter(taken).most_common(1)[0]
    names = first.classes
    other = names[number] if 0 <= number < len(names) else f"class {number}"
    share = "all" if count == len(taken) else f"{count} of {len(taken)}"
    return f"{told}; {share} taken for “{other}”"


def calibration(seeds: Seeds, keys: Sequence[NoiseKey]) -> str:
    """How sure the network is of its decisions, against how often they are right; in a sentence.

    Empty where outputs say no such thing, or are not kept.
    """
    told: list[str] = []
    for key in keys:
        found = [one for results in seeds if (one := _sure(results, key)) is not None]
        if len(found) < len(seeds):
            return ""
        sure, right = np.mean(found, axis=0).tolist()
        off = 100 * (sure - right)
        said = f"{abs(off):.1f} points too {'high' if off > 0 else 'low'}"
        share, of_right = ACCURACY.said(sure), ACCURACY.said(right)
        told.append(f"{share} {with_noise(key)}, where {of_right} are right ({said})")
    return f"Its mean confidence in its decisions is {'; '.join(told)}." if told else ""


def _sure(results: Results, key: NoiseKey) -> tuple[float, float] | None:
    """Mean confidence, and the share of decisions that are right."""
    rows = results.of_attack(*key)
    if "confidence" not in rows or not len(rows["id"]):
        return None
    sure = rows["confidence"].astype(float)
    known = np.isfinite(sure)
    places = results.at(*key)
    parts = results.parts(places) if results.settings.measure.column else None
    right = rows["quality"] if parts is None else np.nanmean(parts, axis=1)
    if not known.any() or math.isnan(float(right[known].mean())):
        return None
    return float(sure[known].mean()), float(right[known].mean())
