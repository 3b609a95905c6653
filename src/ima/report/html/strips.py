"""Attacked samples as pictures: clean, the noise enlarged, and noisy (the paper's Fig. 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ima.evaluation.settings import Settings
from ima.norm_names import known_norm
from ima.report.entries import PageEntry
from ima.report.examples import ExampleView, drawable, example_radii, pick_example
from ima.report.html.blocks import Grid, PageBlock, PageImage, Prose, Strip
from ima.report.html.png import png
from ima.report.inputs import Array
from ima.report.scores import chosen, few_radii
from ima.report.sizes import radius_told
from ima.report.strip import noise_factor
from ima.report.style import norm_name
from ima.report.words import attack_name

MOST, FEW = 3, 2
"""So many samples are shown, and so many where there are more than four networks."""

NO_PICTURES = (
    "The attacked samples are no images of one or three channels with values from 0 to 1, or noise "
    "broke none of those kept."
)


def strips_of(entries: Sequence[PageEntry]) -> tuple[PageBlock, ...]:
    """A sample a noise radius, each under all networks; nothing where no samples were kept.

    The sample is right without noise everywhere, and noise breaks some network on it; where there
    are several, it does not break all of them if there is such a sample.
    """
    kept = [(e.label, next((s.examples for s in e.sources if s.examples), {})) for e in entries]
    if not any(found for _, found in kept):
        return ()
    networks = [(label, found) for label, found in kept if drawable(found)]
    attacks = [str(name) for _, found in networks[:1] for name in found["attack"]]
    wanted = next(iter(chosen([one.scores for one in entries])), "")
    attack = wanted if wanted in attacks else next(iter(attacks), "")
    threshold = entries[0].main[0].settings.measure.threshold
    settings = entries[0].main[0].settings
    shown: list[PageBlock] = []
    taken: list[int] = []
    for eps in few_radii(example_radii(networks, attack), MOST if len(networks) <= 4 else FEW):
        apart = pick_example(
            networks, attack, eps, threshold, lambda b: any(b) and not all(b), taken
        ) or pick_example(networks, attack, eps, threshold, any, taken)
        if apart is not None:
            sample, views = apart
            taken.append(sample)
            shown.append(_strip(sample, views, eps, settings))
    if not shown:
        return (Prose(NO_PICTURES),)
    text = (
        f"Test samples that are right without noise, under {attack_name(attack)}. The noise is "
        "multiplied by the factor above it; middle gray is no change. A blue frame and ✓ stand "
        "for a right prediction, an orange one and ✗ for a wrong one."
    )
    return (Prose(text), *shown)


def _strip(sample: int, views: Sequence[ExampleView], eps: float, settings: Settings) -> Strip:
    unit, known = norm_name(settings.norm), known_norm(settings.norm)
    factor = noise_factor([view.noisy - view.clean for view in views])
    truth = views[0].truth
    drawn: list[tuple[str, tuple[PageImage, ...]]] = []
    numbers: list[tuple[str, ...]] = []
    for view in views:
        noise = view.noisy - view.clean
        # In a norm of a user's own, nobody here can measure.
        size = () if known is None else (f"{known.size(noise):.3g}",)
        clean = _picture(view.clean, f"Sample {sample} without noise", view.before, True)
        alt = f"Sample {sample} with noise against {view.label}"
        noisy = _picture(view.noisy, alt, view.after, view.right_after)
        alt = f"The noise against {view.label}, times {factor:g}; gray is none"
        enlarged = PageImage(
            _png(0.5 + factor * noise), alt, "".join(f"size {one}" for one in size)
        )
        drawn.append((view.label, (clean, enlarged, noisy)))
        numbers.append((view.label, f"{view.eps:g}", *size, view.before, view.after))
    measured = () if known is None else (f"size of the noise ({unit})",)
    columns = ("network", f"radius ({unit})", *measured, "before", "after")
    caption = f"Sample {sample}, true class {truth}: predictions before and after"
    return Strip(
        f"Noise of size at most {radius_told(eps, settings, '')}; true class:\u00a0{truth}",
        ("without noise", f"noise × {factor:g}", "with noise"),
        tuple(drawn),
        max(views[0].clean.shape[:2]) <= 64,
        Grid(caption, columns, tuple(numbers)),
    )


def _picture(image: Array, alt: str, prediction: str, right: bool) -> PageImage:
    said = f"{alt}: predicted {prediction}, which is {'right' if right else 'wrong'}"
    return PageImage(_png(image), said, prediction, "right" if right else "wrong")


def _png(image: Array) -> str:
    return png(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8))
