"""DUPN learns from what was done, not only from what it was done to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.reference import with_spec
from tfmtl import build
from tfmtl._keras import keras, tf
from tfmtl.metrics.exact import auc
from tfmtl.models import MODELS
from tfmtl.testing.tiny import tiny_columns

ROWS, STEPS = 600, 60
SETTINGS = {
    "lstm_units": 12,
    "attention_units": [8],
    "user_units": 4,
    "item_units": 4,
    "tower_units": [8],
}


@pytest.fixture(scope="module")
def rows() -> tuple[dict[str, Any], np.ndarray]:
    """Tiny rows, each with a history; the label is how the newest event was done."""
    data = with_spec(tasks=[{"name": "click", "label": "click"}])
    columns, features = tiny_columns(2 * ROWS, seed=5), {}
    draw = np.random.default_rng(6)
    length = draw.integers(1, 5, 2 * ROWS)
    columns["hist_item"] = [draw.integers(1, 22, n) for n in length]
    columns["hist_age"] = [draw.integers(1, 4, n) for n in length]
    label = np.array([ages[-1] == 3 for ages in columns["hist_age"]], np.float32)
    for column in data.columns:
        if "/" in column.name:
            continue
        value = columns[column.name]
        if column.shape == "ragged":
            padded = np.zeros((2 * ROWS, column.size), np.int32)
            for row, ids in enumerate(value):
                padded[row, : len(ids)] = ids
            value = padded
        kind = np.int32 if column.dtype == "int" else np.float32
        features[column.name] = np.asarray(value).astype(kind)
    return features, label


def learn(properties: str, rows: tuple[dict[str, Any], np.ndarray]) -> float:
    """Trains on half of the rows; the AUC of the other half."""
    data = with_spec(tasks=[{"name": "click", "label": "click"}])
    found = MODELS["DUPN"]
    model = found(data, found.Config(**SETTINGS, properties=properties), seed=1)
    model(build.empty_features(data))
    features, label = rows
    train = {name: tf.constant(values[:ROWS]) for name, values in features.items()}
    optimizer = keras.optimizers.legacy.Adam(0.02)

    @tf.function(autograph=False)
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.nn.sigmoid_cross_entropy_with_logits(
                label[:ROWS], model(train, training=True)["click"]
            )
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))

    for _ in range(STEPS):
        step()
    fresh = {name: tf.constant(values[ROWS:]) for name, values in features.items()}
    return auc(label[ROWS:], model(fresh, training=False)["click"].numpy())


@pytest.mark.parametrize("properties", ["all", "bplstm"])
def test_a_label_of_the_property_is_learnt_where_the_gates_read_it(
    rows, properties
) -> None:
    assert learn(properties, rows) > 0.95


def test_the_ablation_without_properties_cannot_learn_it(rows) -> None:
    assert abs(learn("nobp", rows) - 0.5) < 0.1
