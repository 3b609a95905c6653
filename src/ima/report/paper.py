"""The paper's own numbers, to stand beside ours on the pages of its tables.

`paper.json` holds Tables 1, 2 and 4 to 8 of Ma & Liang, in percent, means of three seeds.
"""

from __future__ import annotations

import json
import math
from importlib.resources import files

from ima.report.cells import Average, Table

SIBLINGS = {"hippocampus_small": "table7"}
"""Configs whose name does not tell which table they are the small sibling of."""


def paper_table(name: str) -> Table | None:
    """The paper's table that the config `name` makes, or is a small sibling of; None for others."""
    text = files("ima.report").joinpath("paper.json").read_text(encoding="utf-8")
    made = SIBLINGS.get(name, name.removesuffix("_small"))
    found = json.loads(text).get(made)
    if found is None:
        return None
    small = "" if name == made else " Another network, and more and larger images, than above."
    absent = any(None in row for row in found["rows"])
    caption = (
        f"For comparison: {found['title']} of the paper (Ma & Liang), full size: {found['what']}."
        f"{small}{' Where nothing stands, the training did not converge.' if absent else ''}"
    )
    columns = tuple(found["columns"])
    blocks = ("", *(column.partition(" at ")[0] for column in columns[1:]))
    rows = tuple((label, *map(_cell, values)) for label, *values in found["rows"])
    return Table(("method", *columns), rows, caption, blocks)


def _cell(percent: float | None) -> Average:
    return Average(math.nan if percent is None else percent / 100)
