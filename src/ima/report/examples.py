"""Attacked samples as networks see them: read from examples.npz, and picked for pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ima.files import read_arrays
from ima.report.inputs import Array

SAID = ("label", "clean_prediction", "prediction")
"""What samples are, and are taken for without and with noise, in words."""

ARRAYS = ("id", "attack", "eps", *SAID, "clean", "noisy")

NamedExamples: TypeAlias = tuple[str, Mapping[str, Any]]
"""A network's label, and the arrays of its examples.npz."""


@dataclass(frozen=True, eq=False)
class ExampleView:
    """What one network makes of a sample, with noise of at most `eps` against it.

    clean, noisy: images; truth, before, after: what it is, and is taken for without and with noise,
    in words; right_before, right_after: whether these count as right.
    """

    label: str
    eps: float
    clean: Array
    noisy: Array
    truth: str
    before: str
    after: str
    right_before: bool
    right_after: bool


def read_examples(path: Path) -> dict[str, Any]:
    """The arrays of an examples.npz, with words and qualities; ValueError for any other file."""
    try:
        found = read_arrays(path)
    except ValueError as error:
        raise ValueError(f"{error}; evaluate the model again") from error
    if lost := [name for name in ARRAYS if name not in found]:
        raise ValueError(f"{path} is damaged: it lacks {lost[0]}; evaluate the model again")
    if "quality" not in found:
        # Files of versions before hold numbers of classes, and no quality.
        for name, said in (("quality", "prediction"), ("clean_quality", "clean_prediction")):
            found[name] = (found[said] == found["label"]).astype(float)
    classes = [str(name) for name in found.get("classes", ())]
    for name in SAID:
        column = found[name]
        if column.dtype.kind in "iu":
            words = [classes[i] if 0 <= i < len(classes) else str(i) for i in column.tolist()]
            found[name] = np.array(words, dtype=np.str_)
    return found


def drawable(found: Mapping[str, Any]) -> bool:
    """Whether samples are images of one or three channels with values from 0 to 1."""
    if not found:
        return False
    clean, noisy = found["clean"], found["noisy"]
    both = np.concatenate([clean.ravel(), noisy.ravel()])
    in_range = both.size > 0 and float(both.min()) > -1e-3 and float(both.max()) < 1 + 1e-3
    return clean.ndim == 4 and clean.shape[1] in (1, 3) and in_range


def example_radii(networks: Sequence[NamedExamples], attack: str) -> list[float]:
    """The radii of which samples under an attack are kept, ascending."""
    return sorted({float(e) for _, f in networks for e in f["eps"][f["attack"] == attack]})


def pick_example(
    networks: Sequence[NamedExamples],
    attack: str,
    eps: float,
    threshold: float,
    wanted: Callable[[Sequence[bool]], bool],
    taken: Collection[int] = (),
) -> tuple[int, list[ExampleView]] | None:
    """The first sample with noise of this radius that is right everywhere without: its id, views.

    An attack ends for a sample at the radius that breaks it: a network that was broken before has
    the noise of then. wanted: which networks break it; taken: ids that are not wanted.
    """
    places = [_places(found, attack) for _, found in networks]
    samples = sorted({sample for of_one in places for sample, radius in of_one if radius == eps})
    for sample in samples:
        rows = [_row(of_one, sample, eps) for of_one in places]
        if sample in taken or None in rows:
            continue
        pairs = zip(networks, rows, strict=True)
        views = [_view(label, found, row or 0, threshold) for (label, found), row in pairs]
        if all(view.right_before for view in views) and wanted([not v.right_after for v in views]):
            return sample, views
    return None


def _places(found: Mapping[str, Any], attack: str) -> dict[tuple[int, float], int]:
    rows = np.flatnonzero(found["attack"] == attack)
    return {(int(found["id"][i]), float(found["eps"][i])): int(i) for i in rows}


def _row(places: Mapping[tuple[int, float], int], sample: int, eps: float) -> int | None:
    at = [radius for one, radius in places if one == sample and radius <= eps]
    return places[sample, max(at)] if at else None


def _view(label: str, found: Mapping[str, Any], row: int, threshold: float) -> ExampleView:
    truth, before, after = (str(found[name][row]) for name in SAID)
    right, still = (bool(found[n][row] >= threshold) for n in ("clean_quality", "quality"))
    clean, noisy = (_image(found[name][row]) for name in ("clean", "noisy"))
    eps = float(found["eps"][row])
    return ExampleView(label, eps, clean, noisy, truth, before, after, right, still)


def _image(sample: Array) -> Array:
    return sample[0] if sample.shape[0] == 1 else np.moveaxis(sample, 0, -1)
