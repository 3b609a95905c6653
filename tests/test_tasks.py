"""What a model's output means, checked against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nets import seeded
from torch import Tensor

from ima import Classification
from ima.tasks import take

Z = [2.0, 1.0, 0.0, -1.0]
Z_NOISY = [0.5, 1.5, 0.0, -1.0]
LOSS = [0.4401896986, 1.5146749655]
SOFT_MARGIN = [-0.5923940356, 1.2663678998]
MARGIN = [-1.0, 1.0]

y = torch.tensor([0, 0])


def z(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([Z, Z_NOISY], dtype=dtype)


def close(value: Tensor, expected: list[float], tolerance: float = 1e-9) -> None:
    assert value.shape == (len(expected),)
    assert value.tolist() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("walk", ["loss", "margin"])
def test_loss_is_cross_entropy(walk: Any) -> None:
    close(Classification(walk=walk).loss(z(), y), LOSS)


def test_the_objective_is_the_loss_by_default() -> None:
    close(Classification().objective(z(), y), LOSS)


def test_the_objective_may_be_the_soft_margin() -> None:
    close(Classification(walk="margin").objective(z(), y), SOFT_MARGIN)


def test_score_is_minus_the_logit_margin() -> None:
    close(-Classification().score(z(), y), MARGIN)


def test_correct_and_predict_take_the_largest_logit() -> None:
    task = Classification()
    assert task.correct(z(), y).tolist() == [True, False]
    assert task.correct(z(), torch.tensor([1, 1])).tolist() == [False, True]
    assert task.predict(z()).tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
@pytest.mark.parametrize("walk", ["loss", "margin"])
def test_one_logit_equals_the_pair_of_zero_and_it(walk: Any, shape: tuple[int, ...]) -> None:
    task = Classification(walk=walk)
    one = torch.tensor([-3.0, -0.1, 0.1, 2.0, 40.0], dtype=torch.float64)
    pair = torch.stack([torch.zeros_like(one), one], 1)
    for label in (0, 1):
        target = torch.full((5,), label)
        for name in ("loss", "objective", "score", "correct"):
            got = getattr(task, name)(one.reshape(shape), target)
            torch.testing.assert_close(got, getattr(task, name)(pair, target))
        expected = F.binary_cross_entropy_with_logits(one, target.double(), reduction="none")
        torch.testing.assert_close(task.loss(one.reshape(shape), target), expected)
    assert task.predict(one.reshape(shape)).tolist() == [0, 0, 1, 1, 1]
    task.check(one.reshape(shape), torch.tensor([0, 1, 0, 1, 1]))


@pytest.mark.parametrize(
    "output",
    [[[math.nan, 0.0, 0.0]], [[5.0, math.nan, 0.0]], [[5.0, 0.0, math.nan]], [[math.nan] * 3],
     [[math.nan]], [math.nan]],
)  # fmt: skip
@pytest.mark.parametrize("label", [0, 1])
def test_an_output_with_nan_is_never_correct(output: Any, label: int) -> None:
    target = torch.tensor([label])
    assert not Classification().correct(torch.tensor(output), target).any()


def test_a_nan_in_one_sample_leaves_the_others_alone() -> None:
    task = Classification()
    output = torch.cat([z(), torch.full((1, 4), math.nan, dtype=torch.float64)])
    target = torch.tensor([0, 0, 0])
    for name in ("loss", "objective", "score", "correct"):
        torch.testing.assert_close(
            getattr(task, name)(output, target)[:2], getattr(task, name)(output[:2], target[:2])
        )


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=5),
    st.integers(0, 4),
    st.sampled_from(["loss", "margin"]),
)
def test_score_is_positive_where_correct_and_negative_elsewhere(
    logits: list[float], label: int, walk: Any
) -> None:
    task = Classification(walk=walk)
    output, target = torch.tensor([logits]).double(), torch.tensor([label % len(logits)])
    score, right = float(task.score(output, target)), bool(task.correct(output, target))
    if score != 0:
        assert right == (score > 0)
    assert bool(task.loss(output, target) >= 0)
    torch.testing.assert_close(
        Classification().objective(output, target), task.loss(output, target)
    )


@pytest.mark.parametrize("name", ["loss", "objective", "score"])
@pytest.mark.parametrize("walk", ["loss", "margin"])
def test_samples_are_never_coupled(walk: Any, name: str) -> None:
    output = torch.randn(4, 5, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 4, 2, 2])
    values = getattr(Classification(walk=walk), name)(output, target)
    (gradient,) = torch.autograd.grad(values[1], output)
    assert gradient[[0, 2, 3]].eq(0).all()
    assert gradient[1].ne(0).any()


def test_both_walks_go_in_the_same_direction() -> None:
    output = torch.randn(6, 5, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 4, 2, 2, 1, 3])
    slopes = [
        torch.autograd.grad(Classification(walk=walk).objective(output, target).sum(), output)[0]
        for walk in ("loss", "margin")
    ]
    units = [F.normalize(slope, dim=1) for slope in slopes]
    torch.testing.assert_close(*units)


def test_the_margins_gradient_never_fades() -> None:
    output = torch.tensor([[1e4, 0.0, -1.0]], requires_grad=True)
    value = Classification(walk="margin").objective(output, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(value.sum(), output)
    assert float(gradient[0, 0]) == -1.0
    assert float(gradient[0, 1]) > 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_judged_in_float32(dtype: torch.dtype) -> None:
    task = Classification()
    for name, expected in (("loss", LOSS), ("objective", LOSS), ("score", [1.0, -1.0])):
        value = getattr(task, name)(z(dtype), y)
        assert value.dtype == torch.float32
        close(value, expected, 1e-6)


@pytest.mark.parametrize("walk", ["cw", "", None, 1])
def test_an_unknown_walk_is_refused(walk: Any) -> None:
    with pytest.raises(ValueError, match="expected 'loss' or 'margin'"):
        Classification(walk=walk)


@pytest.mark.parametrize(
    ("output", "target", "error", "text"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), ValueError, "label 3 .*3 classes.*0 to 2"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), ValueError, "label -1 "),
        (torch.zeros(2, 1), torch.tensor([0, 2]), ValueError, "label 2 "),
        (torch.zeros(2), torch.tensor([0, 2]), ValueError, "label 2 "),
        (torch.zeros(3, 3), torch.tensor([0, 1]), ValueError, r"\(3, 3\)"),
        (torch.zeros(2, 3, 4), torch.tensor([0, 1]), ValueError, r"\(2, 3, 4\)"),
        (torch.zeros(2, 0), torch.tensor([0, 1]), ValueError, r"\(2, 0\)"),
        (torch.zeros(()), torch.tensor([0]), ValueError, r"\(\)"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), TypeError, "float32"),
        (torch.zeros(2, 3), torch.zeros(2, 3).long(), TypeError, r"\(3,\) a sample"),
        (torch.zeros(2, 3), torch.tensor(1), TypeError, r"\(\)"),
        (torch.zeros(2, 3), [0, 1], TypeError, "list"),
        ([torch.zeros(2, 3)], torch.tensor([0, 1]), TypeError, "list"),
        (None, torch.tensor([0, 1]), TypeError, "NoneType"),
        (torch.zeros(2, 3).long(), torch.tensor([0, 1]), TypeError, "int64"),
    ],
)
def test_outputs_and_targets_that_do_not_fit_are_named(
    output: Any, target: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Classification().check(output, target)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_labels_may_be_integers_of_any_width(dtype: torch.dtype) -> None:
    task, target = Classification(), torch.tensor([0, 0], dtype=dtype)
    task.check(z(), target)
    close(task.loss(z(), target), LOSS)
    close(task.objective(z(), target), LOSS)
    assert task.correct(z(), target).tolist() == [True, False]


def test_narrow_labels_fit_more_classes_than_they_can_count() -> None:
    logits = torch.randn(2, 200, generator=seeded(0))
    for dtype in (torch.int8, torch.uint8):
        Classification().check(logits, torch.tensor([1, 2], dtype=dtype))
        Classification().check(torch.randn(2, 256), torch.tensor([0, 1], dtype=dtype))
    Classification().check(torch.randn(2, 256), torch.tensor([0, 255], dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"label -1 .*0 to 255"):
        Classification().check(torch.randn(2, 256), torch.tensor([0, -1], dtype=torch.int8))


def test_take_selects_samples_of_every_leaf() -> None:
    a, b = torch.arange(4), torch.arange(8).reshape(4, 2)
    index = torch.tensor([2, 0])
    assert take(a, index).tolist() == [2, 0]
    got = take([a, {"b": b, "c": [a]}], index)
    assert got[0].tolist() == [2, 0]
    assert got[1]["b"].tolist() == [[4, 5], [0, 1]]
    assert got[1]["c"][0].tolist() == [2, 0]
    got = take({"x": (a, b)}, torch.tensor([], dtype=torch.long))
    assert [len(leaf) for leaf in got["x"]] == [0, 0]


@pytest.mark.parametrize("tree", [None, "z", 3, {"a": None}, [torch.zeros(1), "b"]])
def test_a_leaf_that_is_no_tensor_is_named(tree: Any) -> None:
    with pytest.raises(TypeError, match=r"NoneType|str|int"):
        take(tree, torch.tensor([0]))
