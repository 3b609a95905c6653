"""CIFAR-10's python batches, which are pickles, read without letting a pickle do anything.

Pickles can call any function of any module. Here only the four names that numpy arrays and bytes
need are admitted, and what stands behind them are stand-ins that note what they were given: not
even numpy's own functions are called before everything has been checked.
"""

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ima.data.base import Sample

WIDTH = 3072  # 3 channels of 32x32 pixels, red, green, blue, each row by row


class _Refused(pickle.UnpicklingError):
    pass


class _Named:
    """What a pickle gets for a global name: callable, and unchangeable."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *arguments: Any) -> Any:
        if self._name == "encode":
            return _encode(*arguments)
        return _Made(self._name, arguments)

    def __setstate__(self, state: Any) -> None:
        raise _Refused(f"it changes {self._name}")


class _Made:
    """What a pickle gets for calling a name: the arguments and the state, unread."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name, self.arguments, self.state = name, arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",  # how Python 3 writes bytes in pickles for Python 2
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        if (module, name) not in NAMES:
            raise _Refused(f"it asks for {module}.{name}, which no image batch needs")
        return _Named(NAMES[module, name])


def read_batch(raw: bytes, shown: str) -> Sample:
    """Images (N, 3, 32, 32), uint8, and labels (N,) of one python batch file.

    `shown` is how errors name the file. Raises `ValueError` for a damaged file, one that asks for
    anything but arrays, lists, numbers and strings, and one that holds something else.
    """
    try:
        # latin1: Python 2's strings, which hold the pixels, come back byte for byte.
        loaded: Any = _Unpickler(io.BytesIO(raw), encoding="latin1").load()
    except _Refused as error:
        raise ValueError(
            f"{shown} is refused: {error}, and it could execute code. Expected an original python "
            "batch of CIFAR-10: fetch it again"
        ) from error
    except Exception as error:  # a damaged pickle raises whatever comes
        raise ValueError(
            f"{shown} cannot be read ({type(error).__name__}: {error}); expected an undamaged "
            "python batch of CIFAR-10: fetch it again"
        ) from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{shown} holds {_kind(loaded)}; expected a dict with data and labels")
    batch: dict[Any, Any] = {_text(key): value for key, value in loaded.items()}
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
    if not (isinstance(data, _Made) and data.name == "array" and isinstance(data.state, tuple)):
        raise ValueError(f"'data' of {shown} is {_kind(data)}; expected a numpy array (N, {WIDTH})")
    state: tuple[Any, ...] = data.state
    if len(state) != 5:
        raise ValueError(f"'data' of {shown} is no array of numpy's; expected (N, {WIDTH})")
    _, shape, dtype, fortran, pixels = state
    code = _text(dtype.arguments[0]) if isinstance(dtype, _Made) and dtype.arguments else None
    if code not in ("u1", "|u1", "uint8"):
        raise ValueError(f"'data' of {shown} is {code or _kind(dtype)}; expected u1, that is uint8")
    if not (
        isinstance(shape, tuple)
        and len(shape) == 2
        and all(type(side) is int for side in shape)
        and shape[0] > 0
        and shape[1] == WIDTH
    ):
        raise ValueError(f"'data' of {shown} has shape {shape!r}; expected (N, {WIDTH})")
    raw = _encode(pixels, "latin1") if isinstance(pixels, str) else pixels
    if not isinstance(raw, bytes) or len(raw) != shape[0] * WIDTH:
        came = f"{len(raw)} bytes" if isinstance(raw, bytes) else _kind(pixels)
        raise ValueError(f"'data' of {shown} has {came}; expected {shape[0]} times {WIDTH} bytes")
    flat = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
    return np.array(flat, order="C").reshape(-1, 3, 32, 32)


def _labels(labels: Any, shown: str) -> NDArray[np.int64]:
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise ValueError(f"'labels' of {shown} is {_kind(labels)}; expected a list of int")
    if not all(0 <= label <= 9 for label in labels):
        raise ValueError(
            f"'labels' of {shown} reach from {min(labels)} to {max(labels)}; expected 0 to 9"
        )
    return np.array(labels, dtype=np.int64)


def _encode(*arguments: Any) -> bytes:
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] != "latin1":
        raise _Refused("it encodes something other than bytes")
    return arguments[0].encode("latin1")


def _text(key: Any) -> Any:
    return key.decode("latin1") if isinstance(key, bytes) else key


def _kind(value: Any) -> str:
    return value.name if isinstance(value, _Made) else type(value).__name__
