"""One evaluation by several processes: each does a share of the batches, and all get all rows.

process r of n: all batches are read; worked on are number r, r + n, ...
at the end: every process gives what it found to all; where one stopped, all stop
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from ima.attacks.inputs import inside
from ima.attacks.lockstep import processes, sharded
from ima.budget import OutOfTime

T = TypeVar("T")


@dataclass(frozen=True)
class _Stopped:
    """What a process gives in place of its rows; late: its time is up."""

    rank: int
    text: str
    late: bool


@dataclass(frozen=True)
class Share:
    """The batches of process `rank` of `world`."""

    rank: int = 0
    world: int = 1

    @staticmethod
    def of(distributed: bool, model: Any = None) -> Share:
        """The share of the process at hand: of the processes of `torch.distributed`, or all.

        Raises ValueError for a model whose weights are spread over the processes themselves.
        """
        if not distributed or processes() == 1:
            return ALONE
        if sharded(inside(model)):
            raise ValueError(
                "distributed=True shares the batches out, but every pass of this model (FSDP) "
                "needs all processes; leave distributed out: then each process evaluates its data, "
                "in step with the others"
            )
        return Share(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process writes what all have found."""
        return self.rank == 0

    def mine(self, number: int) -> bool:
        """Whether batch `number` is worked on here."""
        return number % self.world == self.rank

    def file(self, path: Path) -> Path:
        """A file of its own, beside the one of the first."""
        return path if self.leads else path.with_name(f"{path.name}.{self.rank}")

    @contextmanager
    def together(self) -> Generator[None]:
        """Within: an error here stops the others in their next `gather`."""
        try:
            yield
        except Exception as error:
            if self.world > 1:
                late = isinstance(error, OutOfTime)
                self._exchange(_Stopped(self.rank, str(error) or repr(error), late))
            raise

    def gather(self, found: T) -> list[T]:
        """What every process found, by its number; waits for all of them.

        Raises OutOfTime where the time of one is up, RuntimeError where one stopped with an error.
        """
        if self.world == 1:
            return [found]
        everyone = self._exchange(found)
        stopped = [one for one in everyone if isinstance(one, _Stopped)]
        for one in sorted(stopped, key=lambda one: one.late):
            kind = OutOfTime if one.late else RuntimeError
            raise kind(f"process {one.rank} stopped: {one.text}")
        return everyone

    def _exchange(self, found: Any) -> list[Any]:
        everyone: list[Any] = [None] * self.world
        dist.all_gather_object(everyone, found)
        return everyone


ALONE = Share()
"""All batches, of one process."""


def all_files(path: Path, suffix: str = "") -> list[Path]:
    """The file of the first process and those of the others that are there, or what is beside."""
    found = path.parent.glob(f"{path.name}.*{suffix}") if path.parent.is_dir() else ()
    numbers = (other.name.removeprefix(f"{path.name}.").removesuffix(suffix) for other in found)
    others = sorted(int(number) for number in numbers if number.isdigit())
    names = [path.name, *(f"{path.name}.{number}" for number in others)]
    return [path.with_name(name + suffix) for name in names]
