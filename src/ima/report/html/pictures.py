"""Attacked samples as pictures: clean, the noise enlarged, and noisy (the paper's Fig. 1)."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ima.norm_names import known_norm
from ima.report.html.blocks import Grid, Picture, Strip
from ima.report.inputs import Array
from ima.report.strip import noise_factor
from ima.report.style import norm_name

MOST, FEW = 3, 2
"""So many samples are shown, and so many where there are more than four networks."""


Named: TypeAlias = tuple[str, Mapping[str, Any]]
"""A network's label, and the arrays of its examples.npz."""

Places: TypeAlias = Mapping[tuple[int, float], int]
"""By sample and radius, the row of the arrays."""


def strips(examples: Sequence[Named], attack: str, norm: str) -> list[Strip]:
    """A sample a noise radius, each under all networks.

    examples: label and arrays of examples.npz of each network. The sample is right without noise
    everywhere, and noise breaks some network on it; where there are several, it does not break all
    of them if there is such a sample. Empty where samples are no images.
    """
    loaded = [(label, found) for label, found in examples if found and _drawable(found)]
    if not loaded:
        return []
    attacks = [str(name) for name in loaded[0][1]["attack"]]
    attack = attack if attack in attacks else attacks[0]
    places = [_places(found, attack) for _, found in loaded]
    radii = sorted({eps for of_one in places for _, eps in of_one})
    most = MOST if len(loaded) <= 4 else FEW
    if len(radii) > most:
        radii = [radii[0], radii[len(radii) // 2], radii[-1]][:most]
    shown: list[Strip] = []
    taken: set[int] = set()
    for eps in radii:
        sample = _pick(loaded, places, eps, taken)
        if sample is not None:
            taken.add(sample)
            shown.append(_strip(loaded, places, sample, eps, norm))
    return shown


def _drawable(found: Mapping[str, Any]) -> bool:
    clean, noisy = found["clean"], found["noisy"]
    both = np.concatenate([clean.ravel(), noisy.ravel()])
    in_range = both.size > 0 and float(both.min()) > -1e-3 and float(both.max()) < 1 + 1e-3
    classes = all(found[name].dtype.kind in "iu" for name in ("label", "prediction"))
    return clean.ndim == 4 and clean.shape[1] in (1, 3) and in_range and classes


def _places(found: Mapping[str, Any], attack: str) -> dict[tuple[int, float], int]:
    """By sample and radius, the row; an attack ends for a sample at the radius that breaks it."""
    return {
        (int(found["id"][i]), float(found["eps"][i])): int(i)
        for i in np.flatnonzero(found["attack"] == attack)
    }


def _row(places: Places, sample: int, eps: float) -> int | None:
    at = [radius for one, radius in places if one == sample and radius <= eps]
    return places[sample, max(at)] if at else None


def _pick(
    loaded: Sequence[Named],
    places: Sequence[Places],
    eps: float,
    taken: set[int],
) -> int | None:
    candidates = sorted({sample for of_one in places for sample, radius in of_one if radius == eps})
    some: int | None = None
    for sample in candidates:
        rows = [_row(of_one, sample, eps) for of_one in places]
        if sample in taken or any(row is None for row in rows):
            continue
        pairs = [(found, row) for (_, found), row in zip(loaded, rows, strict=True)]
        if any(found["clean_prediction"][row] != found["label"][row] for found, row in pairs):
            continue
        broken = [bool(found["prediction"][row] != found["label"][row]) for found, row in pairs]
        if any(broken) and not all(broken):
            return sample
        if some is None and any(broken):
            some = sample
    return some


def _strip(
    loaded: Sequence[Named],
    places: Sequence[Places],
    sample: int,
    eps: float,
    norm: str,
) -> Strip:
    unit, known = norm_name(norm), known_norm(norm)
    rows = [
        (label, found, _row(p, sample, eps))
        for (label, found), p in zip(loaded, places, strict=True)
    ]
    factor = noise_factor([found["noisy"][i] - found["clean"][i] for _, found, i in rows])
    names: list[str] = [str(name) for name in loaded[0][1]["classes"]]
    drawn: list[tuple[str, tuple[Picture, ...]]] = []
    numbers: list[tuple[str, ...]] = []
    truth = _name(names, rows[0][1]["label"][rows[0][2]])
    for label, found, i in rows:
        clean, noisy = _image(found["clean"][i]), _image(found["noisy"][i])
        noise, radius = noisy - clean, float(found["eps"][i])
        before, after = (_name(names, found[k][i]) for k in ("clean_prediction", "prediction"))
        size = () if known is None else (f"{known.size(noise):.3g}",)
        enlarged = 0.5 + factor * noise
        drawn.append(
            (
                label,
                (
                    _picture(clean, f"Sample {sample} without noise", before, truth),
                    Picture(
                        _png(enlarged),
                        f"The noise against {label}, times {factor:g}; gray is none",
                        "".join(f"size {one}" for one in size),
                    ),
                    _picture(noisy, f"Sample {sample} with noise against {label}", after, truth),
                ),
            )
        )
        numbers.append((label, f"{radius:g}", *size, before, after))
    # In a norm of a user's own, nobody here can measure.
    measured = () if known is None else (f"size of the noise ({unit})",)
    columns = ("network", f"radius ({unit})", *measured, "before", "after")
    grid = Grid(
        f"Sample {sample}, true class {truth}: predictions before and after",
        columns,
        tuple(numbers),
    )
    small = max(loaded[0][1]["clean"].shape[2:]) <= 64
    return Strip(
        f"Noise of size at most {eps:g} ({unit}); true class:\u00a0{truth}",
        ("without noise", f"noise × {factor:g}", "with noise"),
        tuple(drawn),
        small,
        grid,
    )


def _name(names: Sequence[str], number: int) -> str:
    """A class in words; its number where the data names fewer than the network knows."""
    return names[number] if number < len(names) else str(number)


def _picture(image: Array, alt: str, prediction: str, truth: str) -> Picture:
    right = prediction == truth
    said = f"{alt}: predicted {prediction}, which is {'right' if right else 'wrong'}"
    return Picture(_png(image), said, prediction, "right" if right else "wrong")


def _image(sample: Array) -> Array:
    return sample[0] if sample.shape[0] == 1 else np.moveaxis(sample, 0, -1)


def _png(image: Array) -> str:
    from PIL import Image

    out = io.BytesIO()
    pixels = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    Image.fromarray(pixels).save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
