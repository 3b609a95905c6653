"""What a user names: a row of a table by its name, or something of their own by `module:name`.

An import runs the module's code. Names that stand in a run's folder come here only after
`ima.training.trust` has let them pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

from pydantic import PydanticUserError, TypeAdapter

from ima.torchvision_compat import mend_torchvision

TableRow = TypeVar("TableRow")


def find_row(
    kind: str, name: str, table: Mapping[str, TableRow], own: Callable[[Any], TableRow]
) -> TableRow:
    """The row of this name, or what `own` makes of the class or function at `module:name`.

    kind: what it is, for errors, such as `"method"`. Raises ValueError for a name that is neither,
    naming the nearest, and for what cannot be imported.
    """
    if name in table:
        return table[name]
    if ":" in name:
        return own(import_callable(kind, name))
    raise ValueError(
        f"unknown {kind} {name!r}.{nearest(name, table)} Known: {', '.join(table)}, or a {kind} of "
        "your own by 'module:name'"
    )


def import_named(kind: str, name: str) -> Any:
    """The object at `module:name`; ValueError where there is none."""
    module, _, within = name.partition(":")
    try:
        return getattr(_module(module), within)
    except Exception as error:  # a module raises whatever comes while it is imported
        raise ValueError(
            f"{kind} {name!r} cannot be imported ({type(error).__name__}: {error}); expected "
            "'module:name', the module installed or its folder in PYTHONPATH"
        ) from error


def import_callable(kind: str, name: str) -> Callable[..., Any]:
    """The class or function at `module:name`; ValueError where there is none."""
    target = import_named(kind, name)
    try:
        inspect.signature(target)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{kind} {name!r} is no class or function: {error}") from error
    return target


def call_own(kind: str, name: str, target: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """What a user's own function returns for those of the given arguments that it names.

    Raises ValueError where it needs others, and where it fails.
    """
    known = inspect.signature(target).parameters
    takes = {key: value for key, value in given.items() if key in known}
    try:
        inspect.signature(target).bind(**takes)
    except TypeError as error:
        raise ValueError(
            f"{kind} {name!r} takes ({', '.join(map(str, known.values()))}), and gets by name "
            f"what it takes of {', '.join(given)}: {error}"
        ) from error
    try:
        return target(**takes)
    except Exception as error:  # whatever code of others raises
        raise ValueError(f"{kind} {name!r} failed: {type(error).__name__}: {error}") from error


def nearest(name: str, known: Iterable[str], write: str = "{!r}") -> str:
    """` Did you mean 'x'?` for the nearest of the known names, or nothing where none is near."""
    near = get_close_matches(name, list(known), 1)
    return f" Did you mean {write.format(near[0])}?" if near else ""


def types_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's parameters, without those that values cannot be checked against."""
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # an annotation may name what only type checkers import
        return {}
    return {name: hint for name, hint in hints.items() if _checkable(hint)}


def _checkable(hint: Any) -> bool:
    try:
        TypeAdapter(hint)
    except (PydanticUserError, NameError):
        return False
    return True


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except RuntimeError as error:
        if "torchvision" not in str(error):
            raise
    # Built for another torch; libraries such as timm import it too.
    mend_torchvision()
    return import_module(name)
