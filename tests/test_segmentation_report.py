"""Tables, curves, overlays and pages of segmentation networks: their numbers, by hand."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image
from small_runs import full
from small_segmentations import CLASSES, EMPTY, NAN, NOISE, arrays, evaluated, results, three
from test_html_report import tables, tree

from ima import write_page
from ima.evaluation.results import Results
from ima.report import tables_of, to_csv, to_latex, to_markdown, to_text
from ima.report.comparison import Compared, Frame, write_comparison
from ima.report.entries import group, read_entries
from ima.report.figures import quality_over_noise
from ima.report.html import write_report, write_sources
from ima.report.html.verdict import verdict_of
from ima.report.overlay_figure import overlays_figure
from ima.report.overlays import (
    COLOURS,
    FILL,
    colour_told,
    compose,
    pick_slices,
    slice_radii,
    swatch,
)
from ima.report.scores import levels
from ima.report.series import curves
from ima.report.sources import Source, find_sources, read_source
from ima.report.summary import class_table, results_table
from ima.report.words import counted, of_whole, settings_told

WHITE = {("white-1", 0.05): 0.9, ("white-100", 0.05): 0.8, ("noise-100", 2.0): 0.9}


def rows_of(*runs: tuple[str, Results]) -> list[tuple[str, list[Results]]]:
    """Networks of one seed each, as tables take them."""
    return [(label, [found]) for label, found in runs]


def source(label: str, found: Results, overlays: Any = None) -> Source:
    return Source(label, {"results": found}, overlays=overlays or {})


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of one network and of three, in all forms, by such names as one.html."""
    home = tmp_path_factory.mktemp("pages")
    made = {"one": evaluated(home / "trained"), "many": three(home / "results")}
    for name, source in made.items():
        for form in ("html", "md", "json"):
            write_report([source], home / f"{name}.{form}")
    return {path.name: path for path in home.glob("*.*")} | made


# --- Tables ---------------------------------------------------------------------------------------


def test_the_table_holds_the_indices_of_hand() -> None:
    rows = rows_of(("STD", results("STD", clean=0.5)), ("IMA", results()))
    table, _ = tables_of(rows, "A note.")
    assert table.columns == (
        "method", "clean", "clean, all classes",
        *(f"{attack} at {eps}" for attack in ("pgd-100", "ifgsm-10", "worst case")
          for eps in (2, 6, 10)),
        "average",
    )  # fmt: skip
    rows = {
        row[0]: [cell.mean for cell in row[1:] if not isinstance(cell, str)] for row in table.rows
    }
    # 0.7 = (0.8 + 0.6) / 2, and its shares; clean and six attacks: 0.7 · (1 + 2.0) / 7.
    noisy = [0.35, 0.14, 0, 0.56, 0.28, 0.07, 0.35, 0.14, 0]
    assert rows["IMA"] == pytest.approx([0.7, 0.75, *noisy, 0.3])
    assert rows["STD"] == pytest.approx([value / 2 for value in rows["IMA"]])
    assert table.caption.endswith("A note.")
    for said in ("n = 4 slices of 2 cases, 1 without foreground", "Eq. 14", EMPTY, "in L₂"):
        assert said in table.caption
    assert "hite noise" not in table.caption
    text = to_text(table)
    assert re.search(r"IMA +0\.700 +0\.750 +0\.350 +0\.140 +0\.000", text)
    assert "Percent" not in text and "| **0.700** |" in to_markdown(table)
    assert r"\textbf{0.700}" in to_latex(table)
    (found,) = [
        line for line in csv.DictReader(io.StringIO(to_csv(table))) if line["method"] == "IMA"
    ]
    assert float(found["average mean"]) == pytest.approx(0.3, abs=1e-12)


