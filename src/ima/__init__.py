"""Increasing-Margin Adversarial (IMA) training: networks that are harder to fool with noise.

Importing this package loads nothing heavy; each name is loaded when it is first used.
"""

import re
from importlib import import_module
from pathlib import Path

# The names stand in one list, which type checkers read as well.
_HOMES = {
    name: home
    for home, name in re.findall(
        r"^from (\S+) import \w+ as (\w+)$",
        Path(__file__).with_name("__init__.pyi").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
}
__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ima")
        except PackageNotFoundError:  # a folder of sources in PYTHONPATH
            return "not installed"
    if name not in _HOMES:
        raise AttributeError(f"module 'ima' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
