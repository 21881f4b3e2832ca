"""Records -> vectors: one stacked table a width, one gather, one sparse update."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmtl._keras import keras, tf
from tfmtl.errors import ConfigError
from tfmtl.layers.dropout import Dropout, step_seed
from tfmtl.layers.ids import rows_of
from tfmtl.layers.initializers import NormalRows
from tfmtl.layers.pooling import TargetAttention, masked_mean, masked_sum
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedDense
from tfmtl.schema.experiment import RegularizationSpec
from tfmtl.schema.feature import FeatureSpec, SequenceFeature, VectorFeature
from tfmtl.schema.manifest import DatasetManifest


class Embedded(NamedTuple):
    """What a model sees of a batch.

    Attributes:
        flat: [B, D], fields, pooled sequences, numbers and scenario side by side.
        fields: Field to [B, d]; a feature of several columns has a field for each.
        sequences: Feature to ([B, L, d], mask [B, L]); columns side by side.
        scenario: [B] int32, or None where the data has none.
        inspect: Name to what is worth looking at (attention weights [B, L]).
        features: Feature to all it adds to `flat`, [B, d]: its fields or its numbers.
            A sequence that is not pooled adds nothing and is absent.
        scenario_vector: [B, d], the scenario's embedding, or None.
    """

    flat: Any
    fields: dict[str, Any]
    sequences: dict[str, tuple[Any, Any]]
    scenario: Any
    inspect: dict[str, Any]
    features: dict[str, Any]
    scenario_vector: Any

    def of(self, names: Sequence[str]) -> Any:
        """[B, D'], the named features side by side, without those that add nothing.

        Raises:
            ValueError: None of them adds anything.
        """
        parts = [self.features[n] for n in names if n in self.features]
        if not parts:
            raise ValueError(
                f"`names` must hold a feature with a vector. Received: {list(names)}; "
                f"features with one: {sorted(self.features)}"
            )
        return tf.concat(parts, axis=1)


@dataclasses.dataclass(frozen=True)
class _Slot:
    """One id column: which rows of which table it looks up.

    Attributes:
        column: Record column.
        feature: The feature it belongs to.
        table: Name of the variable.
        dim: Width.
        offset: Added to the ids.
        rows: Ids are below it.
        length: None for [B], L for [B, L].
        droppable: Whether id dropout may replace it by "unknown".
    """

    column: str
    feature: str
    table: str
    dim: int
    offset: int
    rows: int
    length: int | None
    droppable: bool


class FeatureEmbedding(keras.layers.Layer):
    """Embeds the columns of the records.

    Tables of one width are stacked into one variable, with an offset for each
    vocabulary; all ids of that width are looked up by one gather, whose gradient is one
    `IndexedSlices`. Features that name the same vocabulary and width share rows.

    Args:
        manifest: Says the columns, their sizes and the features they come from.
        regularization: Initial scale, L2 of looked-up rows, dropouts.
        seed: Of the initial values and masks.
        interaction: `dot` appends the dot products of all pairs of fields of one width
            to `flat` (Naumov et al., 2019, arXiv 1906.00091, section 2.1.3).
        side_tables: Vector feature to [rows of the key's vocabulary, size].
        partitions: Keep so many independent copies of every table; a row says which one
            it reads (one network per scenario).
        exclude: Features that are left out: they have no table here.
        use_scenario: Whether the scenario's embedding is part of the flat input.
        width: Width of every table, the scenario's too, instead of the features' own
            (1: a linear model); sequences with attention are then pooled by their mean,
            as they are where their query is excluded.
        replace: Features read in another way than the data set says: another pooling,
            fewer columns of a sequence.
        vectors: Id column to the vector feature of a side table whose vectors are read
            instead of a table of the column's own; both of one vocabulary.
    """

    def __init__(
        self,
        manifest: DatasetManifest,
        regularization: RegularizationSpec,
        *,
        seed: int,
        interaction: str = "none",
        side_tables: Mapping[str, np.ndarray] | None = None,
        partitions: int = 1,
        exclude: Sequence[str] = (),
        use_scenario: bool = True,
        width: int | None = None,
        replace: Sequence[FeatureSpec] = (),
        vectors: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.manifest = manifest
        self.regularization = regularization
        self.seed = seed
        self.interaction = interaction
        self.partitions = partitions
        self.exclude = tuple(exclude)
        self.use_scenario = use_scenario
        self.width = width
        self.vectors = dict(vectors or {})
        other = {f.name: f for f in replace}
        kept = [
            other.get(f.name, f)
            for f in manifest.dataset.features
            if f.name not in self.exclude
        ]
        self._features = {f.name: f for f in kept}
        self._columns = columns_of(manifest, kept)
        owned = {c for columns in self._columns.values() for c in columns}
        self._slots, self._table_rows = _layout(manifest, kept, width, self.vectors)
        self._numeric = [
            c.name
            for c in manifest.columns
            if c.dtype == "float" and c.shape == "scalar" and c.name in owned
        ]
        self._tables: dict[str, Any] = {}
        self._side_values = dict(side_tables or {})
        self._side: dict[str, Any] = {}
        self._attention = {
            f.name: [
                TargetAttention(
                    seed=child_seed(seed, f.name, "attention", p),
                    name=f"{f.name}_attention_{p}",
                )
                for p in range(partitions)
            ]
            for f in kept
            if isinstance(f, SequenceFeature)
            and f.pooling == "attention"
            and f.query not in self.exclude
            and width is None
        }
        self._projections = {
            f.name: StackedDense(
                partitions,
                f.project,
                seed=child_seed(seed, f.name, "projection"),
                name=f"{f.name}_projection",
            )
            for f in kept
            if isinstance(f, VectorFeature) and f.project is not None
        }
        self._field_dropout = Dropout(
            regularization.feature_dropout,
            child_seed(seed, "fields"),
            name="field_dropout",
        )
        self._scenario_table: Any = None

    def build(self, input_shape: Any) -> None:
        for name, (rows, dim) in self._table_rows.items():
            self._tables[name] = self.add_weight(
                name,
                [rows * self.partitions, dim],
                dtype=tf.float32,
                initializer=NormalRows(
                    child_seed(self.seed, name), self.regularization.embedding_std
                ),
                experimental_autocast=False,
            )
        for feature in self._features.values():
            if isinstance(feature, VectorFeature) and feature.table is not None:
                self._side[feature.name] = self._side_table(feature)
        scenario = self.manifest.dataset.scenario
        if scenario is not None and self.use_scenario:
            self._scenario_table = self.add_weight(
                "scenario",
                [len(scenario.values), self.width or scenario.dim],
                initializer=NormalRows(child_seed(self.seed, "scenario"), 0.1),
            )
        super().build(input_shape)

    def _side_table(self, feature: VectorFeature) -> Any:
        values = self._side_values.get(feature.name)
        if values is None:
            raise ValueError(
                f"`side_tables` must hold the vectors of feature {feature.name!r}. "
                f"Received: {sorted(self._side_values)}"
            )
        copies = self.partitions if feature.trainable else 1
        return self.add_weight(
            f"{feature.name}_vectors",
            [values.shape[0] * copies, values.shape[1]],
            dtype=tf.float32,
            # Read from the array when built: a constant would be kept in the graph.
            initializer=lambda shape, dtype=None, **_: tf.tile(
                tf.convert_to_tensor(values, dtype), [copies, 1]
            ),
            trainable=feature.trainable,
            experimental_autocast=False,
        )

    def call(
        self,
        features: Mapping[str, Any],
        training: bool = False,
        partition: Any = None,
        only: Sequence[str] | None = None,
    ) -> Embedded:
        """Embeds a batch.

        Args:
            features: Record column to [B], [B, L] or [B, size].
            training: Whether dropouts and penalties act.
            partition: [B] int32, which copy of the tables each row reads.
            only: Features to embed, without the scenario; `features` then needs their
                columns alone, and those of the queries and keys that they refer to.
        """
        kept = [f for f in self._features.values() if only is None or f.name in only]
        owned = {c for f in kept for c in self._columns[f.name]}
        looked_up = self._look_up(features, owned, training, partition)
        fields, sequences, inspect = self._fields(kept, features, looked_up, partition)
        if training and self.regularization.feature_dropout:
            fields = self._drop_fields(fields)
        parts = list(fields.values())
        if self.interaction == "dot":
            parts += _dot_products(fields)
        numbers = {c: features[c] for c in self._numeric if c in owned}
        if numbers:
            stacked = tf.stack(list(numbers.values()), axis=1)
            parts.append(tf.cast(stacked, self.compute_dtype))
        scenario, vector = None, None
        if only is None:
            scenario = self._scenario(features)
        if only is None and self._scenario_table is not None:
            vector = self.scenario_vector(scenario)
            parts.append(vector)
        if not parts:
            raise ConfigError(
                "`dataset.features` must leave the model something to read. Received: "
                f"{[f.kind for f in self._features.values()]} without a pooled vector"
            )
        flat = tf.concat(parts, axis=1)  # [B, D]
        return Embedded(
            flat,
            fields,
            sequences,
            scenario,
            inspect,
            self._by_feature(fields, numbers),
            vector,
        )

    def measure(self) -> Embedded:
        """A row of the shapes that this layer makes; its tables need not exist yet."""
        columns = [
            c.model_copy(update={"rows": c.rows and 1}) for c in self.manifest.columns
        ]
        # The same layer with tables of one row: sizes follow from the features alone.
        small = FeatureEmbedding(
            self.manifest.model_copy(update={"columns": tuple(columns)}),
            self.regularization,
            seed=self.seed,
            interaction=self.interaction,
            side_tables={k: v[:1] for k, v in self._side_values.items()},
            exclude=self.exclude,
            use_scenario=self.use_scenario,
            width=self.width,
            replace=tuple(self._features.values()),
            vectors=self.vectors,
        )
        dtypes = {"int": tf.int32, "float": tf.float32}
        features = {
            c.name: tf.zeros([1] if c.shape == "scalar" else [1, c.size], dtypes[kind])
            for c in columns
            if (kind := c.dtype) in dtypes and "/" not in c.name
        }
        measured: Embedded = small(features)
        return measured

    def _by_feature(
        self, fields: Mapping[str, Any], numbers: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Feature to what it adds to the flat input, [B, d]."""
        result = {}
        for name, columns in self._columns.items():
            # A side table's vector has a field, and no record column.
            parts = [fields[c] for c in columns or [name] if c in fields]
            parts += [
                tf.cast(numbers[c][:, None], self.compute_dtype)
                for c in columns
                if c in numbers
            ]
            if parts:
                result[name] = tf.concat(parts, axis=1)
        return result

    def _drop_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Zeroes fields, each row and field by a chance of its own."""
        if not fields:  # numbers only
            return fields
        rows = tf.shape(next(iter(fields.values())))[0]
        ones = tf.ones([rows, len(fields)], self.compute_dtype)
        factors = self._field_dropout(ones, training=True)  # [B, F]
        names = sorted(fields)  # a feature keeps its masks where the order changes
        return {k: v * factors[:, names.index(k), None] for k, v in fields.items()}

    def scenario_vector(self, scenario: Any) -> Any:
        """[B] -> [B, d]; an unknown scenario is the mean of the known ones."""
        count = self._scenario_table.shape[0]
        known = tf.one_hot(scenario, count, dtype=self.compute_dtype)
        shares = tf.where((scenario < count)[:, None], known, 1.0 / count)
        return tf.matmul(shares, tf.cast(self._scenario_table, self.compute_dtype))

    def variable_groups(self) -> dict[str, list[Any]]:
        """`embedding`, and `embedding/<feature>` for tables of their own."""
        groups: dict[str, list[Any]] = {}
        for name, table in self._tables.items():
            stacked = name.startswith("stacked_")
            group = "embedding" if stacked else f"embedding/{name}"
            groups.setdefault(group, []).append(table)
        for name, table in self._side.items():
            if table.trainable:
                groups[f"embedding/{name}_vectors"] = [table]
        return groups

    def _scenario(self, features: Mapping[str, Any]) -> Any:
        if self.manifest.dataset.scenario is None:
            return None
        return tf.cast(features["scenario"], tf.int32)

    def _look_up(
        self,
        features: Mapping[str, Any],
        owned: Collection[str],
        training: bool,
        partition: Any,
    ) -> dict[str, Any]:
        """Owned column to [B, d] or [B, L, d], by one gather for each table."""
        result: dict[str, Any] = {}
        for table in self._table_rows:
            slots = [s for s in self._slots if s.table == table and s.column in owned]
            if not slots:
                continue
            ids = [self._ids(s, features, training) for s in slots]  # [B, 1] or [B, L]
            index = tf.concat(ids, axis=1)  # [B, N]
            if partition is not None:
                index += partition[:, None] * self._table_rows[table][0]
            rows = tf.gather(self._tables[table], index)  # [B, N, d]
            if training:
                self._penalize(rows, slots, ids)
            rows = tf.cast(rows, self.compute_dtype)
            # One split, whose gradient is one concatenation; a slice's would be as
            # large as all rows together.
            parts = tf.split(rows, [s.length or 1 for s in slots], axis=1)
            for slot, part in zip(slots, parts):
                result[slot.column] = part if slot.length else tf.squeeze(part, 1)
        for column, name in self.vectors.items():
            if column in owned:
                result[column] = self._side_rows(name, features[column], partition)
        return result

    def _ids(self, slot: _Slot, features: Mapping[str, Any], training: bool) -> Any:
        ids = tf.cast(features[slot.column], tf.int32)
        rate = self.regularization.id_dropout
        if training and rate and slot.droppable:
            seed = step_seed(child_seed(self.seed, slot.column, "id_dropout"))
            lost = tf.random.stateless_uniform(tf.shape(ids), seed) < rate
            ids = tf.where(lost, 1, ids)
        ids = rows_of(ids, slot.rows) + slot.offset
        return ids if slot.length else ids[:, None]

    def _penalize(self, rows: Any, slots: list[_Slot], ids: list[Any]) -> None:
        """L2 of the looked-up rows [B, N, d]; a list counts as the mean of its values.

        Lists are penalised only where `feature_l2` names them: they mostly share their
        table with a scalar feature that is.
        """
        spec = self.regularization
        strengths = [
            spec.feature_l2.get(
                s.feature, spec.embedding_l2 if s.length is None else 0.0
            )
            for s in slots
        ]
        if not any(strengths):
            return
        weights = []
        for slot, strength, part in zip(slots, strengths, ids):
            share = tf.fill(tf.shape(part), strength)  # [B, 1] or [B, L]
            if slot.length is not None:
                held = tf.cast(part > slot.offset, tf.float32)
                total = tf.reduce_sum(held, axis=1, keepdims=True)
                share *= held / tf.maximum(total, 1.0)
            weights.append(share)
        squares = tf.reduce_sum(tf.square(rows), axis=2)  # [B, N]
        weighted = tf.reduce_sum(tf.concat(weights, axis=1) * squares, axis=1)
        self.add_loss(0.5 * tf.reduce_mean(weighted))

    def _fields(
        self,
        kept: Sequence[FeatureSpec],
        features: Mapping[str, Any],
        looked_up: dict[str, Any],
        partition: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        fields: dict[str, Any] = {}
        sequences: dict[str, Any] = {}
        inspect: dict[str, Any] = {}
        later: list[SequenceFeature] = []
        for feature in kept:
            match feature.kind:
                case "multivalent":
                    mask = features[feature.name] > 0
                    pool = masked_mean if feature.pooling == "mean" else masked_sum
                    fields[feature.name] = pool(looked_up[feature.name], mask)
                case "sequence":
                    columns = [f"{feature.name}_{c.name}" for c in feature.columns]
                    mask = features[columns[0]] > 0
                    values = tf.concat([looked_up[c] for c in columns], axis=2)
                    sequences[feature.name] = (values, mask)
                    later.append(feature)
                case "time":
                    for part in feature.parts:
                        name = f"{feature.name}_{part}"
                        fields[name] = looked_up[name]
                case "vector":
                    fields[feature.name] = self._vector(feature, features, partition)
                case _ if feature.name in looked_up:
                    fields[feature.name] = looked_up[feature.name]
        for feature in later:
            self._pool(feature, looked_up, fields, sequences, inspect, partition)
        return fields, sequences, inspect

    def _pool(
        self,
        feature: SequenceFeature,
        looked_up: dict[str, Any],
        fields: dict[str, Any],
        sequences: dict[str, Any],
        inspect: dict[str, Any],
        partition: Any,
    ) -> None:
        if feature.pooling == "none":
            return
        columns = [f"{feature.name}_{c.name}" for c in feature.columns]
        values, mask = sequences[feature.name]
        if feature.name in self._attention:
            assert feature.query is not None
            keys, query = looked_up[columns[0]], looked_up[feature.query]
            members = [
                layer(keys, query, values, mask)
                for layer in self._attention[feature.name]
            ]
            pooled, weights = (
                _of_partition(tf.stack(parts, axis=1), partition)
                for parts in zip(*members)
            )
            inspect[f"{feature.name}/attention"] = weights
        else:
            pool = masked_sum if feature.pooling == "sum" else masked_mean
            pooled = pool(values, mask)
        # One field a column, so that each meets fields of its own width.
        widths = [int(looked_up[c].shape[-1]) for c in columns]
        for column, part in zip(columns, tf.split(pooled, widths, axis=1)):
            fields[column] = part

    def _vector(
        self, feature: VectorFeature, features: Mapping[str, Any], partition: Any
    ) -> Any:
        if feature.table is None:
            vector = features[feature.name]
        else:
            key = self.manifest.dataset.side_tables[feature.table].feature
            vector = self._side_rows(feature.name, features[key], partition)
        vector = tf.cast(vector, self.compute_dtype)
        projection = self._projections.get(feature.name)
        if projection is None:
            return vector
        return _of_partition(projection(vector), partition)

    def _side_rows(self, name: str, ids: Any, partition: Any) -> Any:
        """Vectors of a side table: [B] or [B, L] -> [B, size] or [B, L, size]."""
        rows = self._side_values[name].shape[0]
        ids = rows_of(ids, rows)
        if partition is not None and self._side[name].trainable:
            ids += rows * (partition if ids.shape.rank == 1 else partition[:, None])
        return tf.cast(tf.gather(self._side[name], ids), self.compute_dtype)


def _of_partition(values: Any, partition: Any) -> Any:
    """[B, P, ...] -> [B, ...], the copy that each row reads; the first where None."""
    if partition is None:
        return values[:, 0]
    return tf.gather(values, partition, axis=1, batch_dims=1)


def _layout(
    manifest: DatasetManifest,
    features: Sequence[FeatureSpec],
    width: int | None,
    without: Mapping[str, str],
) -> tuple[list[_Slot], dict[str, tuple[int, int]]]:
    """Slots of the features' id columns, and [rows, width] of each table."""
    dims = {c: v for c, v in id_widths(features).items() if c not in without}
    owner = {c: name for name, cs in columns_of(manifest, features).items() for c in cs}
    sizes: dict[str, tuple[int, int]] = {}
    offsets: dict[tuple[str, str], int] = {}
    slots = []
    for column in manifest.columns:
        if column.name not in dims:
            continue
        dim, own = dims[column.name]
        dim = width or dim
        assert column.rows is not None
        table = own or f"stacked_{dim}"
        key = (table, column.vocabulary or column.name)
        if key not in offsets:
            used, _ = sizes.get(table, (0, dim))
            offsets[key] = used
            sizes[table] = (used + column.rows, dim)
        slots.append(
            _Slot(
                column=column.name,
                feature=owner[column.name],
                table=table,
                dim=dim,
                offset=offsets[key],
                rows=column.rows,
                length=column.size if column.shape == "ragged" else None,
                droppable=column.shape == "scalar"
                and column.vocabulary is not None
                # Row 1 of a hashed table is some value's, not the unknown value's.
                and not manifest.dataset.vocabulary(column.vocabulary).hash_buckets,
            )
        )
    return slots, sizes


def columns_of(
    manifest: DatasetManifest, features: Sequence[FeatureSpec]
) -> dict[str, list[str]]:
    """Feature to its record columns."""
    present = {c.name for c in manifest.columns}
    result = {}
    for feature in features:
        match feature.kind:
            case "sequence":
                names = [f"{feature.name}_{c.name}" for c in feature.columns]
            case "time":
                names = [f"{feature.name}_{part}" for part in feature.parts]
            case "numeric":
                names = [feature.name, f"{feature.name}_missing"]
            case _:
                names = [feature.name]
        result[feature.name] = [n for n in names if n in present]
    return result


def id_widths(features: Sequence[FeatureSpec]) -> dict[str, tuple[int, str | None]]:
    """Id column to its embedding width, and its own table's name if it has one."""
    widths: dict[str, tuple[int, str | None]] = {}
    for feature in features:
        match feature.kind:
            case "categorical" | "multivalent" | "cross":
                own = feature.name if feature.own_table else None
                widths[feature.name] = (feature.dim, own)
            case "sequence":
                for column in feature.columns:
                    widths[f"{feature.name}_{column.name}"] = (column.dim, None)
            case "time":
                for part in feature.parts:
                    widths[f"{feature.name}_{part}"] = (feature.dim, None)
            case "numeric" if feature.transform == "bucketize":
                widths[feature.name] = (feature.dim, None)
            case _:
                pass
    return widths


def _dot_products(fields: dict[str, Any]) -> list[Any]:
    """[B, F(F-1)/2] for each width that two or more fields share.

    One gather of the upper triangle; TFRS's DotInteraction filters by `boolean_mask`,
    whose output size XLA and a GPU have to wait for.
    """
    by_width: dict[int, list[Any]] = {}
    for field in fields.values():
        by_width.setdefault(int(field.shape[-1]), []).append(field)
    products = []
    for members in by_width.values():
        if len(members) < 2:
            continue
        stacked = tf.stack(members, axis=1)  # [B, F, d]
        gram = tf.matmul(stacked, stacked, transpose_b=True)  # [B, F, F]
        rows, columns = np.triu_indices(len(members), k=1)
        flat = tf.reshape(gram, [-1, len(members) ** 2])
        products.append(tf.gather(flat, rows * len(members) + columns, axis=1))
    return products
