"""What the handbook makes from the house: tables, code of examples, the reference, the notebook.

A line `<!-- NAME -->` becomes what `MADE` makes, and `<!-- code: FILE NAME -->` the function or
class of that name. MkDocs calls `on_files` and `on_page_markdown`, see `hooks` in mkdocs.yml; the
tests call `expand`.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

PICTURES = {
    f"pictures/{Path(place).name}": ROOT / place
    for place in ("results/equilibrium/equilibrium.png", "results/digits/margins.png")
}
"""What pages show and lies elsewhere."""

NOTEBOOK, PAGE = "first.ipynb", "first.md"
"""The notebook, and the page that it becomes."""

CHAPTERS = {
    "Train": ("ima.methods", "ima.training", "ima.data", "ima.margins"),
    "Evaluate": ("ima.evaluation", "ima.report", "ima.budget", "ima.doubt"),
    "Attack": ("ima.attacks",),
    "What outputs and noise mean": ("ima.tasks", "ima.norms"),
}
"""The chapters of the reference, by where names are at home."""

_WIDTH = 80
"""Characters of a line of code that a page shows whole."""

_ENTRY = re.compile(r"([a-z_]\w*(?:\(.*?\))?(?: -> [^:]+?)?(?:, [a-z_]\w*)*): +(\S.*)")


def on_files(files: Any, config: Any) -> Any:
    """The handbook's files, with pictures from elsewhere and the notebook as a page."""
    from mkdocs.structure.files import File

    for name, path in PICTURES.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    files.append(File.generated(config, PAGE, content=notebook()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """A page with what is made; others link the notebook as a page."""
    if page.file.src_uri != PAGE:
        markdown = markdown.replace(f"]({NOTEBOOK})", f"]({PAGE})")
    return expand(markdown)


def expand(markdown: str) -> str:
    """A page with what is made; KeyError for what nothing makes."""
    markdown = re.sub(r"^<!-- (\w+) -->$", lambda m: MADE[m[1]](), markdown, flags=re.M)
    return re.sub(r"^<!-- code: (\S+) (\w+) -->$", lambda m: part(m[1], m[2]), markdown, flags=re.M)


def part(file: str, name: str) -> str:
    """A function or class of an example, as a block of code; ValueError where there is none."""
    text = (ROOT / file).read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return f'```python title="{file}"\n{ast.get_source_segment(text, node)}\n```'
    raise ValueError(f"{file} has no function or class {name}")


def notebook() -> str:
    """The notebook as a page: its texts, its code, and what came out when it was last run."""
    told: list[str] = []
    for cell in json.loads((ROOT / "docs" / NOTEBOOK).read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        told.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            if "text" in output:
                told.append(f"```text\n{''.join(output['text']).rstrip()}\n```")
            elif image := output["data"].get("image/png"):
                data = f"data:image/png;base64,{image.strip()}"
                told.append(f'<img alt="What came out" src="{data}">')
    return "\n\n".join([*told, f"[This page as a notebook]({NOTEBOOK}), to run."])


def table(head: str, rows: Iterator[tuple[str, ...]]) -> str:
    """Rows of cells below a head, which separates its cells by `|`."""
    lines = [head, "|".join("---" for _ in head.split("|")), *map(" | ".join, rows)]
    return "\n".join(f"| {line} |" for line in lines)


def checks() -> str:
    """Every check: when it trips, what that means, what to do."""
    from ima.evaluation.checks_table import CHECKS

    return "\n\n".join(
        f"### `{row.name}`: {row.title[:1].lower()}{row.title[1:]} {{ #check-{row.name} }}\n\n"
        f"**Trips when:** {row.raised}\n\n**What it means:** {row.means}\n\n"
        f"**What to do:** {row.do}"
        for row in CHECKS.values()
    )


def methods() -> str:
    """Every method: its class, what it trains on, its paper."""
    from ima.methods import METHODS

    rows = (
        (
            f"`{row.name}`",
            f"[`{row.method.__name__}`](reference.md#ima.{row.method.__name__})",
            row.summary,
            row.paper.strip("-"),
            "yes" if row.segmentation else "no",
        )
        for row in METHODS.values()
    )
    return table("name | class | trains on | paper | segmentation", rows)


def attacks() -> str:
    """Every attack, with its default steps."""
    from ima.evaluation.attacks import ATTACKS

    rows = ((f"`{r.label}`", r.summary, r.paper.strip("-")) for r in ATTACKS.values())
    return table("attack | what it does | paper", rows)


def networks() -> str:
    """Every network that comes with the library."""
    from ima.networks import NETWORKS

    rows = ((f"`{r.name}`", r.summary, r.paper.strip("-")) for r in NETWORKS.values())
    return table("network | what it is | source", rows)


def keys() -> str:
    """Every key of a config."""
    from ima.training.keys import find_keys

    rows = ((f"`{key.name}`", key.of, key.kind, key.default, key.about) for key in find_keys())
    return table("key | of | takes | default | meaning", rows)


def reference() -> str:
    """Every public name, by chapters: how it is called, and what its docstring says."""
    import ima

    told: list[str] = []
    for chapter, places in CHAPTERS.items():
        told.append(f"## {chapter}")
        names = sorted((n for n, h in ima._HOMES.items() if h.startswith(places)), key=str.casefold)
        told += [_entry(name, getattr(ima, name)) for name in names]
    return "\n\n".join(told)


def _entry(name: str, thing: Any) -> str:
    head = f"### `{name}` {{ #ima.{name} }}"
    if not callable(thing):
        return f"{head}\n\nA [`Norm`](#ima.Norm): noise in {name}."
    told = [head, f"```python\n{_call(name, thing)}\n```", described(inspect.getdoc(thing) or "")]
    if inspect.isclass(thing) and (members := list(_members(thing))):
        told += ["**What it has**", "\n".join(members)]
    return "\n\n".join(told)


def _members(thing: type) -> Iterator[str]:
    """Methods and properties that no base of a class has, a line each: the first sentence."""
    for name, member in sorted(vars(thing).items()):
        if name.startswith("_") or any(hasattr(base, name) for base in thing.__mro__[1:]):
            continue
        if not (callable(member) or isinstance(member, staticmethod | property)):
            continue
        said = (inspect.getdoc(member) or "").partition("\n\n")[0].replace("\n", " ")
        call = name if isinstance(member, property) else _call(name, member, width=1000)
        yield f"- `{call}`: {_plain(said)}"


def _call(name: str, thing: Any, width: int = _WIDTH) -> str:
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
    return line if len(line) <= width else f"{name}(\n    " + ",\n    ".join(words) + ",\n)"


def described(doc: str) -> str:
    """A docstring as Markdown: parameters as a list, examples as code."""
    found: list[str] = []
    for block in doc.strip().split("\n\n"):
        lines: list[str] = []
        # What the command line reads too has a head above its parameters.
        for line in block.removeprefix("Parameters\n----------\n").splitlines():
            # What is indented goes on with the line above.
            if line.startswith(" ") and lines and not block.startswith(">>>"):
                lines[-1] += f" {line.strip()}"
            else:
                lines.append(line)
        if block.startswith(">>>"):
            found.append("\n".join(["```pycon", *lines, "```"]))
        else:
            found.append("\n".join(_line(line, lines) for line in lines))
    return "\n\n".join(found)


def _line(line: str, block: list[str]) -> str:
    if (entry := _ENTRY.fullmatch(line)) is None:
        return _plain(line)
    # A list must not begin in the middle of a paragraph.
    first = block.index(line)
    gap = "\n" if first and _ENTRY.fullmatch(block[first - 1]) is None else ""
    return f"{gap}- `{entry[1].replace('`', '')}`: {_plain(entry[2])}"


def _plain(text: str) -> str:
    """Text whose stars, underscores and angle brackets mean themselves, but in code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if place % 2 else re.sub(r"([*_<])", r"\\\1", part) for place, part in enumerate(parts)
    )


MADE: dict[str, Callable[[], str]] = {
    made.__name__: made for made in (checks, methods, attacks, networks, keys, reference)
}
