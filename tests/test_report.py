"""Tables and figures: what they show, that they show it legibly, and that they are repeatable."""

from __future__ import annotations

import csv
import io
import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from markdown_it import MarkdownIt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from ima.evaluation.results import Results
from ima.evaluation.settings import Settings
from ima.report import (
    Average,
    Table,
    figures,
    panels,
    strip,
    style,
    to_csv,
    to_latex,
    to_markdown,
    to_text,
    words,
)
from ima.report.inputs import Curve, ExampleRow, MarginHistory, Series

pytestmark = pytest.mark.filterwarnings("error")

NAN = float("nan")
NASTY = ["a|b", "50 % & more", "x_1*y_2*", r"back\slash", "<b>", "`code`", "[link](u)", "$5$ {~^#}"]


# Plausible material ------------------------------------------------------------------------------


def curve(label: str, clean: float, middle: float, eps: Any = None, std: float | None = 0.01):
    eps = np.linspace(0, 3, 13) if eps is None else np.asarray(eps, dtype=float)
    accuracy = clean / (1 + np.exp((eps - middle) / 0.4)) * (1 + np.exp(-middle / 0.4))
    return Curve(label, eps, accuracy, None if std is None else np.full(eps.shape, std))


def curves() -> list[Curve]:
    return [
        curve("IMA", 0.95, 2.3),
        curve("SAT ε = 3", 0.84, 2.6),
        curve("TRADES", 0.87, 1.7),
        curve("standard", 0.95, 0.5),
    ]


def crowd() -> list[Curve]:
    return [curve(f"method {number}", 0.9, 0.2 + 0.1 * number) for number in range(9)]


def history(epochs: int = 40, bins: int = 30) -> MarginHistory:
    rng = np.random.default_rng(0)
    final = rng.gamma(3, 0.5, 2000)
    edges = np.linspace(0, 3, bins + 1)
    counts = [
        np.histogram(np.minimum(final, min(0.1 * epoch, 3.0)), edges)[0]
        for epoch in range(1, epochs + 1)
    ]
    return MarginHistory(edges, np.arange(1, epochs + 1), np.array(counts))


def rows(clean: Any, *labels: str, names: tuple[str, str] = ("seven", "three")) -> list[ExampleRow]:
    rng = np.random.default_rng(1)
    made: list[ExampleRow] = []
    for number, label in enumerate(labels):
        noise = rng.normal(size=clean.shape)
        noisy = (clean + 0.6 * noise / np.linalg.norm(noise)).clip(0, 1)
        made.append(ExampleRow(label, 0.6, noisy, names[0], names[number % 2]))
    return made


def lines(values: list[float]) -> list[Series]:
    x = np.array(values, dtype=float)
    levels = {"clean": 0.95, "at 0.5": 0.7, "at 1.25": 0.4, "geometric mean": 0.6}
    return [
        Series(name, x, top - 0.05 * np.linspace(0, 1, x.size), np.full(x.size, 0.02))
        for name, top in levels.items()
    ]


DIGIT = np.linspace(0, 1, 64).reshape(8, 8)
SCAN = np.linspace(0, 1, 224 * 224).reshape(224, 224)
COLOUR = np.linspace(0, 1, 32 * 48 * 3).reshape(32, 48, 3)


def examples(clean: Any, truth: str, made: Any, *, norm: str) -> Figure:
    return figures.story(clean, truth, made, curves(), attack="PGD-100", norm=norm)


