"""RnR against NumPy, and which phase learns from what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.reference import (
    Truth,
    check_each_weight_matters,
    close,
    features,
    make,
    with_spec,
)
from tfmtl._keras import tf
from tfmtl.data.read import Batch
from tfmtl.errors import ConfigError
from tfmtl.losses import TaskLosses

TASKS = [
    {"name": "click", "label": "click"},
    {"name": "like", "label": "like", "type": "regression"},
]
SETTINGS: dict[str, Any] = {"units": 3}


def rnr(tasks: Any = TASKS, **changes: Any) -> Any:
    return make("RnR", with_spec(tasks=tasks), **{**SETTINGS, **changes})


def parts(model: Any) -> tuple[np.ndarray, ...]:
    x = model.embedding(features()).fields
    item = features()["item"].numpy()
    return x["user"].numpy(), x["item"].numpy(), features()["user"].numpy(), item


def rating(model: Any, activation: Any = np.tanh, delta: bool = True) -> Truth:
    p, q, user, item = parts(model)
    rank = (p * q).sum(1) + model.popularity._columns[0].numpy()[item]
    w, c = model.perception.kernel[0].numpy(), model.perception.bias[0].numpy()
    moved = q + model.deviation.table.numpy()[item] if delta else q
    rate = (activation(p @ w + c) * activation(moved @ w + c)).sum(1)
    rate = rate + model.user_habit._columns[0].numpy()[user]
    rate = rate + model.item_habit._columns[0].numpy()[item]
    return {"click": rank, "like": rate}


def test_equals_numpy() -> None:
    model = rnr()
    assert close(model, rating(model))
    assert not close(model, rating(model, delta=False)), "the deviation is lost"
    assert not close(model, rating(model, activation=lambda v: v))
    check_each_weight_matters(model, rating)
    table = model.deviation.table
    table.assign_add(tf.ones(table.shape))
    assert close(model, rating(model))


def test_without_deviation_and_layer_both_phases_are_one_product() -> None:
    model = rnr(activation="linear", units=4)
    layer = model.perception
    layer._kernels[0].assign(np.eye(4, dtype=np.float32)[None])
    layer._biases[0].assign(tf.zeros_like(layer._biases[0]))
    model.deviation.table.assign(tf.zeros_like(model.deviation.table))
    p, q, user, item = parts(model)
    product = (p * q).sum(1)
    found = model(features())
    rate = found["like"].numpy() - model.user_habit._columns[0].numpy()[user]
    rate -= model.item_habit._columns[0].numpy()[item]
    rank = found["click"].numpy() - model.popularity._columns[0].numpy()[item]
    np.testing.assert_allclose(rate, product, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rank, product, rtol=1e-4, atol=1e-5)


def test_the_deviation_learns_from_ratings_alone() -> None:
    model = rnr()
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(features())
    assert tape.gradient(outputs["click"], model.deviation.table) is None
    assert tape.gradient(outputs["like"], model.deviation.table) is not None


def test_rows_without_a_rating_leave_the_rating_loss_alone() -> None:
    model = rnr()
    losses = TaskLosses(model.tasks, {t.name: t.name for t in model.tasks})
    rated = np.arange(50) % 3 == 0
    mask = tf.constant(np.stack([np.ones(50, bool), rated], axis=1))
    found = []
    for unrated in (0.0, 5.0):
        label = np.where(rated, 1.5, unrated)
        labels = tf.constant(np.stack([rated, label], axis=1), tf.float32)
        batch = Batch(features(), labels, mask, tf.ones([50, 2]), {})
        logits = model(batch.features)
        found.append(losses(logits, labels, mask, batch.weights)[0].numpy()[1])
    assert found[0] == found[1]


def test_one_layer_gets_the_gradients_of_both_sides() -> None:
    model = rnr()
    layer = model.perception
    assert sum(v is layer._kernels[0] for v in model.trainable_variables) == 1
    with tf.GradientTape(persistent=True) as tape:
        whole = tf.reduce_sum(model(features())["like"])
        p, q, _, item = (tf.constant(v) for v in parts(model))
        q += tf.gather(model.deviation.table, item)
        kernel = layer._kernels[0]
        user, thing = layer(p)[:, 0], layer(q)[:, 0]
        left = tf.reduce_sum(user * tf.stop_gradient(thing))
        right = tf.reduce_sum(tf.stop_gradient(user) * thing)
    total = tape.gradient(whole, kernel)
    sides = [tape.gradient(s, kernel) for s in (left, right)]
    assert all(np.abs(s).max() > 1e-3 for s in sides)
    np.testing.assert_allclose(total, sides[0] + sides[1], rtol=1e-4, atol=1e-4)


def test_two_ranked_tasks_have_products_of_their_own() -> None:
    more = [TASKS[0], {"name": "buy", "label": "buy"}, TASKS[1]]
    model = rnr(more)
    p, q, _, item = parts(model)
    truth = {}
    for i, name in enumerate(("click", "buy")):
        scale = model.rank_scale._weights[i].numpy()
        truth[name] = (p * q * scale).sum(1)
        truth[name] = truth[name] + model.popularity._columns[i].numpy()[item]
    assert close(model, truth)


@pytest.mark.parametrize(
    ("tasks", "changes", "message"),
    [
        (TASKS[:1], {}, "tasks to rate"),
        (TASKS, {"rating": ["click", "like"]}, "not all"),
        (TASKS, {"item": "price"}, "price"),
        (TASKS, {"rating": ["stars"]}, "stars"),
    ],
)
def test_impossible_settings_are_refused(
    tasks: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        rnr(tasks, **changes)
