"""From a file of weights to a hardened one: what `ima harden` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ima.budget import Budget
from ima.evaluation.results import Results
from ima.training.foreign import cases_of, foreign_subject, imported_data
from ima.training.harden import Hardened, harden
from ima.training.rewrite import check_rewritable, write_like


def harden_file(
    weights: Path,
    folder: Path,
    *,
    model: str,
    data: str,
    held_out: str | None,
    budget: Budget,
    clean_drop: float | None,
    seed: int,
    cases: str | None,
    tell: Callable[[str], None],
    ready: Callable[[], None],
    **words: Any,
) -> tuple[Hardened, Path | None]:
    """Harden the network of a file of weights; what was found, and the file of its new weights.

    The file lies in the folder under its own name and has the layout of the old one; there is none
    where nothing better was found. ready: is called before anything is written; words: of
    `foreign_subject`. Raises as that and as `harden`.
    """
    written = folder / weights.name
    if written.resolve() == weights.resolve():
        raise ValueError(f"{folder} holds the weights themselves; name another folder with --out")
    judged = None if held_out is None else imported_data(held_out)
    own = cases if judged is None else None
    subject = foreign_subject(weights, model, data, (), cases=own, part="train", **words)
    check_rewritable(weights, subject.model)
    tell(f"weights: {subject.settings.about['taken']}")
    ready()
    found = harden(
        subject.model,
        subject.data,
        bounds=subject.bounds,
        time_budget=budget,
        norm=subject.norm,
        task=subject.task,
        clean_drop=clean_drop,
        held_out=judged,
        names=subject.names if judged is None else cases_of(judged, cases),
        classes=subject.classes,
        seed=seed,
        folder=folder,
        tell=tell,
    )
    both = {
        name: Results(one.columns, subject.describe(one.settings).but(remarks=one.remarks))
        for name, one in (("before", found.before), ("after", found.after))
    }
    found = replace(found, **both)
    for name, one in both.items():
        one.to_csv(folder / f"{name}.csv")
    if not found.better:
        return found, None
    write_like(weights, found.model, written)
    return found, written
