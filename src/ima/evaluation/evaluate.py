"""Attack a trained model on a data set, from the smallest noise radius to the largest.

clean pass; samples that are wrong count as broken everywhere
for each attack, for eps ascending: attack the samples that still stand
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader

from ima.attacks.inputs import Bounds, check_samples, no_trace
from ima.attacks.walk import forward
from ima.evaluation.attacks import Setting, find_attack
from ima.evaluation.results import CLEAN, Results, Row
from ima.norms import Norm, get_norm
from ima.tasks import Classification, Task, plain

WORST = "worst case"


@dataclass(frozen=True)
class Example:
    """One attacked sample as tensors, for pictures; see `evaluate`'s `keep`."""

    id: int
    attack: str
    eps: float
    label: int
    prediction: int
    clean_prediction: int
    clean: Tensor
    noisy: Tensor


def evaluate(
    model: nn.Module,
    data: Any,
    eps: Sequence[float] | float,
    attacks: Sequence[str] = ("pgd-100",),
    *,
    norm: Norm | float | str = 2,
    bounds: Bounds = None,
    task: Task | None = None,
    batch_size: int = 256,
    seed: int = 0,
    keys: tuple[str, str] = ("image", "label"),
    keep: Callable[[Example], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """The model's predictions on every sample: clean, and under each attack at each eps.

    data: a map-style data set of (x, y), or an iterable of batches (x, y); eps: noise radii in
    x's units and `norm`, above 0; attacks: names such as `"pgd-100"`; bounds: of x's entries;
    seed: of all noise; keys: where x and y are in batches that are dicts. keep is called with
    every sample that an attack was tried on; progress with (batches done, batches, 0 where
    unknown). A sample broken at a smaller eps stays broken at a larger one, and is not attacked
    again. With several attacks, `"worst case"` counts a sample as broken when any broke it.

    Raises ValueError for an empty data set, unknown attacks, inputs outside bounds and outputs
    that do not fit the labels; FloatingPointError where the model's output is not finite.
    """
    radii = sorted(set(torch.as_tensor(eps, dtype=torch.float64).flatten().tolist()))
    if not all(0 < radius < float("inf") for radius in radii):
        raise ValueError(f"eps are {radii}; expected finite noise radii above 0")
    attacks = [attacks] if isinstance(attacks, str) else list(attacks)
    found = [(name, *find_attack(name)) for name in dict.fromkeys(attacks)]
    task = Classification() if task is None else task
    norm = get_norm(norm)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    rows: list[Row] = []
    batches = _batches(data, batch_size)
    total = len(batches) if hasattr(batches, "__len__") else 0
    offset = 0
    for number, batch in enumerate(batches):
        x, y = _pair(batch, keys)
        x, y = x.to(device), y.to(device)
        # A generator of its own for every batch: a batch's noise does not depend on the others.
        source = Generator().manual_seed(seed * 1_000_003 + number)
        setting = Setting(norm, task, bounds, source)
        check_samples(x, bounds)
        with no_trace(model, x) as inner:
            output = forward(inner, x)
        task.check(output, y)
        if not bool(torch.isfinite(output).all()):
            raise FloatingPointError(
                f"the model's output is not finite on batch {number}; its weights or its inputs "
                "are damaged, and no accuracy can be stated"
            )
        clean, wrong = task.predict(output), ~task.correct(output, y)
        ids = range(offset, offset + len(x))
        offset += len(x)
        size = torch.where(wrong, 0.0, torch.nan)
        rows += _rows(ids, y, CLEAN, 0.0, clean, wrong, size)
        by_attack: dict[float, list[tuple[Tensor, Tensor, Tensor]]] = {}
        for name, row, steps in found:
            prediction, broken, distance = clean.clone(), wrong.clone(), size.clone()
            for radius in radii:
                (left,) = (~broken).nonzero(as_tuple=True)
                if len(left):
                    result = row.run(model, x[left], y[left], radius, steps, setting)
                    with no_trace(model, x) as inner:
                        seen = task.predict(forward(inner, result.x))
                    prediction[left], broken[left] = seen, result.crossed
                    far = norm.size(result.x - x[left])
                    distance[left] = torch.where(result.crossed, far.to(distance.dtype), torch.nan)
                    for i, at in enumerate(left.tolist() if keep is not None else []):
                        assert keep is not None
                        keep(
                            Example(
                                ids[at],
                                name,
                                radius,
                                int(y[at]),
                                int(seen[i]),
                                int(clean[at]),
                                x[at].cpu(),
                                result.x[i].cpu(),
                            )
                        )
                rows += _rows(ids, y, name, radius, prediction, broken, distance)
                state = (prediction.clone(), broken.clone(), distance.clone())
                by_attack.setdefault(radius, []).append(state)
        if len(found) > 1:
            for radius, states in by_attack.items():
                rows += _rows(ids, y, WORST, radius, *_worst(states))
        if progress is not None:
            progress(number + 1, total)
    if not rows:
        raise ValueError("the data set is empty; there is nothing to evaluate")
    order = {CLEAN: 0, **{name: 1 + i for i, name in enumerate([*dict.fromkeys(attacks), WORST])}}
    rows.sort(key=lambda row: (order[row.attack], row.eps, row.id))
    return Results(tuple(rows), norm.name)


def _worst(states: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    predictions, broken, distances = (torch.stack(parts) for parts in zip(*states, strict=True))
    nearest = torch.where(broken, distances, torch.inf).min(0)
    prediction = predictions.gather(0, nearest.indices[None])[0]
    distance = torch.where(broken.any(0), nearest.values, torch.nan)
    return prediction, broken.any(0), distance


def _rows(
    ids: range,
    y: Tensor,
    attack: str,
    eps: float,
    prediction: Tensor,
    broken: Tensor,
    distance: Tensor,
) -> list[Row]:
    columns = zip(
        ids, y.tolist(), prediction.tolist(), broken.tolist(), distance.tolist(), strict=True
    )
    return [Row(i, label, attack, eps, p, b, d) for i, label, p, b, d in columns]


def _batches(data: Any, batch_size: int) -> Any:
    first: Any = data[0] if isinstance(data, list | tuple) and data else None
    if _is_batch(first):
        return data
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        samples: Any = data
        # A generator of its own: a loader without one draws from the global random state.
        own = Generator()
        return DataLoader(samples, batch_size=batch_size, generator=own) if len(samples) else ()
    return data


def _is_batch(item: Any) -> bool:
    """Whether an item of a list holds a label for each of several samples."""
    labels = item[1] if isinstance(item, list | tuple) and len(item) > 1 else None
    return isinstance(labels, Tensor) and labels.ndim > 0


def _pair(batch: Any, keys: tuple[str, str]) -> tuple[Tensor, Tensor]:
    if isinstance(batch, dict) and set(keys) <= batch.keys():
        return plain(batch[keys[0]]), plain(batch[keys[1]])
    if not isinstance(batch, list | tuple) or len(batch) < 2:
        came = f"a dict with {list(batch)}" if isinstance(batch, dict) else type(batch).__name__
        raise TypeError(
            f"the data gave {came}; expected (x, y), or a dict with the keys {keys}: pass a data "
            "set, or an iterable of batches, of these"
        )
    return plain(batch[0]), plain(batch[1])
