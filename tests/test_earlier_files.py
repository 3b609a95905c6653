"""Files that the version before wrote are read, and count: the folder of a run, and an nnU-Net's.

They were written by that version's own commands; the numbers here are what it said of them.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from test_cli import call

from ima import Results
from ima.evaluation.checks_results import Checks
from ima.evaluation.distances import Distances
from ima.evaluation.results import WORST
from ima.measures import DICE
from ima.training.compare import tested as is_tested
from ima.training.compare import validation_score
from ima.training.run import Run

FILES = Path(__file__).parent / "data" / "earlier"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy."""
    shutil.copytree(FILES, tmp_path / "earlier")
    return tmp_path / "earlier"


def test_a_run_of_the_version_before_is_read_and_counts(folder: Path) -> None:
    run = Run.open(folder / "run")
    found = Results.from_csv(run.results("best"))
    assert (found.attacks, found.eps) == (("pgd-3", "ifgsm-2", WORST), (0.5, 1.0))
    assert [found.accuracy(), found.accuracy("pgd-3", 1.0)] == [0.25, 0.0]
    assert found.accuracy(WORST, 0.5) == found.accuracy("ifgsm-2", 1.0) == pytest.approx(1 / 12)
    flips = [int(found.broken_rows[found.flips(name)].sum()) for name in found.white]
    assert (found.white, flips) == (("white-1", "white-100"), [0, 1])
    told = found.settings
    assert (told.samples, told.total, told.seed, told.part) == (12, 540, 0, "test")
    assert (told.norm, told.bounds, told.epoch) == ("L2", (0.0, 1.0), "2 of 2")
    assert told.picked.startswith("the geometric mean of clean accuracy")
    assert told.attacks["pgd-3"].startswith("3 steps of 10 eps / 3")
    distances = Distances.from_csv(run.results("distances"))
    assert distances.median() == pytest.approx(0.08994, abs=1e-5)
    assert distances.settings.network == told.network
    assert list(distances.settings.attacks) == ["ddn", "ddn-margin", "fab", "pgd-100"]
    checks = Checks.from_json(run.results("checks").with_suffix(".json"))
    assert (len(checks.checks), checks.tripped) == (11, ())
    assert (checks.settings.samples, checks.settings.right) == (3, 3)
    # A comparison takes them for what they are: nothing is measured again.
    assert all(is_tested(run, which) for which in ("best", "last", "validation"))
    assert validation_score(run) == pytest.approx(math.sqrt(83 / 360 * 10 / 360))
    run.weights("best").write_bytes(b"other")
    assert not is_tested(run, "best") and is_tested(run, "last")


def test_a_run_of_the_version_before_has_its_page_and_goes_over_to_this_one(folder: Path) -> None:
    run = Run.open(folder / "run")
    page = folder / "page.json"
    assert call("report", str(run.folder), "--out", str(page)).code == 0
    assert json.loads(page.read_text())["networks"]
    before = Results.from_csv(run.results("best"))
    said = call("evaluate", str(run.folder), "--checkpoint", "best", "--device", "cpu")
    assert said.code == 0, said.err
    assert run.results("best").with_suffix(".json").exists()
    after = Results.from_csv(run.results("best"))
    assert after.accuracy() == before.accuracy()
    assert after.accuracy("ifgsm-2", 0.5) == before.accuracy("ifgsm-2", 0.5)
    assert after.settings.network == before.settings.network
    assert after.settings.file == before.settings.file


def test_an_nnunet_of_the_version_before_is_read(folder: Path) -> None:
    found = Results.from_csv(folder / "nnunet" / "results_nnunet.csv")
    assert found.adi() == pytest.approx(0.051058563869446516)
    assert found.adi(WORST, 4.0) == pytest.approx(0.0277954563498497)
    told = found.settings
    assert (told.label, told.data) == ("nnUNetTrainer", "Dataset501_Tiny")
    assert (told.samples, told.total, told.seed) == (4, 24, 0)
    assert told.cases == "imagesTs of the data set"
    assert (told.data_digest, told.measure) == ("9684c005c0708342", DICE)
    assert found.classes == ("bright", "dark") and len(found.cases) == 3
    for name in ("page.html", "page.md"):
        said = call("report", str(folder / "nnunet"), "--out", str(folder / name))
        assert said.code == 0, said.err
    assert "nnUNetTrainer" in (folder / "page.md").read_text()
