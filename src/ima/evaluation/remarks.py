"""Remarks: plain sentences about what leaves the figures of an evaluation in doubt.

They stand among an evaluation's settings, so that files carry them. Readable without torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

from ima.doubt import Doubt


def united(each: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """The remarks of several networks, by label, as sentences; of one whose label is empty too."""
    found = dict.fromkeys((label, remark) for label, remarks in each for remark in remarks)
    return [f"Remark{f' on {label}' if label else ''}: {remark}." for label, remark in found]


def capital(text: str) -> str:
    """The text with its first letter as at the start of a sentence."""
    return text[:1].upper() + text[1:]


@contextmanager
def said_beside() -> Generator[None]:
    """Within: no warnings of doubts, because the remarks are printed beside the figures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Doubt)
        yield


def warn(remarks: Sequence[str], stacklevel: int) -> None:
    """Warn once of all remarks; of nothing where there are none."""
    if remarks:
        text = ". Also: ".join(remarks)
        warnings.warn(f"the figures are in doubt: {text}.", Doubt, stacklevel=stacklevel + 1)
