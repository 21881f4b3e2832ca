"""Orders of rows and of groups."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.data import order


def seed(number: int) -> tf.Tensor:
    return tf.constant([number, 3], tf.int64)


def of_groups(groups: list[str], number: int = 0) -> list[int]:
    found = order.of_groups(tf.constant(groups, tf.string), seed(number))
    assert found.dtype == tf.int32
    return [int(i) for i in found]


def test_of_rows_is_a_permutation_that_follows_from_the_seed() -> None:
    first, again, other = (
        order.of_rows(1000, seed(n)).numpy().tolist() for n in (1, 1, 2)
    )
    assert sorted(first) == list(range(1000))
    assert first == again != other


def test_groups_keep_their_rows_in_order() -> None:
    groups = ["a", "a", "b", "c", "c", "c", "d"]
    orders = {tuple(of_groups(groups, n)) for n in range(200)}
    legal = {
        tuple(itertools.chain.from_iterable(parts))
        for parts in itertools.permutations([[0, 1], [2], [3, 4, 5], [6]])
    }
    assert orders == legal


def test_rows_without_a_group_are_groups_of_their_own() -> None:
    groups = ["", "", "", "a", "a", ""]
    orders = {tuple(of_groups(groups, n)) for n in range(1500)}
    legal = {
        tuple(itertools.chain.from_iterable(parts))
        for parts in itertools.permutations([[0], [1], [2], [3, 4], [5]])
    }
    assert orders == legal


def test_every_order_of_groups_is_equally_likely() -> None:
    firsts = [of_groups(["a", "a", "a", "b", "c"], n)[0] for n in range(3000)]
    counts = np.unique(firsts, return_counts=True)[1]
    assert counts == pytest.approx([1000] * 3, rel=0.12)


@pytest.mark.parametrize("groups", [[], ["a"], [""]])
def test_the_smallest_pools(groups: list[str]) -> None:
    assert of_groups(groups) == list(range(len(groups)))
