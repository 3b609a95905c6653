"""The page's numbers as JSON, with the field names of RobustBench where it has some."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

import ima
from ima.evaluation.results import CLEAN
from ima.evaluation.settings import Settings
from ima.report.entries import PageEntry, data_name
from ima.report.html.identity import identity_of, title_of
from ima.report.html.verdict import remarks_on, verdict_of
from ima.report.limits import Decided, decided
from ima.report.scores import (
    SHARES,
    WITHOUT,
    Score,
    enough,
    headline,
    part_scores,
    radii_of,
    scores,
)
from ima.report.scrub import scrub
from ima.report.sizes import size_of
from ima.report.sources import Source
from ima.report.words import convention, sized, told_cases

STANDARD = "apgd-ce, apgd-t, fab-t, square"
"""The parts of AutoAttack that RobustBench means."""


def page_json(entries: Sequence[PageEntry]) -> str:
    """What `page_data` gives, as text."""
    return json.dumps(page_data(entries), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def page_data(entries: Sequence[PageEntry]) -> dict[str, Any]:
    """The verdict, and for each network what noise leaves and how that came about.

    `robustbench`, where samples are right or wrong, holds one record a noise radius, as in
    RobustBench's model_info: accuracies there are percent as text, `autoattack_acc` only where
    AutoAttack ran, with `autoattack_parts` where these were not the standard four: for two or three
    classes they cannot be. Everywhere else numbers are in 0..1, null where nothing counts, under
    the name of the measure, such as `accuracy`, with n and the ends of the 95 % interval, and
    `intervals` says whether these are over cases; `all_parts` is the mean over samples that hold
    every part; `by_class` has the numbers of each class, for the main weights. White noise's eps is
    a share of the bounds' width, with `size` in words where that is not one.
    """
    results = [results for entry in entries for results in entry.main]
    found = {
        "format": "ima report 2",
        "ima": ima.__version__,
        "measure": results[0].settings.measure.name,
        "title": title_of(entries),
        "about": dict(identity_of(entries).lines),
        "requirements": [_limit(one) for one in decided(entries)],
        "verdict": " ".join(verdict_of(entries)).replace("\u00a0", " "),
        "noise_sizes": [_size(eps, results[0].settings) for eps in _radii(entries)],
        "convention": convention(results[0]),
        "intervals": told_cases(results),
        "networks": [_network(one) for one in entries],
    }
    kept = {key: value for key, value in found.items() if value not in ("", [], {})}
    return _plain(kept)


def _limit(one: Decided) -> dict[str, Any]:
    low, high = one.lead.score.interval
    return {
        "network": one.network,
        "eps": one.eps,
        "least": one.least,
        "found": one.lead.score.mean,
        "low": low,
        "high": high,
        "attack": one.under,
        "found_by": one.lead.whence or None,
        "state": one.state,
        "interval_holds_the_limit": one.open,
        "sentence": one.sentence.replace("\u00a0", " "),
    }


def _radii(entries: Sequence[PageEntry]) -> list[float]:
    return radii_of([one.scores for one in entries])


def _size(eps: float, settings: Settings) -> dict[str, Any]:
    size = size_of(eps, settings)
    if size is None:
        return {"eps": eps}
    told = {"psnr": size.psnr, "grey_levels": size.grey, settings.unit or "unit": size.own}
    numbers = {"root_mean_square": size.rms, "largest_value": size.largest}
    return {"eps": eps, **numbers, **{name: text for name, text in told.items() if text}}


def _network(entry: PageEntry) -> dict[str, Any]:
    first = entry.main[0]
    measure, clean = first.settings.measure, first.of_attack()
    weights = dict.fromkeys(which for s in entry.sources for which in s.results)
    by_weights = {which: scores(entry.results(which)) for which in weights}
    pixels = {"without_foreground": int((clean["pixels"] == 0).sum())} if "pixels" in clean else {}
    return {
        "name": entry.label,
        "Linf/L2": first.norm,
        "classes": list(first.settings.classes),
        **({"positive": first.settings.positive} if first.settings.positive else {}),
        "leading": [
            {"found_by": lead.whence or None, **_numbers(key, lead.score, first.settings)}
            for key in entry.scores
            if key[0] == headline([entry.scores])
            for lead in [entry.lead(*key)]
        ],
        "n": len(first.at(CLEAN)),
        "cases": len(first.cases) or None,
        **pixels,
        **({"robustbench": _robustbench(entry)} if measure.binary else {}),
        measure.name: {
            which: [_numbers(key, one, first.settings) for key, one in of_one.items()]
            for which, of_one in by_weights.items()
        },
        f"by_{measure.part}": [
            {measure.part: name, **_numbers(key, one, first.settings)}
            for key in entry.scores
            for name, one in part_scores(entry.main, *key).items()
        ],
        "remarks": remarks_on([entry]),
        "seeds": [_source(source) for source in entry.sources],
        "config": entry.config,
    }


def _robustbench(entry: PageEntry) -> list[dict[str, Any]]:
    config, of_one = entry.config, entry.scores
    known = {
        "name": entry.label,
        "method": config.get("method", {}).get("name"),
        "dataset": data_name(config) or None,
        "architecture": config.get("network", {}).get("name"),
        "Linf/L2": entry.main[0].norm,
    }
    ran = [results.settings.attacks.get("autoattack", "") for results in entry.main]
    parts = dict.fromkeys(filter(None, ran))
    records: list[dict[str, Any]] = []
    for eps in radii_of([of_one]) or [0.0]:
        record = {key: value for key, value in known.items() if value is not None}
        clean, found = of_one[WITHOUT], of_one.get(("autoattack", eps))
        # Beside AutoAttack's, that of the same seeds.
        right = clean.mean if found is None else found.clean
        record |= {"eps": f"{eps:g}", "clean_acc": f"{100 * right:.2f}"}
        if found is not None:
            record["autoattack_acc"] = f"{100 * found.mean:.2f}"
            if list(parts) not in ([], [STANDARD]):
                record["autoattack_parts"] = "; ".join(parts)
        records.append(record)
    return records


def _numbers(key: tuple[str, float], one: Score, settings: Settings) -> dict[str, Any]:
    attack, eps = key
    size = sized(eps, settings) if one.kind == "white" else ""
    return {
        "attack": attack,
        "eps": eps,
        **({"size": size} if size not in ("", f"±{eps:g}") else {}),
        one.measure.name: one.mean,
        "low": one.interval[0],
        "high": one.interval[1],
        "n": one.n,
        "seeds": one.seeds,
        **({} if one.std is None else {"std": one.std}),
        **({} if math.isnan(one.whole) else {"all_parts": one.whole}),
    }


def _source(source: Source) -> dict[str, Any]:
    found: dict[str, Any] = {
        "seed": source.seed,
        "environment": source.environment,
        "evaluation": {which: _about(r.settings) for which, r in source.results.items()},
    }
    if source.checks is not None:
        checks = [asdict(check) for check in source.checks.checks]
        found["checks"] = {"settings": _about(source.checks.settings), "checks": checks}
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


def _about(settings: Settings) -> Mapping[str, Any]:
    """The settings that are known, without paths of the machine."""
    return scrub(json.loads(settings.model_dump_json(exclude_defaults=True)))


def _plain(value: Any) -> Any:
    """The same tree with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
