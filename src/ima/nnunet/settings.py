"""What the trainers are told: IMA_* variables, or a YAML file named by IMA_CONFIG."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ima.nnunet.paper import PAPER_TASKS, PaperTask, by_dataset

CONFIG = "IMA_CONFIG"
"""The variable that names a YAML file with the settings, in lower case and without IMA_."""

_OTHERS = ("IMA_CONFIG", "IMA_DATA", "IMA_CACHE", "IMA_JOBS", "IMA_PARENT")
"""Variables of this library that are no settings of the trainers."""


_DEFAULTS: Mapping[str, float] = {"dice": 0.6, "steps": 20}

NNUNET_EPOCHS = 1000
"""nnU-Net's own, where none are set."""

RADII = ("IMAPaper", "SAT")
"""Kinds of trainers that are told a radius."""

NOISY = ("IMA", *RADII)
"""Kinds of trainers that add noise; those of a fixed radius, such as SAT5, are of the kind SAT."""

ALL = (*NOISY, "STD")
"""All kinds of trainers."""

TRAINERS: Mapping[str, float | None] = {
    **dict.fromkeys(
        ("nnUNetTrainerSTD", "nnUNetTrainerSAT", "nnUNetTrainerIMA", "nnUNetTrainerIMAPaper")
    ),
    **{f"nnUNetTrainerSAT{eps:g}": eps for eps in (5.0, 10.0, 15.0, 20.0, 25.0, 40.0)},
}
"""The names of all trainers, and the eps that a name fixes, None where it fixes none."""


@dataclass(frozen=True)
class Key:
    """One setting: what is expected, in words and as a test, and what it means, for the log.

    trainers: the kinds that read it; default: in words.
    """

    name: str
    kind: type[int] | type[float]
    expected: str
    fits: Callable[[float], bool]
    meaning: str
    trainers: tuple[str, ...]
    default: str

    @property
    def told(self) -> str:
        """The kinds of trainers that read it, in words."""
        words: dict[tuple[str, ...], str] = {ALL: "all", NOISY: "all but STD"}
        return words.get(self.trainers, ", ".join(self.trainers))

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"IMA_{self.name.upper()}"


FLOAT32 = (1.1754943508222875e-38, 3.4028234663852886e38)
"""The smallest and the largest number above 0 that float32 holds in full."""

POSITIVE = (
    float,
    "a number above 0, of those of float32",
    lambda value: FLOAT32[0] <= value <= FLOAT32[1],
)
_COUNT = (int, "a whole number of at least 1", lambda value: value >= 1)
_DICE = (float, "a Dice, 0 to below 1", lambda value: 0 <= value < 1)
_WHOLE = (int, "a whole number of at least 0", lambda value: value >= 0)
SEED = (int, "a whole number, 0 to below 2^32", lambda value: 0 <= value < 2**32)


def _papers(of: Callable[[PaperTask], float]) -> str:
    return (
        f"the paper's: {', '.join(f'{task.title} {of(task):g}' for task in PAPER_TASKS.values())}"
    )


EPS = f"{_papers(lambda task: task.eps)}; else 0.1 * sqrt(values in a patch)"
DELTA = f"{_papers(lambda task: task.delta)}, with its eps; else eps / 8"
"""What `_default_noise` does, in words."""

KEYS: dict[str, Key] = {
    row.name: row
    for row in (
        Key("eps", *POSITIVE, "largest noise, L2", RADII, EPS),
        Key("delta", *POSITIVE, "growth of a margin a visit", ("IMAPaper",), DELTA),
        Key("dice", *_DICE, "a slice is correct above this Dice", ALL, f"{_DEFAULTS['dice']:g}"),
        Key("steps", *_COUNT, "steps of the attack", RADII, f"{_DEFAULTS['steps']:g}"),
        Key("epochs", *_COUNT, "epochs", ALL, f"nnU-Net's {NNUNET_EPOCHS}"),
        Key("standard_epochs", *_WHOLE, "epochs at the start that train without noise", NOISY, "0"),
        Key("iterations", *_COUNT, "iterations an epoch", ALL, "nnU-Net's 250"),
        Key("val_iterations", *_COUNT, "validation iterations an epoch", ALL, "nnU-Net's 50"),
        Key("seed", *SEED, "seed of the training", ALL, "none: runs differ"),
    )
}


