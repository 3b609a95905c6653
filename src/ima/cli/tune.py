"""`ima tune CONFIG`: values of options by trial, for who wants to tune after all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from ima.training.settings import Config


def tune(
    config: str,
    /,
    *overrides: str,
    search: Annotated[list[str], Parameter(consume_multiple=True, negative="")],
    trials: int = 20,
    out: Path | None = None,
    device: str = "auto",
    time_budget: str | None = None,
) -> None:
    """Try values of a config's options, and say which do best on validation.

    Parameters
    ----------
    config:
        A YAML file, or the name of a config of the library.
    overrides:
        Changes to the config, such as `train.epochs=20`. Give them before --search.
    search:
        What to try: method.eps=0.1:3 between two ends, optimizer.lr=1e-4:0.1:log by their
        logarithm, method.steps=2,5,10 of a list.
    trials:
        How many trials the study is to have, of all processes together.
    out:
        The folder of the study and its runs. Default: `runs/NAME-METHOD-tune`.
    device:
        cpu, cuda, mps or auto.
    time_budget:
        Such as 540s, 9m or 1h30m. Stop in time, with exit code 75; the same command continues.

    """
    from ima.budget import OUT_OF_TIME, Budget, OutOfTime

    budget = None if time_budget is None else Budget.parse(time_budget)
    from ima.files import folder_name
    from ima.training.config import load_config
    from ima.training.tune import Span, best_of, check_spans, make_trials, open_study

    if trials < 1:
        raise ValueError(f"--trials is {trials}; expected at least 1")
    spans = [Span.parse(text) for text in search]
    loaded = load_config(config, overrides)

    def make(values: Sequence[str]) -> Config:
        return load_config(config, [*overrides, *values])

    check_spans(spans, make)
    name = folder_name(f"{loaded.name}-{loaded.method.name}-tune")
    folder = Path("runs") / name if out is None else out
    study = open_study(folder, loaded, spans)
    try:
        make_trials(
            study,
            folder,
            make,
            spans,
            trials=trials,
            device=device,
            budget=budget,
            tell=lambda line: print(line, flush=True),
        )
    except OutOfTime as stop:
        print(f"ima: {stop}; the same command continues", file=sys.stderr)
        sys.exit(OUT_OF_TIME)
    place, score, values = best_of(study, folder)
    print(f"best: {place}, {score:.3f} on validation, of {len(study.trials)} trials")
    print(f"next: ima train {' '.join([config, *overrides, *values])}")