def test_noise_that_is_drawn_has_columns_of_its_own_and_is_in_no_average() -> None:
    table = results_table(rows_of(("IMA", results(left={**WHITE, **NOISE}))))
    assert table.columns[3] == "noise-100 at 2"
    assert table.columns[-6:] == (
        *(f"worst case at {eps}" for eps in (2, 6, 10)),
        "white-1 at ±0.05", "white-100 at ±0.05", "average",
    )  # fmt: skip
    white, hundred, average = (float(str(cell)) for cell in table.rows[0][-3:])
    assert (white, hundred, average) == (0.63, 0.56, 0.3)
    assert "White noise is uniform in ± the amplitude named, the worst of" in table.caption
    nine = "±0.05 of the bounds' width (±0.45)"
    table = results_table(rows_of(("IMA", results(left=WHITE, bounds=(0, 9)))))
    assert table.columns[-2] == f"white-100 at {nine}"
    table = results_table(rows_of(("IMA", results(left=WHITE, bounds="none"))))
    assert table.columns[-2] == "white-100 at ±0.05"
    both = [("IMA", results(left=WHITE)), ("STD", results("STD", WHITE, bounds=(0, 9)))]
    assert results_table(rows_of(*both)).columns[-2] == f"white-100 at ±0.05 or {nine}"


def test_an_attack_that_one_network_lacks_is_absent_not_zero() -> None:
    fewer = {key: share for key, share in NOISE.items() if key[0] != "ifgsm-10"}
    table = results_table(rows_of(("IMA", results()), ("STD", results("STD", fewer))))
    cells = dict(zip(table.columns, map(str, table.rows[1]), strict=True))
    assert cells["ifgsm-10 at 2"] == cells["average"] == "–"
    assert cells["pgd-100 at 2"] == "0.350"
    assert "– not measured." in " ".join(to_text(table).split())


def test_every_class_has_a_line_and_a_single_one_has_none() -> None:
    table = class_table(rows_of(("IMA", results()), ("STD", results("STD"))))
    assert table is not None and table.columns[:4] == ("class", "n", "clean", "pgd-100 at 2")
    lines = {row[0]: [str(cell) for cell in row[1:]] for row in table.rows}
    assert list(lines) == ["IMA: head", "IMA: <b>tail</b>", "STD: head", "STD: <b>tail</b>"]
    # The first class counts in three samples, the second in two.
    assert lines["IMA: head"][:4] == ["3", "0.800", "0.400", "0.160"]
    assert lines["IMA: <b>tail</b>"][:4] == ["2", "0.600", "0.300", "0.120"]
    assert "**" not in to_markdown(table), "classes are not rivals"
    one = rows_of(("IMA", results(classes=("head",))))
    assert class_table(one) is None and len(tables_of(one)) == 1


def _but(keep: Callable[[Any], bool] = lambda _: True, **columns: Any) -> Results:
    """The results with some rows, or with columns of another content."""
    whole = results("STD")
    kept = [number for number, row in enumerate(whole.rows) if keep(row)]
    changed = {**whole.columns, **columns}
    settings = whole.settings.but(samples=None)
    return Results({name: column[kept] for name, column in changed.items()}, settings)


def _less() -> Results:
    return _but(lambda row: row.id != 1)


def _other_truth() -> Results:
    columns = results().columns
    return _but(pixels=np.where(columns["id"] == 1, 21, columns["pixels"]))


