"""Small evaluations of segmentation networks, with numbers to check by hand, for tests of pages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ima.evaluation.earlier import attack_kind
from ima.evaluation.results import Results, Row
from ima.evaluation.settings import Settings
from ima.measures import DICE

NAN = math.nan
CLASSES = ("head", "<b>tail</b>")
CASES = ("case_1", "case_2")
EMPTY = "a class counts where it is in truth or prediction"

# By sample: case, slice, pixels of foreground, classes in the truth, Dice of both classes.
SAMPLES = (
    ("case_1", 3, 40, 2, (0.9, 0.7)),
    ("case_1", 4, 20, 1, (0.6, NAN)),
    ("case_2", 0, 30, 2, (0.9, 0.5)),
    ("case_2", 7, 0, 0, (NAN, NAN)),
)
"""Clean ADI: classes 0.8 and 0.6, so 0.7; over samples with both classes 0.9 and 0.6, so 0.75."""

NOISE: dict[tuple[str, float], float] = {
    ("pgd-100", 2.0): 0.5,
    ("pgd-100", 6.0): 0.2,
    ("pgd-100", 10.0): 0.0,
    ("ifgsm-10", 2.0): 0.8,
    ("ifgsm-10", 6.0): 0.4,
    ("ifgsm-10", 10.0): 0.1,
    ("worst case", 2.0): 0.5,
    ("worst case", 6.0): 0.2,
    ("worst case", 10.0): 0.0,
}
"""By attack and radius, what is left of every Dice."""


def results(
    trainer: str = "IMA",
    left: Mapping[tuple[str, float], float] = NOISE,
    *,
    clean: float = 1.0,
    norm: str = "L2",
    classes: tuple[str, ...] = CLASSES,
    **settings: Any,
) -> Results:
    """The four samples; `clean` multiplies all Dice, `left` those under an attack once more."""
    rows = [
        Row(
            i,
            attack,
            eps,
            float(np.nanmean(dice)) * clean * share if pixels else 1.0,
            eps,
            attack_kind(attack),
            case,
            at,
            more={
                "pixels": pixels,
                "present": present,
                **{f"dice_{c}": d * clean * share for c, d in zip(classes, dice, strict=False)},
            },
        )
        for (attack, eps), share in {("clean", 0.0): 1.0, **left}.items()
        for i, (case, at, pixels, present, dice) in enumerate(SAMPLES)
    ]
    about = {"empty slices": EMPTY, "images": "/home/jane/secret/imagesTs"}
    told = Settings(
        norm=norm,
        measure=DICE,
        samples=4,
        total=4,
        seed=0,
        seconds=1.0,
        label=f"nnUNetTrainer{trainer}",
        data="Dataset004_Hippocampus",
        classes=classes,
        about=about,
    )
    return Results.of(rows, told.but(**settings))


def arrays(
    trainer: str = "IMA", eps: tuple[float, ...] = (2.0, 6.0, 10.0), dice: float = 0.4
) -> dict[str, Any]:
    """Overlays of two slices of other sizes; the noise wipes out the second class."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number, (high, wide) in enumerate(((14, 10), (12, 9))):
        clean = np.full((14, 10), np.nan, dtype=np.float32)
        clean[:high, :wide] = rng.normal(size=(high, wide))
        truth = np.full((14, 10), 255, dtype=np.uint8)
        truth[:high, :wide] = 0
        truth[3:7, 2:7], truth[7:10, 2:7] = 1, 2
        noise = rng.normal(size=(14, 10)).astype(np.float32)
        noise /= np.sqrt((noise[:high, :wide] ** 2).sum())
        rows += [
            {
                "id": 2 * number,
                "case": CASES[number],
                "slice": (3, 0)[number],
                "eps": radius,
                "attack": "worst case",
                "clean": clean,
                "noisy": clean + np.float32(0.99 * radius) * noise,
                "truth": truth,
                "predicted_clean": truth,
                "predicted_noisy": np.where(truth == 2, 0, truth).astype(np.uint8),
                "dice_clean": 1.0,
                "dice_noisy": dice,
            }
            for radius in eps
        ]
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {**found, "classes": np.array(CLASSES), "trainer": np.array(f"nnUNetTrainer{trainer}")}


def evaluated(folder: Path, trainer: str = "IMA", dice: float = 0.4, **more: Any) -> Path:
    """A trained folder as nnU-Net names it, with an evaluation in it; the evaluation's folder."""
    inside = folder / f"nnUNetTrainer{trainer}__nnUNetPlansB32__2d" / "fold_0" / "ima"
    inside.mkdir(parents=True)
    results(trainer, **more).to_csv(inside / "results_nnunet.csv")
    np.savez(inside / "overlays.npz", allow_pickle=False, **arrays(trainer, dice=dice))
    return inside


def three(folder: Path) -> Path:
    """Standard training, SAT at 5 and IMA; noise leaves them a tenth, a third and a half."""
    for trainer, clean, left, dice in (
        ("STD", 1.1, 0.2, 0.1),
        ("SAT5", 0.8, 0.7, 0.3),
        ("IMA", 1.0, 1.0, 0.4),
    ):
        noise = {key: share * left for key, share in NOISE.items()}
        evaluated(folder, trainer, dice, left=noise, clean=clean)
    return folder
