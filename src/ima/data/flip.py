"""Flip labels on purpose: what a labelling mistake is, with the answer known.

chosen = round(share * N) training samples, without replacement
their label becomes one of the other classes, each as likely as the next
"""

from dataclasses import replace

import numpy as np
import torch

from ima.data.base import Part, Splits

STREAM = 0xF11B
"""Of the seed's random numbers, so that they are not those that split the data."""


def flip_labels(splits: Splits, share: float, seed: int) -> Splits:
    """The data set with `share` of its training labels, at least one, flipped by `seed`.

    Validation and test labels stay. `flipped` tells which, and their true classes; ids are
    positions in the training part. Raises `ValueError` for a share outside 0..1 (ends excluded),
    for a data set of one class or without labels, and for one that has flipped labels already.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of labels to flip is {share}; expected above 0 and below 1")
    if not splits.train.labels:
        raise ValueError(
            f"the targets of {splits.name} are no class labels; only these are flipped"
        )
    if splits.num_classes < 2:
        raise ValueError(f"{splits.name} has one class only: no label can become another")
    if splits.flipped:
        raise ValueError(f"{splits.name} has {len(splits.flipped)} flipped labels already")
    true = splits.train.targets.numpy()
    rng = np.random.default_rng([seed, STREAM])
    count = max(1, round(share * len(true)))
    ids = np.sort(rng.permutation(len(true))[:count])
    given = true.copy()
    given[ids] = (true[ids] + rng.integers(1, splits.num_classes, count)) % splits.num_classes
    note = (
        f"Of the {len(true)} training labels {count} were flipped to another class on purpose, "
        f"chosen by seed {seed}; validation and test labels are as published."
    )
    return replace(
        splits,
        train=Part(splits.train.images, torch.from_numpy(given)),
        note=f"{splits.note} {note}".strip(),
        flipped={int(i): int(true[i]) for i in ids},
    )
