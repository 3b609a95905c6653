"""Results: what follows from the rows, by hand; and files of the version before."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_hand import sign

from ima.evaluation.checks_results import Checks
from ima.evaluation.distances import Distances
from ima.evaluation.estimates import Estimates
from ima.evaluation.results import CLEAN, KINDS, WORST, Results, Row
from ima.evaluation.settings import Settings, check_same_evaluation
from ima.evaluation.statistics import mean_interval, wilson
from ima.measures import ACCURACY, DICE, Measure

NAN = math.nan
OLD = Path(__file__).parent / "earlier"

FINDINGS = Measure(
    "share of right findings",
    "Right findings",
    threshold=1.0,
    binary=False,
    over="parts",
    part="finding",
    column="right_",
)
"""Of a task that is none of the library's."""


def results(
    each: Mapping[tuple[str, float, str], Sequence[float]],
    more: Sequence[Mapping[str, Any]],
    cases: Sequence[str] = (),
    **settings: Any,
) -> Results:
    """By attack, radius and kind the qualities of all samples; more: of each sample."""
    rows = [
        Row(i, attack, eps, quality, kind=kind, case=cases[i] if cases else "", more=more[i])
        for (attack, eps, kind), qualities in each.items()
        for i, quality in enumerate(qualities)
    ]
    return Results.of(rows, Settings(**{"norm": "L2", **settings}))


def labelled(**settings: Any) -> Results:
    """Five samples of three classes, of which two have names."""
    labels = [0, 0, 1, 1, 2]
    return results(
        {
            (CLEAN, 0.0, "clean"): [1, 1, 1, 0, 1],
            ("white-1", 0.05, "white"): [1, 0, 1, 0, 1],
            ("white-9", 0.05, "white"): [0, 0, 1, 0, 1],
            ("pgd-3", 0.1, "chosen"): [1, 0, 1, 0, 1],
            ("pgd-3", 0.2, "chosen"): [0, 0, 1, 0, 0],
            ("noise-2", 0.1, "drawn"): [1, 1, 1, 0, 0],
            ("noise-2", 0.2, "drawn"): [1, 1, 0, 0, 0],
            (WORST, 0.1, "worst"): [1, 0, 1, 0, 0],
            (WORST, 0.2, "worst"): [0, 0, 0, 0, 0],
        },
        [{"label": y, "prediction": y} for y in labels],
        **{"classes": ("no", "yes"), **settings},
    )


def parted(measure: Measure, **settings: Any) -> Results:
    """Four samples with two parts, which do not count everywhere."""
    parts = [(0.5, 1.0), (1.0, NAN), (0.0, 0.5), (NAN, NAN)]
    quality = [0.75, 1.0, 0.25, 1.0]
    names = ("left", "b, c")
    more = [
        {"present": sum(not math.isnan(p) for p in each)}
        | {measure.column + name: p for name, p in zip(names, each, strict=True)}
        for each in parts
    ]
    each = {(CLEAN, 0.0, "clean"): quality, ("pgd-3", 0.1, "chosen"): quality}
    return results(each, more, measure=measure, classes=names, **settings)


# --- Attacks, radii, kinds ------------------------------------------------------------------------


def test_attacks_are_told_apart_by_their_kind() -> None:
    found = labelled()
    assert found.attacks == ("pgd-3", "noise-2", WORST)
    assert found.white == ("white-1", "white-9")
    assert found.eps == (0.1, 0.2)
    names = (CLEAN, "pgd-3", "noise-2", "white-1", WORST)
    assert tuple(map(found.kind, names)) == KINDS
    assert found.kind("nothing of the sort") == ""
    assert [found.amplitude(name) for name in found.white] == [0.05, 0.05]
    assert found.keys[:2] == ((CLEAN, 0.0), ("white-1", 0.05)) and len(found.keys) == 9
    assert (len(found), len(found.rows)) == (45, 45)


def test_the_kind_of_a_worst_case_of_draws_is_drawn() -> None:
    each = {(CLEAN, 0.0, "clean"): [1.0], (WORST, 0.1, "drawn"): [1.0]}
    found = results(each, [{"label": 0, "prediction": 0}])
    assert (found.kind(WORST), found.attacks) == ("drawn", (WORST,))


