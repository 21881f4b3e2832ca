"""Stacked tables against separate tables in NumPy, one feature at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.dropout import dropout_step
from tfmtl.layers.embedding import FeatureEmbedding
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.experiment import RegularizationSpec
from tfmtl.schema.manifest import DatasetManifest, RecordColumn, RowCounts

USERS, ITEMS, TAGS = 7, 9, 5
FEATURES: list[dict[str, Any]] = [
    {"name": "user", "kind": "categorical", "dim": 4},
    {"name": "item", "kind": "categorical", "vocabulary": "item", "dim": 4},
    {"name": "shop", "kind": "categorical", "dim": 4, "own_table": True},
    {"name": "tags", "kind": "multivalent", "dim": 2, "max_length": 3},
    {
        "name": "hist",
        "kind": "sequence",
        "max_length": 4,
        "pooling": "attention",
        "query": "item",
        "columns": [
            {"name": "item", "vocabulary": "item", "dim": 4},
            {"name": "age", "boundaries": [1.0, 10.0], "dim": 2},
        ],
    },
    {"name": "price", "kind": "numeric"},
    {"name": "size", "kind": "numeric", "transform": "bucketize", "buckets": 3},
    {"name": "at", "kind": "time", "parts": ["hour"], "dim": 4},
    {"name": "mix", "kind": "cross", "of": ["user", "item"], "buckets": 6, "dim": 2},
    {"name": "image", "kind": "vector", "size": 3, "table": "images", "project": 2},
    {"name": "text", "kind": "vector", "size": 2},
]
COLUMNS = (
    RecordColumn(name="user", dtype="int", rows=USERS, vocabulary="user"),
    RecordColumn(name="item", dtype="int", rows=ITEMS, vocabulary="item"),
    RecordColumn(name="shop", dtype="int", rows=4, vocabulary="shop"),
    RecordColumn(
        name="tags", dtype="int", shape="ragged", size=3, rows=TAGS, vocabulary="tags"
    ),
    RecordColumn(
        name="hist_item",
        dtype="int",
        shape="ragged",
        size=4,
        rows=ITEMS,
        vocabulary="item",
    ),
    RecordColumn(name="hist_age", dtype="int", shape="ragged", size=4, rows=4),
    RecordColumn(name="price", dtype="float"),
    RecordColumn(name="price_missing", dtype="float"),
    RecordColumn(name="size", dtype="int", rows=4),
    RecordColumn(name="at_hour", dtype="int", rows=25),
    RecordColumn(name="mix", dtype="int", rows=7),
    RecordColumn(name="text", dtype="float", shape="vector", size=2),
    RecordColumn(name="scenario", dtype="int"),
)
SIDE = np.random.default_rng(5).normal(size=(ITEMS, 3)).astype(np.float32)
B = 40


def manifest(**changes: Any) -> DatasetManifest:
    features = [dict(f, **changes.pop(f["name"], {})) for f in FEATURES]
    spec = DatasetSpec.model_validate(
        {
            "vocabularies": {"item": {}},
            "side_tables": {"images": {"path": "x", "key": "id", "feature": "item"}},
            "features": features,
            "scenario": {"column": "page", "values": ["a", "b"], "dim": 3},
            "tasks": [{"name": "click", "label": "click"}],
            "split": {"by": "hash", "column": "row"},
            **changes,
        }
    )
    return DatasetManifest(
        tfmtl_version="test",
        schema_hash="",
        dataset=spec,
        block_rows=1,
        columns=COLUMNS,
        splits={},
        counts=RowCounts(read=0, written=0),
    )


def batch(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    result: dict[str, np.ndarray] = {}
    for column in COLUMNS:
        if column.dtype == "float":
            width = [column.size] if column.size else []
            result[column.name] = draw.normal(size=(B, *width)).astype(np.float32)
        elif column.shape == "ragged":
            length = draw.integers(0, column.size + 1, B)
            ids = draw.integers(1, column.rows, (B, column.size))
            keep = np.arange(column.size) < length[:, None]
            result[column.name] = (ids * keep).astype(np.int32)
        else:
            rows = column.rows or 3
            result[column.name] = draw.integers(0, rows, B).astype(np.int32)
    result["hist_age"] *= result["hist_item"] > 0
    return result


def make(
    interaction: str = "none",
    partitions: int = 1,
    spec: DatasetManifest | None = None,
    **regularization: Any,
) -> FeatureEmbedding:
    return FeatureEmbedding(
        spec or manifest(),
        RegularizationSpec(**{"embedding_std": 1.0} | regularization),
        seed=1,
        interaction=interaction,
        side_tables={"image": SIDE},
        partitions=partitions,
    )


def tables(layer: FeatureEmbedding) -> dict[str, np.ndarray]:
    """The stacked variables cut into one table a vocabulary."""
    found = {v.name.split("/")[-1].split(":")[0]: v.numpy() for v in layer.weights}
    cut = {}
    for width, members in {
        4: [("user", USERS), ("item", ITEMS), ("at_hour", 25)],
        2: [("tags", TAGS), ("hist_age", 4), ("mix", 7)],
        8: [("size", 4)],
    }.items():
        start = 0
        for name, rows in members:
            cut[name] = found[f"stacked_{width}"][start : start + rows]
            start += rows
        assert start == len(found[f"stacked_{width}"])
    return {**cut, "shop": found["shop"], "scenario": found["scenario"]}


def expected(layer: FeatureEmbedding, x: dict[str, np.ndarray]) -> dict[str, Any]:
    """Fields by plain look-ups, one row and one feature at a time."""
    table = tables(layer)
    fields = {
        n: table[n][x[n]] for n in ("user", "item", "shop", "size", "at_hour", "mix")
    }
    tags = np.zeros((B, 2))
    for b in range(B):
        kept = [table["tags"][i] for i in x["tags"][b] if i > 0]
        tags[b] = np.mean(kept, axis=0) if kept else 0
    events = np.concatenate(
        [table["item"][x["hist_item"]], table["hist_age"][x["hist_age"]]], axis=2
    )
    (attention,) = layer._attention["hist"]
    pooled, _ = attention(
        tf.constant(events[..., :4], tf.float32),
        tf.constant(fields["item"], tf.float32),
        tf.constant(events, tf.float32),
        tf.constant(x["hist_item"] > 0),
    )
    projection = layer._projections["image"]
    image = SIDE[x["item"]] @ projection.kernel[0].numpy() + projection.bias[0].numpy()
    return {
        **fields,
        "tags": tags,
        "hist_item": pooled[:, :4].numpy(),
        "hist_age": pooled[:, 4:].numpy(),
        "image": image,
        "text": x["text"],
    }


ORDER = [
    *("user", "item", "shop", "tags", "size", "at_hour", "mix", "image", "text"),
    *("hist_item", "hist_age"),
]


def flat_of(layer: FeatureEmbedding, x: dict[str, np.ndarray]) -> np.ndarray:
    fields = expected(layer, x)
    scenario = tables(layer)["scenario"]
    centre = scenario.mean(axis=0, keepdims=True)
    return np.concatenate(
        [
            *[fields[n] for n in ORDER],
            np.stack([x["price"], x["price_missing"]], axis=1),
            np.concatenate([scenario, centre])[x["scenario"]],
        ],
        axis=1,
    )


def test_equals_separate_tables() -> None:
    layer, x = make(), batch()
    found = layer(x)
    assert list(found.fields) == ORDER
    for name, value in expected(layer, x).items():
        np.testing.assert_allclose(
            found.fields[name], value, rtol=1e-4, atol=1e-5, err_msg=name
        )
    np.testing.assert_allclose(found.flat, flat_of(layer, x), rtol=1e-4, atol=1e-5)


def test_a_wrong_offset_would_be_found() -> None:
    layer, x = make(), batch()
    layer(x)
    truth = flat_of(layer, x)
    (table,) = [t for t in layer.weights if "stacked_4" in t.name]
    table.assign(tf.roll(table, 1, axis=0))
    assert np.abs(layer(x).flat - truth).max() > 0.5


def test_one_vocabulary_shares_rows_own_table_stands_apart() -> None:
    layer, x = make(), batch()
    layer(x)
    sizes = {v.name.split("/")[-1].split(":")[0]: v.shape[0] for v in layer.weights}
    assert sizes["stacked_4"] == USERS + ITEMS + 25
    assert {k: len(v) for k, v in layer.variable_groups().items()} == {
        "embedding": 3,
        "embedding/shop": 1,
    }


def test_sequences_and_masks_reach_the_model() -> None:
    layer, x = make(), batch()
    events, mask = layer(x).sequences["hist"]
    np.testing.assert_array_equal(mask, x["hist_item"] > 0)
    np.testing.assert_allclose(events[..., :4], tables(layer)["item"][x["hist_item"]])
    weights = layer(x).inspect["hist/attention"]
    assert (weights.numpy()[x["hist_item"] == 0] == 0).all()


def test_ids_of_another_vocabulary_read_as_missing() -> None:
    layer, x = make(), batch()
    missing = dict(x, user=np.zeros(B, np.int32), item=np.zeros(B, np.int32))
    truth = layer(missing).flat
    wild = np.where(np.arange(B) % 2, USERS + 3, -4).astype(np.int32)
    found = layer(dict(x, user=wild, item=wild + ITEMS * 100)).flat
    np.testing.assert_array_equal(found, truth)


def test_one_gather_a_width_with_sparse_gradients() -> None:
    layer, x = make(), batch()
    layer(x)
    tables_ = [v for vs in layer.variable_groups().values() for v in vs]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.square(layer(x).flat))
    gradients = tape.gradient(total, tables_)
    assert all(isinstance(g, tf.IndexedSlices) for g in gradients)
    graph = tf.function(lambda f: layer(f).flat).get_concrete_function(x).graph
    kinds = [op.type for op in graph.get_operations()]
    assert kinds.count("ResourceGather") == 4 + 1  # three widths, one own, the vectors


def test_dot_interaction_equals_numpy() -> None:
    plain, dot, x = make(), make("dot"), batch()
    plain(x)
    fields = expected(plain, x)
    by_width: dict[int, list[np.ndarray]] = {}
    for name in ORDER:
        by_width.setdefault(fields[name].shape[1], []).append(fields[name])
    products = [
        (members[i] * members[j]).sum(1)
        for members in by_width.values()
        for i in range(len(members))
        for j in range(i + 1, len(members))
    ]
    dot(x)
    for a, b in zip(dot.weights, plain.weights):
        np.testing.assert_array_equal(a, b)
    extra = dot(x).flat.shape[1] - plain(x).flat.shape[1]
    assert extra == len(products) == 10 + 10  # five fields of 4, five of 2, one of 8
    start = sum(fields[n].shape[1] for n in ORDER)
    np.testing.assert_allclose(
        dot(x).flat[:, start : start + extra],
        np.stack(products, axis=1),
        rtol=1e-3,
        atol=1e-5,
    )


class TestSideTable:
    """Vectors that are stored once an item."""

    def test_frozen_unless_told_otherwise(self) -> None:
        layer, x = make(), batch()
        layer(x)
        (vectors,) = [v for v in layer.weights if "image_vectors" in v.name]
        np.testing.assert_array_equal(vectors, SIDE)
        assert not any(v is vectors for v in layer.trainable_weights)

    def test_trainable_is_a_group_of_its_own(self) -> None:
        layer, x = make(spec=manifest(image={"trainable": True})), batch()
        layer(x)
        assert "embedding/image_vectors" in layer.variable_groups()

    def test_missing_vectors_are_named(self) -> None:
        layer = FeatureEmbedding(manifest(), RegularizationSpec(), seed=0)
        with pytest.raises(ValueError, match="vectors of feature 'image'"):
            layer(batch())


class TestDropouts:
    """Ids and fields are lost independently, in training only."""

    def test_ids_become_unknown(self) -> None:
        layer, x = make(id_dropout=0.5), batch()
        np.testing.assert_array_equal(layer(x).flat, make()(x).flat)
        with dropout_step(tf.constant(3, tf.int64)):
            fields = layer(x, training=True).fields
        table, lost = tables(layer), {}
        for name in ("user", "item", "shop"):
            changed = np.abs(fields[name] - table[name][x[name]]).max(1) > 1e-6
            np.testing.assert_allclose(
                fields[name][changed], table[name][[1] * sum(changed)]
            )
            lost[name] = np.isclose(fields[name], table[name][1]).all(1)
            assert 0.2 < lost[name].mean() < 0.85
        assert (lost["user"] != lost["item"]).any()
        # Not ids of a vocabulary: nothing to be unknown.
        np.testing.assert_allclose(fields["at_hour"], table["at_hour"][x["at_hour"]])
        np.testing.assert_allclose(fields["mix"], table["mix"][x["mix"]])

    def test_a_hashed_vocabulary_has_no_unknown_row(self) -> None:
        spec = manifest(
            vocabularies={"item": {}, "u": {"hash_buckets": USERS - 1}},
            user={"vocabulary": "u"},
        )
        columns = tuple(
            c.model_copy(update={"vocabulary": "u"}) if c.name == "user" else c
            for c in COLUMNS
        )
        layer = make(spec=spec.model_copy(update={"columns": columns}), id_dropout=0.9)
        fields = layer(batch(), training=True).fields
        np.testing.assert_allclose(
            fields["user"], tables(layer)["user"][batch()["user"]]
        )

    def test_each_field_falls_by_its_own_chance(self) -> None:
        layer, x = make(feature_dropout=0.4), batch()
        plain = layer(x).fields
        with dropout_step(tf.constant(3, tf.int64)):
            fields = layer(x, training=True).fields
        lost = {}
        for name in ("user", "item", "shop", "at_hour", "mix", "text", "image"):
            value, whole = fields[name].numpy(), plain[name].numpy()
            lost[name] = (value == 0).all(1)
            kept = ~lost[name]
            np.testing.assert_allclose(value[kept], whole[kept] / 0.6, rtol=1e-4)
        masks = np.stack(list(lost.values()))
        assert masks.mean() == pytest.approx(0.4, abs=0.1)
        assert len({m.tobytes() for m in masks}) == len(masks)


def test_partitions_are_independent_copies() -> None:
    layer, x = make(partitions=3, spec=manifest(image={"trainable": True})), batch()
    partition = np.arange(B, dtype=np.int32) % 3
    found = layer(x, partition=tf.constant(partition))
    flats = [layer(x, partition=tf.fill([B], p)).flat for p in range(3)]
    for p in range(3):
        np.testing.assert_allclose(
            found.flat[partition == p], flats[p][partition == p], rtol=1e-5, atol=1e-6
        )
    for name in ("user", "tags", "image", "hist_item"):
        one, two = (layer(x, partition=tf.fill([B], p)).fields[name] for p in (0, 1))
        assert np.abs(one - two).max() > 1e-3, name
    with tf.GradientTape(persistent=True) as tape:
        mine = layer(x, partition=tf.fill([B], 1)).flat
        total = tf.reduce_sum(tf.square(mine[:, :-3]))
    for variables in layer.variable_groups().values():
        for variable in variables:
            dense = tf.convert_to_tensor(tape.gradient(total, variable)).numpy()
            first, own, last = np.split(dense, 3)
            assert (first == 0).all() and (last == 0).all(), variable.name
            assert (own != 0).any(), variable.name


def test_penalty_is_half_the_squared_norm_a_row() -> None:
    layer, x = make(embedding_l2=0.5), batch()
    layer(x, training=True)
    table = tables(layer)
    single = ("user", "item", "shop", "size", "at_hour", "mix")
    truth = 0.25 * sum((table[n][x[n]] ** 2).sum(1).mean() for n in single)
    np.testing.assert_allclose(sum(layer.losses), truth, rtol=1e-5)
    layer(x)
    assert sum(layer.losses) == 0


def test_unknown_scenario_is_the_centre() -> None:
    layer, x = make(), batch()
    layer(x)
    scenario = tables(layer)["scenario"]
    np.testing.assert_allclose(
        layer.scenario_vector(tf.constant([0, 1, 2])),
        [*scenario, scenario.mean(0)],
        rtol=1e-6,
    )


def test_features_hold_all_that_the_flat_input_does() -> None:
    """A side table's vector too, which has no record column of its own."""
    x = make()({k: tf.constant(v) for k, v in batch().items()})
    assert set(x.features) == {f["name"] for f in FEATURES}
    np.testing.assert_array_equal(x.features["image"], x.fields["image"])
    width = sum(v.shape[1] for v in x.features.values()) + 3  # the scenario
    assert width == x.flat.shape[1]


