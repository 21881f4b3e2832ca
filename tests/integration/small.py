"""A small simulated log, the experiment on it, and what the chain made of them."""

from __future__ import annotations

import copy
import dataclasses
import pathlib
from typing import Any

ROWS = 6_000

EXPERIMENT: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "dataset": {
        "keys": {
            "row": "row_id",
            "user": "user_id",
            "group": "request_id",
            "timestamp": "timestamp",
        },
        "split": {"by": "time", "validation": 0.2, "test": 0.2},
        "scenario": {
            "column": "scenario",
            "values": ["feed", "search", "live"],
            "dim": 2,
        },
        "tasks": [
            {"name": "click", "label": "click"},
            {"name": "like", "label": "like", "given": "click"},
            {
                "name": "watch_time",
                "label": "watch_time",
                "type": "regression",
                "observed_when": "click == 1",
                "transform": "log1p",
            },
        ],
        "vocabularies": {"item": {"max_size": 150}},
        "features": [
            {"name": "user_id", "kind": "categorical", "side": "user", "dim": 4},
            {
                "name": "item_id",
                "kind": "categorical",
                "side": "item",
                "vocabulary": "item",
                "dim": 4,
            },
            {"name": "user_city", "kind": "categorical", "side": "user", "dim": 4},
            {"name": "user_interests", "kind": "multivalent", "dim": 4},
            {"name": "item_price", "kind": "numeric", "transform": "log1p"},
            {
                "name": "item_age_days",
                "kind": "numeric",
                "transform": "bucketize",
                "buckets": 5,
                "dim": 4,
            },
            {"name": "item_content", "kind": "vector", "size": 8},
            {
                "name": "shown",
                "kind": "time",
                "column": "timestamp",
                "parts": ["hour", "weekday"],
                "dim": 4,
            },
            {
                "name": "city_item",
                "kind": "cross",
                "of": ["user_city", "item_id"],
                "buckets": 50,
                "dim": 4,
            },
            {
                "name": "hist",
                "kind": "sequence",
                "side": "user",
                "max_length": 5,
                "pooling": "attention",
                "query": "item_id",
                "columns": [
                    {
                        "name": "item",
                        "column": "hist_item",
                        "vocabulary": "item",
                        "dim": 4,
                    },
                    {"name": "action", "column": "hist_action", "dim": 4},
                    {
                        "name": "age",
                        "column": "hist_age_hours",
                        "boundaries": [1, 24, 96],
                        "dim": 4,
                    },
                ],
            },
        ],
    },
    "model": {
        "class": "MMoE",
        "config": {"num_experts": 2, "expert_units": [8], "tower_units": [4]},
    },
    "regularization": {"id_dropout": 0.05, "feature_dropout": 0.05},
    "training": {
        "batch_size": 256,
        "epochs": 2,
        "evaluate_every": 6,
        "checkpoint_every": 3,
        "log_every": 2,
        "shuffle_blocks": 8,
        "patience": None,
        "monitor": "click/auc",
        "deterministic": True,
    },
}
"""Two epochs of 15 steps; a checkpoint every 3 steps, an evaluation every 6. Dropouts
are on, so that a resumed run has random numbers to get right, too."""


@dataclasses.dataclass(frozen=True)
class Chain:
    """The chain's products, made once for all integration tests: read, don't write.

    Attributes:
        root: Folder of everything below.
        experiment: The experiment file.
        logs: Glob of the raw files.
        dataset: The dataset directory.
        run: A finished run, not refitted.
        models: Base directory of the exported model, version 1 in it.
    """

    root: pathlib.Path
    experiment: pathlib.Path
    logs: str
    dataset: pathlib.Path
    run: pathlib.Path
    models: pathlib.Path


def changed(**paths: Any) -> dict[str, Any]:
    """`EXPERIMENT` with values at dotted paths replaced (`__` for the dot)."""
    document = copy.deepcopy(EXPERIMENT)
    for path, value in paths.items():
        *keys, last = path.split("__")
        node: Any = document
        for key in keys:
            node = node[int(key)] if isinstance(node, list) else node[key]
        node[last] = value
    return document
