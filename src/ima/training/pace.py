"""What still fits into a time budget, judged by how long such things took so far."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic

from ima.budget import Budget

RESERVE = 0.05
"""Share of the budget that is left over, for what nobody has timed."""


class Pace:
    """How long batches, saving and validation took. budget: any time if None.

    validation: seconds of the run's last one, None if there was none.
    """

    def __init__(self, budget: Budget | None, validation: float | None = None) -> None:
        self.budget, self.validation = budget, validation
        self.batch = self.save = 0.0

    @property
    def fresh(self) -> bool:
        """Whether nothing was done in this call, whose first piece of work is always done."""
        return self.budget is not None and not self.budget.worked

    def batch_fits(self) -> bool:
        """Whether one more batch fits, and saving after it; the first of a call always does."""
        return self.fresh or self._left() >= self.batch + self._end()

    def validation_fits(self) -> bool:
        """Whether a validation fits, and saving after it; so it does where it comes first."""
        if self.fresh:
            return True
        if self.validation is not None:
            return self._left() >= self.validation + self._end()
        return self.budget is None or self._left() - self._end() > self.budget.untimed()

    def did(self) -> None:
        """Note that a batch, or a validation, is done."""
        if self.budget is not None:
            self.budget.did()

    def __str__(self) -> str:
        took = f"a batch took up to {self.batch:.3g} s" if self.batch else "no batch was begun"
        if self.validation is not None:
            took += f", a validation {self.validation:.3g} s"
        return f"{max(0.0, self._left()):.3g} s are left, {took}"

    @contextmanager
    def saving(self) -> Generator[None]:
        """Time what is saved within."""
        begun = monotonic()
        yield
        self.save = monotonic() - begun

    def _left(self) -> float:
        return float("inf") if self.budget is None else self.budget.left()

    def _end(self) -> float:
        reserve = 0.0 if self.budget is None else RESERVE * self.budget.seconds
        return 2 * self.save + reserve
