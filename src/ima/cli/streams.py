"""What is printed arrives on every output: plain letters where it has no others, a quiet end."""

from __future__ import annotations

import codecs
import json
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from io import TextIOWrapper

CLOSED = 141
"""Exit code where whoever read the output has stopped, as a shell reports it (128 + SIGPIPE)."""

PLAIN = {
    "₂": "2",
    "₁": "1",
    "₀": "0",
    "∞": "inf",
    "±": "+-",
    "ε": "eps",
    "δ": "delta",
    "×": "x",
    "·": "*",
    "–": "-",
    "—": "-",
    "−": "-",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "…": "...",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
}
"""Letters of the tables and pages, in ASCII."""

ERRORS = "ima.plain"
"""The name under which Python's codecs know it."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    # Such as a name of a class: as an escape that tells which letter it was.
    found = [
        PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode()
        for letter in error.object[error.start : error.end]
    ]
    return "".join(found), error.end


def print_anywhere() -> None:
    """Let the outputs write what their encoding has no letter for in plain letters.

    One that was closed from the start takes what is printed, and drops it.
    """
    codecs.register_error(ERRORS, _plain)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors=ERRORS)


def as_json(value: object) -> str:
    """A value as JSON, for programs."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


@contextmanager
def aside(wanted: bool) -> Generator[None]:
    """Within, and where it is wanted: what is printed goes to the standard error."""
    if not wanted:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def check_words(words: Sequence[str]) -> None:
    """Raise ValueError for an argument that is no text, and no file that is there."""
    for word in words:
        # Bytes that the encoding does not know come as halves of pairs, which no file can hold.
        if any("\ud800" <= letter <= "\udfff" for letter in word) and not os.path.lexists(word):
            encoding = sys.getfilesystemencoding()
            raise ValueError(
                f"{word!a} is no text in {encoding}, in which this system hands it over; "
                + (
                    "write it in UTF-8"
                    if encoding == "utf-8"
                    else "set PYTHONUTF8=1, or a locale of UTF-8 such as LC_ALL=C.UTF-8"
                )
            )


def drop_output() -> None:
    """Send to nowhere what is still to be printed, so that Python's end does not complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        # A test's output is no file.
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
