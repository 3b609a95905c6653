"""What an evaluation found: for every sample, attack and noise radius the lowest quality.

A quality is one number of 0 to 1: 1 or 0 for a label that is right or wrong, the Dice of a mask. A
sample whose quality is below the measure's threshold is broken. Held as columns; tables and figures
are functions of these and need neither model nor torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ima.evaluation import store
from ima.evaluation.settings import Finding, Settings
from ima.evaluation.statistics import (
    mean_interval,
    mean_of,
    part_means,
    share_interval,
    worth,
)
from ima.evaluation.values import Value

if TYPE_CHECKING:
    import pandas as pd

CLEAN = "clean"

WORST = "worst case"
"""For every sample the attack that leaves the lowest quality."""

KINDS = ("clean", "chosen", "drawn", "white", "worst")
"""What noise there is: none; chosen against the network; drawn at random from the ball; white
noise, whose size is no radius; the worst of several attacks."""

_AGAIN = "evaluate the model again"


@dataclass(frozen=True)
class Row:
    """One sample under one attack.

    id: of the sample; attack: its name, `"clean"` for no noise; eps: the noise radius, of white
    noise the amplitude; quality: the lowest found with noise of at most eps, 0 to 1; size: of that
    noise, NaN where none lowered the quality; kind: see `KINDS`; case, slice: whose sample it is,
    empty and -1 where nobody said; broken: the quality is below the threshold. more: the task's
    columns by name, such as the label and the prediction with the noise.
    """

    id: int
    attack: str
    eps: float
    quality: float
    size: float = math.nan
    kind: str = "chosen"
    case: str = ""
    slice: int = -1
    broken: bool = False
    more: Mapping[str, Value] = field(default_factory=dict[str, Value])


BASE = tuple(one.name for one in fields(Row) if one.name not in ("broken", "more"))
"""The columns that every evaluation has."""


@dataclass(frozen=True, eq=False)
class Results(Finding):
    """The rows of one model's evaluation.

    columns: by name, one value a row; those of `BASE` and the task's.
    settings: how it was made.

    >>> import ima, torch
    >>> model = torch.nn.Linear(2, 3)
    >>> data = torch.utils.data.TensorDataset(torch.rand(8, 2), torch.arange(8) % 3)
    >>> results = ima.evaluate(model, data, eps=[0.1, 0.2], attacks="pgd-5")
    >>> low, high = results.interval("pgd-5", 0.1)
    >>> low <= results.mean("pgd-5", 0.1) <= high
    True
    """

    columns: Mapping[str, NDArray[Any]]
    settings: Settings

    @staticmethod
    def of(rows: Sequence[Row], settings: Settings) -> Results:
        """The results that hold these rows."""
        more = dict.fromkeys(name for row in rows for name in row.more)
        found = {name: store.to_column([getattr(row, name) for row in rows]) for name in BASE}
        found |= {name: store.to_column([row.more[name] for row in rows]) for name in more}
        return Results(found, settings)

    def __eq__(self, other: object) -> bool:
        """Whether the rows are the same; how they were made does not count."""
        if not isinstance(other, Results) or self.norm != other.norm:
            return NotImplemented if not isinstance(other, Results) else False
        mine, others = self.columns, other.columns
        return mine.keys() == others.keys() and all(
            np.array_equal(mine[n], others[n], equal_nan=mine[n].dtype.kind == "f") for n in mine
        )

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __len__(self) -> int:
        return len(self.columns["id"])

    def __str__(self) -> str:
        """The mean quality, a line an attack: short, however many rows there are."""
        write = self.settings.measure.said
        lines = [f"{self.settings.measure.title} of {self._samples} samples, noise in {self.norm}"]
        for attack in (CLEAN, *self.attacks):
            at = [0.0] if attack == CLEAN else self.eps
            values = ", ".join(
                (f"{eps:g}: " if eps else "") + write(value).replace("\u00a0", " ")
                for eps in at
                if not math.isnan(value := self.mean(attack, eps))
            )
            lines.append(f"  {attack:<14} {values}")
        return "\n".join([*lines, *(f"  remark: {one}" for one in self.remarks)])

    __repr__ = __str__

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """One object a row, for those who want to look at single ones."""
        more = [name for name in self.columns if name not in BASE]
        listed = {name: column.tolist() for name, column in self.columns.items()}
        broken = self.broken_rows.tolist()
        return tuple(
            Row(
                **{name: listed[name][i] for name in BASE if name in listed},
                broken=broken[i],
                more={name: listed[name][i] for name in more},
            )
            for i in range(len(self))
        )

    @property
    def attacks(self) -> tuple[str, ...]:
        """The attacks with a radius, in the order in which they ran, the worst case last."""
        return self._named("chosen", "drawn", "worst")

    @property
    def white(self) -> tuple[str, ...]:
        """The white noise that was tried: `"white-1"`, `"white-100"`, ..."""
        return self._named("white")

    @property
    def eps(self) -> tuple[float, ...]:
        """The noise radii, ascending."""
        radii = np.isin(self.columns["kind"], ("chosen", "drawn", "worst"))
        return tuple(np.unique(self.columns["eps"][radii]).tolist())

    def kind(self, attack: str) -> str:
        """The kind of noise of an attack, see `KINDS`; that of a worst case of draws is drawn."""
        kinds: list[str] = self.columns["kind"][self.columns["attack"] == attack][:1].tolist()
        return next(iter(kinds), "")

    def amplitude(self, white: str) -> float:
        """The size of white noise on every entry."""
        return float(self.columns["eps"][self.columns["attack"] == white][0])

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases that samples are from, in their order; empty where nobody said."""
        found = tuple(dict.fromkeys(self.of_attack()["case"].tolist()))
        return () if "" in found else found

    @cached_property
    def broken_rows(self) -> NDArray[np.bool_]:
        """For every row, whether its sample is broken."""
        return self.columns["quality"] < self.settings.measure.threshold

    @cached_property
    def _places(self) -> dict[tuple[str, float], NDArray[np.intp]]:
        found: dict[tuple[str, float], list[int]] = {}
        keys = zip(self.columns["attack"].tolist(), self.columns["eps"].tolist(), strict=True)
        for place, key in enumerate(keys):
            found.setdefault(key, []).append(place)
        return {key: np.array(places) for key, places in found.items()}

    @property
    def keys(self) -> tuple[tuple[str, float], ...]:
        """Attacks and radii, in the order of the rows."""
        return tuple(self._places)

    def at(self, attack: str = CLEAN, eps: float | None = None) -> NDArray[np.intp]:
        """The places of one attack's rows at one radius; at any if None."""
        found = [
            places
            for (name, radius), places in self._places.items()
            if name == attack and (eps is None or attack == CLEAN or same_radius(radius, eps))
        ]
        return np.concatenate(found) if found else np.array([], dtype=np.intp)

    def of_attack(self, attack: str = CLEAN, eps: float | None = None) -> dict[str, NDArray[Any]]:
        """The columns of one attack's rows at one radius; at any if None."""
        places = self.at(attack, eps)
        return {name: column[places] for name, column in self.columns.items()}

    def matrix(self, attack: str = CLEAN, eps: float | None = None) -> NDArray[np.float64]:
        """What a mean is taken over, (n, K): the qualities, or those of every part; NaN: none."""
        measure, places = self.settings.measure, self.at(attack, eps)
        if measure.over == "parts":
            return self.parts(places)
        return self.columns["quality"][places][:, None]

    def parts(self, places: NDArray[np.intp]) -> NDArray[np.float64]:
        """The quality of every part of some rows, (n, K), NaN where it does not count.

        Of a sample with one label, its class is its only part. (n, 0) where there are no parts.
        """
        prefix, names = self.settings.measure.column, self.classes
        if prefix:
            found = [self.columns[prefix + name][places] for name in names]
            return np.array(found, dtype=np.float64).reshape(len(names), len(places)).T
        if not names:
            return np.empty((len(places), 0))
        labels = self.columns["label"][places]
        quality = self.columns["quality"][places]
        return np.where(labels[:, None] == np.arange(len(names)), quality[:, None], np.nan)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the parts of samples; numbers where nobody named classes, else empty."""
        named = self.settings.classes
        label = self.columns.get("label")
        if self.settings.measure.column or label is None or label.dtype.kind != "i":
            return named if self.settings.measure.column else ()
        numbers = range(len(named), int(label.max(initial=-1)) + 1)
        return (*named, *(f"class {number}" for number in numbers))

    def mean(self, attack: str = CLEAN, eps: float | None = None) -> float:
        """The mean quality: an accuracy, or the average Dice index; NaN where nothing was run."""
        return mean_of(self.matrix(attack, eps))

    def accuracy(self, attack: str = CLEAN, eps: float | None = None) -> float:
        """Share of all samples that are not broken; NaN where nothing was run.

        A sample that is broken without noise is broken under every attack.
        """
        standing = ~self.broken_rows[self.at(attack, eps)]
        return float(standing.mean()) if len(standing) else math.nan

    def broken(self, attack: str = CLEAN, eps: float | None = None) -> dict[int, bool]:
        """Whether each sample, by id, is broken."""
        places = self.at(attack, eps)
        flags: list[bool] = self.broken_rows[places].tolist()
        return dict(zip(self.columns["id"][places].tolist(), flags, strict=True))

    def adi(self, attack: str = CLEAN, eps: float | None = None) -> float:
        """The average Dice index, 0 to 1 (Ma & Liang, Eq. 14): the mean over classes of their mean.

        NaN where nothing was run, or no class occurs.
        """
        return mean_of(self.parts(self.at(attack, eps)))

    def per_class(self, attack: str = CLEAN, eps: float | None = None) -> tuple[float, ...]:
        """For every class the mean quality over the samples in which it counts; NaN: in none.

        Of two classes of labels, one is the sensitivity, the other the specificity.
        """
        return tuple(part_means(self.parts(self.at(attack, eps))).tolist())

    def counts(self, attack: str = CLEAN, eps: float | None = None) -> tuple[int, ...]:
        """For every class in how many samples it counts."""
        return tuple((~np.isnan(self.parts(self.at(attack, eps)))).sum(0).tolist())

    def adi_all_classes(self, attack: str = CLEAN, eps: float | None = None) -> float:
        """`adi` over samples alone whose truth holds every foreground class.

        The authors' code computes this. NaN where there is no such sample.
        """
        places = self.at(attack, eps)
        present = self.columns.get("present")
        whole = places if present is None else places[present[places] == len(self.classes)]
        return mean_of(self.parts(whole))

    def interval(self, attack: str = CLEAN, eps: float | None = None) -> tuple[float, float]:
        """A 95 % interval of `mean`: what a test set of this size leaves open.

        Of shares Wilson's; where rows name their cases, of as many samples as these are worth (see
        `effective`). Of other means from how much the cases differ, see `mean_interval`. NaN where
        nothing was run.
        """
        places = self.at(attack, eps)
        if not len(places):
            return math.nan, math.nan
        cases = self.columns["case"][places]
        if self.settings.measure.binary:
            standing = ~self.broken_rows[places]
            return share_interval(float(standing.mean()), len(places), worth(standing, cases))
        own = np.where(cases == "", self.columns["id"][places].astype(str), cases)
        return mean_interval(self.matrix(attack, eps), own)

    def flips(self, white: str) -> NDArray[np.intp]:
        """The places of white noise's rows, of samples that are right without it."""
        clean = self.at(CLEAN)
        right = self.columns["id"][clean[~self.broken_rows[clean]]]
        places = self.at(white)
        return places[np.isin(self.columns["id"][places], right)]

    def to_frame(self) -> pd.DataFrame:
        """The rows as a pandas DataFrame, which must be installed; the settings in its `attrs`."""
        import pandas as pd

        frame = pd.DataFrame(dict(self.columns))
        frame.attrs.update(self.settings.model_dump(mode="json", exclude_defaults=True))
        return frame

    def to_csv(self, path: str | Path) -> None:
        """Write the rows as a CSV, and the settings into a JSON beside it; whole or not at all."""
        absent = {"case": "", "slice": -1}
        kept = {n: c for n, c in self.columns.items() if n not in absent or (c != absent[n]).any()}
        store.write_results(Path(path), kept, self.settings)

    def to_html(self, path: str | Path, *, title: str = "") -> None:
        """Write a page that says what noise breaks the network, whole in one file.

        path: its name ends in .html, or in .md or .json for the same content in those forms.
        title: what the network is called on the page.
        """
        # By its name: evaluation knows nothing of reports.
        import_module("ima").write_page(self, path, title=title)

    @staticmethod
    def from_csv(path: str | Path) -> Results:
        """Read what `to_csv` wrote, also before this version; ValueError for any other file."""
        path = Path(path)
        columns, settings = store.read_results(path, "results", _AGAIN)
        if lost := [name for name in BASE if name not in columns and name not in ("case", "slice")]:
            raise ValueError(f"{path} holds no results: it has no column {lost[0]!r}; {_AGAIN}")
        n = len(columns["id"])
        columns = {
            "case": np.full(n, "", dtype=np.str_),
            "slice": np.full(n, -1, dtype=np.int64),
            **columns,
        }
        ordered = {name: columns[name] for name in (*BASE, *(k for k in columns if k not in BASE))}
        try:
            check_columns(ordered, settings)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); {_AGAIN}") from error
        return Results(ordered, settings)

    @property
    def _samples(self) -> int:
        return len(self.at(CLEAN)) or len(np.unique(self.columns["id"]))

    def _named(self, *kinds: str) -> tuple[str, ...]:
        places = np.isin(self.columns["kind"], kinds)
        found = dict.fromkeys(self.columns["attack"][places].tolist())
        return tuple(sorted(found, key=lambda name: name == WORST))


