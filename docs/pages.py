"""What the handbook makes from the code: the checks, the methods and all public names.

`mkdocs build` calls these; see `hooks` in mkdocs.yml.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

PICTURES = ("results/equilibrium/equilibrium.png", "results/digits/margins.png")
"""What lies elsewhere, and is shown."""

_WIDTH = 80
"""Characters of a line of code that a page shows whole."""

_PARAMETER = re.compile(r"^(\w+(?:, \w+)*): (.*)")


def on_files(files: Any, config: Any) -> Any:
    """Pictures beside the pages."""
    from mkdocs.structure.files import File

    for picture in PICTURES:
        name = f"pictures/{Path(picture).name}"
        files.append(File.generated(config, name, abs_src_path=str(ROOT / picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with what is made from the code."""
    for mark, make in MADE.items():
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def checks() -> str:
    """Every check: when it trips, why that matters, what to do."""
    from ima.evaluation.checks_table import CHECKS

    return "\n\n".join(
        f"## {row.title} {{: #{row.name} }}\n\n`{row.name}` trips where: {row.raised}\n\n"
        f"**Why it matters.** {row.means}\n\n**What to do.** {row.do}"
        for row in CHECKS.values()
    )


def methods() -> str:
    """A table of the methods, with their papers."""
    from ima.methods import METHODS

    rows = [
        f"| `{row.name}` | {row.summary} | {row.paper} | {'yes' if row.segmentation else ''} |"
        for row in METHODS.values()
    ]
    head = "| name | what it trains on | source | segmentation |\n|---|---|---|---|\n"
    return head + "\n".join(rows)


def keys() -> str:
    """Every key of a config."""
    from ima.training.keys import find_keys

    rows = [
        f"| `{one.name}` | {one.of} | {one.kind} | {one.default} | {one.about} |"
        for one in find_keys()
    ]
    head = "| key | of | takes | default | meaning |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows)


def reference() -> str:
    """Every public name: how it is called, and what its docstring says."""
    import ima

    names = sorted((n for n in ima.__all__ if not n.startswith("_")), key=str.casefold)
    return "\n\n".join(_entry(name, getattr(ima, name)) for name in names)


def _entry(name: str, thing: Any) -> str:
    parts = [f"## {name} {{: #{name.lower()} }}"]
    if callable(thing):
        parts.append(f"```python\n{_call(name, thing)}\n```")
    return "\n\n".join([*parts, described(inspect.getdoc(thing) or "")])


def _call(name: str, thing: Any) -> str:
    try:
        taken = inspect.signature(thing).parameters.values()
    except (TypeError, ValueError):
        return f"{name}(...)"
    words: list[str] = []
    starred = False
    for one in taken:
        if one.name in ("self", "args", "kwargs"):
            continue
        if one.kind == one.KEYWORD_ONLY and not starred:
            words, starred = [*words, "*"], True
        words.append(str(one.replace(annotation=one.empty)))
    line = f"{name}({', '.join(words)})"
    return line if len(line) <= _WIDTH else f"{name}(\n    " + ",\n    ".join(words) + ",\n)"


def described(doc: str) -> str:
    """A docstring as Markdown: parameters as a list, examples as code."""
    found: list[str] = []
    for block in doc.split("\n\n"):
        lines = block.splitlines()
        if block.startswith(">>>"):
            found.append(f"```python\n{block}\n```")
        elif lines and _PARAMETER.match(lines[0]):
            found.append("\n".join(_items(lines)))
        elif len(lines) > 1 and set(lines[1]) == {"-"}:
            found.append(f"**{lines[0]}**\n\n" + _terms(lines[2:]))
        else:
            found.append(block)
    return "\n\n".join(found)


def _items(lines: list[str]) -> list[str]:
    items: list[str] = []
    for line in lines:
        if match := _PARAMETER.match(line):
            items.append(f"- **{match[1]}**: {match[2]}")
        else:
            items[-1] += " " + line.strip()
    return items


def _terms(lines: list[str]) -> str:
    items: list[str] = []
    for line in lines:
        if line and not line.startswith(" "):
            items.append(f"- **{line.partition(':')[0]}**:")
        elif items:
            items[-1] += " " + line.strip()
    return "\n".join(items)


MADE: dict[str, Callable[[], str]] = {
    "<!-- checks -->": checks,
    "<!-- methods -->": methods,
    "<!-- keys -->": keys,
    "<!-- reference -->": reference,
}
