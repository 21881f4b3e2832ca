"""Lists against loops over them, and the identities of their losses."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.losses.listwise import (
    as_lists,
    drawn_ties,
    has_order,
    has_positive,
    listmle,
    listnet,
    over_lists,
    softmax_of_lists,
)

DRAW = np.random.default_rng(0)
SCORES = DRAW.normal(size=(6, 5)) * 2
RELEVANCE = DRAW.integers(0, 3, (6, 5)).astype(float)
RELEVANCE[:, 0] = 2
MASK = np.arange(5)[None] < np.array([5, 4, 3, 2, 5, 3])[:, None]
TIES = DRAW.random((6, 5))


def _f(values: Any) -> Any:
    return tf.constant(values, tf.float32)


def _mle(s: Any, y: Any, m: Any) -> Any:
    return listmle(s, y, m, _f(TIES)[: s.shape[0], : s.shape[1]])


LOSSES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "softmax": softmax_of_lists,
    "listnet": listnet,
    "listmle": _mle,
}


def _softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def _loop(name: str, g: int) -> float:
    there = MASK[g]
    s, y, ties = SCORES[g][there], RELEVANCE[g][there], TIES[g][there]
    if name == "softmax":
        return float(-(y / y.sum() * np.log(_softmax(s))).sum())
    if name == "listnet":
        return float(-(_softmax(y) * np.log(_softmax(s))).sum())
    order = sorted(range(len(s)), key=lambda i: (-y[i], ties[i]))
    return float(
        sum(np.log(np.exp(s[order[i:]]).sum()) - s[order[i]] for i in range(len(s)))
    )


@pytest.mark.parametrize("name", LOSSES)
def test_equals_a_loop_over_lists(name: str) -> None:
    found = LOSSES[name](_f(SCORES), _f(RELEVANCE), tf.constant(MASK))
    truth = [_loop(name, g) for g in range(6)]
    np.testing.assert_allclose(found, truth, rtol=1e-5)
    unmasked = LOSSES[name](_f(SCORES), _f(RELEVANCE), tf.ones_like(MASK))
    assert not np.allclose(unmasked, truth, rtol=1e-2)


@pytest.mark.parametrize("name", LOSSES)
def test_masked_items_and_a_constant_change_nothing(name: str) -> None:
    s = tf.Variable(SCORES, dtype=tf.float32)
    with tf.GradientTape() as tape:
        plain = LOSSES[name](s, _f(RELEVANCE), tf.constant(MASK))
    gradient = tape.gradient(plain, s).numpy()
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[~MASK], 0)
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-5)
    wild = np.where(MASK, SCORES, 1e4), np.where(MASK, RELEVANCE, 50)
    other = LOSSES[name](_f(wild[0]), _f(wild[1]), tf.constant(MASK))
    np.testing.assert_allclose(other, plain, rtol=1e-5)
    moved = LOSSES[name](_f(SCORES + 7), _f(RELEVANCE), tf.constant(MASK))
    np.testing.assert_allclose(moved, plain, rtol=1e-4)
    assert not np.allclose(
        LOSSES[name](_f(SCORES * 2), _f(RELEVANCE), tf.constant(MASK)), plain
    )


def test_listmle_of_two_is_bpr() -> None:
    s = _f([[0.3, -1.2], [0.3, -1.2]])
    found = listmle(s, _f([[1, 0], [0, 1]]), tf.ones([2, 2], tf.bool), tf.zeros([2, 2]))
    truth = np.logaddexp(0, [-1.5, 1.5])
    np.testing.assert_allclose(found, truth, rtol=1e-5)
    assert not np.isclose(found[0], found[1])


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_probabilities_of_all_orders_add_up_to_1(n: int) -> None:
    orders = np.array(list(itertools.permutations(range(n))))
    scores = np.repeat(SCORES[:1, :n], len(orders), axis=0)
    zeros = tf.zeros(orders.shape)
    found = listmle(_f(scores), _f(orders), tf.ones(orders.shape, tf.bool), zeros)
    np.testing.assert_allclose(np.exp(-found.numpy()).sum(), 1, rtol=1e-5)


def test_listnet_is_least_at_the_labels_where_it_is_their_entropy() -> None:
    y, mask = RELEVANCE[:1], np.ones((1, 5), bool)
    for t in (1.0, 0.5):
        p = _softmax(y[0] / t)
        entropy = -(p * np.log(p)).sum()
        s = tf.Variable(y / t + 3, dtype=tf.float32)
        with tf.GradientTape() as tape:
            found = listnet(s, _f(y), tf.constant(mask), t)
        np.testing.assert_allclose(found, [entropy], rtol=1e-5)
        np.testing.assert_allclose(tape.gradient(found, s), 0, atol=1e-6)
        other = listnet(_f(SCORES[:1]), _f(y), tf.constant(mask), t)
        assert float(other[0]) > entropy


def test_lists_without_use_or_of_one_row_weigh_nothing() -> None:
    relevance = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]])
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    weights = np.array([[9, 9, 9], [1, 3, 9], [9, 9, 9], [9, 9, 9]])
    losses = _f([10.0, 2.0, 20.0, 40.0])
    for use in (has_positive, has_order):
        used = use(_f(relevance), tf.constant(mask))
        sums = over_lists(losses, used, _f(weights), tf.constant(mask))
        assert [float(v) for v in sums] == [4.0, 1.0, 2.0]
    zeros = softmax_of_lists(_f(SCORES[:4, :3]), _f(relevance), tf.constant(mask))
    assert float(zeros[0]) == float(zeros[3]) == 0


def test_an_order_needs_two_labels_and_no_positive() -> None:
    relevance = _f([[-2, -1, 9], [0, -3, 9], [1, 1, 0], [0, 0, 9], [0, 1, 9]])
    mask = tf.constant([[True, True, False]] * 5)
    found = has_order(relevance, mask).numpy()
    np.testing.assert_array_equal(found, [True, True, False, False, True])
    found = has_positive(relevance, mask).numpy()
    np.testing.assert_array_equal(found, [False, False, True, False, True])
    nothing = tf.zeros([2, 0])
    assert not has_order(nothing, tf.zeros([2, 0], tf.bool)).numpy().any()


def test_rows_become_lists_in_the_order_of_the_batch() -> None:
    members = tf.constant([4, 7, 4, 4, 1, 7, 1])
    there = tf.constant([True, True, True, False, True, True, False])
    lists = as_lists(members, there)
    rows = [[int(r) for r, m in zip(row, mask) if m] for row, mask in zip(*lists)]
    assert sorted(rows) == [[0, 2], [1, 5], [4]]
    values = lists.of(tf.range(7.0) + 1).numpy()
    assert sorted(values[values > 0]) == [1, 2, 3, 5, 6]
    assert as_lists(members, tf.zeros([7], tf.bool)).row.shape[0] == 0


def test_no_list_at_all_is_0_with_a_gradient_of_0() -> None:
    lists = as_lists(tf.constant([1, 1]), tf.zeros([2], tf.bool))
    for loss in (softmax_of_lists, listnet, _mle):
        s = tf.Variable([1.0, 2.0])
        with tf.GradientTape() as tape:
            scores = lists.of(s)
            found = loss(scores, scores, lists.mask)
            used = has_order(scores, lists.mask)
            sums = over_lists(found, used, scores, lists.mask)
        assert [float(v) for v in sums] == [0, 0, 0]
        gradient = tf.convert_to_tensor(tape.gradient(sums.total, s))
        np.testing.assert_array_equal(gradient, 0)


def test_ties_are_drawn_by_the_place_alone() -> None:
    first, again = drawn_ties(1000).numpy(), drawn_ties(1000).numpy()
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.1
