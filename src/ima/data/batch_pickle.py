"""CIFAR-10's python batches, which are pickles, read as data: nothing in one is called."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ima.data.base import Sample
from ima.inert_array import ARRAY_RULES, array_of
from ima.inert_pickle import PickleError, RefusedError, pickle_kind, read_pickle

WIDTH = 3072  # 3 channels of 32x32 pixels, red, green, blue, each row by row


def _encode(arguments: Any) -> bytes:
    """How Python 3 writes bytes in pickles for Python 2."""
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] != "latin1":
        raise RefusedError("it encodes something other than bytes, and could execute code")
    return arguments[0].encode("latin1")


_RULES = {**ARRAY_RULES, "_codecs.encode": _encode}


def read_batch(raw: bytes, shown: str) -> Sample:
    """Images (N, 3, 32, 32), uint8, and labels (N,) of one python batch file.

    `shown` is how errors name the file. Raises `ValueError` for a damaged file, one that asks for
    anything but arrays, lists, numbers and strings, and one that holds something else.
    """
    try:
        loaded = read_pickle(io.BytesIO(raw), _RULES, only=(*_RULES, "numpy.ndarray"))
    except RefusedError as error:
        raise ValueError(
            f"{shown} is refused: {error}. Expected an original python batch of CIFAR-10: fetch it "
            "again"
        ) from error
    except PickleError as error:
        raise ValueError(
            f"{shown} cannot be read: {error}; expected an undamaged python batch of CIFAR-10: "
            "fetch it again"
        ) from error
    if not isinstance(loaded, dict):
        raise ValueError(
            f"{shown} holds {pickle_kind(loaded)}; expected a dict with data and labels"
        )
    batch = {k.decode("latin1") if isinstance(k, bytes) else k: v for k, v in loaded.items()}
    for key in ("data", "labels"):
        if key not in batch:
            raise ValueError(
                f"{shown} has no {key!r}, only {', '.join(map(str, batch)) or 'nothing'}; expected "
                "a python batch of CIFAR-10"
            )
    images, labels = _pixels(batch["data"], shown), _labels(batch["labels"], shown)
    if len(images) != len(labels):
        raise ValueError(f"{shown} has {len(images)} images but {len(labels)} labels")
    return images, labels


def _pixels(data: Any, shown: str) -> NDArray[np.uint8]:
    told = array_of(data)
    if told is None:
        raise ValueError(
            f"'data' of {shown} is {pickle_kind(data)}; expected a numpy array (N, {WIDTH})"
        )
    if told.code not in ("u1", "uint8"):
        raise ValueError(f"'data' of {shown} is {told.code}; expected u1, that is uint8")
    shape, raw = told.shape, told.raw
    sides = isinstance(shape, tuple) and all(type(side) is int for side in shape)
    if not sides or len(shape) != 2 or shape[0] <= 0 or shape[1] != WIDTH:
        raise ValueError(f"'data' of {shown} has shape {shape!r}; expected (N, {WIDTH})")
    if not isinstance(raw, bytes) or len(raw) != shape[0] * WIDTH:
        came = f"{len(raw)} bytes" if isinstance(raw, bytes) else pickle_kind(raw)
        raise ValueError(f"'data' of {shown} has {came}; expected {shape[0]} times {WIDTH} bytes")
    flat = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if told.fortran else "C")
    return np.array(flat, order="C").reshape(-1, 3, 32, 32)


def _labels(labels: Any, shown: str) -> NDArray[np.int64]:
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"'labels' of {shown} is {pickle_kind(labels)}; expected a list of int")
    if not all(0 <= label <= 9 for label in labels):
        raise ValueError(
            f"'labels' of {shown} reach from {min(labels)} to {max(labels)}; expected 0 to 9"
        )
    return np.array(labels, dtype=np.int64)
