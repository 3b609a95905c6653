"""What computed a model's output last, by its graph: a sigmoid or softmax, a linear layer, or else.

Values alone cannot tell: a few honest logits may lie between 0 and 1 by chance.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias

from torch import Tensor

End: TypeAlias = Literal["probability", "linear", "unknown"]

PROBABILITY = ("Sigmoid", "Softmax", "Hardsigmoid")

LINEAR = (
    *("Addmm", "Mm", "Bmm", "Baddbmm", "Addbmm", "Mv", "Addmv", "Linear", "MkldnnLinear"),
    *("Convolution", "ConvolutionOverrideable", "NativeBatchNorm", "CudnnBatchNorm"),
)

_SAME = (
    *("View", "UnsafeView", "Reshape", "ReshapeAlias", "Squeeze", "Unsqueeze", "Select", "Slice"),
    *("Transpose", "Permute", "T", "Clone", "ToCopy", "Expand", "Alias", "Index", "Copy"),
    *("AsStrided", "Narrow", "Split", "SplitWithSizes", "Unbind"),
    *("UpsampleBilinear2D", "UpsampleNearest2D", "UpsampleTrilinear3D", "UpsampleNearest3D"),
)
"""What neither makes a probability of a logit nor a logit of a probability."""

CUT = ("Clamp", "ClampMin", "ClampMax", "Hardtanh")
"""What leaves a probability one, and may make one of a linear layer's output."""

SUMS = ("Add", "Sub", "Rsub", "Mul", "Div", "Neg", "Sum", "Mean", "Stack", "Cat")

DEEP = 32
"""So many steps back are looked at."""


def end_of(output: Tensor) -> End:
    """What computed an output with a graph last; `"unknown"` without one."""
    return _end(output.grad_fn, DEEP)


def _end(node: Any, left: int) -> End:
    if node is None or left == 0:
        return "unknown"
    name = re.sub(r"Backward\d*$", "", node.name())
    parents = [parent for parent, _ in node.next_functions if parent is not None]
    if name in PROBABILITY:
        return "probability"
    # What gathers gradients is an input or a parameter itself.
    if name in LINEAR or "AccumulateGrad" in name:
        return "linear"
    if name in _SAME:
        return _end(parents[0] if parents else None, left - 1)
    if name in CUT:
        end = _end(parents[0] if parents else None, left - 1)
        return "unknown" if end == "linear" else end
    if name in SUMS:
        parts = {_end(parent, left - 1) for parent in parents}
        # A probability minus a threshold is decided at 0: sums of them are not.
        return "linear" if parts == {"linear"} else "unknown"
    return "unknown"
