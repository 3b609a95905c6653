"""Evaluate a trained run on its test part; the results stay in its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from ima.data import load
from ima.evaluation.evaluate import Example, evaluate
from ima.evaluation.results import Results
from ima.training.build import BOUNDS, build_fabric, build_model, load_into
from ima.training.checkpoint import load_weights
from ima.training.run import Run

EXAMPLES = 200
"""So many attacked samples are kept for pictures."""


def evaluate_run(
    run: Run,
    which: str,
    *,
    attacks: Sequence[str] | None = None,
    eps: Sequence[float] | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Results:
    """Attack the `"best"` or the `"last"` weights of a run and write the rows into its folder.

    attacks, eps: the config's if None. Raises FileNotFoundError before the run's first epoch is
    done; otherwise as `ima.evaluation.evaluate`.
    """
    config = run.config()
    fabric = build_fabric(device)
    splits = load(
        config.data.name, path=config.data.path, size=config.data.size, seed=config.data.seed
    )
    weights = run.weights(which)
    if not weights.exists():
        raise FileNotFoundError(
            f"{run.folder} holds no {which} weights yet; train it first: "
            f"ima train --resume {run.folder}"
        )
    model = build_model(config, splits)
    load_into(model, load_weights(weights), weights)
    kept: list[Example] = []

    def keep(example: Example) -> None:
        # Of the first samples all, so that pictures can show one sample under several methods.
        if example.id < EXAMPLES:
            kept.append(example)

    results = evaluate(
        fabric.to_device(model),
        splits.test,
        config.evaluate.eps if eps is None else eps,
        config.evaluate.attacks if attacks is None else attacks,
        norm=config.norm,
        bounds=BOUNDS,
        batch_size=config.evaluate.batch_size,
        seed=seed,
        keep=keep,
        progress=progress,
    )
    target = run.results(which)
    target.parent.mkdir(exist_ok=True)
    results.to_csv(target)
    if which == "best":
        _save_examples(run, kept, splits.classes)
    return results


def _save_examples(run: Run, kept: list[Example], classes: Sequence[str]) -> None:
    path = run.examples
    beside = path.with_name("part-" + path.name)
    names = ("id", "eps", "label", "prediction", "clean_prediction")
    columns = {name: np.array([getattr(e, name) for e in kept]) for name in names}
    path.unlink(missing_ok=True)
    if not kept:
        return
    images = {n: np.stack([getattr(e, n).numpy() for e in kept]) for n in ("clean", "noisy")}
    words = {"attack": np.array([e.attack for e in kept]), "classes": np.array(classes)}
    arrays = {**words, **columns, **images}
    np.savez_compressed(beside, allow_pickle=False, **arrays)
    os.replace(beside, path)
