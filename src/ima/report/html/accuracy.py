"""The tables of accuracies: one network in detail, or several beside each other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import groupby, product

from ima.evaluation.results import CLEAN, Row
from ima.report.cases import told_cases
from ima.report.html.blocks import Block, Grid, Prose, Two
from ima.report.html.numbers import (
    Scores,
    attack_name,
    attacks_of,
    interval,
    lacking,
    radii_of,
    score,
    scores,
)
from ima.report.html.sources import WEIGHTS
from ima.report.html.verdict import Judged
from ima.report.style import norm_name
from ima.report.white import draws, sized

WIDEST = 7
"""So many columns of accuracies fit beside each other."""

TITLES = {
    "best": "Weights of the epoch that validation picked",
    "last": "Weights of the last epoch",
    "results": "All results",
}


def accuracy_tables(judged: Sequence[Judged]) -> tuple[Block, ...]:
    """A table for each set of weights, the main one first."""
    norm = norm_name(judged[0].entry.main[0].norm)
    make = _of_one if len(judged) == 1 else _of_many
    known = any(one.entry.config for one in judged)
    main = dict.fromkeys(one.entry.which for one in judged)
    first = [(one.entry.label, one.scores) for one in judged]
    # Networks are compared by their main weights, whichever these are.
    tables: list[Block] = [*make(first, _caption(main, known, norm))]
    for which in dict.fromkeys(w for one in judged for w in one.entry.sources[0].results):
        found = [
            (one.entry.label, scores(one.entry.results(which)))
            for one in judged
            if which != one.entry.which
        ]
        found = [(label, of_one) for label, of_one in found if of_one]
        if found:
            tables += make(found, _caption([which], known, norm))
    return (*tables, Prose(_note(judged)), *_white(judged))


def _caption(weights: Collection[str], known: bool, norm: str) -> str:
    """known: whether a run tells that these are all results of it."""
    which = next(iter(weights)) if len(weights) == 1 else ""
    title = TITLES[which] if which in WEIGHTS or (which and known) else "Accuracy"
    return f"{title}: accuracy in percent, noise in {norm}"


def _white(judged: Sequence[Judged]) -> tuple[Block, ...]:
    """What white noise flips, a row a network; nothing where none was tried."""
    rows: list[tuple[str | Two, ...]] = []
    tried = [(one.entry.label, [(r.white, r.settings) for r in one.entry.main]) for one in judged]
    sizes = dict.fromkeys(
        sized(size, about)
        for _, seeds in tried
        for white, about in seeds
        for size, _, _ in white.values()
    )
    found = [(label, [white for white, _ in seeds if white]) for label, seeds in tried]
    flips = {
        (one.entry.label, name): [r.flips(name) for r in one.entry.main if name in r.white]
        for one in judged
        for name in dict.fromkeys(name for r in one.entry.main for name in r.white)
    }
    names = dict.fromkeys(name for _, seeds in found for white in seeds for name in white)
    for label, seeds in found:
        if not seeds:
            continue
        cells = [_flips(flips.get((label, name), [])) for name in names]
        right = min((n for white in seeds for _, _, n in white.values()), default=0)
        rows.append((label, str(right), *cells))
    if not names:
        return ()
    caption = (
        f"White noise, uniform in {' or '.join(sizes)} on every entry: percent that become wrong, "
        "of the n samples that are right without it"
    )
    columns = ("network", "n", *(f"in {draws(name)}" for name in names))
    return (Grid(caption, columns, tuple(rows)),)


def _flips(seeds: Sequence[Sequence[Row]]) -> str | Two:
    known = [rows for rows in seeds if rows]
    if not known:
        return "–"
    standing = score(known)
    flipped = replace(standing, share=1 - standing.share)
    return Two(str(flipped), interval(flipped))


def _note(judged: Sequence[Judged]) -> str:
    several = max(score.seeds for one in judged for score in one.scores.values()) > 1
    alike = all(one.count.isdigit() for one in judged)
    number = "number of samples, which all seeds share" if alike else "smallest number of samples"
    seeds = (
        " ± is the standard deviation over seeds; the interval is that of the mean for the "
        f"{number}."
        if several
        else ""
    )
    return (
        "A sample that is wrong without noise counts as wrong under every attack. Intervals: 95 %, "
        f"Wilson; they say how much a test set of this size leaves open.{seeds} "
        + told_cases([results for one in judged for results in one.entry.main])
    )


def _keys(all_scores: Sequence[Scores]) -> list[tuple[str, float]]:
    noisy = product(attacks_of(all_scores), radii_of(all_scores))
    return [(CLEAN, 0.0), *(key for key in noisy if any(key in one for one in all_scores))]


def _of_one(found: Sequence[tuple[str, Scores]], caption: str) -> list[Grid]:
    ((_, of_one),) = found
    rows = tuple(
        (
            _named(attack, eps, of_one),
            str(of_one[attack, eps]),
            interval(of_one[attack, eps]),
            str(of_one[attack, eps].n),
        )
        for attack, eps in _keys([of_one])
    )
    return [Grid(caption, ("noise", "accuracy", "95 % interval", "n"), rows)]


def _of_many(found: Sequence[tuple[str, Scores]], caption: str) -> list[Grid]:
    """Networks in rows; several tables, each of whole attacks, where one would be too wide."""
    clean, *noisy = _keys([of_one for _, of_one in found])
    parts = [[clean]]
    for _, keys in groupby(noisy, key=lambda key: key[0]):
        new = list(keys)
        if len(parts[-1]) > 1 and len(parts[-1]) + len(new) > WIDEST:
            parts.append([clean])
        parts[-1] += new
    captions = [caption, *(f"{caption} (continued)" for _ in parts[1:])]
    return [_beside(found, *part) for part in zip(captions, parts, strict=True)]


def _beside(
    found: Sequence[tuple[str, Scores]], caption: str, keys: Sequence[tuple[str, float]]
) -> Grid:
    columns = ("network", "n", *(f"{attack_name(a)} at {e:g}" if e else "clean" for a, e in keys))
    top: dict[tuple[str, float], str] = {}
    for key in keys:
        shown = {f"{100 * of_one[key].share:.1f}" for _, of_one in found if key in of_one}
        top[key] = max(shown, key=float) if len(shown) > 1 else ""
    rows: list[tuple[str | Two, ...]] = []
    for label, of_one in found:
        n = of_one[CLEAN, 0.0].n if (CLEAN, 0.0) in of_one else 0
        rows.append((label, str(n), *(_cell(key, of_one, top[key]) for key in keys)))
    return Grid(caption, columns, tuple(rows))


def _named(attack: str, eps: float, of_one: Scores) -> str:
    name = f"{attack_name(attack)} at {eps:g}" if eps else attack_name(attack)
    said = lacking(of_one[attack, eps], of_one)
    return f"{name} ({said})" if said else name


def _cell(key: tuple[str, float], of_one: Scores, top: str) -> str | Two:
    score = of_one.get(key)
    if score is None:
        return "–"
    small = ", ".join(filter(None, [interval(score), lacking(score, of_one)]))
    return Two(str(score), small, f"{100 * score.share:.1f}" == top)
