"""A run of several processes stops together: the error of one is the error of all.

the one: leave word where all can read it; leave the group
the others: an exchange breaks; read the word; stop with it

Without this they would wait, for minutes or for ever, for the one that stopped.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from ima.budget import OutOfTime

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_KEY = "ima: why a process stopped"

GRACE = 20.0
"""Seconds in which the others should have stopped by themselves."""


@contextmanager
def stopping_together(fabric: Fabric) -> Generator[None]:
    """Within: where one process of a run stops with an error, the others stop too, and say why.

    In them FloatingPointError where it was one, RuntimeError otherwise. A device that waits in an
    exchange (NCCL) cannot be told: processes that the first one started are ended by it, and
    `torchrun` ends its own.
    """
    try:
        yield
    except OutOfTime:
        # Agreed on by all.
        raise
    except Exception as error:
        if fabric.world_size == 1:
            raise
        broken = _broken(error)
        word = _word() if broken else ""
        if not broken:
            _leave_word(fabric.global_rank, error)
        _leave_group()
        _end(getattr(fabric.strategy.launcher, "procs", []))
        if not broken:
            raise
        if not word:
            raise RuntimeError(
                "another process of this run has stopped, without a word to this one; see what it "
                "has printed"
            ) from error
        said: dict[str, Any] = json.loads(word)
        kind = FloatingPointError if said["kind"] == FloatingPointError.__name__ else RuntimeError
        raise kind(f"process {said['rank']} stopped: {said['text']}") from error


def _broken(error: Exception) -> bool:
    """Whether it is the error of an exchange that another process left."""
    return isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and "gloo" in str(error)
    )


def _word() -> str:
    with suppress(Exception):  # Its keeper, the first process, may be gone.
        store = _store()
        if store.check([_KEY]):
            return store.get(_KEY).decode()
    return ""


def _leave_word(rank: int, error: Exception) -> None:
    word = {"rank": rank, "kind": type(error).__name__, "text": str(error) or repr(error)}
    with suppress(Exception):  # What is said here is an extra; the error itself goes on.
        store = _store()
        # The first word counts.
        store.compare_set(_KEY, "", json.dumps(word))


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()


def _leave_group() -> None:
    # NCCL would wait here for what is under way.
    if dist.is_initialized() and dist.get_backend() == "gloo":
        with suppress(Exception):
            dist.destroy_process_group()


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    """Wait for the processes that this one started; end those that hang."""
    until = monotonic() + GRACE
    left = list(children)
    # Fabric looks at this list, and kills this process too once one in it has failed.
    children.clear()
    while left and monotonic() < until:
        left = [child for child in left if child.poll() is None]
        sleep(0.05)
    for child in left:
        child.kill()
