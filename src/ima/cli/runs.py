"""`ima runs`: what runs there are, how far they are, what they take; and how to make room."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def runs(
    folder: Path = Path("runs"),
    /,
    *,
    clean: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """List the runs in a folder, a line each.

    Parameters
    ----------
    folder:
        Where to look, at any depth.
    clean:
        Delete what only a training that goes on needs (state.safetensors), of runs that are trained
        and evaluated. Weights, tables and results stay; such a run can be trained no further.
    yes:
        Delete without asking.

    """
    from ima.memory import human_size
    from ima.training.found_runs import found_runs, spare

    found = list(found_runs(folder))
    if not found:
        print(f"{folder} holds no runs")
        return
    wide = max(len(str(one.run.folder)) for one in found)
    for one in found:
        size = human_size(one.size)
        print(f"{one.run.folder!s:<{wide}}  {one.about}  {one.state}  {size}")
    total, room = (sum(getattr(one, name) for one in found) for name in ("size", "spare"))
    print(f"{len(found)} runs, {human_size(total)}; {human_size(room)} could be freed by --clean")
    if not clean or room == 0:
        return
    files = [path for one in found if one.spare for path in spare(one.run)]
    if not yes:
        if not sys.stdin.isatty():
            raise ValueError("--clean deletes files; say --yes too where nobody can be asked")
        if input(f"delete {len(files)} files, {human_size(room)}? [y/N] ").strip().lower() != "y":
            return
    for path in files:
        path.unlink()
    print(f"deleted {len(files)} files, {human_size(room)}")
