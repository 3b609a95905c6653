"""The accuracy of each class: of two, that of one is the sensitivity, of the other the specificity.

for each class: of its samples those that stand, without noise and under the headline attack
"""

from __future__ import annotations

from collections.abc import Sequence

from ima.evaluation.results import CLEAN, Results, Row, named
from ima.report.html.blocks import Block, Grid, Prose, Two
from ima.report.html.numbers import Score, attack_name, headline, interval, radii_told, score
from ima.report.html.verdict import Judged
from ima.report.style import norm_name

MOST = 24
"""So many lines are shown; where there are more, those of the classes that noise breaks most."""


def class_scores(seeds: Sequence[Results], attack: str, eps: float) -> dict[int, Score]:
    """The accuracy of each class, by its index, mean over the seeds; none where labels are none."""
    found: dict[int, list[list[Row]]] = {}
    for results in seeds:
        of_label: dict[int, list[Row]] = {}
        for row in results.of(attack, eps):
            if not isinstance(row.label, int):
                return {}
            of_label.setdefault(row.label, []).append(row)
        for label, rows in of_label.items():
            found.setdefault(label, []).append(rows)
    return {label: score(of_seeds) for label, of_seeds in sorted(found.items())}


def class_names(judged: Sequence[Judged]) -> dict[int, str]:
    """The names of the classes by their index, as far as an evaluation kept them."""
    kept = (s.examples for one in judged for s in one.entry.sources if s.examples)
    told = (named(r.settings) for one in judged for r in one.entry.main)
    names = [*next(kept, {}).get("classes", ())] or next(filter(None, told), [])
    return {i: str(name) for i, name in enumerate(names)}


def class_tables(judged: Sequence[Judged]) -> tuple[Block, ...]:
    """A table with a line for each class of each network; nothing for data of one class.

    A sentence where labels are no classes, as with a task of a user's own they can be.
    """
    if not any(results.by_class() for one in judged for results in one.entry.main):
        return (Prose("The labels are no classes: there is no accuracy by class."),)
    all_scores = [one.scores for one in judged]
    attack = headline(all_scores)
    keys = [(CLEAN, 0.0), *((attack, eps) for eps in radii_told(all_scores, attack))]
    names, lines = class_names(judged), list[tuple[float, tuple[str | Two, ...]]]()
    classes: set[int] = set()
    for one in judged:
        found = [class_scores(one.entry.main, *key) for key in keys]
        classes |= found[0].keys()
        for label, clean in found[0].items():
            name = names.get(label, f"class {label}")
            who = name if len(judged) == 1 else f"{one.entry.label}: {name}"
            cells = [_cell(scores.get(label)) for scores in found]
            shown = [scores[label].share for scores in found if label in scores]
            lines.append((sum(shown), (who, str(clean.n), *cells)))
    if len(classes) < 2:
        return ()
    caption = (
        "Accuracy by class in percent"
        + (f", noise in {norm_name(judged[0].entry.main[0].norm)}" if attack else "")
        + (f": the {MOST} lowest of {len(lines)}" if len(lines) > MOST else "")
    )
    if len(lines) > MOST:
        lines = sorted(lines, key=lambda line: line[0])[:MOST]
    columns = ("class", "n", *(f"{attack_name(a)} at {e:g}" if e else "clean" for a, e in keys))
    grid = Grid(caption, columns, tuple(line for _, line in lines))
    if len(classes) > 2:
        return (grid,)
    said = "Of two classes, the accuracy of one is the sensitivity, of the other the specificity."
    return (grid, Prose(said))


def _cell(score: Score | None) -> str | Two:
    return "–" if score is None else Two(str(score), interval(score))