def used_by(kind: str) -> tuple[str, ...]:
    """Names of the settings that trainers of a kind in `ALL` read."""
    return tuple(key.name for key in KEYS.values() if kind in key.trainers)


def variables() -> str:
    """All variables as a Markdown table, for the command's help and the documentation."""
    rows = [
        ("variable", "default", "meaning", "trainers"),
        ("---", "---", "---", "---"),
        *((k.variable, k.default, k.meaning, k.told) for k in KEYS.values()),
        (CONFIG, "none", "a YAML file with these, such as `eps: 6`; variables win", "all"),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


@dataclass(frozen=True)
class Settings:
    """What a trainer runs with; None where nnU-Net's own value holds, or no use is made of it.

    eps, delta: the largest noise and a margin's growth a visit, L2, in units of nnU-Net's
    normalised images; dice: threshold above which a slice is correct; steps: of the attack;
    epochs, iterations, val_iterations: the schedule; standard_epochs: of these at the start, that
    train without noise; seed: of training. sources: by name, where a value came from.
    """

    eps: float | None = None
    delta: float | None = None
    dice: float = _DEFAULTS["dice"]
    steps: int | None = None
    epochs: int | None = None
    standard_epochs: int | None = None
    iterations: int | None = None
    val_iterations: int | None = None
    seed: int | None = None
    sources: Mapping[str, str] = field(default_factory=dict[str, str], compare=False, repr=False)

    @staticmethod
    def of(
        dataset: str,
        values: int,
        *,
        uses: Collection[str],
        fixed_eps: float | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Settings:
        """The settings of a trainer on a data set.

        dataset: nnU-Net's name, such as Dataset004_Hippocampus; values: numbers in one patch, its
        channels included; uses: names in `KEYS` of what the trainer needs; fixed_eps: where its
        name fixes eps; environ: `os.environ` if None.

        Raises ValueError for unknown names, values out of range, delta above eps, no epoch with
        noise, and an eps that is not the fixed one; FileNotFoundError where IMA_CONFIG names no
        file.
        """
        given = _given(os.environ if environ is None else environ)
        used = {name: pair for name, pair in given.items() if name in uses}
        if set(uses) == set(used_by("IMA")):
            _refuse_radii(given)
        if fixed_eps is not None:
            _fix(used, fixed_eps)
        for name, value in _DEFAULTS.items():
            if name in uses:
                used.setdefault(name, (value, "the paper's"))
        _default_noise(used, dataset, values, uses)
        chosen = {name: value for name, (value, _) in used.items()}
        if "delta" in chosen and chosen["delta"] > chosen["eps"]:
            raise ValueError(
                f"delta is {chosen['delta']:g} ({used['delta'][1]}), above eps, {chosen['eps']:g} "
                f"({used['eps'][1]}); expected at most eps: set IMA_EPS and IMA_DELTA together"
            )
        epochs = chosen.get("epochs", NNUNET_EPOCHS)
        if chosen.get("standard_epochs", 0) >= epochs:
            raise ValueError(
                f"standard_epochs is {chosen['standard_epochs']} ({used['standard_epochs'][1]}) of "
                f"{epochs} epochs; expected fewer, or train with nnUNetTrainerSTD"
            )
        sources = {name: source for name, (_, source) in used.items()}
        return Settings(**chosen, sources=sources)  # pyright: ignore[reportArgumentType]

    def pick(self, *names: str) -> dict[str, Any]:
        """Some values by name, as a method takes them."""
        return {name: getattr(self, name) for name in names}

    def as_dict(self) -> dict[str, float | int | None]:
        """The values by name, as a checkpoint keeps them."""
        return self.pick(*KEYS)

    def describe(self) -> list[str]:
        """A line for every value that is set: what it means and where it came from."""
        return [
            f"{key.name:<15}{_text(getattr(self, key.name)):<8} {key.meaning} "
            f"({self.sources[key.name]})"
            for key in KEYS.values()
            if key.name in self.sources
        ]


def reach(settings: Settings, slices: int, batch_size: int, epochs: int, iterations: int) -> str:
    """What to say where margins hardly get to their cap within the training; empty elsewhere.

    slices: training samples with a margin; batch_size: of one iteration, over all processes.
    """
    if settings.eps is None or settings.delta is None:
        return ""
    visits = epochs * iterations * batch_size / slices
    needed = settings.eps / settings.delta
    if visits >= needed:
        return ""
    return (
        f"WARNING: {epochs} epochs of {iterations} iterations visit each of {slices} samples "
        f"{visits:.2g} times on average, but a margin needs {needed:.2g} visits to reach eps = "
        f"{settings.eps:g}; train longer, or raise IMA_DELTA, which is {settings.delta:g}"
    )


def _given(environ: Mapping[str, str]) -> dict[str, tuple[float, str]]:
    """Values and their sources, by name: from the YAML file, and over it from variables."""
    variables = {key.variable: key for key in KEYS.values()}
    for name in environ:
        if name.startswith("IMA_") and name not in variables and name not in _OTHERS:
            raise ValueError(_unknown(f"the environment variable {name} is", name, variables))
    given: dict[str, tuple[float, str]] = {}
    if CONFIG in environ:
        for name, value in _read(environ[CONFIG]).items():
            if name not in KEYS:
                where = f"{CONFIG} ({environ[CONFIG]}) has the key {name!r}, which is"
                raise ValueError(_unknown(where, str(name), KEYS))
            key = KEYS[str(name)]
            given[key.name] = (_number(key, value, f"{key.name} in {environ[CONFIG]}"), CONFIG)
    for variable, key in variables.items():
        if variable in environ:
            given[key.name] = (_number(key, environ[variable], variable), variable)
    return given


def _read(file: str) -> dict[object, object]:
    from ima.plain_yaml import YamlError, read_mapping

    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"{CONFIG} names {file!r}, and there is no such file")
    try:
        return read_mapping(path)
    except YamlError as error:
        raise ValueError(f"{CONFIG}: {error} ({', '.join(KEYS)})") from error


def _number(key: Key, came: object, where: str) -> float:
    message = f"{where} is {came!r}; expected {key.expected}"
    if isinstance(came, bool) or not isinstance(came, str | int | float):
        raise ValueError(message)
    try:
        value = key.kind(came)
    except (ValueError, OverflowError) as error:
        raise ValueError(message) from error
    if not key.fits(value) or (isinstance(came, float) and value != came):
        raise ValueError(message)
    return value


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _unknown(where: str, name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{where} no setting.{hint} Known: {', '.join(known)}"


def _refuse_radii(given: Mapping[str, tuple[float, str]]) -> None:
    """Raise ValueError for a radius or a growth that a trainer of measured margins would ignore."""
    for name in ("eps", "delta"):
        if name in given:
            value, source = given[name]
            raise ValueError(
                f"{name} is {value:g} ({source}), but nnUNetTrainerIMA finds its radius by itself: "
                "unset it, or train with nnUNetTrainerIMAPaper, the paper's algorithm"
            )


def _fix(used: dict[str, tuple[float, str]], eps: float) -> None:
    if "eps" in used and used["eps"][0] != eps:
        raise ValueError(
            f"eps is {used['eps'][0]:g} ({used['eps'][1]}), but the trainer's name says {eps:g}; "
            "expected no eps beside it: unset it, or train with nnUNetTrainerSAT"
        )
    used["eps"] = (eps, "the trainer's name")


def _default_noise(
    used: dict[str, tuple[float, str]], dataset: str, values: int, uses: Collection[str]
) -> None:
    paper = by_dataset(dataset)
    source = "" if paper is None else f"the paper's for {paper.title}"
    if "eps" in uses and "eps" not in used:
        used["eps"] = (
            (paper.eps, source)
            if paper is not None
            else (round(0.1 * math.sqrt(values), 6), f"0.1 * sqrt({values} values in a patch)")
        )
    if "delta" in uses and "delta" not in used:
        # The paper's growth goes with its largest margin only.
        used["delta"] = (
            (paper.delta, source)
            if paper is not None and used["eps"][0] == paper.eps
            else (round(used["eps"][0] / 8, 6), "eps / 8")
        )
