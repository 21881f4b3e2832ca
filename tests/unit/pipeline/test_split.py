"""Splits: fractions, ties, gaps, hashes and given columns."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import plan, split
from tfmtl.errors import DataError
from tfmtl.schema.dataset import DatasetSpec


def dataset(rule: dict[str, Any], unit: str = "s") -> DatasetSpec:
    """A data specification with this split."""
    return DatasetSpec.model_validate(
        {
            "features": [{"name": "x", "kind": "numeric"}],
            "tasks": [{"name": "y", "label": "y"}],
            "keys": {"timestamp": "t", "timestamp_unit": unit},
            "split": rule,
        }
    )


def assign(rule: dict[str, Any], seconds: np.ndarray) -> np.ndarray:
    """Codes of rows with these times."""
    times = seconds * 1_000_000
    distinct, counts = np.unique(times, return_counts=True)
    found = split.time_rule(dataset(rule), distinct, counts)
    assert found is not None
    return found.assign(times)


def test_time_fractions() -> None:
    codes = assign({"by": "time", "validation": 0.2, "test": 0.1}, np.arange(1000))
    assert np.bincount(codes).tolist() == [700, 200, 100]
    assert (np.diff(codes) >= 0).all()


def test_rows_of_one_time_stay_together() -> None:
    seconds = np.repeat([1, 2, 3, 4], [50, 34, 6, 10])
    codes = assign({"by": "time", "validation": 0.1, "test": 0.1}, seconds)
    assert {t: set(codes[seconds == t]) for t in (1, 2, 3, 4)} == {
        1: {0},
        2: {0},
        3: {1},
        4: {2},
    }


def test_gap_is_dropped_before_each_boundary() -> None:
    rule = {"by": "time", "validation": 0.2, "test": 0.2, "gap": 5}
    codes = assign(rule, np.arange(100))
    assert np.flatnonzero(codes == plan.DROPPED).tolist() == [
        *range(55, 60),
        *range(75, 80),
    ]
    rule = {"by": "boundaries", "validation_from": 10, "test_from": 20, "end": 30}
    codes = assign(rule | {"gap": 2}, np.arange(40))
    assert np.bincount(codes).tolist() == [8, 8, 10, 14]


def test_a_gap_wider_than_validation_reaches_into_train() -> None:
    rule = {"by": "boundaries", "validation_from": 10, "test_from": 12, "gap": 4}
    codes = assign(rule, np.arange(20))
    assert codes.tolist() == [0] * 6 + [3] * 6 + [2] * 8


def test_too_few_times() -> None:
    with pytest.raises(DataError, match="3 distinct timestamps"):
        assign({"by": "time"}, np.array([1, 1, 2]))


def hashed(salt: str = "", rows: int = 100_000) -> np.ndarray:
    """Codes by a hash of the numbers 0, 1, 2 ..."""
    rule = {"by": "hash", "column": "k", "validation": 0.1, "test": 0.2, "salt": salt}
    codes, bad = split.by_column(dataset(rule), {"k": pa.array(np.arange(rows))}, rows)
    assert not bad.any()
    return codes


def test_hash_is_even_and_salted() -> None:
    codes = hashed()
    shares = np.bincount(codes) / len(codes)
    # Five standard deviations of a binomial share.
    np.testing.assert_allclose(
        shares, [0.7, 0.1, 0.2], atol=5 * 0.46 / len(codes) ** 0.5
    )
    other = hashed("again")
    agree = np.mean(codes == other)
    assert agree == pytest.approx(0.7**2 + 0.1**2 + 0.2**2, abs=0.02)


def test_hash_is_the_same_in_another_process_and_for_text() -> None:
    code = (
        "import pyarrow as pa; from pipeline import hashing;"
        "print(hashing.hash_array(pa.array(['a', 'bb', '', 'é'])).tolist())"
    )
    from pipeline import hashing

    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    here = hashing.hash_array(pa.array(["x", "a", "bb", "", "é"]).slice(1)).tolist()
    assert out.stdout.decode().strip() == str(here)
    rule = {"by": "hash", "column": "k", "validation": 0.1, "test": 0.2}
    text = pa.array([str(k) for k in range(1000)])
    codes, _ = split.by_column(dataset(rule), {"k": text}, 1000)
    assert (codes == hashed(rows=1000)).all()


@pytest.mark.parametrize("missing", [None, ""])
def test_rows_without_a_value_to_hash_go_each_its_own_way(missing: str | None) -> None:
    rule = {"by": "hash", "column": "k", "validation": 0.1, "test": 0.2}
    rows = 20_000
    keys = pa.array(["a", *[missing] * (rows - 1)], pa.string())
    raw = {"k": keys, "x": pa.array(np.arange(rows) // 2)}
    codes, bad = split.by_column(dataset(rule), raw, rows)
    assert not bad.any()
    shares = np.bincount(codes) / rows
    # Five standard deviations of a binomial share of pairs.
    atol = 5 * 0.46 / (rows / 2) ** 0.5
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=atol)
    # Rows that are equal stay together, wherever they stand.
    assert (codes[2::2] == codes[3::2]).all()
    turned = {n: a.take(pa.array(np.arange(rows)[::-1])) for n, a in raw.items()}
    other, _ = split.by_column(dataset(rule), turned, rows)
    assert (other[::-1] == codes).all()
    # Rows with a value go where they went without the others.
    alone, _ = split.by_column(
        dataset(rule), {n: a.slice(0, 1) for n, a in raw.items()}, 1
    )
    assert alone[0] == codes[0]


def test_given() -> None:
    rule = {"by": "given", "column": "k", "train": ["a", "b"], "test": ["c"]}
    values = pa.array(["a", "c", "validation", "b", "other", None])
    codes, bad = split.by_column(dataset(rule), {"k": values}, 6)
    assert codes[:4].tolist() == [0, 2, 1, 0]
    assert bad.tolist() == [False] * 4 + [True] * 2
