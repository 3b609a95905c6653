"""Pickles read as data: no name in one is imported, nothing it asks to call is called.

A pickle is a small program that builds objects: it may name any function of any module and have it
called. Here its instructions, decoded by the standard library, are followed as far as numbers,
texts, lists and dicts go. What it names becomes a `Named`, what it would call a `Made` that holds
the arguments: notes about what was asked for. So weights are found beside objects of any kind.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import IO, Any


class PickleError(ValueError):
    """A pickle that is damaged, or names what no file of weights needs."""


class RefusedError(PickleError):
    """A pickle that was made to do more than hold data."""


@dataclass(frozen=True)
class NamedGlobal:
    """What a pickle names: a class or a function, which is not imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class MadeObject:
    """What a pickle would have made by a call: what it calls, and all that it puts into it."""

    by: Any
    arguments: Any = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict[Any, Any])
    elements: list[Any] = field(default_factory=list[Any])


def pickle_kind(value: Any) -> str:
    """The name of a value's type, as the file names it."""
    if not isinstance(value, MadeObject):
        return type(value).__name__
    made = value.by
    if isinstance(made, MadeObject):  # as PyTorch's old files keep a network's class and source
        made = made.arguments[1] if len(made.arguments) > 1 else "object"
    if str(made).endswith("._reconstructor") and value.arguments:
        made = value.arguments[0]
    return str(made)


PickleRule = Callable[[Any], Any]
"""What stands for a call, by its arguments."""

ACTING = frozenset(
    (
        *("asyncio", "bdb", "cProfile", "code", "codeop", "commands", "ctypes", "importlib", "nt"),
        *("os", "pdb", "pip", "posix", "pty", "runpy", "shutil", "signal", "socket", "subprocess"),
        *("sys", "timeit", "webbrowser"),
    )
)
"""Modules that a file of weights has no use for: one that names them was made to do harm."""

ACTING_NAMES = frozenset(
    f"{module}.{name}"
    for module, names in {
        "builtins": ("__import__", "breakpoint", "compile", "eval", "exec", "input", "open"),
        "__builtin__": ("__import__", "compile", "eval", "execfile", "input", "open"),
        "io": ("open", "open_code"),
        "_io": ("open", "open_code"),
        "torch": ("load", "hub.load"),
        "torch.hub": ("load",),
        "torch.serialization": ("load",),
        "pickle": ("load", "loads"),
        "_pickle": ("load", "loads"),
    }.items()
    for name in names
)
"""Functions of which the same holds."""

_DAMAGED = (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError)
"""What following a damaged pickle raises."""

CONSTANTS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: MadeObject("set"),
}
_FEW = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
SKIPPED = frozenset(("PROTO", "FRAME"))


def read_pickle(
    stream: IO[bytes],
    rules: Mapping[str, PickleRule],
    persistent: Callable[[Any], Any] = MadeObject,
    *,
    only: Collection[str] | None = None,
) -> Any:
    """The value of the pickle at the stream's place, which afterwards is behind it.

    rules: what stands for a call, by the name that is called; other calls give a `Made`.
    persistent: what stands for an object outside of the pickle, by its id. only: the names that it
    may name.
    Raises PickleError for a damaged pickle, RefusedError for one that names others, or what can
    only do harm.
    """
    machine = _Machine(rules, persistent, only)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in damaged texts
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "STOP":
                    return machine.stack.pop()
                machine.step(opcode.name, argument)
    except PickleError:
        raise
    except _DAMAGED as error:
        raise PickleError(f"it is damaged ({type(error).__name__}: {error})") from error
    raise PickleError("it is damaged: it has no end")


