"""A small log with every kind of feature, and its preprocessed dataset."""

from __future__ import annotations

import copy
import dataclasses
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import parse_experiment
from tfmtl.schema.manifest import DatasetManifest

ROWS = 3_000
BLOCK_ROWS = 256

DATASET: dict[str, Any] = {
    "vocabularies": {
        "item": {"max_size": 150, "oov_buckets": 3},
        "tag": {"min_count": 2},
        "hashed": {"hash_buckets": 17},
    },
    "side_tables": {
        "text": {"path": "text.parquet", "key": "id", "feature": "item_id"}
    },
    "features": [
        {"name": "user_id", "kind": "categorical", "side": "user"},
        {"name": "item_id", "kind": "categorical", "vocabulary": "item"},
        {"name": "device", "kind": "categorical", "vocabulary": "hashed"},
        {
            "name": "tags",
            "kind": "multivalent",
            "vocabulary": "tag",
            "max_length": 3,
            "separator": "|",
        },
        {
            "name": "history",
            "kind": "sequence",
            "max_length": 4,
            "columns": [
                {"name": "items", "column": "past_items", "vocabulary": "item"},
                {
                    "name": "ages",
                    "column": "past_ages",
                    "boundaries": [1.0, 10.0, 100.0],
                },
            ],
        },
        {"name": "plain", "kind": "numeric", "transform": "none", "column": "price"},
        {"name": "price", "kind": "numeric", "transform": "zscore"},
        {"name": "views", "kind": "numeric", "transform": "log1p"},
        {
            "name": "rank",
            "kind": "numeric",
            "transform": "bucketize",
            "buckets": 5,
            "column": "views",
        },
        {
            "name": "level",
            "kind": "numeric",
            "transform": "bucketize",
            "boundaries": [0.0, 5.0],
            "column": "price",
        },
        {"name": "when", "kind": "time", "column": "time", "utc_offset_hours": 8},
        {"name": "embedding", "kind": "vector", "size": 3},
        {
            "name": "text_vector",
            "kind": "vector",
            "size": 2,
            "table": "text",
            "column": "vector",
        },
        {
            "name": "user_device",
            "kind": "cross",
            "of": ["user_id", "device"],
            "buckets": 50,
        },
    ],
    "scenario": {"column": "tab", "values": ["0", "1"]},
    "tasks": [
        {"name": "click", "label": "clicked"},
        {"name": "good", "label": "rating >= 4", "weight": "importance"},
        {
            "name": "buy",
            "label": "bought",
            "given": "click",
            "observed_when": "tab in [0, 1]",
        },
        {"name": "watch", "label": "seconds / 60", "type": "regression"},
    ],
    "keys": {"row": "row", "user": "user_id", "group": "request", "timestamp": "time"},
    "split": {"by": "time", "validation": 0.2, "test": 0.1},
}


def make_frame(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Raw rows, in the order of time; some values are missing."""
    random = np.random.default_rng(seed)

    def drop(values: Any, share: float) -> np.ndarray:
        out = np.array(values, object)
        out[random.random(rows) < share] = None
        return out

    counts = random.integers(0, 8, rows)
    clicked = random.random(rows) < 0.4
    items = [f"i{k}" for k in random.zipf(1.3, rows * 8) % 300]
    past, ages, tags = [], [], []
    for row, count in enumerate(counts):
        values = [None if random.random() < 0.1 else i for i in items[:count]]
        past.append(None if row % 50 == 0 else values)
        ages.append(
            None
            if row % 50 == 0
            else [None if random.random() < 0.1 else float(a) for a in range(count)]
        )
        items = items[count:]
        tags.append("|".join(f"t{k}" for k in random.integers(0, 40, count % 6)))
    time = 1_700_000_000 + np.sort(random.integers(0, rows // 2, rows)) * 977
    return pd.DataFrame(
        {
            "row": np.arange(rows),
            "user_id": random.integers(0, 200, rows),
            "item_id": drop([f"i{k}" for k in random.zipf(1.3, rows) % 300], 0.05),
            "device": drop([f"d{k}" for k in random.integers(0, 9, rows)], 0.05),
            "tags": drop(tags, 0.05),
            "past_items": past,
            "past_ages": ages,
            "price": pd.Series(random.normal(3, 4, rows)).mask(
                random.random(rows) < 0.1
            ),
            "views": np.floor(random.lognormal(3, 2, rows)),
            "time": time,
            "embedding": [
                None if random.random() < 0.1 else list(random.normal(size=3))
                for _ in range(rows)
            ],
            "tab": random.integers(0, 4, rows),
            "clicked": clicked.astype(int),
            "bought": (clicked & (random.random(rows) < 0.3)).astype(int),
            "rating": pd.Series(random.integers(1, 6, rows), dtype="Int64").mask(
                random.random(rows) < 0.2
            ),
            "importance": random.random(rows),
            "seconds": random.integers(0, 600, rows),
            "request": [f"r{k // 7}" for k in range(rows)],
        }
    )


def make_experiment(folder: pathlib.Path, **changes: Any) -> Experiment:
    """The experiment over `DATASET`, keys replaced; None removes one."""
    dataset = copy.deepcopy(DATASET)
    for name, value in changes.items():
        if value is None:
            dataset.pop(name)
        else:
            dataset[name] = value
    for table in dataset.get("side_tables", {}).values():
        table["path"] = str(folder / table["path"])
    return parse_experiment(
        {"name": "small", "dataset": dataset, "model": {"class": "MMoE"}}
    )


def write_side_table(folder: pathlib.Path) -> pd.DataFrame:
    """Vectors for two items of three."""
    keys = [f"i{k}" for k in range(300) if k % 3]
    frame = pd.DataFrame(
        {"id": keys, "vector": [[float(k), -float(k)] for k in range(len(keys))]}
    )
    frame.to_parquet(folder / "text.parquet")
    return frame


def write_parquet(frame: pd.DataFrame, path: pathlib.Path) -> None:
    """Raw rows as Parquet, with several row groups."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, path, row_group_size=700)


@dataclasses.dataclass(frozen=True)
class Small:
    """The shared dataset and all that it was made of."""

    frame: pd.DataFrame
    vectors: pd.DataFrame
    raw: pathlib.Path
    folder: pathlib.Path
    experiment: Experiment
    manifest: DatasetManifest


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A dataset directory made once; tests only read it."""
    from pipeline.preprocess import run

    root = tmp_path_factory.mktemp("small")
    frame = make_frame()
    vectors = write_side_table(root)
    write_parquet(frame, root / "log.parquet")
    experiment = make_experiment(root)
    manifest = run(
        experiment,
        [str(root / "log.parquet")],
        root / "dataset",
        block_rows=BLOCK_ROWS,
        shards=2,
    )
    return Small(frame, vectors, root, root / "dataset", experiment, manifest)
