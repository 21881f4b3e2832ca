"""Every transform, recomputed with pandas and NumPy from the raw rows."""

from __future__ import annotations

import collections
import datetime
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.unit.pipeline.conftest import ROWS, Small
from tests.unit.pipeline.records import read_blocks
from tfmtl._keras import tf

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def rows(small: Small) -> dict[int, dict[str, Any]]:
    """Every row of the dataset by its key, with its split."""
    found = {}
    for split in SPLITS:
        for row in read_blocks(small.folder, small.manifest, split):
            found[int(row["key/row"])] = row | {"split": split}
    return found


@pytest.fixture(scope="module")
def train(small: Small, rows: dict[int, dict[str, Any]]) -> pd.DataFrame:
    """The raw rows of the training split."""
    return small.frame[[rows[k]["split"] == "train" for k in range(ROWS)]]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _vocabulary(lists: list[list[Any]], min_count: int = 1) -> list[str]:
    counts = collections.Counter(v for values in lists for v in values)
    ordered = sorted(counts, key=lambda v: (-counts[v], v))
    return [v for v in ordered if counts[v] >= min_count]


def _hash(value: str, buckets: int) -> int:
    return int(tf.strings.to_hash_bucket_fast(value, buckets))


def _id(value: Any, known: list[str], oov: int = 1) -> int:
    if _missing(value) or value == "":
        return 0
    text = str(value)
    return 1 + oov + known.index(text) if text in known else 1 + _hash(text, oov)


def _kept_history(row: pd.Series) -> list[tuple[str, float | None]]:
    if row.past_items is None:
        return []
    pairs = zip(row.past_items, row.past_ages, strict=True)
    return [p for p in pairs if p[0] is not None][-4:]


def _items(train: pd.DataFrame) -> list[str]:
    """The vocabulary that item_id and history share."""
    return _all_items(train)[:150]


def _all_items(train: pd.DataFrame) -> list[str]:
    own = [[v] for v in train.item_id if not _missing(v)]
    past = [[p[0] for p in _kept_history(r)] for _, r in train.iterrows()]
    return _vocabulary(own + past)


def test_every_row_is_there_once(small: Small, rows: dict[int, Any]) -> None:
    assert sorted(rows) == list(range(ROWS))
    assert small.manifest.counts.balanced
    assert small.manifest.counts.written == ROWS


def test_columns_are_those_of_the_manifest(small: Small, rows: dict[int, Any]) -> None:
    names = {c.name for c in small.manifest.columns}
    assert set(rows[0]) - {"split"} == names
    for column in small.manifest.columns:
        if column.rows is not None:
            values = np.concatenate(
                [np.atleast_1d(r[column.name]) for r in rows.values()]
            )
            assert values.min() >= 0
            assert values.max() < column.rows


def test_categorical_ids(small: Small, rows: dict[int, Any], train: Any) -> None:
    users = _vocabulary([[str(v)] for v in train.user_id])
    items = _items(train)
    for key, raw in small.frame.iterrows():
        assert rows[key]["user_id"] == _id(raw.user_id, users)
        assert rows[key]["item_id"] == _id(raw.item_id, items, oov=3)
        device = 0 if _missing(raw.device) else 1 + _hash(raw.device, 17)
        assert rows[key]["device"] == device
    file = small.folder / "vocabulary" / "item.txt"
    assert file.read_text().splitlines() == items


def test_vocabulary_is_learnt_on_the_training_split_only(
    small: Small, rows: dict[int, Any], train: Any
) -> None:
    everything = _vocabulary([[str(v)] for v in small.frame.user_id])
    users = _vocabulary([[str(v)] for v in train.user_id])
    file = small.folder / "vocabulary" / "user_id.txt"
    assert file.read_text().splitlines() == users
    # The order by frequency over all rows is another one: the test can tell.
    assert users != everything
    stats = small.manifest.vocabularies["item"]
    assert (stats.size, stats.rows, stats.oov_buckets) == (150, 154, 3)
    assert stats.dropped == len(_all_items(train)) - 150 > 0


