"""`ima runs`: which runs there are, how far they are and how large; and to delete them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ima.cli.streams import as_json


def runs(
    *folders: Path,
    delete: Literal["new", "unfinished", "diverged", "damaged", "done", "all"] | None = None,
    yes: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """List the runs in folders: method, seed, how far, whether evaluated, size.

    Parameters
    ----------
    folders:
        Folders with runs in them, such as that of a comparison. Default: `runs`.
    delete:
        Delete the runs in this state, after a question; files that no run has stay.
    yes:
        Delete without a question.
    json:
        Print a list of objects for programs, and nothing else.

    """
    from dataclasses import asdict

    from ima.training.found import delete_run, find_runs

    places = folders or (Path("runs"),)
    found = list(
        {one.folder.resolve(): one for place in places for one in find_runs(place)}.values()
    )
    if delete is not None:
        found = [one for one in found if delete in ("all", one.state)]
    if json:
        print(as_json([{**asdict(one), "folder": str(one.folder)} for one in found]))
    else:
        for one in found:
            how = {"unfinished": f"epoch {one.epoch}/{one.epochs}"}.get(one.state, one.state)
            how += ", evaluated" if one.evaluated else ""
            print(f"{one.folder}  {one.method}, seed {one.seed}  {how}  {one.size / 1e6:.1f} MB")
        total = sum(one.size for one in found)
        print(f"{len(found)} run{'' if len(found) == 1 else 's'}, {total / 1e6:.1f} MB")
    if delete is None or not found:
        return
    if not yes and not _agreed(len(found)):
        print("nothing is deleted", file=sys.stderr)
        return
    for one in found:
        for left in delete_run(one.folder):
            print(f"{left} is no run's, and stays", file=sys.stderr)


def _agreed(count: int) -> bool:
    """Whether a person says yes; ValueError where nobody can."""
    if not sys.stdin.isatty():
        raise ValueError("nobody can be asked here; say --yes to delete them")
    print(f"Delete {'it' if count == 1 else 'them'}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
