"""DUPN against a NumPy forward pass written from the paper's formulas."""

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
    mlp,
    relu,
    sigmoid,
    softmax,
    with_spec,
)
from tfmtl import build
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.losses import TaskLosses
from tfmtl.models import MODELS
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.testing.tiny import CROSS, POSITION

SMALL: dict[str, Any] = {
    "lstm_units": 5,
    "attention_units": [6, 4],
    "user_units": 3,
    "item_units": 4,
    "heads": {"like": "ppp", "buy": "l2r"},
    "ranking_features": ["price"],
    "tower_units": [6, 5],
    "user_tower_units": [6],
}
ITEM = ("item", "tags", "price", "text")
MODES = ("all", "bplstm", "bpatt", "nobp")


def data(**changes: Any) -> DatasetManifest:
    """With a feature of the request, `position`."""
    return with_spec(more_features=[POSITION], **changes)


def dupn(properties: str = "all", **config: Any) -> Any:
    return make("DUPN", data(), **{**SMALL, "properties": properties, **config})


def split_steps(model: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Items, properties and mask; the tiny data set's widths are 4 and 2."""
    values, mask = model.embedding(features()).sequences["hist"]
    values = values.numpy().astype(np.float64)
    return values[..., :4], values[..., 4:], mask.numpy()


def lstm(
    model: Any, e: np.ndarray, p: np.ndarray | None, mask: np.ndarray, leak: bool
) -> np.ndarray:
    layer = model.lstm
    w_e, w_h, b = (
        dict(zip("ifoc", np.split(v.numpy(), 4, axis=-1)))
        for v in (layer.item_kernel, layer.recurrent_kernel, layer.bias)
    )
    w_p = {}
    if p is not None:
        w_p = dict(zip("ifo", np.split(layer.property_kernel.numpy(), 3, axis=1)))
        if leak:  # what Keras' LSTM on [e; p] would do
            w_p["c"] = w_p["o"]
    h = c = np.zeros((len(e), model.config.lstm_units))
    states = []
    for t in range(e.shape[1]):
        s = {}
        for gate in "ifoc":
            s[gate] = e[:, t] @ w_e[gate] + h @ w_h[gate] + b[gate]
            if gate in w_p:
                s[gate] += p[:, t] @ w_p[gate]
        new_c = sigmoid(s["f"]) * c + sigmoid(s["i"]) * np.tanh(s["c"])
        new_h = sigmoid(s["o"]) * np.tanh(new_c)
        there = mask[:, [t]]
        h, c = np.where(there, new_h, h), np.where(there, new_c, c)
        states.append(h)
    return np.stack(states, axis=1)


def attend(
    model: Any,
    h: np.ndarray,
    p: np.ndarray | None,
    context: np.ndarray,
    mask: np.ndarray,
    padding: bool,
) -> np.ndarray:
    layer = model.attention
    repeated = np.repeat(context[:, None], h.shape[1], axis=1)
    x = np.concatenate([h, *([] if p is None else [p]), repeated], axis=2)
    x = relu(x @ layer.kernel.numpy() + layer.bias.numpy())
    x = mlp(x, layer.hidden, 0)
    scores = (x @ layer.score.kernel.numpy())[..., 0]
    if padding:
        return softmax(scores, axis=1)
    weights = np.zeros_like(scores)
    for row, there in enumerate(mask):
        if there.any():
            weights[row, there] = softmax(scores[row, there])
    return weights


def tower(x: np.ndarray, towers: Any) -> np.ndarray:
    """The only tower of its kind."""
    head = towers.head
    return (mlp(x, towers.hidden, 0) @ head.kernel[0].numpy() + head.bias[0].numpy())[
        :, 0
    ]


def reference(
    model: Any,
    leak: bool = False,
    padding: bool = False,
    linear_weights: bool = False,
) -> Truth:
    """The forward pass.

    Args:
        model: Its weights are read.
        leak: The property enters the candidate too.
        padding: The softmax runs over padded steps too.
        linear_weights: No ReLU on the ranking weights.
    """
    x = model.embedding(features())
    e, p, mask = (
        split_steps(model)
        if model.config.properties != "nobp"
        else (x.sequences["hist"][0].numpy(), None, x.sequences["hist"][1].numpy())
    )
    mode = model.config.properties
    scenario = x.scenario_vector.numpy()
    u = mlp(np.concatenate([x.features["user"], scenario], axis=1), model.profile, 0)
    q = x.features["position"].numpy()
    h = lstm(model, e, p if mode in ("all", "bplstm") else None, mask, leak)
    context = np.concatenate([q, u], axis=1)
    a = attend(
        model, h, p if mode in ("all", "bpatt") else None, context, mask, padding
    )
    rep = np.concatenate([np.einsum("bl,blh->bh", a, h), u], axis=1)

    heads = model.user_heads
    item = np.concatenate([x.features[n] for n in ITEM], axis=1)
    pair = np.concatenate([rep, mlp(item, heads.encoders[0], 0)], axis=1)
    weights = mlp(rep, heads.rank_hidden, 0) @ heads.rank_weights.kernel[0].numpy()
    weights = weights + heads.rank_weights.bias[0].numpy()
    if not linear_weights:
        weights = relu(weights)
    return {
        "click": tower(pair, heads.towers["ctr"]),
        "like": tower(rep, heads.towers["ppp"]),
        "buy|click": (weights * features()["price"].numpy()[:, None]).sum(axis=1),
    }


@pytest.mark.parametrize("properties", MODES)
def test_equals_numpy(properties: str) -> None:
    model = dupn(properties)
    assert close(model, reference(model))
    assert not close(model, reference(model, padding=True)), "attends to padding"
    assert not close(model, reference(model, linear_weights=True)), "negative weights"
    if properties in ("all", "bplstm"):
        assert not close(model, reference(model, leak=True)), "a stock LSTM"


@pytest.mark.parametrize("properties", MODES)
def test_any_perturbed_weight_breaks_parity(properties: str) -> None:
    check_each_weight_matters(dupn(properties), reference)


def attention_of(model: Any, changed: dict[str, Any]) -> np.ndarray:
    model({**features(), **changed})
    return np.asarray(model.inspect()["hist/attention"])


def other_ages() -> dict[str, Any]:
    ages = features()["hist_age"]
    return {"hist_age": (ages + 1) % 4}


class TestAblations:
    """Where the property acts, and where not."""

    def test_nobp_does_not_read_the_property(self) -> None:
        model = dupn("nobp")
        plain, other = model(features()), model({**features(), **other_ages()})
        for output in plain:
            np.testing.assert_array_equal(plain[output], other[output])
        assert not [v for v in model.variables if "stacked_2" in v.name], "idle table"

    def test_bplstm_scores_read_the_property_through_the_state_alone(self) -> None:
        model = dupn("bplstm")
        assert np.abs(attention_of(model, other_ages()) - attention_of(model, {})).max()
        model.lstm.property_kernel.assign(0 * model.lstm.property_kernel)  # h is fixed
        np.testing.assert_array_equal(
            attention_of(model, other_ages()), attention_of(model, {})
        )

    def test_all_scores_read_the_property_beside_the_state(self) -> None:
        model = dupn("all")
        model.lstm.property_kernel.assign(0 * model.lstm.property_kernel)
        found = attention_of(model, other_ages()) - attention_of(model, {})
        assert np.abs(found).max() > 1e-3

    def test_bpatt_states_do_not_depend_on_the_property(self) -> None:
        model = dupn("bpatt")
        assert model.lstm.property_kernel is None
        found = attention_of(model, other_ages()) - attention_of(model, {})
        assert np.abs(found).max() > 1e-3
        kernel = model.attention.kernel.numpy()
        kernel[5:7] = 0  # rows of p, after the five of h
        model.attention.kernel.assign(kernel)
        plain, other = model(features()), model({**features(), **other_ages()})
        for output in plain:
            np.testing.assert_array_equal(plain[output], other[output])


def test_attention_is_over_the_history_and_comes_out() -> None:
    model = dupn()
    weights = attention_of(model, {})
    mask = features()["hist_item"].numpy() > 0
    assert (~mask).all(axis=1).any(), "a row without a history is among them"
    np.testing.assert_allclose(weights.sum(axis=1), mask.any(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(weights[~mask], 0)


def test_the_query_moves_the_attention_and_not_the_states() -> None:
    model = dupn()
    position = features()["position"]
    found = attention_of(model, {"position": (position + 3) % 8})
    assert np.abs(found - attention_of(model, {})).max() > 1e-3


def test_content_of_padded_steps_changes_nothing() -> None:
    model = dupn()
    held = features()["hist_item"] > 0
    noise = tf.where(held, features()["hist_age"], 3)
    assert bool(tf.reduce_any(noise != features()["hist_age"]))
    plain, other = model(features()), model({**features(), "hist_age": noise})
    for output in plain:
        np.testing.assert_allclose(plain[output], other[output], rtol=1e-5, atol=1e-6)


def test_the_user_representation_does_not_know_the_item() -> None:
    """Not the item's columns, nor a cross with it, nor attention to it."""
    attending = dict(
        SEQUENCE, name="past", pooling="attention", query="item", columns=[COLUMN]
    )
    spec = with_spec(more_features=[POSITION, CROSS, attending])
    more = spec.column("hist_item").model_copy(update={"name": "past_item"})
    spec = spec.model_copy(update={"columns": (*spec.columns, more)})
    model = make("DUPN", spec, **SMALL, sequence="hist")
    rows = {**features(), "past_item": features()["hist_item"]}
    changed = {n: (rows[n] + 5) % 16 for n in ("item", "user_item")}
    changed["price"] = rows["price"] + 1.0
    plain = model(rows)
    one = model.inspect()["representation"]
    other = model({**rows, **changed})
    np.testing.assert_array_equal(model.inspect()["representation"], one)
    assert np.abs(other["click"] - plain["click"]).max() > 1e-2
    assert "user_item" in model.roles.items["click"]
    past = model({**rows, "past_item": (rows["past_item"] + 1) % 22})
    assert np.abs(past["like"] - plain["like"]).max() > 1e-4


COLUMN = {"name": "item", "vocabulary": "item", "dim": 4}
SEQUENCE = {"kind": "sequence", "max_length": 5, "side": "user"}


def test_the_ranking_loss_is_weighted_bce_with_labels_of_0_and_1() -> None:
    """sum_i n_i log(1 + exp(-y_i s_i)) with y in {-1, +1}."""
    tasks = [{"name": "click", "label": "click", "weight": "worth"}]
    changes = {**SMALL, "heads": {"click": "l2r"}}
    model = make("DUPN", data(tasks=tasks), **changes)
    (bias,) = model.user_heads.rank_weights._biases
    bias.assign([1.0])  # most ranking weights are above the ReLU's 0
    scores = model(features())["click"]
    draw = np.random.default_rng(1)
    y, n = draw.choice([-1.0, 1.0], 50), draw.choice([0.5, 1.0, 4.0], 50)
    truth = (n * np.log1p(np.exp(-y * scores.numpy().astype(np.float64)))).sum()
    losses = TaskLosses(model.tasks, {"click": "click"})
    (loss,), _ = losses(
        {"click": scores},
        tf.constant((y[:, None] + 1) / 2, tf.float32),
        tf.ones([50, 1], tf.bool),
        tf.constant(n[:, None], tf.float32),
    )
    assert float(loss) * 50 == pytest.approx(truth, rel=1e-5)
    assert np.abs(scores).max() > 0.1


def test_one_ranking_feature_counts_from_the_start() -> None:
    found = MODELS["DUPN"]
    for seed in range(8):
        model = found(data(), found.Config(**SMALL), seed=seed)
        model(build.empty_features(data()))
        scores = model(features())["buy|click"]
        weights = scores / features()["price"]
        np.testing.assert_allclose(weights, np.ones(50), atol=0.5)


def test_classes_a_user_level_task_and_a_ranking_bias() -> None:
    kinds = {"name": "level", "label": "level", "type": "multiclass", "classes": 7}
    tasks = [kinds, {"name": "click", "label": "click"}]
    tasks.append({"name": "like", "label": "like"})
    changes = {**SMALL, "heads": {"like": "l2r"}, "ranking_bias": True}
    model = make("DUPN", data(tasks=tasks), **changes)
    assert model.roles.heads == {"level": "ppp", "click": "ctr", "like": "l2r"}
    assert model(features())["level"].shape == [50, 7]
    (bias,) = model.user_heads._rank_biases
    before = model(features())["like"]
    bias.assign_add(2.0)
    np.testing.assert_allclose(model(features())["like"], before + 2, rtol=1e-5)


def test_heads_may_read_different_item_features() -> None:
    changes = {
        **SMALL,
        "heads": {},
        "head_item_features": {"like": ["tags", "position"], "buy": ["tags"]},
    }
    model = make("DUPN", data(), **changes)
    plain = model(features())
    for feature, moved in (
        ("price", {"click"}),
        ("tags", {"click", "like", "buy|click"}),
    ):
        found = model({**features(), feature: (features()[feature] + 1) % 8})
        for output in ("click", "like", "buy|click"):
            change = float(np.abs(found[output] - plain[output]).max())
            assert (change > 1e-4) == (output in moved), (feature, output)


class TestGivenVectors:
    """The ablation w2v: frozen vectors instead of a learnt table of the items."""

    spec = with_spec(
        more_features=[
            POSITION,
            {
                "name": "word2vec",
                "kind": "vector",
                "size": 3,
                "table": "vectors",
                "side": "item",
            },
        ],
        side_tables={"vectors": {"path": "v.parquet", "key": "i", "feature": "item"}},
    )
    values = np.random.default_rng(4).normal(size=(22, 3)).astype(np.float32)

    def _make(self, **config: Any) -> Any:
        found = MODELS["DUPN"]
        settings = found.Config(**{**SMALL, "item_vectors": "word2vec", **config})
        tables = {"word2vec": self.values}
        model = found(self.spec, settings, seed=1, side_tables=tables)
        model(build.empty_features(self.spec))
        return model

    def test_steps_are_the_vectors(self) -> None:
        model = self._make()
        steps, mask = model.embedding(features()).sequences["hist"]
        ids = features()["hist_item"].numpy()
        np.testing.assert_array_equal(steps[..., :3], self.values[ids])
        assert steps.shape[-1] == 3 + 2
        np.testing.assert_array_equal(mask, ids > 0)

    def test_vectors_stay_and_replace_the_learnt_table(self) -> None:
        model = self._make()
        assert "item" not in model.embedding._columns
        assert all(not s.column.endswith("item") for s in model.embedding._slots)
        trained = {v.name for v in model.trainable_variables}
        assert not [n for n in trained if "word2vec" in n]
        with tf.GradientTape() as tape:
            total = tf.add_n([tf.reduce_sum(v) for v in model(features()).values()])
        gradients = tape.gradient(total, model.trainable_variables)
        assert all(g is not None for g in gradients)

    def test_heads_read_the_vector_of_the_item(self) -> None:
        model = self._make()
        assert model.roles.items["click"] == ("tags", "price", "text", "word2vec")
        plain = model(features())["click"]
        changed = {**features(), "item": (features()["item"] + 1) % 22}
        assert np.abs(model(changed)["click"] - plain).max() > 1e-5

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (
                {"item_vectors": "text"},
                r"with a side table. Received: 'text'.*word2vec",
            ),
            (
                {"item_columns": ["age"], "property_columns": ["item"]},
                r"vectors of 'item'.*'item'. Received: \{'age': None\}",
            ),
        ],
    )
    def test_vectors_of_something_else_are_refused(
        self, config: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            self._make(**config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sequence": "past"}, r"Received: 'past'; sequences: \['hist'\]"),
        ({"user_features": ["users"]}, r"user_features.*Received: \['users'\]"),
        ({"heads": {"clicks": "ctr"}}, r"heads.*'click'.*Received: \['clicks'\]"),
        ({"ranking_features": ["item"]}, r"out of \['price'\]. Received: \['item'\]"),
        ({"ranking_features": []}, r"heads.buy`: `l2r` needs.*binary task, \[\]"),
        (
            {"head_item_features": {"like": ["tags"]}},
            r"is for `ctr` heads. Received: 'like', whose head is 'ppp'",
        ),
        (
            {"head_item_features": {"click": []}, "heads": {"click": "ctr"}},
            r"heads.click`: `ctr` needs features",
        ),
        ({"item_columns": ["id"]}, r"columns of 'hist'.*columns: \['item', 'age'\]"),
        (
            {"item_columns": ["item"], "property_columns": ["item"]},
            r"none in both. Received: \['item'\] and \['item'\]",
        ),
        (
            {"item_columns": ["item", "age"], "properties": "bplstm"},
            r"properties: bplstm` needs property columns",
        ),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make("DUPN", data(), **{**SMALL, **config})
