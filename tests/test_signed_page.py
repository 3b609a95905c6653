"""A page that can be signed: which network and data, limits, sizes, the lowest that is known."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import CHECKS, DISTANCES, about, config, full, results, run, with_white
from test_cli import call
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

import ima
from ima import Classification, MultiLabel, Results, Segmentation, evaluate
from ima.data import load
from ima.evaluation.checks_results import Check, Checks, share
from ima.evaluation.digest import DataDigest
from ima.evaluation.naming import own_classes
from ima.evaluation.settings import Settings
from ima.evaluation.stated import NOTHING, Stated, limit
from ima.evaluation.statistics import needed, planned, wilson
from ima.measures import ACCURACY, DICE
from ima.report.classes import calibration, never_right, sensitivity
from ima.report.entries import PageEntry, group
from ima.report.html import write_report, write_sources
from ima.report.limits import decided
from ima.report.sizes import felt, size_of, size_rows
from ima.report.sources import Source, read_source


def linear(inputs: int = 4, outputs: int = 2, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs)


def vectors(n: int = 10, dims: int = 4) -> TensorDataset:
    x = torch.rand((n, dims), generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, torch.arange(n) % 2)


def entry(found: Results, **beside: Any) -> PageEntry:
    (one,) = group([Source("IMA", {"results": found}, **beside)])
    return one


# --- Which network, which data, when --------------------------------------------------------------


def digest(x: torch.Tensor, y: torch.Tensor, ids: list[int], size: int = 3) -> str:
    found = DataDigest()
    for at in range(0, len(x), size):
        found.add(ids[at : at + size], x[at : at + size], y[at : at + size])
    return found.hex()


def test_the_digest_of_the_data_is_that_of_hand_and_of_no_batch_size() -> None:
    x, y = vectors().tensors
    ids = list(range(7, 17))
    by_hand = hashlib.sha256()
    for i, image, label in zip(ids, x.numpy(), y.numpy(), strict=True):
        by_hand.update(f"{i}\n".encode() + b"torch.float32 (4,)\n" + image.tobytes())
        by_hand.update(b"torch.int64 ()\n" + label.tobytes())
    assert {digest(x, y, ids, size) for size in (1, 3, 10)} == {by_hand.hexdigest()}
    changed = x.clone()
    changed[4, 2] += 1e-6
    others = [
        digest(changed, y, ids),
        digest(x, y.flip(0), ids),
        digest(x, y, [*ids[1:], 99]),
        digest(x.flip(0), y.flip(0), ids[::-1]),
        digest(x.reshape(10, 2, 2), y, ids),
    ]
    assert len({by_hand.hexdigest(), *others}) == 6


def test_the_same_weights_and_data_have_the_same_digests_whatever_was_asked() -> None:
    data, model = vectors(), linear()
    first = evaluate(model, data, 0.1, "pgd-2", batch_size=3).settings
    again = evaluate(linear(), DataLoader(data, 5), [0.1, 0.3], ["noise-2"], norm="linf").settings
    assert first.made == datetime.now(UTC).date().isoformat()
    assert len(first.data_sha256) == 64 and first.entries == (4, 4)
    assert (first.data_sha256, first.network) == (again.data_sha256, again.network)
    x, y = data.tensors
    assert first.data_sha256 == digest(x, y, list(range(10)))
    other = evaluate(linear(seed=1), data, 0.1, "pgd-2", ids=list(range(1, 11))).settings
    assert other.data_sha256 != first.data_sha256 and other.network != first.network


def test_an_evaluation_that_goes_on_has_the_digest_of_all_data(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    asked: dict[str, Any] = {"batch_size": 3, "partial": tmp_path / "part"}
    with pytest.raises(KeyboardInterrupt):
        evaluate(linear(), vectors(), 0.1, "pgd-2", progress=stop, **asked)
    found = evaluate(linear(), vectors(), 0.1, "pgd-2", **asked).settings
    assert found.data_sha256 == evaluate(linear(), vectors(), 0.1, "pgd-2").settings.data_sha256


def test_the_page_shows_what_the_results_say_and_less_of_older_ones(tmp_path: Path) -> None:
    found = evaluate(linear(), vectors(), 0.1, "pgd-2", bounds=(0, 1))
    found = about(found, title="Reading <aid>", author="J. Doe", purpose="For the board")
    found.to_csv(tmp_path / "results.csv")
    told = found.settings
    for form in ("html", "md"):
        write_report([tmp_path / "results.csv"], tmp_path / f"page.{form}")
        text = (tmp_path / f"page.{form}").read_text(encoding="utf-8")
        for said in (told.network, told.data_sha256, told.made, "J. Doe", "For the board"):
            assert said in text
        assert "digest of the weights in memory" in text and "file of weights:" not in text
        assert "ignature" in text and "<aid>" not in text
    write_report([tmp_path / "results.csv"], tmp_path / "page.json")
    page = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))
    assert page["title"] == "Reading <aid>" and page["about"]["Made on"] == told.made
    write_sources(tmp_path / "old.html", [Source("IMA", {"results": results(10, 9, {0.5: 6})})])
    old = (tmp_path / "old.html").read_text(encoding="utf-8")
    assert "SHA-256" not in old and "Made on" not in old and "Data" in old


# --- What is stated -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "measure", "text"),
    [
        (Stated(classes=("a",)), ACCURACY, "1 names (a) for 2 classes (cat, dog)"),
        (Stated(classes=("a", "a")), ACCURACY, "a name of its own for each"),
        (Stated(positive="bird"), ACCURACY, "the classes are cat and dog"),
        (Stated(positive="cat"), DICE, "belongs to two classes"),
        (Stated(require=("0.7:70",)), ACCURACY, "evaluate with --eps 0.7 too"),
        (Stated(require=("0.5",)), ACCURACY, "expected SIZE:LEAST"),
        (Stated(require=("0.5:0.7",)), ACCURACY, "percent, above 1 and at most 100"),
        (Stated(require=("0.5:170",)), ACCURACY, "at most 100"),
        (Stated(require=("0.5:70",)), DICE, "at most 1, such as 0.5:0.8"),
        (Stated(require=("0.5:nan",)), ACCURACY, "at most 100"),
        (Stated(scale=2.0), ACCURACY, "beside --unit"),
        (Stated(unit="HU", scale=-1.0), ACCURACY, "a number above 0"),
    ],
)
def test_what_does_not_fit_is_refused(stated: Stated, measure: Any, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        stated.settings(measure, ("cat", "dog"), [0.5])


def test_what_is_stated_becomes_settings() -> None:
    assert NOTHING.settings(ACCURACY, (), []) == {}
    stated = Stated("T", "A", "P", ("a", "b"), "b", ("0:95%", "0.5:70"), "HU", 2000.0)
    assert stated.settings(ACCURACY, ("0", "1"), [0.5]) == {
        "title": "T", "author": "A", "purpose": "P", "classes": ("a", "b"), "positive": "b",
        "require": ((0.0, 0.95), (0.5, 0.7)), "unit": "HU", "scale": 2000.0,
    }  # fmt: skip
    assert limit("0.5:0.8", DICE, [0.5]) == (0.5, 0.8)
    assert limit("0.5:1", DICE, [0.5]) == (0.5, 1.0)


def test_names_stated_for_a_page_go_before_those_of_its_results(tmp_path: Path) -> None:
    made = full(tmp_path / "run")
    stated = Stated(classes=("disc", "ring", "bar"))
    write_report([made], tmp_path / "page.md", stated)
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| disc" in text and "true class disc" in text and "| round" not in text
    task = Segmentation()
    x = torch.rand((3, 1, 4, 4))
    found = evaluate(
        nn.Conv2d(1, 3, 1), TensorDataset(x, (3 * x[:, 0]).long()), 0.1, "pgd-1", task=task
    )
    source = Source("IMA", {"results": found}).stating(Stated(classes=("liver", "spleen")))
    assert source.main.classes == ("liver", "spleen")
    assert "dice_liver" in source.main.columns and source.main.mean() == found.mean()


class Info:
    info = {"label": {"1": "pneumonia", "0": "normal"}}  # noqa: RUF012


def test_data_name_their_classes_themselves(tmp_path: Path) -> None:
    data: Any = vectors()
    data.classes = ["cat", "dog"]
    assert own_classes(data) == ["cat", "dog"]
    assert own_classes(DataLoader(Subset(data, [0, 1]), 2)) == ["cat", "dog"]
    assert own_classes(Info()) == ["normal", "pneumonia"]
    assert own_classes(vectors()) == []
    images = np.random.default_rng(0).integers(0, 256, (36, 8, 8), dtype=np.uint8)
    parts = {"train": images[:12], "val": images[12:24], "test": images[24:]}
    arrays = {f"{role}_images": part for role, part in parts.items()}
    arrays |= {f"{role}_labels": np.arange(12) % 2 for role in parts}
    for names, said in ((["cat", "dog"], ("cat", "dog")), (["cat", "dog", "cow"], ("cat", "dog")),
                        ([3, 4], ("0", "1")), (None, ("0", "1"))):  # fmt: skip
        more = {} if names is None else {"classes": np.array(names)}
        np.savez(tmp_path / "d.npz", allow_pickle=False, **arrays, **more)
        assert load("arrays", path=tmp_path / "d.npz").classes == said
    np.savez(tmp_path / "d.npz", allow_pickle=False, **arrays, classes=np.array(["cat"]))
    with pytest.raises(ValueError, match="expected 2 different names"):
        load("arrays", path=tmp_path / "d.npz")


# --- Limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("least", "state", "open_"),
    [(0.2, "met", False), (0.5, "met", True), (0.7, "missed", True), (0.95, "missed", False)],
)
def test_a_limit_is_decided_and_the_interval_is_told(least: float, state: str, open_: bool) -> None:
    # 6 of 10 stand: 31.3 to 83.2 %.
    (one,) = decided([entry(about(results(10, 9, {0.5: 6}), require=((0.5, least),)))])
    assert (one.state, one.met, one.open) == (state, state == "met", open_)
    assert f"Limit {state}" in one.sentence and "60.0\u00a0%" in one.sentence
    assert ("holds the limit" in one.sentence) == open_
    assert "under PGD-100" in one.sentence


def test_a_limit_counts_what_all_evidence_found_and_doubts() -> None:
    found = about(results(10, 9, {0.5: 6}), require=((0.5, 0.5),))
    (one,) = decided([entry(found, distances=DISTANCES)])
    assert one.state == "missed" and "the search for the smallest noise found too" in one.sentence
    (one,) = decided([entry(found, checks=CHECKS)])
    assert one.state == "met" and "1 trust check is raised" in one.sentence
    drawn = about(results(10, 9, {0.5: 6}, ("noise-5",)), require=((0.5, 0.5),))
    (one,) = decided([entry(drawn)])
    assert "drawn at random" in one.sentence
    unknown = about(results(10, 9, {0.5: 6}), require=((0.8, 0.5),))
    with pytest.raises(ValueError, match=r"evaluate it with --eps 0\.8 too"):
        decided([entry(unknown)])


def test_the_limit_is_said_first_and_a_page_without_one_has_a_summary(tmp_path: Path) -> None:
    for number, limits in enumerate([(), ((0.5, 0.9), (0.0, 0.5))]):
        made = run(tmp_path / str(number), config("ima"), results(10, 9, {0.5: 6}))
        found = about(results(10, 9, {0.5: 6}), require=limits)
        found.to_csv(made / "evaluation" / "best.csv")
        for form in ("html", "md", "json"):
            write_report([made], tmp_path / f"{number}.{form}")
    texts = {p.name: p.read_text(encoding="utf-8") for p in tmp_path.glob("*.*")}
    assert ">Summary</h2>" in texts["0.html"] and "Skip to the summary" in texts["0.html"]
    assert "## Summary" in texts["0.md"] and "Limit" not in texts["0.md"]
    assert ">Verdict</h2>" in texts["1.html"] and "limit missed" in texts["1.html"]
    assert texts["1.md"].index("**Limit missed") < texts["1.md"].index("IMA is right on")
    missed, met = json.loads(texts["1.json"])["requirements"]
    assert (missed["state"], missed["found"], missed["least"]) == ("missed", 0.6, 0.9)
    assert (met["state"], met["eps"]) == ("met", 0.0)
    assert "requirements" not in json.loads(texts["0.json"])


@pytest.mark.parametrize(("least", "code"), [(50, 0), (70, 4)])
def test_a_missed_limit_is_exit_code_4(least: int, code: int, tmp_path: Path) -> None:
    made = run(tmp_path / "run", config("ima"), results(10, 9, {0.5: 6}))
    command = [sys.executable, "-m", "ima", "report", str(made), "--out", str(tmp_path / "p.html"),
               "--require", f"0.5:{least}", "--title", "T"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    assert f"Limit {'missed' if code else 'met'}" in done.stdout
    assert done.stderr == ("ima: a limit is missed\n" if code else "")
    assert (tmp_path / "p.html").is_file()


MINE = """
import torch
from torch.utils.data import TensorDataset

