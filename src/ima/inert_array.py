"""Arrays of numpy's in pickles that are read as data, see `inert_pickle`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ima.inert_pickle import MadeObject, PickleRule, pickle_kind

ARRAY_RULES: Mapping[str, PickleRule] = {
    "numpy.core.multiarray._reconstruct": lambda a: MadeObject("array", a),
    "numpy._core.multiarray._reconstruct": lambda a: MadeObject("array", a),
    "numpy.dtype": lambda a: MadeObject("dtype", a),
}
"""What stands for the calls that arrays of numpy's need, see `array_of`."""


@dataclass(frozen=True)
class Array:
    """What a pickle tells of an array of numpy's, unchecked. raw: its bytes."""

    shape: Any
    code: str
    order: Any
    fortran: bool
    raw: Any


def array_of(value: Any) -> Array | None:
    """The array that `ARRAY_RULES` made, None for anything else."""
    state = value.state if isinstance(value, MadeObject) and value.by == "array" else None
    if not (isinstance(state, tuple) and len(state) == 5):
        return None
    _, shape, dtype, fortran, raw = state
    told = isinstance(dtype, MadeObject) and isinstance(dtype.arguments, tuple)
    code = dtype.arguments[0] if told and dtype.arguments else pickle_kind(dtype)
    order = dtype.state[1] if told and isinstance(dtype.state, tuple) else "|"
    # Python 2 has no other texts than bytes.
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    return Array(shape, _text(code).lstrip("<|="), order, bool(fortran), raw)


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
