"""What leaves the figures of a page in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ima.evaluation.remarks import united
from ima.report.html.blocks import Prose, Tile
from ima.report.html.entries import Entry


def doubts(entries: Sequence[Entry]) -> list[str]:
    """The remarks on all files of the entries, as sentences, each once."""
    return united(
        (entry.label if len(entries) > 1 else "", file.remarks)
        for entry in entries
        for source in entry.sources
        for file in (*source.results.values(), source.distances, source.own_checks)
        if file is not None
    )


def doubted(tiles: Sequence[Tile], remarks: Sequence[str]) -> tuple[Tile, ...]:
    """The tiles, which say that they are in doubt where there are remarks."""
    if not remarks:
        return tuple(tiles)
    return tuple(replace(tile, small=f"{tile.small}; in doubt, see the remark") for tile in tiles)


def said(remarks: Sequence[str]) -> tuple[Prose, ...]:
    """The remarks as paragraphs."""
    return tuple(map(Prose, remarks))