def _bare() -> Results:
    return _but(lambda row: row.attack != "clean")


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        ([], "runs is empty"),
        ([("IMA", results()), ("IMA", results())], "labelled.*IMA"),
        ([("IMA", results()), ("STD", results(norm="Linf"))], "differ in their norm: L2, Linf"),
        ([("IMA", results()), ("STD", results(data="Heart"))], "differ in their data"),
        ([("IMA", results()), ("STD", results(classes=("a", "b")))], "differ in their classes"),
        ([("IMA", results()), ("STD", _less())], "STD was evaluated on 3 samples, IMA on 4"),
        (
            [("IMA", results()), ("STD", _other_truth())],
            "case_1, slice 4 has 21 pixels of foreground in 1 class in the evaluation of STD, 20 ",
        ),
        ([("IMA", _bare())], "no clean pass"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(runs: Any, text: str, tmp_path: Path) -> None:
    rows = rows_of(*runs)
    for make_table in (results_table, class_table, curves):
        with pytest.raises(ValueError, match=text):
            make_table(rows)
    if len(runs) > 1:
        with pytest.raises(ValueError, match=text):
            write_comparison(tmp_path / "out", [Compared(*row) for row in rows], Frame("x"))
        assert not (tmp_path / "out").exists()


# --- Curves ---------------------------------------------------------------------------------------


def test_curves_begin_clean_and_follow_the_worst_case() -> None:
    (curve,) = curves(rows_of(("IMA", results())))
    assert curve.eps.tolist() == [0, 2, 6, 10]
    assert curve.accuracy == pytest.approx([0.7, 0.35, 0.14, 0])
    (curve,) = curves(rows_of(("IMA", results())), "ifgsm-10")
    assert curve.accuracy == pytest.approx([0.7, 0.56, 0.28, 0.07])
    with pytest.raises(ValueError, match="not attacked with autoattack"):
        curves(rows_of(("IMA", results())), "autoattack")


def test_the_papers_levels_are_marked_where_the_data_are_the_papers() -> None:
    assert levels(results(), [2, 4, 6, 10]) == [2, 6, 10]
    assert levels(results(), [2, 4]) == [2, 4]
    assert levels(results(norm="Linf"), [2, 4, 6, 10]) == [2, 4, 6, 10]
    assert levels(results(data="Dataset900_Other"), [1, 2]) == [1, 2]
    found = results()
    drawn = curves(rows_of(("IMA", found)))
    marks, measure = levels(found, drawn[0].eps[1:].tolist()), found.settings.measure
    figure = quality_over_noise(drawn, attack="PGD", norm="L2", levels=marks, measure=measure)
    (axes,) = figure.axes
    marked = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert {2, 6, 10} <= set(marked)
    FigureCanvasAgg(figure).draw()
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "0", "0.2", "0.4", "0.6", "0.8", "1",
    ]  # fmt: skip


# --- Overlays -------------------------------------------------------------------------------------


def test_labels_are_filled_and_outlined_and_all_else_is_the_image() -> None:
    gray = np.linspace(0, 1, 140).reshape(14, 10)
    labels = np.zeros((14, 10), dtype=np.uint8)
    labels[2:7, 1:9], labels[7:12, 1:9], labels[13, 9] = 1, 2, 255
    found = compose(gray, labels)
    scale = 22  # 14 · 21 is below 300
    assert found.shape == (14 * scale, 10 * scale, 3)
    image = np.round(255 * gray).repeat(scale, 0).repeat(scale, 1)
    outside = np.isin(labels, (0, 255)).repeat(scale, 0).repeat(scale, 1)
    assert (found[outside] == image[outside][:, None]).all()
    for label, row in ((1, 4), (2, 9)):
        colour = np.array([int(list(COLOURS)[label - 1][i : i + 2], 16) for i in (1, 3, 5)])
        middle = found[row * scale + 10, 5 * scale + 10]
        expected = (1 - FILL) * 255 * gray[row, 5] + FILL * colour
        assert middle == pytest.approx(expected, abs=0.51)
        rim = (found == colour).all(2)
        assert rim.any() and not rim[outside].any()
        # A rim's pixel lies within its own class.
        assert (labels.repeat(scale, 0).repeat(scale, 1)[rim] == label).all()
    solid, dashed = ((swatch(label) == swatch(label)[0, 0]).all(2)[0].mean() for label in (1, 2))
    assert solid == 1 and 0.3 < dashed < 0.8
    assert (compose(gray)[..., 0] == compose(gray)[..., 2]).all()


# Machado, Oliveira and Fernandes, IEEE TVCG 2009: full protanopia, deuteranopia, tritanopia.
VISION = {
    "usual": np.eye(3).tolist(),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


@pytest.mark.parametrize("vision", VISION)
def test_colours_of_classes_differ_for_every_vision(vision: str) -> None:
    srgb = np.array([list(bytes.fromhex(colour[1:])) for colour in COLOURS]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.array(VISION[vision]).T).clip(0, 1)
    xyz = seen @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722],
                           [0.0193, 0.1192, 0.9505]]).T / [0.9505, 1, 1.089]  # fmt: skip
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)
    for a, b in itertools.combinations(range(len(lab)), 2):
        # 2.3 is just noticeable; outlines tell apart what is nearer than six times that.
        apart = np.linalg.norm(lab[a] - lab[b])
        assert apart > 15 or (
            apart > 10 and colour_told(a + 1).split()[1] != colour_told(b + 1).split()[1]
        )