def test_rows_of_an_attack_are_found_by_its_radius() -> None:
    found = labelled()
    assert found.columns["id"][found.at()].tolist() == [0, 1, 2, 3, 4]
    # Files and arguments round; clean samples have no radius.
    for eps in (0.1, 0.1 + 1e-9, np.float32(0.1)):
        assert found.of_attack("pgd-3", float(eps))["quality"].tolist() == [1, 0, 1, 0, 1]
    assert found.at(CLEAN, 7.0).tolist() == found.at().tolist()
    assert len(found.at("pgd-3", None)) == 10
    assert len(found.at("pgd-3", 0.15)) == len(found.at("pgd-4", 0.1)) == 0
    assert found.broken("pgd-3", 0.2) == {0: True, 1: True, 2: False, 3: True, 4: True}
    row = found.rows[found.at("noise-2", 0.2)[2]]
    assert (row.id, row.attack, row.eps, row.kind, row.broken) == (2, "noise-2", 0.2, "drawn", True)
    assert row.more == {"label": 1, "prediction": 1}


def test_white_noise_flips_what_is_right_without_it() -> None:
    found = labelled()
    assert found.columns["id"][found.flips("white-1")].tolist() == [0, 1, 2, 4]
    flipped = [int(found.broken_rows[found.flips(name)].sum()) for name in found.white]
    assert flipped == [1, 2]


# --- Means, by hand -------------------------------------------------------------------------------


def test_the_means_of_labels() -> None:
    found = labelled()
    assert (found.mean(), found.accuracy()) == (0.8, 0.8)
    assert (found.mean("pgd-3", 0.2), found.accuracy(WORST, 0.2)) == (0.2, 0.0)
    assert math.isnan(found.mean("pgd-4", 0.1)) and math.isnan(found.accuracy("pgd-4", 0.1))
    # The class without a name is called by its number.
    assert found.classes == ("no", "yes", "class 2")
    assert found.per_class() == (1.0, 0.5, 1.0)
    assert found.per_class("pgd-3", 0.1) == (0.5, 0.5, 1.0)
    assert found.counts() == found.counts(WORST, 0.2) == (2, 2, 1)
    parts = found.parts(found.at("pgd-3", 0.1))
    np.testing.assert_array_equal(
        parts, [[1, NAN, NAN], [0, NAN, NAN], [NAN, 1, NAN], [NAN, 0, NAN], [NAN, NAN, 1]]
    )
    np.testing.assert_array_equal(found.matrix(), [[1], [1], [1], [0], [1]])
    assert labelled(classes=()).classes == ("class 0", "class 1", "class 2")
    assert labelled(classes=tuple("abcd")).classes == tuple("abcd")


def test_labels_that_are_no_classes_have_none() -> None:
    each = {(CLEAN, 0.0, "clean"): [1.0, 0.0]}
    for labels in ([0.5, 1.5], [[1, 0], [0, 1]], [{"a": 1}, {"a": 2}]):
        found = results(each, [{"label": y, "prediction": y} for y in labels])
        assert (found.classes, found.per_class(), found.counts()) == ((), (), ())
        assert (found.mean(), found.accuracy()) == (0.5, 0.5)
        assert found.parts(found.at()).shape == (2, 0) and math.isnan(found.adi())


@pytest.mark.parametrize("measure", [DICE, FINDINGS], ids=["masks", "findings"])
def test_the_means_of_parts(measure: Measure) -> None:
    found = parted(measure)
    assert found.classes == ("left", "b, c")
    assert found.per_class() == pytest.approx((0.5, 0.75))
    assert found.counts("pgd-3", 0.1) == (3, 2)
    # First over samples, then over parts.
    assert found.mean() == found.adi() == pytest.approx(0.625)
    # Over samples with every part: (0.5 + 0) / 2 and (1 + 0.5) / 2.
    assert found.adi_all_classes() == pytest.approx((0.25 + 0.75) / 2)
    # Below 0.6: one sample; below 1: two.
    assert found.accuracy() == {"mean Dice": 0.75, FINDINGS.name: 0.5}[measure.name]
    assert found.broken_rows[found.at()].tolist() == [measure is FINDINGS, False, True, False]
    assert str(found).startswith(f"{measure.title} of 4 samples, noise in L2\n")
    assert measure.said(0.625).replace("\u00a0", " ") in str(found)


