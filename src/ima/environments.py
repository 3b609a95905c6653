"""With what and where a run was made, environment.json, read without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from ima.files import read_json


class _Once(BaseModel):
    """What is read again of an environment, of the kinds that are written."""

    trace: list[Annotated[list[float], Field(min_length=2, max_length=2)]] | None = None
    samples: dict[str, float] | None = None
    jobs: float | None = None


class _Environment(_Once):
    resumed: list[_Once] = []


def read_environment(path: Path) -> dict[str, Any]:
    """What the file holds, empty where there is none; ValueError, with its name, for another."""
    if not path.exists():
        return {}
    try:
        return read_json(path, _Environment)
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