def data():
    x = torch.rand((12, 4), generator=torch.Generator().manual_seed(1))
    return TensorDataset(x, (x[:, 0] > 0.5).long())

def net():
    return torch.nn.Linear(4, 2)
"""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words that evaluate a network from elsewhere, which is always right without noise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("signed_mine.py").write_text(MINE)
    weight = torch.tensor([[-40.0, 0, 0, 0], [40.0, 0, 0, 0]])
    torch.save({"weight": weight, "bias": torch.tensor([20.0, -20.0])}, "w.pt")
    return ["evaluate", "w.pt", "--model", "signed_mine:net", "--data", "signed_mine:data",
            "--bounds", "0", "1", "--attacks", "pgd-3", "--device", "cpu"]  # fmt: skip


def test_the_command_states_decides_and_the_report_says_the_same(elsewhere: list[str]) -> None:
    names = ["--classes", "normal", "pneumonia", "--positive", "pneumonia", "--author", "J. Doe"]
    asked = [*elsewhere, "--eps", "1", *names, "--unit", "HU", "--scale", "2000"]
    said = call(*asked, "--require", "1:50", "0:90")
    assert said.code == 4 and "ima: a limit is missed" not in said.out
    assert "Limit missed" in said.out and "Limit met" in said.out
    assert (
        "Sensitivity" in said.out and "noise, root mean square of a value: 1 is 1000 HU" in said.out
    )
    assert call(*asked, "--require", "0:90").code == 0
    told = Results.from_csv("w.pt-evaluation/results.csv").settings
    assert told.file == hashlib.sha256(Path("w.pt").read_bytes()).hexdigest()
    assert told.classes == ("normal", "pneumonia") and told.require == ((0.0, 0.9),)
    said = call("report", "w.pt-evaluation", "--out", "page.html")
    assert said.code == 0 and "Limit met" in said.out
    text = Path("page.html").read_text(encoding="utf-8")
    for words in (told.file, told.data_sha256, "J. Doe", "pneumonia", "1000 HU"):
        assert words in text
    assert call("report", "w.pt-evaluation", "--require", "1:50").code == 4


def test_what_cannot_be_decided_is_refused_before_all_work(elsewhere: list[str]) -> None:
    said = call(*elsewhere, "--eps", "1", "--require", "0.5:50")
    assert said.code == 1 and "--eps 0.5 too" in said.err
    said = call(*elsewhere, "--eps", "1", "--positive", "dog")
    assert said.code == 1 and "the classes are 0 and 1" in said.err
    assert not Path("w.pt-evaluation").exists() or not list(Path("w.pt-evaluation").glob("*.csv"))


# --- Sizes ----------------------------------------------------------------------------------------


def sized(norm: str = "L2", **more: Any) -> Settings:
    return Settings(norm=norm, **more)


def test_sizes_of_noise_are_those_of_hand() -> None:
    one = size_of(0.5, sized(entries=(64, 64), bounds=(0, 1), unit="HU", scale=2000))
    assert one is not None and one.rms == (0.0625, 0.0625)
    assert (one.root, one.grey, one.own) == ("0.0625", "15.9", "125 HU")
    assert one.psnr == f"{20 * math.log10(16):.1f} dB" and one.single == "0.5 (1000 HU)"
    assert one.short == "125 HU"
    wide = size_of(8 / 255, sized("Linf", bounds=(0, 1)))
    assert wide is not None and (wide.grey, wide.short) == ("8", "8 of 255 grey levels")
    signed = size_of(2, sized("Linf", bounds=(-1, 1)))
    assert signed is not None and (signed.grey, signed.psnr) == ("255", "0.0 dB")
    several = size_of(1, sized(entries=(4, 16), bounds=(0, 1)))
    assert (
        several is not None and several.root == "0.25 to 0.5" and several.psnr == "6.0 to 12.0 dB"
    )
    bare = size_of(3, sized(bounds="none"))
    assert bare is not None and (bare.short, bare.psnr, bare.single) == ("", "", "3")
    assert size_of(1, sized("my norm")) is None
    heads, rows = size_rows([0.5], sized(entries=(64, 64)))
    assert heads == ("size of noise", "root mean square", "largest single value")
    assert rows == (("0.5", "0.0625", "0.5"),)


def test_sizes_stand_beside_radii_where_they_lead(tmp_path: Path) -> None:
    found = evaluate(linear(), vectors(), 0.5, "pgd-2", bounds=(0, 1))
    assert felt(found) == "noise, root mean square of a value: 0.5 is 63.8 of 255 grey levels"
    ima.write_page(found, tmp_path / "p.html")
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert text.count("0.5 (L₂; 63.8 of 255 grey levels a value, root mean square)") == 2
    assert "How large the noise is for a single value" in text and "PSNR" in text


# --- What leads -----------------------------------------------------------------------------------


def test_what_other_noise_found_leads_and_says_whence() -> None:
    base = results(10, 9, {0.5: 6, 1.0: 3}, ("pgd-100",))
    assert entry(base).lead("pgd-100", 0.5).whence == ""
    # At 1 the attack found noise of size 0.4 for samples that it left standing at 0.5.
    sizes = base.columns["size"].copy()
    late = (base.columns["eps"] == 1.0) & np.isin(base.columns["id"], (4, 5))
    sizes[late] = 0.4
    moved = Results({**base.columns, "size": sizes}, base.settings)
    lead = entry(moved).lead("pgd-100", 0.5)
    assert (lead.score.mean, lead.whence) == (pytest.approx(0.4), "PGD-100 with size 1")
    assert lead.score.interval == pytest.approx(wilson(0.4, 10))
    white = entry(with_white(base, {"white-1": 4})).lead("pgd-100", 0.5)
    assert (white.score.mean, white.whence) == (pytest.approx(0.2), "white noise")
    # Of the six that stand, the search breaks four.
    near = entry(base, distances=DISTANCES).lead("pgd-100", 0.5)
    assert near.score.mean == pytest.approx(0.2)
    assert near.whence == "the search for the smallest noise"
    assert entry(base).lead("clean", 0.0).score.mean == 0.9


def beaten(tripped: bool) -> Checks:
    """Square breaks 20 of 100 right samples beside the 40 that PGD breaks."""
    evidence = {
        "accuracy under PGD, at 0.5": share(60, 100),
        "accuracy under Square, at 0.5": share(45, 100),
        "only Square breaks, at 0.5": share(20, 100),
    }
    check = Check("black-box", "A black-box attack beats", tripped, "", evidence, "", "")
    return Checks(Settings(samples=100), (check,))


def test_a_raised_check_leads_where_it_broke_more() -> None:
    found = results(10, 9, {0.5: 6})
    lead = entry(found, checks=beaten(True)).lead("pgd-100", 0.5)
    assert lead.score.mean == pytest.approx(0.9 * 0.4)
    low, high = wilson(0.4, 100)
    assert lead.score.interval == pytest.approx((0.9 * low, 0.9 * high))
    assert lead.whence == "the trust check with Square"
    assert entry(found, checks=beaten(False)).lead("pgd-100", 0.5).whence == ""
    lower = results(10, 9, {0.5: 2})
    assert entry(lower, checks=beaten(True)).lead("pgd-100", 0.5).score.mean == pytest.approx(0.2)


def test_tiles_and_curve_lead_with_the_lower_number(tmp_path: Path) -> None:
    source = Source("IMA", {"results": results(10, 9, {0.5: 6})}, checks=beaten(True))
    write_sources(tmp_path / "p.html", [source])
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert 'class="value">36.0\u00a0%' in text and 'class="value">60.0' not in text
    assert "counting what the trust check with Square found" in text
    assert ">lowest found<" in text
    other = Source("SAT", {"results": results(10, 9, {0.5: 5})})
    write_sources(tmp_path / "two.json", [source, other])
    first, second = json.loads((tmp_path / "two.json").read_text(encoding="utf-8"))["networks"]
    assert first["leading"][0]["accuracy"] == pytest.approx(0.36)
    assert first["leading"][0]["found_by"] == "the trust check with Square"
    assert second["leading"][0] | {"found_by": None} == second["leading"][0]


# --- Classes and confidence -----------------------------------------------------------------------


def labelled(labels: list[int], said: list[int], **columns: list[float]) -> Results:
    """A clean pass of samples with these labels, taken for these."""
    n = len(labels)
    right = np.array(labels) == np.array(said)
    base: dict[str, Any] = {
        "id": np.arange(n), "attack": np.full(n, "clean"), "eps": np.zeros(n),
        "quality": right.astype(float), "size": np.zeros(n), "kind": np.full(n, "clean"),
        "case": np.full(n, ""), "slice": np.full(n, -1), "label": np.array(labels),
        "prediction": np.array(said), **{name: np.array(c) for name, c in columns.items()},
    }  # fmt: skip
    return Results(base, Settings(norm="L2", classes=("cat", "dog", "cow")))


CLEAN_KEY = ("clean", 0.0)


def test_classes_that_are_never_right_are_told_with_what_they_are_taken_for() -> None:
    found = labelled([0, 0, 0, 1, 1, 2], [1, 1, 2, 1, 1, 1])
    (said,) = never_right([found], [CLEAN_KEY])
    assert said == (
        "Never right without noise: “cat” (3 samples; 2 of 3 taken for “dog”) and “cow” (1 sample; "
        "all taken for “dog”)."
    )
    assert never_right([labelled([0, 1], [0, 1])], [CLEAN_KEY]) == []
    assert never_right([labelled([0, 1], [1, 0])], [CLEAN_KEY]) == [
        "No class is ever right without noise."
    ]


def test_sensitivity_is_of_the_positive_class() -> None:
    found = labelled([0, 0, 1, 1], [0, 1, 1, 1])
    two = about(found, classes=("normal", "ill"), positive="ill")
    said = sensitivity([two], [CLEAN_KEY]).replace("\u00a0", " ")
    assert said.startswith("Sensitivity, the share of “ill” that is taken for “ill”: 100.0 %")
    assert "Specificity, the share of “normal” that is taken for “normal”: 50.0 %" in said
    assert sensitivity([about(two, positive="normal")], [CLEAN_KEY]).startswith(
        "Sensitivity, the share of “normal” that is taken for “normal”: 50.0"
    )
    assert sensitivity([about(found, classes=("normal", "ill"))], [CLEAN_KEY]) == ""


def test_confidence_is_told_against_what_is_right() -> None:
    found = labelled([0, 0, 1, 1], [0, 1, 1, 1], confidence=[0.9, 0.8, 0.9, 1.0])
    said = calibration([found], [CLEAN_KEY]).replace("\u00a0", " ")
    assert "90.0 % without noise, where 75.0 % are right (15.0 points too high)" in said
    assert calibration([labelled([0, 1], [0, 1])], [CLEAN_KEY]) == ""


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_confidence_is_the_probability_of_what_is_said(outputs: int) -> None:
    model, data = linear(4, outputs), vectors()
    found = evaluate(model, data, 0.1, "pgd-1").of_attack()
    x, _ = data.tensors
    with torch.no_grad():
        logits = model(x)
    p = torch.sigmoid(logits) if outputs == 1 else logits.softmax(1)
    expected = torch.maximum(p, 1 - p)[:, 0] if outputs == 1 else p.amax(1)
    assert found["confidence"] == pytest.approx(expected.numpy(), abs=1e-6)


# --- Every task -----------------------------------------------------------------------------------

TASKS = {
    "classification": (Classification(), linear(), vectors()),
    "one logit": (Classification(), linear(4, 1), vectors()),
    "multilabel": (MultiLabel(), linear(4, 3),
                   TensorDataset(torch.rand(8, 4), (torch.rand(8, 3) > 0.5).long())),
    "share": (MultiLabel("share"), linear(4, 3),
              TensorDataset(torch.rand(8, 4), (torch.rand(8, 3) > 0.5).long())),
    "segmentation": (Segmentation(), nn.Conv2d(1, 2, 1),
                     TensorDataset(torch.rand(4, 1, 6, 6), (torch.rand(4, 6, 6) > 0.5).long())),
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_it_all(name: str, tmp_path: Path) -> None:
    task, model, data = TASKS[name]
    found = evaluate(model, data, [0.1, 0.5], ["pgd-2", "noise-2"], task=task, bounds=(0, 1))
    measure = found.settings.measure
    least = "0.5:99" if measure.percent else "0.5:0.99"
    stated = Stated(author="J. Doe", require=(least,), unit="HU", scale=100.0)
    found.to_csv(tmp_path / "results.csv")
    for form in ("html", "md", "json"):
        (one,) = write_report([tmp_path / "results.csv"], tmp_path / f"p.{form}", stated)
        text = (tmp_path / f"p.{form}").read_text(encoding="utf-8")
        for said in ("J. Doe", found.settings.data_sha256, "Limit missed", "HU"):
            assert said in text
    (limit_,) = decided([one])
    assert limit_.lead.score.mean <= min(found.mean(a, 0.5) for a in found.attacks) + 1e-9
    confident = "mean confidence" in text
    assert confident == (name != "segmentation")


# --- How many samples -----------------------------------------------------------------------------


@pytest.mark.parametrize("half", [0.01, 0.02, 0.1])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.5, 0.97, 1.0])
def test_so_many_samples_are_needed_and_no_fewer(part: float, half: float) -> None:
    n = needed(part, half)
    wide = [high - low for low, high in (wilson(part, n), wilson(part, max(1, n - 1)))]
    assert wide[0] <= 2 * half and (n == 1 or wide[1] > 2 * half)


def test_a_plan_counts_cases() -> None:
    none = np.empty((40, 0))
    standing = np.arange(40) % 4 < 3
    apart, each = np.full(40, ""), np.arange(40).astype(str)
    alone = needed(0.75, 0.05)
    assert planned(none, standing, apart, 0.05) == (alone, 0)
    # Ten cases whose samples are alike are worth fewer.
    alike = np.repeat(np.arange(10) % 4 < 3, 4)
    samples, cases = planned(none, alike, np.repeat(np.arange(10), 4).astype(str), 0.05)
    assert samples > 3 * alone and cases == math.ceil(samples / 4)
    graded = np.linspace(0, 1, 40)[:, None]
    assert planned(graded, standing, each, 0.02)[0] == pytest.approx(
        4 * planned(graded, standing, each, 0.04)[0], rel=0.01
    )
    assert planned(none, standing, np.full(40, "one"), 0.05) == (0, 0)


def test_the_command_plans(tmp_path: Path) -> None:
    said = call("evaluate", "--plan", "0.02")
    assert said.code == 0 and f"50 % are right: {needed(0.5, 0.02)} samples" in said.out
    made = run(tmp_path / "run", config("ima"), results(10, 9, {0.5: 6}))
    said = call("evaluate", str(made), "--plan", "0.1")
    assert said.code == 0
    assert f"PGD-100 at 0.5, 60.0 %: {needed(0.6, 0.1)} samples" in said.out.replace("\u00a0", " ")
    said = call("evaluate", "--plan", "2")
    assert said.code == 1 and "above 0 and below 0.5" in said.err


def test_a_run_keeps_what_lies_beside_it_for_a_limit(tmp_path: Path) -> None:
    made = full(tmp_path / "run")
    assert read_source(made).own_checks is not None
    (one,) = decided(
        [entry(about(read_source(made).main, require=((0.5, 0.5),)), distances=DISTANCES)]
    )
    assert one.state == "missed"
