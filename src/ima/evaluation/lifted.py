"""A model as AutoAttack expects it: images (B, C, H, W) in [0, 1] come in, (B, classes) logits out.

Around any classifier: samples of any rank are reshaped, bounds are mapped to [0, 1], one logit z
becomes the pair [0, z].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ima.attacks.inputs import Model
from ima.norm_names import NORM_NAMES, known_norm
from ima.norms import Norm, per_sample
from ima.tasks import Classification

_BELOW = 10.0
"""So far below the lowest other logit stands one that is masked with -inf."""


@dataclass(frozen=True)
class Lifted:
    """The model behind the map; as a function, it is what the library attacks.

    model: on samples (B, *shape) of `dtype`; image: (C, H, W); low, width: the bounds as
    low + width * [0, 1]; classes: of the output; broken: takes the points whose output permits no
    decision; default: the dtype that the model's own new tensors have, see `in_library_state`.
    """

    model: Model
    shape: tuple[int, ...]
    image: tuple[int, int, int]
    low: Tensor
    width: Tensor
    dtype: torch.dtype
    classes: int
    broken: Broken | None = None
    default: torch.dtype = field(default_factory=torch.get_default_dtype)

    def up(self, x: Tensor) -> Tensor:
        """Samples (B, *shape) as float32 images (B, C, H, W) in [0, 1]."""
        unit = ((x - self.low) / self.width).clamp(0, 1).float()
        return unit.contiguous().reshape(len(x), *self.image)

    def down(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as samples."""
        return self.low + self.width * images.reshape(-1, *self.shape).to(self.dtype)

    def __call__(self, images: Tensor) -> Tensor:
        """Float32 logits (B, classes) in a tensor of their own: Square writes into them."""
        if len(images) == 0:
            return images.new_zeros(0, self.classes)
        if torch.is_grad_enabled() and images.requires_grad:
            return _Isolated.apply(images, self._logits)  # pyright: ignore[reportReturnType]
        with torch.no_grad():
            return self._logits(images).clone()

    def _logits(self, images: Tensor) -> Tensor:
        x = self.down(images)
        with _default_dtype(self.default):
            output = self.model(x)
        logits = Classification().logits(output).float()
        bad = ~Classification().usable(output)
        if self.broken is not None and bool(bad.any()):
            self.broken.take(x[bad].detach())
        # Losses of the library subtract logits: masked ones become low finite ones.
        masked = logits.isneginf()
        low = torch.where(masked, torch.inf, logits.detach()).amin(1, keepdim=True) - _BELOW
        logits = torch.where(masked, low, logits).clamp(-HUGE, HUGE)
        # The library knows no outputs without a decision: it takes them for right, or stops. It
        # gets numbers, and whoever called it gets the points themselves.
        return torch.where(bad[:, None], 0, logits)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Generator[None]:
    """Within: new tensors have this dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def in_library_state() -> Generator[None]:
    """Within, the library may seed torch and, once it is in use, the current GPU.

    It puts tensors that it makes beside float32 images: so they are, whatever the user's default.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices), _default_dtype(torch.float32):
            yield
    finally:
        if not devices:
            # A seed for a GPU that is not in use yet waits for it: the last one counts.
            torch.cuda.manual_seed_all(torch.initial_seed())


HUGE = 1e30
"""The library computes differences of logits: they must stay finite."""


