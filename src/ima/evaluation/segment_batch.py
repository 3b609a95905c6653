"""One batch of a segmentation network's evaluation: clean, and under each attack at each radius."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ima.attacks.entering import as_seen
from ima.attacks.inputs import check_radius, check_samples, no_trace
from ima.attacks.walk import into, look
from ima.evaluation.results import CLEAN
from ima.evaluation.segment_attacks import Lowest, SegmentAttack
from ima.evaluation.segmentation_results import WORST, SegmentRow
from ima.evaluation.setting import Setting
from ima.norms import per_sample
from ima.tasks import Segmentation, Tree, check_fit, full, sound, tree_map
from ima.tasks.pixels import wide

SLACK = 1e-4
"""Share of the radius by which noise may be larger: float32 rounds."""


@dataclass(frozen=True)
class SegmentExample:
    """One sample under one attack, as tensors, for pictures; see `evaluate_segmentation`'s `keep`.

    clean, noisy: (C, *S); truth: (*S) labels or (R, *S) regions; predicted_clean and
    predicted_noisy: (*S) int64 or (R, *S) bool; pixels: of foreground in the truth.
    """

    id: int
    case: str
    slice: int
    attack: str
    eps: float
    pixels: int
    clean: Tensor
    noisy: Tensor
    truth: Tensor
    predicted_clean: Tensor
    predicted_noisy: Tensor
    dice_clean: float
    dice_noisy: float


@dataclass(frozen=True)
class _About:
    """The samples of a batch: ids, (case, slice), pixels of foreground, classes in the truth."""

    ids: range
    where: list[tuple[str, int]]
    pixels: list[int]
    present: list[int]


@dataclass(frozen=True)
class _State:
    """Samples (B, *dims) that were looked at again. per_class: (B, F); predicted: (B, ...)."""

    noisy: Tensor
    dice: Tensor
    noise: Tensor
    per_class: Tensor
    predicted: Tensor

    def lower(self, other: _State) -> _State:
        """Of every sample the one of lower Dice; of two equal ones this."""
        at = other.dice < self.dice
        mine, others = vars(self).items(), vars(other)
        picked = {k: torch.where(per_sample(at, v), others[k], v) for k, v in mine}
        return _State(**picked)


def attack_batch(
    model: nn.Module,
    x: Tensor,
    y: Tree,
    ids: range,
    where: list[tuple[str, int]],
    radii: list[float],
    attacks: list[tuple[str, SegmentAttack, int]],
    setting: Setting,
    task: Segmentation,
    keep: Callable[[SegmentExample], None] | None,
) -> list[SegmentRow]:
    """The rows of one batch, `ids` its samples, `where` their cases and slices.

    radii: ascending; for other arguments, and what is raised, see `evaluate_segmentation`.
    """
    # Tensors of inference mode cannot be changed outside of it, nor take part in gradients: copies
    # can, made where it is off.
    with torch.inference_mode(False):
        x, y = x.detach().clone(), tree_map(torch.clone, y)
        return _attacked(model, x, y, ids, where, radii, attacks, setting, task, keep)


def _attacked(
    model: nn.Module,
    x: Tensor,
    y: Tree,
    ids: range,
    where: list[tuple[str, int]],
    radii: list[float],
    attacks: list[tuple[str, SegmentAttack, int]],
    setting: Setting,
    task: Segmentation,
    keep: Callable[[SegmentExample], None] | None,
) -> list[SegmentRow]:
    check_samples(x, setting.bounds)
    output = look(model, x)
    check_fit(task, output, y, len(x))
    if not sound(output):
        raise FloatingPointError(
            f"the model's output is not finite on batch of samples {ids[0]} to "
            f"{ids[-1]}; its weights or its inputs are damaged, and no Dice can be stated"
        )
    y = task.labels(output, y)
    setting.watcher.clean(output, y, task)
    clean = _state(x, x, output, y, setting, task)
    truth = task.foreground(output, y).flatten(2)
    pixels, present = truth.any(1).sum(1).tolist(), truth.any(2).sum(1).tolist()
    about = _About(ids, where, pixels, present)
    rows = _rows(about, CLEAN, 0.0, clean)
    worst: dict[float, _State] = {}
    aimed = [name for name, row, _ in attacks if row.amplitude is None]
    for name, row, steps in attacks:
        if row.amplitude is not None:
            # No attack: the clean sample does not count beside it.
            lowest = Lowest(x, torch.full_like(clean.dice, torch.inf), task)
            row.run(model, x, y, lowest, row.amplitude, steps, setting)
            rows += _rows(about, name, row.amplitude, _again(model, x, y, lowest, setting, task))
            continue
        state = clean
        for radius in radii:
            lowest = Lowest(state.noisy, state.dice, task)
            row.run(model, x, y, lowest, radius, steps, setting)
            found = _again(model, x, y, lowest, setting, task, radius)
            state = state.lower(found)
            rows += _rows(about, name, radius, state)
            _show(keep, about, name, radius, x, y, clean, state)
            worst[radius] = worst[radius].lower(state) if radius in worst else state
    for radius, state in worst.items() if len(aimed) > 1 else ():
        rows += _rows(about, WORST, radius, state)
        _show(keep, about, WORST, radius, x, y, clean, state)
    return rows


def _again(
    model: nn.Module,
    x: Tensor,
    y: Tree,
    lowest: Lowest,
    setting: Setting,
    task: Segmentation,
    radius: float | None = None,
) -> _State:
    """What an attack found, brought into the ball and the bounds and looked at by a second pass.

    Nothing is taken on trust: what is not finite or not inside becomes the clean sample.
    """
    norm, box, noisy = setting.norm, check_samples(x, setting.bounds), lowest.noisy
    clean, noisy = wide(x), wide(noisy)
    if radius is not None:
        noisy = into(clean + norm.project(noisy - clean, check_radius(radius, x)), box)
        with no_trace(model, x) as inner:
            noisy = as_seen(inner, noisy, clean)
        usable = norm.size(noisy - clean) <= radius * (1 + SLACK)
    else:
        usable = torch.isfinite(norm.size(noisy - clean))
    noisy = noisy.to(x.dtype)
    noisy = torch.where(per_sample(usable, x), noisy, x)
    output = look(model, noisy)
    setting.watcher.noisy(torch.arange(len(x), device=x.device), output, task)
    return _state(x, noisy, output, y, setting, task)


def _state(
    x: Tensor, noisy: Tensor, output: Tree, y: Tree, setting: Setting, task: Segmentation
) -> _State:
    per_class = task.dice_per_class(output, y)
    # As the task's Dice: 0 where the output permits no decision.
    broken = per_sample(~task.usable(output), per_class)
    per_class = torch.where(broken & ~per_class.isnan(), 0.0, per_class)
    size = setting.norm.size(wide(noisy) - wide(x))
    return _State(noisy, task.dice(output, y), size, per_class, task.predict(output))


def _rows(about: _About, attack: str, eps: float, state: _State) -> list[SegmentRow]:
    columns = zip(
        about.ids,
        about.where,
        about.pixels,
        about.present,
        state.dice.tolist(),
        state.noise.tolist(),
        state.per_class.tolist(),
        strict=True,
    )
    return [
        SegmentRow(i, case, at, attack, eps, dice, noise, pixels, present, tuple(each))
        for i, (case, at), pixels, present, dice, noise, each in columns
    ]


def _show(
    keep: Callable[[SegmentExample], None] | None,
    about: _About,
    attack: str,
    eps: float,
    x: Tensor,
    y: Tree,
    clean: _State,
    state: _State,
) -> None:
    for i, (case, at) in enumerate(about.where if keep is not None else ()):
        assert keep is not None
        keep(
            SegmentExample(
                about.ids[i],
                case,
                at,
                attack,
                eps,
                about.pixels[i],
                x[i],
                state.noisy[i],
                full(y)[i],
                clean.predicted[i],
                state.predicted[i],
                float(clean.dice[i]),
                float(state.dice[i]),
            )
        )
