"""The page's numbers as JSON, with the field names of RobustBench where it has some."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ima import __version__
from ima.evaluation.remarks import REMARKS, remarks_of
from ima.evaluation.results import CLEAN, Results, is_white
from ima.report.cases import told_cases
from ima.report.html.classes import class_names, class_scores
from ima.report.html.doubts import doubts
from ima.report.html.entries import Entry, data_name
from ima.report.html.numbers import Score, Scores, enough, radii_of, scores
from ima.report.html.sources import Source
from ima.report.html.verdict import Judged, sentences
from ima.report.white import sized

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)

STANDARD = "apgd-ce, apgd-t, fab-t, square"
"""The parts of AutoAttack that RobustBench means."""


def to_json(entries: Sequence[Entry]) -> str:
    """The verdict, and for each network its accuracies and how they came about.

    `robustbench` holds one record a noise radius, as in RobustBench's model_info: accuracies there
    are percent as text, `autoattack_acc` only where AutoAttack ran, with `autoattack_parts` where
    these were not the standard four: for two or three classes they cannot be. Everywhere else
    accuracies are shares in 0..1, with n and the ends of the 95 % Wilson interval, and `intervals`
    says whether these are over cases; `by_class` has
    those of each class, for the main weights. White noise's eps is a share of the bounds' width,
    with `size` in words where that is not one.
    """
    judged = [Judged(entry, scores(entry.main)) for entry in entries]
    found = {
        "format": "ima report 1",
        "ima": __version__,
        "verdict": sentences(judged).replace("\u00a0", " "),
        "intervals": told_cases([results for entry in entries for results in entry.main]),
        "networks": [_network(one) for one in judged],
    }
    return json.dumps(_plain(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _network(one: Judged) -> dict[str, Any]:
    entry = one.entry
    weights = dict.fromkeys(which for s in entry.sources for which in s.results)
    return {
        "name": entry.label,
        "Linf/L2": entry.main[0].norm,
        "robustbench": _robustbench(entry, one.scores),
        "accuracy": {which: _accuracies(entry.results(which)) for which in weights},
        "by_class": _by_class(one),
        "remarks": doubts([entry]),
        "seeds": [_source(source) for source in entry.sources],
        "config": entry.config,
    }


def _robustbench(entry: Entry, of_one: Scores) -> list[dict[str, Any]]:
    config = entry.config
    known = {
        "name": entry.label,
        "method": config.get("method", {}).get("name"),
        "dataset": data_name(config) or None,
        "architecture": config.get("network", {}).get("name"),
        "Linf/L2": entry.main[0].norm,
    }
    told = [results.settings for results in entry.main]
    parts = dict.fromkeys(one["autoattack"] for one in told if "autoattack" in one)
    records: list[dict[str, Any]] = []
    for eps in radii_of([of_one]) or [0.0]:
        record = {key: value for key, value in known.items() if value is not None}
        clean, found = of_one[CLEAN, 0.0], of_one.get(("autoattack", eps))
        # Beside AutoAttack's, that of the same seeds.
        right = clean.share if found is None else found.clean
        record |= {"eps": f"{eps:g}", "clean_acc": _percent(right)}
        if found is not None:
            record["autoattack_acc"] = _percent(found.share)
            if list(parts) not in ([], [STANDARD]):
                record["autoattack_parts"] = "; ".join(parts)
        records.append(record)
    return records


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _accuracies(seeds: Sequence[Results]) -> list[dict[str, Any]]:
    about = seeds[0].settings
    return [_accuracy(attack, eps, score, about) for (attack, eps), score in scores(seeds).items()]


def _by_class(one: Judged) -> list[dict[str, Any]]:
    names, about = class_names([one]), one.entry.main[0].settings
    return [
        {"class": names.get(label, str(label)), **_accuracy(attack, eps, score, about)}
        for attack, eps in one.scores
        for label, score in class_scores(one.entry.main, attack, eps).items()
    ]


def _accuracy(attack: str, eps: float, score: Score, settings: Mapping[str, str]) -> dict[str, Any]:
    size = sized(eps, settings) if is_white(attack) else ""
    return {
        "attack": attack,
        "eps": eps,
        **({"size": size} if size not in ("", f"±{eps:g}") else {}),
        "accuracy": score.share,
        "low": score.interval[0],
        "high": score.interval[1],
        "n": score.n,
        "seeds": score.seeds,
        **({} if score.std is None else {"std": score.std}),
    }


def _source(source: Source) -> dict[str, Any]:
    found: dict[str, Any] = {
        "seed": source.seed,
        "environment": source.environment,
        "evaluation": {which: _about(r.settings) for which, r in source.results.items()},
    }
    if source.checks is not None:
        found["checks"] = asdict(source.checks)
    if source.distances is not None:
        values = source.distances.values
        found["distances"] = {
            "norm": source.distances.norm,
            "n": len(values),
            "not_found": int(np.isinf(values).sum()),
            "quantiles": {f"{q:g}": enough(source.distances, q) for q in SHARES},
            "settings": _about(source.distances.settings),
        }
    if source.margins:
        found["margins"] = list(source.margins)
    return found


def _about(settings: Mapping[str, str]) -> dict[str, Any]:
    """The settings, remarks as a list."""
    remarks = remarks_of(settings)
    return dict(settings) | ({REMARKS: list(remarks)} if remarks else {})


def _plain(value: Any) -> Any:
    """The same tree with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
