"""What comes into an attack: checked once, so that the arithmetic below need not."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import wraps
from numbers import Integral
from typing import Any, Literal, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ima.attacks.entering import (
    Model,
    Network,
    by_sample,
    differentiable,
    explained,
    handed,
    refuse_sample,
    taken_by,
)
from ima.attacks.lockstep import in_step, processes, sharded
from ima.attacks.recurrent import passable
from ima.attacks.statistics import told_apart
from ima.tasks.pixels import precise

Bounds: TypeAlias = tuple[float | Tensor, float | Tensor] | None
"""Lowest and highest value of a sample's entries: two numbers, two tensors that broadcast against
a sample, or None where values have no bounds (z-scored data)."""

ENGINES = ("DeepSpeedEngine", "PipelineEngine", "PipelineModule", "PipelineStage")
"""Classes, by name, whose passes exchange data between processes in an order of their own."""

F = TypeVar("F", bound=Callable[..., Any])

_SLACK = 1e-5
"""Share of the bounds' width by which inputs may lie outside: resizing rounds."""


def check_samples(x: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor] | None:
    """The bounds as tensors on x's device, in float32 where x is shorter, or None.

    x: (B, *dims), floating. Raises TypeError for other dtypes, and ValueError for an empty batch,
    for bounds that are no pair or not in order, and for entries that are not finite or outside.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}; expected a tensor: torch.as_tensor(x)")
    if not x.is_floating_point():
        raise TypeError(
            f"x has dtype {x.dtype}; noise needs floating point: scale it, for example x / 255"
        )
    if x.ndim == 0 or x.numel() == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected at least one sample (B, *dims)")
    # Both are NaN where an entry is: a twentieth of the time of a look at every entry.
    if not bool(torch.isfinite(torch.stack([x.amin(), x.amax()])).all()):
        raise ValueError("x has entries that are NaN or infinite")
    if bounds is None:
        return None
    low, high = _bound_tensors(x, bounds)
    slack = torch.where(torch.isfinite(high - low), _SLACK * (high - low), 0)
    # Samples that were clamped in half precision may lie on the bound as that rounds it.
    lowest = torch.minimum(low - slack, low.to(x.dtype))
    highest = torch.maximum(high + slack, high.to(x.dtype))
    inside = (x >= lowest) & (x <= highest)
    flags = torch.stack([inside.all(), (low < high).all()]).tolist()
    if not flags[1]:
        raise ValueError(f"bounds are {bounds!r}; expected (low, high) with low < high everywhere")
    if not flags[0]:
        raise ValueError(
            f"x has entries from {float(x.min()):.6g} to {float(x.max()):.6g}, outside the bounds "
            f"{bounds!r}; scale x, or pass the bounds that it has (None for z-scored data)"
        )
    return low, high


def _bound_tensors(x: Tensor, bounds: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"bounds are {bounds!r}; expected a pair (low, high), or None")
    low, high = (torch.as_tensor(b, dtype=precise(x), device=x.device) for b in bounds)
    for bound in (low, high):
        try:
            fits = torch.broadcast_shapes(bound.shape, x.shape[1:]) == x.shape[1:]
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"a bound has shape {tuple(bound.shape)}, which does not broadcast against a "
                f"sample of shape {tuple(x.shape[1:])}"
            )
    return low, high


def check_radius(eps: float | Tensor, x: Tensor, name: str = "eps") -> Tensor:
    """`eps` as one radius a sample, (B,), on x's device, in its dtype or float32.

    Raises ValueError unless it is one number or (B,) numbers, none negative and all finite.
    """
    try:
        radius = torch.as_tensor(eps, dtype=precise(x), device=x.device).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} is {eps!r}; expected one number, or one radius for each sample"
        ) from error
    if radius.ndim == 0:
        radius = radius.expand(len(x))
    if radius.shape != (len(x),):
        raise ValueError(
            f"{name} has shape {tuple(radius.shape)}; expected one number, or one for each of the "
            f"{len(x)} samples"
        )
    if not bool(((radius >= 0) & torch.isfinite(radius)).all()):
        raise ValueError(
            f"{name} has entries that are negative or not finite: {radius.tolist()[:8]}"
        )
    return radius


def check_steps(steps: int) -> None:
    """Raise ValueError unless `steps` is a whole number of at least 1."""
    if not isinstance(steps, Integral) or isinstance(steps, bool) or steps < 1:
        raise ValueError(f"steps is {steps!r}; expected a whole number of at least 1")


def inside(model: Any) -> Any:
    """The module inside wrappers: DDP, DataParallel, `torch.compile`, Lightning Fabric.

    Attacks run on it, because a wrapper may synchronise processes in every forward pass.
    """
    while (within := _unwrapped(model)) is not None:
        model = within
    return model


def communicates(model: Any) -> bool:
    """Whether a training pass through the model waits for other processes."""
    while processes() > 1:
        wrapper = model._forward_module if _casts(model) else model
        if isinstance(wrapper, DistributedDataParallel) or sharded(wrapper):
            return True
        if (model := _unwrapped(model)) is None:
            return False
    return False


def _unwrapped(model: Any) -> Any:
    """What one wrapper holds; None for a model without."""
    if isinstance(model, DistributedDataParallel | DataParallel):
        return model.module
    if _casts(model):
        # Parameters that FSDP shards are whole within its own forward only.
        within = model._forward_module
        return within if sharded(within) else model._original_module
    compiled = getattr(model, "_orig_mod", None)
    return compiled if isinstance(compiled, nn.Module) else None


def _casts(model: Any) -> bool:
    return type(model).__name__ == "_FabricModule"


def in_precision(model: Any, module: Any) -> Any:
    """`module`, from inside `model`, in the precision that Fabric's wrapper around it sets."""
    # Fabric's wrapper casts and autocasts in its forward, which the module inside does not see.
    while model is not module and not _casts(model):
        model = _unwrapped(model)
    if model is module:
        return module
    precision = model._strategy.precision

    def forward(x: Tensor) -> Any:
        with precision.forward_context():
            return precision.convert_output(module(precision.convert_input(x)))

    return forward