FIGURES: dict[str, Callable[[], Figure]] = {
    "curves": lambda: figures.quality_over_noise(
        curves(), attack="PGD-100", norm="L2", levels=(1, 2, 3)
    ),
    "crowd": lambda: figures.quality_over_noise(
        crowd(), attack="AutoAttack", norm="Linf", levels=(0.1, 0.3, 0.5)
    ),
    "one-curve": lambda: figures.quality_over_noise(
        [curve("IMA", 0.9, 2, eps=[0, 0.002])], attack="a", norm="inf", levels=[0.001]
    ),
    "dense": lambda: figures.quality_over_noise(
        [curve("IMA", 0.9, 2, np.linspace(0, 3, 61), None)], attack="a", norm="2", levels=(1, 1.01)
    ),
    "margins": lambda: figures.margins_by_epoch(history(), cap=3.0, norm="L2"),
    "margins-tiny": lambda: figures.margins_by_epoch(
        MarginHistory([0, 0.001, 0.002], [7], [[5, 3]]), cap=0.0015, norm="Linf"
    ),
    "digits": lambda: examples(DIGIT, "seven", rows(DIGIT, "IMA", "standard"), norm="L2"),
    "long-names": lambda: examples(
        DIGIT,
        "common pneumonia",
        rows(
            DIGIT, "IMA", "SAT with early stop", names=("common pneumonia", "no pneumonia at all")
        ),
        norm="L2",
    ),
    "colour": lambda: examples(COLOUR, "frog", rows(COLOUR, "IMA"), norm="L2"),
    "story": lambda: figures.story(
        DIGIT, "seven", rows(DIGIT, "standard", "IMA"), curves(), attack="PGD-100", norm="L2"
    ),
    "story-scan": lambda: figures.story(
        SCAN,
        "COVID-19",
        rows(SCAN, "a", "b", "c", "d", names=("COVID-19", "non-COVID-19")),
        crowd(),
        attack="PGD-100",
        norm="L2",
        levels=(0.1, 0.3, 0.5),
    ),
}
FIGURES |= {
    "sweep with a level": lambda: figures.quality_over_option(
        {"IMA": [replace(one, level=0.4) for one in lines([1, 2, 3, 4])]},
        option="delta",
        attack="PGD-100",
        norm="L2",
        level="IMA, nothing set",
    ),
    "sweep": lambda: figures.quality_over_option(
        {"IMA": lines([1, 2, 3, 4])}, option="delta", attack="PGD-100", norm="L2"
    ),
    "sweeps": lambda: figures.quality_over_option(
        {
            name: lines(values)
            for name, values in {
                "IMA": [0.5, 1, 2, 3, 5],
                "SAT, a long name that says much": [0.5, 0.6, 0.7, 0.8],
                "TRADES": [0.01, 0.02, 0.05, 0.1, 1],
                "MMA": list(range(1, 13)),
                "FAT": [1, 3],
            }.items()
        },
        option="eps",
        attack="AutoAttack",
        norm="Linf",
    ),
}
every_figure = pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES.keys())


