"""`ima list WHAT`: the tables of methods, attacks, data sets, networks, tasks, checks, configs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ima.cli.streams import as_json

TABLES: Mapping[str, tuple[str, Callable[[Any], tuple[str, str, str]]]] = {
    "methods": ("ima.methods:METHODS", lambda r: (r.name, _method(r), r.paper)),
    "attacks": ("ima.evaluation.attacks:ATTACKS", lambda r: (r.label, r.summary, r.paper)),
    "data": ("ima.data:DATASETS", lambda r: (r.name, r.summary, r.source)),
    "networks": ("ima.networks:NETWORKS", lambda r: (r.name, r.summary, r.paper)),
    "tasks": ("ima.tasks:TASKS", lambda r: (r.name, r.summary, "-")),
    "checks": (
        "ima.evaluation.checks_table:CHECKS",
        lambda r: (r.name, f"{r.title}: {r.raised}", "-"),
    ),
}
"""Where the tables are, and of a row the name, what it is, and its source."""


def show_table(
    what: Literal["methods", "attacks", "data", "networks", "tasks", "checks", "configs"],
    *,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """List what there is, one line each.

    Parameters
    ----------
    what:
        What to list.
    json:
        Print a list of objects for programs: name, summary, source.

    """
    if what == "configs":
        rows = list(_configs())
    else:
        place, told = TABLES[what]
        module, _, name = place.partition(":")
        rows = list(map(told, getattr(import_module(module), name).values()))
    if json:
        names = ("name", "summary", "source")
        print(as_json([dict(zip(names, row, strict=True)) for row in rows]))
        return
    width = max(len(name) for name, _, _ in rows)
    for name, summary, source in rows:
        print(f"{name:<{width}}  {summary}" + (f" ({source})" if source not in ("", "-") else ""))


def _method(row: Any) -> str:
    from ima.training.picking import RULES

    limit = "" if row.segmentation else " Not for segmentation."
    return f"{row.summary}{limit} Epoch by {RULES[row.picks].describe('noise')}."


def _configs() -> Iterable[tuple[str, str, str]]:
    from ima.nnunet.experiment import load_experiment
    from ima.training.config import load_config
    from ima.training.config_errors import packaged

    for name, path in packaged().items():
        yield name, load_config(path).note, "-"
    for name, path in packaged("nnunet").items():
        yield name, f"ima nnunet compare {name}: {load_experiment(path).note}", "-"