def test_a_part_that_counts_nowhere_has_no_mean() -> None:
    each = {(CLEAN, 0.0, "clean"): [1.0, 0.5]}
    more = [{"dice_a": NAN, "dice_b": 1.0}, {"dice_a": NAN, "dice_b": 0.5}]
    found = results(each, more, measure=DICE, classes=("a", "b"))
    assert math.isnan(found.per_class()[0]) and found.per_class()[1] == found.mean() == 0.75
    assert found.counts() == (0, 2)
    none = results({(CLEAN, 0.0, "clean"): [1.0]}, more[:1], measure=DICE, classes=("a",))
    assert math.isnan(none.mean()) and all(map(math.isnan, none.interval()))


# --- Intervals ------------------------------------------------------------------------------------


def test_the_interval_of_a_share_is_wilsons() -> None:
    found = labelled()
    assert found.interval() == pytest.approx(wilson(0.8, 5))
    assert found.interval(WORST, 0.2) == pytest.approx(wilson(0.0, 5))
    assert all(map(math.isnan, found.interval("pgd-4", 0.1)))
    each = {(CLEAN, 0.0, "clean"): [1, 1, 0, 0]}
    more = [{"label": 0, "prediction": 0}] * 4
    # By hand as in `effective`: two cases, residuals 1 and -1, are worth one sample.
    cases = results(each, more, ["a", "a", "b", "b"])
    assert cases.cases == ("a", "b")
    assert cases.interval() == pytest.approx(wilson(0.5, 1))
    # One that nobody named, and nothing is known.
    some = results(each, more, ["a", "a", "b", ""])
    assert some.cases == ()
    assert some.interval() == pytest.approx(wilson(0.5, 4))


@pytest.mark.parametrize("measure", [DICE, FINDINGS], ids=["masks", "findings"])
def test_the_interval_of_other_means_is_from_how_samples_differ(measure: Measure) -> None:
    found = parted(measure)
    matrix = found.matrix()
    expected = mean_interval(matrix, np.array(["0", "1", "2", "3"]))
    assert found.interval() == pytest.approx(expected)
    # By hand: residuals (value - mean of the part) / its count, the mean over both parts.
    each = [(0.0 / 3 + 0.25 / 2) / 2, (0.5 / 3) / 2, (-0.5 / 3 - 0.25 / 2) / 2, 0.0]
    error = math.sqrt(4 / 3 * sum(one * one for one in each))
    assert expected == pytest.approx((0.625 - 1.96 * error, min(1, 0.625 + 1.96 * error)))


# --- What is left of nothing, and what is equal ---------------------------------------------------


def test_results_without_rows_say_nothing() -> None:
    empty = Results.of([], Settings(norm="L2"))
    assert (len(empty), empty.rows, empty.attacks, empty.white, empty.eps) == (0, (), (), (), ())
    assert (empty.classes, empty.cases, empty.keys) == ((), (), ())
    assert all(map(math.isnan, (empty.mean(), empty.accuracy(), empty.adi(), *empty.interval())))


def test_results_are_equal_where_their_rows_are() -> None:
    assert labelled() == labelled(seed=3)
    assert labelled() != labelled(norm="Linf")
    rows = labelled().rows
    other = Results.of([replace(rows[0], size=0.5), *rows[1:]], labelled().settings)
    assert labelled() != other and labelled() != 3
    assert parted(DICE) != parted(FINDINGS)


