"""A task that nobody told the report of has its page: it goes by the measure and the columns."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import config, run
from small_segmentations import CLASSES
from small_segmentations import results as segmentation_results
from test_html_report import tables, tree

import ima.report
from ima.evaluation.results import WORST, Results, Row
from ima.evaluation.settings import Settings
from ima.evaluation.statistics import wilson
from ima.measures import Measure
from ima.report import tables_of, to_text, white_told
from ima.report.comparison import Compared, Frame, write_comparison
from ima.report.html import write_report

FINDINGS = ("effusion", "mass", "nodule")

WHOLE = Measure("exact accuracy", "Exact accuracy", part="finding", column="right_")
"""A sample is right where all its findings are."""

SHARE = Measure(
    "share of right findings",
    "Right findings",
    threshold=1.0,
    binary=False,
    part="finding",
    column="right_",
)


def results(measure: Measure, shift: int = 0) -> Results:
    """Eight samples of four patients; noise takes findings of some, white noise of one."""
    rows: list[Row] = []
    for attack, eps, kind, hit in (
        ("clean", 0.0, "clean", 1),
        ("pgd-5", 0.5, "chosen", 4 + shift),
        (WORST, 0.5, "worst", 5 + shift),
        ("white-1", 0.05, "white", 2),
    ):
        for i in range(8):
            right = [float(i >= hit), 1.0, float(i >= hit or i % 2)]
            quality = min(right) if measure.binary else sum(right) / 3
            parts = {f"right_{name}": one for name, one in zip(FINDINGS, right, strict=True)}
            more: dict[str, Any] = {"label": "mass", "prediction": "mass", **parts}
            case = f"patient {i // 2}"
            rows.append(Row(i, attack, eps, quality, math.nan, kind, case, more=more))
    told = Settings(norm="L2", measure=measure, classes=FINDINGS, samples=8, total=8, seed=0)
    return Results.of(rows, told)


def examples(measure: Measure) -> dict[str, Any]:
    """A sample whose findings are wrong with noise, as words."""
    rng = np.random.default_rng(0)
    clean = rng.uniform(0.2, 0.8, (2, 1, 8, 8)).astype(np.float32)
    return {
        "id": np.array([5, 7]),
        "attack": np.array(["pgd-5", "pgd-5"]),
        "eps": np.array([0.5, 0.5]),
        "label": np.array(["effusion + mass", "none"]),
        "clean_prediction": np.array(["effusion + mass", "none"]),
        "prediction": np.array(["mass", "none"]),
        "clean_quality": np.array([1.0, 1.0]),
        "quality": np.array([0.0 if measure.binary else 2 / 3, 1.0]),
        "clean": clean,
        "noisy": clean + np.float32(0.01),
    }


@pytest.mark.parametrize("measure", [WHOLE, SHARE], ids=["all right", "share"])
def test_a_third_task_has_its_page(measure: Measure, tmp_path: Path) -> None:
    for seed in (0, 1):
        made = run(tmp_path / f"ima{seed}", config("ima", seed), results(measure, seed))
        np.savez(made / "evaluation" / "examples.npz", allow_pickle=False, **examples(measure))
    run(tmp_path / "standard", config("standard"), results(measure, 2))
    for form in ("html", "md", "json"):
        write_report([tmp_path], tmp_path / f"page.{form}")
    page = tree(tmp_path / "page.html")
    assert "2 networks, compared on 8 test samples" in page.text
    shown = tables(page)
    caption = next(one for one in shown if measure.name in one and "validation" in one)
    clean, pgd, worst = (
        shown[caption][0].index(name) for name in ("clean", "PGD-5 at 0.5", "worst case at 0.5")
    )
    _, standard, ima_row = shown[caption]
    # One sample is wrong without noise, with a third finding that is right for odd samples.
    first = 7 / 8 if measure.binary else 1 - 2 / 24
    assert ima_row[clean].startswith(f"{100 * first:.1f} ± 0.0")
    hit = [4, 5]
    left = [1 - n / 8 if measure.binary else 1 - (n + (n + 1) // 2) / 24 for n in hit]
    spread = abs(left[1] - left[0]) / math.sqrt(2)
    assert ima_row[pgd].startswith(f"{50 * sum(left):.1f} ± {100 * spread:.1f}")
    assert float(standard[worst][:4]) < float(ima_row[worst][:4])
    by_part = next(rows for one, rows in shown.items() if "by finding" in one)
    assert by_part[0][:3] == ["finding", "n", "clean"]
    assert [row[0] for row in by_part[1:]] == [
        f"{label}: {name}" for label in ("standard", "IMA") for name in FINDINGS
    ]
    assert by_part[2][2].startswith("100.0") and by_part[1][2].startswith("87.5")
    # All stand, of four cases, whose interval is open below.
    low, high = wilson(1.0, 4)
    assert by_part[2][2].endswith(f"{100 * low:.1f} to {100 * high:.1f}")
    assert "Intervals are over 4 cases" in page.text and "sensitivity" not in page.text
    pictured = next(rows for one, rows in shown.items() if "before and after" in one)
    assert pictured[1][-2:] == ["effusion + mass", "mass"]
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "“average” is" not in text or not measure.binary
    found = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))
    assert found["measure"] == measure.name
    network = found["networks"][1]
    (clean_numbers, *_) = network[measure.name]["best"]
    assert clean_numbers[measure.name] == pytest.approx(first) and clean_numbers["seeds"] == 2
    assert {one["finding"] for one in network["by_finding"]} == set(FINDINGS)
    assert ("robustbench" in network) == measure.binary


@pytest.mark.parametrize("measure", [WHOLE, SHARE], ids=["all right", "share"])
def test_a_third_task_has_tables_and_a_comparison(measure: Measure, tmp_path: Path) -> None:
    rows = [("A", [results(measure, 1), results(measure)]), ("B", [results(measure)])]
    main, parts = tables_of(rows, "A note.")
    assert "n = 8 test samples" in main.caption and "A note." in main.caption
    assert ("average" in main.columns) != measure.binary
    assert ("white-1 at ±0.05" in main.columns) != measure.binary
    assert parts.columns[:2] == ("finding", "n") and parts.rows[1][:2] == ("A: mass", "8")
    assert "Percent, mean ± standard deviation over 1 to 2 seeds" in " ".join(to_text(main).split())
    told = white_told(results(measure))
    assert ("flips 1 of 7 samples" in told) == measure.binary and told.endswith("one draw")
    methods = [Compared(label, seeds) for label, seeds in rows]
    # An attack that could not run gives way to one that did.
    said = write_comparison(tmp_path, methods, Frame("chest", attack="autoattack"))
    assert "effusion" in said
    lines = (tmp_path / "table-classes.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 2 * len(FINDINGS)
    name = measure.name.replace(" ", "-")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("table.md", "table.csv", "table.tex", "table-classes.csv", "table-classes.tex"),
        *(f"{name}.png", f"{name}.svg"),
    }


def test_several_seeds_of_a_segmentation_network_have_mean_and_deviation(tmp_path: Path) -> None:
    for seed, clean in ((0, 1.0), (1, 0.6)):
        run(
            tmp_path / f"seed{seed}",
            config("ima", seed),
            segmentation_results(clean=clean, data=""),
        )
    write_report([tmp_path], tmp_path / "page.html")
    page = tree(tmp_path / "page.html")
    assert "mean Dice (ADI) is 0.56 (95 % interval" in page.text and "mean of 2 seeds" in page.text
    _, first, *_ = next(rows for one, rows in tables(page).items() if "(ADI)" in one)
    # 0.7 and 0.42: mean 0.56, deviation 0.28 / √2.
    assert first[1] == "0.560 ± 0.198"
    by_class = next(rows for one, rows in tables(page).items() if "by class" in one)
    assert by_class[1][:2] == [CLASSES[0], "3"] and by_class[1][2].startswith("0.640 ± 0.226")


def test_nothing_in_the_report_names_a_task() -> None:
    folder = Path(ima.report.__file__).parent
    for path in folder.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        # By a class, a measure, or what its columns are called.
        assert not re.search(r"\bDICE\b|[Ss]egmentation|Classification|\"right_", text), path