class TestReadAnotherWay:
    """What a model may ask for against the data set's word."""

    def _make(self, **options: Any) -> FeatureEmbedding:
        return FeatureEmbedding(
            manifest(),
            RegularizationSpec(embedding_std=1.0),
            seed=1,
            side_tables={"image": SIDE},
            **options,
        )

    def _read(self, layer: FeatureEmbedding) -> Any:
        return layer({k: tf.constant(v) for k, v in batch().items()})

    def test_another_pooling(self) -> None:
        (hist,) = (f for f in manifest().dataset.features if f.name == "hist")
        for pooling, present in (("none", False), ("mean", True)):
            changed = hist.model_copy(update={"pooling": pooling, "query": None})
            layer = self._make(replace=[changed])
            x = self._read(layer)
            assert ("hist_item" in x.fields) == present
            assert "hist/attention" not in x.inspect
            assert not [v for v in layer.variables if "attention" in v.name]
            values, mask = x.sequences["hist"]
            assert values.shape == [B, 4, 6]
        kept = mask.numpy()[..., None]
        mean = (values * kept).numpy().sum(1) / np.maximum(kept.sum(1), 1)
        np.testing.assert_allclose(x.features["hist"], mean, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("only", "columns"),
        [
            (("item", "tags", "price"), "item tags price price_missing"),
            (("item", "hist"), "item hist_item hist_age"),
            (("image", "text"), "item text"),
            (("shop",), "shop"),
        ],
    )
    def test_some_features_alone(self, only: tuple[str, ...], columns: str) -> None:
        layer = self._make()
        whole = self._read(layer)
        read = {c: tf.constant(batch()[c]) for c in columns.split()}
        with tf.GradientTape() as tape:
            x = layer(read, only=only)
            total = tf.reduce_sum(x.flat**2)
        assert {*x.features} == {*only}
        for name in only:
            np.testing.assert_array_equal(x.features[name], whole.features[name])
        assert x.scenario is x.scenario_vector is None
        assert x.flat.shape[1] == sum(v.shape[1] for v in x.features.values())
        reached = [
            v.name
            for v, g in zip(layer.weights, tape.gradient(total, layer.weights))
            if g is not None
        ]
        assert not any("scenario" in name for name in reached)
        assert ("shop" in only) == any("shop" in name for name in reached)

    def test_fewer_columns_of_a_sequence(self) -> None:
        (hist,) = (f for f in manifest().dataset.features if f.name == "hist")
        layer = self._make(
            replace=[hist.model_copy(update={"columns": hist.columns[:1]})]
        )
        values, _ = self._read(layer).sequences["hist"]
        assert values.shape == [B, 4, 4]
        assert "hist_age" not in {s.column for s in layer._slots}

    @pytest.mark.parametrize("partitions", [1, 2])
    def test_vectors_instead_of_a_table(self, partitions: int) -> None:
        (hist,) = (f for f in manifest().dataset.features if f.name == "hist")
        mean = hist.model_copy(update={"pooling": "mean", "query": None})
        layer = self._make(
            replace=[mean], vectors={"hist_item": "image"}, partitions=partitions
        )
        data = batch()
        row = tf.constant(np.arange(B) % partitions, tf.int32)
        x = layer(
            {k: tf.constant(v) for k, v in data.items()},
            partition=None if partitions == 1 else row,
        )
        values, mask = x.sequences["hist"]
        np.testing.assert_array_equal(values[..., :3], SIDE[data["hist_item"]])
        assert values.shape == [B, 4, 3 + 2]
        assert "hist_item" not in {s.column for s in layer._slots}
        kept = mask.numpy()[..., None]
        pooled = (SIDE[data["hist_item"]] * kept).sum(1) / np.maximum(kept.sum(1), 1)
        np.testing.assert_allclose(x.fields["hist_item"], pooled, rtol=1e-5, atol=1e-6)

    def test_one_width_for_all_tables(self) -> None:
        layer = self._make(width=5)
        x = self._read(layer)
        assert x.scenario_vector.shape == [B, 5]
        vectors = {"image", "text"}
        assert {v.shape[1] for k, v in x.fields.items() if k not in vectors} == {5}