def test_slices_are_matched_cut_and_left_out_where_images_differ() -> None:
    ima, std = arrays("IMA"), arrays("STD", dice=0.1)
    networks = [("STD", std), ("IMA", ima)]
    assert slice_radii(networks) == [2, 6, 10]
    first, second = pick_slices(networks, 6)
    assert (first.name, second.name) == ("case_1, slice 3", "case_2, slice 0")
    assert [view.label for view in first.views] == ["STD", "IMA"]
    assert [view.dice_after for view in first.views] == [0.1, 0.4]
    assert first.clean.shape == (14, 10) and second.clean.shape == (12, 9)
    assert 255 not in second.truth and np.isfinite(second.clean).all()
    size = np.linalg.norm(second.views[0].noisy - second.clean)
    assert size == pytest.approx(0.99 * 6, rel=1e-5)
    # Floats round; images and attacks that differ are not shown beside each other.
    second_case = std["case"] == "case_2"
    std["clean"] *= np.float32(1 + 1e-6)
    assert len(pick_slices(networks, 6)) == 2
    for name, other in (("clean", std["clean"] * 1.1), ("attack", np.array(["pgd-100"] * 6))):
        changed = np.where(second_case.reshape(-1, *[1] * (other.ndim - 1)), other, std[name])
        kept = pick_slices([("STD", {**std, name: changed}), ("IMA", ima)], 6)
        assert [one.name for one in kept] == ["case_1, slice 3"]

    # The same slice of another preprocessing, and one that the other network did not keep.
    ima["clean"][ima["case"] == "case_2", 11] = np.nan
    assert [one.name for one in pick_slices(networks, 6)] == ["case_1, slice 3"]
    std["slice"][std["case"] == "case_1"] = 5
    assert pick_slices(networks, 6) == [] and slice_radii(networks) == []
    assert overlays_figure(networks, norm="L2") is None


@pytest.mark.parametrize("labels", [("STD", "IMA"), ("IMA",), ("a network with a long name", "x")])
def test_the_figure_of_overlays_says_all_and_nothing_over_another(labels: tuple[str, ...]) -> None:
    made = overlays_figure([(label, arrays(label)) for label in labels], norm="L2")
    assert made is not None
    figure, caption = made
    assert caption.startswith("Noise of size at most 6 (L₂) under the worst of all attacks")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer: Any = canvas.get_renderer()
    texts = [one for one in figure.findobj(Text) if one.get_text() and one.get_visible()]
    texts = [one for one in texts if one.axes is None]
    words = [one.get_text() for one in texts]
    for expected in (*labels, "truth", "Dice 1.00", "Dice 0.40", "noisy image", *CLASSES):
        assert expected in words
    factors = {word for word in words if word.startswith("noise × ")}
    assert factors and all(float(word[8:]) >= 1 for word in factors)
    boxes = [one.get_window_extent(renderer) for one in texts]
    for box, word in zip(boxes, words, strict=True):
        assert box.x0 >= 0 and box.y0 >= 0, word
        assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, word
    images = [axes.get_window_extent(renderer) for axes in figure.axes if axes.images]
    for a, b in itertools.combinations([*boxes, *images], 2):
        wide = min(a.x1, b.x1) - max(a.x0, b.x0)
        high = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide <= 0.5 or high <= 0.5


# --- The folder of a comparison -------------------------------------------------------------------


