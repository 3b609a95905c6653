"""What a page is made of, whatever form it is written in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias


@dataclass(frozen=True)
class Two:
    """A cell of a value and, small below it, how sure it is; best of its column or not."""

    value: str
    small: str
    best: bool = False

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Grid:
    """A table: the first column names the rows; `numbers` columns are aligned to the right."""

    kind: ClassVar[str] = "grid"
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Two, ...], ...]
    numbers: bool = True


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    kind: ClassVar[str] = "prose"
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Chart:
    """A figure: its SVG, what it shows in a sentence or two, and its numbers."""

    kind: ClassVar[str] = "chart"
    title: str
    about: str
    svg: str
    grid: Grid


@dataclass(frozen=True)
class PageImage:
    """One image: data URI, in words, caption below, head above; right, wrong or neither."""

    uri: str
    alt: str
    caption: str
    verdict: str = ""
    head: str = ""


@dataclass(frozen=True)
class Strip:
    """One sample as networks see it: a row of pictures for each network."""

    kind: ClassVar[str] = "strip"
    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[PageImage, ...]], ...]
    small: bool
    grid: Grid


@dataclass(frozen=True)
class OverlayPart:
    """Pictures that belong to one network, or to none of them, in rows of `across`."""

    label: str
    pictures: tuple[PageImage, ...]
    across: int


@dataclass(frozen=True)
class Overlay:
    """One slice in parts beside each other; keys: a patch of each class, its name as caption."""

    kind: ClassVar[str] = "overlay"
    title: str
    keys: tuple[PageImage, ...]
    parts: tuple[OverlayPart, ...]
    grid: Grid


@dataclass(frozen=True)
class CheckItem:
    """One trust check: state is raised, quiet or not run; said: the state in words."""

    title: str
    state: str
    sentence: str
    evidence: tuple[str, ...]
    means: str
    do: str

    @property
    def said(self) -> str:
        """The state in words: beside a title that tells the fault, quiet would read as found."""
        return "no sign of it" if self.state == "quiet" else self.state


@dataclass(frozen=True)
class CheckList:
    """The checks of one network."""

    kind: ClassVar[str] = "checks"
    checks: tuple[CheckItem, ...]


@dataclass(frozen=True)
class Code:
    """A file's text, folded away under its title."""

    kind: ClassVar[str] = "code"
    title: str
    text: str


PageBlock: TypeAlias = Grid | Prose | Heading | Chart | Strip | Overlay | CheckList | Code


@dataclass(frozen=True)
class Section:
    """A part of the page with its own heading; anchor: its name in links."""

    anchor: str
    title: str
    blocks: tuple[PageBlock, ...]


@dataclass(frozen=True)
class Tile:
    """One large number with what it is."""

    value: str
    name: str
    small: str


@dataclass(frozen=True)
class Identity:
    """What the page is about, to be signed: names and texts."""

    title: ClassVar[str] = "What this page is about"
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class LimitItem:
    """One limit that was required: met, missed or not measured; in a sentence."""

    state: str
    sentence: str


@dataclass(frozen=True)
class Page:
    """The whole page.

    limits: said first; verdict: paragraphs, after them; tiles: the most important numbers.
    """

    title: str
    identity: Identity
    limits: tuple[LimitItem, ...]
    verdict: tuple[str, ...]
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]

    @property
    def heading(self) -> str:
        """What the first part is: a verdict only where something was required."""
        return "Verdict" if self.limits else "Summary"
