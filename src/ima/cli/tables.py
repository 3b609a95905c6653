"""`ima list WHAT`: the tables of methods, attacks, data sets, networks, tasks, checks, configs."""

from __future__ import annotations

from typing import Literal


def show_table(
    what: Literal["methods", "attacks", "data", "networks", "tasks", "checks", "configs"],
) -> None:
    """List what there is, one line each.

    Parameters
    ----------
    what:
        What to list.

    """
    rows: list[tuple[str, str, str]]
    if what == "methods":
        from ima.methods import METHODS
        from ima.training.picking import RULES

        limits = {True: "", False: " Not for segmentation."}
        rows = [
            (
                r.name,
                f"{r.summary}{limits[r.segmentation]} Epoch by {RULES[r.picks].describe('noise')}.",
                r.paper,
            )
            for r in METHODS.values()
        ]
    elif what == "attacks":
        from ima.evaluation.attacks import ATTACKS

        rows = [(r.label, r.summary, r.paper) for r in ATTACKS.values()]
    elif what == "data":
        from ima.data import DATASETS

        rows = [(r.name, r.summary, r.source) for r in DATASETS.values()]
    elif what == "networks":
        from ima.networks import NETWORKS

        rows = [(r.name, r.summary, r.paper) for r in NETWORKS.values()]
    elif what == "tasks":
        from ima.tasks import TASKS

        rows = [(r.name, r.summary, "") for r in TASKS.values()]
    elif what == "checks":
        from ima.evaluation.checks_table import CHECKS

        rows = [(r.name, f"{r.title}: {r.raised}", "") for r in CHECKS.values()]
    else:
        from ima.nnunet.experiment import load_experiment
        from ima.training.config import load_config
        from ima.training.config_errors import packaged

        rows = [(name, load_config(path).note, "") for name, path in packaged().items()]
        rows += [
            (name, f"ima nnunet compare {name}: {load_experiment(path).note}", "")
            for name, path in packaged("nnunet").items()
        ]
    width = max(len(name) for name, _, _ in rows)
    for name, summary, source in rows:
        print(f"{name:<{width}}  {summary}" + (f" ({source})" if source not in ("", "-") else ""))
