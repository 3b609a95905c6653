"""IMA with MONAI: a data set of dicts, dict transforms, a 3-D network.

The data are made here: noisy volumes of 16x16x16 voxels, half of them with a bright blob, and the
question is whether there is one. Run it with `python monai_dicts.py`; twenty epochs take about
thirty seconds on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from monai.data.dataloader import DataLoader
from monai.data.dataset import Dataset
from monai.networks.nets.classifier import Classifier
from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import ScaleIntensityRanged
from monai.transforms.spatial.dictionary import RandFlipd
from monai.transforms.utility.dictionary import EnsureChannelFirstd, EnsureTyped
from torch import Tensor

from ima import IMA, Indexed, evaluate

SIDE = 16


def volumes(count: int, seed: int) -> list[dict[str, Any]]:
    """Dicts of an image (D, H, W), noise around 0 in arbitrary units, and a label, 1 for a blob."""
    rng = np.random.default_rng(seed)
    axes = np.indices((SIDE, SIDE, SIDE))
    items: list[dict[str, Any]] = []
    for number in range(count):
        image, label = rng.normal(0, 100, (SIDE, SIDE, SIDE)), number % 2
        center = rng.uniform(4, SIDE - 4, (3, 1, 1, 1))
        distance = ((axes - center) ** 2).sum(0)
        image += label * rng.uniform(150, 300) * np.exp(-distance / 8)
        items.append({"image": image.astype(np.float32), "label": label})
    return items


def pairs(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of dicts as `evaluate` takes them."""
    for batch in loader:
        yield batch["image"], batch["label"]


def main(epochs: int) -> None:
    torch.manual_seed(0)
    # Intensities must lie inside `bounds`, so they are clipped when they are scaled. Noise has the
    # units of what comes out here. Plain tensors are faster than MONAI's with metadata.
    scale = [
        EnsureChannelFirstd(keys="image", channel_dim="no_channel"),
        ScaleIntensityRanged(keys="image", a_min=-400, a_max=600, b_min=0, b_max=1, clip=True),
    ]
    flip = [RandFlipd(keys="image", prob=0.5, spatial_axis=axis) for axis in range(3)]
    plain = [EnsureTyped(keys="image", track_meta=False)]
    train_set = Dataset(volumes(128, seed=1), Compose([*scale, *flip, *plain]))
    test_set = Dataset(volumes(64, seed=2), Compose([*scale, *plain]))

    model = Classifier(in_shape=(1, SIDE, SIDE, SIDE), classes=2, channels=(4, 8), strides=(2, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    loader = DataLoader(Indexed(train_set), batch_size=32, shuffle=True)  # items gain "id"
    # augmented: a sample's image changes from visit to visit, by the random flips.
    method = IMA(num_samples=len(train_set), bounds=(0, 1), augmented=True)

    for epoch in range(epochs):
        correct, crossed = torch.zeros(()), torch.zeros(())
        for batch in loader:
            step = method(model, batch["image"], batch["label"], batch["id"])
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
            correct, crossed = correct + step.metrics["correct"], crossed + step.metrics["crossed"]
        method.end_epoch(epoch, epochs)
        print(
            f"epoch {epoch + 1}: correct {correct / len(train_set):.1%}, crossed "
            f"{crossed / len(train_set):.1%}, mean margin {method.margins.values.mean():.3f}"
        )

    test = pairs(DataLoader(test_set, batch_size=32))
    results = evaluate(model, test, eps=0.5, attacks=["pgd-20"], norm=2, bounds=(0, 1))
    print(
        f"test volumes: clean accuracy {results.accuracy():.1%}, "
        f"under noise of size 0.5 {results.accuracy('pgd-20', 0.5):.1%}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    main(parser.parse_args().epochs)
