"""What NumPy forward passes share: data, weights that hide nothing, and plain layers.

The references read nothing of the layers but their weights, and start at the embedded
input: the papers say nothing of how features become vectors.
"""

from __future__ import annotations

import functools
import pathlib
import tempfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tfmtl import build
from tfmtl._keras import tf
from tfmtl.models import MODELS
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.testing.tiny import tiny_columns, tiny_dataset, tiny_spec

Truth = dict[str, np.ndarray]

TASKS = ("click", "like", "buy")
OUTPUTS = ("click", "like", "buy|click")


@functools.cache
def manifest() -> DatasetManifest:
    with tempfile.TemporaryDirectory() as folder:
        return tiny_dataset(pathlib.Path(folder))


def with_spec(**changes: Any) -> DatasetManifest:
    """The tiny data set's manifest with parts of the specification replaced."""
    return manifest().model_copy(update={"dataset": tiny_spec(**changes)})


def single_task() -> DatasetManifest:
    return with_spec(tasks=[{"name": "click", "label": "click"}])


@functools.cache
def features() -> dict[str, Any]:
    """50 rows of the tiny data set."""
    columns, result = tiny_columns(50, seed=3), {}
    for column in manifest().columns:
        if "/" in column.name:
            continue
        value = columns[column.name]
        if column.shape == "ragged":
            padded = np.zeros((50, column.size), np.int32)
            for row, ids in enumerate(value):
                padded[row, : len(ids)] = ids
            value = padded
        kind = np.int32 if column.dtype == "int" else np.float32
        result[column.name] = tf.constant(np.asarray(value).astype(kind))
    return result


def make(name: str, data: DatasetManifest | None = None, **config: Any) -> Any:
    """A model whose every weight was moved off its start, biases and zeros too."""
    data = data or manifest()
    found = MODELS[name]
    model = found(data, found.Config(**config), seed=1)
    model(build.empty_features(data))
    for variable in model.trainable_variables:
        # Without the name of the model, which counts the models of a process.
        path = variable.name.partition("/")[2]
        draw = np.random.default_rng(zlib.crc32(path.encode()))
        spread = draw.normal(size=variable.shape)
        variable.assign_add(0.3 * spread.astype(np.float32))
    return model


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    x = np.exp(x - x.max(axis=axis, keepdims=True))
    return x / x.sum(axis=axis, keepdims=True)


def flat(model: Any) -> np.ndarray:
    return model.embedding(features()).flat.numpy().astype(np.float64)


def mlp(x: np.ndarray, stack: Any, member: int) -> np.ndarray:
    """One member of a `StackedMLP`."""
    for layer in stack.layers:
        x = relu(x @ layer.kernel[member].numpy() + layer.bias[member].numpy())
    return x


def tower(x: np.ndarray, model: Any, t: int) -> np.ndarray:
    """Tower t of `model.towers`: [B, H] -> logits [B]."""
    x = mlp(x, model.towers.hidden, t)
    head = model.towers.head
    return (x @ head.kernel[t].numpy() + head.bias[t].numpy())[:, 0]


def close(model: Any, truth: Truth) -> bool:
    """Whether the model's outputs are the reference's."""
    found = model(features())
    return all(np.allclose(found[o], truth[o], rtol=1e-4, atol=1e-4) for o in truth)


def check_each_weight_matters(
    model: Any, reference: Callable[[Any], Truth], skip: tuple[str, ...] = ()
) -> None:
    """Perturbing any variable alone must break the equality with the reference before.

    Args:
        model: Equal to the reference as it is.
        reference: Model to outputs.
        skip: Parts of names of variables that no output depends on.
    """
    truth = reference(model)
    assert close(model, truth)
    for group, variables in model.variable_groups().items():
        for variable in variables:
            if group.partition("/")[0] == "embedding":
                continue
            if any(part in variable.name for part in skip):
                continue
            before = variable.numpy()
            variable.assign_add(tf.random.stateless_normal(variable.shape, [1, 2]))
            assert not close(model, truth), variable.name
            variable.assign(before)
    assert close(model, truth)
