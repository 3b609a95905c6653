"""Small networks, tasks and data that the tests share; all of them repeatable from a seed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from ima import Classification
from ima.training.layouts import search_weights
from ima.training.weights import opened_weights


def load_weights(path: Path) -> dict[str, Tensor]:
    """The weights of a plain file of any kind, or of a training state, by name."""
    with opened_weights(path) as content:
        found = search_weights(content).tensors
        state = any(name.within == ("model",) for name in found)
        within = ("model",) if state else ()
        return {name.key: t.load() for name, t in found.items() if name.within == within}


def seeded(seed: int) -> Generator:
    """A generator of its own for every draw."""
    return torch.Generator().manual_seed(seed)


def redraw(model: nn.Module, seed: int, scale: float = 1.0) -> nn.Module:
    """All parameters drawn anew, and running statistics that are not those of a fresh network."""
    generator = seeded(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 4
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(scale * draw / math.sqrt(fan_in))
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                assert module.running_mean is not None
                assert module.running_var is not None
                shape = module.running_mean.shape
                module.running_mean.copy_(0.3 * torch.randn(shape, generator=generator))
                module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
                module.weight.copy_(0.5 + torch.rand(shape, generator=generator))
    return model


def balance(model: nn.Module, shape: Sequence[int], head: nn.Linear, seed: int) -> None:
    """Shift and scale the last layer, so that all classes occur and no boundary is far."""
    flags = [(m, m.training) for m in model.modules()]
    model.eval()
    with torch.no_grad():
        z = model(torch.rand(256, *shape, generator=seeded(1000 + seed)))
        spread = z.std(0).clamp_min(1e-3)
        head.bias.copy_((head.bias - z.mean(0)) / spread)
        head.weight.div_(spread[:, None])
    for m, training in flags:
        m.training = training


def mlp(
    shape: Sequence[int],
    outputs: int = 3,
    *,
    seed: int = 0,
    batch_norm: bool = False,
    activation: Callable[[], nn.Module] = nn.Tanh,
) -> nn.Sequential:
    """Two layers on the flattened input, for samples of any rank."""
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), 16),
        *([nn.BatchNorm1d(16)] if batch_norm else []),
        activation(),
        nn.Linear(16, outputs),
    )
    redraw(model, seed, scale=1.5)
    balance(model, shape, model[-1], seed)
    return model


def cnn(
    *,
    seed: int = 0,
    channels: int = 1,
    outputs: int = 3,
    dims: int = 2,
    batch_norm: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Two convolutions in 1, 2 or 3 dimensions, global average and maximum, one linear layer."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[dims - 1]
    model = nn.Sequential(
        conv(channels, 6, 3, padding=1),
        *([norm(6)] if batch_norm else []),
        activation(),
        conv(6, 8, 3, stride=2, padding=1),
        *([norm(8)] if batch_norm else []),
        activation(),
        pool(2),
        nn.Flatten(),
        nn.Linear(8 * 2**dims, outputs),
    )
    redraw(model, seed, scale=1.5)
    balance(model, (channels, *(6,) * dims), model[-1], seed)
    return model


class Recurrent(nn.Module):
    """A recurrent layer over series (B, steps, 4), and a linear one on its last step."""

    def __init__(self, kind: type[nn.RNNBase], outputs: int) -> None:
        super().__init__()
        self.layer = kind(4, 8, 2, batch_first=True, dropout=0.3)
        self.head = nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


def recurrent(kind: type[nn.RNNBase] = nn.LSTM, outputs: int = 3, *, seed: int = 0) -> Recurrent:
    """Two layers with dropout between them."""
    model = Recurrent(kind, outputs)
    redraw(model, seed, scale=1.5)
    balance(model, (6, 4), model.head, seed)
    return model


class Linear2(nn.Module):
    """Two classes, linear in the flattened input, as two logits or as one."""

    def __init__(self, dims: int, *, one_logit: bool = False, seed: int = 0) -> None:
        super().__init__()
        generator = seeded(seed)
        rows = 1 if one_logit else 2
        self.weight = nn.Parameter(torch.randn(rows, dims, generator=generator))
        self.bias = nn.Parameter(torch.randn(rows, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias

    def labels(self, x: Tensor) -> Tensor:
        """What the model says."""
        with torch.no_grad():
            z = self(x)
            return (z[:, 0] > 0).long() if z.shape[1] == 1 else z.argmax(1)

    def distance(self, x: Tensor, dual: float) -> Tensor:
        """To the boundary, in the norm whose dual has order `dual`."""
        with torch.no_grad():
            one = len(self.weight) == 1
            w = self.weight[0] if one else self.weight[1] - self.weight[0]
            b = self.bias[0] if one else self.bias[1] - self.bias[0]
            return (x.flatten(1) @ w + b).abs() / torch.linalg.vector_norm(w, dual)


class Line(nn.Module):
    """f(x) = z + x * (z' - z) for samples (1,): z at the clean x = 0, z' at x = 1.

    With label 0 the loss rises with x, and the boundary to class 1 is at x = 0.5.
    """

    z = (2.0, 1.0, 0.0, -1.0)
    z_noisy = (0.5, 1.5, 0.0, -1.0)

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tensor(self.z, dtype=x.dtype, device=x.device)
        z_noisy = torch.tensor(self.z_noisy, dtype=x.dtype, device=x.device)
        return z + x.reshape(-1, 1) * (z_noisy - z) + self.shift.to(x.dtype)


class Strip(nn.Module):
    """Wrong as 1 for 0.35 < x < 0.65, right on both sides; elsewhere 1 - 0.2 x between the logits.

    The step function has no gradient: the slope leads a walk on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        inside = ((x > 0.35) & (x < 0.65)).to(x.dtype)
        return torch.cat([1 - 2 * inside - 0.1 * x, 0.1 * x], 1) + self.shift.to(x.dtype)


@dataclass(frozen=True)
class Trees:
    """Classification on outputs and targets that are trees: the plain task's, at the first leaf.

    The loss adds the second leaf's, at half its weight, as deep supervision does.
    """

    main: Any = "main"
    aux: Any = "aux"

    @property
    def plain(self) -> Classification:
        return Classification()

    def check(self, output: Any, target: Any) -> None:
        self.plain.check(output[self.main], target[self.main])

    def loss(self, output: Any, target: Any) -> Tensor:
        first = self.plain.loss(output[self.main], target[self.main])
        return first + self.plain.loss(output[self.aux], target[self.aux]) / 2

    def objective(self, output: Any, target: Any) -> Tensor:
        return self.loss(output, target)

    def correct(self, output: Any, target: Any) -> Tensor:
        return self.plain.correct(output[self.main], target[self.main])

    def score(self, output: Any, target: Any) -> Tensor:
        return self.plain.score(output[self.main], target[self.main])

    def predict(self, output: Any) -> Tensor:
        return self.plain.predict(output[self.main])


class Heads(nn.Module):
    """Two heads on one input, as a list, a tuple or a dict."""

    def __init__(self, shape: Sequence[int], kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second = mlp(shape, seed=1), mlp(shape, seed=2)

    def forward(self, x: Tensor) -> Any:
        z, extra = self.first(x), self.second(x)
        if self.kind == "dict":
            return {"main": z, "aux": extra}
        if self.kind == "dict with the decision":
            return {"main": z, "aux": extra, "class": z.argmax(1)}
        return [z, extra] if self.kind == "list" else (z, extra)


@dataclass(frozen=True)
class Pixels:
    """A small segmentation: outputs (B, C, *dims), targets (B, *dims), right above 60 % pixels."""

    def check(self, output: Tensor, target: Tensor) -> None:
        if output.shape[0] != target.shape[0] or output.shape[2:] != target.shape[1:]:
            raise ValueError(f"{tuple(output.shape)} does not fit {tuple(target.shape)}")

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, reduction="none").flatten(1).mean(1)

    def objective(self, output: Tensor, target: Tensor) -> Tensor:
        return self.loss(output, target)

    def correct(self, output: Tensor, target: Tensor) -> Tensor:
        right = (output.argmax(1) == target).flatten(1).float().mean(1) > 0.6
        return right & ~output.flatten(1).isnan().any(1)

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        true = output.softmax(1).gather(1, target[:, None])
        return true.flatten(1).mean(1) - 0.6

    def predict(self, output: Tensor) -> Tensor:
        return output.argmax(1)

    def divergence(self, clean: Tensor, noisy: Tensor, target: Tensor) -> Tensor:
        p, q = clean.log_softmax(1), noisy.log_softmax(1)
        return (p.exp() * (p - q)).sum(1).flatten(1).mean(1)


def two_clouds(
    shape: Sequence[int], classes: int, *, per_class: int = 8, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Samples in [0, 1] around one centre a class, far apart, and their labels."""
    generator = seeded(seed)
    centres = 0.2 + 0.6 * torch.randint(2, (classes, *shape), generator=generator).float()
    flat = centres.flatten(1)
    for c in range(classes):
        # The first entries count in binary, so that no two centres are equal.
        for bit in range(min(4, flat.shape[1])):
            flat[c, bit] = 0.2 + 0.6 * ((c >> bit) & 1)
    y = torch.arange(classes).repeat(per_class)
    noise = 0.05 * torch.randn(len(y), *shape, generator=generator)
    return (centres[y] + noise).clamp(0, 1), y


# ---------------------------------------------------------------------------- odd networks

ODD_SHAPE = (1, 5, 5)


def plain_net() -> nn.Sequential:
    return cnn(seed=3).eval()


class Scaled(nn.Module):
    """Normalises its input, in place or not, and keeps a reference to it."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.net, self.in_place = plain_net(), in_place

    def forward(self, x: Tensor) -> Tensor:
        self.kept = x = x.sub_(0.1).div_(0.25) if self.in_place else (x - 0.1) / 0.25
        return self.net(x)


class Checkpointed(nn.Module):
    """A reentrant checkpoint; nested: with another one inside."""

    def __init__(self, *, nested: bool = False) -> None:
        super().__init__()
        self.net, self.nested = plain_net(), nested

    def inner(self, x: Tensor) -> Tensor:
        part: Any = self.net[1:3]
        return checkpoint(part, x, use_reentrant=True) if self.nested else part(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.net[3:](checkpoint(self.inner, self.net[0](x), use_reentrant=True))


class Masked(nn.Module):
    """Five logits, of which two are masked on purpose, by `value`."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.net, self.value = cnn(seed=4, outputs=5).eval(), value

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.tensor([False, True, False, True, False], device=x.device)
        return self.net(x).masked_fill(mask, self.value)


class Renormalised(nn.Module):
    """The old `weight_norm` or `spectral_norm` on its first layer; or what that computes, fixed."""

    def __init__(self, kind: Callable[..., Any], *, fixed: bool = False) -> None:
        super().__init__()
        self.net = plain_net()
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            kind(self.net[0])
        if fixed:
            self.eval()
            self(torch.zeros(1, *ODD_SHAPE))
            weight, net = self.net[0].weight.detach().clone(), plain_net()
            net[0].weight.data = weight
            self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def _hooked() -> nn.Module:
    net = plain_net()
    net[0].register_forward_hook(lambda _m, _a, out: out + 0.1)
    net.register_forward_pre_hook(lambda _m, args: (args[0] * 0.9,))
    return net


class Hooked(nn.Module):
    """What `_hooked` computes, without hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net[1:](self.net[0](x * 0.9) + 0.1)


@dataclass(frozen=True)
class Odd:
    """A network that a stranger may bring, and a plain one that computes the same.

    trains: whether its training mode computes that too, and its parameters take gradients.
    """

    name: str
    build: Callable[[], nn.Module]
    plain: Callable[[], nn.Module] = plain_net
    trains: bool = True


ODD = {
    row.name: row
    for row in (
        Odd(
            "changes its input in place",
            lambda: Scaled(in_place=True),
            lambda: Scaled(in_place=False),
        ),
        Odd("reentrant checkpoints", Checkpointed),
        Odd("masked logits", lambda: Masked(-math.inf), lambda: Masked(-60.0)),
        Odd("old weight_norm", lambda: Renormalised(nn.utils.weight_norm)),
        Odd(
            "old spectral_norm",
            lambda: Renormalised(nn.utils.spectral_norm),
            lambda: Renormalised(nn.utils.spectral_norm, fixed=True),
            trains=False,
        ),
        Odd("scripted", lambda: torch.jit.script(plain_net())),
        Odd("traced", lambda: torch.jit.trace(plain_net(), torch.rand(2, *ODD_SHAPE))),
        Odd("frozen by jit", lambda: torch.jit.freeze(torch.jit.script(plain_net())), trains=False),
        Odd("in float64", lambda: plain_net().double()),
        Odd(
            "without gradients of parameters",
            lambda: plain_net().requires_grad_(False),
            trains=False,
        ),
        Odd("with hooks", _hooked, Hooked),
        Odd("in channels_last", lambda: plain_net().to(memory_format=torch.channels_last)),
    )
}
