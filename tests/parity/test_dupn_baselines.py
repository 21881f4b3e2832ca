"""Wide, WideDeep, DSSM and CNNMax against NumPy forward passes from the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.reference import (
    OUTPUTS,
    Truth,
    check_each_weight_matters,
    close,
    features,
    flat,
    make,
    mlp,
    tower,
    with_spec,
)
from tfmtl import build
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS
from tfmtl.optim import OptimizerGroups
from tfmtl.schema.experiment import OptimizerSpec
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.testing.tiny import CROSS, POSITION

TASKS = ("click", "like", "buy")
KIND = {"name": "kind", "label": "kind", "type": "multiclass", "classes": 3}
MULTICLASS = [{"name": "click", "label": "click"}, KIND]


def crossed(**changes: Any) -> DatasetManifest:
    return with_spec(more_features=[CROSS], **changes)


# === Wide, Wide & Deep ===

TABLE = ("user", "item", "tags", "hist_age", "user_item")
"""Vocabularies in the order of the wide part's one table."""
ROWS = {"user": 12, "item": 22, "tags": 8, "hist_age": 4, "user_item": 17}


def wide_logits(model: Any, tags: str = "mean", crosses: bool = True) -> np.ndarray:
    """[B, T], columns in the order of TASKS, without the bias."""
    x, layer = features(), model.wide
    (table,) = layer.embedding._tables.values()
    order = np.argsort(np.argsort(TASKS))  # columns are sorted by name
    weights, start = {}, 0
    for name in TABLE:
        weights[name] = table.numpy()[start : start + ROWS[name], order]
        start += ROWS[name]
    total = weights["user"][x["user"]] + weights["item"][x["item"]]
    if crosses:
        total = total + weights["user_item"][x["user_item"]]

    def bag(name: str, ids: Any, held: Any, pooling: str) -> np.ndarray:
        kept = np.asarray(held)[..., None]
        summed = (weights[name][ids] * kept).sum(axis=1)
        return summed / np.maximum(kept.sum(axis=1), 1) if pooling == "mean" else summed

    total += bag("tags", x["tags"], x["tags"] > 0, tags)
    in_history = x["hist_item"] > 0
    total += bag("item", x["hist_item"], in_history, "mean")
    total += bag("hist_age", x["hist_age"], in_history, "mean")
    scenario = layer.embedding._scenario_table.numpy()[:, order]
    scenario = np.vstack([scenario, scenario.mean(axis=0)])
    total += scenario[x["scenario"]]
    (projection,) = layer.embedding._projections.values()
    text = x["text"].numpy() @ projection.kernel[0].numpy()
    text += projection.bias[0].numpy()
    numbers = np.stack([x["price"], x["price_missing"]], axis=1)
    kernels = [of_task(model, t)["wide", "kernel"].numpy() for t in TASKS]
    dense = np.concatenate([numbers, text], axis=1)
    return np.asarray(total + dense @ np.concatenate(kernels, axis=1))


def path(variable: Any) -> str:
    """Its name without the model's."""
    return str(variable.name.partition("/")[2].partition(":")[0])


def of_task(model: Any, task: str) -> dict[tuple[str, str], Any]:
    """(layer, kind) to variable of a task's group."""
    found = {}
    for variable in model.variable_groups()[f"task/{task}"]:
        layer, *_, kind = path(variable).split("/")
        found[layer, kind] = variable
    return found


def wide(model: Any, **wrong: Any) -> Truth:
    logits = wide_logits(model, **wrong)
    bias = [of_task(model, t)["wide", "bias"].numpy() for t in TASKS]
    return {o: logits[:, t] + bias[t] for t, o in enumerate(OUTPUTS)}


def wide_deep(model: Any) -> Truth:
    a = mlp(flat(model), model.deep, 0)
    linear = wide_logits(model)
    return {o: linear[:, t] + tower(a, model, t) for t, o in enumerate(OUTPUTS)}


def test_wide_equals_numpy() -> None:
    model = make("Wide", crossed())
    assert close(model, wide(model))
    assert not close(model, wide(model, tags="sum"))
    assert not close(model, wide(model, crosses=False))
    check_each_weight_matters(model, wide)


