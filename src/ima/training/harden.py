"""From a trained network to a hardened one, in one call.

hold samples out; look at the network: quality without noise, and under PGD at three radii
radii = half of, once and twice the median of the smallest noise that breaks it (DDN)
train by IMA with nothing set, as many epochs as the time permits; look at it at three of them
keep the best look, if it is better than the network was; else the network stays as it was

The learning rate rises over the first epoch, which is timed, and falls along a cosine over those
that the time permits. After each epoch all is saved, where there is a folder to continue from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ima.attacks.inputs import Bounds, inside
from ima.budget import Budget
from ima.evaluation.naming import Names
from ima.evaluation.partial import batch_mark, fingerprint
from ima.evaluation.remarks import warn
from ima.evaluation.results import Results
from ima.methods import IMA
from ima.norms import Norm, get_norm
from ima.tasks import Task, check_task, given
from ima.training.better import NOTHING, told
from ima.training.build import copyable
from ima.training.hardening import LR, Hardening
from ima.training.held import split
from ima.training.look import Look
from ima.training.modes import mode_of

_FEW = 16
"""So many samples show whether the network takes them."""


@dataclass(frozen=True, eq=False)
class Hardened:
    """What `harden` found.

    model: the hardened network, in evaluation mode; the one that was given where none is better.
    before: the network as it came, on the held-out samples.
    after: the hardened one, or the best that was tried, on the same samples.
    better: whether it is better, see `said`.
    said: what was decided, and by what, as sentences.
    epochs: one row of metrics an epoch.

    >>> import ima, torch
    >>> x = torch.rand(40, 2)
    >>> data = torch.utils.data.TensorDataset(x, (x[:, 0] > 0.5).long())
    >>> found = ima.harden(torch.nn.Linear(2, 2), data, bounds=(0, 1), time_budget="10s")
    >>> found.after.mean("pgd-10", found.after.eps[0]) <= found.after.mean()
    True
    """

    model: nn.Module
    before: Results
    after: Results
    better: bool
    said: str
    epochs: tuple[Mapping[str, float], ...] = ()

    def to_html(self, path: str | Path) -> None:
        """Write the page of before and after; its name may end in .md or .json too."""
        # By their names: training knows nothing of reports.
        source = import_module("ima.report.sources").Source
        both = {"before": self.before, "after": self.after}
        import_module("ima.report.html").write_sources(
            Path(path), [source(name, {"results": found}) for name, found in both.items()]
        )

    def __str__(self) -> str:
        """Before, after, and what was decided."""
        return f"before: {self.before}\nafter: {self.after}\n{self.said}"

    __repr__ = __str__


def harden(
    model: nn.Module,
    data: Any,
    *,
    bounds: Bounds,
    time_budget: Budget | float | str,
    norm: Norm | float | str = 2,
    task: Task | None = None,
    clean_drop: float | None = None,
    held_out: Any = None,
    names: Names | None = None,
    classes: Sequence[str] | None = None,
    keys: tuple[str, str] = ("image", "label"),
    seed: int = 0,
    folder: str | Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> Hardened:
    """Make a trained network harder to fool, by IMA with nothing set, and say whether it worked.

    Frozen parameters stay, and so do normalisation layers that are frozen whole. The radius of the
    noise finds itself in about ten epochs; no more than 30 are trained.

    model: a trained network, whose outputs are logits; it stays as it was, a copy is trained.
    data: a data set of samples (x, y), of any rank; where samples change when they are read again,
        as by random crops, that is seen.
    bounds: lowest and highest value of x's entries; None: they have none.
    time_budget: how long all may take: such as "30m", or seconds; one batch is always trained.
    norm: of the noise, 2 or infinity, or a `Norm` of your own.
    task: what outputs mean, classification if None.
    clean_drop: how much quality without noise may fall, 0 to 1, such as 0.01; None: no limit.
    held_out: a data set that decides and was not trained on; None: one sample in five of `data`,
        500 at most. Where the network was trained on those, it looks better before than it is.
    names: the case (patient) of every sample of `held_out`, or of `data` where there is none: see
        `evaluate`. Samples of one case are held out together.
    classes: their names, for the page.
    keys: where x and y are in items that are dicts.
    seed: of the split, the batches' order and the noise.
    folder: keeps what is done after each epoch, so that the same call continues a killed one.
    tell: is told what goes on, a line each.

    Returns `Hardened`. Better means: on the held-out samples the mean quality over no noise and
    three sizes of noise rose beyond the 95 % interval of the paired differences; with `clean_drop`,
    quality without noise also fell by no more than that.
    Raises ValueError and TypeError for a network, data or bounds that do not fit, as `evaluate`.

    >>> import ima, torch
    >>> x = torch.rand(40, 2)
    >>> data = torch.utils.data.TensorDataset(x, (x[:, 0] > 0.5).long())
    >>> found = ima.harden(torch.nn.Linear(2, 2), data, bounds=(0, 1), time_budget="10s")
    >>> found.model(x).shape
    torch.Size([40, 2])
    """
    budget = _budget(time_budget)
    task, norm = check_task(task), get_norm(norm)
    train, judged = split(data, held_out, names, keys, seed)
    network = deepcopy(copyable(inside(model)))
    learned = [p for p in network.parameters() if p.requires_grad]
    if not learned:
        raise ValueError("no parameter of the model requires a gradient; nothing can be trained")
    method = IMA(
        num_samples=len(train),
        norm=norm,
        bounds=bounds,
        augmented=train.changes(),
        task=task,
        clean_drop=clean_drop,
        seed=seed,
    )
    first = train.batch(range(min(_FEW, len(train))))
    seen = torch.stack([judged.data[at][0] for at in range(min(_FEW, judged.count))])
    mark = {
        "weights": fingerprint(network),
        "data": [batch_mark(first.x, first.y), len(train)],
        "held-out samples": [batch_mark(seen, 0), judged.count],
        "norm": norm.name,
        "task": repr(task).partition(" at 0x")[0],
        "clean_drop": clean_drop,
        "seed": seed,
    }
    run = Hardening(
        network=network,
        method=method,
        optimizer=torch.optim.Adam(learned, lr=LR),
        train=train,
        look=Look(judged, norm, bounds, task, tuple(classes or ()) or None, seed),
        budget=budget,
        seed=seed,
        clean_drop=clean_drop,
        batch_size=16 if given(task, "drawn") == "labels" else 128,
        trains=mode_of(network, task, first.x, first.y),
        place=None if folder is None else Path(folder),
        mark=mark,
        tell=tell or (lambda _: None),
    )
    run.run()
    warn(run.before.remarks, stacklevel=2)
    return _found(run, model)


def _found(run: Hardening, model: nn.Module) -> Hardened:
    """What came of it, with what is to be said beside the figures."""
    network, best, own = run.network.eval(), run.best, run.look.judged.own
    if best is None:
        said = f"{NOTHING}: {run.stopped}"
        return Hardened(model, run.before, run.before, False, said, tuple(run.rows))
    network.load_state_dict(dict(best.weights))
    said = told(best.gain, run.before)
    seen = (
        "the samples were split off from the data for training: where this network was trained on "
        "them, it looks better than it is"
    )
    chose = (
        f"these samples chose among {run.looks} states of the training, and decided; on others "
        "the figures may be lower"
    )
    before = _remarked(run.before, *([seen] if own else []))
    after = _remarked(best.found, said, chose, *([run.stopped] if run.stopped else []))
    better = best.gain.better
    return Hardened(network if better else model, before, after, better, said, tuple(run.rows))


def _remarked(found: Results, *remarks: str) -> Results:
    settings = found.settings
    return Results(found.columns, settings.but(remarks=(*settings.remarks, *remarks)))


def _budget(asked: Budget | float | str) -> Budget:
    if isinstance(asked, Budget):
        return asked
    return Budget.parse(asked) if isinstance(asked, str) else Budget(float(asked))
