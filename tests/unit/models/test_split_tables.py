"""Widths of split tables add up to what they were."""

from __future__ import annotations

import pytest

from tfmtl.errors import ConfigError
from tfmtl.layers.embedding import id_widths
from tfmtl.models.split_tables import split_tables
from tfmtl.testing.tiny import tiny_spec

FEATURES = tiny_spec(
    more_features=[
        {"name": "when", "kind": "time", "dim": 7},
        {"name": "small", "kind": "categorical", "dim": 3},
        {
            "name": "pages",
            "kind": "sequence",
            "columns": [{"name": "page", "dim": 2}, {"name": "item", "dim": 9}],
        },
        {
            "name": "age",
            "kind": "numeric",
            "transform": "bucketize",
            "buckets": 4,
            "dim": 8,
        },
    ]
).features


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_parts_add_up(tasks: int) -> None:
    split = split_tables(FEATURES, tasks)
    before = {k: dim for k, (dim, _) in id_widths(FEATURES).items()}
    own = {k: dim for k, (dim, _) in id_widths(split.own).items()}
    left = [f for f in FEATURES if f.name in split.not_own]
    shared = {k: d for k, (d, _) in id_widths([*split.shared, *left]).items()}
    assert shared.keys() == before.keys()
    for column, dim in before.items():
        assert shared[column] + tasks * own.get(column, 0) == dim, column
        assert shared[column] >= own.get(column, 0)
    assert {f.name for f in split.own} | {*split.not_own} == {f.name for f in FEATURES}


def test_what_is_too_narrow_or_has_no_table_stays_shared() -> None:
    split = split_tables(FEATURES, 3)
    assert set(split.not_own) == {"price", "text", "small", "pages"}
    own = {k: dim for k, (dim, _) in id_widths(split.own).items()}
    assert own == {
        "user": 1,
        "item": 1,
        "tags": 1,
        "hist_item": 1,
        "when_hour": 1,
        "when_weekday": 1,
        "age": 2,
    }


def test_nothing_to_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 10"):
        split_tables(FEATURES, 9)