def test_a_table_means_the_same_in_any_order_of_the_tasks() -> None:
    spec = crossed()
    tasks = spec.dataset.tasks[::-1]
    turned = spec.model_copy(
        update={"dataset": spec.dataset.model_copy(update={"tasks": tasks})}
    )
    one, two = make("Wide", spec), make("Wide", turned)
    by_path = {path(v): v for v in one.variables}
    for variable in two.trainable_variables:
        variable.assign(by_path[path(variable)])
    for output, value in one(features()).items():
        np.testing.assert_allclose(two(features())[output], value, rtol=1e-5)


def test_a_cross_counts_where_all_its_parts_are() -> None:
    model = make("Wide", crossed())
    for variable in model.variables:
        variable.assign(tf.zeros_like(variable))
    (table,) = model.wide.embedding._tables.values()
    start = sum(ROWS[n] for n in TABLE[:-1])
    pairs = [(u, i) for u in (3, 4) for i in (7, 8)]
    ids = {pair: 1 + n for n, pair in enumerate(pairs)}
    values = np.zeros(table.shape, np.float32)
    values[start + ids[3, 7], 0] = 1  # columns are sorted by name: buy is the first
    table.assign(values)
    rows = {k: v[: len(pairs)] for k, v in features().items()}
    rows["user"], rows["item"] = (tf.constant(v) for v in zip(*pairs))
    rows["user_item"] = tf.constant([ids[p] for p in pairs])
    np.testing.assert_allclose(model(rows)["buy|click"], [1, 0, 0, 0])
    np.testing.assert_array_equal(model(rows)["click"], np.zeros(4))


def test_wide_reads_what_it_is_told() -> None:
    model = make("Wide", crossed(), wide_features=["user", "price"])
    plain = model(features())["click"]
    for name, moves in (("user", True), ("item", False), ("user_item", False)):
        changed = model({**features(), name: (features()[name] + 1) % 12})["click"]
        assert (np.abs(changed - plain).max() > 1e-4) == moves, name
    with pytest.raises(ConfigError, match=r"wide_features.*Received: \['users'\]"):
        make("Wide", wide_features=["users"])


@pytest.mark.parametrize("name", ["Wide", "WideDeep"])
def test_linear_models_of_classes(name: str) -> None:
    more = {"deep_units": [4]} if name == "WideDeep" else {}
    found = make(name, crossed(tasks=MULTICLASS), **more)(features())
    assert {k: v.shape.as_list() for k, v in found.items()} == {
        "click": [50],
        "kind": [50, 3],
    }


def test_wide_starts_at_the_base_rates_with_empty_tables() -> None:
    found = MODELS["Wide"]
    model = found(crossed(), found.Config(), seed=1)
    model(build.empty_features(crossed()))
    (table,) = model.wide.embedding._tables.values()
    np.testing.assert_array_equal(table, np.zeros(table.shape))
    for task in model.tasks:
        bias = of_task(model, task.name)["wide", "bias"]
        np.testing.assert_allclose(bias, [model.initial_bias(task)], rtol=1e-6)
        assert abs(bias[0]) > 0.01


SMALL_DEEP = {"deep_units": [6, 4], "tower_units": [3]}


def test_wide_deep_equals_numpy() -> None:
    model = make("WideDeep", crossed(), **SMALL_DEEP)
    assert close(model, wide_deep(model))
    check_each_weight_matters(model, wide_deep)


def test_without_deep_weights_it_is_wide() -> None:
    both = make("WideDeep", crossed(), deep_units=[6])
    alone = make("Wide", crossed())
    by_path = {path(v): v for v in both.wide.embedding.variables}
    for variable in alone.wide.embedding.variables:
        variable.assign(by_path[path(variable)])
    for t, task in enumerate(TASKS):
        both.towers.head._kernels[t].assign(tf.zeros([6, 1]))
        ours, theirs = of_task(alone, task), of_task(both, task)
        ours["wide", "kernel"].assign(theirs["wide", "kernel"])
        ours["wide", "bias"].assign(both.towers.head._biases[t])
    found = both(features())
    for output, value in alone(features()).items():
        np.testing.assert_allclose(found[output], value, rtol=1e-5, atol=1e-5)


