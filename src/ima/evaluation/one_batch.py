"""One batch of an evaluation: clean, and under each attack at each radius."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ima.attacks.inputs import check_samples
from ima.attacks.walk import look
from ima.evaluation.attacks import AttackRow
from ima.evaluation.decisions import copied, decide, gathered, put, values
from ima.evaluation.results import CLEAN, Row
from ima.evaluation.setting import Setting
from ima.evaluation.values import Value
from ima.tasks import Tree, check_fit, sound, take
from ima.tasks.checked import check_standing
from ima.tasks.pixels import wide

WORST = "worst case"


@dataclass(frozen=True)
class Example:
    """One attacked sample as tensors, for pictures; see `evaluate`'s `keep`."""

    id: int
    attack: str
    eps: float
    label: Value
    prediction: Value
    clean_prediction: Value
    clean: Tensor
    noisy: Tensor


def attack_batch(
    model: nn.Module,
    x: Tensor,
    y: Tree,
    ids: range,
    radii: list[float],
    attacks: list[tuple[str, AttackRow, int]],
    setting: Setting,
    keep: Callable[[Example], None] | None,
) -> list[Row]:
    """The rows of one batch, `ids` its samples; `radii` ascending; see `evaluate`."""
    task, norm = setting.task, setting.norm
    check_samples(x, setting.bounds)
    output = look(model, x)
    check_fit(task, output, y, len(x))
    if not sound(output):
        raise FloatingPointError(
            f"the model's output is not finite on batch of samples {ids[0]} to {ids[-1]}; its "
            "weights or its inputs are damaged, and no accuracy can be stated"
        )
    setting.watcher.clean(output, y, task)
    clean, right = decide(task, output, y, len(x))
    wrong, labels = ~right, values(y, len(x))
    size = torch.where(wrong, 0.0, torch.nan)
    rows = _rows(ids, labels, CLEAN, 0.0, clean, wrong, size)
    by_attack: dict[float, list[tuple[Tree, Tensor, Tensor]]] = {}
    for name, row, steps in attacks:
        prediction, broken, distance = copied(clean), wrong.clone(), size.clone()
        for radius in radii if row.amplitude is None else [row.amplitude]:
            (left,) = (~broken).nonzero(as_tuple=True)
            if len(left):
                target = take(y, left)
                result = row.run(model, x[left], target, radius, steps, setting)
                output = look(model, result.x)
                setting.watcher.noisy(left, output, task)
                # The second look decides: it is what the prediction and the picture show.
                crossed = result.crossed & ~task.correct(output, target)
                check_standing(task, output, target, ~crossed)
                put(prediction, left, task.predict(output))
                broken[left] = crossed
                far = norm.size(wide(result.x) - wide(x[left]))
                distance[left] = torch.where(crossed, far.to(distance.dtype), torch.nan)
                shown = keep is not None and row.amplitude is None
                said, before = (values(t, len(x)) if shown else [] for t in (prediction, clean))
                for i, at in enumerate(left.tolist() if shown else []):
                    assert keep is not None
                    keep(
                        Example(
                            ids[at],
                            name,
                            radius,
                            labels[at],
                            said[at],
                            before[at],
                            x[at].cpu(),
                            result.x[i].cpu(),
                        )
                    )
            rows += _rows(ids, labels, name, radius, prediction, broken, distance)
            if row.amplitude is None:
                state = (copied(prediction), broken.clone(), distance.clone())
                by_attack.setdefault(radius, []).append(state)
    for radius, states in by_attack.items():
        if len(states) > 1:
            rows += _rows(ids, labels, WORST, radius, *_worst(states))
    return rows


def _worst(states: list[tuple[Tree, Tensor, Tensor]]) -> tuple[Tree, Tensor, Tensor]:
    predictions, *others = zip(*states, strict=True)
    broken, distances = map(torch.stack, others)
    nearest = torch.where(broken, distances, torch.inf).min(0)
    prediction = gathered(predictions, nearest.indices)
    distance = torch.where(broken.any(0), nearest.values, torch.nan)
    return prediction, broken.any(0), distance


def _rows(
    ids: range,
    labels: list[Value],
    attack: str,
    eps: float,
    prediction: Tree,
    broken: Tensor,
    distance: Tensor,
) -> list[Row]:
    columns = zip(
        ids, labels, values(prediction, len(ids)), broken.tolist(), distance.tolist(), strict=True
    )
    return [Row(i, label, attack, eps, p, b, d) for i, label, p, b, d in columns]