def test_multivalent_keeps_the_first(
    small: Small, rows: dict[int, Any], train: Any
) -> None:
    def split(text: Any) -> list[str]:
        return [] if _missing(text) or not text else text.split("|")[:3]

    tags = _vocabulary([split(t) for t in train.tags], min_count=2)
    for key, raw in small.frame.iterrows():
        expected = [_id(t, tags) for t in split(raw.tags)]
        assert rows[key]["tags"].tolist() == expected


def test_sequence_keeps_the_newest_and_stays_aligned(
    small: Small, rows: dict[int, Any], train: Any
) -> None:
    items = _items(train)
    edges = [1.0, 10.0, 100.0]
    for key, raw in small.frame.iterrows():
        kept = _kept_history(raw)
        ids = [_id(p[0], items, oov=3) for p in kept]
        ages = [
            0 if _missing(p[1]) else 1 + sum(e <= p[1] for e in edges) for p in kept
        ]
        assert rows[key]["history_items"].tolist() == ids
        assert rows[key]["history_ages"].tolist() == ages


def test_numeric(small: Small, rows: dict[int, Any], train: Any) -> None:
    price = train.price.astype(np.float32).astype(np.float64)
    views = np.log1p(train.views.astype(np.float32).astype(np.float64))
    mean, std = price.mean(), price.std(ddof=0)
    for key, raw in small.frame.iterrows():
        row, missing = rows[key], _missing(raw.price)
        assert row["price_missing"] == row["plain_missing"] == float(missing)
        z = 0.0 if missing else (raw.price - mean) / std
        assert row["price"] == pytest.approx(z, abs=1e-5)
        assert row["plain"] == pytest.approx(mean if missing else raw.price, abs=1e-5)
        log = (math.log1p(raw.views) - views.mean()) / views.std(ddof=0)
        assert row["views"] == pytest.approx(log, abs=1e-5)
    all_rows = small.frame.price.mean()
    assert abs(all_rows - mean) > 1e-3  # statistics over all rows would be seen


def test_buckets(small: Small, rows: dict[int, Any], train: Any) -> None:
    quantiles = np.quantile(train.views, [0.2, 0.4, 0.6, 0.8], method="inverted_cdf")
    edges = np.unique(quantiles)
    for key, raw in small.frame.iterrows():
        assert rows[key]["rank"] == 1 + np.sum(edges <= raw.views)
        level = 0 if _missing(raw.price) else 1 + (raw.price >= 0) + (raw.price >= 5)
        assert rows[key]["level"] == level


def test_time_parts(small: Small, rows: dict[int, Any]) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=8))
    for key, raw in small.frame.iterrows():
        local = datetime.datetime.fromtimestamp(raw.time, zone)
        assert rows[key]["when_hour"] == 1 + local.hour
        assert rows[key]["when_weekday"] == local.isoweekday()


def test_vector_and_side_table(small: Small, rows: dict[int, Any], train: Any) -> None:
    for key, raw in small.frame.iterrows():
        expected = [0.0] * 3 if raw.embedding is None else raw.embedding
        np.testing.assert_allclose(rows[key]["embedding"], expected, rtol=1e-6)
    table = np.load(small.folder / small.manifest.side_tables["text_vector"])
    vectors = dict(zip(small.vectors.id, small.vectors.vector))
    expected = np.zeros((154, 2), np.float32)
    for index, item in enumerate(_items(train)):
        expected[4 + index] = vectors.get(item, [0.0, 0.0])
    np.testing.assert_array_equal(table, expected)


def test_cross_scenario_and_keys(small: Small, rows: dict[int, Any]) -> None:
    for key, raw in small.frame.iterrows():
        row = rows[key]
        cross = 0
        if not _missing(raw.device):
            cross = 1 + _hash(f"{raw.user_id}\x1f{raw.device}", 50)
        assert row["user_device"] == cross
        assert row["scenario"] == min(raw.tab, 2)
        assert row["key/user"].decode() == str(raw.user_id)
        assert row["key/group"].decode() == raw.request
        assert row["key/timestamp"] == raw.time * 1_000_000


