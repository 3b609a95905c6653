"""How a network is called: with a copy that it may write to, in the precision that it takes.

noise is kept in float32 (in float64 where the samples are), whatever the network takes
what enters = x + noise on the network's grid: the next value on the way to x
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
import torch.utils.checkpoint as checkpointing
from torch import Tensor, nn

from ima.attacks.lockstep import processes
from ima.attacks.statistics import TORCH_SAYS
from ima.tasks.trees import leaves, tree_map

LACKS = (
    "samples of shape {0} lack the dimension of channels, which x[:, None] adds to a batch and "
    "x[None] to a sample"
)

Model = Callable[[Tensor], Any]

PRECISIONS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Network:
    """A network as attacks call it: on samples of any precision, of which it sees its own.

    given: the precision of the caller's samples; taken: that of what the network takes; short: that
    of passes for a gradient, by autocast, None where it is the same.
    """

    run: Model
    given: torch.dtype
    taken: torch.dtype
    short: torch.dtype | None = None

    def __call__(self, x: Tensor) -> Any:
        """The output at x, (B, *dims); x stays as it is."""
        shorter = self.short is not None and torch.is_grad_enabled() and x.requires_grad
        with torch.autocast(x.device.type, self.short) if shorter else nullcontext():
            return by_sample(handed(self.run, x.to(self.given), self.taken), len(x))


def taken_by(module: Any, x: Tensor) -> torch.dtype:
    """The precision in which x, (B, *dims), is given to a module: its own, if the module takes it.

    Else that of the weights. A module with weights of x's precision is not tried.
    """
    if not isinstance(module, nn.Module):
        return x.dtype
    found = [p.dtype for p in module.parameters() if p.dtype in PRECISIONS]
    found = found or [b.dtype for b in module.buffers() if b.dtype in PRECISIONS]
    return x.dtype if not found or x.dtype in found or _takes(module, x) else found[0]


def _takes(module: nn.Module, x: Tensor) -> bool:
    flags = [(m, m.training) for m in module.modules() if hasattr(m, "training")]
    try:
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.no_grad():
            for m, _ in flags:
                m.training = False
            module(x[:1].detach().clone())
    except RuntimeError:
        return False
    finally:
        for m, training in flags:
            m.training = training
    return True


def as_seen(model: Model, point: Tensor, x: Tensor) -> Tensor:
    """The points as the network sees them, on its grid and that of the samples; like `point`.

    point, x: (B, *dims), in float32 or float64. An entry becomes the last value of the grid on the
    way to it from x, or x's own where there is none: noise never grows, so that the point stays in
    every ball around x and in bounds that hold x.
    """
    if isinstance(model, Network):
        for dtype in (model.taken, model.given):
            if dtype != point.dtype and torch.promote_types(dtype, point.dtype) == point.dtype:
                point = _towards(point, x, dtype)
    return point


def handed(model: Model, x: Tensor, dtype: torch.dtype) -> Any:
    """The model's output, on x's device, at a copy of x in this precision."""
    # A copy: networks exist that normalise their input in place, and x is a leaf or the user's.
    output = model(x.clone() if x.dtype == dtype else x.to(dtype))
    if isinstance(output, Tensor):
        return output if output.device == x.device else output.to(x.device)
    # What is no tree is named where outputs are checked.
    try:
        away = any(leaf.device != x.device for leaf in leaves(output))
    except TypeError:
        return output
    return tree_map(lambda leaf: leaf.to(x.device), output) if away else output


@contextmanager
def explained(run: Model, x: Tensor, dtype: torch.dtype) -> Generator[None]:
    """Within: an error of a network that takes no batch like x, (B, *dims), says what x lacks.

    Looked at after an error only: no pass is made before.
    """
    try:
        yield
    except Exception as error:  # Whatever a network of a user's raises on what it does not take.
        # Of several processes, others would wait for these passes.
        if processes() > 1 or TORCH_SAYS in str(error) or takes(run, x, dtype):
            raise
        shape, own = tuple(x.shape), tuple(x.shape[1:])
        if takes(run, x[:, None], dtype):
            raise ValueError(
                f"the network takes no batch of shape {shape}: {LACKS.format(own)}"
            ) from error
        # Where memory is short, another class says so; of other errors their own words tell.
        if type(error) is not RuntimeError:
            raise
        raise RuntimeError(f"the network stops at samples of shape {own}: {error}") from error


def refuse_sample(module: Any, run: Model, x: Tensor, dtype: torch.dtype) -> None:
    """Raise ValueError where convolutions take x, (B, *dims), for one sample without a batch.

    Passes are made only where weights are of one dimension more than x.
    """
    weights = module.parameters() if isinstance(module, nn.Module) else ()
    if processes() > 1 or all(weight.ndim != x.ndim + 1 for weight in weights):
        return
    try:
        with torch.no_grad():
            alone, within = (leaves(handed(run, part, dtype))[0] for part in (x, x[None]))
    except Exception:  # What comes after says what the network does not take.
        return
    same = alone.shape == within.shape[1:] and torch.allclose(alone, within[0], equal_nan=True)
    # What takes any leading dimensions takes twice as many samples; as channels they are too many.
    if same and not takes(run, torch.cat([x, x]), dtype):
        raise ValueError(
            f"the network takes a batch of shape {tuple(x.shape)} for one sample without a batch: "
            f"{LACKS.format(tuple(x.shape[1:]))}; a sample without a batch gets one by x[None], "
            "y[None]"
        )


def takes(run: Model, x: Tensor, dtype: torch.dtype) -> bool:
    """Whether a network takes x (n, ...) as a batch of n samples."""
    try:
        # Of layers that doubt what they are given, as this does.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            found = leaves(handed(run, x, dtype))
    except Exception:  # As above.
        return False
    return bool(found) and all(leaf.ndim and len(leaf) == len(x) for leaf in found)


def by_sample(output: Any, n: int) -> Any:
    """The output at n samples, its first dimension n; ValueError where it is another.

    What lacks it for one sample alone, as after `squeeze()`, gets it back. TypeError for tensors
    that are not dense.
    """
    try:
        found = leaves(output)
    except TypeError:
        return output
    for leaf in found:
        if leaf.layout != torch.strided:
            raise TypeError(
                f"the model returned a tensor of layout {leaf.layout}; expected a dense one: "
                "return output.to_dense()"
            )
    if not found or any(leaf.ndim and len(leaf) == n for leaf in found):
        return output
    if n == 1:
        return tree_map(lambda leaf: leaf[None], output)
    raise ValueError(
        f"the model returned shape {tuple(found[0].shape)} for {n} samples; expected the samples "
        f"in the first dimension, ({n}, ...): does it reshape, squeeze or average over the batch, "
        "or take a batch for one sample?"
    )


def _towards(point: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    low, high = torch.minimum(point, x), torch.maximum(point, x)
    near = point.to(dtype)
    # Where the nearest value lies beyond the point: the one before it.
    before = _next(near, up=x > point)
    found = x
    for value in (before.to(point.dtype), near.to(point.dtype)):
        found = torch.where((value >= low) & (value <= high), value, found)
    return found


def _next(values: Tensor, *, up: Tensor) -> Tensor:
    """The neighbours of `values` on their own grid, the higher where `up`, else the lower."""
    # As integers, the values of one sign count up from 0.
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    bits = values.view(kind)
    away = torch.where(up, values > 0, values < 0)
    smallest = torch.where(up, 1, torch.iinfo(kind).min + 1).to(kind)
    return torch.where(values == 0, smallest, torch.where(away, bits + 1, bits - 1)).view(
        values.dtype
    )


def _plain(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
    """In the place of reentrant checkpointing, which refuses `torch.autograd.grad`.

    The same outputs, gradients and savings of memory.
    """
    return checkpointing.checkpoint(
        function, *args, use_reentrant=False, preserve_rng_state=preserve
    )


_LOCK = Lock()
_REENTRANT: Any = checkpointing.CheckpointFunction
_within = 0


@contextmanager
def differentiable() -> Generator[None]:
    """Within: checkpoints do what `torch.autograd.grad` can differentiate, whatever they ask for.

    Reentrant ones would need `backward`, and add to the gradients of parameters.
    """
    global _within
    # Threads may attack at the same time: the last one to leave restores.
    with _LOCK:
        _within += 1
        # Of the class itself: others may have imported it by name.
        _REENTRANT.apply = _plain
    try:
        yield
    finally:
        with _LOCK:
            _within -= 1
            if _within == 0:
                del _REENTRANT.apply
