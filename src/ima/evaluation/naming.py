"""The ids and cases of samples, as a user gives them: checked before work is done.

Rows are made and recorded with the samples' places; ids and names are put in when they leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from ima.evaluation.batches import Batches
from ima.evaluation.items import case_name

Names: TypeAlias = Sequence[str | int] | Sequence[tuple[str, int]] | str | int
"""Of the samples' cases; or where an item of the data holds it, a key or a place."""


@dataclass
class Naming:
    """Ids and cases of samples, by their place in the data; None where none were given.

    key: where an item of the data says its case; found: what those have said so far.
    """

    ids: list[int] | None = None
    names: list[tuple[str, int]] | None = None
    key: str | int | None = None
    found: list[str] = field(default_factory=list[str])
    kinds: set[type] = field(default_factory=set[type])

    @staticmethod
    def of(ids: Sequence[int] | None, names: Names | None) -> Naming:
        """Those of `evaluate`'s arguments; TypeError or ValueError for what are none."""
        if isinstance(names, str | Integral) and not isinstance(names, bool):
            return Naming(_ids(ids), None, names if isinstance(names, str) else int(names))
        return Naming(_ids(ids), _names(names))

    def check(self, data: Batches) -> None:
        """Raise ValueError where ids or names are not as many as samples, or in another order."""
        for what, given in self._given():
            if not data.ordered:
                raise ValueError(
                    f"{what} go by the samples' places, but the loader gives them in an order of "
                    "its own; pass a loader without a sampler"
                )
            samples = data.samples()
            if samples is not None and samples != len(given):
                raise ValueError(_unequal(what, len(given), samples))

    def add(self, offset: int, count: int, cases: Sequence[str | int] | None) -> None:
        """Take note of a batch of `count` samples before it is worked on."""
        self.kinds |= _kinds(cases or (), self.kinds)
        self.found += map(str, cases or ())
        for what, given in self._given():
            if offset + count > len(given):
                raise ValueError(_unequal(what, len(given), offset + count, "or more"))

    def end(self, total: int) -> None:
        """Raise ValueError where there were fewer samples than ids or names."""
        for what, given in self._given():
            if len(given) != total:
                raise ValueError(_unequal(what, len(given), total))

    def id(self, place: int) -> int:
        """The id of the sample at a place."""
        return place if self.ids is None else self.ids[place]

    def where(self, place: int) -> tuple[str, int]:
        """Case and slice of the sample at a place; empty and -1 where nobody said."""
        if self.names is not None:
            return self.names[place]
        if self.key is not None:
            return self.found[place], self.found[:place].count(self.found[place])
        return "", -1

    def columns(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
        """Columns whose ids are places, with ids, and with cases and slices."""
        if self.key is not None:
            self.names, self.key = numbered(self.found), None
        places: Sequence[int] = columns["id"]
        whose = [self.where(place) for place in places]
        return {
            **columns,
            "id": [self.id(place) for place in places],
            "case": [case for case, _ in whose],
            "slice": [at for _, at in whose],
        }

    def kept(self, keep: Callable[[Any], None] | None) -> Callable[[Any], None] | None:
        """`keep`, called with examples that have ids and cases."""
        return None if keep is None else lambda example: keep(self._named(example))

    def _named(self, example: Any) -> Any:
        case, at = self.where(example.id)
        return replace(example, id=self.id(example.id), case=case, slice=at)

    def _given(self) -> list[tuple[str, Sequence[Any]]]:
        both = {"ids": self.ids, "names": self.names}
        return [(what, given) for what, given in both.items() if given is not None]


def numbered(cases: Sequence[str]) -> list[tuple[str, int]]:
    """Cases with their samples counted from 0; -1 where every case has one."""
    if len(set(cases)) == len(cases):
        return [(case, -1) for case in cases]
    seen: Counter[str] = Counter()
    found: list[tuple[str, int]] = []
    for case in cases:
        found.append((case, seen[case]))
        seen[case] += 1
    return found


def own_classes(data: Any) -> list[str]:
    """What data call their classes; none where they do not say.

    A loader or a part asks the data set in it. MedMNIST's tell names by number in `info["label"]`.
    """
    while data is not None:
        info = getattr(data, "info", None)
        named = info.get("label") if isinstance(info, dict) else None
        if isinstance(named, dict) and all(str(key).isdigit() for key in named):
            return [str(named[key]) for key in sorted(named, key=int)]
        own = getattr(data, "classes", None)
        if isinstance(own, list | tuple) and all(isinstance(name, str) for name in own):
            return list(own)
        data = getattr(data, "dataset", None)
    return []


def check_classes(classes: Sequence[str] | None) -> tuple[str, ...]:
    """The names of classes, none if None; TypeError or ValueError for what are none."""
    if classes is None:
        return ()
    found = _listed("classes", classes)
    if not found or not all(isinstance(name, str) for name in found):
        raise TypeError(f"classes are {found}; expected a name for every class")
    _distinct("classes", found)
    return tuple(found)


def fit_classes(classes: Sequence[str], count: int) -> None:
    """Raise ValueError unless there are so many, or none."""
    if classes and len(classes) != count:
        raise ValueError(
            f"classes are {list(classes)}; the task has {count} of this network (in segmentation "
            "without the background), so expected as many different names"
        )


def fit_labels(classes: Sequence[str], labels: Any) -> None:
    """Raise ValueError unless the labels of a task of one's own are classes, and have names."""
    whole = isinstance(labels, Tensor) and not labels.is_floating_point() and labels.ndim == 1
    if not whole or labels.is_complex():
        raise ValueError(
            f"classes are {list(classes)}, but this task's targets are no classes, integers of "
            "shape (batch,); leave classes out"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        raise ValueError(
            f"classes are {list(classes)}; the targets hold {high if low >= 0 else low}; expected "
            "a name for each of them, counted from 0"
        )


def _ids(ids: Any) -> list[int] | None:
    if ids is None:
        return None
    found = _listed("ids", ids)
    strange = next((one for one in found if not _whole(one)), None)
    if strange is not None:
        raise TypeError(
            f"ids hold {strange!r}; expected whole numbers: names, such as those of patients, go "
            "into names"
        )
    _distinct("ids", found)
    return [int(one) for one in found]


def _names(names: Any) -> list[tuple[str, int]] | None:
    if names is None:
        return None
    found = [tuple(one) if isinstance(one, list) else one for one in _listed("names", names)]
    pairs = [one for one in found if isinstance(one, tuple)]
    for one in found:
        if isinstance(one, tuple) and (len(one) != 2 or not _whole(one[1])):
            raise TypeError(f"names hold {one!r}; expected pairs of case and number of the slice")
    if pairs and len(pairs) < len(found):
        raise TypeError("names hold names and pairs; expected all of one kind")
    cases = [case_name(one[0] if isinstance(one, tuple) else one) for one in found]
    _kinds(cases)
    if not pairs:
        return numbered([str(case) for case in cases])
    both = [(str(case), int(at)) for case, (_, at) in zip(cases, pairs, strict=True)]
    _distinct("names", both)
    return both


def _kinds(cases: Sequence[str | int], known: Collection[type] = ()) -> set[type]:
    """Of names; TypeError where some are text and some numbers: 1 and "1" would be one case."""
    found = set(known) | set(map(type, cases))
    if len(found) > 1:
        raise TypeError(
            "names hold text and numbers, so that 1 and '1' would be one case; expected all of one "
            "kind"
        )
    return found


def _listed(what: str, given: Any) -> list[Any]:
    if isinstance(given, dict | str | set) or not hasattr(given, "__len__"):
        raise TypeError(
            f"{what} are a {type(given).__name__}; expected a list with one for every sample"
        )
    if isinstance(given, np.ndarray) or hasattr(given, "tolist"):
        return list(given.tolist())
    return list(given)


def _distinct(what: str, found: Sequence[Any]) -> None:
    if twice := [one for one, count in Counter(found).items() if count > 1]:
        raise ValueError(f"{what} hold {twice[0]!r} more than once; expected another for each")


def _whole(one: Any) -> bool:
    return isinstance(one, Integral) and not isinstance(one, bool)


def _unequal(what: str, given: int, samples: int, more: str = "") -> str:
    came = " ".join(filter(None, [f"{samples}", more]))
    return f"{what} are {given} for {came} samples; expected one for every sample"
