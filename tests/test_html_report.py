"""The page of `ima report`: its numbers, that it is whole, safe to send, and readable anywhere."""

from __future__ import annotations

import base64
import dataclasses
import io
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_runs import (
    CHECKS,
    DISTANCES,
    HOSTILE,
    about,
    compared,
    config,
    full,
    images,
    results,
    run,
    with_white,
)

from ima import write_page
from ima.evaluation.results import WORST, Results
from ima.evaluation.statistics import wilson
from ima.report.entries import data_name, read_entries
from ima.report.html import write_report
from ima.report.html.charts import steps_of
from ima.report.html.jsonform import STANDARD
from ima.report.scores import drawn, enough, headline, scores
from ima.report.scrub import scrub
from ima.report.style import COLOURS
from ima.report.words import DRAWS, draws, white_told


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both kinds of page in all forms, by such names as one.html."""
    home = tmp_path_factory.mktemp("pages")
    made = {"one": full(home / "run"), "many": compared(home / "runs")}
    for name, source in made.items():
        for form in ("html", "md", "json"):
            write_report([source], home / f"{name}.{form}")
    return {path.name: path for path in home.glob("*.*")} | made


# --- Reading a page back --------------------------------------------------------------------------

VOID = {"meta", "img", "link", "br", "hr", "input", "path", "use", "rect"}


class Element:
    def __init__(self, tag: str, attributes: dict[str, str], parent: Element | None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.inside: list[Element | str] = []

    def all(self, tag: str = "") -> Iterator[Element]:
        for one in self.inside:
            if isinstance(one, Element):
                if tag in ("", one.tag):
                    yield one
                yield from one.all(tag)

    @property
    def text(self) -> str:
        parts = (one if isinstance(one, str) else one.text for one in self.inside)
        return " ".join("".join(parts).split())


class Tree(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = self.at = Element("", {}, None)
        self.feed(text)
        assert self.at is self.root, f"<{self.at.tag}> is not closed"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        one = Element(tag, {k: v or "" for k, v in attrs}, self.at)
        self.at.inside.append(one)
        if tag not in VOID or (self._in_svg() and tag != "img"):
            self.at = one

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.at.inside.append(Element(tag, {k: v or "" for k, v in attrs}, self.at))

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"</{tag}> ends <{self.at.tag}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.inside.append(data)

    def _in_svg(self) -> bool:
        one: Element | None = self.at
        while one is not None:
            if one.tag == "svg":
                return True
            one = one.parent
        return False


def tree(path: Path) -> Element:
    return Tree(path.read_text(encoding="utf-8")).root


def tables(page: Element) -> dict[str, list[list[str]]]:
    """By caption, the rows of cells, the head among them."""
    return {
        next(table.all("caption")).text: [
            [cell.text for cell in row.inside if isinstance(cell, Element)]
            for row in table.all("tr")
        ]
        for table in page.all("table")
    }


# --- Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "n", "low", "high"),
    [
        (0.8, 10, 0.4902, 0.9433),  # Wilson's formula by hand, z = 1.96
        (0.0, 10, 0.0, 0.2775),  # z² / (n + z²)
        (1.0, 540, 0.99294, 1.0),
        (0.5, 100, 0.4038, 0.5962),
    ],
)
def test_wilson_interval_is_that_of_hand_and_tables(share, n, low, high) -> None:
    assert wilson(share, n) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(("share", "n"), [(0.3, 17), (0.01, 900), (0.95, 40)])
def test_wilson_ends_are_where_the_share_is_196_standard_errors_away(share, n) -> None:
    for end in wilson(share, n):
        assert abs(share - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n))


def test_wilson_refuses_what_is_no_share_and_passes_on_what_is_unknown() -> None:
    assert all(map(math.isnan, wilson(math.nan, 5)))
    for share, n in ((0.5, 0), (1.2, 5), (-0.1, 5)):
        with pytest.raises(ValueError, match="expected"):
            wilson(share, n)


@pytest.mark.parametrize(
    ("norm", "said", "measured"),
    [
        ("L1", "L₁ (the sum of the sizes of all changes)", lambda d: np.abs(d).sum()),
        ("L2", "L₂ (the root", lambda d: np.sqrt((d.astype(np.float64) ** 2).sum())),
        ("l∞", "L∞ (the largest change", lambda d: np.abs(d).max()),
        ("Linf", "L∞ (the largest change", lambda d: np.abs(d).max()),
        ("L3", "L3 (a norm of the user's own; sizes in it are those of the evaluation)", None),
    ],
)
def test_pictures_are_measured_in_their_norm_or_not_at_all(
    norm: str, said: str, measured: Callable[[Any], float] | None, tmp_path: Path
) -> None:
    found = about(results(10, 9, {0.5: 6, 1.0: 0}), norm=norm)
    arrays = images({0: 0.5, 1: 1.0})
    made = run(tmp_path / "ima", {**config("ima"), "norm": norm}, found)
    np.savez(made / "evaluation" / "examples.npz", allow_pickle=False, **arrays)
    write_report([made], tmp_path / "page.html")
    page = tree(tmp_path / "page.html")
    assert said in page.text
    pictured = [rows for title, rows in tables(page).items() if "before and after" in title]
    assert pictured
    for head, *rows in pictured:
        sizes = [row[head.index(cell)] for row in rows for cell in head if "size" in cell]
        number = 0 if measured is None else 1
        assert len(sizes) == number * len(rows)
        if measured is not None:
            noise = arrays["noisy"] - arrays["clean"]
            assert set(sizes) <= {f"{measured(one):.3g}" for one in noise}
    assert ("size 0." in page.text or "size 1" in page.text) or measured is None


def test_the_page_says_which_rule_picked_whose_epoch(tmp_path: Path) -> None:
    found = results(10, 9, {0.5: 6, 1.0: 0})
    picks = {"ima": {}, "sat": {"epoch": "7 of 30", "picked": "the mean"}}
    picks["standard"] = {"epoch": "30 of 30", "picked": "clean accuracy"}
    for name, said in picks.items():
        told = about(found, **said)
        run(tmp_path / name, config(name), told, told)
    write_report([tmp_path / name for name in picks], tmp_path / "page.html")
    # Runs from before there were two rules do not say by which they were picked.
    old = "the geometric mean of clean accuracy and accuracy under PGD-10"
    assert tables(tree(tmp_path / "page.html"))["Which epoch was evaluated"][1:] == [
        ["IMA", "\N{EN DASH}", old],
        ["SAT", "7 of 30", "the mean"],
        ["standard", "30 of 30", "clean accuracy"],
    ]
    write_report([tmp_path / "sat"], tmp_path / "page.md")
    assert re.search(r"\| SAT +\| +7 of 30 +\| +the mean +\|", (tmp_path / "page.md").read_text())
    # A file of results from elsewhere was picked by nobody knows what.
    found.to_html(tmp_path / "own.html")
    assert "Which epoch was evaluated" not in tables(tree(tmp_path / "own.html"))


def test_the_page_of_one_run_says_its_numbers(pages: dict[str, Path]) -> None:
    page = tree(pages["one.html"])
    found = tables(page)
    best = found["Weights of the epoch that validation picked: accuracy in percent, noise in L₂"]
    assert best[1] == ["without noise", "90.0", "59.6 to 98.2", "10"]
    assert best[2] == ["PGD-100 at 0.5", "60.0", "31.3 to 83.2", "10"]
    assert best[4:6] == [
        ["AutoAttack at 0.5", "60.0", "31.3 to 83.2", "10"],
        ["AutoAttack at 1", "0.0", "0.0 to 27.8", "10"],
    ]
    last = found["Weights of the last epoch: accuracy in percent, noise in L₂"]
    assert [row[1] for row in last[1:]] == ["80.0", "50.0", "10.0"]
    assert ["AutoAttack", "apgd-ce, square"] in found["What the attacks ran"]
    assert "Where it was trained" in found and "What was evaluated, and where" not in found
    verdict = next(s for s in page.all("section") if s.attributes["id"] == "verdict").text
    assert "IMA is right on 90.0 % of 10 test samples without noise" in verdict
    assert "95 % interval 59.6 to 98.2 %" in verdict
    # 3 of the 9 that were right fall at 0.5 under the attacks, 7 under these and all else.
    assert "Noise of size 0.5 (L₂), chosen against the network, breaks 77.8 % of those" in verdict
    assert "counting what white noise and the search for the smallest noise found" in verdict
    assert "noise of size 1 breaks 100.0 %" in verdict
    assert "found by PGD-100 and AutoAttack" in verdict
    assert "1 of 2 trust checks is raised" in verdict
    assert "What to do stands under Trust checks." in verdict


BY_CLASS = "Accuracy by class in percent, noise in L₂"


def test_every_class_has_its_accuracy(pages: dict[str, Path], tmp_path: Path) -> None:
    # Of the classes 0, 1, 2, 0, 1, 2, ... of ten samples the first 9 stand, with noise the first 6.
    _, *rows = tables(tree(pages["one.html"]))[BY_CLASS]
    assert [row[:2] for row in rows] == [["round", "4"], [HOSTILE, "3"], ["flat", "3"]]
    assert [row[2] for row in rows] == ["75.030.1 to 95.4", *["100.043.9 to 100.0"] * 2]
    assert [row[3][:4] for row in rows] == ["50.0", "66.7", "66.7"]
    assert [row[4][:3] for row in rows] == ["0.0"] * 3
    assert "sensitivity" not in pages["one.html"].read_text(encoding="utf-8")
    (network,) = json.loads(pages["one.json"].read_text(encoding="utf-8"))["networks"]
    shares = {
        one["class"]: one["accuracy"]
        for one in network["by_class"]
        if one["attack"] == "pgd-100" and one["eps"] == 0.5
    }
    assert shares == pytest.approx({"round": 2 / 4, HOSTILE: 2 / 3, "flat": 2 / 3})
    many = tables(tree(pages["many.html"]))[BY_CLASS]
    assert [row[0] for row in many[1:4]] == [
        f"standard: {name}" for name in ("round", HOSTILE, "flat")
    ]
    # Mean over two seeds, of which 4 and 6 of ten stand: of class 0 two, of class 1 one and two.
    ima = next(row for row in many if row[0].startswith("IMA") and row[0].endswith(HOSTILE))
    assert ima[3].startswith("50.0 ± 23.6")


def relabelled(found: Results, classes: int) -> Results:
    columns = {**found.columns, "label": found.columns["id"] % classes}
    return Results(columns, found.settings)


@pytest.mark.parametrize(
    ("classes", "shown", "said"), [(1, 0, False), (2, 2, True), (3, 3, False), (30, 24, False)]
)
def test_the_classes_that_noise_breaks_most_are_shown(
    classes: int, shown: int, said: bool, tmp_path: Path
) -> None:
    found = relabelled(results(60, 58, {0.5: 40}), classes)
    found.to_html(tmp_path / "page.html")
    page = tree(tmp_path / "page.html")
    rows = [rows for caption, rows in tables(page).items() if "by class" in caption]
    assert len(rows) == (shown > 0)
    assert ("sensitivity" in page.text) == said
    if rows:
        assert len(rows[0]) == 1 + shown
    if classes == 30:
        # Of the classes 10 to 29 the second sample falls, of 28 and 29 without noise too.
        assert {row[0] for row in rows[0][1:3]} == {"class 28", "class 29"}
        assert "class 9" not in {row[0] for row in rows[0]}


def test_many_attacks_stand_in_tables_that_a_page_is_wide_enough_for(tmp_path: Path) -> None:
    names, radii = ("pgd-100", "ifgsm-10", "autoattack", WORST), {0.5: 6, 1.0: 4, 1.5: 1}
    for method in ("standard", "ima"):
        run(tmp_path / method, config(method), results(10, 9, radii, names))
    write_report([tmp_path / "standard", tmp_path / "ima"], tmp_path / "page.html")
    found = [
        rows
        for caption, rows in tables(Tree((tmp_path / "page.html").read_text()).root).items()
        if caption.startswith("Weights of the epoch")
    ]
    heads = [rows[0] for rows in found]
    assert [len(head) for head in heads] == [9, 9]
    assert all(head[:3] == ["network", "n", "clean"] for head in heads)
    at = [f"{name} at {eps:g}" for name in ("PGD-100", "IFGSM-10") for eps in radii]
    assert heads[0][3:] == at
    at = [f"{name} at {eps:g}" for name in ("AutoAttack", "worst case") for eps in radii]
    assert heads[1][3:] == at
    for rows in found:
        shown = zip(rows[1][3:], 2 * ["60.0", "40.0", "10.0"], strict=True)
        assert all(cell.startswith(value) for cell, value in shown)


def test_white_noise_has_a_table_of_its_own_and_is_no_radius(pages, tmp_path: Path) -> None:
    page = tree(pages["one.html"])
    (found,) = [rows for caption, rows in tables(page).items() if caption.startswith("White")]
    assert found[0] == ["network", "n", "in one draw", "in the worst of 100 draws"]
    # Of the 9 that are right without noise, 1 and 3 flip.
    assert found[1] == ["IMA", "9", "11.12.0 to 43.5", "33.312.1 to 64.6"]
    assert "0.05" not in next(page.all("svg")).text and "white-1" not in page.text
    network = json.loads(pages["one.json"].read_text(encoding="utf-8"))["networks"][0]
    white = {o["attack"]: o for o in network["accuracy"]["best"] if o["eps"] == 0.05}
    assert {name: one["accuracy"] for name, one in white.items()} == {
        "white-1": pytest.approx(0.8), "white-100": pytest.approx(0.6)
    }  # fmt: skip
    assert [one["eps"] for one in network["robustbench"]] == ["0.5", "1"]
    # Two seeds: of 9 and of 8, 1 flips in one draw; the interval is that of the fewer samples.
    for seed, clean in ((0, 9), (1, 8)):
        made = with_white(results(10, clean, {0.5: 6}), {"white-1": 1})
        run(tmp_path / f"seed{seed}", config("ima", seed), made)
    write_report([tmp_path / "seed0", tmp_path / "seed1"], tmp_path / "page.html")
    (found,) = [
        rows
        for caption, rows in tables(tree(tmp_path / "page.html")).items()
        if caption.startswith("White")
    ]
    assert found[1] == ["IMA", "8", "11.8 ± 1.02.0 to 46.4"]


def test_white_noise_in_words() -> None:
    found = with_white(results(10, 9, {0.5: 6}), {"white-1": 1, "white-100": 3})
    assert white_told(found).split("\n") == [
        "white noise of ±0.05 flips 1 of 9 samples that are right without it in one draw",
        "white noise of ±0.05 flips 3 of 9 samples that are right without it in the worst of 100 "
        "draws",
    ]
    assert white_told(results(10, 9, {0.5: 6})) == ""


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (None, "±0.05"),
        ("none", "±0.05"),
        ((0, 1), "±0.05"),
        ((-0.5, 0.5), "±0.05"),
        ((-1, 1), "±0.05 of the bounds' width (±0.1)"),
        ((0, 255), "±0.05 of the bounds' width (±12.75)"),
        ("of every entry", "±0.05 of the bounds' width"),
    ],
)
def test_white_noise_is_a_share_of_the_bounds(bounds: Any, said: str, tmp_path: Path) -> None:
    found = about(with_white(results(10, 9, {0.5: 6}), {"white-1": 1}), bounds=bounds)
    assert white_told(found).startswith(f"white noise of {said} flips 1 of 9")
    for form in ("html", "json"):
        found.to_html(tmp_path / f"page.{form}")
    (caption,) = [c for c in tables(tree(tmp_path / "page.html")) if c.startswith("White")]
    assert f"uniform in {said} on every entry" in caption
    (network,) = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))["networks"]
    (white,) = [one for one in network["accuracy"]["results"] if one["attack"] == "white-1"]
    assert white["eps"] == 0.05 and white.get("size", "±0.05") == said


def test_draws_in_words() -> None:
    from ima.evaluation.noise import DRAWS as MANY

    assert MANY == DRAWS
    assert draws("white") == draws("white-100") == "the worst of 100 draws"
    assert draws("white-1") == "one draw"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"name": "arrays", "path": "medmnist/pneumoniamnist.npz"}, "pneumoniamnist"),
        ({"name": "arrays", "path": "…/scans.v2.npz"}, "scans.v2"),
        ({"name": "folder", "path": "C:\\data\\my scans.zip"}, "my scans"),
        ({"name": "folder", "path": "scans.v2/"}, "scans.v2"),
        ({"name": "arrays", "path": None}, "arrays"),
        ({"name": "covid_ct", "path": "ct.zip"}, "covid_ct"),
    ],
)
def test_data_of_ones_own_is_called_after_its_file(
    data: dict[str, Any], name: str, tmp_path: Path
) -> None:
    assert data_name({"data": data}) == name
    run(tmp_path / "run", {**config("ima"), "data": data}, results(10, 9, {0.5: 6}))
    write_report([tmp_path / "run"], tmp_path / "page.json")
    write_report([tmp_path / "run"], tmp_path / "page.md")
    assert f"# What noise breaks IMA on {name.replace('_', chr(92) + '_')}\n" in (
        tmp_path / "page.md"
    ).read_text(encoding="utf-8")
    (network,) = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))["networks"]
    assert network["robustbench"][0]["dataset"] == name


def test_the_page_of_many_runs_has_a_row_a_method_and_its_mean_over_seeds(pages) -> None:
    page = tree(pages["many.html"])
    (head, *rows) = tables(page)[
        "Weights of the epoch that validation picked: accuracy in percent, noise in L₂"
    ]
    assert head == ["network", "n", "clean", "PGD-100 at 0.5", "PGD-100 at 1"]
    assert [row[0] for row in rows] == ["standard", "SAT (eps 1.5)", "SAT (eps 3)", "IMA"]
    # Seeds 0.4 and 0.6: mean 0.5, standard deviation 0.1·√2; the interval is for n = 10, not 20.
    assert rows[3] == ["IMA", "10", "90.0 ± 0.059.6 to 98.2", "50.0 ± 14.123.7 to 76.3",
                       "0.0 ± 0.00.0 to 27.8"]  # fmt: skip
    bold = [[cell for cell in tr.all("td") if list(cell.all("strong"))] for tr in _best_rows(page)]
    # Three share the 50.0 under noise: none of them is best.
    assert [len(cells) for cells in bold] == [1, 0, 0, 0]
    assert bold[0][0].text.startswith("100.0")
    assert all(row[3].startswith("50.0") for row in rows[1:])
    verdict = next(s for s in page.all("section") if s.attributes["id"] == "verdict").text
    assert "between 80.0 % with SAT (eps 1.5) and 100.0 % with standard" in verdict
    assert "leaves 50.0 % with SAT (eps 1.5) and 10.0 % with standard" in verdict
    assert "leaves none of them above 1 %" in verdict
    assert "mart" not in page.text.lower().split()


def _best_rows(page: Element) -> list[Element]:
    found = [one for one in page.all("table") if "validation" in next(one.all("caption")).text]
    return list(next(found[0].all("tbody")).all("tr"))


def test_networks_that_are_as_good_as_each_other_are_not_ranked(tmp_path: Path) -> None:
    for name in ("sat", "mart"):
        run(tmp_path / name / "seed0", config(name), results(10, 9, {0.5: 6}))
    write_report([tmp_path / "sat" / "seed0", tmp_path / "mart" / "seed0"], tmp_path / "page.html")
    text = tree(tmp_path / "page.html").text
    assert "accuracy is 90.0 % with each of them" in text
    assert "leaves 60.0 % with each of them" in text
    assert "<strong>9" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def verdict(*runs: Path) -> str:
    """The paragraph of a page of these runs."""
    page = runs[0].parent / "verdict.html"
    write_report(runs, page)
    return next(s for s in tree(page).all("section") if s.attributes["id"] == "verdict").text


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        (4, "leaves 40.0 % with SAT and TRADES; it was not tried on MART."),
        (0, "leaves less than 1 % with SAT and TRADES; it was not tried on MART."),
    ],
)
def test_networks_that_were_not_tried_are_named(standing: int, said: str, tmp_path: Path) -> None:
    made = [
        run(tmp_path / name, config(name), results(10, 9, noisy))
        for name, noisy in (
            ("sat", {0.5: 6, 1.0: standing}),
            ("mart", {0.5: 6}),
            ("trades", {0.5: 6, 1.0: standing}),
        )
    ]
    text = verdict(*made)
    assert "Noise of size 0.5 (L₂), chosen against each network, leaves 60.0 % with each" in text
    assert f"Noise of size 1 (L₂), chosen against each network, {said}" in text


def test_other_numbers_of_samples_are_said(tmp_path: Path) -> None:
    made = [
        run(tmp_path / name, config(name), results(n, n - 1, {0.5: 6}))
        for name, n in (("sat", 10), ("mart", 20))
    ]
    words = "2 networks, evaluated on different numbers of test samples: 10 with SAT and 20 with"
    assert f"{words} MART. Without" in verdict(*made)


def test_seeds_are_compared_at_what_they_have_in_common(tmp_path: Path) -> None:
    one = run(tmp_path / "0", config("ima", 0), results(10, 9, {0.5: 6, 1.0: 2}))
    two = run(tmp_path / "1", config("ima", 1), results(10, 6, {0.5: 3}))
    text = verdict(one, two)
    # Of 0.75 that are right 0.45 stand; at 1 there is the first seed only.
    assert "chosen against the network, breaks 40.0 % of those that were right." in text
    (head, *rows) = tables(tree(tmp_path / "verdict.html"))[
        "Weights of the epoch that validation picked: accuracy in percent, noise in L₂"
    ]
    assert head[0] == "noise"
    assert [row[0] for row in rows] == [
        "without noise", "PGD-100 at 0.5", "PGD-100 at 1 (1 of 2 seeds, n = 10)"
    ]  # fmt: skip


def test_seeds_without_a_radius_in_common_are_held_against_themselves(tmp_path: Path) -> None:
    one = run(tmp_path / "0", config("ima", 0), results(10, 9, {1.0: 3}))
    two = run(tmp_path / "1", config("ima", 1), results(10, 6, {0.5: 3}))
    words = "of those that were right (1 of 2 seeds, n = 10); noise of size 1 breaks 66.7 %"
    assert f"breaks 50.0 % {words} (1 of 2 seeds, n = 10)." in verdict(one, two)


def test_the_worst_case_of_other_attacks_is_not_averaged(tmp_path: Path) -> None:
    more = ("pgd-100", "autoattack", WORST)
    other = ("pgd-100", "ifgsm-10", WORST)
    pgd, both = results(10, 9, {0.5: 6}), results(10, 9, {0.5: 2}, more)
    for number, second in enumerate((pgd, results(10, 9, {0.5: 6}, other))):
        found = [scores([both, second]), scores([both]), scores([second])]
        assert headline(found[:1]) == headline(found[1:]) == "pgd-100"
        made = [
            run(tmp_path / f"{number}" / f"{seed}", config("ima", seed), one)
            for seed, one in enumerate((both, second))
        ]
        assert "The noise was found by PGD-100; a stronger" in verdict(*made)
    assert headline([scores([both])]) == headline([scores([both]), scores([both])]) == WORST


@pytest.mark.parametrize(
    "attacks", [("noise-100",), ("noise-10", "noise-100", WORST)], ids=["one", "several"]
)
def test_random_noise_is_not_said_to_be_chosen(attacks: tuple[str, ...], tmp_path: Path) -> None:
    made = [
        run(tmp_path / name, config(name), results(10, 9, {0.5: 6, 1.0: 4}, attacks))
        for name in ("sat", "mart")
    ]
    one, two = verdict(made[0]), verdict(*made)
    assert "Random noise of size 0.5 (L₂) breaks 33.3 % of those that were right; noise" in one
    assert "Random noise of size 0.5 (L₂) leaves 60.0 % with each of them." in two
    for text in (one, two):
        assert "chosen against the network" not in text and "chosen against each" not in text
        assert "This noise was drawn at random, not chosen against a network" in text
    write_report(made[:1], tmp_path / "page.html")
    assert "right with random noise of size 0.5 (L₂)" in tree(tmp_path / "page.html").text


def test_what_is_chosen_goes_before_what_is_drawn() -> None:
    found = results(10, 9, {0.5: 6}, ("noise-100", "pgd-100"))
    assert headline([scores([found])]) == "pgd-100"
    worst = results(10, 9, {0.5: 6}, ("noise-100", "pgd-100", WORST))
    assert headline([scores([worst])]) == WORST
    random = results(10, 9, {0.5: 6}, ("noise-1", "noise-2", WORST))
    assert not drawn(WORST, [scores([results(10, 9, {0.5: 6}, (WORST,))])])
    assert drawn(WORST, [scores([random])])


def test_checks_of_other_weights_are_left_out(tmp_path: Path) -> None:
    made = full(tmp_path / "run")
    for number, (settings, kept) in enumerate(
        [({"weights": "last"}, False), ({"network": "b", "weights": "last"}, False),
         ({"network": "a", "weights": "last"}, True), ({"weights": "best"}, True)]
    ):  # fmt: skip
        for which, digest in (("best", "a"), ("last", "b")):
            path = made / "evaluation" / f"{which}.csv"
            about(Results.from_csv(path), network=digest).to_csv(path)
        path = made / "evaluation" / "checks.json"
        dataclasses.replace(CHECKS, settings=CHECKS.settings.but(**settings)).to_json(path)
        text = verdict(made)
        assert ("1 of 2 trust checks is raised" in text) == kept, number
        assert ("No trust checks were run on these weights." in text) != kept
        page = tree(tmp_path / "verdict.html").text
        said = "IMA: the checks beside its results are of the last weights, not of those"
        assert (said in page) != kept
        assert ("Gradients of zero" in page) == kept


def test_checks_show_their_state_and_open_where_they_are_raised(pages) -> None:
    page = tree(pages["one.html"])
    items = {li.attributes["class"]: li for li in page.all("li") if "class" in li.attributes}
    assert set(items) == {"quiet", "raised", "not-run"}
    assert "open" in next(items["raised"].all("details")).attributes
    assert "open" not in next(items["quiet"].all("details")).attributes
    # What is raised stands first.
    assert list(items) == ["raised", "quiet", "not-run"]
    assert "✓ no sign of it Gradients of zero" in items["quiet"].text
    assert "zero: 0.0 % of 10 (95 % interval 0.0 to 27.8)" in items["quiet"].text
    assert "points: 7.25" in items["raised"].text
    assert next(items["raised"].all("code")).text == "more"


def test_the_verdict_says_whose_checks_are_raised(tmp_path: Path) -> None:
    for name in ("sat", "mart", "standard"):
        made = run(tmp_path / name, config(name), results(10, 9, {0.5: 6}))
        if name != "standard":
            CHECKS.to_json(made / "evaluation" / "checks.json")
    write_report([tmp_path], tmp_path / "page.html")
    text = tree(tmp_path / "page.html").text
    assert f"2 of 4 trust checks are raised (Black {HOSTILE}, with MART and SAT): the" in text


def test_a_network_has_one_look_in_all_pictures(tmp_path: Path) -> None:
    # The first network of three has no distances: the others keep their colours all the same.
    for name in ("sat", "mart", "standard"):
        made = run(tmp_path / name, config(name), results(10, 9, {0.5: 6}))
        if name != "standard":
            DISTANCES.to_csv(made / "evaluation" / "distances.csv")
    write_report([tmp_path], tmp_path / "page.html")
    first, second = list(tree(tmp_path / "page.html").all("svg"))[:2]
    styles = [" ".join(p.attributes.get("style", "") for p in svg.all("path"))
              for svg in (first, second)]  # fmt: skip
    colours = [set(re.findall(r"stroke: ?var\(--line\d, (#[0-9a-f]{6})", one)) for one in styles]
    lines = [colour.lower() for colour in COLOURS[:3]]
    assert [[one in found for one in lines] for found in colours] == [
        [True, True, True], [False, True, True]
    ]  # fmt: skip


def test_distances_are_counted_by_hand(pages) -> None:
    assert [enough(DISTANCES, share) for share in (0.1, 0.2, 0.5, 0.9)] == [0, 0.2, 0.8, 3.0]
    assert enough(DISTANCES, 1.0) == math.inf
    x, y = steps_of(DISTANCES.values, 1.2)
    assert x.tolist() == [0, 0.2, 0.4, 0.8, 1.0, 1.2]
    assert y == pytest.approx([0.9, 0.8, 0.6, 0.5, 0.4, 0.4])
    (row,) = tables(tree(pages["one.html"]))["Sizes of noise (L₂) that suffice"][1:]
    assert row == ["IMA", "10", "90.0 %", "0", "0.4", "0.8", "2", "3"]


def test_the_verdict_says_where_the_smallest_noise_found_more(tmp_path: Path) -> None:
    # Of ten samples, 6 and 4 stand by their distances at 0.5 and 1.
    words = "leaves fewer right than the attacks did: "
    for number, (standing, said) in enumerate(
        [({0.5: 6, 1.0: 4}, ""), ({0.5: 7, 1.0: 4}, "60.0 % at 0.5."),
         ({0.5: 8, 1.0: 7}, "60.0 % at 0.5 and 40.0 % at 1.")]
    ):  # fmt: skip
        made = run(tmp_path / str(number), config("ima"), results(10, 9, standing))
        DISTANCES.to_csv(made / "evaluation" / "distances.csv")
        write_report([made], tmp_path / f"{number}.html")
        text = tree(tmp_path / f"{number}.html").text
        assert (f"{words}{said}" in text) if said else (words not in text)


def test_pictures_are_the_samples_their_noise_times_the_factor_and_both(pages) -> None:
    page = tree(pages["many.html"])
    figures = [f for f in page.all("figure") if f.attributes["class"] == "strip"]
    # At 0.5 sample 0 breaks both networks and sample 1 tells them apart; at 1 sample 2 does.
    assert len(figures) == 2
    first, second = figures
    expected = images({0: 0.5, 2: 1.0})
    pixels = [_pixels(one) for one in first.all("img")]
    assert len(pixels) == 6  # two networks have examples, SAT has none
    clean, noisy = expected["clean"][1, 0], expected["noisy"][1, 0]
    assert pixels[0] == pytest.approx(255 * clean, abs=0.51)
    assert pixels[5] == pytest.approx(255 * noisy, abs=0.51)
    factor = float(re.findall(r"noise × (\d+)", first.text)[0])
    assert factor >= 2
    assert pixels[4] == pytest.approx(255 * (0.5 + factor * (noisy - clean)), abs=0.6)
    for figure, ends in ((first, ("wrong", "right")), (second, ("right", "wrong"))):
        said = [one.attributes["alt"] for one in figure.all("img")]
        assert (said[2].split()[-1], said[5].split()[-1]) == ends
    assert ["IMA", "0.5", "0.05", HOSTILE, HOSTILE] in tables(first)[
        f"Sample 1, true class {HOSTILE}: predictions before and after"
    ]
    assert ["IMA", "1", "0.1", "flat", "round"] in tables(second)[
        "Sample 2, true class flat: predictions before and after"
    ]


def _pixels(image: Element) -> Any:
    start = "data:image/png;base64,"
    assert image.attributes["src"].startswith(start)
    found = base64.b64decode(image.attributes["src"].removeprefix(start))
    return np.asarray(Image.open(io.BytesIO(found))).astype(float)


def test_samples_that_are_no_pictures_and_damaged_pictures(tmp_path: Path) -> None:
    folder = full(tmp_path / "run")
    file = folder / "evaluation" / "examples.npz"
    flat = images({0: 0.5})
    flat |= {name: flat[name].reshape(len(flat[name]), -1) for name in ("clean", "noisy")}
    np.savez(file, allow_pickle=False, **flat)
    write_report([folder], tmp_path / "flat.html")
    page = tree(tmp_path / "flat.html")
    assert not list(page.all("img"))
    assert "are no images" in page.text
    # Images they may be, with values that no picture shows.
    wide = images({0: 0.5})
    wide |= {name: 3 * wide[name] - 1 for name in ("clean", "noisy")}
    np.savez(file, allow_pickle=False, **wide)
    write_report([folder], tmp_path / "wide.html")
    page = tree(tmp_path / "wide.html")
    assert not list(page.all("img"))
    assert "are no images of one or three channels with values from 0 to 1, or noise" in page.text


def test_a_class_without_a_name_is_its_number(tmp_path: Path) -> None:
    folder = full(tmp_path / "run")
    found = images({0: 0.5})
    found["prediction"] = np.where(found["prediction"] != found["label"], 7, found["label"])
    np.savez(folder / "evaluation" / "examples.npz", allow_pickle=False, **found)
    write_report([folder], tmp_path / "page.html")
    (table,) = [
        rows
        for caption, rows in tables(tree(tmp_path / "page.html")).items()
        if caption.startswith("Sample 0, true class round")
    ]
    assert table[1][-2:] == ["round", "7"]


# --- Other forms ----------------------------------------------------------------------------------


def test_markdown_has_the_same_tables(pages: dict[str, Path]) -> None:
    text = pages["one.md"].read_text(encoding="utf-8")
    assert re.search(r"\| PGD-100 at 0\.5 +\| +60\.0 \| 31\.3 to 83\.2 +\| +10 \|", text)
    assert "# What noise breaks IMA on shapes" in text
    assert "**Gradients of zero: no sign of it.**" in text
    assert "<script" not in text.replace("\\<script", "").split("```yaml")[0]
    html = tree(pages["one.html"])
    for heading in (*html.all("h1"), *html.all("h2")):
        assert heading.text in text


def test_json_has_robustbench_names_and_shares(pages: dict[str, Path]) -> None:
    found = json.loads(pages["one.json"].read_text(encoding="utf-8"))
    (network,) = found["networks"]
    assert network["robustbench"][0] == {
        "name": "IMA", "method": "ima", "dataset": "shapes", "architecture": "small_cnn",
        "Linf/L2": "L2", "eps": "0.5", "clean_acc": "90.00", "autoattack_acc": "60.00",
        "autoattack_parts": "apgd-ce, square",
    }  # fmt: skip
    best = {(one["attack"], one["eps"]): one for one in network["accuracy"]["best"]}
    assert best["pgd-100", 0.5]["accuracy"] == pytest.approx(0.6)
    assert best["pgd-100", 0.5]["n"] == 10
    assert best["pgd-100", 0.5]["low"] == pytest.approx(0.3127, abs=1e-4)
    (source,) = network["seeds"]
    assert source["checks"]["checks"][1]["tripped"] is True
    assert source["distances"]["not_found"] == 1
    many = json.loads(pages["many.json"].read_text(encoding="utf-8"))
    assert "autoattack_acc" not in many["networks"][0]["robustbench"][0]
    assert many["networks"][0]["name"] == "standard"


@pytest.mark.parametrize("ran", ["", STANDARD, "apgd-ce, apgd-dlr, fab-t, square"])
def test_json_says_which_parts_of_autoattack_ran(ran: str, tmp_path: Path) -> None:
    from ima.evaluation.autoattack import attack_parts

    assert ", ".join(attack_parts("autoattack", 10)) == STANDARD
    told = {"autoattack": ran} if ran else {}
    found = about(results(10, 9, {0.5: 6}, ("autoattack",)), attacks=told)
    found.to_html(tmp_path / "page.json")
    (network,) = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))["networks"]
    (record,) = network["robustbench"]
    assert record["autoattack_acc"] == "60.00"
    assert record.get("autoattack_parts", STANDARD) == (ran or STANDARD)
    assert ("autoattack_parts" in record) == (ran not in ("", STANDARD))


def test_results_write_their_own_page(tmp_path: Path) -> None:
    found = results(10, 9, {0.5: 6})
    write_page(found, tmp_path / "page.html", title="my <network>")
    page = tree(tmp_path / "page.html")
    assert next(page.all("h1")).text == "What noise breaks my <network>"
    table = tables(page)["Accuracy: accuracy in percent, noise in L₂"]
    assert table[2] == ["PGD-100 at 0.5", "60.0", "31.3 to 83.2", "10"]
    found.to_html(str(tmp_path / "page.json"))
    assert json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))["networks"]
    with pytest.raises(ValueError, match=r"\.pdf"):
        found.to_html(tmp_path / "page.pdf")


def test_a_results_file_and_the_folder_of_another_network_make_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "weights.safetensors-evaluation"
    folder.mkdir()
    results(10, 9, {0.5: 6}).to_csv(folder / "results.csv")
    CHECKS.to_json(folder / "checks.json")
    for path in (folder, folder / "results.csv"):
        write_report([path], tmp_path / "page.html")
        assert "90.0 % of 10" in tree(tmp_path / "page.html").text.replace("\xa0", " ")
    assert [e.label for e in read_entries([folder])] == ["weights.safetensors"]


@pytest.mark.parametrize(
    ("name", "key", "title"),
    [
        ("best", "best", "Weights of the epoch that validation picked"),
        ("last", "last", "Weights of the last epoch"),
        ("validation", "results", "Accuracy"),
        ("mine", "results", "Accuracy"),
    ],
)
def test_a_file_by_itself_is_called_what_it_is(
    name: str, key: str, title: str, tmp_path: Path
) -> None:
    part = "validation" if name == "validation" else "test"
    found = results(10, 9, {0.5: 6})
    found = about(found, part=part) if part != "test" else found
    found.to_csv(tmp_path / f"{name}.csv")
    for form in ("html", "json"):
        write_report([tmp_path / f"{name}.csv"], tmp_path / f"page.{form}")
    page = tree(tmp_path / "page.html")
    assert f"90.0 % of 10 {part} samples" in page.text.replace("\xa0", " ")
    shown = tables(page)
    assert f"{title}: accuracy in percent, noise in L₂" in shown
    assert shown["How it was evaluated"][1][2] == f"10 {part} samples"
    (network,) = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))["networks"]
    assert list(network["accuracy"]) == [key]


def test_files_of_several_weights_stand_in_one_table(tmp_path: Path) -> None:
    for name in ("best", "mine"):
        results(10, 9, {0.5: 6}).to_csv(tmp_path / f"{name}.csv")
    write_report([tmp_path / "best.csv", tmp_path / "mine.csv"], tmp_path / "page.html")
    found = tables(tree(tmp_path / "page.html"))
    (_, *rows) = found["Accuracy: accuracy in percent, noise in L₂"]
    assert [row[0] for row in rows] == ["best", "mine"]


# --- Whole, safe and the same ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["one.html", "many.html"])
def test_the_page_loads_and_runs_nothing(pages: dict[str, Path], name: str) -> None:
    text = pages[name].read_text(encoding="utf-8")
    page = tree(pages[name])
    assert not list(page.all("script")) and "<script" not in text
    policy = [one.attributes for one in page.all("meta") if "http-equiv" in one.attributes]
    assert policy[0]["content"].startswith(
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    )
    for one in page.all():
        assert not [key for key in one.attributes if key.startswith("on")], one.tag
        for key in ("src", "href", "xlink:href", "action", "srcset", "data"):
            link = one.attributes.get(key, "#")
            assert link.startswith(("#", "data:image/png;base64,")), (one.tag, link[:60])
    assert all(url.startswith("#") for url in re.findall(r"url\(\s*['\"]?([^)]{1,40})", text))
    assert "@import" not in text and "http" not in text.replace("http-equiv", "")
    # What the runs said stands there as text.
    assert HOSTILE in page.text


def test_names_are_text_everywhere(tmp_path: Path) -> None:
    for number, name in enumerate(("a<b>&amp;", "x</title><img>")):
        run(tmp_path / f"m{number}" / "seed0", config(name), results(10, 9, {0.5: 6}))
    write_report([tmp_path], tmp_path / "page.html")
    page = tree(tmp_path / "page.html")
    assert not list(page.all("b")) and not list(page.all("img"))
    for where in (page, next(page.all("desc")), next(page.all("table"))):
        assert "A<B>&AMP;" in where.text and "X</TITLE><IMG>" in where.text


@pytest.mark.parametrize("name", ["one.html", "many.html"])
def test_the_page_can_be_heard_and_walked_through(pages: dict[str, Path], name: str) -> None:
    page = tree(pages[name])
    ids = [one.attributes["id"] for one in page.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    for one in page.all():
        for key in ("aria-labelledby", "aria-describedby"):
            assert set(one.attributes.get(key, "").split()) <= set(ids)
        if one.attributes.get("href", "").startswith("#") or "xlink:href" in one.attributes:
            link = one.attributes.get("href", one.attributes.get("xlink:href", ""))
            assert link.startswith("data:") or link[1:] in ids
    assert next(page.all("html")).attributes["lang"] == "en"
    for tag in ("h1", "main", "header", "nav", "footer", "title"):
        # Titles of figures aside.
        found = [e for e in page.all(tag) if not (tag == "title" and "id" in e.attributes)]
        assert len(found) == 1, tag
    levels = [int(e.tag[1]) for e in page.all() if re.fullmatch("h[1-6]", e.tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    for table in page.all("table"):
        assert next(table.all("caption")).text
        assert all(th.attributes["scope"] in ("col", "row") for th in table.all("th"))
        region = table.parent
        assert region is not None
        assert region.attributes["tabindex"] == "0" and region.attributes["role"] == "region"
    for svg in page.all("svg"):
        assert svg.attributes["role"] == "img"
        assert next(svg.all("title")).text and next(svg.all("desc")).text
    assert all(image.attributes["alt"] for image in page.all("img"))
    for figure in page.all("figure"):
        assert list(next(figure.all("details")).all("table")), "no numbers under the figure"
    assert next(page.all("a")).attributes == {"class": "skip", "href": "#verdict"}


@pytest.mark.parametrize("name", ["one", "many"])
def test_no_place_on_the_machine_is_told(pages: dict[str, Path], name: str) -> None:
    for form in ("html", "md", "json"):
        text = pages[f"{name}.{form}"].read_text(encoding="utf-8")
        assert "jane" not in text and "secret" not in text and str(pages[name]) not in text
        assert "shapes.npz" in text.replace("\\", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/data/x.npz", "…/x.npz"),
        ("/home/me/my data/x y", "…/x y"),
        ("/data", "…/data"),
        ("/home/me/", "…/me"),
        ("~/runs/a", "…/a"),
        (r"C:\Users\me\x.npz", "…/x.npz"),
        ("ima train --out=/home/me/a data.path=~me/b/c", "ima train --out=…/a data.path=…/c"),
        ("path:/home/me/a", "path:…/a"),
        ("runs/digits/seed0", "runs/digits/seed0"),
        ("eps 8/255, 3 / 4", "eps 8/255, 3 / 4"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("and/or <b>x</b>", "and/or <b>x</b>"),
    ],
)
def test_paths_are_cut_to_their_last_part(text: str, expected: str) -> None:
    assert scrub({"a": [text, 1]}) == {"a": [expected, 1]}


def test_the_same_runs_give_the_same_bytes_without_torch(pages: dict[str, Path], tmp_path) -> None:
    script = (
        "import sys; from pathlib import Path; from ima.report.html import write_report\n"
        "for name, out in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    write_report([Path(name)], Path(out))\n"
        "sys.exit(1 if 'torch' in sys.modules else 0)\n"
    )
    outs = [f"{name}.{form}" for name in ("one", "many") for form in ("html", "md", "json")]
    words = [str(w) for out in outs for w in (pages[out.partition(".")[0]], tmp_path / out)]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *words], env=environment, timeout=100
    )
    assert done.returncode == 0
    for out in outs:
        assert (tmp_path / out).read_bytes() == pages[out].read_bytes(), out


# --- What is refused ------------------------------------------------------------------------------


def _missing(folder: Path) -> list[Path]:
    return [folder / "nowhere"]


def _empty(folder: Path) -> list[Path]:
    (folder / "empty").mkdir()
    return [folder / "empty"]


def _unevaluated(folder: Path) -> list[Path]:
    made = full(folder / "run")
    shutil.rmtree(made / "evaluation")
    return [made]


def _norms(folder: Path) -> list[Path]:
    made = about(results(10, 9, {0.5: 6}), norm="Linf")
    return [full(folder / "run"), run(folder / "other", config("sat"), made)]


def _data(folder: Path) -> list[Path]:
    other = {**config("sat"), "data": {"name": "digits"}}
    return [full(folder / "run"), run(folder / "other", other, results(10, 9, {0.5: 6}))]


def _files(folder: Path) -> list[Path]:
    return [
        run(
            folder / name,
            {**config("sat"), "data": {"name": "arrays", "path": f"x/{name}.npz"}},
            results(10, 9, {0.5: 6}),
        )
        for name in ("chest", "blood")
    ]


def _elsewhere(*settings: dict[str, Any]) -> Callable[[Path], list[Path]]:
    """Networks from elsewhere whose evaluations say this of themselves."""

    def evaluations(folder: Path) -> list[Path]:
        paths = [folder / f"{number}-evaluation" for number in range(len(settings))]
        for path, own in zip(paths, settings, strict=True):
            about(results(10, 9, {0.5: 6}), **own).to_csv(path / "results.csv")
        return paths

    return evaluations


def _run_and_elsewhere(folder: Path) -> list[Path]:
    return [full(folder / "run"), *_elsewhere({"data": "digits"})(folder)]


def _beside(name: str, **settings: Any) -> Callable[[Path], list[Path]]:
    """A run with checks or distances of another evaluation."""

    def run_with(folder: Path) -> list[Path]:
        found = about(results(10, 9, {0.5: 6}), bounds=(0, 1), data="a:test")
        made = run(folder / "run", config("ima"), found)
        if name == "checks.json":
            told = CHECKS.settings.but(**settings)
            dataclasses.replace(CHECKS, settings=told).to_json(made / "evaluation" / name)
        else:
            told = DISTANCES.settings.but(**settings)
            dataclasses.replace(DISTANCES, settings=told).to_csv(made / "evaluation" / name)
        return [made]

    return run_with


def _no_clean(folder: Path) -> list[Path]:
    found = results(10, 9, {0.5: 6})
    noisy = [row for row in found.rows if row.attack != "clean"]
    return [run(folder / "run", config("sat"), Results.of(noisy, found.settings))]


def _damaged(name: str) -> Callable[[Path], list[Path]]:
    def damage(folder: Path) -> list[Path]:
        made = full(folder / "run")
        (made / name).write_bytes(b"\x00[:,\n1,x")
        return [made]

    return damage


REFUSED: dict[str, tuple[Callable[[Path], list[Path]], str]] = {
    "nothing": (lambda _: [], "no runs are given"),
    "missing": (_missing, "does not exist"),
    "empty": (_empty, "no evaluated run.*ima evaluate"),
    "unevaluated": (_unevaluated, "not evaluated yet.*ima evaluate"),
    "norms": (_norms, "differ in their norm: L2, Linf"),
    "data": (_data, "differ in their data: shapes, digits"),
    "files": (_files, "differ in their data: chest, blood"),
    "no clean pass": (_no_clean, "hold no clean pass"),
    "their data": (
        _elsewhere({"data": "a:one"}, {"data": "a:two"}),
        "differ in their data: a:one, a:two",
    ),
    "data by name": (_run_and_elsewhere, "differ in their data: shapes, digits"),
    "bounds": (
        _elsewhere({"bounds": (0, 1)}, {"bounds": "none"}),
        "differ in their bounds: 0 to 1, none",
    ),
    "parts": (_elsewhere({"part": "validation"}, {}), "differ in their part: validation, test"),
    **{
        f"{what} of {name}": (
            _beside(name, **{key: value}),
            rf"{re.escape(name)} was made with {what} \({said}, not {expected}\)",
        )
        for name in ("checks.json", "distances.csv")
        for what, key, value, said, expected in (
            ("another norm", "norm", "Linf", "Linf", "L2"),
            ("other bounds", "bounds", (-1, 1), "-1 to 1", "0 to 1"),
            ("other data", "data", "a:train", "a:train", "a:test"),
        )
    },
    **{
        name: (_damaged(name), re.escape(Path(name).name))
        for name in (
            "config.yaml",
            "environment.json",
            "margins.csv",
            "evaluation/best.csv",
            "evaluation/checks.json",
            "evaluation/distances.csv",
            "evaluation/examples.npz",
        )
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_page_is_refused_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    prepare, text = REFUSED[case]
    runs = prepare(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=text):
        write_report(runs, tmp_path / "out" / "page.html")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["checks.json", "distances.csv"])
def test_what_agrees_or_says_nothing_stands_beside_results(name: str, tmp_path: Path) -> None:
    settings = {"norm": "L2", "bounds": (0, 1), "data": "a:test"}
    for number, own in enumerate((settings, {})):
        write_report(_beside(name, **own)(tmp_path / f"{number}"), tmp_path / f"{number}.html")


def test_the_command_writes_the_page_and_names_it(pages, tmp_path: Path, capsys) -> None:
    from ima.cli import app

    out = tmp_path / "deep" / "page.html"
    app(["report", str(pages["one"]), "--out", str(out)], result_action="return_value")
    assert capsys.readouterr().out.strip() == str(out)
    assert out.read_bytes() == pages["one.html"].read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
