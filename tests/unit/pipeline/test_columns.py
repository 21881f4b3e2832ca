"""Canonical columns against plain Python, value by value."""

from __future__ import annotations

import datetime
import decimal
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import columns
from pipeline.plan import MISSING_TIME
from tfmtl.errors import DataError
from tfmtl.schema.canonical import canonical_string


@pytest.mark.parametrize(
    "values",
    [
        pa.array([5, -3, None, 2**62]),
        pa.array([5.0, 0.1, -0.0, 1e300, 1e-7, math.nan, None, math.inf, 2.0**63]),
        pa.array([0.1, 5.0, 1e-7, None, 16_777_216.0], pa.float32()),
        pa.array([True, False, None]),
        pa.array(["5.0", " x ", "", None, "é"]),
        pa.array([b"raw", None, "é".encode()]),
        pa.array([decimal.Decimal("5.00"), decimal.Decimal("-0.10"), None]),
        pa.array(["a", "b", "a", None]).dictionary_encode(),
        pa.nulls(3),
        pa.array([255, None], pa.uint8()),
    ],
    ids=lambda a: str(a.type),
)
def test_strings_agree_with_the_scalar_rule(values: pa.Array) -> None:
    got, bad = columns.strings(values)
    if pa.types.is_floating(values.type):
        plain = list(values.to_numpy(zero_copy_only=False))
    else:
        plain = values.to_pylist()
    assert got.to_pylist() == [canonical_string(v) for v in plain]
    assert not bad.any()
    sliced, _ = columns.strings(values.slice(1))
    assert sliced.to_pylist() == got.to_pylist()[1:]


@given(st.lists(st.one_of(st.none(), st.floats())))
@settings(max_examples=50, deadline=None)
def test_any_float_agrees(values: list[float | None]) -> None:
    got, _ = columns.strings(pa.array(values, pa.float64()))
    assert got.to_pylist() == [canonical_string(v) for v in values]


def test_invalid_utf8_is_flagged_and_nothing_else() -> None:
    raw = pa.array([b"ok", b"\xff\xfe", None, b"\xc3\xa9"], pa.large_binary())
    got, bad = columns.strings(raw)
    assert bad.tolist() == [False, True, False, False]
    assert got.to_pylist() == ["ok", "", "", "é"]
    text = pa.Array.from_buffers(pa.large_string(), 4, raw.buffers(), 1)
    assert columns.strings(text)[1].tolist() == bad.tolist()


def test_numbers_from_text() -> None:
    text = ["1", " 2.5 ", "", None, "nan", "1e3", "true", "12a", "--", "FALSE"]
    got, bad = columns.numbers(pa.array(text))
    expected = [1, 2.5, *[math.nan] * 3, 1000, 1, *[math.nan] * 2, 0]
    np.testing.assert_array_equal(got, expected)
    assert bad.tolist() == [t in ("12a", "--") for t in text]


@pytest.mark.parametrize(
    ("values", "unit", "target", "expected"),
    [
        (pa.array([10, None, -1]), "s", "us", [10**7, MISSING_TIME, -(10**6)]),
        (pa.array([1.25, math.nan]), "s", "us", [1_250_000, MISSING_TIME]),
        (pa.array([1.75, -0.5]), "s", "s", [1, -1]),
        (pa.array(["7", ""]), "ms", "us", [7000, MISSING_TIME]),
        (pa.array(["1970-01-02", "x"]), "s", "s", [86_400, None]),
        (pa.array(["1970-01-01T00:00:01Z", "5"]), "ms", "us", [10**6, 5000]),
        (
            pa.array([datetime.date(1970, 1, 3), None]),
            "s",
            "s",
            [172_800, MISSING_TIME],
        ),
        (pa.array([1_500, -1], pa.timestamp("ms", "UTC")), "us", "s", [1, -1]),
        (pa.array([math.inf, 1e300, 2.0]), "s", "us", [None, None, 2_000_000]),
        (pa.array([2**62]), "s", "us", [None]),
    ],
)
def test_times(
    values: pa.Array, unit: str, target: str, expected: list[int | None]
) -> None:
    got, bad = columns.times(values, unit, target)
    assert got.dtype == np.int64
    assert bad.tolist() == [e is None for e in expected]
    assert [None if b else int(g) for g, b in zip(got, bad)] == expected


def test_lists_from_lists_and_from_text() -> None:
    for array, separator in (
        (pa.array([["a", "b"], None, [], ["c"]]).slice(0), None),
        (pa.array(["a|b", None, "", "c"]), "|"),
        (pa.array([["x"], ["a", "b"], None, [], ["c"]]).slice(1), None),
    ):
        flat, lengths = columns.lists(array, separator)
        assert flat.to_pylist() == ["a", "b", "c"]
        assert lengths.tolist() == [2, 0, 0, 1]
    with pytest.raises(DataError, match="separator"):
        columns.lists(pa.array(["a|b"]), None)
    with pytest.raises(DataError, match="a list is needed"):
        columns.lists(pa.array([1]), "|")


@given(
    st.lists(st.lists(st.booleans(), max_size=6), max_size=6),
    st.integers(1, 4),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_kept_positions(rows: list[list[bool]], length: int, newest: bool) -> None:
    expected = []
    for row in rows:
        there = [i for i, p in enumerate(row) if p]
        kept = there[-length:] if newest else there[:length]
        expected += [i in kept for i in range(len(row))]
    flat = np.array([p for row in rows for p in row], bool)
    lengths = np.array([len(r) for r in rows], np.int64)
    assert columns.kept_positions(flat, lengths, length, newest).tolist() == expected
