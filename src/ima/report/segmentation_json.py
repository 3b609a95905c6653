"""The numbers of segmentation networks as JSON, the same as on their page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ima import __version__
from ima.evaluation.remarks import REMARKS
from ima.report.cases import told_cases
from ima.report.html.checks import scrubbed
from ima.report.html.scrub import scrub
from ima.report.html.segmentation_verdict import Seen, doubts, sentences
from ima.report.segmented import Key, Score, Segmented, checked, empties


def to_json(runs: Sequence[Segmented]) -> str:
    """The verdict, and for each network its Dice indices and how they came about.

    All are in 0..1, null where nothing counts; low and high are the ends of a 95 % interval.
    """
    checked([run.run for run in runs])
    seen = [Seen.of(run) for run in runs]
    found = {
        "format": "ima segmentation report 1",
        "ima": __version__,
        "verdict": sentences(seen),
        "convention": empties(runs[0].results),
        "intervals": told_cases([run.results for run in runs]),
        "networks": [_network(one) for one in seen],
    }
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _network(one: Seen) -> dict[str, Any]:
    results = one.run.results
    clean = results.of()
    return {
        "name": one.run.label,
        "Linf/L2": results.norm,
        "dataset": results.settings.get("dataset"),
        "classes": list(results.classes),
        "n": len(clean),
        "cases": len(results.cases),
        "without_foreground": sum(row.pixels == 0 for row in clean),
        "dice": [_score(key, score, results.classes) for key, score in one.scores.items()],
        "remarks": doubts([one]),
        "evaluation": {k: v for k, v in scrub(dict(results.settings)).items() if k != REMARKS},
        **({} if one.run.checks is None else {"checks": asdict(scrubbed(one.run.checks))}),
    }


def _score(key: Key, score: Score, classes: Sequence[str]) -> dict[str, Any]:
    attack, eps = key
    low, high = map(_known, score.interval)
    return {
        "attack": attack,
        "eps": eps,
        "adi": _known(score.adi),
        "low": low,
        "high": high,
        "adi_all_classes": _known(score.all_classes),
        "per_class": dict(zip(classes, map(_known, score.per_class), strict=True)),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