def test_without_wide_weights_it_is_a_network() -> None:
    """Shared-Bottom, which does not see the crosses."""
    both = make("WideDeep", crossed(), **SMALL_DEEP)
    for variable in both.wide.variables:
        variable.assign(tf.zeros_like(variable))
    plain = make("SharedBottom", bottom_units=[6, 4], tower_units=[3])
    pairs = (
        (plain.embedding, both.embedding),
        (plain.bottom, both.deep),
        (plain.towers, both.towers),
    )
    for ours, theirs in pairs:
        for a, b in zip(ours.weights, theirs.weights):
            a.assign(b)
    found = both(features())
    for output, value in plain(features()).items():
        np.testing.assert_allclose(found[output], value, rtol=1e-5, atol=1e-5)


def test_the_parts_share_no_table() -> None:
    model = make("WideDeep", crossed(), **SMALL_DEEP)
    linear = wide_logits(model)
    for variable in model.embedding.variables:
        variable.assign_add(tf.ones_like(variable))
    np.testing.assert_array_equal(wide_logits(model), linear)
    changed = {**features(), "user_item": (features()["user_item"] + 1) % 17}
    assert "user_item" not in model.embedding(changed).features


def test_ftrl_and_adagrad_part_the_variables_of_wide_deep() -> None:
    model = make("WideDeep", crossed(), **SMALL_DEEP)
    specs = {
        "default": OptimizerSpec.model_validate({"class": "Adagrad"}),
        "embedding/wide": OptimizerSpec.model_validate({"class": "Ftrl", "l1": 0.01}),
    }
    optimizers = OptimizerGroups(specs, model.variable_groups(), 10)
    parts = {k: {v.ref() for v in vs} for k, vs in optimizers.patterns.items()}
    ftrl, adagrad = parts["embedding/wide"], parts["default"]
    assert not ftrl & adagrad
    assert ftrl | adagrad == {v.ref() for v in model.trainable_variables}
    assert ftrl == {v.ref() for v in model.wide.embedding._tables.values()}
    with tf.GradientTape() as tape:
        total = tf.add_n([tf.reduce_sum(v) for v in model(features()).values()])
    before = [v.numpy() for v in optimizers.variables_in_order]
    optimizers.apply(tape.gradient(total, optimizers.variables_in_order))
    for variable, old in zip(optimizers.variables_in_order, before):
        assert np.abs(variable - old).max() > 0, variable.name


# === DSSM ===

SMALL_DSSM = {"shared_units": [6], "tower_units": [5, 4]}


def tanh_mlp(x: np.ndarray, stack: Any, member: int) -> np.ndarray:
    for layer in stack.layers:
        x = np.tanh(x @ layer.kernel[member].numpy() + layer.bias[member].numpy())
    return x


def dssm(model: Any, form: str = "cosine") -> Truth:
    x = model.embedding(features())
    read = {
        "user": [
            *(x.features[n] for n in ("user", "hist", "position")),
            x.scenario_vector,
        ],
        "item": [x.features[n] for n in ("item", "tags", "price", "text")],
    }
    result = {}
    for t, output in enumerate(OUTPUTS):
        ends = []
        for side, parts in read.items():
            shared = tanh_mlp(np.concatenate(parts, axis=1), model.trunks[side], 0)
            ends.append(tanh_mlp(shared, model.towers[side], t))
        dot = (ends[0] * ends[1]).sum(axis=1)
        lengths = [np.linalg.norm(end, axis=1) for end in ends]
        score = dot if form == "product" else dot / (lengths[0] * lengths[1])
        gamma = np.exp(model.scores.log_scales[t].numpy())
        result[output] = gamma * score + model.scores.biases[t].numpy()
    return result


def two_sided(**changes: Any) -> DatasetManifest:
    """With a cross of user and item, and a feature of the request."""
    return with_spec(more_features=[CROSS, POSITION], **changes)


def test_dssm_equals_numpy() -> None:
    model = make("DSSM", two_sided(), **SMALL_DSSM)
    assert close(model, dssm(model))
    assert not close(model, dssm(model, form="product"))
    check_each_weight_matters(model, dssm)


