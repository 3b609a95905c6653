"""Tensors, or lists and dicts of them: what models return and targets are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Tree: TypeAlias = Any
"""A tensor, or a list, tuple or dict of trees, whose tensors share their first dimension."""


def tree_map(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """`function` applied to every tensor of a tree; the shape of the tree stays."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {key: tree_map(function, value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        found = [tree_map(function, value) for value in tree]
        return found if isinstance(tree, list) else tuple(found)
    raise TypeError(
        f"expected a tensor, or a list or dict of tensors, but got {type(tree).__name__}; "
        "let the model return one of these"
    )


def take(tree: Tree, index: Tensor) -> Tree:
    """The samples `index` of a tensor, or of every tensor in a list or dict."""
    return tree_map(lambda tensor: tensor[index], tree)


def plain(tree: Tree) -> Tree:
    """The tree's tensors without their subclass: MONAI's MetaTensor slows every operation down."""
    return tree_map(lambda tensor: tensor.as_subclass(Tensor), tree)


def described(output: Any) -> str:
    """What a model returned instead of a tensor, for an error: its type, and the keys of a dict."""
    name = type(output).__name__
    keys = ", ".join(map(str, output)) if isinstance(output, dict) else ""
    return f"{name} with the keys {keys}" if keys else name


def output_map(function: Callable[[Tensor], Tensor], output: Any) -> Tree:
    """`function` applied to every tensor of a model's output; TypeError that says what came."""
    try:
        return tree_map(function, output)
    except TypeError as error:
        raise TypeError(
            f"the model returned {described(output)}; expected a tensor, or a list or dict of "
            "tensors: wrap the model so that it returns one of these"
        ) from error


def targets(tree: Tree) -> Tree:
    """Targets as plain tensors, their unsigned integers (but uint8) in int64.

    Torch can store those kinds and do little else with them. Raises TypeError for what is no
    tensor, nor a list or dict of tensors.
    """
    try:
        return tree_map(_common, tree)
    except TypeError as error:
        raise TypeError(
            f"y is a {type(tree).__name__}; expected a tensor of targets, or a list or dict of "
            "tensors: torch.as_tensor(y)"
        ) from error


def sound(output: Tree) -> bool:
    """Whether an output can be judged: finite, or masked with -inf beside a finite logit."""
    return all(_sound(leaf) for leaf in leaves(output))


def leaves(tree: Tree) -> list[Tensor]:
    """All tensors of a tree, in a fixed order."""
    found: list[Tensor] = []
    tree_map(lambda tensor: found.append(tensor) or tensor, tree)
    return found


def full(tree: Tree) -> Tensor:
    """The tensor itself, or the first of a list: the output or target at full resolution."""
    while isinstance(tree, list | tuple) and tree:
        tree = tree[0]
    if not isinstance(tree, Tensor):
        raise TypeError(
            f"expected a tensor, or a list of tensors with the full resolution first, but got "
            f"{type(tree).__name__}"
        )
    return tree


def _common(target: Tensor) -> Tensor:
    target = target.as_subclass(Tensor)
    return target.long() if target.dtype in _RARE else target


def _sound(leaf: Tensor) -> bool:
    finite = torch.isfinite(leaf)
    if bool(finite.all()):
        return True
    judged = finite | torch.isneginf(leaf)
    return leaf.ndim > 1 and bool(judged.all() & finite.any(1).all())


_RARE = (torch.uint16, torch.uint32, torch.uint64)
