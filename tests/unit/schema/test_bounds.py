"""Bounds on metrics as text."""

from __future__ import annotations

import pytest

from tfmtl.errors import ConfigError
from tfmtl.schema.bounds import Bound, parse_bound
from tfmtl.tuning import goals


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("like/auc >= 0.75", Bound("like/auc", ">=", 0.75)),
        (" like@a/logloss<=1e-1 ", Bound("like@a/logloss", "<=", 0.1)),
        ("like/auc >= baseline", Bound("like/auc", ">=", 0.0, relative=True)),
        ("like/auc >= baseline - 0.001", Bound("like/auc", ">=", -0.001, True)),
        ("like/auc <= baseline + 2e-3", Bound("like/auc", "<=", 0.002, True)),
        # Numbers with every sign, and scenarios with spaces.
        ("like/auc >= baseline - 1e-3", Bound("like/auc", ">=", -0.001, True)),
        ("like/auc<=baseline+1e+1", Bound("like/auc", "<=", 10.0, True)),
        ("like/auc >= baseline + -0.5", Bound("like/auc", ">=", -0.5, True)),
        ("like/auc >= baseline - -.5", Bound("like/auc", ">=", 0.5, True)),
        ("like/x >= -0.5", Bound("like/x", ">=", -0.5)),
        ("like/x <= +2E+1", Bound("like/x", "<=", 20.0)),
        ("like@new users/auc  >= 0.5", Bound("like@new users/auc", ">=", 0.5)),
        ("like@>=18/auc>=0.5", Bound("like@>=18/auc", ">=", 0.5)),
    ],
)
def test_bounds_are_read_and_written(text, bound):
    found = parse_bound(text, "tuning.constraints")
    assert found == bound
    assert parse_bound(str(found), "again") == bound
    assert goals.parse_bound is parse_bound and goals.Bound is Bound


@pytest.mark.parametrize(
    "text",
    [
        *("", "like/auc", "like/auc = 1", "like/auc >= x", "like/auc >= 1.2.3"),
        *(">= 0.5", "like/auc >= 1e", "like/auc >= 0.5 baseline", "like/auc >= --1"),
        *("like/auc >= baseline 0.1", "like/auc >= baseline - 1-2"),
        "like/auc >= baseline ++1",
    ],
)
def test_what_is_no_bound(text):
    with pytest.raises(ConfigError, match="`x` must be a metric and a bound"):
        parse_bound(text, "x")
    with pytest.raises(ConfigError, match=r"such as .buy/map >= "):
        parse_bound(text, "x", example="buy/map")


def test_a_relative_bound_gets_its_number():
    bound = parse_bound("a/auc >= baseline - 0.1", "x").resolved({"a/auc": 0.7})
    assert bound.value == pytest.approx(0.6) and not bound.relative
    assert bound.violation(0.55) == pytest.approx(0.05) and bound.violation(0.65) == 0
    with pytest.raises(ConfigError, match="has no baseline"):
        parse_bound("a/auc >= baseline", "x").resolved({})
