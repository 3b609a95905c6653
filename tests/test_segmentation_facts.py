"""What holds for Segmentation whatever the problem, and numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import assume, given, settings
from nets import seeded
from segmentation_problems import IGNORE, Form, forms, values_and_gradient
from torch import Tensor
from twins import segmentation_twin as twin

from ima import TRADES
from ima.tasks import Segmentation, take


@settings(max_examples=50)
@given(forms)
def test_a_sample_does_not_know_its_mates(form: Form) -> None:
    problem = form.make()
    task, output, target = problem.task(), problem.output, problem.target
    functions = [task.loss, task.objective, task.dice, task.dice_per_class, task.score]
    together = [function(output, target) for function in [*functions, task.correct]]
    for i in range(form.samples):
        alone = torch.tensor([i])
        parts = take(output, alone), take(target, alone)
        for function, whole in zip([*functions, task.correct], together, strict=True):
            torch.testing.assert_close(
                function(*parts)[0], whole[i], atol=1e-12, rtol=1e-12, equal_nan=True
            )
        leaves = [z.detach().clone().requires_grad_() for z in twin.scales(output)]
        tree = leaves[0] if isinstance(output, Tensor) else leaves
        task.loss(tree, target)[i].backward()
        others = torch.arange(form.samples) != i
        for leaf in leaves:
            assert leaf.grad is None or not bool(leaf.grad[others].any())


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_sample_breaks_no_other(regions: bool, ignore: bool, value: float) -> None:
    form = Form(regions=regions, ignore=ignore, confidence=6.0, seed=11)
    problem = form.make()
    task = problem.task()
    before = task.loss(problem.output, problem.target)
    decided = task.correct(problem.output, problem.target)
    broken = problem.output.clone()
    broken[1] = value
    after = task.loss(broken, problem.target)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert torch.equal(task.correct(broken, problem.target)[[0, 2]], decided[[0, 2]])
    assert not math.isfinite(float(after[1]))


@pytest.mark.parametrize("foreground", [True, False])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("where", ["everywhere", "one pixel", "one entry", "ignored pixel"])
def test_an_output_that_is_not_a_number_is_never_correct(
    foreground: bool, regions: bool, where: str
) -> None:
    y = torch.zeros(1, 1, 4, 4)
    y[0, 0, :2] = float(foreground)
    # A perfect network: every pixel as it should be, by far.
    output = torch.cat([1 - y, y], 1) * 40 - 20
    target = y
    task = Segmentation(regions=regions, ignore_label=None if regions else IGNORE)
    if regions:
        hidden = torch.zeros(1, 1, 4, 4)
        hidden[0, 0, 3, 3] = 1
        output, target = output[:, 1:], torch.cat([y, hidden], 1)
    else:
        target[0, 0, 3, 3] = IGNORE
    assert bool(task.correct(output, target))
    entry = {"everywhere": ..., "one pixel": (0, slice(None), 1, 1), "one entry": (0, 0, 3, 0)}
    broken = output.clone()
    broken[entry.get(where, (0, slice(None), 3, 3))] = math.nan
    assert not bool(task.correct(broken, target))


@settings(max_examples=100)
@given(forms)
def test_the_sign_of_the_score_is_the_decision_of_a_confident_network(form: Form) -> None:
    problem = form.make()
    output = [2000 * z for z in twin.scales(problem.output)]
    # So that the soft prediction is the hard one, to less than the 0.1 % of empty truths.
    assume(bool((output[0].abs() > 10).all()) if form.regions else bool(gap(output[0]) > 10))
    output = output[0] if isinstance(problem.output, Tensor) else output
    dices = twin.dice(output, problem.target, **problem.how)
    clear = (dices - 0.6).abs() > 0.05
    score = problem.task().score(output, problem.target)
    decided = problem.task().correct(output, problem.target)
    assert torch.equal((score > 0)[clear], decided[clear])


def gap(z: Tensor) -> Tensor:
    """Between the two largest logits of a pixel, at the pixel where it is smallest."""
    first, second = z.topk(2, 1).values.unbind(1)
    return (first - second).min()


def test_a_label_to_ignore_is_no_other_label_that_wraps_around_to_it() -> None:
    z, y = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8)
    y[0, 0, 0] = 255
    with pytest.raises(ValueError, match="targets hold 255"):
        Segmentation(ignore_label=-1).check(z, y)
    Segmentation(ignore_label=255).check(z, y)


@pytest.mark.parametrize("regions", [False, True])
def test_ignored_pixels_do_not_part_two_outputs(regions: bool) -> None:
    z, other = (torch.randn(2, 3, 4, 4, generator=seeded(i)).double() for i in (0, 1))
    hidden = torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[:, 2:] = True
    if regions:
        task = Segmentation(regions=True)
        target = torch.cat([torch.zeros(2, 3, 4, 4), hidden[:, None].float()], 1)
    else:
        task = Segmentation(ignore_label=IGNORE)
        target = torch.where(hidden, IGNORE, 0)
    half = task.divergence(z, other, target)
    torch.testing.assert_close(half, task.divergence(z[:, :, :2], other[:, :, :2]))
    moved = torch.where(hidden[:, None], 9 * other, other)
    torch.testing.assert_close(task.divergence(z, moved, target), half)
    assert bool((task.divergence(z, moved) > half).all())


def test_trades_puts_no_noise_where_pixels_are_ignored() -> None:
    model = torch.nn.Conv2d(1, 2, 1)
    x = torch.rand(2, 1, 4, 4, generator=seeded(2))
    y = torch.zeros(2, 4, 4, dtype=torch.long)
    y[:, 2:] = IGNORE
    method = TRADES(eps=1.0, steps=3, task=Segmentation(ignore_label=IGNORE))
    seen: list[Tensor] = []
    model.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].detach()))
    method(model, x, y, torch.arange(2))
    noise = (seen[-1] - x).abs()
    # The walk starts beside x, by noise of 0.001 on every entry.
    assert float(noise[:, :, 2:].max()) < 0.01 < 0.1 < float(noise[:, :, :2].max())


def test_a_sample_without_any_pixel_is_as_right_as_its_score_and_dice_say() -> None:
    z = torch.randn(2, 3, 4, 4, generator=seeded(1))
    for task, target in (
        (Segmentation(ignore_label=IGNORE), torch.full((2, 4, 4), IGNORE)),
        (Segmentation(regions=True), torch.ones(2, 4, 4, 4)),
    ):
        assert task.dice(z, target).tolist() == [1, 1]
        assert bool((task.score(z, target) > 0).all())
        assert bool(task.correct(z, target).all())


def test_a_class_absent_from_truth_and_prediction_is_left_out() -> None:
    # Of eight pixels: class 1 has two of two, class 2 half of its four, and one too many; 3 none.
    truth = torch.tensor([[1, 1, 2, 2, 2, 2, 0, 0]])
    said = torch.tensor([[1, 1, 2, 2, 0, 0, 2, 0]])
    output = torch.nn.functional.one_hot(said, 4).transpose(1, 2).double() * 9
    per_class = Segmentation().dice_per_class(output, truth)[0]
    assert per_class[:2].tolist() == pytest.approx([1, 4 / 7])
    assert bool(per_class[2].isnan())
    assert float(Segmentation().dice(output, truth)) == pytest.approx((1 + 4 / 7) / 2)
    # Once it is predicted, if only at one pixel, it counts, with 0.
    output[0, :, 7] = torch.tensor([0.0, 0, 0, 9])
    assert float(Segmentation().dice(output, truth)) == pytest.approx((1 + 4 / 7) / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dice_on_the_threshold_is_not_correct(dtype: torch.dtype) -> None:
    truth = torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    said = torch.tensor([[1, 1, 1, 0, 0, 1, 1]])
    output = torch.nn.functional.one_hot(said, 2).transpose(1, 2).to(dtype)
    assert float(Segmentation().dice(output, truth)) == pytest.approx(0.6)
    assert not bool(Segmentation().correct(output, truth))
    assert bool(Segmentation(threshold=0.59).correct(output, truth))


@pytest.mark.parametrize(("pixels", "expected"), [(999, False), (1000, False), (1001, True)])
@pytest.mark.parametrize("regions", [False, True])
def test_without_foreground_next_to_nothing_may_be_predicted(
    pixels: int, expected: bool, regions: bool
) -> None:
    target = torch.zeros(1, 2 if regions else 1, pixels)
    output = torch.zeros(1, 2, pixels) - 5
    if not regions:
        output[:, 0] = 5
    task = Segmentation(regions=regions)
    assert float(task.dice(output, target)) == 1
    assert bool(task.correct(output, target))
    output[0, 1, 7] = 9
    assert float(task.dice(output, target)) == 0
    assert bool(task.correct(output, target)) is expected
    assert bool(twin.correct(output, target, regions=regions)) is expected


@settings(max_examples=30)
@given(forms)
def test_predictions_are_the_twins(form: Form) -> None:
    problem = replace(form, ignore=False).make()
    got = problem.task().predict(problem.output)
    z, y = twin.scales(problem.output)[0], twin.scales(problem.target)[0]
    assert got.dtype == (torch.bool if form.regions else torch.int64)
    for i, sample in enumerate(twin.read(z, y, regions=form.regions, ignore_label=None)):
        flags = torch.tensor([twin.hard(pixel, regions=form.regions) for pixel in sample]).T
        expected = flags if form.regions else flags.long().argmax(0)
        assert torch.equal(got[i].reshape(expected.shape), expected)


@pytest.mark.parametrize("regions", [False, True])
def test_far_logits_have_a_finite_loss_and_gradient(regions: bool) -> None:
    problem = Form(regions=regions, seed=12).make()
    output = (problem.output * 1e4).float()
    got = values_and_gradient(problem.task().loss, output, problem.target)
    expected = values_and_gradient(
        lambda z, y: twin.loss(z, y, **problem.how), output, problem.target
    )
    assert all(bool(torch.isfinite(part).all()) for part in [got[0], *got[1]])
    torch.testing.assert_close(got[0], expected[0], rtol=1e-5, atol=1e-5, check_dtype=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("regions", [False, True])
def test_half_precision_counts_a_whole_slice(dtype: torch.dtype, regions: bool) -> None:
    # 320 x 320 pixels: more than the largest half, and far more than bfloat16 can count.
    y = torch.zeros(1, 1, 320, 320)
    y[..., 30:300] = 1
    output = torch.randn(1, 1 if regions else 2, 320, 320, generator=seeded(2)).to(dtype)
    task = Segmentation(regions=regions)
    got, expected = task.loss(output, y), task.loss(output.double(), y)
    assert float(got) == pytest.approx(float(expected), rel=1e-4)
    assert float(task.dice(output, y)) == pytest.approx(
        float(task.dice(output.double(), y)), abs=1e-6
    )


@pytest.mark.parametrize("margin", [5.0, 18.0, 60.0])
@pytest.mark.parametrize("walk", ["loss", "cross_entropy"])
def test_confident_pixels_keep_all_terms_of_their_gradient(
    margin: float, walk: Literal["loss", "cross_entropy"]
) -> None:
    # log-softmax in float32 loses the true logit's term from a margin of 17 on.
    logits = torch.tensor([margin, 0.0, -3.0]).reshape(1, 3, 1, 1).repeat(1, 1, 4, 4)
    logits.requires_grad_()
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    objective = Segmentation(walk=walk).objective(logits, labels).sum()
    (slope,) = torch.autograd.grad(objective, logits)
    slope = slope[0, :, 0, 0] / slope[0, :, 0, 0].abs().max()
    assert slope[0] == pytest.approx(-1, abs=0.05)
    assert slope.sum() == pytest.approx(0, abs=1e-4)