def test_a_comparison_is_written_whole_and_the_same_again(tmp_path: Path) -> None:
    three(tmp_path / "results")
    sources = [one for entry in read_entries([tmp_path / "results"]) for one in entry.sources]
    told = settings_told([(one.label, one.main.settings) for one in sources])
    frame = Frame("small", "A note.", remarks=["Made by `me`.", *told, "At commit abc."])
    methods = [Compared(one.label, [one.main], overlays=one.overlays) for one in sources]
    folder = tmp_path / "out"
    said = write_comparison(folder, methods, frame)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "table.md", "table.csv", "table.tex", "table-classes.csv", "table-classes.tex",
        "mean-dice.png", "mean-dice.svg", "overlays.png", "overlays.svg",
    }  # fmt: skip
    page = (folder / "table.md").read_text(encoding="utf-8")
    where = "Noise in L₂, n = 4 slices of 2 cases, 1 without foreground. ADI:"
    assert page.startswith(f"# small\n\n{where}")
    assert "Made by `me`.\n\nEvaluated with seed 0;" in page and "A note." in page
    assert "label STD nnUNetTrainerSTD, SAT5 nnUNetTrainerSAT5" in page
    assert "](overlays.png)" in page and page.endswith("At commit abc.\n")
    assert "jane" not in page
    assert [line.split()[0] for line in said.splitlines() if re.match(r"\w+ +0\.", line)][:3] == [
        "STD", "SAT5", "IMA",
    ]  # fmt: skip
    before = {name: (folder / name).read_bytes() for name in names}
    write_comparison(folder, methods, frame)
    assert {name: (folder / name).read_bytes() for name in names} == before
    # Pictures that no longer belong to the page do not stay beside it.
    write_comparison(folder, [Compared(one.label, [one.main]) for one in sources], frame)
    assert not (folder / "overlays.png").exists() and not (folder / "overlays.svg").exists()
    assert "overlays" not in (folder / "table.md").read_text(encoding="utf-8")


# --- Pages ----------------------------------------------------------------------------------------


def _verdict(page: Path) -> str:
    sections = tree(page).all("section")
    found = next(one for one in sections if one.attributes["id"] == "verdict")
    return " ".join(one.text for one in found.all("p"))


def test_the_page_of_one_network_says_its_numbers(pages: dict[str, Path]) -> None:
    page = tree(pages["one.html"])
    assert next(page.all("h1")).text == "What noise breaks IMA on Hippocampus"
    verdict = _verdict(pages["one.html"])
    for said in (
        "IMA was tested on 4 slices of 2 cases, 1 without foreground",
        "its mean Dice (ADI) is 0.70",
        "Noise of size 2 (L₂), chosen against the network, takes the mean Dice from 0.70 to 0.35",
        "noise of size 10, to 0.00",
        "found by PGD-100 and IFGSM-10; a stronger attack may find more",
    ):
        assert said in verdict
    found = next(rows for caption, rows in tables(page).items() if "(ADI)" in caption)
    assert found[0] == ["noise", "ADI", "95 % interval", "n", *CLASSES, "ADI, all classes"]
    assert found[1][:2] == ["without noise", "0.700"] and " to " in found[1][2]
    assert found[1][3:] == ["4", "0.800", "0.600", "0.750"]
    assert [row[0] for row in found[2:4]] == ["PGD-100 at 2", "PGD-100 at 6"]
    assert f"Convention: {EMPTY}" in page.text


def test_the_page_of_several_has_them_side_by_side(pages: dict[str, Path]) -> None:
    page = tree(pages["many.html"])
    *parts, classes = [rows for caption, rows in tables(page).items() if "noise in L₂" in caption]
    assert all(part[0][:3] == ["network", "n", "clean"] for part in parts)
    assert all([row[0] for row in part[1:]] == ["STD", "SAT5", "IMA"] for part in parts)
    cells = {
        name: [row[number][:5] for row in part[1:]]
        for part in parts
        for number, name in enumerate(part[0])
    }
    assert cells["clean"] == ["0.770", "0.560", "0.700"]
    assert cells["clean, all classes"] == ["0.825", "0.600", "0.750"]
    assert cells["PGD-100 at 2"] == ["0.077", "0.196", "0.350"]
    assert cells["average"] == ["0.154", "0.192", "0.300"]
    assert classes[0][3] == "worst case at 2"
    by_class = {row[0]: row[3][:5] for row in classes[1:]}
    assert [by_class[f"{label}: head"] for label in ("STD", "SAT5", "IMA")] == [
        "0.088", "0.224", "0.400",
    ]  # fmt: skip
    best = [strong.text for table in page.all("table") for strong in table.all("strong")]
    assert best[:4] == ["0.770", "0.825", "0.300", "0.350"]
    verdict = _verdict(pages["many.html"])
    assert "mean Dice (ADI) is between 0.56 with SAT5 and 0.77 with STD" in verdict
    assert "leaves a mean Dice of between 0.08 with STD and 0.35 with IMA" in verdict
    assert "leaves a mean Dice of 0.00 with each of them" in verdict


