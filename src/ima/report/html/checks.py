"""The trust checks of an evaluation, as its file tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ima.evaluation import checks_results as results
from ima.measures import ACCURACY, Measure
from ima.report.html.blocks import CheckItem, CheckList, Heading, PageBlock, Prose

NONE = (
    "No trust checks were run. They look for signs that attacks were weaker than they could be, "
    "such as gradients of zero: `ima evaluate RUN --checks`, or WEIGHTS in place of RUN."
)
STATES = {True: "raised", False: "quiet", None: "not run"}


def checks_of(
    found: Sequence[tuple[str, results.Checks | None]], measure: Measure
) -> tuple[PageBlock, ...]:
    """A list of checks for each network, under its name, that has some.

    A sentence where none has.
    """
    blocks: list[PageBlock] = []
    for label, checks in found:
        if checks is None:
            continue
        if len(found) > 1:
            blocks.append(Heading(label))
        # What is raised must not be looked for among what is not.
        order = sorted(checks.checks, key=lambda check: not check.tripped)
        blocks.append(CheckList(tuple(map(_check, order))))
    if not blocks:
        return (Prose(NONE),)
    text = f"Each check looks for a sign that the {measure.name} with noise is too high to be true."
    if not measure.binary:
        text += (
            f" A sample counts as right where its {measure.name} is not below "
            f"{measure.said(measure.threshold, 1)}, and as broken where noise takes it below."
        )
    return (Prose(text), *blocks)


def left_out(label: str, checks: results.Checks, which: str) -> Prose:
    """Says that a network's checks are of other weights than `which`, those of the page."""
    weights = checks.settings.weights
    whose = "other weights" if weights in ("", which) else f"the {weights} weights"
    option = " --checkpoint last" if which == "last" else ""
    return Prose(
        f"{label}: the checks beside its results are of {whose}, not of those that this page is "
        f"about, and are left out; make them anew: `ima evaluate RUN{option} --checks`."
    )


def _check(found: results.Check) -> CheckItem:
    lines = tuple(f"{_words(key)}: {_plain(value)}" for key, value in found.evidence.items())
    state = STATES[found.tripped]
    return CheckItem(found.title, state, found.sentence, lines, found.means, found.do)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _plain(value: Any) -> str:
    """A number, a share with its interval, or a tree of them, in words."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        if {"share", "n", "low", "high"} <= value.keys():
            ends = f"{100 * value['low']:.1f} to {100 * value['high']:.1f}"
            return f"{ACCURACY.said(value['share'])} of {value['n']} (95 % interval {ends})"
        return ", ".join(f"{_words(str(key))} {_plain(one)}" for key, one in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
