"""`ima compare CONFIG`: several methods on one data set, one table, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter


def compare(
    config: str,
    /,
    *overrides: str,
    seeds: Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")] = None,
    out: Path | None = None,
    jobs: int = 1,
    device: str = "auto",
) -> None:
    """Train and test the methods of a config under one recipe; continues what was stopped.

    Parameters
    ----------
    config:
        A YAML file with `compare` rows, or the name of a config that comes with the library.
    overrides:
        Changes to the config, such as `train.epochs=20`.
    seeds:
        Of the training; several give mean and standard deviation. 0 if not given.
    out:
        The folder of runs, table and pictures; `runs/NAME` if not given.
    jobs:
        How many runs at a time, each with its share of the cores.
    device:
        cpu, cuda, mps or auto.

    """
    from ima.evaluation.results import Results
    from ima.report import figures, summary
    from ima.report.tables import to_csv, to_latex, to_markdown, to_text
    from ima.training.compare import best_score, make, plan
    from ima.training.config import load_config

    if jobs < 1:
        raise ValueError(f"--jobs is {jobs}; expected at least 1")
    loaded = load_config(config, overrides)
    folder = Path("runs") / loaded.name if out is None else out
    plans = plan(loaded, seeds or [0], folder)
    make(
        plans,
        jobs=jobs,
        device=device,
        report=lambda what, done, total: print(f"[{done}/{total}] {what}", flush=True),
    )

    tables: list[str] = []
    best: list[tuple[str, list[Results]]] = []
    for which, title in (("best", "epoch picked by validation"), ("last", "last epoch")):
        rows = [
            (
                p.title(),
                [Results.from_csv(run.results(which)) for run in p.chosen().runs],
            )
            for p in plans
        ]
        table = summary.results_table(rows, f"{title}; {loaded.norm}. {loaded.note}")
        print(f"\n{to_text(table)}")
        tables.append(to_markdown(table))
        (folder / f"table-{which}.csv").write_text(to_csv(table))
        (folder / f"table-{which}.tex").write_text(to_latex(table))
        if which == "best":
            best = rows
    for p in plans:
        if len(p.candidates) > 1:
            scores = ", ".join(
                f"{c.name} {sum(best_score(r) for r in c.runs) / len(c.runs):.3f}"
                for c in p.candidates
            )
            tables.append(f"{p.label}: validation scores {scores}.\n")
    (folder / "table.md").write_text("\n".join(tables))

    attack = loaded.evaluate.attacks[0]
    noise: dict[str, Any] = {
        "attack": attack.upper(),
        "norm": loaded.norm,
        "levels": sorted(loaded.evaluate.eps),
    }
    drawn = summary.curves(best, attack)
    shown = {"accuracy": figures.accuracy_over_noise(drawn, **noise)}
    for p in plans:
        margins = p.chosen().runs[0].read_margins()
        if margins:
            history = summary.margin_history(margins)
            name = "margins" if "margins" not in shown else f"margins-{p.chosen().name}"
            cap = float(history.edges[-1])
            shown[name] = figures.margins_by_epoch(history, cap=cap, norm=loaded.norm)
    first, last = best[0][0], best[-1][0]
    files = {
        label: p.chosen().runs[0].examples
        for (label, _), p in zip(best, plans, strict=True)
        if label in (first, last)
    }
    picked = summary.pick_example(files, attack, fooled=first, firm=last)
    if picked is not None:
        shown["story"] = figures.story(*picked, drawn, **noise)
    for name, figure in shown.items():
        for suffix in ("png", "svg"):
            figures.save(figure, folder / f"{name}.{suffix}")
    print(f"\n{folder}: table.md, " + ", ".join(f"{name}.png" for name in shown))
