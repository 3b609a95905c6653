"""Measure a run's margins against its training samples: what `ima margins` is drawn from.

margin(i) = E(i) as the method kept it, of the last epoch
prediction(i) = of the last epoch's weights, without noise
distance(i) = smallest noise found, for a seeded subset

The weights are those that the margins belong to: the last epoch's, not averaged.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ima.attacks.walk import eval_forward
from ima.data import Part, Splits
from ima.data.stored import chosen_of
from ima.evaluation.estimates import Estimate, Estimates
from ima.evaluation.minimal import minimal
from ima.evaluation.remarks import said_beside
from ima.files import write_arrays
from ima.margins import Margins
from ima.methods import METHODS, find_method
from ima.tasks import Task, check_task
from ima.training.build import BOUNDS, build_fabric, build_method, build_model
from ima.training.checkpoint import load_state
from ima.training.config import build_task
from ima.training.config_errors import parameters
from ima.training.run import Run
from ima.training.samples import choose, splits_of
from ima.training.state import epochs_done

SAMPLES = 200
"""So many training samples at most are looked at for their smallest noise."""

SHOWN = 24
"""So many samples with the smallest, and with the largest, margins are kept as images."""


@said_beside()
def measure_margins(
    run: Run,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    device: str = "auto",
) -> Estimates:
    """The margins of a run's training samples, with predictions and some distances.

    samples: how many to look for the smallest noise of, at most; which ones, `seed` decides, with
    classes in proportion. Written to `margins.csv` in the run's folder `margins`; the images of
    the `SHOWN` samples with the smallest and the largest margins beside it, to `atlas.npz`: `id`
    (M,) and `image` (M, C, *dims), smallest margins first; among equal margins `seed` draws.

    Raises ValueError for a method without margins and for fewer than one sample, and
    FileNotFoundError before the run's first epoch is done.
    """
    config = run.config()
    task = check_task(build_task(config))
    if samples < 1:
        raise ValueError(f"samples is {samples}; expected at least 1")
    if not keeps_margins(config.method.name):
        known = ", ".join(filter(keeps_margins, METHODS))
        raise ValueError(
            f"{run.folder} was trained by {config.method.name!r}, which keeps no margins; "
            f"those that do: {known}"
        )
    if not run.state.exists() or not run.read_margins():
        raise FileNotFoundError(
            f"{run.folder} has no finished epoch with margins (state.safetensors, margins.csv); "
            f"train it first: ima train --resume {run.folder}"
        )
    fabric, splits, state = build_fabric(device), splits_of(run), load_state(run.state)
    epoch = epochs_done(state, run.folder)
    model = build_model(config, splits)
    method: Any = build_method(config, len(splits.train), augmented=bool(config.data.augment))
    try:
        model.load_state_dict(state["model"])
        method.load_state_dict(state["method"])
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{run.state} does not fit the run's config, or is damaged ({error})"
        ) from error
    kept: Margins = method.margins
    margins = kept.values.double().cpu().numpy()
    model = fabric.to_device(model)

    chosen = choose(splits.train, samples, seed)
    train = splits.train
    found = minimal(
        model,
        replace(train, images=chosen_of(train.images, chosen), targets=train.targets[chosen]),
        config.evaluate.eps,
        norm=config.norm,
        bounds=BOUNDS,
        task=task,
        batch_size=config.evaluate.batch_size,
        seed=seed,
    )
    at = {int(chosen[row.id]): row for row in found.rows}
    labels, predicted = _decisions(model, train, task, config.evaluate.batch_size)
    rows: list[Estimate] = []
    for i, (label, said, margin) in enumerate(zip(labels, predicted, margins, strict=True)):
        row = Estimate(i, label, splits.flipped.get(i, label), said, float(margin))
        if i in at:
            row = replace(row, distance=at[i].distance, attack=at[i].attack)
        rows.append(row)
    settings = found.settings.but(
        data=splits.name,
        epoch=epoch,
        total=len(rows),
        classes=splits.classes if train.labels else ("right", "wrong"),
        # As margins are kept: the float32 of 3.3 is below 3.3.
        cap=float(np.float32(kept.cap)) if np.isfinite(kept.cap) else None,
        # The same run gives the same file.
        seconds=None,
        about={"method": config.method.name},
    )
    estimates = Estimates(tuple(rows), settings)
    folder = run.margins_folder
    estimates.to_csv(folder / "margins.csv")
    _write_atlas(folder / "atlas.npz", splits, margins, seed)
    return estimates


def keeps_margins(name: str) -> bool:
    """Whether the method of this name keeps a margin for each training sample."""
    return "num_samples" in parameters(find_method(name).method)


def _decisions(
    model: nn.Module, part: Part, task: Task, batch_size: int
) -> tuple[list[int], list[int]]:
    """Each sample's label and prediction; where there are no labels, 0, and 0 if right, else 1."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    found: list[Tensor] = []
    for ids in torch.arange(len(part)).split(batch_size):
        x, y = (tensor.to(device) for tensor in part[ids])
        output = eval_forward(model, x)
        found.append((task.predict(output) if part.labels else ~task.correct(output, y)).cpu())
    predicted = torch.cat(found).long()
    labels = part.targets if part.labels else torch.zeros_like(predicted)
    return labels.tolist(), predicted.tolist()


def _write_atlas(path: Path, splits: Splits, margins: NDArray[np.float64], seed: int) -> None:
    # Many margins stand at the cap, and neighbours in the data are often alike.
    order = np.lexsort((np.random.default_rng(seed).permutation(len(margins)), margins))
    # Each sample once, where there are few.
    ids = order if len(order) <= 2 * SHOWN else np.concatenate([order[:SHOWN], order[-SHOWN:]])
    images = splits.train[ids.tolist()][0].numpy()
    write_arrays(path, {"id": ids, "image": images})