def check_columns(columns: Mapping[str, NDArray[Any]], settings: Settings) -> None:
    """Raise ValueError for values that no evaluation gives, and for rows that are not whole."""
    measure = settings.measure
    for name, column in columns.items():
        part = bool(measure.column) and name.startswith(measure.column)
        if name == "quality" or part:
            known = column[~np.isnan(column)]
            strange = known.size < column.size * (name == "quality")
            if strange or bool(((known < 0) | (known > 1)).any()):
                raise ValueError(f"a {name} is not between 0 and 1")
    if unknown := sorted(set(columns["kind"].tolist()) - set(KINDS)):
        raise ValueError(f"a kind of noise is {unknown[0]!r}; expected one of {', '.join(KINDS)}")
    if bool((columns["size"] < 0).any()):
        raise ValueError("a size of noise is below 0")
    lacking = [name for name in settings.classes if measure.column + name not in columns]
    if measure.column and lacking:
        raise ValueError(f"it has no column {measure.column + lacking[0]!r}")
    keys = list(zip(columns["attack"].tolist(), columns["eps"].tolist(), strict=True))
    check_whole(keys, columns["id"].tolist(), settings)


def check_whole(keys: Sequence[tuple[str, float]], ids: Sequence[int], settings: Settings) -> None:
    """Raise ValueError unless every attack and radius has each sample once, as many as were.

    keys: attack and radius of every row; ids: of its sample.
    """
    by_key: dict[tuple[str, float], list[int]] = {}
    for key, id_ in zip(keys, ids, strict=True):
        by_key.setdefault(key, []).append(id_)
    first = set(next(iter(by_key.values()), ()))
    for (attack, eps), found in by_key.items():
        named = f"{attack} at {eps:g}" if attack != CLEAN else "the clean pass"
        if len(set(found)) < len(found):
            raise ValueError(f"a sample stands twice under {named}")
        if differ := sorted(set(found) ^ first):
            where = f"{'not ' if differ[0] in first else 'only '}under {named}"
            raise ValueError(
                f"every attack and radius has the same samples, but sample {differ[0]} stands "
                f"{where}: rows are missing, or of another table"
            )
    if keys and settings.samples is not None and settings.samples != len(first):
        raise ValueError(f"it holds {len(first)} samples of {settings.samples}")


def same_radius(one: float, other: float) -> bool:
    """Whether two radii are one: files and arguments round."""
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-8)