def test_pictures_are_the_slices_and_are_told_in_words(pages: dict[str, Path]) -> None:
    page = tree(pages["many.html"])
    figures = [one for one in page.all("figure") if one.attributes["class"] == "overlay"]
    assert len(figures) == 3
    images = list(figures[0].all("img"))
    said = [one.attributes["alt"] for one in images]
    assert said[0] == "case_1, slice 3, the truth, as shown: head 20 pixels, <b>tail</b> 15 pixels"
    assert said[3] == (
        "case_1, slice 3 with noise, prediction of STD, as shown: head 20 pixels, "
        "<b>tail</b> 0 pixels; Dice 0.10"
    )
    assert [text for text in said if "prediction of" in text][-1].endswith("Dice 0.40")
    assert "SAT5" not in " ".join(said)
    pixels = [_pixels(one) for one in images]
    one = pick_slices([("STD", arrays("STD")), ("IMA", arrays())], 2)[0]
    assert pixels[0] == pytest.approx(compose(one.gray(one.clean), one.truth))
    noise = (0.5 + one.factor * one.noise(one.views[0])).clip(0, 1)
    assert f"times {one.factor:g}; gray is none" in said[4]
    assert pixels[4] == pytest.approx(compose(noise)[..., 0])
    keys = next(one for one in figures[0].all("ul") if one.attributes["class"] == "keys")
    assert [item.text for item in keys.all("li")] == list(CLASSES)
    caption, numbers = next(iter(tables(figures[0]).items()))
    assert caption.endswith("of classes that overlap, a pixel shows the last")
    assert numbers[0] == ["", "Dice", *(f"{name}, pixels shown" for name in CLASSES)]
    assert ["STD, with noise", "0.10", "20", "0"] in numbers


def test_the_verdict_says_which_networks_were_not_measured() -> None:
    fewer = {key: share for key, share in NOISE.items() if key[1] != 6}
    two, others = results("STD", fewer), results("SAT5", clean=0.8)
    runs = {"STD": two, "SAT5": others, "IMA": results()}
    said = " ".join(verdict_of(group([source(*run) for run in runs.items()])))
    assert "mean Dice of between 0.28 with SAT5 and 0.35 with STD. Noise" in said
    assert "mean Dice of 0.14 with IMA and 0.11 with SAT5; it was not tried on STD." in said
    both = [source(*run) for run in (("STD", two), ("IMA", results()))]
    said = " ".join(verdict_of(group(both)))
    assert "mean Dice of 0.14 with IMA; it was not tried on STD." in said
    assert "mean Dice of 0.00 with each of them." in said


def test_volumes_say_what_their_slices_count_in(tmp_path: Path) -> None:
    more: dict[str, Any]
    rows = [replace(row, case=f"case_{row.id}", slice=-1) for row in results().rows]
    told = {"samples are": "whole cases, or the central patch of larger ones"}
    for more, unit, whole in (
        (
            {"about": told, "data_digest": "a1b2"},
            "cases or central patches",
            "whole samples (a case, or its central patch)",
        ),
        ({"dimensions": 3}, "volumes", "whole samples"),
    ):
        found = Results.of(rows, results(**more).settings)
        assert counted(found) == f"4 {unit}, 1 without foreground"
        assert of_whole(found) == f"; the mean Dice is that of the {whole}"
        write_sources(tmp_path / "page.html", [source("IMA", found, arrays())])
        page = tree(tmp_path / "page.html").text
        assert "case_1, slice 3 of the sample: noise" in page and f"{whole}." in page
        assert "a1b2" not in page
        assert "a1b2" not in " ".join(settings_told([("IMA", found.settings)]))
    assert of_whole(results()) == ""


