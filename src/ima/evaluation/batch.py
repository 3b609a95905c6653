"""One batch of an evaluation: clean, and under each attack at each radius.

clean pass: the quality of every sample
for each attack, for eps ascending: the lowest quality that it finds, at most that of a smaller eps
    look again: inside the ball and the bounds, finite, and the quality of a second pass
worst case: for every sample and eps the lowest over the attacks
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ima.attacks.entering import as_seen
from ima.attacks.inputs import Model
from ima.attacks.walk import clamp, forward
from ima.evaluation.attacks import AttackRow
from ima.evaluation.decisions import (
    PARTS,
    columns_of,
    copied,
    put,
    quality_of,
    sample,
    values,
)
from ima.evaluation.lowest import Lowest, radius
from ima.evaluation.results import CLEAN, WORST
from ima.evaluation.setting import Setting
from ima.norms import per_sample
from ima.tasks import Tree, check_fit, given, sound, take
from ima.tasks.checked import check_standing
from ima.tasks.pixels import wide

_SLACK = 1e-4
"""Share of the radius by which noise may be larger: float32 rounds."""

ColumnLists = dict[str, list[Any]]
"""Rows as columns, by name; `parts` holds a list a row."""


@dataclass(frozen=True)
class Example:
    """One sample under one attack, for pictures; see `evaluate`'s `keep`.

    clean, noisy: (*dims); target, predicted_clean, predicted: of this sample, as the task gives
    them; weight: how much there is to see, of a mask its pixels of foreground; case, slice: whose
    sample it is, empty and -1 where nobody said.
    """

    id: int
    case: str
    slice: int
    attack: str
    eps: float
    weight: int
    clean: Tensor
    noisy: Tensor
    target: Tree
    predicted_clean: Tree
    predicted: Tree
    quality_clean: float
    quality: float


@dataclass(frozen=True)
class BatchState:
    """Samples (B, *dims) that were looked at.

    quality, score, size: (B,); parts: (B, K), K may be 0; columns, predicted: as the task gives
    them.
    """

    noisy: Tensor
    quality: Tensor
    score: Tensor
    size: Tensor
    parts: Tensor
    columns: dict[str, Tree]
    predicted: Tree

    def lower(self, index: Tensor, found: BatchState, clean: Tensor) -> BatchState:
        """With those of the samples `index` whose quality is lower.

        Where it is alike: with the smaller noise, or of noise that lowers nothing with the one of
        lower score. clean: the quality without noise, (B,); infinite for all of them anyhow.
        """
        before = BatchState(**take(vars(self), index))
        lowers, alike = found.quality < clean[index], found.quality == before.quality
        less = torch.where(lowers, found.size < before.size, found.score < before.score)
        better = (found.quality < before.quality) | (alike & less) | clean[index].isinf()
        new = BatchState(**copied(vars(self)))
        put(vars(new), index[better], take(vars(found), better))
        return new


@dataclass(frozen=True)
class Batch:
    """The samples of a batch: x (B, *dims), y, their places in the data, and what is asked."""

    x: Tensor
    y: Tree
    places: range
    setting: Setting

    def look(self, model: Model, index: Tensor, noisy: Tensor) -> BatchState:
        """The samples `index` at these points; model: as `no_trace` gives it."""
        y, output = take(self.y, index), forward(model, noisy)
        self.setting.watcher.noisy(index, output, self.setting.task)
        return self.state(index, noisy, output, y)

    def state(self, index: Tensor, noisy: Tensor, output: Tree, y: Tree) -> BatchState:
        """What the task says of outputs at noisy samples."""
        task, n = self.setting.task, len(index)
        quality = quality_of(task, output, y, n)
        check_standing(task, output, y, quality >= given(task, "measure").threshold)
        parts = given(task, "parts")(output, y)
        return BatchState(
            noisy,
            quality,
            task.score(output, y).float().reshape(n).nan_to_num(nan=-math.inf),
            self.setting.norm.size(wide(noisy) - wide(self.x[index])),
            noisy.new_empty((n, 0)) if parts is None else parts,
            columns_of(task, output, y, n),
            task.predict(output),
        )

    def again(self, model: Model, lowest: Lowest, eps: float | None) -> BatchState:
        """What an attack found, brought into the ball and the bounds and looked at once more.

        Nothing is taken on trust: what is not finite or not inside becomes the clean sample.
        eps: None for white noise, which has no radius.
        """
        norm, index = self.setting.norm, lowest.start
        x = self.x[index]
        clean, noisy = wide(x), wide(lowest.noisy[index])
        if eps is None:
            usable = torch.isfinite(norm.size(noisy - clean))
        else:
            noisy = clean + norm.project(noisy - clean, radius(eps, x))
            noisy = as_seen(model, clamp(noisy, self.setting.box), clean)
            usable = norm.size(noisy - clean) <= eps * (1 + _SLACK)
        noisy = torch.where(per_sample(usable, x), noisy.to(x.dtype), x)
        return self.look(model, index, noisy)


def attack_batch(
    model: Model,
    batch: Batch,
    radii: Sequence[float],
    attacks: Sequence[tuple[str, AttackRow, int]],
    keep: Callable[[Example], None] | None,
) -> ColumnLists:
    """The rows of one batch; `radii` ascending. model: as `no_trace` gives it; see `evaluate`."""
    x, y, setting = batch.x, batch.y, batch.setting
    task = setting.task
    clean = clean_pass(model, batch, "accuracy or Dice")
    rows: list[ColumnLists] = [_rows(batch, CLEAN, "clean", 0.0, clean, clean)]
    worst: dict[float, BatchState] = {}
    aimed = [row.kind for _, row, _ in attacks if row.amplitude is None]
    everyone = torch.arange(len(x), device=x.device)
    binary = given(task, "measure").binary

    def track(quality: Tensor, noisy: Tensor) -> Lowest:
        return Lowest(noisy, quality, given(task, "quality"), task.score, binary=binary)

    def run(row: AttackRow, lowest: Lowest, eps: float, steps: int) -> None:
        # The same noise whatever ran before, which depends on where other samples stand.
        setting.generator.manual_seed(setting.generator.initial_seed())
        setting.watcher.under(eps)
        row.run(model, x, y, lowest, eps, steps, setting)

    def show(attack: str, eps: float, state: BatchState, tried: Tensor) -> None:
        # Of a mask that is at 0 there is still something to see.
        for i in (tried if binary else everyone).tolist() if keep is not None else ():
            assert keep is not None
            keep(_example(batch, i, attack, eps, clean, state))

    for name, row, steps in attacks:
        if row.amplitude is not None:
            # No attack: the clean sample does not count beside it, unless it is at 0 already.
            lowest = track(torch.where(clean.quality > 0, torch.inf, 0.0), x)
            run(row, lowest, row.amplitude, steps)
            state = clean
            if len(lowest.start):
                drawn = batch.again(model, lowest, None)
                state = clean.lower(lowest.start, drawn, torch.full_like(clean.quality, torch.inf))
            rows.append(_rows(batch, name, row.kind, row.amplitude, state, clean))
            continue
        state = clean
        for eps in radii:
            lowest = track(state.quality, state.noisy)
            if len(lowest.start):
                run(row, lowest, eps, steps)
                found = batch.again(model, lowest, eps)
                state = state.lower(lowest.start, found, clean.quality)
            rows.append(_rows(batch, name, row.kind, eps, state, clean))
            show(name, eps, state, lowest.start)
            known = worst.get(eps)
            worst[eps] = state if known is None else known.lower(everyone, state, clean.quality)
    kind = "drawn" if set(aimed) == {"drawn"} else "worst"
    for eps, state in worst.items() if len(aimed) > 1 else ():
        rows.append(_rows(batch, WORST, kind, eps, state, clean))
        show(WORST, eps, state, everyone[:0])
    return {name: [cell for found in rows for cell in found[name]] for name in rows[0]}


def clean_pass(model: Model, batch: Batch, what: str) -> BatchState:
    """The samples as they are; what: cannot be stated where outputs are not finite."""
    x, y, setting = batch.x, batch.y, batch.setting
    task, output = setting.task, forward(model, x)
    check_fit(task, output, y, len(x))
    if not sound(output):
        first, last = batch.places[0], batch.places[-1]
        raise FloatingPointError(
            f"the model's output is not finite on batch of samples {first} to {last}; its weights "
            f"or its inputs are damaged, and no {what} can be stated"
        )
    setting.watcher.clean(output, y, task)
    state = batch.state(torch.arange(len(x), device=x.device), x, output, y)
    # A point of noise takes the clean sample's place wherever it is as low.
    return replace(state, score=torch.full_like(state.score, torch.inf))


def _rows(
    batch: Batch, attack: str, kind: str, eps: float, state: BatchState, clean: BatchState
) -> ColumnLists:
    n = len(batch.places)
    lowered = (state.quality < clean.quality) | (kind == "white")
    size = torch.where(lowered, state.size, torch.where(clean.quality > 0, torch.nan, 0.0))
    return {
        "id": list(batch.places),
        "attack": [attack] * n,
        "eps": [eps] * n,
        "quality": state.quality.tolist(),
        "size": [0.0] * n if attack == CLEAN else size.tolist(),
        "kind": [kind] * n,
        **{name: values(column, n) for name, column in state.columns.items()},
        PARTS: state.parts.tolist(),
    }


def _example(
    batch: Batch, i: int, attack: str, eps: float, clean: BatchState, state: BatchState
) -> Example:
    weight = clean.columns.get("pixels")
    return Example(
        batch.places[i],
        "",
        -1,
        attack,
        eps,
        1 if weight is None else int(weight[i]),
        batch.x[i].cpu(),
        state.noisy[i].cpu(),
        sample(batch.y, i),
        sample(clean.predicted, i),
        sample(state.predicted, i),
        float(clean.quality[i]),
        float(state.quality[i]),
    )
