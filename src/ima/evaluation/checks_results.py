"""What the checks of an evaluation found; readable without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from ima.evaluation import earlier, store
from ima.evaluation.settings import Finding, Settings
from ima.evaluation.statistics import wilson
from ima.files import read_json, write_text

Evidence = Mapping[str, Any]
"""What was measured, by name: numbers, and shares as `share` makes them."""


@dataclass(frozen=True)
class Check:
    """One check: what it asks, whether it tripped, and what to do then.

    tripped: None where it was not run; sentence: what was found, or why it was not run; means, do:
    what a tripped check means for the accuracies, and what to do about it.
    """

    name: str
    title: str
    tripped: bool | None
    sentence: str
    evidence: Evidence
    means: str
    do: str


@dataclass(frozen=True)
class Checks(Finding):
    """All checks of one model.

    settings: how they were made.
    checks: each with what it found, and what that means.

    >>> import ima
    >>> from ima.evaluation.settings import Settings
    >>> checks = ima.Checks(Settings(norm="L2"), ())
    >>> checks.tripped
    ()
    """

    settings: Settings
    checks: tuple[Check, ...]

    @property
    def tripped(self) -> tuple[str, ...]:
        """The names of those that tripped."""
        return tuple(check.name for check in self.checks if check.tripped)

    def to_json(self, path: str | Path) -> None:
        """Write them; the file appears whole or not at all."""
        settings = json.loads(self.settings.model_dump_json(exclude_defaults=True))
        checks = [asdict(check) for check in self.checks]
        told = {"format": store.FORMAT, "settings": settings, "checks": checks}
        write_text(Path(path), json.dumps(told, indent=1, allow_nan=False) + "\n")

    @staticmethod
    def from_json(path: str | Path) -> Checks:
        """Read what `to_json` wrote, also before this version; ValueError for other files."""
        try:
            told = read_json(Path(path))
            checks = READ.validate_json(json.dumps(told["checks"]))
            if told.get("format") is None:
                settings = earlier.earlier_settings(told["settings"], "")
            else:
                settings = Settings(**told["settings"])
            return Checks(settings, checks)
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(
                f"{path} holds no checks ({error}); make them again: ima evaluate RUN --checks"
            ) from error


READ = TypeAdapter(tuple[Check, ...], config=ConfigDict(strict=True, extra="forbid"))


def share(count: int, n: int) -> dict[str, float]:
    """`count` of `n` as a share with its 95 % interval."""
    low, high = wilson(count / n, n)
    return {"share": count / n, "count": count, "n": n, "low": low, "high": high}


def in_words(count: int, n: int) -> str:
    """Such as `80.2 % of 500 (95 % interval 76.5 to 83.4)`."""
    low, high = wilson(count / n, n)
    return f"{percent(count / n)} of {n} (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def percent(value: float) -> str:
    """Such as `80.2 %`."""
    return f"{100 * value:.1f} %"
