"""The paper's own numbers beside ours: the right ones, on the pages of its tables alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ima import Results
from ima.evaluation.results import CLEAN, Row
from ima.evaluation.settings import Settings
from ima.report.cells import Average
from ima.report.comparison import Compared, Frame, write_comparison
from ima.report.paper import paper_table
from ima.training.config import load_config
from ima.training.config_errors import packaged
from ima.training.rows import rows

# Of each table a number in a corner and one within, as the paper prints them.
FACTS = {
    "table1": [("IMA", "pgd-100 at 0.5", 65.70), ("TRADES", "autoattack at 0.5", 53.26)],
    "table2": [("IMA", "clean", 89.14), ("MMA", "autoattack at 0.9", 34.98)],
    "table4": [("SAT (eps 1)", "pgd-100 at 0.5", 66.69), ("MMA (eps 3)", "clean", 82.11)],
    "table5": [("IMA", "pgd-100 at 3", 90.75), ("FAT (tau 0)", "autoattack at 1", 87.50)],
    "table6": [("IMA", "clean", 89.68), ("SAT (eps 5)", "ifgsm-10 at 15", 63.52)],
    "table7": [("Standard", "pgd-100 at 10", 0.24), ("SAT (eps 5)", "ifgsm-10 at 10", 60.07)],
    "table8": [("IMA", "ifgsm-10 at 40", 76.14), ("SAT (eps 40)", "pgd-100 at 10", 54.23)],
}


@pytest.mark.parametrize("name", FACTS)
def test_the_numbers_are_the_papers(name: str) -> None:
    table = paper_table(name)
    assert table is not None
    lines = {line[0]: dict(zip(table.columns, line, strict=True)) for line in table.rows}
    for method, column, percent in FACTS[name]:
        cell = lines[method][column]
        assert isinstance(cell, Average)
        assert cell.mean == pytest.approx(percent / 100)


def test_a_training_that_did_not_converge_has_no_number() -> None:
    table = paper_table("table1")
    assert table is not None
    (line,) = [row for row in table.rows if row[0] == "SAT (eps 3)"]
    assert all(isinstance(cell, Average) and cell.absent for cell in line[1:])
    assert "did not converge" in table.caption


@pytest.mark.parametrize("name", [n for n in packaged() if n.startswith("table")])
def test_its_columns_and_methods_are_those_of_the_config(name: str) -> None:
    table, config = paper_table(name), load_config(name)
    assert table is not None
    assert ("Another network" in table.caption) == name.endswith("_small")
    if not name.endswith("_small"):
        wanted = [f"{a} at {e:g}" for a in config.evaluate.attacks for e in config.evaluate.eps]
        assert list(table.columns) == ["method", CLEAN, *wanted]
    theirs = {str(row[0]).partition(" (")[0] for row in table.rows}
    assert theirs == {row.label.partition(" (")[0] for row in rows(config)} - {
        "SAT tuned",
        "IMA, nothing set",
    }


def test_a_page_has_them_below_its_own_tables_and_others_have_none(tmp_path: Path) -> None:
    clean = [Row(i, CLEAN, 0.0, 1.0, kind="clean", more={"label": 0}) for i in range(4)]
    noisy = [Row(i, "pgd-5", 1.0, 1.0, more={"label": 0}) for i in range(4)]
    attacked = Results.of([*clean, *noisy], Settings(norm="L2"))
    entry = Compared("IMA", [attacked], [attacked], [], tmp_path / "none.npz")
    for name, there in (("table5_small", True), ("digits", False)):
        write_comparison(tmp_path / name, [entry], Frame(name, "", "pgd-5"))
        page = (tmp_path / name / "table.md").read_text(encoding="utf-8")
        assert ("Table 5 of the paper" in page) == there
        assert ("90.8" in page) == there
