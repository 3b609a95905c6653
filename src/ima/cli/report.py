"""`ima report RUNS`: what noise breaks networks, as one page to send on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ima.cli.limits import STATED, decide
from ima.evaluation.stated import NOTHING, Stated


def report(
    *runs: Path,
    out: Path = Path("report.html"),
    stated: Annotated[Stated, STATED] = NOTHING,
) -> None:
    """Write a page about evaluated networks, to send on.

    Parameters
    ----------
    runs:
        Folders of runs, folders that hold several (such as a comparison's), or results files. For
        segmentation: folders of `ima evaluate --nnunet`, or trained folders that hold them.
    out:
        The page, one file that loads nothing else. A name that ends in .md or .json gives the same
        as Markdown or JSON.
    stated:
        What is stated goes before what was stated when the networks were evaluated.

    """
    from ima.report.html import write_report

    entries = write_report(runs, out, stated)
    print(out)
    decide(entries)