def test_each_tower_does_without_the_other() -> None:
    model = make("DSSM", two_sided(), **SMALL_DSSM)
    assert "user_item" not in model.embedding(features()).features
    model(features())
    plain = model.inspect()
    assert np.abs(plain["cosines"]).max() <= 1 + 1e-6
    moved = {n: (features()[n] + 1) % 8 for n in ("item", "tags", "user_item")}
    model({**features(), **moved})
    np.testing.assert_array_equal(model.inspect()["user"], plain["user"])
    assert np.abs(model.inspect()["item"] - plain["item"]).max() > 1e-3
    moved = {n: (features()[n] + 1) % 3 for n in ("user", "position", "scenario")}
    model({**features(), **moved})
    np.testing.assert_array_equal(model.inspect()["item"], plain["item"])
    assert np.abs(model.inspect()["user"] - plain["user"]).max() > 1e-3


def test_attention_to_the_item_becomes_a_mean() -> None:
    (hist,) = (f for f in two_sided().dataset.features if f.name == "hist")
    attending = hist.model_copy(update={"pooling": "attention", "query": "item"})
    spec = two_sided()
    kept = [f if f.name != "hist" else attending for f in spec.dataset.features]
    dataset = spec.dataset.model_copy(update={"features": tuple(kept)})
    model = make("DSSM", spec.model_copy(update={"dataset": dataset}), **SMALL_DSSM)
    assert close(model, dssm(model))


def test_dssm_without_a_side_or_with_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"multiclass or.*Received: 'kind' with 3"):
        make("DSSM", two_sided(tasks=MULTICLASS))
    spec = two_sided()
    users = [f.model_copy(update={"side": "user"}) for f in spec.dataset.features]
    dataset = spec.dataset.model_copy(update={"features": tuple(users)})
    with pytest.raises(ConfigError, match=r"Received: item: \[\]"):
        make("DSSM", spec.model_copy(update={"dataset": dataset}), **SMALL_DSSM)


# === CNNMax ===

SMALL_CNN: dict[str, Any] = {
    "windows": [1, 2, 4],
    "kernels": 3,
    "behaviour_units": 5,
    "user_units": 4,
    "item_units": 4,
    "tower_units": [6],
}


def cnn_max(model: Any, masked: bool = True) -> Truth:
    x = model.embedding(features())
    values, mask = (v.numpy() for v in x.sequences["hist"])
    values = values * mask[..., None]
    length = values.shape[1]
    strongest = []
    for window, kernel in zip(model.config.windows, model.convolutions._kernels):
        left = (window - 1) // 2
        padded = np.pad(values, [[0, 0], [left, window - 1 - left], [0, 0]])
        found = sum(
            padded[:, j : j + length] @ kernel[j].numpy() for j in range(window)
        )
        if masked:
            found = np.where(mask[..., None], found, -np.inf)
        strongest.append(found.max(axis=1))
    bias = model.convolutions.bias.numpy()
    z = np.maximum(np.concatenate(strongest, axis=1) + bias, 0)
    profile = np.concatenate(
        [x.features["user"], x.features["position"], x.scenario_vector], axis=1
    )
    rep = np.concatenate(
        [mlp(z, model.behaviour, 0), mlp(profile, model.profile, 0)], 1
    )
    heads = model.user_heads
    item = np.concatenate(
        [x.features[n] for n in ("item", "tags", "price", "text")], axis=1
    )
    result = {}
    for t, output in enumerate(OUTPUTS):
        pair = np.concatenate([rep, mlp(item, heads.encoders[0], t)], axis=1)
        head = heads.towers["ctr"].head
        hidden = mlp(pair, heads.towers["ctr"].hidden, t)
        result[output] = (hidden @ head.kernel[t].numpy() + head.bias[t].numpy())[:, 0]
    return result


def test_cnn_max_equals_numpy() -> None:
    model = make("CNNMax", with_spec(more_features=[POSITION]), **SMALL_CNN)
    assert close(model, cnn_max(model))
    assert not close(model, cnn_max(model, masked=False)), "a maximum over padding"
    check_each_weight_matters(model, cnn_max)


def test_cnn_max_does_not_see_padded_steps() -> None:
    model = make("CNNMax", **SMALL_CNN)
    noise = tf.where(features()["hist_item"] > 0, features()["hist_age"], 3)
    plain, other = model(features()), model({**features(), "hist_age": noise})
    for output in plain:
        np.testing.assert_allclose(plain[output], other[output], rtol=1e-5, atol=1e-6)
