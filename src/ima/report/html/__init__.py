"""The page that says what noise breaks networks: one file that loads nothing, to send on.

    from ima.report.html import make
    make([Path("runs/digits")], Path("report.html"))

Also as Markdown and as JSON, by the name of the file. The same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ima.files import write_text

if TYPE_CHECKING:
    from ima.report.html.entries import Entry
    from ima.report.html.sources import Source
    from ima.report.segmented import Segmented

FORMS = (".html", ".md", ".json")


def make(runs: Sequence[Path], out: Path) -> None:
    """Write the page of run folders, folders of runs, and results files.

    Evaluations of segmentation networks make a page of their own kind. Raises FileNotFoundError
    for runs without results; ValueError for damaged files, for runs that differ in norm or data,
    for both kinds at once, and for a name that does not end in .html, .md or .json.
    """
    from ima.report.html import segmentation
    from ima.report.html.entries import read

    _check(out)
    segmented = segmentation.read(runs)
    if segmented:
        write_segmented(out, segmented)
    else:
        _save(read(runs), out)


def write(out: Path, sources: Sequence[Source]) -> None:
    """Write the page of networks whose files are read already."""
    from ima.report.html.entries import group

    _check(out)
    _save(group(sources), out)


def write_segmented(out: Path, runs: Sequence[Segmented]) -> None:
    """Write the page of segmentation networks whose files are read already."""
    from ima.report.html import segmentation
    from ima.report.html.render import to_html, to_markdown
    from ima.report.segmentation_json import to_json

    _check(out)
    form = out.suffix.lower()
    if form == ".json":
        write_text(out, to_json(runs))
    else:
        write_text(out, (to_html if form == ".html" else to_markdown)(segmentation.build(runs)))


def _check(out: Path) -> None:
    if out.suffix.lower() not in FORMS:
        raise ValueError(f"cannot write {out.name!r}: expected a name that ends in {FORMS}")
    if out.is_dir():
        raise ValueError(f"cannot write {out}: it is a folder; name a file in it")


def _save(entries: Sequence[Entry], out: Path) -> None:
    from ima.report.html.content import build
    from ima.report.html.render import to_html, to_markdown
    from ima.report.jsonform import to_json

    form = out.suffix.lower()
    if form == ".json":
        text = to_json(entries)
    else:
        text = (to_html if form == ".html" else to_markdown)(build(entries))
    write_text(out, text)
