"""Small runs with everything that a run can leave, for tests of pages."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ima.evaluation.checks_results import Check, Checks
from ima.evaluation.distances import Distance, Distances
from ima.evaluation.earlier import attack_kind
from ima.evaluation.results import WORST, Results, Row
from ima.evaluation.settings import Settings

HOSTILE = "<script>alert(1)</script>"
EPS = (0.5, 1.0)


def row(number: int, attack: str, eps: float, right: bool) -> Row:
    """A row of one sample, which is right or broken; the kind is that of the attack's name."""
    size = math.nan if right else eps
    quality = 1.0 if right else 0.0
    told = {"label": number % 3, "prediction": number % 3}
    return Row(number, attack, eps, quality, size, attack_kind(attack), more=told)


def results(n: int, clean: int, noisy: dict[float, int], attacks: tuple[str, ...] = ("pgd-100",)):
    """n samples, of which the first `clean` stand without noise, the first noisy[eps] with it."""
    rows = [row(i, "clean", 0.0, i < clean) for i in range(n)]
    for attack in attacks:
        for eps, standing in noisy.items():
            rows += [row(i, attack, eps, i < standing) for i in range(n)]
    told = {"autoattack": "apgd-ce, square"}
    return Results.of(rows, Settings(norm="L2", samples=n, total=n, seed=0, attacks=told))


def about(found: Results, **settings: Any) -> Results:
    """The same, with more that it says of itself."""
    return Results(found.columns, found.settings.but(**settings))


def with_white(found: Results, flips: dict[str, int]) -> Results:
    """The same, and white noise of 0.05 that flips so many of the samples that are right."""
    clean = [row for row in found.rows if row.attack == "clean"]
    right = [row.id for row in clean if not row.broken]
    rows = [
        row(one.id, name, 0.05, not one.broken and one.id not in right[:flip])
        for name, flip in flips.items()
        for one in clean
    ]
    told = {**found.settings.attacks, **dict.fromkeys(flips, "White noise, in words")}
    return Results.of([*found.rows, *rows], found.settings.but(attacks=told))


def config(method: str, seed: int = 0, **options: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "note": f"Shapes {HOSTILE} & more.",
        "norm": "L2",
        "data": {"name": "shapes", "path": "/home/jane/secret/shapes.npz"},
        "network": {"name": "small_cnn"},
        "method": {"name": method, **options},
        "train": {"epochs": 2, "seed": seed},
    }


def images(broken_from: dict[int, float]) -> dict[str, Any]:
    """Three samples at two radii; sample i is wrong from the radius broken_from[i] on."""
    rng = np.random.default_rng(0)
    clean = rng.uniform(0.2, 0.8, (3, 1, 8, 8)).astype(np.float32)
    rows = [(i, eps) for eps in EPS for i in range(3) if eps <= broken_from.get(i, 9.0)]
    noise = rng.normal(size=(3, 1, 8, 8)).astype(np.float32)
    noise /= np.linalg.norm(noise.reshape(3, -1), axis=1).reshape(3, 1, 1, 1)
    return {
        "attack": np.array(["pgd-100"] * len(rows)),
        "id": np.array([i for i, _ in rows]),
        "eps": np.array([eps for _, eps in rows]),
        "label": np.array([i for i, _ in rows]),
        "prediction": np.array([(i + (e >= broken_from.get(i, 9.0))) % 3 for i, e in rows]),
        "clean_prediction": np.array([i for i, _ in rows]),
        "clean": np.stack([clean[i] for i, _ in rows]),
        "noisy": np.stack([clean[i] + 0.1 * eps * noise[i] for i, eps in rows]),
        "classes": np.array(["round", HOSTILE, "flat"]),
    }


CHECKS = Checks(
    Settings(samples=10),
    (
        Check("a", "Gradients of zero", False, "None is.", {"zero": {"share": 0.0, "count": 0,
              "n": 10, "low": 0.0, "high": 0.2775}}, "No way to go.", "Look."),
        Check("b", f"Black {HOSTILE}", True, "It finds `more`.", {"points": 7.25}, "Bad.", "Do."),
        Check("c", "Transfer", None, "No network in /home/jane/secret/nets was given.", {}, "", ""),
    ),
)  # fmt: skip

DISTANCES = Distances(
    tuple(
        Distance(i, 0, 1, d, "clean" if d == 0 else "none" if math.isnan(d) else "ddn")
        for i, d in enumerate([0.0, 0.2, 0.4, 0.4, 0.8, 1.0, 1.5, 2.0, 3.0, math.nan])
    ),
    Settings(norm="L2", samples=10, total=10),
)


def run(
    folder: Path, settings: dict[str, Any], found: Results, last: Results | None = None
) -> Path:
    (folder / "evaluation").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    environment = {
        "ima": "0.1.0",
        "device": "cpu",
        "command": "ima train --out=/home/jane/secret/x",
    }
    (folder / "environment.json").write_text(json.dumps({**environment, "commit": "abc"}))
    found.to_csv(folder / "evaluation" / "best.csv")
    if last is not None:
        last.to_csv(folder / "evaluation" / "last.csv")
    return folder


def full(folder: Path) -> Path:
    """A run with everything that a run can leave."""
    attacks = ("pgd-100", "autoattack", WORST)
    found = results(10, 9, {0.5: 6, 1.0: 0}, attacks)
    found = with_white(found, {"white-1": 1, "white-100": 3})
    run(folder, config("ima"), found, results(10, 8, {0.5: 5, 1.0: 1}))
    names = [f"{edge:g}" for edge in (0.0, 0.5, 1.0)]
    rows = [[0, 1.5, 8, 2, 0], [1, 1.5, 0, 4, 6]]
    lines = [",".join(["epoch", "cap", *names]), *(",".join(map(str, row)) for row in rows)]
    (folder / "margins.csv").write_text("\n".join(lines) + "\n")
    CHECKS.to_json(folder / "evaluation" / "checks.json")
    DISTANCES.to_csv(folder / "evaluation" / "distances.csv")
    np.savez(folder / "evaluation" / "examples.npz", allow_pickle=False, **images({0: 0.5, 1: 1.0}))
    return folder


def compared(folder: Path) -> Path:
    """A folder of runs as a comparison leaves it: three methods, one of them with two seeds."""
    for seed, standing in ((0, 4), (1, 6)):
        found = results(10, 9, {0.5: standing, 1.0: 0})
        made = run(folder / "ima-eps=3" / f"seed{seed}", config("ima", seed, eps=3.0), found)
        np.savez(
            made / "evaluation" / "examples.npz", allow_pickle=False, **images({0: 0.5, 2: 1.0})
        )
    for eps in (1.5, 3.0):
        found = results(10, 8, {0.5: 5, 1.0: 0})
        run(folder / f"sat-eps={eps:g}" / "seed0", config("sat", eps=eps), found)
    made = run(folder / "standard" / "seed0", config("standard"), results(10, 10, {0.5: 1, 1.0: 0}))
    np.savez(made / "evaluation" / "examples.npz", allow_pickle=False, **images({0: 0.5, 1: 0.5}))
    unfinished = folder / "mart" / "seed0"
    unfinished.mkdir(parents=True)
    (unfinished / "config.yaml").write_text(yaml.safe_dump(config("mart")))
    return folder