class _Machine:
    """The pickle's stack; `marks` holds the stacks below that wait for it."""

    def __init__(
        self,
        rules: Mapping[str, PickleRule],
        persistent: Callable[[Any], Any],
        only: Collection[str] | None,
    ) -> None:
        self.rules, self.persistent, self.only = rules, persistent, only
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        stack = self.stack
        if name in CONSTANTS:
            stack.append(argument)
        elif name in PUT or name == "MEMOIZE":
            self.memo[argument if name in PUT else len(self.memo)] = stack[-1]
        elif name in GET:
            stack.append(self.memo[argument])
        elif name in VALUES:
            stack.append(VALUES[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _FEW:
            stack[-_FEW[name] :] = [tuple(stack[-_FEW[name] :])]
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in SKIPPED:
            raise PickleError(f"it holds the instruction {name}, which no file of weights needs")

    def mark(self) -> None:
        """Begin a new stack."""
        self.marks.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """All since the last mark."""
        found, self.stack = self.stack, self.marks.pop()
        return found

    def gather(self, kind: Callable[[list[Any]], Any]) -> None:
        """Make one value of all since the last mark."""
        found = self.marked()
        self.stack.append(kind(found))

    def call(self, what: Any, arguments: Any) -> None:
        """Note what would be called, or have its rule stand for it."""
        rule = self.rules.get(str(what)) if isinstance(what, NamedGlobal) else None
        self.stack.append(MadeObject(what, arguments) if rule is None else rule(arguments))

    def name(self, module: Any, name: Any) -> None:
        """Note a name."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise PickleError("it is damaged: a name in it is no text")
        whole = f"{module}.{name}"
        acts = module.partition(".")[0] in ACTING or whole in ACTING_NAMES
        if acts or (self.only is not None and whole not in self.only):
            what = "file of weights" if self.only is None else "such file"
            told = f"it asks for {whole}, which no {what} needs, and could execute code"
            raise RefusedError(told)
        self.stack.append(NamedGlobal(module, name))

    def append(self, values: list[Any]) -> None:
        """Put values into the list on the stack."""
        target = self.stack[-1]
        if not isinstance(target, list | MadeObject):
            raise PickleError(f"it is damaged: it appends to a {type(target).__name__}")
        (target.elements if isinstance(target, MadeObject) else target).extend(values)

    def assign(self, pairs: list[Any]) -> None:
        """Put keys and values into the dict on the stack."""
        target = self.stack[-1]
        if not isinstance(target, dict | MadeObject) or len(pairs) % 2:
            raise PickleError(f"it is damaged: it assigns to a {type(target).__name__}")
        place = target.items if isinstance(target, MadeObject) else target
        for at in range(0, len(pairs), 2):
            place[_key(pairs[at])] = pairs[at + 1]

    def build(self, state: Any) -> None:
        """Note an object's state; that of a dict, such as a state_dict's versions, says nothing."""
        if isinstance(self.stack[-1], NamedGlobal):
            raise RefusedError(f"it changes {self.stack[-1]}, and could execute code")
        if isinstance(self.stack[-1], MadeObject):
            self.stack[-1].state = state


def _key(value: Any) -> Any:
    """A key; one that is itself a structure becomes a note, whose hash needs no recursion."""
    plain = value is None or isinstance(
        value, bool | int | float | str | bytes | MadeObject | NamedGlobal
    )
    return value if plain else MadeObject("key", value)


def _reduce(m: _Machine, _: Any) -> None:
    arguments, what = m.stack.pop(), m.stack.pop()
    m.call(what, arguments)


def _reduce_with_keywords(m: _Machine, _: Any) -> None:
    keywords, arguments, what = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.stack.append(MadeObject(what, (arguments, keywords)))


def _reduce_marked(m: _Machine, argument: Any) -> None:
    found = m.marked()
    if argument is None:
        what, *found = found
    else:
        m.name(*argument.split(" ", 1))
        what = m.stack.pop()
    m.call(what, tuple(found))


def _stack_global(m: _Machine, _: Any) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.name(module, name)


def _set_item(m: _Machine, _: Any) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.assign([key, value])


def _dict(m: _Machine, _: Any) -> None:
    pairs = m.marked()
    m.stack.append({})
    m.assign(pairs)


_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.stack.pop() if m.stack else m.marked(),
    "POP_MARK": lambda m, _: m.marked(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "LIST": lambda m, _: m.gather(list),
    "TUPLE": lambda m, _: m.gather(tuple),
    "FROZENSET": lambda m, _: m.gather(lambda found: MadeObject("frozenset", elements=found)),
    "DICT": _dict,
    "APPEND": lambda m, _: m.append([m.stack.pop()]),
    "APPENDS": lambda m, _: m.append(m.marked()),
    "ADDITEMS": lambda m, _: m.append(m.marked()),
    "SETITEM": _set_item,
    "SETITEMS": lambda m, _: m.assign(m.marked()),
    "GLOBAL": lambda m, argument: m.name(*argument.split(" ", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _reduce_with_keywords,
    "INST": _reduce_marked,
    "OBJ": _reduce_marked,
    "BUILD": lambda m, _: m.build(m.stack.pop()),
    "PERSID": lambda m, argument: m.stack.append(m.persistent(argument)),
    "BINPERSID": lambda m, _: m.stack.append(m.persistent(m.stack.pop())),
}
