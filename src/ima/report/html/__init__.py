"""The page that says what noise breaks networks: one file that loads nothing, to send on.

    from ima.report.html import write_report
    write_report([Path("runs/digits")], Path("report.html"))

Also as Markdown and as JSON, by the name of the file. The same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ima.evaluation.stated import NOTHING, Stated
from ima.extras import need
from ima.files import write_text

if TYPE_CHECKING:
    from ima.evaluation.results import Results
    from ima.report.entries import PageEntry
    from ima.report.sources import Source

FORMS = (".html", ".md", ".json")


def write_report(runs: Sequence[Path], out: Path, stated: Stated = NOTHING) -> list[PageEntry]:
    """Write the page of run folders, folders of runs, and results files, and return what is on it.

    stated: goes before what their results say.

    Raises FileNotFoundError for runs without results; ValueError for damaged files, for runs that
    differ in what was measured, norm or data, and for a name that does not end in .html, .md or
    .json.
    """
    from ima.report.entries import read_entries

    _check(out)
    entries = read_entries(runs, stated)
    _save(entries, out)
    return entries


def write_sources(out: Path, sources: Sequence[Source]) -> None:
    """Write the page of networks whose files are read already."""
    from ima.report.entries import group

    _check(out)
    _save(group(sources), out)


def write_page(
    results: Results, path: str | Path, *, title: str = "", stated: Stated = NOTHING
) -> None:
    """Write the page of one evaluation: what noise breaks the network, whole in one file.

    results: of `ima.evaluate`, whatever the task.
    path: its name ends in .html, or in .md or .json for the same content in those forms.
    title: what the network is called; empty: what the results say, or "the network".
    stated: whose page it is, names of classes, limits, the data's unit; before what results say.

    Raises ValueError for another name, for results without a clean pass, and for what is stated and
    does not fit them.

    >>> import ima, pathlib, tempfile, torch
    >>> x, y = torch.rand(6, 2), torch.arange(6) % 3
    >>> data = torch.utils.data.TensorDataset(x, y)
    >>> results = ima.evaluate(torch.nn.Linear(2, 3), data, 0.1, "pgd-2")
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "page.md"
    >>> ima.write_page(results, path, title="my network")
    >>> path.read_text(encoding="utf-8").splitlines()[0]
    '# What noise breaks my network'
    """
    from ima.report.sources import TRAINER, Source

    label = title or results.settings.label.removeprefix(TRAINER) or "the network"
    write_sources(Path(path), [Source(label, {"results": results}).stating(stated)])


def _check(out: Path) -> None:
    if out.suffix.lower() not in FORMS:
        raise ValueError(
            f"cannot write {out.name!r}: expected a name that ends in {', '.join(FORMS)}"
        )
    if out.is_dir():
        raise ValueError(f"cannot write {out}: it is a folder; name a file in it")


def _save(entries: Sequence[PageEntry], out: Path) -> None:
    need("cli")
    from ima.report.html.content import build_page
    from ima.report.html.jsonform import page_json
    from ima.report.html.render import page_html, page_markdown

    form = out.suffix.lower()
    if form == ".json":
        text = page_json(entries)
    else:
        text = (page_html if form == ".html" else page_markdown)(build_page(entries))
    write_text(out, text)
