"""YAML of strangers: refused with file and line, before it takes memory or time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ima.plain_yaml import DEEPEST, MOST_BYTES, YamlError, parse, read_mapping
from ima.report.sources import _yaml  # pyright: ignore[reportPrivateUsage]
from ima.training.config import load_config
from ima.training.config_errors import ConfigError, packaged
from ima.training.run import Run


def laughs(first: str, row: str) -> str:
    """Ten rows, each of nine aliases to the one before: 9 ** 9 values in 1 kB."""
    rows = [f"a0: &a0 {first}"]
    rows += [f"a{i}: &a{i} {row % ', '.join([f'*a{i - 1}'] * 9)}" for i in range(1, 10)]
    return "\n".join(rows)


REFUSED = {
    "aliases of lists": (laughs("[x, x, x]", "[%s]"), "line 5.* more than 20000"),
    "aliases of merges": (laughs("{x: 1}", "{<<: [%s]}"), "more than 20000"),
    "alias of itself": ("a: &a [*a]", "line 1.*stands inside of what it names"),
    "group of itself": ("a: &a {b: *a}", "line 1.*stands inside of what it names"),
    "unknown alias": ("a: *b", "line 1.*undefined alias"),
    "key twice": ("a: 1\nb: 2\na: 3", "line 3.* 'a' is there twice, first in line 1"),
    "deep key twice": ("a:\n  b: 1\n  b: 1", "line 3.* 'b' is there twice, first in line 2"),
    "key twice in a list": ("a: [{b: 1, b: 2}]", "line 1.* 'b' is there twice"),
    "quoted key twice": ("a: 1\n'a': 2", "line 2.* 'a' is there twice"),
    "number twice": ("a: {1: 2, 0x1: 3}", "the key 1 is there twice"),
    "merge twice": ("a: &a {b: 1}\nc: {<<: *a, <<: *a}", "'<<' is there twice"),
    "brackets": ("[" * 5000, f"line 1.* more than {DEEPEST} lists or groups"),
    "braces": ("{" * 5000, f"more than {DEEPEST} lists or groups"),
    "dashes": ("- " * 5000, f"more than {DEEPEST} lists or groups"),
    "questions": ("? " * 5000, f"more than {DEEPEST} lists or groups"),
    "indented": ("".join(" " * i + "a:\n" for i in range(200)), f"line {DEEPEST}.* more than"),
    "code": ("a: !!python/object/apply:os.system [true]", "line 1.* constructor"),
    "tab": ("a: 1\n\tb: 2", "line 2"),
    "control character": ("a: 1\nb: \x01", r"line 2 holds the character '\\x01'"),
    "no date": ("a: 1\nb: 2024-13-45", "line 2.* '2024-13-45' cannot be read"),
    "long number": ("a: " + "9" * 5000, "line 1.* cannot be read .it has more than 64 bits"),
    "long number in hex": ("a: 0x" + "f" * 5000, "line 1.* cannot be read .*64 bits"),
    "long number in sixties": ("a: 1" + ":1" * 3000, "line 1.* base 60"),
    "minutes": ("a: 1\nb: 1:30", "line 2.* '1:30' cannot be read: .* base 60"),
    "minutes of a fraction": ("a: 1\nb: 1:30.5", "line 2.* '1:30.5' .* base 60"),
    "minutes as a key": ("a: 1\n1:30: 2", "line 2.* '1:30' .* base 60"),
    "number of base 8": ("a: 1\nb: 010", "line 2.* '010' .* base 8"),
    "bytes": ("a: 1\nb: !!binary aGVs", "line 2.* !!binary is nothing that a config holds"),
    "set": ("a: 1\nb: !!set {x, y}", "line 2.* !!set is nothing"),
    "pairs": ("a: 1\nb: !!pairs [x: 1]", "line 2.* !!pairs is nothing"),
    "ordered": ("a: 1\nb: !!omap [x: 1]", "line 2.* !!omap is nothing"),
    "half a pair": ('a: "\\ud800"', "line 1.* cannot be read"),
    "empty number": ("a: !!int ''", "line 1.* cannot be read"),
    "no truth": ("a: !!bool maybe", "line 1.* cannot be read"),
    "list as key": ("? [1, 2]\n: 3", "line 1.* expected text or a number"),
    "merge of a number": ("a: {<<: 3}", "line 1.*<< takes a group"),
    "two documents": ("a: 1\n---\nb: 2", "line 2.* another document"),
    "open": ("a: [1,\nb: 2", "line 2"),
    "many values": ("a: [" + "1, " * 30_000 + "]", "more than 20000"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_its_line(case: str, tmp_path: Path) -> None:
    text, words = REFUSED[case]
    with pytest.raises(YamlError, match=f"(?s){words}"):
        parse(text)
    path = tmp_path / "my config ä.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(YamlError, match=f"(?s)my config ä.yaml is not YAML: .*{words}"):
        read_mapping(path)


FILES: dict[str, tuple[bytes | None, str]] = {
    "not UTF-8": (b"a: 1\nb: \xff", "is not YAML: line 2 holds bytes that are not UTF-8"),
    "UTF-16": ("a: 1".encode("utf-16"), "is not YAML: line 1 holds bytes that are not UTF-8"),
    "large": (b"#" * (MOST_BYTES + 1), f"has more than {MOST_BYTES} bytes"),
    "list": (b"- 1", "holds list; expected keys and values"),
    "empty": (b"", "holds NoneType; expected keys and values"),
    "folder": (None, "is a folder; expected a YAML file"),
}


def as_run(path: Path) -> object:
    return Run(path.parent).config()


ENTRANCES: dict[str, Callable[[Path], object]] = {
    "config": load_config,
    "run": as_run,
    "page": _yaml,
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("case", [*FILES, *list(REFUSED)[:8]])
def test_every_entrance_names_the_file(case: str, entrance: str, tmp_path: Path) -> None:
    content, words = FILES[case] if case in FILES else (REFUSED[case][0].encode(), REFUSED[case][1])
    path = tmp_path / "config.yaml"
    if content is None:
        path.mkdir()
        words = words if entrance != "config" else "is a folder; name a config file"
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"(?s)config.yaml.*{words}"):
        ENTRANCES[entrance](path)


def test_a_missing_file_keeps_its_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml cannot be read"):
        read_mapping(tmp_path / "absent.yaml")


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no config file"):
        load_config("x" * 5000)


@pytest.mark.parametrize("value", ["[" * 5000, laughs("[x]", "[%s]"), "{a: 1, a: 2}", "\t"])
def test_overrides_pass_the_same_reader(value: str) -> None:
    with pytest.raises(ConfigError, match=r"method.eps: the value .* is not YAML: line"):
        load_config("digits", [f"method.eps={value}"])


@pytest.mark.parametrize(
    "text",
    [
        "a: &x {k: 1, j: [1, 2]}\nb: {<<: *x, k: 3}\nc: *x",
        "a: &x {k: 1}\nb: &y {j: 2}\nc: {<<: [*x, *y], j: 4}",
        "a: &x {<<: {q: 1}, r: 1}\nb: {<<: *x, r: 2}",
        "\ufeffa: 1.5\nb: null\nc: yes\nd: 0x1f\ne: 2024-01-02\nf: 'é'",
        "a: 007\nb: '1:30'\nc: '010'\nd: 0\ne: 1_000\nf: on",
        "3",
        "",
    ],
)
def test_what_is_meant_is_read_as_by_pyyaml(text: str) -> None:
    expected: Any = yaml.safe_load(text)
    assert parse(text) == expected


@pytest.mark.parametrize("name", packaged())
def test_packaged_configs_are_read_as_by_pyyaml(name: str) -> None:
    path = packaged()[name]
    assert read_mapping(path) == yaml.safe_load(path.read_text(encoding="utf-8"))
