"""A data set of a user's own: what the function `module:name` may return.

Either `Splits`, or a dict of the parts "train", "val" and "test", each a pair of tensors (x, y) or
a `torch.utils.data.Dataset` of such pairs:

    def findings(path, seed):
        return {"train": (x, y), "val": (x, y), "test": (x, y), "classes": ["mass", "nodule"]}

x: (N, C, *dims), float32 in [0, 1], or uint8. y: (N,) class numbers, or what a task of another
kind trains on, of any shape (N, ...) and dtype. "classes": the names of the network's outputs,
which need not be given for class numbers and for y of shape (N, K); "note": a sentence to stand
beside tables.
"""

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ima.data.base import Part, Splits
from ima.imported import call_own

_ROLES = ("train", "val", "test")
KNOWN = (*_ROLES, "classes", "note")


def load_own(
    name: str,
    function: Callable[..., Any],
    path: str | Path | None = None,
    *,
    size: int | None = None,
    seed: int = 0,
) -> Splits:
    """What a user's function gives for those of path, size and seed that it names.

    Raises ValueError where it does not name what is given, where it fails, and for what is no data
    set.
    """
    given = {"path": path, "size": size, "seed": seed}
    known = signature(function).parameters
    for key, value in given.items():
        if value not in (None, 0) and key not in known:
            raise ValueError(f"data.{key} is {value!r}, and {name!r} takes no {key}; leave it out")
    found = call_own("data set", name, function, given)
    if isinstance(found, Splits):
        return found
    if not isinstance(found, Mapping) or not set(_ROLES) <= found.keys() <= set(KNOWN):
        came = f"a dict with {[*found]}" if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(
            f"data set {name!r} returned {came}; expected ima.data.Splits, or a dict with "
            f"{', '.join(_ROLES)}, each (x, y) tensors or a Dataset of such pairs, and perhaps "
            "classes and note"
        )
    try:
        train, val, test = (_part(found[role]) for role in _ROLES)
        classes = found.get("classes") or _numbered(train.targets, val.targets, test.targets)
        note = str(found.get("note", ""))
        return Splits(name, train, val, test, tuple(map(str, classes)), note)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"data set {name!r}: {error}") from error


def _part(given: Any) -> Part:
    """One part of pairs (x, y), or of the two tensors."""
    if not isinstance(given, tuple | list):
        items = [given[i] for i in range(len(given))]
        given = tuple(
            torch.stack([torch.as_tensor(one) for one in of]) for of in zip(*items, strict=True)
        )
    if len(given) != 2:
        raise ValueError(f"a part has {len(given)} things; expected two, (x, y)")
    x, y = (torch.as_tensor(one) for one in given)
    whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    labels = y.ndim == 1 and whole
    return Part(x, y.long() if labels else y, labels)


def _numbered(*targets: Tensor) -> list[int]:
    """A number for each output, where targets tell how many there are."""
    first = targets[0]
    if first.ndim == 1:
        whole = not first.is_floating_point()
        return [*range(max(int(y.max()) for y in targets) + 1 if whole else 1)]
    if first.ndim == 2:
        return [*range(first.shape[1])]
    raise ValueError(
        f"targets of shape {tuple(first.shape)} do not tell how many outputs a network needs; "
        "name them: 'classes': ['background', ...]"
    )