def _pixels(image: Any) -> Any:
    found = image.attributes["src"].removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found))))


def test_markdown_and_json_say_the_same(pages: dict[str, Path]) -> None:
    text = pages["many.md"].read_text(encoding="utf-8")
    assert "# What noise breaks 3 networks on Hippocampus" in text
    assert re.search(r"\| network .* PGD-100 at 2 .*\n.*\n\| STD .*\| 0\.077 \(", text)
    found = json.loads(pages["many.json"].read_text(encoding="utf-8"))
    assert found["verdict"] == _verdict(pages["many.html"])
    assert found["measure"] == "mean Dice" and found["convention"] == EMPTY
    assert [one["name"] for one in found["networks"]] == ["STD", "SAT5", "IMA"]
    ima = found["networks"][2]
    assert (ima["n"], ima["cases"], ima["without_foreground"]) == (4, 2, 1)
    by_key = {(one["attack"], one["eps"]): one for one in ima["mean Dice"]["results"]}
    assert by_key["pgd-100", 6.0]["mean Dice"] == pytest.approx(0.14)
    assert by_key["clean", 0.0]["all_parts"] == pytest.approx(0.75)
    clean = {one["class"]: one["mean Dice"] for one in ima["by_class"] if one["attack"] == "clean"}
    assert clean == pytest.approx({"head": 0.8, "<b>tail</b>": 0.6})


def test_a_network_without_attacks_or_classes_is_told_honestly(tmp_path: Path) -> None:
    write_sources(tmp_path / "bare.html", [source("IMA", results(left={}))])
    assert "No attack was run" in _verdict(tmp_path / "bare.html")
    found = results(left={})
    rows = [row for row in found.rows if row.more["pixels"] == 0]
    empty = Results.of(rows, found.settings.but(samples=None))
    for form in ("html", "json"):
        write_page(empty, tmp_path / f"empty.{form}", title="IMA")
    assert "no class occurs" in _verdict(tmp_path / "empty.html")
    (network,) = json.loads((tmp_path / "empty.json").read_text(encoding="utf-8"))["networks"]
    assert network["mean Dice"]["results"][0]["mean Dice"] is None


def test_pages_are_whole_and_tell_no_place_on_the_machine(pages: dict[str, Path]) -> None:
    for name in ("one", "many"):
        page = tree(pages[f"{name}.html"])
        assert not list(page.all("script")) and not list(page.all("b"))
        assert all(one.attributes["alt"] for one in page.all("img"))
        ids = [one.attributes["id"] for one in page.all() if "id" in one.attributes]
        assert len(ids) == len(set(ids))
        for figure in page.all("figure"):
            assert list(next(figure.all("details")).all("table"))
        for form in ("html", "md", "json"):
            text = pages[f"{name}.{form}"].read_text(encoding="utf-8")
            assert "jane" not in text and "imagesTs" in text


def test_the_same_files_give_the_same_bytes_without_torch(pages, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ima.report.html import write_report\n"
        "for name, out in zip(sys.argv[1::2], sys.argv[2::2]):\n"
        "    write_report([Path(name)], Path(out))\n"
        "import ima.report.comparison, ima.report.overlay_figure\n"
        "sys.exit(1 if 'torch' in sys.modules else 0)\n"
    )
    words = [str(w) for n in ("one", "many") for w in (pages[n], tmp_path / f"{n}.html")]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", script, *words]
    assert subprocess.run(command, env=environment, timeout=100).returncode == 0
    for name in ("one.html", "many.html"):
        assert (tmp_path / name).read_bytes() == pages[name].read_bytes()


