"""Whether a sample's output depends on the other samples of its batch.

    batch, once more                     # differs: the model draws random numbers
    reversed, a half, a pair, alone      # differs: samples meet
    among all of the real batch          # differs: they meet in larger batches

A few passes over a few samples, spread over the batch, always the same number of passes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ima.attacks.inputs import no_trace
from ima.attacks.statistics import TORCH_SAYS, list_layers, without_statistics
from ima.attacks.walk import forward
from ima.tasks import Tree, full, leaves
from ima.tasks.ends import End, end_of

SIZE = 16
"""So many samples are compared at most."""

_LEAST = 1e-3
"""Share of the largest output by which outputs may differ: float32 rounds far below."""

STEPS, KNOWN = 8, 2
"""The same in steps of a shorter number format; and where modules tell that samples meet."""

TF32 = 2.0**-10
"""The step of the format in which GPUs multiply float32."""


RANDOM = (
    "two passes over the same samples give different outputs: the model draws random numbers "
    "(noise, dropout), or keeps something from pass to pass; every figure is of one draw, and an "
    "attack follows one draw and is judged by another"
)


@dataclass(frozen=True)
class Met:
    """What a comparison found.

    random: two passes over the same batch differ. apart: (n,), by how much each sample's output
    changed with its company, as a share of the largest output; zeros where nothing can be said.
    tolerated: what rounding alone may be. causes: what is known of why, as a phrase. certain: a
    layer takes its statistics from the batch, whatever these samples show. refused: a sample alone
    cannot pass, because a BatchNorm has one value a channel. end: see `End`; output:
    of the whole batch; alike: the samples were all equal, such as empty slices.
    """

    random: bool
    apart: Tensor
    tolerated: float
    causes: str
    certain: bool
    refused: bool
    end: End
    output: Tree
    alike: bool = False

    @property
    def open(self) -> bool:
        """Whether a later batch may tell more: copies tell nothing of company."""
        return self.alike and not self.dependent

    @property
    def dependent(self) -> bool:
        """Whether samples depend on their batch mates."""
        if self.random:
            # Company and chance cannot be told apart; a layer without statistics can.
            return bool(self.causes)
        far = self.tolerated * (KNOWN / STEPS if self.causes else 1)
        return self.certain or self.refused or bool((self.apart > far).any())

    def sentence(self) -> str:
        """The remark; empty where outputs depend on nothing but the sample."""
        if not self.dependent:
            return RANDOM if self.random else ""
        most = float(self.apart.max())
        size = f" (by up to {100 * most:.2g} % of the largest output)" if most else ""
        why = f": {self.causes}" if self.causes else ""
        alone = ", and a sample that is left alone stops the work" if self.refused else ""
        return (
            f"the output of a sample depends on the other samples of its batch{size}{why}; every "
            f"figure depends on the batch size and on which samples meet{alone}"
        )


def meet(model: nn.Module, x: Tensor) -> Met:
    """Compare the outputs of a batch x (n, *dims) in several companies, of at most `SIZE` samples.

    Nothing is known of a batch that does not pass: the work on it says why.
    """
    try:
        return _met(model, x)
    except Exception:  # whatever it is, the work meets it again
        return Met(False, torch.zeros(1), _LEAST, "", False, False, "unknown", None)


def _met(model: nn.Module, x: Tensor) -> Met:
    refused = False
    with no_trace(model, x) as inner, _dtypes() as dtypes:
        # Spread: a volume's first slices are often alike.
        spread = torch.linspace(0, len(x) - 1, min(len(x), SIZE)).round().long()
        batch = x[spread.to(x.device)].detach().clone()
        n = len(batch)
        if n == 1:
            # Company that is no copy: two copies have the statistics of one.
            batch = torch.cat([batch, batch / 2])
        alike = bool((batch == batch[:1]).all())

        def run(part: Tensor) -> Tensor | None:
            nonlocal refused
            try:
                return _flat(forward(inner, part.clone()))
            except ValueError as error:
                refused |= TORCH_SAYS in str(error)
            except (RuntimeError, IndexError, TypeError):
                pass  # A model for one size of batch: that is said where it matters.
            return None

        end = _end(inner, batch)
        whole = forward(inner, batch.clone())
        first, again = _flat(whole), run(batch)
        size = len(batch)
        trials = [
            (run(batch.flip(0)), torch.arange(size - 1, -1, -1)),
            (run(batch[: size // 2]), torch.arange(size // 2)),
            (run(batch[-2:]), torch.arange(size - min(2, size), size)),
            (run(batch[:1]), torch.arange(1)),
        ]
        real = run(x.detach())
        trials.append((None if real is None else real[spread.to(real.device)], torch.arange(n)))
        causes, certain = _causes(model), bool(without_statistics(model))
    largest = float(first.abs().amax()) if bool(torch.isfinite(first).all()) else 0.0
    apart = torch.zeros(size)
    tolerated = max(_LEAST, STEPS * _step(x, model, dtypes))
    if largest == 0:
        return Met(False, apart[:n], tolerated, causes, certain, refused, end, whole, alike)
    for found, index in trials:
        if found is not None and found.shape == (len(index), first.shape[1]):
            far = (found - first[index.to(first.device)]).abs().amax(1) / largest
            apart[index] = torch.maximum(apart[index], far.nan_to_num(nan=1.0).cpu().float())
    random = again is not None and not bool(((first - again).abs() <= tolerated * largest).all())
    return Met(random, apart[:n], tolerated, causes, certain, refused, end, whole, alike)


def _causes(model: nn.Module) -> str:
    """Why samples may meet, as far as modules tell, within evaluation mode and after a pass."""
    said: list[str] = []
    if layers := without_statistics(model):
        said.append(list_layers(layers))
    root = getattr(model, "watched", model)
    modules = [(name, m) for name, m in root.named_modules() if getattr(m, "training", False)]
    if training := [name or type(m).__name__ for name, m in modules]:
        few = ", ".join(f'"{name}"' for name in training[:3])
        said.append(f"{few} put{'s' if len(training) == 1 else ''} itself into training mode")
    return " and ".join(said)


def _end(inner: Callable[[Tensor], Tree], batch: Tensor) -> End:
    output = inner(batch.clone().requires_grad_())
    try:
        return end_of(full(output))
    except TypeError:
        return "unknown"


def _flat(output: Tree) -> Tensor:
    parts = [leaf.flatten(1) if leaf.ndim > 1 else leaf[:, None] for leaf in leaves(output)]
    return torch.cat([part.double() if part.is_cpu else part.float() for part in parts], 1)


@contextmanager
def _dtypes() -> Generator[set[torch.dtype]]:
    """Within: the number formats that modules' outputs have, such as those under autocast."""
    found: set[torch.dtype] = set()

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            found.add(output.dtype)

    hook = nn.modules.module.register_module_forward_hook(look)
    try:
        yield found
    finally:
        hook.remove()


def _step(x: Tensor, model: nn.Module, dtypes: set[torch.dtype]) -> float:
    """The relative step of the coarsest number format that takes part."""
    weights = {p.dtype for p in model.parameters() if p.is_floating_point()}
    found = [torch.finfo(dtype).eps for dtype in {x.dtype, *weights, *dtypes}]
    if x.is_cuda and _tf32():
        found.append(TF32)
    return max(found)


def _tf32() -> bool:
    """Whether a GPU may multiply float32 in TF32."""
    try:
        return bool(torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32)
    except RuntimeError:  # Set by `fp32_precision`, so that these cannot tell.
        return True
