"""`ima evaluate RUN`: what noise breaks a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter


def evaluate(
    run: Path,
    /,
    *,
    attacks: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    eps: Annotated[list[float] | None, Parameter(consume_multiple=True, negative="")] = None,
    checkpoint: Literal["best", "last", "both"] = "both",
    device: str = "auto",
    seed: int = 0,
) -> None:
    """Attack a trained run on its test part and write the results into its folder.

    Parameters
    ----------
    run:
        The run's folder.
    attacks:
        Such as pgd-100 (see `ima list attacks`); the config's if not given.
    eps:
        Noise radii; the config's if not given.
    checkpoint:
        The weights of the epoch that validation picked, of the last one, or both.
    device:
        cpu, cuda, mps or auto.
    seed:
        Of the attacks' random starts.

    """
    from ima.report.summary import results_table
    from ima.report.tables import to_text
    from ima.training.evaluating import evaluate_run
    from ima.training.run import Run

    opened = Run.open(run)
    which = ("best", "last") if checkpoint == "both" else (checkpoint,)
    for name in which:
        results = evaluate_run(opened, name, attacks=attacks, eps=eps, device=device, seed=seed)
        print(f"{opened.results(name)}")
        print(to_text(results_table([(name, [results])], opened.config().note)))
