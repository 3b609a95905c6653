"""Checks that catch a flattering number: is the model robust, or only the attack weak.

choose at most 500 samples that the model has right, by a seed
for each row of the table: run its attacks on them from scratch, compare, say what was found

A check trips only where it finds more than its row tolerates, and at least three samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ima.attacks.inputs import Bounds, check_steps, in_company
from ima.attacks.walk import eval_forward
from ima.budget import Budget, Progress
from ima.evaluation.attacks import check_radii, find_attacks
from ima.evaluation.bench import Bench
from ima.evaluation.by_batch import Asked
from ima.evaluation.checks_record import Record
from ima.evaluation.checks_results import Check, Checks
from ima.evaluation.checks_table import CHECKS, CheckRow
from ima.evaluation.chosen import BATCH, LEAST, choose_samples
from ima.evaluation.naming import Naming
from ima.evaluation.partial import batch_mark, fingerprint
from ima.evaluation.probes import NotRun
from ima.evaluation.remarks import warn
from ima.evaluation.verdict import verdict
from ima.evaluation.watch import OutputWatcher, Watched
from ima.norms import Norm, get_norm
from ima.tasks import Task, Tree, check_task, tree_map


@in_company
def run_checks(
    model: nn.Module,
    data: Any,
    eps: Sequence[float] | float,
    attacks: Sequence[str] = (),
    *,
    norm: Norm | float | str = 2,
    bounds: Bounds = None,
    task: Task | None = None,
    transfer: nn.Module | None = None,
    seed: int = 0,
    samples: int = 500,
    steps: int = 100,
    keys: tuple[str, str] = ("image", "label"),
    progress: Callable[[int, int], None] | None = None,
    partial: str | Path | None = None,
    budget: Budget | None = None,
) -> Checks:
    """Look for signs that attacks were weak rather than the model robust.

    model: any module that returns what the task expects; it is left as it was.
    data: as `ima.evaluate` takes it.
    eps: noise radii above 0, in x's units and `norm`.
    attacks: those of the evaluation that is checked; empty: PGD alone.
    norm: of the noise, 2 or infinity, or a `Norm` of your own.
    bounds: lowest and highest value of x's entries; None: they have none.
    task: what outputs mean; None: classification.
    transfer: another model for the same data, whose noise is tried on this one.
    seed: of the choice of samples and of all noise.
    samples: how many are chosen at most, of those that the model has right.
    steps: of PGD, the white-box attack.
    keys: where x and y are in items that are dicts.
    progress: is called with (checks done, checks).
    partial: a file that takes what attacks find, so that the same call continues.
    budget: no batch is begun that may not fit into it, but for the first.

    What cannot be run has `tripped` None and says why. Raises ValueError for data with fewer than
    three samples that the model has right, and otherwise as `ima.evaluate`.

    >>> import ima, torch
    >>> model, x = torch.nn.Linear(2, 3), torch.rand(8, 2)
    >>> data = torch.utils.data.TensorDataset(x, model(x).argmax(1))
    >>> ima.run_checks(model, data, [0.1], steps=5, samples=8).tripped
    ()
    """
    task = check_task(task)
    radii = check_radii(eps)
    if not radii:
        raise ValueError("eps is empty; expected at least one finite noise radius above 0")
    if samples < LEAST:
        raise ValueError(f"samples is {samples}; expected at least {LEAST}")
    check_steps(steps)
    norm = get_norm(norm)
    # White noise has no radius: it is no part of the worst case.
    found_rows = find_attacks(attacks, task, norm, bounds)
    names = [name for name, row, _ in found_rows if row.amplitude is None]
    watcher = OutputWatcher()
    chosen = choose_samples(model, data, task, bounds, samples, seed, keys, watcher)
    if transfer is not None:
        transfer = transfer.to(chosen.x.device)
        _takes(transfer, chosen.x[:1], tree_map(lambda t: t[:1], chosen.y), task)
    network = fingerprint(model)
    shown = Progress.of(progress, budget)
    asked = Asked(norm, task, bounds, BATCH, seed, keys, Naming(), shown, None)
    own = {
        "checks": list(CHECKS),
        "attacks": names,
        "eps": radii,
        "steps": steps,
        "samples": batch_mark(chosen.x, chosen.y),
        "weights": network,
        "transfer": None if transfer is None else fingerprint(transfer),
        **asked.record,
    }
    record = Record(partial, own, budget, watcher)
    watched = Watched(model, watcher)
    bench = Bench(watched, chosen, radii, norm, task, bounds, seed, steps, transfer, names, record)
    found: list[Check] = []
    for row in CHECKS.values():
        found.append(_check(row, bench))
        asked.progress.tell(len(found), len(CHECKS))
    remarks = verdict(record.counts(chosen.counts), watcher.kind, chosen.met)
    warn(remarks, stacklevel=2)
    settings = asked.settings(
        network=network,
        eps=tuple(radii),
        attacks=dict.fromkeys(names or [f"pgd-{steps}"], ""),
        samples=bench.n,
        right=chosen.correct,
        total=chosen.total,
        remarks=remarks,
    )
    return Checks(settings, tuple(found))


def _takes(other: nn.Module, x: Tensor, y: Tree, task: Task) -> None:
    try:
        task.check(eval_forward(other, x), y)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"the model to transfer from does not fit samples of shape {tuple(x.shape[1:])} with "
            f"their labels: {error}; name one that was trained on the same data"
        ) from error


def _check(row: CheckRow, bench: Bench) -> Check:
    try:
        found = row.probe(bench)
    except NotRun as reason:
        return Check(row.name, row.title, None, f"Not run: {reason}.", {}, row.means, row.do)
    return Check(
        row.name, row.title, found.tripped, found.sentence, found.evidence, row.means, row.do
    )
