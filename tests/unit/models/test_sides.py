"""What a feature is computed from."""

from __future__ import annotations

from tfmtl.models.sides import (
    features_by_side,
    mixed_crosses,
    pooled_without_items,
)
from tfmtl.testing.tiny import tiny_spec

FEATURES = [
    {"name": "position", "kind": "categorical"},
    {"name": "age", "kind": "categorical", "side": "user"},
    {"name": "a", "kind": "cross", "of": ["user", "item"], "buckets": 4},
    {"name": "b", "kind": "cross", "of": ["user", "age"], "buckets": 4},
    {"name": "c", "kind": "cross", "of": ["user", "position"], "buckets": 4},
    {"name": "image", "kind": "vector", "size": 2, "table": "images"},
    {"name": "taste", "kind": "vector", "size": 2, "table": "tastes", "side": "user"},
    {
        "name": "past",
        "kind": "sequence",
        "side": "user",
        "pooling": "attention",
        "query": "item",
        "columns": [{"name": "item", "vocabulary": "item", "dim": 4}],
    },
    {
        "name": "pages",
        "kind": "sequence",
        "side": "user",
        "pooling": "attention",
        "query": "position",
        "columns": [{"name": "page", "dim": 16}],
    },
]
TABLES = {
    "images": {"path": "a", "key": "k", "feature": "item"},
    "tastes": {"path": "b", "key": "k", "feature": "user"},
}
SPEC = tiny_spec(more_features=FEATURES, side_tables=TABLES)


def test_crosses_and_side_tables_follow_their_parts() -> None:
    assert features_by_side(SPEC, without=["hist"]) == {
        "user": ("user", "age", "b", "taste", "past", "pages"),
        "item": ("item", "tags", "price", "text", "a", "image"),
        "context": ("position", "c"),
    }


def test_mixed_crosses_have_an_item_and_something_else() -> None:
    both = {"name": "d", "kind": "cross", "of": ["item", "brand"], "buckets": 4}
    brand = {"name": "brand", "kind": "categorical", "side": "item"}
    spec = tiny_spec(more_features=[*FEATURES, brand, both], side_tables=TABLES)
    assert mixed_crosses(spec) == ["a"]


def test_only_attention_to_the_item_is_replaced() -> None:
    (past,) = pooled_without_items(SPEC)
    assert (past.name, past.pooling, past.query) == ("past", "mean", None)