def _run(model: Any, module: Any) -> Any:
    """`module`, from inside `model`, as attacks call it: in its precision, and differentiable."""
    return passable(module, in_precision(model, module))


def call(model: Any, x: Tensor) -> Any:
    """The model's output at x, (B, *dims), with its graph; x does not change.

    The model gets a copy that it may write to, in a precision that it takes.
    """
    taken = taken_by(inside(model), x)
    with told_apart(model), explained(model, x, taken):
        return by_sample(handed(model, x, taken), len(x))


@contextmanager
def no_trace(model: Model, x: Tensor, mode: Literal["eval", "train"] = "eval") -> Generator[Model]:
    """Within: the module inside `model`, in evaluation mode, with gradients enabled.

    It takes points of any precision, and hands the module a copy of each in the precision that it
    takes; see `as_seen`. What cannot change its mode (a frozen TorchScript module) stays as it is.
    Afterwards, also after an exception: the flag of every module, the global random state and
    autocast's cache are as before. Parameter gradients and running statistics are never touched.
    mode: `"train"` leaves the modules' flags alone, so running statistics do move and samples
    meet in batch statistics; for methods whose published code attacks like that.

    An error of the network says what x lacks, see `explained`; ValueError where it takes x for one
    sample, see `refuse_sample`.

    All processes of a distributed run must enter equally often where FSDP shards the model; see
    `in_step`. Raises ValueError where processes would wait for each other for ever.
    """
    if isinstance(model, Network):
        # Within already: one way in and out for all attacks of a batch.
        yield model
        return
    module = inside(model)
    _refuse(module, mode)
    modules = list(module.modules()) if isinstance(module, nn.Module) else []
    # A frozen TorchScript module has no such flag.
    flags = [(m, m.training) for m in modules if hasattr(m, "training")]
    devices = [x.device] if x.is_cuda else []
    try:
        with (
            torch.random.fork_rng(devices=devices),
            torch.inference_mode(False),
            torch.enable_grad(),
            differentiable(),
            told_apart(module),
        ):
            for m, _ in flags if mode == "eval" else ():
                m.training = False
            # Whether a sharded module takes x is not tried: all processes would have to.
            taken = x.dtype if sharded(module) else taken_by(module, x)
            with (
                in_step(module, _run(model, module), x.to(taken), mode) as run,
                explained(run, x, taken),
            ):
                # To an evaluation's watcher `check_entrance` brings the samples first.
                if mode == "eval" and not hasattr(module, "watched"):
                    refuse_sample(module, run, x, taken)
                yield Network(run, x.dtype, taken)
    finally:
        for m, training in flags:
            m.training = training
        # Weights cast without a graph must not serve the training pass that follows.
        if torch.is_autocast_enabled(x.device.type):
            torch.clear_autocast_cache()


def check_entrance(model: Model, x: Tensor) -> None:
    """Raise ValueError where the network takes x, (B, *dims), for one sample; see `no_trace`."""
    if processes() == 1:
        with no_trace(model, x):
            pass


def _refuse(module: Any, mode: str) -> None:
    """Raise ValueError for a model whose processes would wait for each other in an attack."""
    if processes() == 1:
        return
    engine = next((c.__name__ for c in type(module).__mro__ if c.__name__ in ENGINES), "")
    modules = list(module.modules()) if isinstance(module, nn.Module) else []
    if modules and any(hasattr(p, "ds_id") for p in module.parameters()):
        engine = "DeepSpeed (ZeRO 3)"
    if engine:
        raise ValueError(
            f"the model is in {engine}, whose processes exchange data in every pass, while the "
            "number of an attack's passes depends on its samples; wrap it in "
            "DistributedDataParallel, or shard it with torch's fully_shard"
        )
    if mode == "train" and any(isinstance(m, nn.SyncBatchNorm) and m.training for m in modules):
        raise ValueError(
            "the model has SyncBatchNorm, which in training mode waits for all processes in every "
            "pass, and this attack runs in training mode (variant='released'): how many passes it "
            "makes depends on its samples. Use variant='paper', or plain BatchNorm"
        )


def in_company(function: F) -> F:
    """The function of a model, within which processes may make different numbers of attacks.

    Nothing changes for a model that is not sharded; see `in_step`.
    """

    @wraps(function)
    def joined(model: Model, *args: Any, **options: Any) -> Any:
        module = inside(model)
        with in_step(module, _run(model, module), None):
            return function(model, *args, **options)

    return cast("F", joined)
