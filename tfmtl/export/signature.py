"""The served module: raw columns -> transform graph -> model -> probabilities."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from tfmtl._keras import tf
from tfmtl.fusion import graph
from tfmtl.losses.units import to_unit
from tfmtl.models.base import MultiTaskModel
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.feature import SequenceFeature
from tfmtl.schema.fusion import SCORE, FusionSpec
from tfmtl.schema.manifest import ServedInput, served_inputs
from tfmtl.schema.task import outputs_of

MISSING_INT = -(2**63)
_DTYPES = {"string": "string", "float": "float32", "int64": "int64"}


def served_outputs(dataset: DatasetSpec, chosen: tuple[str, ...] | None) -> list[str]:
    """Outputs of the served model: the chosen tasks', or all main tasks'.

    A binary task with `given` answers twice: `buy|click` and `buy`.
    """
    names = []
    for name, task in outputs_of(dataset.tasks).items():
        wanted = task.role == "main" if chosen is None else task.name in chosen
        if wanted:
            names.append(name)
    return names


class ServingModule(tf.Module):
    """A model with its transform graph inside; stock TensorFlow ops only.

    Saved are the two signatures, the variables they read, and the transform's tables
    and vocabularies. The model itself is not an attribute: Keras would trace it and all
    its layers again, in training mode too, which takes ten times as long and carries
    along what serving never runs.

    Args:
        model: The trained model.
        transform: The loaded transform graph, `SavedModelLoader`.
        outputs: Names of the outputs to answer.
        fusion: How outputs, answered or not, become one more, `score`; or None.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        transform: Any,
        outputs: list[str],
        fusion: FusionSpec | None = None,
    ) -> None:
        super().__init__(name="tfmtl_serving")
        self._forward = functools.partial(_forward, model)
        self._apply = transform.apply_transform_model
        # Its attributes hold the tables and vocabulary files.
        self._transform_state = dict(vars(transform))
        self._outputs = tuple(outputs)
        self._fusion = fusion
        self._columns = model.manifest.columns
        dataset = model.manifest.dataset
        self._inputs = served_inputs(dataset)
        self._tasks = outputs_of(dataset.tasks)
        self._sequences = [
            [f"{f.name}_{c.name}" for c in f.columns]
            for f in dataset.features
            if isinstance(f, SequenceFeature)
        ]
        self.serving_default = tf.function(self._predict, autograph=False)
        self.examples = tf.function(
            self._examples,
            autograph=False,
            input_signature=[tf.TensorSpec([None], tf.string, "examples")],
        )

    def signatures(self) -> dict[str, Any]:
        """`serving_default` and `examples` as concrete functions."""
        specs = {i.name: input_spec(i) for i in self._inputs}
        signatures = {
            "serving_default": self.serving_default.get_concrete_function(**specs),
            "examples": self.examples.get_concrete_function(),
        }
        read = {v.ref(): v for f in signatures.values() for v in f.variables}
        self._variables_read = list(read.values())
        return signatures

    def _predict(self, **raw: Any) -> dict[str, Any]:
        """Raw columns (shapes: `served_inputs`) -> output to [B] or [B, C]."""
        ready = {}
        for item in self._inputs:
            value = raw[item.name]
            ready[item.name] = _all_values(value) if item.shape == "list" else value
        features = self._apply(ready)
        outputs = self._forward(self._dense(features))
        needed = (*self._outputs, *(self._fusion.used if self._fusion else ()))
        served = {
            name: tf.identity(to_unit(self._tasks[name], outputs[name]))
            for name in dict.fromkeys(needed)
        }
        answer = {name: served[name] for name in self._outputs}
        if self._fusion is not None:
            answer[SCORE] = tf.identity(graph.fuse(served, self._fusion))
        return answer

    def _dense(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The transform's outputs as the records' columns: padded, ids in 32 bits."""
        result = {}
        for column in self._columns:
            if "/" in column.name:
                continue
            value = features[column.name]
            if column.shape == "ragged":
                if isinstance(value, tf.SparseTensor):
                    value = tf.RaggedTensor.from_sparse(value)
                value = value.to_tensor(shape=[None, column.size])
            result[column.name] = tf.cast(
                value, tf.int32 if column.dtype == "int" else tf.float32
            )
        return result

    def _examples(self, serialized: Any) -> dict[str, Any]:
        """Serialized `tf.Example`s [B]; a feature that is absent takes its default."""
        parsed = tf.io.parse_example(
            serialized, {i.name: _parsing_spec(i) for i in self._inputs}
        )
        raw = {}
        for item in self._inputs:
            value = parsed[item.name]
            raw[item.name] = (
                value.to_tensor(_missing(item)) if item.shape == "list" else value
            )
        return self._predict(**raw)


def _forward(model: Any, features: Mapping[str, Any]) -> Any:
    return model(features, training=False)


def input_spec(item: ServedInput) -> Any:
    """Type and shape of a served input."""
    shape: list[int | None] = [None]
    if item.shape == "list":
        shape = [None, None]
    elif item.shape == "vector":
        shape = [None, item.size]
    return tf.TensorSpec(shape, tf.dtypes.as_dtype(_DTYPES[item.dtype]), item.name)


def _missing(item: ServedInput) -> Any:
    return {"string": "", "float": float("nan"), "int64": MISSING_INT}[item.dtype]


def _parsing_spec(item: ServedInput) -> Any:
    dtype = tf.dtypes.as_dtype(_DTYPES[item.dtype])
    if item.shape == "list":
        return tf.io.RaggedFeature(dtype)
    if item.shape == "vector":
        assert item.size is not None
        return tf.io.FixedLenFeature([item.size], dtype, [_missing(item)] * item.size)
    return tf.io.FixedLenFeature([], dtype, _missing(item))


def _all_values(padded: Any) -> Any:
    """[B, L] -> the sparse list the transform reads; it drops missing values itself."""
    shape = tf.shape(padded, tf.int64)
    rows, places = tf.meshgrid(tf.range(shape[0]), tf.range(shape[1]), indexing="ij")
    indices = tf.reshape(tf.stack([rows, places], axis=2), [-1, 2])
    return tf.SparseTensor(indices, tf.reshape(padded, [-1]), shape)
