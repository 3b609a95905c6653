"""Where in a file of weights those of a network are: under which key, behind which prefix.

Every tensor of the file has a whole name, such as `state_dict.model.conv.weight`: the keys that
lead to it. A network's weights are what stands behind one beginning, `state_dict.model.`, and has
all of the network's names. Exactly one beginning may fit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ima.inert_pickle import MadeObject, pickle_kind
from ima.training.stored import Stored, resolve

WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and checkpointing put into names, wherever they were applied."""

_AVERAGED = re.compile(r"(^|_)(ema|swa|avg|average|averaged|shadow)(_|\d|$)", re.IGNORECASE)
"""Keys of weights that are averaged over steps."""

TRAINING = re.compile(r"optim|sched|scaler|momentum|exp_avg|(^|_)(grad|grads|loops|callbacks)(_|$)")
"""Keys of what a training keeps beside the weights."""

BESIDE = re.compile(
    r"(^|_)(loss|losses|criterion|criteria|metric|metrics|acc|accuracy|auroc|auc|f1|dice|iou|"
    r"confmat|precision|recall)(_|\d|$)|^lossfn$"
)
"""Keys of what stands among the weights and is no part of a network: of losses and of measures."""

_STEPS = "num_batches_tracked"
"""What batch normalisation counts, and old files do not have."""

COUNTERS = (_STEPS, "n_averaged", "initted", "step", "num_updates", "total_ops", "total_params")
"""What else is counted beside weights: of averages, and of operations."""

EXCHANGED = frozenset(("averaging_state", "state_dict"))
"""Where both are, Lightning has put the averaged weights in the place of the others."""

_DEEPEST = 12
_MOST = 300_000
_FEW = 4

UNINITIALIZED = (UninitializedParameter, UninitializedBuffer)
"""Of lazy layers: they take the shape of what is loaded."""

N = TypeVar("N")


class LayoutError(ValueError):
    """Weights that do not fit a network, or fit in several ways; says what there is."""


@dataclass(frozen=True)
class TensorName:
    """Where a tensor is: the keys that lead to the dict that it is in, and its key there."""

    within: tuple[str, ...]
    key: str

    def __str__(self) -> str:
        return ".".join((*self.within, self.key))


@dataclass(frozen=True)
class FoundLayout:
    """What a file holds.

    tensors: by name; others: the kinds of other values, by their keys at the top; modules: the
    classes of networks that were pickled whole.
    """

    tensors: Mapping[TensorName, Stored]
    others: Mapping[str, str]
    modules: tuple[str, ...]

    def summary(self) -> str:
        """What there is at the top, in words."""
        counts = Counter(str(name).partition(".")[0] for name in self.tensors)
        flat = {name.key for name in self.tensors if not name.within}
        loose = sum(count for key, count in counts.items() if key in flat)
        said = [f"{loose} tensors at the top"] if loose else []
        said += [f"{key} ({n} tensors)" for key, n in counts.items() if key not in flat]
        said += [f"{key} ({kind})" for key, kind in self.others.items()]
        return some(said, 8) or "nothing"


@dataclass(frozen=True)
class Taken:
    """Weights under the network's names, and where they were, in words."""

    weights: dict[str, Any]
    told: str


def search_weights(content: Any) -> FoundLayout:
    """All tensors of what a file holds, and the networks in it that were pickled whole.

    Raises LayoutError for a file of too many values.
    """
    tensors: dict[TensorName, Stored] = {}
    others: dict[str, str] = {}
    modules: dict[str, None] = {}
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen = 0
    while waiting:
        within, value = waiting.pop()
        inner = value.items if isinstance(value, MadeObject) and value.items else value
        if (
            isinstance(value, MadeObject)
            and isinstance(value.state, dict)
            and "_modules" in value.state
        ):
            modules[pickle_kind(value)] = None
        elif isinstance(inner, Stored) and within:
            tensors[TensorName(within[:-1], within[-1])] = inner
        elif (
            isinstance(inner, dict | list | tuple) and not _plain(inner) and len(within) < _DEEPEST
        ):
            pairs = inner.items() if isinstance(inner, dict) else enumerate(inner)
            waiting += [((*within, str(key)), resolve(one)) for key, one in pairs][::-1]
            # Counted, because one that holds itself has no end.
            seen += len(inner)
        elif len(within) == 1:
            others[within[0]] = pickle_kind(value)
        if seen > _MOST:
            raise LayoutError(f"it holds more than {_MOST} values; expected a network's weights")
    return FoundLayout(tensors, others, tuple(modules))


def _plain(value: Any) -> bool:
    """Whether it is a list of numbers and texts, which has nothing to do with weights."""
    kinds = bool | int | float | str | bytes | None
    return isinstance(value, list | tuple) and all(isinstance(one, kinds) for one in value)


def some(names: Sequence[str], few: int = _FEW) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - few} more" if len(names) > few else ""
    return ", ".join(names[:few]) + more


