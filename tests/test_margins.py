"""Margins: one number a training sample, found by its id."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ima import Margins


def margins(count: int = 6, initial: float = 0.5, cap: float = 2.0) -> Margins:
    return Margins(count, initial=initial, cap=cap)


def ids(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.long)


def test_margins_start_at_the_initial_value_below_the_cap() -> None:
    assert margins(3).values.tolist() == [0.5] * 3
    assert margins(3).values.dtype == torch.float32
    assert len(margins(3)) == 3
    assert margins(3, initial=5.0).values.tolist() == [2.0] * 3


def test_an_update_changes_the_named_samples_only() -> None:
    e = margins()
    e.update(ids(4, 1), torch.tensor([1.5, 0.25]))
    assert e.values.tolist() == [0.5, 0.25, 0.5, 0.5, 1.5, 0.5]
    assert e[ids(1, 4, 1)].tolist() == [0.25, 1.5, 0.25]


def test_what_is_read_is_a_copy() -> None:
    e = margins()
    e[ids(0, 1)].fill_(9.0)
    e.state_dict()["values"].fill_(9.0)
    assert e.values.tolist() == [0.5] * 6


def test_margins_are_clipped_to_zero_and_the_cap() -> None:
    e = margins()
    e.update(ids(0, 1, 2), torch.tensor([-1.0, 7.0, 1.0]))
    assert e.values.tolist() == [0.0, 2.0, 1.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("proposals", [[1.5, 1.0, 0.75], [0.75, 1.0, 1.5], [1.0, 0.75, 1.5]])
def test_the_smallest_proposal_for_an_id_wins_in_any_order(proposals: list[float]) -> None:
    e = margins()
    e.update(ids(3, 3, 3), torch.tensor(proposals))
    assert e.values.tolist() == [0.5, 0.5, 0.5, 0.75, 0.5, 0.5]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(-1, 3, width=32)), max_size=12),
    st.randoms(use_true_random=False),
)
def test_the_order_of_a_batch_does_not_matter(pairs: list[tuple[int, float]], order: Any) -> None:
    first, second = margins(), margins()
    for e in (first, second):
        e.update(
            torch.tensor([i for i, _ in pairs], dtype=torch.long),
            torch.tensor([p for _, p in pairs], dtype=torch.float32),
        )
        order.shuffle(pairs)
    assert torch.equal(first.values, second.values)
    for i in range(6):
        own = [min(max(p, 0.0), 2.0) for j, p in pairs if i == j]
        assert float(first.values[i]) == (min(own) if own else 0.5)


def test_a_larger_proposal_replaces_a_smaller_margin() -> None:
    e = margins()
    for value in (0.1, 1.0, 0.3):
        e.update(ids(2), torch.tensor([value]))
        assert float(e.values[2]) == pytest.approx(value)


def test_an_update_without_ids_changes_nothing() -> None:
    e = margins()
    e.update(ids(), torch.tensor([]))
    assert e.values.tolist() == [0.5] * 6
    assert e[ids()].shape == (0,)


def test_proposals_lose_their_graph_and_their_precision() -> None:
    e = margins()
    e.update(ids(0), torch.tensor([1.25], dtype=torch.float64, requires_grad=True))
    assert e.values.dtype == torch.float32
    assert not e.values.requires_grad


@pytest.mark.parametrize("count", [0, -1])
def test_there_is_at_least_one_sample(count: int) -> None:
    with pytest.raises(ValueError, match=f"num_samples is {count}"):
        margins(count)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
def test_ids_may_be_integers_of_any_width(dtype: torch.dtype) -> None:
    for numbers in ([3, 0], [3, 0, 1, 1, 0, 2]):
        e = margins()
        e.update(torch.tensor(numbers[:2], dtype=dtype), torch.tensor([1.5, 0.25]))
        expected = {3: 1.5, 0: 0.25}
        got = e[torch.tensor(numbers, dtype=dtype)]
        assert got.tolist() == [expected.get(i, 0.5) for i in numbers]


BAD_IDS = [
    (torch.tensor([0, 6]), ValueError, "id 6 .*0 to 5"),
    (torch.tensor([-1, 0]), ValueError, "id -1 "),
    (torch.tensor([[0, 1]]), ValueError, r"\(1, 2\)"),
    (torch.tensor(1), ValueError, r"\(\)"),
    (torch.tensor([0.0, 1.0]), TypeError, "float32"),
    (torch.tensor([True, False]), TypeError, "bool"),
    ([0, 1], TypeError, "list"),
    (None, TypeError, "NoneType"),
]


@pytest.mark.parametrize(("bad", "error", "text"), BAD_IDS)
def test_ids_that_do_not_fit_are_named(bad: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        margins()[bad]


@pytest.mark.parametrize(("bad", "error", "text"), BAD_IDS)
def test_an_update_names_ids_that_do_not_fit_and_changes_nothing(
    bad: Any, error: type[Exception], text: str
) -> None:
    e = margins()
    with pytest.raises(error, match=text):
        e.update(bad, torch.tensor([1.0, 1.0]))
    assert e.values.tolist() == [0.5] * 6


def test_an_update_needs_one_proposal_for_each_id() -> None:
    e = margins()
    for numbers, proposals in (((0, 1), [1.0]), ((0,), [1.0, 1.5])):
        with pytest.raises(ValueError, match="1"):
            e.update(ids(*numbers), torch.tensor(proposals))
    assert e.values.tolist() == [0.5] * 6


def test_saved_margins_come_back_bit_equal_without_executing_code() -> None:
    e, again = margins(), margins()
    e.update(ids(0, 5), torch.tensor([1 / 3, 1.7]))
    file = io.BytesIO()
    torch.save(e.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again.values, e.values)
    again.update(ids(1), torch.tensor([0.1]))
    assert float(e.values[1]) == 0.5


@pytest.mark.parametrize("count", [5, 7])
def test_margins_of_another_training_set_are_refused(count: int) -> None:
    e = margins()
    with pytest.raises(ValueError, match=f"{count} samples.*has 6"):
        e.load_state_dict(margins(count).state_dict())
    assert e.values.tolist() == [0.5] * 6


def test_loaded_margins_never_exceed_the_cap() -> None:
    e = margins(cap=1.0)
    state = margins(initial=2.0, cap=2.0).state_dict()
    try:
        e.load_state_dict(state)
    except ValueError:
        return
    assert float(e.values.max()) <= 1.0


def test_a_proposal_that_is_not_a_number_never_becomes_a_margin() -> None:
    e = margins()
    try:
        e.update(ids(0, 1), torch.tensor([math.nan, 1.0]))
    except (ValueError, FloatingPointError):
        return
    assert bool(torch.isfinite(e.values).all())
