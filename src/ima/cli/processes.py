"""The processes that torchrun or srun has started for one command."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from pathlib import Path

WAIT = timedelta(days=30)
"""So long processes wait for another that is still at work; its error reaches them at once."""


def started(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """The number of the process at hand, how many there are, and its number on its machine."""
    if int(environment.get("WORLD_SIZE", 1)) > 1:
        return tuple(int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))  # pyright: ignore[reportReturnType]
    # Of srun itself: a batch script has its job's number of tasks, and is one process.
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        return tuple(int(environment[name]) for name in names)  # pyright: ignore[reportReturnType]
    return 0, 1, 0


@contextmanager
def joined() -> Generator[bool]:
    """Within: the processes can exchange what they find, and only the first one prints.

    Gives whether this is the first.
    """
    rank, world, local = started(os.environ)
    if world == 1:
        yield True
        return
    import torch
    import torch.distributed as dist

    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if address is None or port is None:
        from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

        slurm = SLURMEnvironment(auto_requeue=False)
        address, port = slurm.main_address, str(slurm.main_port)
    if torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    # Rows are exchanged, not tensors of a device.
    dist.init_process_group(
        "gloo", init_method=f"tcp://{address}:{port}", rank=rank, world_size=world, timeout=WAIT
    )
    try:
        if rank == 0:
            yield True
        else:
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
                yield False
    finally:
        sys.stdout.flush()
        dist.destroy_process_group()
