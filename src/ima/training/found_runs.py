"""The runs below a folder: what each is, how far it is, how much of the disk it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ima.training.compare import finished
from ima.training.config_errors import read_yaml
from ima.training.run import Run


@dataclass(frozen=True)
class FoundRun:
    """A run's folder.

    about: method and data; state: how far it is; size: bytes of all its files; spare: of what a
    run that is trained and evaluated no longer needs.
    """

    run: Run
    about: str
    state: str
    size: int
    spare: int


def found_runs(root: Path) -> Iterator[FoundRun]:
    """Every run below a folder, sorted by its path; nothing is imported that a config names.

    Raises FileNotFoundError for a folder that is not there.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no folder; give the one that holds the runs")
    for config in sorted(root.rglob("config.yaml")):
        yield _found(Run(config.parent))


def spare(run: Run) -> list[Path]:
    """What only going on with a training needs: its state, and the weights that it began with."""
    return [path for path in (run.state, run.initial) if path.exists()]


def runs_inside(folder: Path) -> list[Path]:
    """The runs of a comparison's folder; none where it is no such folder."""
    return sorted(path.parent for path in folder.glob("*/seed*/config.yaml"))


def _found(run: Run) -> FoundRun:
    try:
        values = read_yaml(run.folder / "config.yaml")
        method, data = values["method"]["name"], values["data"]["name"]
        epochs = int(values["train"]["epochs"])
        about = f"{method} on {data}"
    except (ValueError, LookupError, TypeError):
        return FoundRun(run, "unknown", "its config cannot be read", _size(run.folder), 0)
    done = len(run.epochs())
    whole = _ended(run)
    state = "trained" if whole else f"{done} of {epochs} epochs" if done else "not begun"
    if run.diverged.exists():
        state = "diverged"
    if evaluated := run.results("best").exists() or run.results("last").exists():
        state += ", evaluated"
    size = sum(path.stat().st_size for path in spare(run)) if whole and evaluated else 0
    return FoundRun(run, about, state, _size(run.folder), size)


def _ended(run: Run) -> bool:
    try:
        return finished(Run(run.folder, trust=True))
    except (ValueError, OSError):
        return False


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
