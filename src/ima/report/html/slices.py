"""Slices under noise as pictures of a page: truth, predictions, the noise, each in words too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ima.evaluation.settings import Settings
from ima.report.entries import PageEntry
from ima.report.html.blocks import Grid, Overlay, OverlayPart, PageBlock, PageImage, Prose
from ima.report.html.png import png
from ima.report.overlays import (
    Labels,
    Slice,
    SliceView,
    colour_told,
    compose,
    dice_told,
    pick_slices,
    slice_radii,
    swatch,
)
from ima.report.scores import few_radii
from ima.report.sizes import radius_told
from ima.report.words import of_whole, under, within_told


def slices_of(entries: Sequence[PageEntry]) -> tuple[PageBlock, ...]:
    """A slice a noise radius, under the first network and the last; nothing where none was kept."""
    chosen = list(entries) if len(entries) < 3 else [entries[0], entries[-1]]
    networks = [(e.label, next((s.overlays for s in e.sources if s.overlays), {})) for e in chosen]
    if not any(found for _, found in networks):
        return ()
    known = slice_radii(networks) if all(found for _, found in networks) else []
    if not known:
        return (Prose("The networks keep no slice of one image under one attack: none is shown."),)
    first = entries[0].main[0]
    some = few_radii(known)
    blocks: list[PageBlock] = []
    taken: set[str] = set()
    for eps in some:
        slices = pick_slices(networks, eps, within_told(first))
        one = next((one for one in slices if one.name not in taken), slices[0])
        taken.add(one.name)
        blocks.append(_overlay(one, first.settings))
    whose = " and ".join(one.label for one in chosen)
    some_of = f" of {whose}, the first and the last of the networks" if len(entries) > 2 else ""
    text = (
        "A test slice with much foreground for each size of noise, and the predictions"
        f"{some_of}, without noise and under {under(pick_slices(networks, some[0])[0].attack)}. "
        "The noise is multiplied by the factor above it; middle gray is no change"
        f"{of_whole(first)}."
    )
    return (Prose(text), *blocks)


def _overlay(one: Slice, settings: Settings) -> Overlay:
    clean = one.gray(one.clean)
    whole = PageImage(png(compose(clean)), f"{one.name}: the image without noise", "", head="image")
    truth = PageImage(
        png(compose(clean, one.truth)),
        f"{one.name}, the truth{_pixels(one.truth, one.classes)}",
        f"{int(_sizes(one.truth, one.classes).sum())} pixels",
        head="labelled",
    )
    parts = [OverlayPart("Truth", (truth, whole), 1)]
    parts += [OverlayPart(view.label, _pictures(one, view), 2) for view in one.views]
    keys = tuple(
        PageImage(png(swatch(label)), colour_told(label), name)
        for label, name in enumerate(one.classes, start=1)
    )
    heads = ("", "Dice", *(f"{name}, pixels shown" for name in one.classes))
    rows = [("truth", "", *map(str, _sizes(one.truth, one.classes)))]
    for view in one.views:
        for when, labels, dice in (
            ("without noise", view.before, view.dice_before),
            ("with noise", view.after, view.dice_after),
        ):
            sizes = map(str, _sizes(labels, one.classes))
            rows.append((f"{view.label}, {when}", dice_told(dice), *sizes))
    title = f"{one.name}: noise of size at most {radius_told(one.eps, settings, '')}"
    # The file of slices does not tell whether classes are regions.
    overlap = "of classes that overlap, a pixel shows the last"
    grid = Grid(f"{title}: what is predicted; {overlap}", heads, tuple(rows))
    return Overlay(title, keys, tuple(parts), grid)


def _pictures(one: Slice, view: SliceView) -> tuple[PageImage, ...]:
    before, after, noise, noisy = map(png, one.composed(view))

    def predicted(uri: str, labels: Labels, dice: float, when: str) -> PageImage:
        said = f"{one.name} {when}, prediction of {view.label}{_pixels(labels, one.classes)}"
        caption = f"Dice {dice_told(dice)}"
        return PageImage(uri, f"{said}; {caption}", caption, head=when)

    against, times = f"noise against {view.label}", f"{one.factor:g}"
    told = f"{one.name}: the {against}, times {times}; gray is none"
    return (
        predicted(before, view.before, view.dice_before, "without noise"),
        predicted(after, view.after, view.dice_after, "with noise"),
        PageImage(noise, told, "", head=f"noise × {times}"),
        PageImage(noisy, f"{one.name}: the image with {against}", "", head="image + noise"),
    )


def _sizes(labels: Labels, classes: Sequence[str]) -> Any:
    return np.array([int((labels == number).sum()) for number in range(1, len(classes) + 1)])


def _pixels(labels: Labels, classes: Sequence[str]) -> str:
    """What is shown of every class, behind the name of a picture."""
    sizes = zip(classes, _sizes(labels, classes).tolist(), strict=True)
    return f", as shown: {', '.join(f'{name} {size} pixels' for name, size in sizes)}"
