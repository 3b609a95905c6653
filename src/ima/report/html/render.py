"""The page as HTML and as Markdown."""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING

import ima
from ima.report import tables
from ima.report.html.blocks import (
    Chart,
    CheckList,
    Code,
    Grid,
    Heading,
    Overlay,
    Page,
    Prose,
    Strip,
    Two,
)
from ima.report.html.charts import inline

if TYPE_CHECKING:
    from ima.report.html.blocks import PageBlock

_MARKDOWN = re.compile(r"([\\*_{}\[\]<>|~$&#])")


def page_html(page: Page) -> str:
    """One file: no script, nothing loaded, styles and pictures inside."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = resources.files("ima.report.html")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    number = iter(range(1, 10_000))

    def svg(chart: Chart) -> Markup:
        # Already markup, with title and text escaped where they are put in.
        return Markup(inline(chart.svg, f"c{next(number)}", chart.title, chart.about))

    environment.filters["code"] = _code
    template = environment.from_string((here / "page.html.jinja").read_text(encoding="utf-8"))
    style = Markup((here / "page.css").read_text(encoding="utf-8"))
    names = (f"id{n}" for n in range(1, 10_000))
    return template.render(
        page=page, style=style, svg=svg, name=lambda: next(names), version=ima.__version__
    )


def _code(text: str) -> str:
    """Text with what stands between backquotes set as code."""
    from markupsafe import Markup, escape

    plain, *rest = text.split("`")
    if len(rest) % 2:
        return escape(text)
    parts = [escape(plain)]
    for code, after in zip(rest[::2], rest[1::2], strict=True):
        parts += [Markup("<code>{}</code>").format(code), escape(after)]
    return Markup("").join(parts)


def page_markdown(page: Page) -> str:
    """The same content in GitHub's Markdown; figures as their numbers."""
    lines = [f"# {_text(page.title)}", f"## {page.heading}"]
    lines += [f"**{_text(limit.sentence)}**" for limit in page.limits]
    lines += map(_text, page.verdict)
    signed = (f"- **{_text(name)}:** {_text(text)}" for name, text in page.identity.lines)
    lines += [f"## {page.identity.title}"]
    lines.append("\n".join([*signed, "- **Name, date and signature:** ..."]))
    for section in page.sections:
        lines.append(f"## {_text(section.title)}")
        for block in section.blocks:
            lines += _block(block)
    lines.append(f"Made by ima {ima.__version__}.")
    return "\n\n".join(line.rstrip("\n") for line in lines) + "\n"


def _block(block: PageBlock) -> list[str]:
    if isinstance(block, Prose):
        return [_text(block.text)]
    if isinstance(block, Heading):
        return [f"### {_text(block.text)}"]
    if isinstance(block, Grid):
        return [_grid(block)]
    if isinstance(block, Chart):
        return [f"### {_text(block.title)}", _text(block.about), _grid(block.grid)]
    if isinstance(block, Strip | Overlay):
        return [f"### {_text(block.title)}", _grid(block.grid)]
    if isinstance(block, CheckList):
        return ["\n".join(_check_lines(block))]
    assert isinstance(block, Code)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
    return [f"### {_text(block.title)}", f"{fence}yaml\n{block.text.rstrip()}\n{fence}"]


def _check_lines(block: CheckList) -> list[str]:
    lines: list[str] = []
    for check in block.checks:
        lines.append(f"- **{_text(check.title)}: {check.said}.** {_text(check.sentence)}")
        lines += [
            f"  - {name}: {_text(text)}"
            for name, text in (("Means", check.means), ("Do", check.do))
            if text and check.state == "raised"
        ]
        lines += [f"  - {_text(one)}" for one in check.evidence]
    return lines


def _grid(grid: Grid) -> str:
    rows = tuple(
        tuple(f"{c.value} ({c.small})" if isinstance(c, Two) and c.small else str(c) for c in row)
        for row in grid.rows
    )
    columns = tuple(name or " " for name in grid.columns)
    return tables.to_markdown(tables.Table(columns, rows, grid.caption + "."))


def _text(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split(" ")).replace("\n", " "))