def test_evaluations_are_found_where_nnunet_puts_them(tmp_path: Path) -> None:
    folder = three(tmp_path / "nnUNet_results" / "Dataset004_Hippocampus")
    for path in (folder, folder.parent, tmp_path):
        assert [entry.label for entry in read_entries([path])] == ["STD", "SAT5", "IMA"]
    inside = folder / "nnUNetTrainerIMA__nnUNetPlansB32__2d"
    file = inside / "fold_0" / "ima" / "results_nnunet.csv"
    for path in (inside, inside / "fold_0", file.parent, file):
        (found,) = map(read_source, find_sources(path))
        assert found.label == "IMA" and found.overlays and found.main == results()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(FileNotFoundError, match="ima evaluate --nnunet"):
        read_entries([tmp_path / "nothing"])


# --- What is refused ------------------------------------------------------------------------------


def _both(folder: Path) -> list[Path]:
    return [evaluated(folder / "a"), full(folder / "run")]


def _both_the_other_way(folder: Path) -> list[Path]:
    return list(reversed(_both(folder)))


def _in_one_folder(folder: Path) -> list[Path]:
    evaluated(folder / "all")
    full(folder / "all" / "run")
    return [folder / "all"]


def _truncated(folder: Path) -> list[Path]:
    made = evaluated(folder / "a")
    (made / "overlays.npz").write_bytes((made / "overlays.npz").read_bytes()[:300])
    return [made]


def _pickled(folder: Path) -> list[Path]:
    made = evaluated(folder / "a")
    found = {**arrays(), "case": np.array([{}] * 6, dtype=object)}
    np.savez(made / "overlays.npz", allow_pickle=True, **found)
    return [made]


def _other_shape(folder: Path) -> list[Path]:
    made = evaluated(folder / "a")
    np.savez(made / "overlays.npz", **{**arrays(), "truth": arrays()["truth"][:, :4]})
    return [made]


def _lacking(folder: Path) -> list[Path]:
    made = evaluated(folder / "a")
    np.savez(made / "overlays.npz", **{k: v for k, v in arrays().items() if k != "noisy"})
    return [made]


def _no_rows(folder: Path) -> list[Path]:
    made = evaluated(folder / "a")
    found = results()
    none = {name: column[:0] for name, column in found.columns.items()}
    Results(none, found.settings.but(samples=None)).to_csv(made / "results_nnunet.csv")
    return [made]


def _garbage(folder: Path) -> list[Path]:
    made = evaluated(folder / "a")
    (made / "results_nnunet.csv").write_bytes(b"\x00[:,\n1,x")
    return [made]


KINDS = "differ in their measure: .*; make a page for each"

REFUSED: dict[str, tuple[Callable[[Path], list[Path]], str]] = {
    "both kinds": (_both, KINDS),
    "both kinds, classification first": (
        _both_the_other_way,
        KINDS,
    ),
    "both kinds in one folder": (
        _in_one_folder,
        KINDS,
    ),
    "truncated": (_truncated, "overlays.npz is damaged"),
    "pickled": (_pickled, "overlays.npz is damaged"),
    "other shape": (_other_shape, "overlays.npz is damaged: truth"),
    "lacking": (_lacking, "overlays.npz lacks noisy"),
    "no rows": (_no_rows, "no clean pass"),
    "garbage": (_garbage, "results_nnunet.csv"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_page_is_refused_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    prepare, text = REFUSED[case]
    runs = prepare(tmp_path)
    with pytest.raises(ValueError, match=text):
        write_report(runs, tmp_path / "out" / "page.html")
    assert not (tmp_path / "out").exists()


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ima.cli import app

    made = evaluated(tmp_path / "trained")
    out = tmp_path / "deep" / "page.md"
    app(["report", str(made), "--out", str(out)], result_action="return_value")
    assert capsys.readouterr().out.strip() == str(out)
    assert "What noise breaks IMA" in out.read_text(encoding="utf-8")


def test_dice_that_nobody_knows_are_dashes() -> None:
    found = arrays()
    found["dice_noisy"][:] = NAN
    made = overlays_figure([("IMA", found)], norm="L2")
    assert made is not None
    assert "Dice –" in [one.get_text() for one in made[0].findobj(Text)]