@dataclass(frozen=True)
class Fit:
    """Weights in a file that have all of a network's names.

    place: where they are, in words; averaged: over steps (EMA, SWA); rest: what the network has and
    the file need not have; beside: what stands among them and the network does not have; left: what
    stands among them and belongs to no network.
    """

    place: str
    averaged: bool
    names: frozenset[TensorName]
    tensors: Mapping[str, Stored]
    rest: Mapping[str, Any]
    beside: tuple[str, ...]
    left: tuple[str, ...]


def take_weights(found: FoundLayout, wanted: Mapping[str, Any]) -> Taken:
    """The weights for a network whose state_dict is `wanted`.

    Raises LayoutError where none fit, where several that differ do, and where there is more of a
    network than that.
    """
    fits = find_fits(found, wanted)
    if not fits:
        raise LayoutError(unfit(found, wanted))
    chosen = [one for one in fits if not one.averaged] or fits
    chosen = [one for one in chosen if not one.beside] or chosen
    first = chosen[0]
    if not all(_equal(first, other) for other in chosen[1:]):
        raise LayoutError(
            "it holds several sets of weights that fit and differ: "
            f"{some([one.place for one in chosen])}; save the one that is meant in a file of its "
            "own"
        )
    if first.beside:
        raise LayoutError(
            f"beside the network's weights ({first.place}) it has {some(first.beside)}, which the "
            "network does not have: it may be one part of another. If it is not, save its weights "
            "in a file of their own"
        )
    weights = {key: stored.load() for key, stored in first.tensors.items()}
    return Taken({**first.rest, **weights}, _told(found, first, fits, wanted))


def find_fits(found: FoundLayout, wanted: Mapping[str, Any]) -> list[Fit]:
    """All sets of weights in a file that fit a network, the shortest way to them first.

    Where the whole of the network's names are in none, beginnings that all of them share, such as
    `0.` in a Sequential, may be absent from the file.
    """
    names, ours = _canonical(found.tensors), _canonical(wanted)
    for added in _shared(list(ours)):
        short = {name.removeprefix(added): key for name, key in ours.items()}
        needed = [
            name for name, key in short.items() if isinstance(wanted[key], Tensor) and _needed(name)
        ]
        fits: list[Fit] = []
        for begin in _beginnings(names, short):
            if needed and all(begin + name in names for name in needed):
                where = {
                    key: names[begin + name] for name, key in short.items() if begin + name in names
                }
                fits += _fit(found, wanted, where, begin, added)
        if fits:
            return sorted(fits, key=lambda one: len(one.place))
    return []


def _fit(
    found: FoundLayout,
    wanted: Mapping[str, Any],
    where: Mapping[str, TensorName],
    begin: str,
    added: str,
) -> list[Fit]:
    """The weights behind a beginning that has all names; none where a shape or a kind differs."""
    tensors = {key: found.tensors[name] for key, name in where.items()}
    parts = begin.split(".")
    other = any(differs(tensor, wanted[key]) for key, tensor in tensors.items())
    if other or any(TRAINING.search(part.lower()) for part in parts):
        return []
    used, dicts = frozenset(where.values()), {name.within for name in where.values()}
    among = {name: key for key, name in _canonical(found.tensors).items() if name.within in dicts}
    strange = [_short(name, key, begin) for name, key in among.items() if name not in used]
    averaged = any(_AVERAGED.search(part) for part in parts) or any(
        name.key == "n_averaged" for name in among
    )
    tops = {str(name).partition(".")[0] for name in found.tensors} | found.others.keys()
    if tops >= EXCHANGED:
        averaged = averaged or parts[0] == "state_dict"
    return [
        Fit(
            place=_place(where, begin, added),
            averaged=averaged,
            names=used,
            tensors=tensors,
            rest={key: wanted[key] for key in wanted if key not in tensors},
            beside=tuple(name for name in strange if not _harmless(name)),
            left=tuple(name for name in strange if _harmless(name)),
        )
    ]


def unfit(found: FoundLayout, wanted: Mapping[str, Any]) -> str:
    """Why a file's weights do not fit a network: what is there, and what comes nearest."""
    names, ours = _canonical(found.tensors), _canonical(wanted)
    holds = f"The file holds {found.summary()}"
    needed = [name for name in ours if _needed(name)]
    counts = _beginnings(names, ours)
    if not counts:
        return (
            f"none of the network's {len(ours)} names ({some(list(ours))}) is in it, whatever "
            f"prefix is removed. {holds}, such as {some([str(name) for name in found.tensors])}"
        )
    # The optimiser's notes have the weights' names too.
    plain = [one for one in counts if not TRAINING.search(one.lower())] or list(counts)
    begin = max(plain, key=lambda one: (counts[one], -len(one)))
    there = {name: names[begin + name] for name in ours if begin + name in names}
    shapes = [
        f"{name} ({_shown(found.tensors[at])} in the file, {_shown(wanted[ours[name]])} in the "
        "network)"
        for name, at in there.items()
        if differs(found.tensors[at], wanted[ours[name]])
    ]
    absent = [name for name in needed if name not in there]
    dicts = {name.within for name in there.values()}
    strange = [
        _short(name, key, begin)
        for key, name in names.items()
        if name.within in dicts and name not in there.values()
    ]
    told = [
        f"of the network's {len(ours)} tensors it has {len(there)} by name, {len(shapes)} of them "
        f"of another shape or kind, in {_place(there, begin, '')}",
        f"not in the file: {some(absent)}" if absent else "",
        f"other shapes: {some(shapes)}" if shapes else "",
        f"not in the network: {some(strange)}" if strange else "",
    ]
    return f"{'; '.join(part for part in told if part)}. {holds}"


