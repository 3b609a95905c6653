"""Runs in a folder: which there are, how far each is, how large; and their files, to delete.

Nothing that a config names is imported.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ima.epochs import read_epochs
from ima.plain_yaml import YamlError, read_mapping
from ima.training.config_errors import ConfigError, validate
from ima.training.ending import ended
from ima.training.lock import Lock
from ima.training.settings import Train

CONFIG = "config.yaml"

OWN = (
    *("environment.json", "metrics.csv", "margins.csv", "flipped.csv", "diverged.txt", "log.json"),
    *("best.safetensors", "last.safetensors", "init.safetensors", "state.safetensors"),
    *("train.log", "evaluate.log", "train.lock", "evaluate.lock", "tune.lock"),
    *("evaluation", "margins", "events", "wandb", "jobs"),
)
"""What a run's folder holds besides its config."""


@dataclass(frozen=True)
class Found:
    """A run in a folder.

    state: `"new"`, `"unfinished"`, `"done"`, `"diverged"`, or `"damaged"`; epoch, epochs: how many
    are done, of how many; evaluated: whether results lie there; size: bytes of all files.
    """

    folder: Path
    method: str
    seed: int
    state: str
    epoch: int
    epochs: int
    evaluated: bool
    size: int


def find_runs(folder: Path) -> list[Found]:
    """The runs in a folder and below it, by name; itself, where it is one.

    Raises FileNotFoundError for a folder that does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; name one that holds runs")
    configs = sorted(folder.rglob(CONFIG))
    found = ((path.parent, _values(path)) for path in configs)
    return [_found(place, values) for place, values in found if values is not None]


def _values(path: Path) -> dict[Any, Any] | None:
    """What a run's config holds, empty where it is damaged; None for a file of another kind."""
    try:
        values = read_mapping(path)
    except (YamlError, OSError):
        return {} if any((path.parent / name).exists() for name in OWN) else None
    groups = ("data", "network", "method", "train")
    return values if all(isinstance(values.get(name), dict) for name in groups) else None


def _found(folder: Path, values: dict[Any, Any]) -> Found:
    method = str(values.get("method", {}).get("name", ""))
    results = (folder / "evaluation").glob("*.csv")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    try:
        train = validate(Train, values.get("train"), "train")
        rows = read_epochs(folder / "metrics.csv")
    except (ConfigError, ValueError):
        return Found(folder, method, 0, "damaged", 0, 0, any(results), size)
    done = len(rows)
    if (folder / "diverged.txt").exists():
        state = "diverged"
    elif ended(train, rows, done):
        state = "done"
    else:
        state = "unfinished" if any((folder / name).exists() for name in OWN) else "new"
    return Found(folder, method, train.seed, state, done, train.epochs, any(results), size)


def delete_run(folder: Path) -> list[Path]:
    """Delete a run's own files, and its folder where nothing else lies there; what is left.

    Raises RuntimeError where a process trains or evaluates it.
    """
    with Lock(folder, "train") as train, Lock(folder, "evaluate") as evaluate:
        own = [folder / name for name in OWN if folder / name not in (train.path, evaluate.path)]
        # The config last: what is deleted in part can be found, and deleted, again.
        for path in (*own, folder / CONFIG):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    left = sorted(folder.iterdir())
    if not left:
        folder.rmdir()
        # A comparison's folder of a method, whose last run it was.
        with suppress(OSError):
            folder.parent.rmdir()
    return left
