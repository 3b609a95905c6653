"""What the attacks of the checks have found, on record, so that checks that were stopped go on.

Attack by attack, radius by radius, batch by batch, in the order in which the checks ask for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ima.budget import Budget, OutOfTime
from ima.evaluation.partial import Finished, Partial, kept
from ima.evaluation.watch import Counts, OutputWatcher

_UNKNOWN = 5
"""So many times as long as the longest so far may take what was not tried before."""


class Record:
    """The finished batches in the file `path`, of checks with these settings.

    path: None keeps nothing; budget: no batch is begun that may not fit into it, but for the first;
    watcher: of the model that is attacked.
    """

    def __init__(
        self,
        path: str | Path | None,
        settings: Mapping[str, Any],
        budget: Budget | None,
        watcher: OutputWatcher | None = None,
    ) -> None:
        self.watcher = OutputWatcher() if watcher is None else watcher
        self.seen: dict[str, Counts] = {}
        self.path, self.budget = path, budget
        self.partial = None if path is None else Partial(path, settings)
        self.number, self.began = 0, 0
        self.slowest: dict[str, float] = {}

    def broken(self, attack: str, batch: str, work: Callable[[], Tensor]) -> Tensor:
        """Which samples of a batch are broken, (B,) bool: as recorded, or as `work` finds it.

        batch: tells it from the attack's other batches. Raises OutOfTime when the budget is spent.
        """
        mark, number = f"{attack}, {batch}", self.number
        self.number += 1
        known = None if self.partial is None else self.partial.find(number, mark)
        if known is None:
            self._admit(attack)
            started = time.monotonic()
            self.watcher.begin()
            found = work()
            columns = {"broken": found.tolist()}
            known = Finished(mark, time.monotonic() - started, columns, self.watcher.counts())
            self.began += 1
            if self.partial is not None:
                self.partial.add(number, known)
            if self.budget is not None:
                self.budget.did()
        # The last part of a batch's name is its number.
        run = mark.rpartition(", ")[0]
        self.seen[run] = self.seen.get(run, Counts()) + known.counts
        self.slowest[attack] = max(self.slowest.get(attack, 0), known.seconds)
        return torch.tensor(known.columns["broken"], dtype=torch.bool)

    def counts(self, clean: Counts) -> Counts:
        """What was seen under all attacks, on the samples that `clean` tells of too.

        A gradient that one attack could follow is one; samples are counted once, not by attack.
        """
        each = list(self.seen.values())
        attacked = max((one.attacked for one in each), default=0)
        still = min((one.still for one in each if one.attacked), default=0)
        return replace(
            clean,
            beyond=clean.beyond + sum(one.beyond for one in each),
            uneven=clean.uneven + sum(one.uneven for one in each),
            attacked=attacked,
            still=still,
            broken=max((one.broken for one in each), default=0),
        )

    def _admit(self, attack: str) -> None:
        """Raise OutOfTime where the next batch may not fit in, and the call has done something."""
        if self.budget is None or not self.budget.worked:
            return
        needed, left = self.slowest.get(attack), max(0.0, self.budget.left())
        if needed is None:
            # A guess; on a guess alone no call ends without having done anything.
            guess = _UNKNOWN * max(self.slowest.values(), default=0)
            needed = guess if self.began else min(guess, left)
        if left <= 0 or left < needed:
            raise OutOfTime(
                f"the time is up after {self.number - 1} batches of the checks ({left:.0f} "
                f"s are left, the next may take {needed:.0f} s); {kept(self.path)}"
            )