@dataclass
class Broken:
    """For every sample the nearest point whose output permits no decision.

    x: the samples (n, *dims); points: like them, where `far` (n,) is finite. A point inside a
    sample's ball breaks that sample, whichever it was made for.
    """

    x: Tensor
    norm: Norm
    points: Tensor = field(init=False)
    far: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.points = self.x.clone()
        self.far = torch.full((len(self.x),), torch.inf, device=self.x.device)

    def take(self, points: Tensor) -> None:
        """Look at more points (m, *dims)."""
        a, b = self.x.flatten(1).float(), points.flatten(1).float()
        exact = "donot_use_mm_for_euclid_dist"
        far, at = torch.cdist(a, b, self.norm.order, compute_mode=exact).min(1)
        nearer = far < self.far
        self.far = torch.where(nearer, far, self.far)
        self.points = torch.where(per_sample(nearer, self.x), points[at], self.points)

    def within(self, eps: float, other: Tensor) -> Tensor:
        """The points no farther than eps; of other samples those of `other` (n, *dims)."""
        near = self.far <= eps * (1 + 1e-5) + 1e-6
        return torch.where(per_sample(near, self.x), self.points, other)


class _Isolated(torch.autograd.Function):
    """A function of images whose backward pass ends at them.

    FAB calls `backward`, which would otherwise add to the parameters' gradients.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            ctx.images = images.detach().requires_grad_()
            ctx.output = function(ctx.images)
        return ctx.output.detach().clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        if not ctx.output.requires_grad:
            return torch.zeros_like(ctx.images), None
        (gradient,) = torch.autograd.grad(
            ctx.output, ctx.images, slopes, allow_unused=True, materialize_grads=True
        )
        # Where an output is not a number neither is its gradient; the library would carry it on.
        return gradient.contiguous().nan_to_num(0.0, 0.0, 0.0), None


def unit_box(bounds: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Bounds as (low, width), width one number.

    Raises ValueError where there are none, and where entries have ranges of several widths: a
    ball is no ball any more once they are mapped to [0, 1].
    """
    if bounds is None:
        raise ValueError(
            "AutoAttack needs bounds, the lowest and the highest value of x's entries, such as "
            "bounds=(0, 1); for data without bounds use pgd-100"
        )
    low, high = bounds
    width = high - low
    least, most = float(width.min()), float(width.max())
    if not math.isfinite(most) or most - least > 1e-5 * most:
        raise ValueError(
            f"AutoAttack needs bounds of one finite width for all entries, but widths go from "
            f"{least:.6g} to {most:.6g}; scale x (the model may scale it back), or use pgd-100"
        )
    return low.clone(), width.amax()


def in_library(norm: Norm) -> str:
    """The norm as the authors' code calls it; ValueError for one that it does not know."""
    known = known_norm(norm.name)
    if known is None:
        raise ValueError(
            f"AutoAttack knows noise in {', '.join(row.name for row in NORM_NAMES)}, not in the "
            f"norm {norm.name!r}; use pgd-100, which takes any"
        )
    return known.name


def layout(shape: Sequence[int], norm: Norm) -> tuple[int, int, int] | None:
    """(C, H, W) in which Square can attack samples (B, *shape); None where there is no such.

    The natural layout, with the last two dimensions as the image, where that works; otherwise the
    one that is nearest to a square image.
    """
    natural = [(math.prod(shape[:-2]), shape[-2], shape[-1])] if len(shape) > 1 else []
    signals = _rectangles(shape[0], math.prod(shape[1:])) if len(shape) > 1 else []
    flat = _rectangles(1, math.prod(shape))
    tiled = in_library(norm) != "Linf"
    works = [c for c in (*natural, *signals, *flat) if not tiled or _square_works(*c[1:])]
    return max(works, key=lambda c: min(c[1], c[2], 5), default=None)


def plain_layout(shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) for attacks that do not look at the layout."""
    return 1, 1, math.prod(shape)


def _rectangles(channels: int, size: int) -> list[tuple[int, int, int]]:
    heights = (h for h in range(math.isqrt(size), 0, -1) if size % h == 0)
    return [(channels, h, size // h) for h in heights]


def _square_works(height: int, width: int) -> bool:
    """Whether Square's first tiles, of a fifth of the height, fit from `start` on; not in Linf."""
    if min(height, width) < 5:
        return False
    tile = height // 5
    start = (height - 5 * tile) // 2
    ends = (start + length // tile * tile <= length for length in (height, width))
    return tile == 1 or all(ends)
