"""DeepMCP against NumPy forward passes of its three parts, and its properties."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.parity.reference import (
    TASKS,
    Truth,
    check_each_weight_matters,
    close,
    features,
    flat,
    make,
    mlp,
    relu,
    sigmoid,
    tower,
    with_spec,
)
from tfmtl._keras import tf
from tfmtl.data.read import Batch
from tfmtl.errors import ConfigError
from tfmtl.losses import TaskLosses
from tfmtl.models import MODELS
from tfmtl.models.deep_mcp import correlation_loss
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.testing.tiny import CROSS, TIMED_KEYS
from tfmtl.training.trainer import forward

Q, K = 3, 5
ITEM = ("item", "tags", "price", "text")
ITEM_COLUMNS = ("item", "tags", "price", "price_missing", "text")
CONFIG: dict[str, Any] = {
    "units": [7],
    "matching_units": [6, K],
    "correlation_units": [6, 4],
    "negatives": Q,
}


def timed(**changes: Any) -> DatasetManifest:
    return with_spec(keys=TIMED_KEYS, **changes)


def deep_mcp(data: DatasetManifest | None = None, **config: Any) -> Any:
    return make("DeepMCP", data or timed(), **{**CONFIG, **config})


@functools.cache
def drawn() -> dict[str, np.ndarray]:
    """Rows of items for [context, Q negatives] of each row, and the mask."""
    draw = np.random.default_rng(7)
    rows = draw.integers(0, 50, (50, 1 + Q))
    return {"rows": rows, "mask": draw.random(50) < 0.4}


def training_features(**changes: Any) -> dict[str, Any]:
    """`features()` with items drawn from its own rows."""
    x, rows = {**features(), **changes}, drawn()["rows"]
    for column in ITEM_COLUMNS:
        x[f"context/{column}"] = tf.gather(x[column], rows[:, 0])
        x[f"negative/{column}"] = tf.gather(x[column], rows[:, 1:])
    x["context/mask"] = tf.constant(drawn()["mask"])
    return x


def encoded(x: np.ndarray, encoder: Any, last: Callable[..., Any]) -> np.ndarray:
    x, top = mlp(x, encoder.hidden, 0), encoder.last
    return np.asarray(last(x @ top.kernel[0].numpy() + top.bias[0].numpy()))


def item_vectors(model: Any) -> np.ndarray:
    """[50, D], fields of the items side by side."""
    found = model.embedding(features()).features
    return np.concatenate([found[n].numpy() for n in ITEM], axis=1)


def prediction(model: Any) -> Truth:
    shared = mlp(flat(model), model.trunk, 0)
    outputs = ("click", "like", "buy|click")
    return {o: tower(shared, model, t) for t, o in enumerate(outputs)}


def matching(model: Any, last: Callable[..., Any] = np.tanh) -> np.ndarray:
    """s_m, [50]."""
    x = model.embedding(features())
    user = [x.features[n].numpy() for n in ("user", "hist")]
    user = np.concatenate([*user, x.scenario_vector.numpy()], axis=1)
    left = encoded(user, model.matching_user, last)
    right = encoded(item_vectors(model), model.matching_item, last)
    return (left * right).sum(axis=1)


def correlation(
    model: Any, last: Callable[..., Any] = np.tanh, wrong: str = ""
) -> float:
    """L_c, pair by pair."""
    network = model.matching_item if wrong == "network" else model.correlation
    m = encoded(item_vectors(model), network, last)
    losses = []
    for row in np.flatnonzero(drawn()["mask"]):
        context, *negatives = drawn()["rows"][row]
        terms = [np.log(sigmoid(-m[row] @ m[n])) for n in negatives]
        total = np.mean(terms) if wrong == "mean" else np.sum(terms)
        losses.append(-np.log(sigmoid(m[row] @ m[context])) - total)
    return float(np.sum(losses) / 50 if wrong == "batch" else np.mean(losses))


def batch() -> Batch:
    draw = np.random.default_rng(3)
    labels = (draw.random((50, 3)) < 0.4).astype(np.float32)
    labels[:, 2] *= labels[:, 0]
    return Batch(
        training_features(),
        tf.constant(labels),
        tf.constant(draw.random((50, 3)) < 0.9),
        tf.ones([50, 3]),
        {},
    )


def losses_of(model: Any) -> TaskLosses:
    return TaskLosses(
        model.tasks, {t.name: model.trained_output(t) for t in model.tasks}
    )


def networks(model: Any) -> list[Any]:
    parts = ("matching_user", "matching_item", "correlation")
    return [v for p in parts for v in getattr(model, p).trainable_variables]


# === Parity ===


def test_prediction_equals_numpy() -> None:
    model = deep_mcp(tower_units=[4])
    assert close(model, prediction(model))
    check_each_weight_matters(model, prediction, skip=("matching", "correlation"))


def _check_each_weight(
    found: Callable[[], Any], truth: Callable[[], Any], variables: list[Any]
) -> None:
    """Equal, and unequal to what it was as soon as any variable is moved."""
    before = truth()
    np.testing.assert_allclose(found(), before, rtol=1e-4, atol=1e-5)
    for variable in variables:
        value = variable.numpy()
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, 2]))
        assert np.abs(found() - before).max() > 1e-4, variable.name
        np.testing.assert_allclose(found(), truth(), rtol=1e-4, atol=1e-5)
        variable.assign(value)


def test_matching_equals_numpy() -> None:
    model = deep_mcp()

    def found() -> np.ndarray:
        (name,) = model.extra_losses()
        return np.asarray(model(training_features(), training=True)[name])

    encoders = [model.matching_user, model.matching_item]
    weights = [v for e in encoders for v in e.trainable_variables]
    _check_each_weight(found, lambda: matching(model), weights)
    assert np.abs(found() - matching(model, last=relu)).max() > 0.1


def test_correlation_equals_numpy() -> None:
    model = deep_mcp(beta=0.5)

    def found() -> float:
        model(training_features(), training=True)
        return float(model.aux_losses()["correlation"])

    weights = model.correlation.trainable_variables
    _check_each_weight(found, lambda: 0.5 * correlation(model), weights)
    truth = correlation(model)
    assert abs(correlation(model, last=relu) - truth) > 1e-2
    for wrong in ("mean", "batch"):
        assert abs(correlation(model, wrong=wrong) - truth) > 1e-2, wrong
    twin = deep_mcp(correlation_units=[6, K])
    assert abs(correlation(twin, wrong="network") - correlation(twin)) > 1e-2


def test_the_loss_is_the_weighted_sum() -> None:
    model, rows = deep_mcp(alpha=3.0, beta=0.5), batch()
    _, _, penalty = forward(model, losses_of(model), rows)
    p = sigmoid(matching(model))
    y, held = rows.labels.numpy()[:, 0], rows.mask.numpy()[:, 0]
    crossed = -(y * np.log(p) + (1 - y) * np.log(1 - p))[held].mean()
    wanted = 3.0 * crossed + 0.5 * correlation(model)
    assert float(penalty) == pytest.approx(wanted, rel=1e-4)


# === Properties ===


def test_without_weights_the_helping_networks_get_no_gradient() -> None:
    model = deep_mcp()
    variables = networks(model)
    assert len(variables) == 12
    model.config = model.config.model_copy(update={"alpha": 0.0, "beta": 0.0})
    with tf.GradientTape() as tape:
        losses, _, penalty = forward(model, losses_of(model), batch())
        total = tf.reduce_sum(losses) + penalty
    for variable, gradient in zip(variables, tape.gradient(total, variables)):
        assert gradient is None or not np.any(gradient), variable.name


def test_the_loss_of_prediction_reaches_the_embeddings_alone() -> None:
    model = deep_mcp()
    tables = model.variable_groups()["embedding"]
    with tf.GradientTape(persistent=True) as tape:
        losses, _, penalty = forward(model, losses_of(model), batch())
        predicted = tf.reduce_sum(losses)
    assert tape.gradient(predicted, networks(model)) == [None] * 12
    assert all(np.any(g) for g in tape.gradient(penalty, networks(model)))
    for loss in (predicted, penalty):
        assert any(
            g is not None and np.any(g.values) for g in tape.gradient(loss, tables)
        )
    rest = [*model.trunk.trainable_variables, *model.towers.trainable_variables]
    assert tape.gradient(penalty, rest) == [None] * len(rest)


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        ({"alpha": 0.0}, {"correlation"}),
        ({"beta": 0.0}, {"matching_user", "matching_item"}),
        ({"alpha": 0.0, "beta": 0.0}, set()),
    ],
)
def test_what_has_no_weight_is_not_there(
    weights: dict[str, float], parts: set[str]
) -> None:
    model = deep_mcp(**weights)
    names = "/".join(v.name for v in model.variables)
    for part in ("matching_user", "matching_item", "correlation"):
        assert (f"/{part}/" in names) == (part in parts), part
    assert close(model, prediction(model))
    losses, _, penalty = forward(model, losses_of(model), batch())
    assert np.isfinite(losses).all()
    assert (float(penalty) > 0) == bool(parts)
    assert (model.samples(timed(), model.config) is None) == ("beta" in weights)


def test_what_is_served_holds_the_prediction_alone() -> None:
    model = deep_mcp()

    @tf.function(autograph=False)
    def serve(x: Any) -> Any:
        return model(x, training=False)

    read = {v.name for v in serve.get_concrete_function(features()).variables}
    assert not [n for n in read if "matching" in n or "correlation" in n]
    assert any("/trunk/" in n for n in read) and any("/towers/" in n for n in read)
    assert {*model(features())} == {*TASKS, "buy|click"}


def test_no_inner_product_exceeds_its_width() -> None:
    model = deep_mcp()
    for variable in networks(model):
        variable.assign(100 * variable)
    (name,) = model.extra_losses()
    products = model(training_features(), training=True)[name].numpy()
    assert np.abs(products).max() <= K
    assert np.abs(products).max() > 0.9 * K  # saturated: the bound is met
    assert products.min() < 0


def test_a_target_of_zeros_costs_ln_2_a_term() -> None:
    vectors = np.random.default_rng(0).normal(size=(8, 2 + Q, 4)).astype(np.float32)
    vectors[:, 0] = 0
    found = float(correlation_loss(tf.constant(vectors)))
    assert found == pytest.approx((1 + Q) * np.log(2), rel=1e-6)
    vectors[:, 0] = 0.3
    assert abs(float(correlation_loss(tf.constant(vectors))) - found) > 0.01


def test_no_pair_no_loss_and_finite_gradients() -> None:
    model = deep_mcp()
    none = {**training_features(), "context/mask": tf.zeros([50], tf.bool)}
    for x in (none, features()):
        with tf.GradientTape() as tape:
            model(x, training=True)
            loss = model.aux_losses()["correlation"]
        assert float(loss) == 0
        variables = model.trainable_variables
        for gradient in tape.gradient(loss, variables):
            assert gradient is None or not np.any(tf.convert_to_tensor(gradient))


def test_padding_does_not_count() -> None:
    model = deep_mcp()
    (name,) = model.extra_losses()

    def outputs() -> dict[str, np.ndarray]:
        found = model(training_features(), training=True)
        loss = model.aux_losses()["correlation"]
        return {k: np.asarray(v) for k, v in {**found, "L_c": loss}.items()}

    before = outputs()
    assert name in before and (features()["tags"].numpy() == 0).any()
    # Row 0 of both vocabularies: padding of the tags, and of the history's items.
    slots = {s.column: s for s in model.embedding._slots}
    assert (features()["item"].numpy() > 0).all()
    for column in ("tags", "hist_item"):
        table = model.embedding._tables[slots[column].table]
        value = table.numpy()
        value[slots[column].offset] += 1e3
        table.assign(value)
    for key, value in outputs().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


def test_each_network_reads_its_side_alone() -> None:
    attending = [
        {**f.model_dump(), "pooling": "attention", "query": "item"}
        if f.name == "hist"
        else f.model_dump()
        for f in timed().dataset.features
    ]
    model = deep_mcp(timed(features=[*attending, CROSS]))
    changed = {
        "item": tf.roll(features()["item"], 1, 0),
        "user": tf.roll(features()["user"], 1, 0),
        "user_item": tf.roll(features()["user_item"], 1, 0),
    }

    def read(column: str | None) -> dict[str, np.ndarray]:
        x = {**features(), **({column: changed[column]} if column else {})}
        user, item = model.match(model.embedding(x))
        m = model.encode_items({c: x[c] for c in ITEM_COLUMNS})
        found = {"user": user, "item": item, "m": m, "click": model(x)["click"]}
        return {k: v.numpy() for k, v in found.items()}

    before = read(None)
    for column, moved in {
        "item": {"item", "m", "click"},
        "user": {"user", "click"},
        "user_item": {"click"},
    }.items():
        after = read(column)
        differ = {k for k in before if np.abs(after[k] - before[k]).max() > 1e-6}
        assert differ == moved, column


# === What is drawn, what is refused ===


def test_columns_of_a_side_tables_vector_hold_its_key() -> None:
    vector = {"name": "image", "kind": "vector", "size": 2, "table": "t"}
    data = timed(
        more_features=[{**vector, "side": "item"}],
        side_tables={"t": {"path": "x", "key": "k", "feature": "user"}},
    )
    found = MODELS["DeepMCP"]
    samples = found.samples(data, found.Config(window=3, negatives=2))
    assert samples is not None
    assert samples.columns == (*ITEM_COLUMNS, "user")
    assert (samples.task, samples.item) == ("click", "item")
    assert (samples.window, samples.negatives, samples.power) == (3, 2, 0.75)


def test_several_kinds_of_tasks() -> None:
    tasks = [
        {"name": "price", "label": "p", "type": "regression"},
        {"name": "kind", "label": "k", "type": "multiclass", "classes": 3},
        {"name": "like", "label": "like"},
    ]
    model = deep_mcp(timed(tasks=tasks))
    assert model.task == "like"
    assert {k: v.shape.rank for k, v in model(features()).items()} == {
        "price": 1,
        "kind": 2,
        "like": 1,
    }
    with pytest.raises(ConfigError, match=r"`model.config.task`.*\['like'\]"):
        deep_mcp(timed(tasks=tasks), task="price")
    with pytest.raises(ConfigError, match=r"`model.config.task`.*binary tasks: \[\]"):
        deep_mcp(timed(tasks=tasks[:2]))
    assert deep_mcp(timed(tasks=tasks[:2]), alpha=0, beta=0).task is None


def test_both_sides_are_needed() -> None:
    def only(side: str) -> DatasetManifest:
        kept = [f.model_dump() for f in timed().dataset.features if f.side == side]
        return timed(features=kept, scenario=None)

    with pytest.raises(ConfigError, match="features of side `item`"):
        deep_mcp(only("user"))
    with pytest.raises(ConfigError, match=r"`user` or `context`.*alpha: 0"):
        deep_mcp(only("item"))
    twice = [{"name": "other", "kind": "categorical", "side": "item"}]
    with pytest.raises(ConfigError, match=r"`model.config.item`.*\['item', 'other'\]"):
        deep_mcp(timed(more_features=twice))
