"""YAML read with limits: nothing in a file can execute, fill the memory, or be taken silently.

PyYAML's safe loader, which in addition refuses keys that are there twice, deep nesting, and aliases
that stand for more than a config ever holds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.error import Mark, MarkedYAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

MOST_BYTES = 1 << 18
"""Of a file: the longest config that comes with the library has 3000."""

MOST_VALUES = 20_000
"""Keys and values of a file, those that an alias stands for counted each time."""

DEEPEST = 50
"""Levels of lists and groups."""

MOST_BITS = 64
"""Of a whole number, as of those that are saved."""

TAG = "tag:yaml.org,2002:"

MERGE = f"{TAG}merge"

_OTHER = frozenset(f"{TAG}{name}" for name in ("binary", "set", "omap", "pairs"))
"""Types that no config holds, and that pass for text or for a list."""

OCTAL = re.compile(r"[-+]?0[0-7_]+")
"""What YAML reads as a number of base 8, and everybody else as one of base 10."""


class YamlError(ValueError):
    """Text that is not taken as YAML; says where it stands and what is wrong."""


def read_mapping(path: Path) -> dict[Any, Any]:
    """The keys and values of a YAML file.

    Raises YamlError, which names file and line, for what is no YAML or holds something else,
    OSError of the system's kind for a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except IsADirectoryError as error:
        raise YamlError(f"{path} is a folder; expected a YAML file") from error
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise (type(error) if isinstance(error, OSError) else YamlError)(
            f"{path} cannot be read ({told}); expected a YAML file"
        ) from error
    if len(raw) > MOST_BYTES:
        raise YamlError(
            f"{path} has more than {MOST_BYTES} bytes; expected the keys and values of a config"
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise YamlError(
            f"{path} is not YAML: line {line} holds bytes that are not UTF-8; save it as UTF-8"
        ) from error
    try:
        values = parse(text)
    except YamlError as error:
        raise YamlError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise YamlError(f"{path} holds {type(values).__name__}; expected keys and values")
    return values


def parse(text: str) -> Any:
    """The value that YAML text stands for; YamlError, which names the line, for other text."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except ReaderError as error:
        # Of text, `position` counts characters, and `character` is a number.
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(
            f"line {line} holds the character {chr(error.character)!r}, which YAML does not allow"
        ) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(f"{_line(mark)}: {said}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise YamlError(str(error)) from error
    finally:
        if loader is not None:
            loader.dispose()


def _plain(value: Any) -> Any:
    """The value; ValueError for one that cannot be written down again."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise ValueError(f"it has more than {MOST_BITS} bits")
    if isinstance(value, str):
        value.encode()  # half of a pair of surrogates, as in "\\ud800", has no UTF-8
    return value


def _other_number(node: ScalarNode) -> str:
    """Why a number is refused that YAML reads otherwise than people do; "" for all else."""
    text = node.value
    if node.tag not in (f"{TAG}int", f"{TAG}float"):
        return ""
    if ":" in text:
        words = "YAML takes colons for base 60: write one number, or put text in quotes"
    elif node.tag == f"{TAG}int" and OCTAL.fullmatch(text) and int(text, 8) != int(text):
        words = "YAML takes a leading 0 for base 8: leave it out, or put text in quotes"
    else:
        return ""
    return f"{_short(text)} cannot be read: {words}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _line(mark: Mark | None) -> str:
    return "line ?" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"


class _Loader(yaml.SafeLoader):
    """The safe loader, which counts what it composes, and reads every value or says its line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.values = 0
        self.sizes: dict[int, int] = {}

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()
        if self.depth >= DEEPEST:
            self._refuse(f"more than {DEEPEST} lists or groups lie in one another", event)
        alias = self.check_event(yaml.AliasEvent)
        before = self.values
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if alias:
            # Not there yet while the list or group that it names is still open.
            if id(node) not in self.sizes:
                self._refuse(f"*{event.anchor} stands inside of what it names", event)
            self.values += self.sizes[id(node)]
        else:
            self.values += 1
            self.sizes[id(node)] = self.values - before
        if self.values > MOST_VALUES:
            self._refuse(
                f"there are more than {MOST_VALUES} keys and values"
                + (", those that an alias (*) stands for counted each time" if self.anchors else "")
                + "; expected a config",
                event,
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[Any, Mark] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                self._refuse("a key is a list or a group; expected text or a number", key)
            value = "<<" if key.tag == MERGE else self.construct_object(key)
            if value in seen:
                line = seen[value].line + 1
                self._refuse(f"the key {value!r} is there twice, first in line {line}", key)
            seen[value] = key.start_mark
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        if node.tag in _OTHER:
            self._refuse(f"!!{node.tag.removeprefix(TAG)} is nothing that a config holds", node)
        if isinstance(node, ScalarNode) and (other := _other_number(node)):
            self._refuse(other, node)
        try:
            return _plain(super().construct_object(node, deep))
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            # A date such as 2024-13-45, a number of 5000 digits, a tag that its value does not fit.
            shown = node.value if isinstance(node, ScalarNode) else node.tag
            # Python's own advice on long numbers is none for who writes a config.
            long = "set_int_max_str_digits" in str(error)
            told = f"it has more than {MOST_BITS} bits" if long else error or type(error).__name__
            self._refuse(f"{_short(shown)} cannot be read ({told})", node)

    def flatten_mapping(self, node: MappingNode) -> None:
        for key, value in node.value:
            merged = value.value if isinstance(value, SequenceNode) else [value]
            if key.tag == MERGE and not all(isinstance(one, MappingNode) for one in merged):
                self._refuse("<< takes a group, or a list of groups", key)
        super().flatten_mapping(node)

    def _refuse(self, problem: str, at: Any) -> Any:
        raise MarkedYAMLError(problem=problem, problem_mark=at.start_mark)
