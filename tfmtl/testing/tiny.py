"""A tiny data set with every kind of feature, for tests of models and balancers."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.manifest import DatasetManifest, RecordColumn
from tfmtl.testing.records import write_records

SCENARIOS = ("feed", "search", "live")

DATASET: dict[str, Any] = {
    "vocabularies": {"item": {}},
    "features": [
        {"name": "user", "kind": "categorical", "dim": 4, "side": "user"},
        {
            "name": "item",
            "kind": "categorical",
            "vocabulary": "item",
            "dim": 4,
            "side": "item",
        },
        {
            "name": "tags",
            "kind": "multivalent",
            "dim": 4,
            "max_length": 3,
            "side": "item",
        },
        {
            "name": "hist",
            "kind": "sequence",
            "max_length": 5,
            "side": "user",
            "columns": [
                {"name": "item", "vocabulary": "item", "dim": 4},
                {"name": "age", "boundaries": [1.0, 10.0], "dim": 2},
            ],
        },
        {"name": "price", "kind": "numeric", "side": "item"},
        {"name": "text", "kind": "vector", "size": 3, "project": 2, "side": "item"},
    ],
    "scenario": {"column": "page", "values": SCENARIOS, "dim": 3},
    "tasks": [
        {"name": "click", "label": "click"},
        {"name": "like", "label": "like"},
        {"name": "buy", "label": "buy", "given": "click"},
    ],
    "keys": {"row": "row", "user": "user_id", "group": "request"},
    "split": {"by": "hash", "column": "row"},
}

POSITION: dict[str, Any] = {"name": "position", "kind": "categorical", "dim": 4}
"""A feature for models that need a position; not among the tiny data set's own."""

TIMED_KEYS: dict[str, Any] = {**DATASET["keys"], "timestamp": "time"}
"""Keys for models that need a user's order of time; the tiny data set has no time."""

CROSS: dict[str, Any] = {
    "name": "user_item",
    "kind": "cross",
    "of": ["user", "item"],
    "buckets": 16,
    "dim": 4,
}
"""A feature for models that need a cross; not among the tiny data set's own."""

COLUMNS = (
    RecordColumn(name="user", dtype="int", rows=12, vocabulary="user"),
    RecordColumn(name="item", dtype="int", rows=22, vocabulary="item"),
    RecordColumn(
        name="tags", dtype="int", shape="ragged", size=3, rows=8, vocabulary="tags"
    ),
    RecordColumn(
        name="hist_item",
        dtype="int",
        shape="ragged",
        size=5,
        rows=22,
        vocabulary="item",
    ),
    RecordColumn(name="hist_age", dtype="int", shape="ragged", size=5, rows=4),
    RecordColumn(name="price", dtype="float"),
    RecordColumn(name="price_missing", dtype="float"),
    RecordColumn(name="text", dtype="float", shape="vector", size=3),
    RecordColumn(name="position", dtype="int", rows=8, vocabulary="position"),
    RecordColumn(name="user_item", dtype="int", rows=17),
    RecordColumn(name="scenario", dtype="int"),
    RecordColumn(name="label/click", dtype="float"),
    RecordColumn(name="label/like", dtype="float"),
    RecordColumn(name="label/buy", dtype="float"),
    RecordColumn(name="key/row", dtype="bytes"),
    RecordColumn(name="key/user", dtype="bytes"),
    RecordColumn(name="key/group", dtype="bytes"),
)


def tiny_spec(**changes: Any) -> DatasetSpec:
    """The tiny data specification, with parts replaced.

    Args:
        **changes: Replaces parts; `more_features` is appended to its features.
    """
    more = changes.pop("more_features", [])
    document = {**DATASET, **changes}
    document["features"] = [*document["features"], *more]
    return DatasetSpec.model_validate(document)


def tiny_columns(rows: int, seed: int = 0) -> dict[str, Any]:
    """Random transformed columns; clicks follow the user, the item and the price."""
    draw = np.random.default_rng(seed)
    user, item = draw.integers(1, 12, rows), draw.integers(1, 22, rows)
    lengths = draw.integers(0, 6, rows)
    price = draw.normal(size=rows)
    logit = 0.8 * price + np.sin(user) + np.cos(3 * item) * (1 + (user % 3)) - 0.5
    click = (draw.random(rows) < 1 / (1 + np.exp(-logit))).astype(float)
    like = (draw.random(rows) < 0.2 + 0.5 * (item % 2)).astype(float)
    like[draw.random(rows) < 0.2] = np.nan
    columns = {
        "user": user,
        "item": item,
        "tags": [draw.integers(1, 8, n) for n in draw.integers(0, 4, rows)],
        "hist_item": [draw.integers(1, 22, n) for n in lengths],
        "hist_age": [draw.integers(0, 4, n) for n in lengths],
        "price": price,
        "price_missing": (draw.random(rows) < 0.1).astype(float),
        "text": draw.normal(size=(rows, 3)),
        "scenario": draw.choice(4, rows, p=[0.6, 0.25, 0.1, 0.05]),
        "label/click": click,
        "label/like": like,
        "label/buy": click * (draw.random(rows) < 0.3),
        "key/row": [f"r{i}".encode() for i in range(rows)],
        "key/user": [f"u{u}".encode() for u in user],
        "key/group": [f"g{i // 4}".encode() for i in range(rows)],
    }
    columns["position"] = draw.integers(0, 8, rows)
    columns["user_item"] = 1 + (user * 22 + item) % 16
    # Two rows of a request were shown together.
    columns["key/timestamp"] = [2_000_000 * (i // 2) for i in range(rows)]
    return columns


def tiny_dataset(
    directory: pathlib.Path,
    rows: dict[str, int] | None = None,
    seed: int = 0,
    spec: DatasetSpec | None = None,
    **options: Any,
) -> DatasetManifest:
    """Writes the tiny data set.

    Args:
        directory: The dataset directory.
        rows: Split to rows.
        seed: Of the data.
        spec: The data specification; `tiny_spec()` where None.
        **options: Of `write_records`.
    """
    rows = rows or {"train": 300, "validation": 100, "test": 100}
    splits = {s: tiny_columns(n, seed + i) for i, (s, n) in enumerate(rows.items())}
    spec = spec or tiny_spec()
    columns: tuple[RecordColumn, ...] = COLUMNS
    if spec.keys.timestamp is not None:
        columns = (*columns, RecordColumn(name="key/timestamp", dtype="int"))
    return write_records(directory, spec, columns, splits, **options)
