"""What an evaluation found: one row for every sample, attack and noise radius.

Tables and figures are functions of these rows and need neither model nor torch.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ima.evaluation.remarks import remarks_of
from ima.evaluation.values import Value, check_kind, from_cell, to_cell
from ima.files import whole

CLEAN = "clean"


@dataclass(frozen=True)
class Row:
    """One sample under one attack.

    id, label: of the sample; attack: its name, `"clean"` for no noise; eps: the noise radius;
    prediction: on the noisy sample (on the clean one where no attack succeeded); broken: the
    prediction is wrong, on the clean sample or with noise of at most eps; distance: the size of
    the noise found, NaN where none broke the sample. For white noise eps is its amplitude. Labels
    and predictions are classes, or with a task of a user's own what `Value` says. case: whose
    sample it is, empty where nobody said.
    """

    id: int
    label: Value
    attack: str
    eps: float
    prediction: Value
    broken: bool
    distance: float
    case: str = ""


FIELDS = ("id", "label", "attack", "eps", "prediction", "broken", "distance")
CASE = "case"
"""The column that files have where cases are known."""


@dataclass(frozen=True)
class Results:
    """The rows of one model's evaluation, and the norm that eps and distance are measured in.

    settings: how it was made, as far as known: samples, seed, seconds, and by the name of an attack
    that is made of parts those that ran.
    """

    rows: tuple[Row, ...]
    norm: str
    settings: Mapping[str, str] = field(default_factory=dict[str, str], compare=False)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What leaves the figures in doubt, as sentences."""
        return remarks_of(self.settings)

    @property
    def attacks(self) -> tuple[str, ...]:
        """The attacks, without clean and white noise, in the order in which they ran."""
        return tuple(dict.fromkeys(row.attack for row in self.rows if aimed(row.attack)))

    @property
    def eps(self) -> tuple[float, ...]:
        """The noise radii, ascending."""
        return tuple(sorted({row.eps for row in self.rows if aimed(row.attack)}))

    @property
    def white(self) -> dict[str, tuple[float, int, int]]:
        """White noise by its name: amplitude, samples that it flips, samples right without it."""
        names = [(r.attack, r.eps) for r in self.rows if is_white(r.attack)]
        wrong = sum(self.broken(CLEAN, 0.0).values())
        found: dict[str, tuple[float, int, int]] = {}
        for name, eps in dict.fromkeys(names):
            broken = self.broken(name, eps)
            found[name] = (eps, sum(broken.values()) - wrong, len(broken) - wrong)
        return found

    def flips(self, name: str) -> list[Row]:
        """The rows of white noise of this name, of samples that are right without it."""
        wrong = {row.id for row in self.of() if row.broken}
        return [row for row in self.rows if row.attack == name and row.id not in wrong]

    def accuracy(self, attack: str = CLEAN, eps: float = 0.0) -> float:
        """Share of all samples that stand; NaN where nothing was run.

        A sample that is wrong without noise counts as broken under every attack.
        """
        broken = [row.broken for row in self.of(attack, eps)]
        return 1 - sum(broken) / len(broken) if broken else float("nan")

    def broken(self, attack: str, eps: float) -> dict[int, bool]:
        """Whether each sample, by id, is broken."""
        return {row.id: row.broken for row in self.of(attack, eps)}

    def interval(self, attack: str = CLEAN, eps: float = 0.0) -> tuple[float, float]:
        """A 95 % interval of `accuracy`, as shares: what a test set of this size leaves open.

        Wilson's; where rows name their cases, of as many samples as these are worth (see
        `effective`). NaN where nothing was run.
        """
        rows = self.of(attack, eps)
        if not rows:
            return math.nan, math.nan
        return interval(self.accuracy(attack, eps), len(rows), worth(rows))

    def by_class(self, attack: str = CLEAN, eps: float = 0.0) -> dict[int, tuple[int, int]]:
        """For each class, by its index, how many of its samples stand and how many there are.

        Empty where labels are no classes, as with a task of a user's own they can be.
        Of two classes, the share of one is the sensitivity, that of the other the specificity.
        """
        found: dict[int, tuple[int, int]] = {}
        for row in self.of(attack, eps):
            if not isinstance(row.label, int):
                return {}
            standing, n = found.get(row.label, (0, 0))
            found[row.label] = standing + (not row.broken), n + 1
        return dict(sorted(found.items()))

    def of(self, attack: str = CLEAN, eps: float = 0.0) -> list[Row]:
        """The rows of one attack at one radius."""
        near = (k for k in self._groups if k[0] == attack and same_radius(k[1], eps))
        return [row for key in near for row in self._groups[key]]

    @cached_property
    def _groups(self) -> dict[tuple[str, float], list[Row]]:
        found: dict[tuple[str, float], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row.attack, row.eps), []).append(row)
        return found

    def to_csv(self, path: str | Path) -> None:
        """Write the settings as a comment, `# {...}`, and the rows.

        The file appears whole or not at all.
        """
        with whole(Path(path)) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            if self.settings:
                file.write(f"# {json.dumps(dict(self.settings))}\r\n")
            writer = csv.writer(file)
            fields = (*FIELDS, CASE) if any(row.case for row in self.rows) else FIELDS
            writer.writerow((*fields, "norm"))
            for row in self.rows:
                cells = {name: getattr(row, name) for name in fields}
                cells |= {name: to_cell(cells[name]) for name in ("label", "prediction")}
                writer.writerow([*(cells | {"broken": int(row.broken)}).values(), self.norm])

    def to_html(self, path: str | Path, *, title: str = "") -> None:
        """Write a page that says what noise breaks the network, whole in one file.

        path: its name ends in .html, or in .md or .json for the same content in those forms.
        title: what the network is called on the page.
        """
        # Here, because evaluation knows nothing of reports otherwise.
        from ima.report.html import write
        from ima.report.html.sources import Source

        write(Path(path), [Source(title or "this network", {"results": self})])

    @staticmethod
    def from_csv(path: Path) -> Results:
        """Read what `to_csv` wrote; ValueError for any other file."""
        try:
            with path.open(newline="", encoding="utf-8") as file:
                first = file.readline()
                settings = read_settings(first)
                if not settings:
                    file.seek(0)
                header, *records = list(csv.reader(file)) or [[]]
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f"{path} is no results file, or damaged: {unread(error)}; evaluate the model again"
            ) from error
        if tuple(header) not in ((*FIELDS, "norm"), (*FIELDS, CASE, "norm")):
            raise ValueError(
                f"{path} is no results file, or damaged: {columns(header)}; evaluate the model "
                "again"
            )
        norm = records[0][-1] if records else ""
        try:
            rows = tuple(_row(record, norm, len(header)) for record in records)
            check_kind("label", (row.label for row in rows))
            check_kind("prediction", (row.prediction for row in rows))
            check_whole([((row.attack, row.eps), row.id) for row in rows], settings)
            return Results(rows, norm, settings)
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}); evaluate the model again") from error


