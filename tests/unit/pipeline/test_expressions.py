"""Label expressions against Python's own arithmetic, row by row."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from pipeline.expressions import evaluate
from tfmtl.errors import ConfigError
from tfmtl.schema.expression import parse

COLUMNS = {
    "rating": pa.array([5, 3, None, 4]),
    "play": pa.array([10.0, 0.0, 3.0, math.nan]),
    "length": pa.array([20.0, 0.0, 4.0, 8.0]),
    "tab": pa.array(["1", "4", "", "0"]),
    "flag": pa.array([True, False, True, None]),
    "words": pa.array(["5", "x", "", "2"]),
}
NAN = math.nan


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rating", [5, 3, NAN, 4]),
        ("rating >= 4", [1, 0, NAN, 1]),
        ("not rating >= 4", [0, 1, NAN, 0]),
        ("3 < rating <= 4", [0, 0, NAN, 1]),
        ("play / length", [0.5, NAN, 0.75, NAN]),
        ("play / length > 0.6 and flag", [0, NAN, 1, NAN]),
        ("rating >= 4 or flag", [1, 0, NAN, NAN]),
        ("rating >= 4 and flag", [1, 0, NAN, NAN]),
        ("flag", [1, 0, 1, NAN]),
        ("tab in [0, 1]", [1, 0, NAN, 1]),
        ('tab in ["0", "1"]', [1, 0, NAN, 1]),
        ("tab not in [4]", [1, 0, NAN, 1]),
        ('tab == "4"', [0, 1, NAN, 0]),
        ('"4" != tab', [1, 0, NAN, 1]),
        ("-rating + 2 * length - 1", [34, -4, NAN, 11]),
        ("flag == True", [1, 0, 1, NAN]),
    ],
)
def test_values(text: str, expected: list[float]) -> None:
    got, bad = evaluate(parse(text), COLUMNS, 4)
    np.testing.assert_array_equal(got, expected)
    assert not bad.any()


def test_kleene_logic_would_be_noticed() -> None:
    # Three-valued logic calls `null or true` true; here an unknown stays unknown.
    got, _ = evaluate(parse("rating >= 4 or flag"), COLUMNS, 4)
    assert math.isnan(got[2])


def test_rows_that_do_not_parse_are_flagged() -> None:
    got, bad = evaluate(parse("words > 3"), COLUMNS, 4)
    assert bad.tolist() == [False, True, False, False]
    np.testing.assert_array_equal(got, [1, NAN, NAN, 0])


def test_text_where_a_number_is_needed() -> None:
    with pytest.raises(ConfigError, match="a number here"):
        evaluate(parse('rating + "a"'), COLUMNS, 4)
    with pytest.raises(ConfigError, match="list of constants"):
        evaluate(parse("rating in tab"), COLUMNS, 4)