def drawn_texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Every text that reaches the canvas, with its bounding box in pixels."""
    seen: list[tuple[str, Any]] = []
    draw = Text.draw

    def record(self: Text, renderer: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            seen.append((self.get_text(), self.get_window_extent(renderer)))
        draw(self, renderer)

    monkeypatch.setattr(Text, "draw", record)
    FigureCanvasAgg(figure).draw()
    return seen


# Figures -----------------------------------------------------------------------------------------


@every_figure
def test_text_is_neither_clipped_nor_overlapping(
    make: Callable[[], Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = make()
    seen = drawn_texts(figure, monkeypatch)
    wide, high = figure.bbox.width, figure.bbox.height
    for text, box in seen:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= wide and box.y1 <= high, f"{text} clipped"
    for (one, a), (other, b) in itertools.combinations(seen, 2):
        # A pixel of the boxes is rounding; line boxes also hold room for descenders.
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across <= 1 or down <= 1, f"{one!r} and {other!r} overlap"


@every_figure
@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_same_input_gives_same_bytes_whatever_the_user_has_set(
    make: Callable[[], Figure], suffix: str, tmp_path: Path
) -> None:
    figures.save(make(), tmp_path / f"a{suffix}")
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "savefig.bbox": "tight"}):
        before = dict(matplotlib.rcParams)
        figures.save(make(), tmp_path / f"b{suffix}")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_svg_keeps_text_as_text_also_where_it_looks_like_markup(tmp_path: Path) -> None:
    nasty = [curve(text, 0.9, 0.2 + number / 3) for number, text in enumerate(NASTY)]
    figures.save(
        figures.quality_over_noise(nasty, attack="<x> & $y$", norm="L2"), tmp_path / "a.svg"
    )
    found = {"".join(node.itertext()).strip() for node in ET.parse(tmp_path / "a.svg").iter()}
    assert {*NASTY, "Accuracy under <x> & $y$"} <= found


def test_save_refuses_other_suffixes_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    figure = FIGURES["one-curve"]()
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        figures.save(figure, tmp_path / "a.jpeg")
    target = tmp_path / "a.png"
    target.write_text("old")

    class Broken(Figure):
        def savefig(self, fname: Any, **_: Any) -> None:
            Path(fname).write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        figures.save(Broken(), target)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    figures.save(figure, tmp_path / "new" / "a.svg")
    assert (tmp_path / "new" / "a.svg").exists()


def test_labels_stand_at_the_line_ends_and_else_in_a_legend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    apart = FIGURES["curves"]()
    (axes,) = apart.axes
    assert axes.get_legend() is None
    boxes = dict(drawn_texts(apart, monkeypatch))
    for one in curves():
        at = axes.transData.transform((3.0, 100 * one.accuracy[-1]))[1]
        box = boxes[one.label]
        assert box.x0 > axes.bbox.x1 and abs((box.y0 + box.y1) / 2 - at) < 15

    early = [*curves()[:2], curve("ends early", 0.9, 1.0, [0, 1, 2])]
    unmeasured = [*curves()[:2], Curve("gap at the end", [0, 1, 3], [0.9, 0.5, NAN])]
    for collide in (crowd(), early, unmeasured):
        (axes,) = figures.quality_over_noise(collide, attack="a", norm="2").axes
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        known = {one.label: one.accuracy[np.isfinite(one.accuracy)][-1] for one in collide}
        assert texts == sorted(known, key=lambda label: -known[label])


def test_curves_start_at_clean_in_percent_and_the_band_stays_within_0_and_100() -> None:
    edge = Curve("x", [0, 1, 2], [0.99, NAN, 0.01], [0.05, 0.1, NAN])
    (axes,) = figures.quality_over_noise([edge], attack="a", norm="L2", levels=[1, 9]).axes
    line = next(line for line in axes.get_lines() if line.get_label() == "x")
    assert line.get_xdata()[0] == 0 and axes.xaxis.get_major_formatter()(0.0, 0) == "clean"
    np.testing.assert_allclose(line.get_ydata(), [99, NAN, 1])
    (band,) = axes.collections
    points = np.concatenate([path.vertices for path in band.get_paths()])
    assert points[:, 1].min() >= 0 and points[:, 1].max() <= 100
    upright = [line for line in axes.get_lines() if len(set(line.get_xdata())) == 1]
    assert [line.get_xdata()[0] for line in upright] == [1]  # 9 lies beyond the curves


def test_a_panel_a_method_with_a_line_a_noise_radius_in_percent() -> None:
    figure = FIGURES["sweeps"]()
    assert len(figure.axes) == 5
    for axes, first in zip(figure.axes, (0.5, 0.5, 0.01, 1, 1), strict=True):
        drawn = {str(line.get_label()): line for line in axes.get_lines()}
        assert list(drawn) == ["clean", "at 0.5", "at 1.25", "geometric mean"]
        assert drawn["clean"].get_xdata()[0] == first
        assert drawn["clean"].get_ydata()[[0, -1]].tolist() == pytest.approx([95, 90])
        assert axes.get_ylim() == (0, 102)
    # Values that span two decades stand on a logarithmic axis.
    assert [axes.get_xscale() for axes in figure.axes] == ["linear"] * 2 + ["log"] + ["linear"] * 2
    assert "Δε" in FIGURES["sweep"]().axes[0].get_xlabel()
    with pytest.raises(ValueError, match="increasing"):
        Series("a", [1, 1], [0.5, 0.5])
    with pytest.raises(ValueError, match="shares"):
        Series("a", [1, 2], [0.5, 50])
    with pytest.raises(ValueError, match="empty"):
        figures.quality_over_option({}, option="eps", attack="a", norm="L2")


def test_lines_differ_without_colour() -> None:
    (axes,) = figures.quality_over_noise(
        [curve(str(number), 0.9, 1) for number in range(36)], attack="a", norm="2"
    ).axes
    looks = {(line.get_marker(), str(line._dash_pattern)) for line in axes.get_lines()}
    assert len(looks) == 36


def linear(colour: str) -> Any:
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(linear(colour) @ (0.2126, 0.7152, 0.0722))


# Machado, Oliveira and Fernandes (2009), full severity, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "no red cones": np.array(
        [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]
    ),
    "no green cones": np.array(
        [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9690]]
    ),
}
XYZ = np.array([[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8728]])


@pytest.mark.parametrize("matrix", VISION.values(), ids=VISION.keys())
def test_colours_differ_for_colour_blind_readers(matrix: Any) -> None:
    def lab(colour: str) -> Any:
        x, y, z = np.cbrt(XYZ @ (matrix @ linear(colour)).clip(0, 1))
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    for pairs in (itertools.combinations(style.COLOURS, 2), [(style.RIGHT, style.WRONG)]):
        assert min(np.linalg.norm(lab(one) - lab(other)) for one, other in pairs) > 14


def test_colours_can_be_read_on_white_and_shades_in_gray() -> None:
    contrast = {c: 1.05 / (luminance(c) + 0.05) for c in (*style.COLOURS, style.RIGHT, style.WRONG)}
    assert min(contrast.values()) > 3 and min(contrast[style.RIGHT], contrast[style.WRONG]) > 4.5
    lightness = [116 * luminance(shade) ** (1 / 3) - 16 for shade in panels.SHADES]
    assert np.diff(lightness).max() < -10  # seen as steps; from 0 to 100, 1 is just visible


def test_spread_keeps_distance_order_and_place() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        wanted = rng.uniform(0, 3, rng.integers(1, 12))
        places = style.spread(wanted, 0.2, 3.0)
        assert places is not None
        assert np.all(np.diff(np.sort(places)) > 0.2 - 1e-9)
        assert places.min() >= 0 and places.max() <= 3 + 1e-9
        assert np.array_equal(np.argsort(places), np.argsort(wanted))
        if wanted.size == 1 or np.diff(np.sort(wanted)).min() > 0.2:
            np.testing.assert_allclose(places, wanted)
    assert style.spread(np.zeros(20), 0.2, 3.0) is None


def test_round_numbers() -> None:
    for value, down, up in [(0.5, 0.5, 0.5), (7, 5, 10), (0.019, 0.01, 0.02), (40, 20, 50)]:
        assert style.round_down(value) == pytest.approx(down)
        assert style.round_up(value) == pytest.approx(up)


def test_shares_and_medians_of_margins() -> None:
    margins = np.random.default_rng(0).gamma(3, 0.5, 5001).clip(0, 3)
    edges = np.linspace(0, 3, 301)
    counts = np.stack([np.histogram(margins, edges)[0], np.zeros(300), np.eye(300)[-1]])
    held = MarginHistory(edges, [1, 5, 6], counts)
    np.testing.assert_allclose(held.shares().sum(axis=1), [1, NAN, 1])
    np.testing.assert_allclose(held.medians(), [np.median(margins), NAN, 2.995], atol=0.01)
    recorded = MarginHistory(edges, [1, 5, 6], counts, [0.25, 0.5, NAN])
    np.testing.assert_allclose(recorded.medians(), [0.25, NAN, 2.995], atol=0.01)
    empty_end = MarginHistory(edges, [1, 5], counts[:2])
    assert empty_end.last() == 0
    heat, bars, _ = figures.margins_by_epoch(empty_end, cap=3, norm="L2").axes
    shown = np.ma.masked_invalid(heat.collections[0].get_array())
    assert shown[:, 0].sum() == pytest.approx(100) and shown[:, 1].mask.all()
    assert bars.texts[0].get_text() == "epoch 1"
    assert {line.get_ydata()[0] for line in bars.get_lines()} >= {3, held.medians()[0]}


@pytest.mark.parametrize(("clean", "squares"), [(DIGIT, True), (SCAN, False), (COLOUR, True)])
def test_examples_show_the_images_and_what_the_methods_see(clean: Any, squares: bool) -> None:
    made = rows(clean, "IMA", "standard")
    figure = examples(clean, "seven", made, norm="linf")
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert {image.get_interpolation() == "nearest" for image in images} == {squares}
    factor = strip.noise_factor([row.noisy - clean for row in made])
    for row, (first, noise, noisy) in zip(
        made, zip(images[::3], images[1::3], images[2::3], strict=True), strict=True
    ):
        np.testing.assert_allclose(first.get_array(), clean)
        np.testing.assert_allclose(noisy.get_array(), row.noisy)
        scaled = (0.5 + factor * (row.noisy - clean)).clip(0, 1)
        np.testing.assert_allclose(noise.get_array(), scaled)
    texts = [text.get_text() for text in figure.subfigs[0].texts]
    assert f"noise × {factor:g}" in texts and "ε = 0.6 (L∞)" in texts
    assert texts.count("✓ seven") == 3 and texts.count("✗ three") == 1


def test_noise_factor_is_round_and_uses_the_gray_scale() -> None:
    noise = np.random.default_rng(0).normal(size=(50, 50)) * 0.003
    assert strip.noise_factor([noise]) == 50
    single = np.zeros((50, 50))
    single[3, 4] = 0.4
    assert strip.noise_factor([single]) == 1
    assert strip.noise_factor([np.zeros((2, 2))]) == 1


REFUSED: list[tuple[str, Callable[[], object]]] = [
    ("increasing from 0", lambda: Curve("x", [1, 2], [0.5, 0.5])),
    ("increasing from 0", lambda: Curve("x", [0, 2, 2], [0.5, 0.5, 0.5])),
    ("increasing from 0", lambda: Curve("x", [0, NAN], [0.5, 0.5])),
    ("increasing from 0", lambda: Curve("x", [0], [0.5])),
    ("1 accuracies for 2 eps", lambda: Curve("x", [0, 1], [0.5])),
    ("divide percentages", lambda: Curve("x", [0, 1], [95, 40])),
    ("no measured accuracy", lambda: Curve("x", [0, 1], [NAN, NAN])),
    ("3 std for 2 eps", lambda: Curve("x", [0, 1], [0.5, 0.5], [0, 0, 0])),
    ("one dimension", lambda: Curve("x", [[0, 1]], [0.5, 0.5])),
    ("curves is empty", lambda: figures.quality_over_noise([], attack="a", norm="2")),
    ("distinct labels", lambda: figures.quality_over_noise([*curves()] * 2, attack="", norm="2")),
    (
        "levels holds -1",
        lambda: figures.quality_over_noise(curves(), attack="a", norm="2", levels=[-1]),
    ),
    (r"expected \(epochs, edges - 1\)", lambda: MarginHistory([0, 1, 2], [1], [[1, 2, 3]])),
    (r"expected \(epochs, edges - 1\)", lambda: MarginHistory([], [], [])),
    ("increasing numbers", lambda: MarginHistory([0, 2, 1], [1], [[1, 2]])),
    ("negative or non-finite", lambda: MarginHistory([0, 1, 2], [1], [[1, -2]])),
    ("no margin to show", lambda: MarginHistory([0, 1, 2], [1], [[0, 0]])),
    ("2 values for 1 epochs", lambda: MarginHistory([0, 1, 2], [1], [[1, 0]], [0.5, 0.5])),
    ("cap is nan", lambda: figures.margins_by_epoch(history(), cap=NAN, norm="2")),
    ("rows is empty", lambda: examples(DIGIT, "seven", [], norm="2")),
    ("must agree", lambda: examples(SCAN, "seven", rows(DIGIT, "IMA"), norm="2")),
    ("move channels", lambda: examples(COLOUR.T, "x", rows(DIGIT, "IMA"), norm="2")),
    ("0 to 1", lambda: examples(255 * DIGIT, "x", rows(DIGIT, "IMA"), norm="2")),
    ("0 to 1", lambda: ExampleRow("x", 1.0, np.full((2, 2), NAN), "a", "b")),
    ("above 0", lambda: ExampleRow("x", 0.0, DIGIT, "a", "b")),
    ("divide percentages", lambda: Average(91.2)),
    ("Average.std", lambda: Average(0.9, -0.1, 3)),
    ("Average.n", lambda: Average(0.9, None, 0)),
    ("columns is empty", lambda: Table((), (("a",),), "")),
    ("rows is empty", lambda: Table(("a",), (), "")),
    ("more than once", lambda: Table(("a", "b", "b"), (("x", "y", "z"),), "")),
    ("has 1 cells, expected 2", lambda: Table(("a", "b"), (("x",),), "")),
    ("expected a label", lambda: Table(("a",), ((Average(0.5),),), "")),
]


@pytest.mark.parametrize(("message", "make"), REFUSED)
def test_wrong_input_is_refused_with_a_reason(message: str, make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# Tables ------------------------------------------------------------------------------------------


def table() -> Table:
    return Table(
        ("Method", "clean", "ε = 1"),
        (
            ("IMA", Average(0.9471, 0.004, 3), Average(0.8114, 0.0123, 3)),
            ("SAT", Average(0.9468, 0.001, 3), Average(0.0, 0.0, 3)),
            ("TRADES", Average(0.871), Average(NAN)),
        ),
        "Accuracy under PGD-100.",
    )


def test_text_table_is_aligned_at_the_decimal_points() -> None:
    assert to_text(table()).splitlines() == [
        "Accuracy under PGD-100. Percent, mean ± standard deviation over 1 to 3 seeds; – not",
        "measured.",
        "",
        "Method       clean       ε = 1",
        "------------------------------",
        "IMA     94.7 ± 0.4  81.1 ± 1.2",
        "SAT     94.7 ± 0.1   0.0 ± 0.0",
        "TRADES  87.1           –",
    ]


def test_best_is_the_highest_shown_value_of_a_column() -> None:
    assert table().best() == {(0, 2)}  # 94.71 and 94.68 both show as 94.7: no one is best
    alone = (("a", Average(0.5), Average(NAN), "x"), ("b", Average(0.5), Average(0.1), "y"))
    assert not Table(("m", "tie", "single", "text"), alone, "").best()


def test_absent_is_a_dash_and_never_zero() -> None:
    absent = Table(("m", "a"), (("x", Average(NAN, 0.1, 3)), ("y", Average(NAN, n=0))), "")
    for text in (to_text(absent), to_markdown(absent), to_latex(absent).replace("--", "–")):
        assert "0.0" not in text and "nan" not in text.lower() and text.count("–") >= 2
    assert to_csv(absent) == "m,a mean,a std\nx,,\ny,,\n"


def nasty_table() -> Table:
    body = tuple((text, Average(number / 9)) for number, text in enumerate(NASTY))
    return Table((NASTY[0], NASTY[2]), body, " ".join(NASTY))


def markdown_cells(text: str) -> Iterator[str]:
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "inline":
            assert not {child.type for child in token.children or ()} & {"html_inline", "link_open"}
            yield "".join(child.content for child in token.children or ())


def test_markdown_shows_every_character_and_the_best_in_bold() -> None:
    caption, *cells = markdown_cells(to_markdown(nasty_table()))
    assert caption == " ".join(NASTY) + " Percent."
    assert cells[::2] == [NASTY[0], *NASTY] and cells[1] == NASTY[2]
    assert to_markdown(table()).count("**") == 2 and "**81.1 ± 1.2**" in to_markdown(table())


def test_latex_is_escaped_and_has_booktabs_rules() -> None:
    latex = to_latex(nasty_table())
    for rule in ("toprule", "midrule", "bottomrule"):
        assert latex.count(rf"\{rule}") == 1
    body = latex.split(r"\midrule")[1].split(r"\bottomrule")[0].strip()
    lines = [line.strip() for line in body.splitlines()]
    assert len(lines) == len(NASTY) and all(line.endswith(r"\\") for line in lines)
    for line in lines:
        assert len(re.findall(r"(?<!\\)&", line)) == 1
        assert not re.search(r"(?<!\\)[%$#_]|^[\[*]|[<>|]", line)
        assert line.count("{") == line.count("}")
    assert r"\textbf{81.1 $\pm$ 1.2}" in to_latex(table()) and r"$\varepsilon$ = 1" in to_latex(
        table()
    )


def test_latex_has_intervals_and_no_bold_ties() -> None:
    def cell(mean: float, small: str = "80.1 to 85.2") -> Average:
        return Average(mean, small=small)

    rows = (("A", cell(0.83), cell(0.5)), ("B", cell(0.83), cell(0.4, "")))
    latex = to_latex(Table(("m", "x", "y"), rows, "Shares."))
    first, second = re.findall(r"^    ([AB] .*)$", latex, re.MULTILINE)
    assert first.split("&")[1].strip() == r"83.0 {\scriptsize (80.1 to 85.2)}"
    assert r"\textbf{50.0} {\scriptsize (80.1 to 85.2)}" in first
    assert "textbf" not in second and second.endswith(r"40.0 \\")
    assert r"In parentheses: 95\,\% intervals." in latex
    assert "parentheses" not in to_latex(table())


def test_csv_holds_plain_fractions() -> None:
    read = list(csv.DictReader(io.StringIO(to_csv(table()))))
    assert [float(row["clean mean"]) for row in read] == [0.9471, 0.9468, 0.871]
    assert [row["ε = 1 std"] for row in read] == ["0.0123", "0.0", ""]
    assert read[2]["ε = 1 mean"] == ""
    names = [row[NASTY[0]] for row in csv.DictReader(io.StringIO(to_csv(nasty_table())))]
    assert names == NASTY


def test_note_says_what_the_numbers_are() -> None:
    assert Table(("m", "a"), (("x", "text"),), "").note() == ""
    assert Table(("m", "a"), (("x", Average(0.5)),), "").note() == "Percent."
    several = Table(("m", "a"), (("x", Average(0.5, 0.1, 3)),), "")
    assert several.note() == "Percent, mean ± standard deviation over 3 seeds."


# Imports -----------------------------------------------------------------------------------------


def test_reporting_loads_no_torch_and_tables_no_matplotlib() -> None:
    code = (
        "import sys, ima.report; assert 'matplotlib' not in sys.modules;"
        "import ima.report.figures; assert 'torch' not in sys.modules;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)


def test_an_evaluation_says_of_which_epoch_it_is_and_what_picked_it() -> None:
    told = Settings(epoch="7 of 30", picked="clean accuracy")
    assert (
        words.epoch_told(Results.of([], told))
        == "Epoch 7 of 30, picked on validation by clean accuracy."
    )
    # Results of last weights, and of runs from before there were two rules.
    assert not words.epoch_told(Results.of([], Settings(seed=0)))
