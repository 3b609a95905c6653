"""A run is a folder: what was run, where, what happened, and how to continue.

config.yaml         the config as run, defaults included
environment.json    versions, commit, machine, command
metrics.csv         one row an epoch
margins.csv         the histogram of the margins, one row an epoch (methods with margins)
best.safetensors    weights of the epoch that validation picked
last.safetensors    weights of the last epoch
flipped.csv         training samples whose label was flipped on purpose, with the true class
state.safetensors   everything that a resumed run needs
log.json            by what MLflow and Weights & Biases know it
diverged.txt        why it came to no end: its loss was not finite
evaluation/         results of `ima evaluate`
margins/            pictures of `ima margins`
train.lock          which process trains it, while one does
evaluate.lock       which process evaluates it, while one does
"""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ima.environments import read_environment
from ima.epochs import read_epochs
from ima.files import whole, write_text
from ima.training.checkpoint import peek_state
from ima.training.config import parse_config
from ima.training.config_errors import ConfigError, read_yaml
from ima.training.settings import Config
from ima.training.trust import Trust, UntrustedError

PLACE = ("system", "processor", "cores", "threads", "device")
"""What must be the same in the environments of runs whose times are compared."""

MAKING = ("ima", "commit", "python", "torch", "numpy", "lightning-fabric", "jobs", "data")
"""What else an environment says about how a run was made."""

JOBS = "IMA_JOBS"
"""The environment variable by which `ima compare` tells its runs how many there are at a time."""


PICKING = ("val_accuracy", "val_pgd", "val_score")
"""Columns of metrics.csv by which an epoch is picked, and what is told of it."""


