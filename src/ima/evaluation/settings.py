"""How an evaluation was made, as its files keep it: typed, and readable without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ima.measures import ACCURACY, Measure

TEST, VALIDATION = "test", "validation"
"""Parts of the data."""

EVERY_ENTRY = "of every entry"
"""Bounds that are no two numbers."""


class Settings(BaseModel):
    """How an evaluation, distances, checks or margins were made; empty or None: not known.

    norm, bounds: of the noise, `"none"` where entries have none; measure: of a sample's quality;
    task: as it was called; attacks: by name, what each did; eps: radii; left_out: attacks that
    could not run, with the reason. samples, total: how many were taken, of how many; right: how
    many of all the model has right; part: of the data; seed, seconds: of the attacks; classes:
    their names, in segmentation of the foreground's; dimensions: of a sample's image.

    network: a digest of the weights; file: of the file that they were in; label: what the network
    is called; weights: which of a run's; epoch: such as `7 of 30`, and picked: what picked it;
    data: its name; data_digest: tells samples and labels from others; cases: where a trained
    nnU-Net's test cases lay; cap: the largest margin.
    made: the day, such as `2026-12-01`, UTC; data_sha256: of all samples, targets and ids in order;
    entries: how many values the smallest and the largest sample hold.
    title, author, purpose, positive, require, unit, scale: what people state, see `Stated`; limits
    as pairs of a radius and the least quality, 0 to 1.
    remarks: what leaves the figures in doubt, as sentences; about: what else is said, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    norm: str = ""
    bounds: tuple[float, float] | Literal["none", "of every entry"] | None = None
    measure: Measure = ACCURACY
    task: str = ""
    attacks: dict[str, str] = {}
    eps: tuple[float, ...] = ()
    left_out: tuple[str, ...] = ()
    samples: Annotated[int, Field(ge=0)] | None = None
    total: Annotated[int, Field(ge=0)] | None = None
    right: Annotated[int, Field(ge=0)] | None = None
    part: str = TEST
    seed: int | None = None
    seconds: float | None = None
    classes: tuple[str, ...] = ()
    dimensions: int | None = None
    network: str = ""
    file: str = ""
    label: str = ""
    weights: str = ""
    epoch: str = ""
    picked: str = ""
    data: str = ""
    data_digest: str = ""
    data_sha256: str = ""
    entries: tuple[int, int] | None = None
    made: str = ""
    cases: str = ""
    cap: float | None = None
    title: str = ""
    author: str = ""
    purpose: str = ""
    positive: str = ""
    require: tuple[tuple[float, float], ...] = ()
    unit: str = ""
    scale: float | None = None
    remarks: tuple[str, ...] = ()
    about: dict[str, str] = {}

    def but(self, **changes: Any) -> Settings:
        """The same with some values changed; those of `about` are added to the ones there."""
        if "about" in changes:
            changes["about"] = {**self.about, **changes["about"]}
        return Settings(**{**dict(self), **changes})

    @property
    def bounds_told(self) -> str:
        """The bounds in words; empty where they are not known."""
        if self.bounds is None or isinstance(self.bounds, str):
            return self.bounds or ""
        return "{:g} to {:g}".format(*self.bounds)

    @property
    def width(self) -> float | None:
        """How wide the bounds are; None without two numbers."""
        if self.bounds is None or isinstance(self.bounds, str):
            return None
        return self.bounds[1] - self.bounds[0]

    def covers(self, asked: int | None) -> bool | None:
        """Whether these are as many samples as asked for, all if None; None where unknown."""
        if self.samples is None or self.total is None:
            return None
        return self.samples == (self.total if asked is None else min(asked, self.total))


_OTHER: Mapping[str, str] = {
    "network": "other weights",
    "norm": "another norm",
    "bounds_told": "other bounds",
    "data": "other data",
}
"""Settings in which files must agree that stand on one page, and what is wrong where not."""


def check_same_evaluation(what: str, settings: Settings, results: Sequence[Settings]) -> None:
    """Raise ValueError where settings tell of another evaluation than all the results'.

    Of other weights, norm, bounds or data; what either does not say passes. what: the file.
    """
    nearest = min((_differences(settings, found) for found in results), key=len, default=[])
    if nearest:
        raise ValueError(
            f"{what} was made with {' and '.join(nearest)} than the results beside it; make it "
            "again with the same option of `ima evaluate`, or delete it"
        )


def _differences(settings: Settings, results: Settings) -> list[str]:
    """What settings say otherwise than those of results, in words."""
    told = {key: (getattr(settings, key), getattr(results, key)) for key in _OTHER}
    # A digest says nothing to a reader.
    return [
        _OTHER[key] + ("" if key == "network" else f" ({own}, not {others})")
        for key, (own, others) in told.items()
        if own and others and own != others
    ]


class Finding:
    """What was found out about a model, with how: the settings."""

    settings: Settings

    @property
    def norm(self) -> str:
        """The norm that noise is measured in."""
        return self.settings.norm

    @property
    def remarks(self) -> tuple[str, ...]:
        """What leaves the figures in doubt, as sentences."""
        return self.settings.remarks
