"""One process at a time writes into the folder of a run.

take: open the file, lock it unless another process has, say in it whose it is
let go: delete the file, close it

The lock is the system's, which takes it back from whatever dies: a file that a kill left behind
locks nothing. On Windows, and on file systems without locks, nothing is locked.
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from ima.files import make_folder, sweep, unwritable


class Lock:
    """The right to write what a command leaves in a run's folder, from entering to leaving it.

    Where the folder is still to be made, from `take` on. command: `"train"` or `"evaluate"`; the
    two may go on side by side. Raises RuntimeError on entering where another process has it.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.command = folder, command
        self.path = folder / f"{command}.lock"
        self._file: TextIO | None = None

    def __enter__(self) -> Lock:
        if self.folder.is_dir():
            self.take()
        return self

    def __exit__(self, *ended: object) -> None:
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def take(self) -> None:
        """Take it, unless it is taken already; makes the folder.

        Raises RuntimeError where another process has it, OSError where the folder cannot be written
        to.
        """
        make_folder(self.folder)
        if sys.platform == "win32":
            return
        import fcntl

        while self._file is None:
            # Not emptied, because it may be another's.
            try:
                file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
            except OSError as error:
                raise unwritable(self.folder, error) from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                whose = file.read().strip() or "another process"
                file.close()
                raise RuntimeError(
                    f"`ima {self.command}` already writes to {self.folder}, as {whose}; wait until "
                    "it is done, or stop it, and give the same command again"
                ) from None
            except OSError:
                # Training without a lock is better than none.
                file.close()
                self.path.unlink(missing_ok=True)
                return
            if self._lost(file):
                file.close()
                continue
            self._file = file
            # Only of processes that are dead; what is no run's may be a user's own.
            for place in (self.folder, self.folder / "evaluation", self.folder / "margins"):
                if place != self.folder or self.command == "train" or self._of_a_run():
                    sweep(place)
            file.truncate()
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()

    def _of_a_run(self) -> bool:
        return (self.folder / "config.yaml").exists()

    def _lost(self, file: TextIO) -> bool:
        """Whether the file was deleted, by the one who had it, between opening and locking it."""
        with suppress(FileNotFoundError):
            return not os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        return True