def test_labels_and_weights(small: Small, rows: dict[int, Any]) -> None:
    for key, raw in small.frame.iterrows():
        row = rows[key]
        assert row["label/click"] == raw.clicked
        good = math.nan if pd.isna(raw.rating) else float(raw.rating >= 4)
        np.testing.assert_equal(float(row["label/good"]), good)
        weight = 0.0 if pd.isna(raw.rating) else raw.importance
        assert row["weight/good"] == pytest.approx(weight, rel=1e-6)
        bought = float(raw.bought) if raw.tab < 2 else math.nan
        np.testing.assert_equal(float(row["label/buy"]), bought)
        assert row["label/watch"] == pytest.approx(raw.seconds / 60, rel=1e-6)


def test_base_rates(small: Small, rows: dict[int, Any]) -> None:
    for split in SPLITS:
        stats = small.manifest.splits[split]
        keys = [k for k, r in rows.items() if r["split"] == split]
        part = small.frame.loc[keys]
        assert stats.rows == len(part)
        assert stats.tasks["click"].total == part.clicked.sum()
        assert stats.tasks["good"].rows == part.rating.notna().sum()
        one = part[part.tab == 1]
        assert stats.scenarios["1"] == len(one)
        assert stats.scenarios["unknown"] == (part.tab > 1).sum()
        assert stats.cells["click"]["1"].total == one.clicked.sum()
        assert stats.cells["buy"]["unknown"].rows == 0
        assert stats.timestamp_min == part.time.min() * 1e6
        assert stats.timestamp_max == part.time.max() * 1e6


def test_graph_serves_raw_rows_without_labels_and_without_the_folder(
    small: Small, rows: dict[int, Any], tmp_path: Any
) -> None:
    import shutil

    import tensorflow_transform as tft

    from pipeline import plan
    from tfmtl.schema.manifest import served_inputs

    moved = tmp_path / "elsewhere"
    shutil.copytree(small.folder / "transform", moved)
    output = tft.TFTransformOutput(str(moved))
    names = {i.name for i in served_inputs(small.experiment.dataset)}
    assert set(output.raw_feature_spec()) == names
    assert [i.name for i in plan.raw_inputs(small.experiment.dataset)] == [
        i.name for i in served_inputs(small.experiment.dataset)
    ]
    layer = output.transform_features_layer()
    raw = small.frame.iloc[[7]].iloc[0]
    items = [v or "" for v in raw.past_items]
    ages = [math.nan if _missing(a) else a for a in raw.past_ages]
    padded = [[*items, "", ""]], [[*ages, math.nan, math.nan]]
    inputs = {
        "user_id": tf.constant([str(raw.user_id)]),
        "item_id": tf.constant(["" if _missing(raw.item_id) else raw.item_id]),
        "device": tf.constant(["" if _missing(raw.device) else raw.device]),
        "tags": tf.sparse.from_dense(
            [("" if _missing(raw.tags) else raw.tags).split("|")]
        ),
        "history_items": tf.sparse.from_dense(padded[0]),
        "history_ages": _sparse_floats(padded[1]),
        "plain": tf.constant([raw.price], tf.float32),
        "price": tf.constant([raw.price], tf.float32),
        "views": tf.constant([raw.views], tf.float32),
        "rank": tf.constant([raw.views], tf.float32),
        "level": tf.constant([raw.price], tf.float32),
        "when": tf.constant([raw.time], tf.int64),
        "embedding": tf.constant([raw.embedding or [math.nan] * 3], tf.float32),
        "scenario": tf.constant([str(raw.tab)]),
    }
    out = layer(inputs)
    for name, value in out.items():
        got = value.to_list() if isinstance(value, tf.RaggedTensor) else value.numpy()
        np.testing.assert_allclose(got[0], rows[7][name], rtol=1e-6, err_msg=name)


def _sparse_floats(dense: list[list[float]]) -> Any:
    width = len(dense[0])
    return tf.SparseTensor(
        [[0, i] for i in range(width)], tf.constant(dense[0], tf.float32), [1, width]
    )
