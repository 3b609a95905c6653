"""IMA for segmentation, in a loop of your own: MONAI's UNet, and images that are made here.

Noisy images of 32x32 pixels show a disc, class 1, and a ring, class 2. Two copies of one network
are trained, one with IMA and one without; the last line compares them on test images, with and
without noise. Run it with `python segmentation.py`; ten epochs take half a minute on one core.
"""

from __future__ import annotations

import argparse
from copy import deepcopy

import torch
from monai.networks.nets.unet import UNet
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ima import IMA, Indexed, Method, Segmentation, Standard, evaluate

SIDE = 32


def images(count: int, seed: int) -> TensorDataset:
    """Images (1, H, W), z-scored, and labels (1, H, W) of integers 0, 1 and 2."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(*[torch.arange(SIDE)] * 2, indexing="ij"))
    # The disc's center lies in the left third and the ring's in the right one: row and column.
    least, span = torch.tensor([[6, 6], [6, 22]]), torch.tensor([20, 4])
    center = least + span * torch.rand(count, 2, 2, generator=generator)
    disc, ring = (grid - center[..., None, None]).pow(2).sum(2).sqrt().unbind(1)
    labels = (disc < 5).long() + 2 * ((ring - 4).abs() < 1.5)
    labels[::2] = labels[::2].flip(-1)  # and the other way round
    x = (labels > 0) + 0.5 * torch.randn(labels.shape, generator=generator)
    return TensorDataset(((x - x.mean()) / x.std())[:, None], labels[:, None])


def train(model: nn.Module, method: Method, train_set: TensorDataset, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loader = DataLoader(Indexed(train_set), batch_size=16, shuffle=True)  # yields (x, y, id)
    for epoch in range(epochs):
        correct = torch.zeros(())
        for x, y, ids in loader:
            step = method(model, x, y, ids)
            optimizer.zero_grad()
            step.loss.backward()
            optimizer.step()
            correct += step.metrics["correct"]
        method.end_epoch(epoch, epochs)
        share = correct / len(train_set)
        print(f"{type(method).__name__}, epoch {epoch + 1}: {share:.1%} of the images correct")


def main(epochs: int) -> None:
    torch.manual_seed(0)
    train_set, test_set = images(96, seed=1), images(32, seed=2)
    model = UNet(2, in_channels=1, out_channels=3, channels=(8, 16, 32), strides=(2, 2))
    twin = deepcopy(model)

    # A sample is correct where its Dice is above 0.6; the loss is nnU-Net's, and takes lists of
    # outputs and targets too, and targets of ones and zeros with `regions=True`.
    task = Segmentation()
    # No bounds: z-scored images have none.
    method = IMA(num_samples=len(train_set), bounds=None, task=task)
    train(model, method, train_set, epochs)
    train(twin, Standard(task=task), train_set, epochs)
    margins = method.margins.values
    print(f"margins from {margins.min():.1f} to {margins.max():.1f}")

    with_ima, without = (
        evaluate(network, test_set, eps=3.0, attacks=["pgd-20"], task=task)
        for network in (model, twin)
    )
    print(
        f"mean Dice (ADI) {without.adi():.3f} without IMA, {with_ima.adi():.3f} with; "
        f"under noise of size 3 {without.adi('pgd-20', 3.0):.3f} without IMA, "
        f"{with_ima.adi('pgd-20', 3.0):.3f} with"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    main(parser.parse_args().epochs)