def _beginnings(names: Mapping[str, TensorName], short: Mapping[str, Any]) -> Counter[str]:
    """What stands before a network's names in a file, with how many of them it stands before."""
    return Counter(
        name[: len(name) - len(end)] for name in names for end in _ends(name) if end in short
    )


def _canonical(names: Iterable[N]) -> dict[str, N]:
    """Names by what is left without what wrappers put into them, unless two would be the same."""
    every = list(names)
    short = [str(name) for name in every]
    for wrapper in WRAPPERS:
        short = [name.replace(wrapper, "") for name in short]
    texts = short if len(set(short)) == len(short) else [str(name) for name in every]
    return dict(zip(texts, every, strict=True))


def _shared(names: Sequence[str]) -> list[str]:
    """Beginnings that all names have, none first."""
    found = [""]
    while names:
        part, dot, _ = names[0].removeprefix(found[-1]).partition(".")
        begin = found[-1] + part + dot
        if not dot or not all(name.startswith(begin) for name in names):
            break
        found.append(begin)
    return found


def _ends(name: str) -> Iterator[str]:
    """All ends of a name that begin with a whole part: a.b.c, b.c, c."""
    yield name
    for at, letter in enumerate(name):
        if letter == ".":
            yield name[at + 1 :]


def _short(name: TensorName, canonical: str, begin: str) -> str:
    """A name without the beginning that is removed; one that has another, as it is in its dict."""
    return canonical.removeprefix(begin) if canonical.startswith(begin) else name.key


def _needed(name: str) -> bool:
    return name.rpartition(".")[2] != _STEPS


def _harmless(name: str) -> bool:
    """Whether a name among the weights belongs to no network, or to averaged copies."""
    first, dot, _ = name.partition(".")
    counter = name.rpartition(".")[2] in COUNTERS
    return counter or bool(BESIDE.search(first)) or bool(dot and _AVERAGED.search(first))


def differs(stored: Stored, own: Any) -> bool:
    """Whether shape or kind is not that of the network's: integers may be codes."""
    if not isinstance(own, Tensor) or isinstance(own, UNINITIALIZED):
        return False
    return stored.shape != tuple(own.shape) or _kind(stored.dtype) != _kind(own.dtype)


def _kind(dtype: torch.dtype) -> tuple[bool, bool]:
    return dtype.is_floating_point, dtype.is_complex


def _shown(tensor: Stored | Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _equal(one: Fit, other: Fit) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(stored.load(), other.tensors[key].load()) for key, stored in one.tensors.items()
    )


def _place(where: Mapping[str, TensorName], begin: str, added: str) -> str:
    """The key of the dict that weights are in, and what is done to their names, in words."""
    first = next(iter(where.values()))
    outer = "".join(f"{part}." for part in first.within)
    if not begin.startswith(outer) or any(one.within != first.within for one in where.values()):
        outer = begin  # several dicts in one
    told = [outer.rstrip(".") or "the top of the file"]
    removed = [begin.removeprefix(outer)]
    removed += [word for word in WRAPPERS if any(word in str(name) for name in where.values())]
    told += [f"prefix {word!r} removed" for word in removed if word]
    told += [f"prefix {added!r} added"] if added else []
    return ", ".join(told)


def _told(found: FoundLayout, fit: Fit, fits: Sequence[Fit], wanted: Mapping[str, Any]) -> str:
    """Where the weights were, how many, and what else there is that might have been meant."""
    told = [f"{fit.place}, {len(fit.tensors)} tensors"]
    kinds = {t.dtype for k, t in fit.tensors.items() if t.dtype != wanted[k].dtype}
    told += [f"stored as {', '.join(sorted(str(k)[6:] for k in kinds))}"] if kinds else []
    if fit.averaged:
        told.append("these are averaged weights (EMA or SWA)")
    else:
        others = [one.place for one in fits if one.averaged] or sorted(
            {
                part
                for name in found.tensors
                if name not in fit.names and not TRAINING.search(str(name).lower())
                for part in str(name).split(".")
                if _AVERAGED.search(part)
            }
        )
        if others:
            told.append(f"averaged weights are in the file too ({some(others)}) and are not used")
    told += [f"left out: {some(fit.left)}"] if fit.left else []
    return "; ".join(told)
