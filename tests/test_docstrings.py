"""Every public name explains itself: a line for each parameter, and an example that runs."""

from __future__ import annotations

import doctest
import inspect
import re
from typing import Any

import pytest

import ima

PUBLIC = sorted(set(ima.__all__) - {"__version__"})


def explained(name: str) -> tuple[Any, str]:
    """A public name's class or function, or that of which it is one, and its docstring."""
    found = getattr(ima, name)
    found = found if isinstance(found, type) or inspect.isfunction(found) else type(found)
    return found, inspect.cleandoc(found.__doc__ or "")


def parameters(found: Any) -> list[str]:
    """The names that a call may give; none where a class takes what its base takes."""
    try:
        signature = inspect.signature(found)
    except ValueError:
        return []
    return [
        p.name
        for p in signature.parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_line_for_each_parameter(name: str) -> None:
    found, text = explained(name)
    for parameter in parameters(found):
        # Such as `eps: meaning`, or `size(d) -> (B,): meaning` of a function.
        line = rf"^{parameter}(\(.*?\) -> .+?)?: \S"
        assert re.search(line, text, re.M), f"ima.{name} has no line `{parameter}: ...`"


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of_a_public_name_runs(name: str) -> None:
    _, text = explained(name)
    test = doctest.DocTestParser().get_doctest(text, {}, f"ima.{name}", None, None)
    assert 3 <= sum(one.source.count("\n") for one in test.examples) <= 8
    said: list[str] = []
    assert doctest.DocTestRunner().run(test, out=said.append).failed == 0, "".join(said)
