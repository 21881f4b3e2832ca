"""Moments, quantiles, hashes and block cuts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline import hashing, statistics
from pipeline.sinks import block_cuts
from pipeline.statistics import Moments, Quantiles


def test_moments_merge_to_those_of_the_whole() -> None:
    values = np.random.default_rng(0).normal(1e6, 1.0, 1000)
    parts = [Moments.of(p) for p in np.split(values, [0, 10, 700])]
    merged = statistics.merge_moments(parts)
    assert merged.count == 1000
    assert merged.mean == pytest.approx(values.mean(), rel=1e-12)
    assert merged.std == pytest.approx(values.std(), rel=1e-9)
    # The textbook formula in float32 is off by far more: the tolerance can tell.
    narrow = values.astype(np.float32)
    naive = np.sqrt(abs(np.mean(narrow**2) - np.mean(narrow) ** 2))
    assert abs(naive - values.std()) > 1e-3


def test_quantiles_are_exact_for_few_values() -> None:
    values = np.random.default_rng(0).integers(0, 500, 5000).astype(float)
    merged = Quantiles.merged(Quantiles.of(p) for p in np.split(values, [100, 3000]))
    expected = np.quantile(values, np.arange(1, 10) / 10, method="inverted_cdf")
    assert merged.boundaries(10) == expected.tolist()


def test_quantiles_of_many_values_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SUMMARY_SIZE", 1000)
    values = np.random.default_rng(0).random(50_000)
    merged = Quantiles.merged(Quantiles.of(p) for p in np.split(values, 5))
    assert int(merged.weights.sum()) == 50_000
    ranks = np.searchsorted(np.sort(values), merged.boundaries(4)) / 50_000
    np.testing.assert_allclose(ranks, [0.25, 0.5, 0.75], atol=2e-3)


def test_ties_merge_buckets() -> None:
    quantiles = Quantiles.of(np.array([0.0] * 90 + [1.0] * 5 + [2.0] * 5))
    assert quantiles.boundaries(4) == []
    assert quantiles.boundaries(20) == [1.0]
    assert quantiles.boundaries(50) == [1.0, 2.0]


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["", "a", "aa", "ab", "ba", "b" * 100, None]),
        pa.array([0, 1, -1, None, 2**62]),
        pa.array([0.0, 1.0, 0.5, None, float("nan")]),
        pa.array([[], [1], [1, 2], [2, 1], None, [None]]),
        pa.array([["a", "b"], ["ab"], ["a", None], ["b", "a"]]),
        pa.array([True, False, None]),
    ],
    ids=lambda a: str(a.type),
)
def test_different_values_have_different_hashes(array: pa.Array) -> None:
    hashes = hashing.hash_array(array)
    assert len(set(hashes.tolist())) == len(array)
    assert (hashing.hash_array(array, 1) != hashes).sum() >= len(array) - 1
    assert (hashing.hash_array(array.slice(2)) == hashes[2:]).all()


def test_hashes_of_many_texts_do_not_collide() -> None:
    text = pa.array([f"user-{k % 1000}-{k // 1000}" for k in range(200_000)])
    assert len(np.unique(hashing.hash_array(text))) == 200_000


def test_equal_rows_have_equal_hashes() -> None:
    one = [pa.array([1, 2]), pa.array(["a", "b"])]
    two = [pa.array([1, 2], pa.int32()), pa.array(["a", "b"]).dictionary_encode()]
    assert (hashing.hash_rows(one) == hashing.hash_rows(two)).all()
    assert hashing.hash_rows(one)[0] != hashing.hash_rows(one[::-1])[0]


def test_block_cuts() -> None:
    assert block_cuts(10, 4, None) == [0, 4, 8, 10]
    assert block_cuts(0, 4, None) == [0]
    group = np.repeat([1, 2, 3, 4], [3, 3, 9, 1])
    assert block_cuts(16, 4, group) == [0, 3, 6, 15, 16]
    assert block_cuts(5, 2, np.ones(5)) == [0, 5]
