"""Tensors of a file that are not read yet, as pickles describe them: PyTorch's and numpy's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ima.inert_array import ARRAY_RULES, array_of
from ima.inert_pickle import MadeObject, NamedGlobal, PickleError, PickleRule

STORAGES: dict[str, torch.dtype] = {
    **{name: getattr(torch, name.lower()) for name in ("Double", "Float", "Half", "BFloat16")},
    **{name: getattr(torch, name.lower()) for name in ("Long", "Int", "Short", "Bool")},
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Untyped": torch.uint8,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
"""Types of PyTorch's storages, by what their classes' names begin with."""

NUMPY = {
    code: torch.from_numpy(np.empty(0, code)).dtype
    for code in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1")
}
"""Types of numpy's arrays."""

DTYPES = {name: kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)}
"""PyTorch's types by their names: a file's names are looked up here, and nowhere else."""


@dataclass(frozen=True)
class Storage:
    """Numbers in a row, in a file: `read()` gives their bytes. at: the first that counts.

    where: tells, once the file is read, where these bytes are: a name in a .zip, or a place in the
    file; None where they are within others.
    """

    dtype: torch.dtype
    numel: int
    read: Callable[[], bytearray]
    at: int = 0
    where: Callable[[], str | int] | None = None


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: what it is, and `load()`, which reads it.

    storage: the numbers that it is a `view` of, None where it is not a part of others.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]
    storage: Storage | None = None
    view: Callable[[bytearray], Tensor] | None = None


def rules(nested: Callable[[bytes], Any]) -> dict[str, PickleRule]:
    """What stands for the calls that tensors, arrays and dicts need, by the names called.

    nested: reads a storage that is itself a file in bytes, as plain pickles have them.
    """
    buffers = ("numpy.core.numeric", "numpy._core.numeric")
    return {
        "collections.OrderedDict": _dict,
        "collections.defaultdict": lambda _: {},
        "torch._utils._rebuild_tensor": lambda a: _tensor(*a[:4]),
        "torch._utils._rebuild_tensor_v2": _tensor_v2,
        "torch._utils._rebuild_tensor_v3": lambda a: _tensor(_typed(a[0], a[6]), *a[1:4]),
        "torch._utils._rebuild_parameter": lambda a: a[0],
        "torch._utils._rebuild_parameter_with_state": lambda a: a[0],
        "torch._tensor._rebuild_from_type_v2": _of_type,
        "torch.storage._load_from_bytes": lambda a: nested(a[0]),
        "torch.Size": lambda a: tuple(a[0]),
        "_codecs.encode": _encode,
        **ARRAY_RULES,
        **{f"{module}._frombuffer": _from_buffer for module in buffers},
    }


def storage_type(named: Any) -> torch.dtype:
    """The type of a storage's numbers, by the name of its class."""
    name = named.name if isinstance(named, NamedGlobal) else str(named)
    if not name.endswith("Storage") or name.removesuffix("Storage") not in STORAGES:
        raise PickleError(f"it holds numbers of the type {name}, which is not read here")
    return STORAGES[name.removesuffix("Storage")]


def resolve(value: Any) -> Any:
    """The value; a tensor, or an array of numpy's, as what is `Stored`."""
    if isinstance(value, Tensor):
        return Stored(tuple(value.shape), value.dtype, lambda: value)
    if isinstance(value, MadeObject) and value.by == "array":
        return _array(value)
    return value


def _dict(arguments: Any) -> dict[Any, Any]:
    # Old pickles give the pairs as the argument.
    pairs = arguments[0] if arguments else ()
    return {k: v for k, v in pairs if isinstance(k, str)} if isinstance(pairs, list | tuple) else {}


def _encode(arguments: Any) -> Any:
    if len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1":
        return arguments[0].encode("latin1")
    return MadeObject("encode", arguments)


def _from_buffer(arguments: Any) -> Any:
    raw, dtype, shape, order = arguments
    return MadeObject("array", state=(1, shape, dtype, order == "F", raw))


def _of_type(arguments: Any) -> Any:
    function, _, inner, _ = arguments
    known = rules(lambda _: None)
    rule = known.get(str(function)) if isinstance(function, NamedGlobal) else None
    return MadeObject(function, inner) if rule is None else rule(inner)


def _tensor_v2(arguments: Any) -> Any:
    metadata = arguments[6] if len(arguments) > 6 else None
    if metadata:  # conjugate or negative: bits that numbers alone do not tell
        return MadeObject("torch.Tensor", arguments)
    return _tensor(*arguments[:4])


def _typed(storage: Any, dtype: Any) -> Any:
    kind = DTYPES.get(dtype.name) if isinstance(dtype, NamedGlobal) else None
    if not isinstance(storage, Storage) or kind is None:
        raise PickleError("it is damaged: a tensor has no type")
    return replace(storage, dtype=kind, numel=storage.numel // kind.itemsize)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any) -> Any:
    if not isinstance(storage, Storage):
        return MadeObject("torch.Tensor", (storage, offset, shape, stride))
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise PickleError(f"it is damaged: a tensor has shape {shape!r} and strides {stride!r}")
    last = storage.at + offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if math.prod(shape) and last >= storage.at + storage.numel:
        raise PickleError(f"it is damaged: a tensor of shape {shape} ends behind its numbers")
    first = storage.at + offset

    def view(raw: bytearray) -> Tensor:
        if not math.prod(shape):
            return torch.empty(shape, dtype=storage.dtype)
        count = storage.at + storage.numel
        flat = torch.frombuffer(raw, dtype=storage.dtype, count=count)
        return flat.as_strided(shape, stride, first)

    def load() -> Tensor:
        return view(storage.read() if math.prod(shape) else bytearray())

    return Stored(tuple(shape), storage.dtype, load, storage, view)


def _array(made: MadeObject) -> Any:
    """An array of numpy's; what is none, or of another kind, as it is."""
    told = array_of(made)
    if told is None or told.code not in NUMPY or told.order not in ("<", "|", "="):
        return made
    shape, raw = told.shape, told.raw
    sides = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not sides or not isinstance(raw, bytes | bytearray):
        return made
    kind = NUMPY[told.code]
    if len(raw) != math.prod(shape) * kind.itemsize:
        raise PickleError(f"it is damaged: an array of shape {shape} has {len(raw)} bytes")
    steps = shape if not told.fortran else shape[::-1]
    stride = [math.prod(steps[at + 1 :]) for at in range(len(steps))]
    stride = stride[::-1] if told.fortran else stride
    return _tensor(Storage(kind, math.prod(shape), lambda: bytearray(raw)), 0, shape, stride)