def columns(header: Sequence[str]) -> str:
    """What stands where the names of a table's columns are expected, in words."""
    return f"its columns are {', '.join(header)[:80]!r}" if header else "it holds no table"


def unread(error: Exception) -> str:
    """Why a table cannot be read, in words."""
    return "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def check_whole(
    found: Sequence[tuple[tuple[str, float], int]], settings: Mapping[str, str]
) -> None:
    """Raise ValueError unless every attack and radius has each sample once, as many as were.

    found: attack and radius, and the sample's id, of every row.
    """
    by_key: dict[tuple[str, float], list[int]] = {}
    for key, id_ in found:
        by_key.setdefault(key, []).append(id_)
    first = set(next(iter(by_key.values()), ()))
    for (attack, eps), ids in by_key.items():
        named = f"{attack} at {eps:g}" if attack != CLEAN else "the clean pass"
        if len(set(ids)) < len(ids):
            raise ValueError(f"a sample stands twice under {named}")
        if differ := sorted(set(ids) ^ first):
            where = f"{'not ' if differ[0] in first else 'only '}under {named}"
            raise ValueError(
                f"every attack and radius has the same samples, but sample {differ[0]} stands "
                f"{where}: rows are missing, or of another table"
            )
    # Such as "540" or "540 of 540"; results of several runs, and early ones, do not say.
    told = settings.get("samples", "").partition(" ")[0]
    if found and told.isdecimal() and int(told) != len(first):
        raise ValueError(f"it holds {len(first)} samples of {told}")


def same_radius(one: float, other: float) -> bool:
    """Whether two radii are one: files and arguments round."""
    return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-8)


def aimed(attack: str) -> bool:
    """Whether it is an attack with a radius, neither clean nor white noise."""
    return attack != CLEAN and not is_white(attack)


def is_white(attack: str) -> bool:
    """Whether it is white noise, with or without a number of draws: its size is no radius."""
    return attack.partition("-")[0] == "white"


CLASSES = "classes"
"""The setting that holds the names of classes, as a JSON list."""

NETWORK = "network"
"""The setting of an evaluation that tells the network's weights from others: a digest of them."""


def named(settings: Mapping[str, str]) -> list[str]:
    """The names of classes that settings hold; none where they hold none that can be read."""
    try:
        found = json.loads(settings.get(CLASSES, "[]"))
    except ValueError:
        return []
    return [str(name) for name in found] if isinstance(found, list) else []


FILE = "weights file"
"""The setting that tells the file of weights from others: a digest of it."""


EPOCH = "epoch"
"""The setting that tells of which epoch the weights are, such as `7 of 30`."""

