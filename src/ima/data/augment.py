"""Random changes of training images, for a whole batch at a time, on its device.

crop: pad with 4 zeros on every side, cut out at random what has the old size
flip: mirror left and right, with probability 1/2

Both as in K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

PAD = 4

# Of a table, so that a config can name the choices.
Augmentation = Literal["crop", "flip"]


@dataclass(frozen=True)
class AugmentRow:
    """A row of the table of augmentations.

    `draw(batch, dims, generator)` gives random whole numbers (batch, K), `apply(x, drawn)` the
    changed samples; x: (B, C, *dims), drawn: (B, K), on x's device.
    """

    name: str
    draw: Callable[[int, int, Generator], Tensor]
    apply: Callable[[Tensor, Tensor], Tensor]
    summary: str


def augment(
    x: Tensor,
    names: Sequence[str],
    generator: Generator,
    *,
    rows: Tensor | None = None,
    batch: int | None = None,
) -> Tensor:
    """Samples changed by the augmentations `names`, one after the other; x itself stays.

    x: (B, C, *dims), any dtype; `crop` shifts along all dims, `flip` mirrors the last. The values
    are those of x, and 0 where a crop reaches beyond the edge. Where several processes share a
    batch of `batch` samples, x holds its `rows` (B,), and every sample gets what it would get in
    one process. No names: x.

    Raises `ValueError` for an unknown name, and for x without a dimension besides (B, C).
    """
    for name in names:
        if name not in AUGMENTATIONS:
            raise ValueError(
                f"unknown augmentation {name!r}; there are: {', '.join(AUGMENTATIONS)}"
            )
        if x.ndim < 3:
            raise ValueError(
                f"samples of shape {tuple(x.shape)} cannot be augmented by {name!r}; expected "
                "images, (B, C, *dims)"
            )
        row = AUGMENTATIONS[name]
        drawn = row.draw(len(x) if batch is None else batch, x.ndim - 2, generator)
        x = row.apply(x, (drawn if rows is None else drawn[rows]).to(x.device))
    return x


def augment_share(
    x: Tensor, names: Sequence[str], *, seed: int, rank: int, world: int, batch: int
) -> Tensor:
    """One process's samples of a training batch, changed as they would be in one process.

    x: (B, C, *dims), every `world`-th sample, from number `rank` on, of a batch of `batch` samples
    that was padded with its own first ones; seed: of the batch.
    """
    rows = torch.arange(rank, rank + len(x) * world, world) % batch
    return augment(x, names, Generator().manual_seed(seed), rows=rows, batch=batch)


def _draw_shifts(batch: int, dims: int, generator: Generator) -> Tensor:
    return _draw(2 * PAD + 1, batch, dims, generator)


def _draw_flags(batch: int, dims: int, generator: Generator) -> Tensor:
    return _draw(2, batch, 1, generator)


def _draw(below: int, batch: int, each: int, generator: Generator) -> Tensor:
    return torch.randint(below, (batch, each), generator=generator, device=generator.device)


def _crop(x: Tensor, shifts: Tensor) -> Tensor:
    dims = x.ndim - 2
    padded = F.pad(x, [PAD, PAD] * dims)
    # One index tensor a dimension of x, (B, 1, ...), (1, C, ...), (B, 1, H, 1), ...: one gather.
    index = [_along(torch.arange(n, device=x.device), i, x.ndim) for i, n in enumerate(x.shape)]
    for dim in range(dims):
        start = shifts[:, dim].reshape(-1, *[1] * (x.ndim - 1))
        index[2 + dim] = index[2 + dim] + start
    return padded[tuple(index)]


def _along(values: Tensor, dim: int, ndim: int) -> Tensor:
    return values.reshape([-1 if i == dim else 1 for i in range(ndim)])


def _flip(x: Tensor, flags: Tensor) -> Tensor:
    return torch.where(flags.bool().reshape(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)


AUGMENTATIONS: dict[str, AugmentRow] = {
    row.name: row
    for row in (
        AugmentRow("crop", _draw_shifts, _crop, "Shift by up to 4 pixels, zeros beyond the edge."),
        AugmentRow("flip", _draw_flags, _flip, "Mirror left and right, every second time."),
    )
}
