"""`ima report RUNS`: what noise breaks networks, as one page to send on."""

from __future__ import annotations

from pathlib import Path


def report(*runs: Path, out: Path = Path("report.html")) -> None:
    """Write a page about evaluated networks: what noise leaves, curves, samples, margins, checks.

    Parameters
    ----------
    runs:
        Folders of runs, or of several runs such as those of a comparison; results files too; of
        `ima evaluate --nnunet`, or trained folders that hold these.
    out:
        The page, one file that loads nothing; the same as Markdown or JSON where the name ends in
        .md or .json.

    """
    from ima.report.html import make

    make(runs, out)
    print(out)