PICKED = "picked by"
"""The setting that tells by what validation picked this epoch, such as `clean accuracy`."""

PICKED_OLD = "the geometric mean of clean accuracy and accuracy under PGD-10"
"""What picked the epochs of runs whose results do not say: there was no other rule."""

TEST = "test"
"""The part of the data whose results do not say of which they are."""

OTHER = {
    NETWORK: "other weights",
    "norm": "another norm",
    "bounds": "other bounds",
    "data": "other data",
}
"""Settings in which files must agree that stand on one page, and what is wrong where not."""


def check_network(
    path: Path, settings: Mapping[str, str], results: Iterable[Mapping[str, str]]
) -> None:
    """Raise ValueError for a file whose settings tell of another evaluation than all the results'.

    Of other weights, norm, bounds or data; what either does not say passes.
    """
    nearest = min((_differences(settings, found) for found in results), key=len, default=[])
    if nearest:
        raise ValueError(
            f"{path} was made with {' and '.join(nearest)} than the results beside it; make it "
            "again with the same option of `ima evaluate`, or delete it"
        )


def _differences(settings: Mapping[str, str], results: Mapping[str, str]) -> list[str]:
    """What settings say otherwise than those of results, in words."""
    told = {key: settings[key] for key in OTHER if settings.get(key) and results.get(key)}
    # A digest says nothing to a reader.
    return [
        OTHER[key] + ("" if key == NETWORK else f" ({own}, not {results[key]})")
        for key, own in told.items()
        if own != results[key]
    ]


def read_settings(line: str) -> dict[str, str]:
    """The settings in a file's first line; none in files from before there were any."""
    if not line.startswith("#"):
        return {}
    try:
        found = json.loads(line[1:])
    except ValueError as error:
        raise ValueError(f"its first line is {line[:60]!r}") from error
    if not isinstance(found, dict):
        raise ValueError(f"its first line is {line[:60]!r}")
    return {str(key): str(value) for key, value in found.items()}


def _row(record: list[str], norm: str, columns: int) -> Row:
    if len(record) != columns or record[-1] != norm or record[5] not in ("0", "1"):
        raise ValueError(f"a row is {','.join(record)!r}")
    id_, label, attack, eps, prediction, broken, distance, *case = record[:-1]
    return Row(
        int(id_),
        from_cell(label),
        attack,
        float(eps),
        from_cell(prediction),
        broken == "1",
        float(distance),
        *case,
    )


def worth(rows: Iterable[Row]) -> float | None:
    """How many independent samples rows are worth, by their cases; None where these are unknown."""
    counts: dict[str, list[int]] = {}
    for row in rows:
        if not row.case:
            return None
        count = counts.setdefault(row.case, [0, 0])
        count[0] += not row.broken
        count[1] += 1
    return effective([(standing, n) for standing, n in counts.values()])


def effective(cases: Sequence[tuple[int, int]]) -> float:
    """How many independent samples those of some cases are worth: n over the design effect.

    cases: how many samples of each stand, and how many there are. The design effect is the
    variance of the share, as a ratio whose residuals are summed by case (Cochran, Sampling
    Techniques, 1977), over that of as many independent samples. Where all samples are alike it is
    not known, and every case counts as one sample. 0 for fewer than two cases.
    """
    n, standing = sum(size for _, size in cases), sum(right for right, _ in cases)
    if len(cases) < 2:
        return 0.0
    if standing in (0, n):
        return float(len(cases))
    share = standing / n
    squares = math.fsum((right - share * size) ** 2 for right, size in cases)
    variance = len(cases) / (len(cases) - 1) * squares / n**2
    # No more than there are, and one at least: few cases may agree by chance.
    return float(min(n, max(1.0, share * (1 - share) / variance if variance > 0 else n)))


def interval(share: float, n: int, samples: float | None) -> tuple[float, float]:
    """The 95 % interval of a share of n samples that are worth so many, n if None.

    Everything where they are worth nothing.
    """
    if samples is None:
        return wilson(share, n)
    return wilson(share, samples) if samples >= 1 else (0.0, 1.0)


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95 % interval of a share that was measured on n samples, as shares.

    Wilson, Journal of the American Statistical Association, 1927: it holds near 0 and 1 too, where
    share ± 2 standard errors does not. NaN for a NaN share; ValueError for n below 1.
    """
    if n < 1 or not (math.isnan(share) or 0 <= share <= 1):
        raise ValueError(f"share is {share!r} of n = {n!r}; expected 0 to 1, of 1 sample or more")
    z = 1.959964
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # Rounding errors must not leave the share outside.
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def mean_and_std(values: Iterable[float]) -> tuple[float, float | None]:
    """Mean, and sample standard deviation where there are several values."""
    array = np.array(list(values), dtype=float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None
