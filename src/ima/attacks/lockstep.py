"""Attacks on a sharded model: every process makes the same passes, whatever its samples need.

before each pass: say which kind it is; the highest that any process says is made by all
    not mine: make it on a sample of my own, look away, ask again
at the end: say "none", and go on like this until all say so

A sharded model (FSDP) gathers its parameters in every forward and backward pass: where one process
makes a pass that another does not, both wait for ever. How many passes an attack makes depends on
its samples. Models that are not sharded are called as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ima.tasks.trees import leaves, tree_map

OnePass: TypeAlias = Callable[[Tensor], Any]

NONE, PLAIN, GRAPH, BACKWARD, FAILED = range(5)
"""What a process needs: no pass, a forward one without or with a graph, a backward one; or that it
came to an error. The highest is what all do."""

ELSEWHERE = (
    "another process stopped with an error within this attack, and a sharded model cannot go on "
    "without it; its own message says why"
)


def processes() -> int:
    """How many processes there are in this distributed run; 1 without one."""
    on = dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if on else 1


def sharded(model: Any) -> bool:
    """Whether parameters of the model, or of a module in it, are sharded by FSDP."""
    # What was never imported has wrapped nothing.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None or not isinstance(model, nn.Module):
        return False
    kinds = (fsdp.FSDPModule, fsdp.FullyShardedDataParallel)
    return any(isinstance(module, kinds) for module in model.modules())


@contextmanager
def in_step(module: Any, run: OnePass, x: Tensor | None, mode: str = "eval") -> Generator[OnePass]:
    """Within: `run`, whose passes all processes make together, where `module` is sharded.

    run: calls the module; x: (B, *dims), the samples of this process, of which there may be none,
    or None where they come within; mode: `"eval"` or `"train"`, also of passes made for others.
    All processes must enter equally often. Leaving waits for those that still need passes; where
    one of them leaves with an error, RuntimeError in all others.
    """
    if processes() == 1 or not sharded(module):
        yield run
        return
    # An evaluation attacks what it watches through: one lockstep for both.
    module = getattr(module, "watched", module)
    known = _OPEN.get(id(module))
    if known is not None:
        known.know(x)
        yield known.pace(run)
        return
    steps = _OPEN[id(module)] = _Lockstep(module, run, x, mode)
    try:
        yield steps.pace(run)
        steps.wait()
    except Exception:
        steps.fail()
        raise
    finally:
        steps.graph = None
        del _OPEN[id(module)]


class _Lockstep:
    """One attack, or several within each other, of this process among all."""

    def __init__(self, module: nn.Module, run: OnePass, x: Tensor | None, mode: str) -> None:
        self.module, self.run = module, run
        # Samples that do not count move no running statistics, nor need company.
        self.still = nn.Module if mode == "eval" else _NormBase
        first = next(module.parameters(), torch.zeros(()))
        # NCCL sends nothing from the CPU, where parameters may lie that FSDP itself moves.
        self.device = torch.device("cuda") if dist.get_backend() == "nccl" else first.device
        self.samples: Tensor | None = None
        self.know(x)
        # Of the last forward pass with a graph: where it began, and where it ended.
        self.graph: tuple[Tensor, list[Tensor]] | None = None
        # Nobody else is where this process is: in the middle of a pass, or after an error.
        self.alone = self.over = False

    def know(self, x: Tensor | None) -> None:
        """Take a sample of x for the passes that others need, where there is none yet."""
        if x is None or self.samples is not None:
            return
        # Tensors of inference mode cannot take part in a backward pass; clones can.
        with torch.inference_mode(False):
            one = x[:1].detach().clone() if len(x) else x.new_zeros((1, *x.shape[1:]))
            # Twice: batch normalisation without running statistics refuses a single one.
            self.samples = torch.cat([one, one])

    def pace(self, run: OnePass) -> OnePass:
        """`run`, in step with the other processes."""

        def forward(x: Tensor) -> Any:
            graph = torch.is_grad_enabled()
            self._agree(GRAPH if graph else PLAIN)
            return self._announced(*self._forward(run, x)) if graph else self._forward(run, x)[1]

        return forward

    def wait(self) -> None:
        """Make the passes that other processes need, until none needs any."""
        self._agree(NONE)

    def fail(self) -> None:
        """Tell the others that this process came to an error."""
        if not self.alone:
            self._ask(FAILED)

    def _agree(self, need: int) -> None:
        """Return when all do what this process needs."""
        while (told := self._ask(need)) != need:
            self._follow(told)

    def _ask(self, need: int) -> int:
        if self.over:
            raise RuntimeError(ELSEWHERE)
        answer = torch.tensor([need, int(self.samples is None)], device=self.device)
        dist.all_reduce(answer, dist.ReduceOp.MAX)
        told, idle = answer.tolist()
        if told == FAILED != need:
            # Whoever catches this must not ask again: nobody would answer.
            self.alone = self.over = True
            raise RuntimeError(ELSEWHERE)
        if idle and NONE < told < FAILED:
            # All of them come to know.
            self.alone = self.over = True
            raise ValueError(
                "one process has no samples at all, while those of another go through a sharded "
                "model, which needs the passes of both; give every process at least one sample"
            )
        return told

    def _follow(self, told: int) -> None:
        if told == BACKWARD:
            self._backward()
            return
        assert self.samples is not None
        devices = [self.samples.device] if self.samples.is_cuda else []
        with (
            evaluating(self.module, self.still),
            torch.random.fork_rng(devices=devices),
            torch.inference_mode(False),
            torch.set_grad_enabled(told == GRAPH),
        ):
            self._forward(self.run, self.samples)

    def _forward(self, run: OnePass, x: Tensor) -> tuple[Tensor, Any]:
        graph = torch.is_grad_enabled()
        # For a backward pass there must be somewhere to go.
        start = x.detach().requires_grad_() if graph and not x.requires_grad else x
        self.graph, self.alone = None, True
        output = run(start)
        self.alone = False
        if graph:
            ends = [end for end in leaves(output) if end.requires_grad]
            self.graph = (start, ends) if ends else None
        return start, output

    def _backward(self) -> None:
        """A backward pass that another process needs, its result unused."""
        if self.graph is None:
            raise RuntimeError(
                "another process makes a second backward pass after one forward pass, which this "
                "one cannot follow; give all processes the same samples"
            )
        start, ends = self.graph
        self.alone = True
        torch.autograd.grad(ends, start, [torch.zeros_like(end) for end in ends], retain_graph=True)
        self.alone = False

    def begin_backward(self) -> None:
        """Wait until all processes make a backward pass; called from within this one's."""
        self._agree(BACKWARD)
        # Its buffers go with this pass.
        self.graph, self.alone = None, True
        torch.autograd.Variable._execution_engine.queue_callback(self._end_backward)

    def _end_backward(self) -> None:
        self.alone = False

    def _announced(self, start: Tensor, output: Any) -> Any:
        """The output, whose backward pass waits until all processes make one."""
        if self.graph is None:
            return output
        flat = leaves(output)
        told = iter(_Announce.apply(self, *flat))
        return tree_map(lambda _: next(told), output)


class _Announce(torch.autograd.Function):
    """The identity; says before a backward pass that there is one."""

    @staticmethod
    def forward(ctx: Any, steps: _Lockstep, *outputs: Tensor) -> tuple[Tensor, ...]:
        ctx.steps = steps
        ctx.mark_non_differentiable(*(o for o in outputs if not o.is_floating_point()))
        return tuple(output.view_as(output) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        ctx.steps.begin_backward()
        return (None, *slopes)


@contextmanager
def evaluating(module: nn.Module, kind: type[nn.Module]) -> Generator[None]:
    """Within: the modules of this kind are in evaluation mode."""
    moved = [m for m in module.modules() if m.training and isinstance(m, kind)]
    try:
        for m in moved:
            m.training = False
        yield
    finally:
        for m in moved:
            m.training = True


_OPEN: dict[int, _Lockstep] = {}
"""The lockstep of every module that is under attack now, by the module's id."""
