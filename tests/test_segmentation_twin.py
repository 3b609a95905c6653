"""Segmentation against a slow twin, nnU-Net's own losses and MONAI's, on small random problems."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nets import seeded
from segmentation_problems import SHAPES, Form, Problem, forms, values_and_gradient
from torch import Tensor
from twins import segmentation_twin as twin

from ima.tasks import Segmentation, take


def same(
    ours: tuple[Tensor, list[Tensor]], theirs: tuple[Tensor, list[Tensor]], tolerance: float
) -> None:
    for one, other in zip([ours[0], *ours[1]], [theirs[0], *theirs[1]], strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(
            one, other, atol=tolerance, rtol=tolerance, check_dtype=False, equal_nan=False
        )


# ---------------------------------------------------------------------------- the twin


@settings(max_examples=150)
@given(forms)
def test_loss_and_gradient_are_the_twins(form: Form) -> None:
    problem = form.make()
    same(
        values_and_gradient(problem.task().loss, problem.output, problem.target),
        values_and_gradient(
            lambda z, y: twin.loss(z, y, **problem.how), problem.output, problem.target
        ),
        1e-9,
    )


@settings(max_examples=150)
@given(forms)
def test_dice_and_decisions_are_the_twins(form: Form) -> None:
    problem = form.make()
    output, target = problem.output, problem.target
    task = problem.task()
    expected = twin.dice_per_class(output, target, **problem.how)
    got = task.dice_per_class(output, target)
    torch.testing.assert_close(
        got, expected, atol=1e-6, rtol=1e-6, check_dtype=False, equal_nan=True
    )
    dices = twin.dice(output, target, **problem.how)
    torch.testing.assert_close(
        task.dice(output, target), dices, atol=1e-6, rtol=1e-6, check_dtype=False
    )
    for threshold in (0.3, 0.6, 0.85):
        # On the threshold itself rounding decides.
        assume(bool(((dices - threshold).abs() > 1e-6).all()))
        decided = problem.task(threshold=threshold).correct(output, target)
        assert decided.dtype == torch.bool
        flags = twin.correct(output, target, threshold=threshold, **problem.how)
        assert torch.equal(decided, flags)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
def test_what_attacks_raise_is_the_full_resolution_alone(regions: bool, ignore: bool) -> None:
    problem = Form(regions=regions, ignore=ignore, scales=3, seed=5).make()
    entropies, dices = (
        torch.stack(part) for part in twin.parts(problem.output, problem.target, **problem.how)
    )
    for walk, expected in (
        ("loss", entropies - dices), ("dice", -dices), ("cross_entropy", entropies)
    ):  # fmt: skip
        got = problem.task(walk=walk).objective(problem.output, problem.target)
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


def test_weights_of_the_scales_may_be_given() -> None:
    problem = Form(scales=3, seed=6).make()
    weights = (0.5, 0.0, 2.0)
    same(
        values_and_gradient(problem.task(weights=weights).loss, problem.output, problem.target),
        values_and_gradient(
            lambda z, y: twin.loss(z, y, weights=weights), problem.output, problem.target
        ),
        1e-9,
    )


@pytest.mark.parametrize("scales", [1, 4])
def test_other_numbers_of_scales(scales: int) -> None:
    problem = Form(dims=1, scales=scales, seed=7).make()
    same(
        values_and_gradient(problem.task().loss, problem.output, problem.target),
        values_and_gradient(twin.loss, problem.output, problem.target),
        1e-9,
    )


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_one_region_makes_a_binary_network(dims: int) -> None:
    problem = Form(dims=dims, channels=1, regions=True, seed=8).make()
    task = problem.task()
    same(
        values_and_gradient(task.loss, problem.output, problem.target),
        values_and_gradient(
            lambda z, y: twin.loss(z, y, regions=True), problem.output, problem.target
        ),
        1e-9,
    )
    assert torch.equal(
        task.correct(problem.output, problem.target),
        twin.correct(problem.output, problem.target, regions=True),
    )


def test_the_divergence_is_the_mean_over_pixels() -> None:
    clean, noisy = (Form(seed=seed).make().output for seed in (1, 2))
    got = Segmentation().divergence(clean, noisy)
    torch.testing.assert_close(got, twin.divergence(clean, noisy), atol=1e-9, rtol=1e-9)


# ---------------------------------------------------------------------------- nnU-Net


def nnunet_loss(problem: Problem, *, memory_efficient: bool) -> Callable[[Any, Any], Tensor]:
    """nnU-Net's own loss, as its trainer builds it, on every sample alone."""
    from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss, SoftDiceLoss

    dice_class = MemoryEfficientSoftDiceLoss if memory_efficient else SoftDiceLoss
    soft = {"batch_dice": False, "smooth": 1e-5, "do_bg": problem.regions, "ddp": False}
    module: Any
    if problem.regions:
        module = DC_and_BCE_loss({}, soft, use_ignore_label=problem.ignore, dice_class=dice_class)
    else:
        module = DC_and_CE_loss(soft, {}, ignore_label=problem.ignore_label, dice_class=dice_class)
    if not isinstance(problem.output, Tensor):
        # The trainer's own lines: halved at every scale, the last one left out, sum 1.
        count = len(problem.output)
        weights = [1 / (2**i) for i in range(count)]
        weights[-1] = 0
        module = DeepSupervisionWrapper(module, [w / sum(weights) for w in weights])
    samples = len(twin.scales(problem.output)[0])

    def each(output: Any, target: Any) -> Tensor:
        alone = [torch.tensor([i]) for i in range(samples)]
        return torch.stack([module(take(output, i), take(target, i)) for i in alone])

    return each


@settings(max_examples=80)
@given(forms, st.booleans())
def test_loss_and_gradient_are_nnunets(form: Form, memory_efficient: bool) -> None:
    # nnU-Net's labels have an axis of their own, and its ones and zeros are floats or bools.
    floats = form.regions and form.dtype is torch.int16
    form = replace(form, channel_axis=True, dtype=torch.bool if floats else torch.float32)
    problem = form.make()
    theirs = nnunet_loss(problem, memory_efficient=memory_efficient)
    # Its sums are in single precision whatever comes in.
    same(
        values_and_gradient(problem.task().loss, problem.output, problem.target),
        values_and_gradient(theirs, problem.output, problem.target),
        2e-6,
    )


# ---------------------------------------------------------------------------- MONAI


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("channels", [2, 3])
def test_loss_and_gradient_are_monais_where_every_class_occurs(dims: int, channels: int) -> None:
    from monai.losses.dice import DiceCELoss

    samples = 4
    shape = SHAPES[dims]
    y = torch.arange(math.prod(shape)) % channels
    order = [torch.randperm(len(y), generator=seeded(i)) for i in range(samples)]
    target = torch.stack([y[o] for o in order]).reshape(samples, 1, *shape)
    z = torch.randn(samples, channels, *shape, generator=seeded(9), dtype=torch.float64)
    monai = DiceCELoss(
        softmax=True, include_background=False, to_onehot_y=True, batch=False, smooth_nr=1e-5,
        smooth_dr=1e-5,
    )  # fmt: skip

    def theirs(output: Tensor, truth: Tensor) -> Tensor:
        # Theirs is one minus Dice, where nnU-Net's is minus Dice.
        rows = [monai(output[i : i + 1], truth[i : i + 1].double()) - 1 for i in range(samples)]
        return torch.stack(rows)

    task = Segmentation()
    same(values_and_gradient(task.loss, z, target), values_and_gradient(theirs, z, target), 1e-9)
