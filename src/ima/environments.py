"""With what and where a run was made, environment.json, read without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ima.files import read_json


def read_environment(path: Path) -> dict[str, Any]:
    """What the file holds, empty where there is none; ValueError, with its name, for another."""
    if not path.exists():
        return {}
    try:
        return _checked(read_json(path), path)
    except ValueError as error:
        raise ValueError(
            f"{error}. Put back a whole one, or delete it: then nobody knows any more with "
            "what and where the run was made"
        ) from error


def data_told(environment: Mapping[str, Any]) -> list[str]:
    """What an environment says of the run's data, of each time that it went on.

    Not what is said again with more behind it.
    """
    resumed = environment.get("resumed", ())
    notes = dict.fromkeys(str(one.get("data") or "") for one in (environment, *resumed))
    more = {note: any(o != note and o.startswith(note) for o in notes) for note in notes}
    return [note for note in notes if note and not more[note]]


def _checked(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """What environment.json holds; ValueError where it is not of the kinds that are written."""
    resumed = found.get("resumed", [])
    each = [found, *resumed] if isinstance(resumed, list) else [resumed]
    for one in each:
        if not isinstance(one, dict):
            raise ValueError(f"{path} is damaged: it holds {one!r} for an environment")
        trace = one.get("trace")
        pairs = trace if isinstance(trace, list) else [] if trace is None else [trace]
        if not all(isinstance(pair, list) and _numbers(pair) and len(pair) == 2 for pair in pairs):
            raise ValueError(f"{path} is damaged: its trace holds no pairs of numbers")
        samples, jobs = one.get("samples") or {}, one.get("jobs") or 1
        counts = [*samples.values()] if isinstance(samples, dict) else [samples]
        if not _numbers([*counts, jobs]):
            raise ValueError(f"{path} is damaged: its numbers of samples and jobs are none")
    return found


def _numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)
