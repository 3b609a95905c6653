"""One process at a time writes into the folder of a run.

The lock is the system's, which takes it back from whatever dies: a file that a kill left behind
locks nothing. On file systems without locks nothing is locked.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ima.files import make_folder, sweep, unwritable

MOMENT = 0.2
"""Seconds in which one who lets go has deleted the file."""


class Lock:
    """The right to write what a command leaves in a run's folder, from entering to leaving it.

    Where the folder is still to be made, from `take` on. command: `"train"` or `"evaluate"`; the
    two may go on side by side. Raises RuntimeError on entering where another process has it.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.command = folder, command
        self.path = folder / f"{command}.lock"
        self._lock = FileLock(self.path, timeout=MOMENT, on_acquired=_sign)

    def __enter__(self) -> Lock:
        if self.folder.is_dir():
            self.take()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._lock.is_locked:
            with suppress(OSError):  # Windows deletes no open file.
                self.path.unlink()
            self._lock.release()

    def take(self) -> None:
        """Take it, unless it is taken already; makes the folder.

        Raises RuntimeError where another process has it, OSError where the folder cannot be written
        to.
        """
        make_folder(self.folder)
        if self._lock.is_locked:
            return
        try:
            self._lock.acquire()
        except Timeout:
            whose = ""
            with suppress(OSError):
                whose = self.path.read_text(encoding="utf-8").strip()
            raise RuntimeError(
                f"`ima {self.command}` already writes to {self.folder}, as "
                f"{whose or 'another process'}; wait until it is done, or stop it, and give the "
                "same command again"
            ) from None
        except OSError as error:
            if error.filename is not None:
                raise unwritable(self.folder, error) from error
            # There are no locks here; training without one is better than none.
            self.path.unlink(missing_ok=True)
            return
        # Only of processes that are dead; what is no run's may be a user's own.
        for place in (self.folder, self.folder / "evaluation", self.folder / "margins"):
            if place != self.folder or self.command == "train" or self._of_a_run():
                sweep(place)

    def _of_a_run(self) -> bool:
        return (self.folder / "config.yaml").exists()


def _sign(file: int) -> None:
    """Say in the file that is locked whose it is."""
    os.ftruncate(file, 0)
    os.write(file, f"process {os.getpid()} on {platform.node()}\n".encode())
