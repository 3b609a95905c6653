"""The page of `ima margins`: pictures, a table by class, and what they say in sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ima.evaluation.distances import NONE
from ima.evaluation.estimates import Estimates
from ima.evaluation.remarks import united
from ima.files import write_text
from ima.report import figures, margin_figures
from ima.report.cells import Cell, Table
from ima.report.inputs import Array, MarginHistory
from ima.report.margin_numbers import TOLERANCE, MarginErrors, precision
from ima.report.style import norm_name
from ima.report.tables import to_markdown

SHOWN = 24
"""Images with the smallest margins, and with the largest, in the atlas."""


def write_margins(
    folder: Path,
    estimates: Estimates,
    history: MarginHistory,
    images: Mapping[int, Array],
    note: str,
    made: str,
) -> str:
    """Write margins.md and its pictures, .png and .svg, into a folder; returns the sentences.

    images: training samples by id, those with the smallest margins first, as `pictures` gives
    them; none where samples are no images. note: what belongs beside every table of this data;
    made: how, and from which run.
    """
    drawn: dict[str, tuple[Figure, str]] = {
        "by_epoch": (
            figures.margins_by_epoch(history, cap=estimates.cap, norm=estimates.norm),
            "The histogram of the margins by epoch",
        ),
        "by_class": (margin_figures.by_class(estimates), "The histogram of the margins by class"),
    }
    if MarginErrors.of(estimates) is not None:
        picture = margin_figures.against_distances(estimates)
        drawn["distances"] = picture, "Margins over the smallest noise found"
    if estimates.flipped.any():
        picture = margin_figures.flips_found(estimates)
        drawn["flipped"] = picture, "Share of flipped labels among the smallest margins"
    if images:
        picture = margin_figures.atlas(estimates, list(images), list(images.values()))
        drawn["atlas"] = picture, "Training images with the smallest and the largest margins"
    optional = ("distances", "flipped", "atlas")
    figures.save_all(folder, {name: one for name, (one, _) in drawn.items()}, optional)
    told = margins_told(estimates)
    page = ["# margins\n", *(f"{line}\n" for line in told), *([f"{note}\n"] if note else [])]
    page += [f"![{text}]({name}.png)\n" for name, (_, text) in drawn.items()]
    page += [to_markdown(margin_table(estimates)), f"{made}\n"]
    write_text(folder / "margins.md", "\n".join(page))
    return "\n".join(told)


def _at_cap(estimates: Estimates) -> str:
    if not np.isfinite(estimates.cap):
        return "without a cap"
    return f"at the cap of {estimates.cap:g}: {(estimates.margins >= estimates.cap).mean():.1%}"


def margins_told(estimates: Estimates) -> list[str]:
    """What the margins say, each sentence a paragraph."""
    rows, norm, margins = estimates.rows, norm_name(estimates.norm), estimates.margins
    settings = estimates.settings
    told = [
        f"Margins of {len(rows)} training samples ({settings.data}, "
        f"{settings.about.get('method', '')}, after epoch {settings.epoch}), in {norm}: "
        f"median {np.median(margins):.3g}, {_at_cap(estimates)}."
    ]
    for what, margin in (("smallest", margins.min()), ("largest", margins.max())):
        if (equal := int((margins == margin).sum())) > SHOWN:
            told.append(
                f"{equal} samples share the {what} margin, {margin:.3g}; the atlas shows {SHOWN} "
                "of them, drawn at random."
            )
    errors = MarginErrors.of(estimates)
    told.append(_on_errors(errors, estimates) if errors else "No distance is known for any sample.")
    if measured := _on_distances(estimates):
        told.append(measured)
    if estimates.flipped.any():
        told.append(_on_flips(estimates))
    return [*told, *united([("", settings.remarks)])]


def _on_distances(estimates: Estimates) -> str:
    """What noise the samples withstand that were looked at; nothing where none was."""
    looked = [row for row in estimates.rows if row.attack]
    found = np.array([math.inf if row.attack == NONE else row.distance for row in looked])
    if len(found) == 0:
        return ""
    shares = ", ".join(f"{(found <= eps).mean():.1%} at {eps:g}" for eps in estimates.settings.eps)
    wrong = f" Wrong without noise, or with some: {shares}." if shares else ""
    # Of an even number the lower one, which is a sample's own distance.
    middle = float(np.quantile(found, 0.5, method="lower"))
    half = f"wrong with noise of {middle:.3g}" if middle < math.inf else "not wrong with any found"
    return f"Half of the {len(found)} samples that were looked at are {half}.{wrong}"


def _on_errors(errors: MarginErrors, estimates: Estimates) -> str:
    out = {"wrong without noise": errors.wrong, "no noise found": errors.missing}
    left = ", ".join(f"{what} {count}" for what, count in out.items() if count)
    told = [
        f"Against the smallest noise found ({norm_name(estimates.norm)}; "
        f"{', '.join(estimates.settings.attacks)}) for {errors.count} training samples that are "
        f"right{f' (left out: {left})' if left else ''}:"
    ]
    if errors.free:
        below = " below the cap" if math.isfinite(estimates.cap) else ""
        rank = "" if math.isnan(errors.rank) else f", rank correlation {errors.rank:.2f}"
        told.append(
            f"of {errors.free} margins{below} the median of margin / noise is "
            f"{errors.ratio:.3f}; too large by more than {TOLERANCE:.0%}: {errors.over:.1%}, too "
            f"small: {errors.under:.1%}{rank}."
        )
    if errors.capped:
        told.append(
            f"{errors.capped} margins are at the cap and cannot grow; too large: "
            f"{errors.capped_over:.1%}."
        )
    told.append(
        "The noise found is an upper bound of the true distance, so margins are over-estimated at "
        "least as much as this."
    )
    return " ".join(told)


def _on_flips(estimates: Estimates) -> str:
    flipped, margins = estimates.flipped, estimates.margins
    count, n = int(flipped.sum()), len(flipped)
    share = precision(estimates)[count - 1]
    equal = margins == np.sort(margins)[count - 1]
    several = (
        f"{int(equal.sum())} samples share the margin {margins[equal][0]:.3g}, and "
        f"{flipped[equal].mean():.1%} of these are flipped: the mean over their orders is counted. "
        if equal.sum() > 1
        else ""
    )
    wrong = np.array([row.label != row.prediction for row in estimates.rows])
    return (
        f"{count} training labels were flipped on purpose ({count / n:.1%}). Among the {count} "
        f"smallest margins {share:.1%} are flipped; by chance it would be {count / n:.1%}. "
        f"{several}For comparison: of the {int(wrong.sum())} samples that the network does not "
        f"predict as labelled, {flipped[wrong].mean() if wrong.any() else 0:.1%} are flipped."
    )


def margin_table(estimates: Estimates) -> Table:
    """One row a class: samples, the margins' quartiles, share at the cap, training accuracy."""
    labels, margins = np.array([row.label for row in estimates.rows]), estimates.margins
    right = np.array([row.label == row.prediction for row in estimates.rows])
    rows: list[tuple[Cell, ...]] = []
    for label in np.unique(labels).tolist():
        mine = labels == label
        low, median, high = np.quantile(margins[mine], (0.25, 0.5, 0.75))
        shares = (100 * (margins[mine] >= estimates.cap).mean(), 100 * right[mine].mean())
        numbers = [f"{value:.3g}" for value in (low, median, high)]
        percent = [f"{share:.1f}" for share in shares]
        rows.append((estimates.classes[label], str(int(mine.sum())), *numbers, *percent))
    columns = ("class", "samples", "margin: 25 %", "median", "75 %", "at the cap (%)", "right (%)")
    caption = "Classes as labelled in training; margins and predictions of the last epoch."
    return Table(columns, tuple(rows), caption)


def atlas_images(ids: Sequence[int], samples: Array) -> dict[int, Array]:
    """Samples (M, C, *dims) in 0..1 as images by id, in order; of volumes the middle slice.

    Empty where samples have fewer than two dimensions.
    """
    if samples.ndim < 4:
        return {}
    while samples.ndim > 4:
        samples = samples[:, :, samples.shape[2] // 2]
    if samples.shape[1] != 3:
        samples = samples[:, :1]
    images = [s[0] if len(s) == 1 else np.moveaxis(s, 0, -1) for s in samples]
    return {
        int(i): image.astype(np.float64).clip(0, 1) for i, image in zip(ids, images, strict=True)
    }
