"""The transform graph: raw columns to ids and numbers, in training and in serving.

The graph holds constants only (means, boundaries, vocabulary files): the job learns
them beforehand from Arrow batches. TensorFlow Transform traces and saves it, so that
`tft.TFTransformOutput(dataset / "transform")` reads it like any other.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import columns, plan
from tfmtl.schema.dataset import DatasetSpec, vocabulary_names
from tfmtl.schema.feature import (
    CrossFeature,
    NumericFeature,
    SequenceFeature,
    TimeFeature,
    VectorFeature,
)
from tfmtl.schema.manifest import VocabularyStats

CROSS_SEPARATOR = "\x1f"

Ragged = tuple[np.ndarray, np.ndarray]
"""Values and row lengths."""


@dataclasses.dataclass(frozen=True)
class Learnt:
    """What the graph needs to know about the training split.

    Attributes:
        vocabularies: Vocabulary to its file, for the learnt ones.
        stats: Vocabulary to its sizes, for all.
        means: Numeric feature to its mean (after log1p).
        stds: Numeric feature to its standard deviation; 1 where it is constant.
        boundaries: Bucketized numeric feature to its boundaries.
    """

    vocabularies: Mapping[str, str]
    stats: Mapping[str, VocabularyStats]
    means: Mapping[str, float]
    stds: Mapping[str, float]
    boundaries: Mapping[str, list[float]]


def write(dataset: DatasetSpec, learnt: Learnt, directory: pathlib.Path) -> None:
    """Traces the graph and writes what `tft.TFTransformOutput(directory)` reads.

    Args:
        dataset: The data specification.
        learnt: The constants.
        directory: Receives transform_fn, transformed_metadata and metadata.
    """
    from tfmtl._keras import tf  # noqa: F401  (decides the Keras before TFT does)

    # isort: split
    import tensorflow_transform as tft
    from tensorflow_transform import impl_helper
    from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io

    directory.mkdir(parents=True)
    features = feature_spec(dataset)
    impl_helper.analyze_in_place(
        preprocessing_fn(dataset, learnt),
        False,
        features,
        impl_helper.get_type_specs_from_feature_specs(features),
        str(directory),
    )
    metadata_io.write_metadata(
        dataset_metadata.DatasetMetadata.from_feature_spec(features),
        str(directory / tft.TFTransformOutput.RAW_METADATA_DIR),
    )


def feature_spec(dataset: DatasetSpec) -> dict[str, Any]:
    """The graph's inputs as TensorFlow parsing specs: lists are VarLenFeature."""
    from tfmtl._keras import tf

    spec: dict[str, Any] = {}
    for item in plan.raw_inputs(dataset):
        match item.kind:
            case "strings":
                spec[item.name] = tf.io.VarLenFeature(tf.string)
            case "floats":
                spec[item.name] = tf.io.VarLenFeature(tf.float32)
            case "vector":
                spec[item.name] = tf.io.FixedLenFeature([item.size], tf.float32)
            case kind:
                types = {"string": tf.string, "float": tf.float32, "time": tf.int64}
                spec[item.name] = tf.io.FixedLenFeature([], types[kind])
    return spec


