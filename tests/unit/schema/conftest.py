"""A small but complete experiment document that tests bend in one place each."""

from __future__ import annotations

import copy
from typing import Any

import pytest

DOCUMENT: dict[str, Any] = {
    "name": "shop",
    "seed": 7,
    "dataset": {
        "vocabularies": {"item": {"max_size": 100, "min_count": 2}},
        "side_tables": {
            "text": {"path": "text.parquet", "key": "id", "feature": "item_id"}
        },
        "features": [
            {"name": "user_id", "kind": "categorical", "dim": 8, "side": "user"},
            {
                "name": "item_id",
                "kind": "categorical",
                "vocabulary": "item",
                "dim": 8,
                "side": "item",
            },
            {"name": "tags", "kind": "multivalent", "separator": "|", "max_length": 5},
            {
                "name": "history",
                "kind": "sequence",
                "max_length": 20,
                "pooling": "attention",
                "query": "item_id",
                "columns": [
                    {
                        "name": "item",
                        "column": "hist_item",
                        "vocabulary": "item",
                        "dim": 8,
                    },
                    {"name": "age", "column": "hist_age", "boundaries": [1, 24]},
                ],
            },
            {"name": "price", "kind": "numeric", "transform": "log1p"},
            {
                "name": "rank",
                "kind": "numeric",
                "transform": "bucketize",
                "buckets": 10,
            },
            {"name": "when", "kind": "time", "column": "timestamp"},
            {"name": "picture", "kind": "vector", "size": 4},
            {"name": "meaning", "kind": "vector", "size": 3, "table": "text"},
            {
                "name": "user_x_item",
                "kind": "cross",
                "of": ["user_id", "item_id"],
                "buckets": 50,
            },
        ],
        "scenario": {"column": "page", "values": ["home", "search"]},
        "tasks": [
            {"name": "click", "label": "clicked"},
            {"name": "buy", "label": "bought", "given": "click"},
            {
                "name": "stay",
                "label": "seconds",
                "type": "regression",
                "transform": "log1p",
                "observed_when": "clicked == 1",
                "role": "auxiliary",
            },
        ],
        "keys": {"user": "user_id", "group": "request", "timestamp": "timestamp"},
        "split": {"by": "time", "validation": 0.1, "test": 0.2},
    },
    "model": {"class": "MMoE", "config": {"num_experts": 4}},
}


@pytest.fixture
def document() -> dict[str, Any]:
    """A copy that a test may change."""
    return copy.deepcopy(DOCUMENT)