@dataclass(frozen=True)
class Run:
    """The folder of one training run.

    trust: which import paths of its config may be followed; see `ima.training.trust`.
    """

    folder: Path
    _config: Config | None = field(default=None, compare=False, repr=False)
    trust: Trust = field(default=False, compare=False, repr=False)

    @property
    def initial(self) -> Path:
        """The weights that the run started from, where some were given."""
        return self.folder / "init.safetensors"

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run: its config is there."""
        return (self.folder / "config.yaml").exists()

    @property
    def state(self) -> Path:
        """Everything that a resumed run needs."""
        return self.folder / "state.safetensors"

    @property
    def metrics(self) -> Path:
        """One row an epoch."""
        return self.folder / "metrics.csv"

    @property
    def margins(self) -> Path:
        """The histogram of the margins, one row an epoch."""
        return self.folder / "margins.csv"

    @property
    def diverged(self) -> Path:
        """Why the training came to no end, where its loss was not finite."""
        return self.folder / "diverged.txt"

    def weights(self, which: str) -> Path:
        """The weights of the `"best"` or the `"last"` epoch."""
        return self.folder / f"{which}.safetensors"

    def results(self, which: str) -> Path:
        """The rows of an evaluation of the `"best"` or the `"last"` weights."""
        return self.folder / "evaluation" / f"{which}.csv"

    @property
    def margins_folder(self) -> Path:
        """What `ima margins` writes."""
        return self.folder / "margins"

    @property
    def examples(self) -> Path:
        """Attacked samples of the best weights, for pictures."""
        return self.folder / "evaluation" / "examples.npz"

    @staticmethod
    def create(folder: Path, config: Config) -> Run:
        """A new run folder; FileExistsError where one with another run is.

        Of the processes of a distributed run the first makes it.
        """
        run = Run.planned(folder, config)
        run.begin()
        return run

    @staticmethod
    def planned(folder: Path, config: Config) -> Run:
        """As `create`, but nothing is written before `begin`."""
        if not leads():
            return Run(folder, config)
        for place in (folder, *folder.parents):
            if place.exists() and not place.is_dir():
                raise FileExistsError(f"{place} is a file; name another folder with --out")
        if Run(folder).begun:
            raise FileExistsError(
                f"{folder} already holds a run: continue it with `ima train --resume {folder}`, "
                "or name another folder with --out"
            )
        return Run(folder, config)

    def begin(self) -> None:
        """Write the config, where it is not written yet."""
        path = self.folder / "config.yaml"
        if leads() and self._config is not None and not path.exists():
            write_text(path, self._config.to_yaml())

    def rewrite(self, config: Config) -> Run:
        """The run with another config, which must train the same; see `ima compare`."""
        write_text(self.folder / "config.yaml", config.to_yaml())
        return Run.open(self.folder, trust=self.trust)

    @staticmethod
    def open(folder: Path, *, trust: Trust = False) -> Run:
        """An existing run folder; FileNotFoundError where there is none.

        trust: whether what its config names by import path may be imported, or which of it.
        """
        if not (folder / "config.yaml").is_file():
            raise FileNotFoundError(
                f"{folder} is no run: it holds no config.yaml. Start one with `ima train CONFIG`"
            )
        return Run(folder, trust=trust)

    def config(self) -> Config:
        """The config as run."""
        if self._config is not None:
            return self._config
        path = self.folder / "config.yaml"
        try:
            return parse_config(read_yaml(path), trust=self.trust)
        except UntrustedError as error:
            raise UntrustedError(f"{path}: {error}") from error
        except ConfigError as error:
            text = str(error)
            raise ConfigError(text if str(path) in text else f"{path}: {text}") from error

    def write_environment(
        self,
        device: str,
        samples: Mapping[str, int] | None = None,
        note: str = "",
        trace: Sequence[Sequence[float]] | None = None,
    ) -> None:
        """Say with what and where the run is made; where it continues elsewhere, that too.

        samples: how many there are, by the part of the data set; note: that of the data set; trace:
        by which its samples are known again.
        """
        now = environment(device)
        now |= {"samples": dict(samples or {}), "data": note, "trace": trace}
        first = self.environment() or now
        if not any(_same(known, now) for known in (first, *first.get("resumed", ()))):
            first = {**first, "resumed": [*first.get("resumed", ()), now]}
        write_text(self.folder / "environment.json", json.dumps(first, indent=2) + "\n")

    def environment(self) -> dict[str, Any]:
        """With what and where the run was made; empty before it started."""
        return read_environment(self.folder / "environment.json")

    def epochs(self) -> list[dict[str, float]]:
        """The rows of metrics.csv."""
        return read_epochs(self.metrics)

    def picked(self) -> dict[str, float]:
        """The row of the epoch that validation picked.

        Raises FileNotFoundError where no table tells, CheckpointError where no state does.
        """
        rows = read_epochs(self.metrics, PICKING)
        if not rows:
            raise FileNotFoundError(
                f"{self.metrics} is gone, which tells of the epochs; the weights are kept"
            )
        best = peek_state(self.state, "best")["epoch"]
        found = [row for row in rows if row["epoch"] == best]
        if not found:
            raise ValueError(
                f"{self.metrics} has no row of epoch {best}, which {self.state} says was picked; "
                "put back the table of this run"
            )
        return found[0]

    def add_epoch(self, row: Mapping[str, float]) -> None:
        """Add one epoch's metrics; rows of this epoch and later ones are replaced."""
        _add_row(self.metrics, row)

    def add_margins(
        self, epoch: int, cap: float, edges: Sequence[float], counts: Sequence[int], median: float
    ) -> None:
        """Add one epoch's histogram of margins; columns are named by the bins' lower edges."""
        names = [f"{edge:.6g}" for edge in edges[:-1]]
        bins = dict(zip(names, counts, strict=True))
        _add_row(self.margins, {"epoch": epoch, "cap": cap, "median": median, **bins})

    def read_margins(self) -> list[dict[str, float]]:
        """The rows of margins.csv; empty for methods without margins."""
        return read_epochs(self.margins, ("cap",))

    def write_flipped(self, flipped: Mapping[int, int]) -> None:
        """Say which training samples have a flipped label: their ids, with their true class."""
        lines = [f"{id_},{true}\n" for id_, true in flipped.items()]
        if lines:
            write_text(self.folder / "flipped.csv", "".join(["id,class\n", *lines]))


def leads() -> bool:
    """Whether this is the first process of a distributed run, or the only one."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def environment(device: str) -> dict[str, Any]:
    """Versions, commit, machine and command, for the record."""
    return {
        "ima": _version("ima"),
        "commit": _commit(),
        "command": " ".join(["ima", *sys.argv[1:]]),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "lightning-fabric")},
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "processor": _processor(),
        "device": device,
        "jobs": int(os.environ.get(JOBS, "1")),
    }


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in (*PLACE, *MAKING))


def _processor() -> str | None:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the library's own checkout, with `+` where files differ from it."""
    here = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", here, *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "HEAD") if git("ls-files", __file__) else ""
    except OSError:
        return None
    return head + ("+" if git("status", "--porcelain", "--", str(here)) else "") if head else None


def _add_row(path: Path, row: Mapping[str, float]) -> None:
    rows = [old for old in read_epochs(path) if old["epoch"] < row["epoch"]] + [dict(row)]
    names = list(dict.fromkeys(name for r in rows for name in r))
    with whole(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(
            {k: int(v) if float(v).is_integer() else v for k, v in r.items()} for r in rows
        )
