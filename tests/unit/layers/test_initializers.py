"""Stacked kernels start as if each stood alone, with seeds by hash."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfmtl._keras import keras
from tfmtl.layers.initializers import NormalRows, StackedInitializer
from tfmtl.layers.seeds import child_seed


@pytest.mark.parametrize("count", [1, 3, 16])
def test_each_slice_has_the_spread_of_a_lone_kernel(count: int) -> None:
    lone = keras.initializers.GlorotUniform(seed=1)([256, 320]).numpy()
    stacked = StackedInitializer(seed=1)([count, 256, 320]).numpy()
    for member in stacked:
        assert abs(member.std() / lone.std() - 1) < 0.03
        assert abs(member.mean()) < 0.002
        assert np.abs(member).max() <= np.sqrt(6 / (256 + 320))


def test_keras_own_initializer_would_fail_that() -> None:
    lone = keras.initializers.GlorotUniform(seed=1)([256, 320]).numpy()
    stacked = keras.initializers.GlorotUniform(seed=1)([16, 256, 320]).numpy()
    assert abs(stacked[0].std() / lone.std() - 1) > 0.5


def test_slices_differ() -> None:
    slices = StackedInitializer(seed=5)([2, 3, 4, 6]).numpy().reshape(-1, 4, 6)
    for a, b in itertools.combinations(slices, 2):
        assert np.abs(a - b).max() > 0


def test_scale_is_a_variance() -> None:
    one = StackedInitializer(seed=2)([1, 300, 300]).numpy()
    two = StackedInitializer(seed=2, scale=2.0)([1, 300, 300]).numpy()
    np.testing.assert_allclose(two, one * np.sqrt(2), rtol=1e-5, atol=1e-7)


def test_repeatable_and_seeded() -> None:
    for kind in (StackedInitializer, NormalRows):
        first = kind(seed=7)([4, 5, 6]).numpy()
        np.testing.assert_array_equal(first, kind(seed=7)([4, 5, 6]))
        assert np.abs(first - kind(seed=8)([4, 5, 6])).max() > 0
        copy = kind.from_config(kind(seed=7).get_config())
        np.testing.assert_array_equal(first, copy([4, 5, 6]))


def test_normal_rows_spread() -> None:
    rows = NormalRows(seed=0, std=0.25)([400, 64]).numpy()
    assert abs(rows.std() - 0.25) < 0.01
    assert abs(rows.mean()) < 0.01


def test_child_seeds_are_distinct_stable_and_31_bit() -> None:
    paths = [("experts", i) for i in range(500)] + [("gates", i) for i in range(500)]
    seeds = [child_seed(s, *p) for s in (0, 1) for p in paths]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**31 for s in seeds)
    # Written down once: a change would silently change every run.
    assert child_seed(0, "experts", 0) == child_seed(0, "experts", "0") == 1396283938


def test_child_seeds_depend_on_the_path_not_on_the_order_of_creation() -> None:
    assert child_seed(1, "a", "b") != child_seed(1, "b", "a")
    assert child_seed(1, "a") == child_seed(1, "a")