@pytest.mark.parametrize("found", [labelled(), parted(DICE), parted(FINDINGS)])
def test_results_survive_their_file(found: Results, tmp_path: Path) -> None:
    found.to_csv(tmp_path / "r.csv")
    again = Results.from_csv(tmp_path / "r.csv")
    assert again == found and again.settings == found.settings
    assert repr(again.rows) == repr(found.rows)
    assert again.columns.keys() == found.columns.keys()
    assert [c.dtype.kind for c in again.columns.values()] == [
        c.dtype.kind for c in found.columns.values()
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0.75,,", "1.75,,", "a quality is not between 0 and 1"),
        ("0.75,,", ",,", "a quality is not between 0 and 1"),
        ("0.75,,", "0.75,-0.5,", "a size of noise is below 0"),
        (",clean,2,", ",neat,2,", "a kind of noise is 'neat'; expected one of clean, chosen"),
        (",2,0.5,1.0\n", ",2,0.5,1.5\n", "a dice_b, c is not between 0 and 1"),
        ("0,clean", "1,clean", "sample stands twice under the clean pass"),
        ("3,pgd-3", "4,pgd-3", "not under pgd-3 at 0.1"),
    ],
)
def test_rows_that_no_evaluation_gives_are_refused(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.csv"
    parted(DICE).to_csv(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    sign(path)
    with pytest.raises(
        ValueError, match=rf"r\.csv is damaged \(.*{words}.*evaluate the model again"
    ):
        Results.from_csv(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"quality": "float"', '"quality": "text"'),
        ('"kind": "text"', '"kind": "value"'),
        ('"b, c"', '"b"'),
        ('"attack": "text",', ""),
        ('"measure": {', '"measure": {"colour": 1,'),
        ('"samples": 4', '"samples": 5'),
    ],
)
def test_settings_that_do_not_fit_the_rows_are_refused(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    parted(DICE, samples=4).to_csv(path)
    beside = path.with_suffix(".json")
    text = beside.read_text(encoding="utf-8")
    assert old in text
    beside.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"r\.csv "):
        Results.from_csv(path)


def test_what_belongs_to_other_results_is_told() -> None:
    one = Settings(norm="L2", bounds=(0, 1), network="abc", data="digits")
    check_same_evaluation("x.csv", one, [one.but(seed=3), one.but(norm="Linf")])
    check_same_evaluation("x.csv", one, [Settings()])
    with pytest.raises(ValueError, match=r"x\.csv .* other weights and another norm \(L2, not Li"):
        check_same_evaluation("x.csv", one, [one.but(norm="Linf", network="abd")])
    with pytest.raises(ValueError, match=r"other bounds \(0 to 1, not none\)"):
        check_same_evaluation("x.csv", one, [one.but(bounds="none")])


# --- Files of the version before ------------------------------------------------------------------


def test_earlier_results_of_labels_are_read() -> None:
    found = Results.from_csv(OLD / "classes.csv")
    assert found.settings.measure == ACCURACY
    assert found.attacks == ("pgd-3", "noise-5", WORST) and found.white == ("white-3",)
    assert (found.eps, found.norm, found.amplitude("white-3")) == ((0.1, 0.4), "L2", 0.05)
    assert [found.kind(a) for a in (*found.attacks, "white-3")] == [
        *("chosen", "drawn", "worst", "white"),
    ]
    accuracies = [found.accuracy(), found.accuracy("pgd-3", 0.1), found.accuracy(WORST, 0.4)]
    assert accuracies == pytest.approx([4 / 6, 3 / 6, 1 / 6])
    assert found.mean(WORST, 0.4) == found.accuracy(WORST, 0.4)
    assert (found.classes, found.cases) == (("no", "yes"), ('p, "1"', "é", "q"))
    assert found.per_class() == pytest.approx((1 / 2, 3 / 4))
    places = found.flips("white-3")
    assert (len(places), int(found.broken_rows[places].sum())) == (4, 0)
    sizes = found.of_attack("pgd-3", 0.4)["size"]
    np.testing.assert_allclose(sizes, [NAN, 0.1, 0.4, 0, 0, 0.4], rtol=1e-6)
    assert found.of_attack()["size"].tolist() == [0.0] * 6
    settings = found.settings
    assert (settings.bounds, settings.samples, settings.seed) == ((-1.0, 1.0), 6, 3)
    assert settings.seconds == 1.1 and settings.network.startswith("3b4e17")
    assert list(settings.attacks) == ["pgd-3", "noise-5", "white-3"]
    assert settings.attacks["noise-5"].startswith("The worst of 5 random points")
    assert settings.about == {}


def test_earlier_results_without_cases_and_of_own_tasks_are_read() -> None:
    plain = Results.from_csv(OLD / "plain.csv")
    assert (plain.cases, plain.classes) == ((), ("class 0", "class 1"))
    assert (plain.settings.bounds, plain.accuracy("ifgsm-2", 0.1)) == ("none", 0.5)
    own = Results.from_csv(OLD / "own.csv")
    assert (own.accuracy(), own.classes, own.norm) == (pytest.approx(2 / 3), (), "Linf")
    label: Any = own.rows[1].more["label"]
    assert (label["there"], label["box"][1]) == (1, -0.5)


def test_earlier_results_of_masks_are_read() -> None:
    found = Results.from_csv(OLD / "masks.csv")
    assert found.settings.measure == DICE and found.settings.dimensions == 2
    assert found.classes == found.settings.classes == ("left, upper", "b")
    assert (found.attacks, found.white, found.eps) == (("pgd-3",), ("white-2",), (0.2, 0.6))
    first = (0.75 + 0.6666666865348816 + 0.8571428656578064 + 0) / 4
    assert found.per_class() == pytest.approx((first, 0.0))
    assert found.mean() == found.adi() == pytest.approx(first / 2)
    assert found.adi_all_classes() == pytest.approx(0.375)
    assert (found.counts(), found.cases) == ((4, 1), ("a", "b"))
    assert found.of_attack()["slice"].tolist() == [0, 1, 0, 3]
    assert found.of_attack()["pixels"].tolist() == [4, 2, 3, 0]
    assert found.broken_rows[found.at()].tolist() == [True, False, False, True]
    # Noise that lowers nothing has no size; where the Dice is 0 without noise it is 0.
    sizes = found.of_attack("pgd-3", 0.2)["size"]
    np.testing.assert_allclose(sizes, [NAN, 0.2, 0.2, 0.0], rtol=1e-6)
    assert found.settings.about["empty slices"].startswith("a class counts for a sample")
    # Where nobody said the cases, each was called as its sample.
    alone = Results.from_csv(OLD / "masks_alone.csv")
    assert alone.cases == () and set(alone.columns["case"].tolist()) == {""}


@pytest.mark.parametrize("name", ["classes", "plain", "own", "masks", "masks_alone"])
def test_earlier_results_can_be_written_as_now(name: str, tmp_path: Path) -> None:
    found = Results.from_csv(OLD / f"{name}.csv")
    found.to_csv(tmp_path / "r.csv")
    again = Results.from_csv(tmp_path / "r.csv")
    assert again == found and again.settings == found.settings


def test_earlier_distances_are_read() -> None:
    found = Distances.from_csv(OLD / "distances.csv")
    assert [row.attack for row in found.rows] == ["ddn", "ddn", "ddn", "clean", "clean", "ddn"]
    assert found.accuracy(0.1) == 0.5 and found.median() == pytest.approx(0.3, abs=1e-3)
    assert found.settings.left_out == ("fab (needs bounds)",)
    assert list(found.settings.attacks) == ["ddn", "ddn-margin", "pgd-100"]
    assert (found.norm, found.settings.eps, found.settings.samples) == ("Linf", (0.1,), 6)


def test_earlier_checks_are_read() -> None:
    found = Checks.from_json(OLD / "checks.json")
    assert len(found.checks) == 11 and found.checks[0].name == "gradients"
    assert found.checks[0].evidence["exactly zero"]["n"] == 4
    settings = found.settings
    assert (settings.norm, settings.eps, settings.samples) == ("L2", (0.1, 0.2), 4)
    assert list(settings.attacks) == ["pgd-3", "ifgsm-2"]


def test_earlier_margins_are_read() -> None:
    found = Estimates.from_csv(OLD / "margins.csv")
    assert [row.id for row in found.rows] == [0, 3, 7]
    assert found.margins.tolist() == [0.5, 0.0, 3.0]
    assert found.flipped.tolist() == [False, True, False]
    assert (found.norm, found.cap, found.classes) == ("Linf", 3.0, ("a, b", "é", "c"))
    assert [pair.tolist() for pair in found.pairs()] == [[0.5], [0.75]]
    settings = found.settings
    assert (settings.epoch, settings.samples, settings.total, settings.seed) == ("7 of 30", 2, 3, 4)
    assert settings.about == {"run": "digits-ima", "method": "ima", "label noise": "0.1"}


@pytest.mark.parametrize("name", ["distances", "margins"])
def test_earlier_rows_can_be_written_as_now(name: str, tmp_path: Path) -> None:
    kind: Any = {"distances": Distances, "margins": Estimates}[name]
    found = kind.from_csv(OLD / f"{name}.csv")
    found.to_csv(tmp_path / "r.csv")
    again = kind.from_csv(tmp_path / "r.csv")
    assert repr(again.rows) == repr(found.rows) and again.settings == found.settings


def test_files_are_read_without_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from ima.evaluation.results import Results;"
        f"r = Results.from_csv(Path({str(OLD / 'classes.csv')!r})); r.interval(); str(r);"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