def preprocessing_fn(
    dataset: DatasetSpec, learnt: Learnt
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The function that TensorFlow Transform traces."""

    def preprocess(inputs: Mapping[str, Any]) -> dict[str, Any]:
        return _Graph(dataset, learnt, inputs).outputs()

    return preprocess


class _Graph:
    """Builds the outputs of the graph from symbolic inputs, feature by feature."""

    def __init__(
        self, dataset: DatasetSpec, learnt: Learnt, inputs: Mapping[str, Any]
    ) -> None:
        from tfmtl._keras import tf

        self._tf = tf
        self._dataset = dataset
        self._learnt = learnt
        self._inputs = inputs
        self._tables: dict[str, Any] = {}
        self._vocabulary = {
            u.input: u.vocabulary for f in dataset.features for u in vocabulary_names(f)
        }

    def outputs(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for feature in self._dataset.features:
            match feature.kind:
                case "categorical":
                    out[feature.name] = self._ids(
                        feature.name, self._inputs[feature.name]
                    )
                case "multivalent":
                    out |= self._ragged([feature.name], feature.max_length, False, {})
                case "sequence":
                    out |= self._sequence(feature)
                case "numeric":
                    out |= self._numeric(feature)
                case "time":
                    out |= self._time(feature)
                case "cross":
                    out[feature.name] = self._cross(feature)
                case "vector":
                    out |= self._vector(feature)
        if self._dataset.scenario is not None:
            out["scenario"] = self._scenario(self._dataset.scenario.values)
        return out

    def _ids(self, name: str, values: Any) -> Any:
        """Ids of strings of any shape: 0 missing, OOV by hash, then known values."""
        tf = self._tf
        vocabulary = self._vocabulary[name]
        stats = self._learnt.stats[vocabulary]
        unknown = 1 + tf.strings.to_hash_bucket_fast(values, stats.oov_buckets)
        if vocabulary in self._learnt.vocabularies and stats.size:
            line = self._table(vocabulary).lookup(values)
            unknown = tf.where(line >= 0, 1 + stats.oov_buckets + line, unknown)
        return tf.where(values == "", tf.zeros_like(unknown), unknown)

    def _table(self, vocabulary: str) -> Any:
        import tensorflow_transform as tft

        tf = self._tf
        if vocabulary not in self._tables:
            index = tf.lookup.TextFileIndex

            def create() -> Any:
                initializer = tf.lookup.TextFileInitializer(
                    self._learnt.vocabularies[vocabulary],
                    tf.string,
                    index.WHOLE_LINE,
                    tf.int64,
                    index.LINE_NUMBER,
                )
                return tf.lookup.StaticHashTable(initializer, -1)

            # Tracked, so that the file becomes an asset of the saved model.
            self._tables[vocabulary] = tft.make_and_track_object(
                create, name=f"vocabulary_{len(self._tables)}"
            )
        return self._tables[vocabulary]

    def _ragged(
        self,
        names: list[str],
        max_length: int,
        newest: bool,
        boundaries: Mapping[str, tuple[float, ...]],
    ) -> dict[str, Any]:
        """Aligned lists: drops positions whose first value is missing, cuts, looks up.

        Padding of a served request is missing values at the end, so it goes the same
        way.
        """
        tf = self._tf
        first = self._dense(names[0])  # [B, L]
        present = (
            tf.logical_not(tf.math.is_nan(first))
            if names[0] in boundaries
            else first != ""
        )
        rank = tf.cumsum(tf.cast(present, tf.int32), axis=1, reverse=newest)
        keep = present & (rank <= max_length)
        out: dict[str, Any] = {}
        for name in names:
            dense = first if name == names[0] else self._aligned(name, tf.shape(first))
            kept = tf.ragged.boolean_mask(dense, keep)
            flat = kept.flat_values
            if name in boundaries:
                ids = self._buckets(flat, boundaries[name])
            else:
                ids = self._ids(name, flat)
            out[name] = kept.with_flat_values(ids)
        return out

    def _dense(self, name: str) -> Any:
        tf = self._tf
        sparse = self._inputs[name]
        missing = "" if sparse.dtype == tf.string else math.nan
        return tf.sparse.to_dense(sparse, default_value=missing)

    def _aligned(self, name: str, shape: Any) -> Any:
        """Pads or cuts an aligned list to the first list's width."""
        tf = self._tf
        dense = self._dense(name)
        missing = "" if dense.dtype == tf.string else math.nan
        short = tf.maximum(shape[1] - tf.shape(dense)[1], 0)
        padded = tf.pad(dense, [[0, 0], [0, short]], constant_values=missing)
        return padded[:, : shape[1]]

    def _sequence(self, feature: SequenceFeature) -> dict[str, Any]:
        boundaries = {
            f"{feature.name}_{c.name}": c.boundaries
            for c in feature.columns
            if c.boundaries is not None
        }
        names = [f"{feature.name}_{c.name}" for c in feature.columns]
        return self._ragged(names, feature.max_length, True, boundaries)

    def _buckets(self, values: Any, boundaries: tuple[float, ...] | list[float]) -> Any:
        """0 missing, else 1 + the number of boundaries <= x."""
        tf = self._tf
        missing = tf.math.is_nan(values)
        filled = tf.where(missing, tf.zeros_like(values), values)
        edges = tf.constant(np.asarray(boundaries, np.float32).reshape(-1))
        bucket = tf.searchsorted(edges, tf.reshape(filled, [-1]), side="right")
        bucket = tf.cast(tf.reshape(bucket, tf.shape(filled)), tf.int64)
        return tf.where(missing, tf.zeros_like(bucket), 1 + bucket)

    def _numeric(self, feature: NumericFeature) -> dict[str, Any]:
        tf = self._tf
        name = feature.name
        values = self._inputs[name]
        if feature.transform == "bucketize":
            return {name: self._buckets(values, self._learnt.boundaries[name])}
        missing = tf.logical_not(tf.math.is_finite(values))
        if feature.transform == "log1p":
            values = tf.sign(values) * tf.math.log1p(tf.abs(values))
        mean, std = self._learnt.means[name], self._learnt.stds[name]
        if feature.transform == "none":
            result = tf.where(missing, tf.constant(mean, tf.float32), values)
        else:
            scaled = (values - mean) / std
            result = tf.where(missing, tf.zeros_like(scaled), scaled)
        out = {name: result}
        if feature.indicator:
            out[f"{name}_missing"] = tf.cast(missing, tf.float32)
        return out

    def _time(self, feature: TimeFeature) -> dict[str, Any]:
        tf = self._tf
        ticks = self._inputs[feature.name]
        missing = tf.equal(ticks, plan.MISSING_TIME)
        seconds = tf.math.floordiv(
            tf.where(missing, tf.zeros_like(ticks), ticks),
            columns.PER_SECOND[feature.unit],
        ) + round(feature.utc_offset_hours * 3600)
        hour = 1 + tf.math.floormod(tf.math.floordiv(seconds, 3600), 24)
        # 1970-01-01 was a Thursday: day 0 is weekday 4.
        weekday = 1 + tf.math.floormod(tf.math.floordiv(seconds, 86_400) + 3, 7)
        parts = {"hour": hour, "weekday": weekday}
        return {
            f"{feature.name}_{p}": tf.where(missing, tf.zeros_like(ticks), parts[p])
            for p in feature.parts
        }

    def _cross(self, feature: CrossFeature) -> Any:
        tf = self._tf
        parts = [self._inputs[name] for name in feature.of]
        joined = tf.strings.join(parts, separator=CROSS_SEPARATOR)
        ids = 1 + tf.strings.to_hash_bucket_fast(joined, feature.buckets)
        missing = tf.reduce_any(tf.stack([p == "" for p in parts]), axis=0)
        return tf.where(missing, tf.zeros_like(ids), ids)

    def _vector(self, feature: VectorFeature) -> dict[str, Any]:
        tf = self._tf
        if feature.table is not None:
            return {}
        values = self._inputs[feature.name]
        finite = tf.math.is_finite(values)
        return {feature.name: tf.where(finite, values, tf.zeros_like(values))}

    def _scenario(self, known: tuple[str, ...]) -> Any:
        import tensorflow_transform as tft

        tf = self._tf

        def create() -> Any:
            initializer = tf.lookup.KeyValueTensorInitializer(
                list(known), list(range(len(known))), tf.string, tf.int64
            )
            return tf.lookup.StaticHashTable(initializer, len(known))

        table = tft.make_and_track_object(create, name="scenarios")
        return table.lookup(self._inputs["scenario"])


class Transformer:
    """Applies a saved transform graph to canonical Arrow batches."""

    def __init__(self, dataset: DatasetSpec, directory: pathlib.Path) -> None:
        from tfmtl._keras import tf

        # isort: split
        import tensorflow_transform as tft

        self._tf = tf
        self._items = plan.raw_inputs(dataset)
        # Held, since the function below only refers to it.
        self._layer = tft.TFTransformOutput(str(directory)).transform_features_layer()
        signature: dict[str, Any] = {}
        for name, spec in feature_spec(dataset).items():
            if isinstance(spec, tf.io.VarLenFeature):
                signature[name] = tf.SparseTensorSpec([None, None], spec.dtype)
            else:
                signature[name] = tf.TensorSpec([None, *spec.shape], spec.dtype)
        layer = self._layer
        self._call = tf.function(
            layer.call, input_signature=[signature], autograph=False
        )

    def __call__(self, batch: pa.RecordBatch) -> dict[str, np.ndarray | Ragged]:
        """Transforms a batch.

        Args:
            batch: Canonical rows.

        Returns:
            Column to [rows] or [rows, size] values, or to (values, lengths).
        """
        tf = self._tf
        outputs = self._call({i.name: self._tensor(i, batch) for i in self._items})
        found: dict[str, np.ndarray | Ragged] = {}
        for name, value in outputs.items():
            if isinstance(value, tf.RaggedTensor):
                lengths = value.row_lengths().numpy()
                found[name] = (value.flat_values.numpy(), lengths)
            else:
                found[name] = value.numpy()
        return found

    def _tensor(self, item: plan.RawInput, batch: pa.RecordBatch) -> Any:
        tf = self._tf
        array = batch.column(item.name)
        if item.kind == "string":
            return tf.constant(_objects(array), tf.string)
        if item.kind == "vector":
            flat = array.flatten().to_numpy(zero_copy_only=False)
            return tf.constant(flat.reshape(-1, item.size))
        if item.kind in ("float", "time"):
            return tf.constant(array.to_numpy(zero_copy_only=False))
        flat, lengths = columns.lists(array, None)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        starts = np.cumsum(lengths) - lengths
        position = np.arange(len(flat)) - np.repeat(starts, lengths)
        longest = int(lengths.max()) if len(lengths) else 0
        if item.kind == "strings":
            values = tf.constant(_objects(flat), tf.string)
        else:
            values = tf.constant(flat.to_numpy(zero_copy_only=False))
        return tf.SparseTensor(
            np.stack([rows, position], axis=1).astype(np.int64),
            values,
            [len(lengths), longest],
        )


def _objects(array: pa.Array) -> np.ndarray:
    return np.asarray(pc.cast(array, pa.large_binary()).to_numpy(zero_copy_only=False))
