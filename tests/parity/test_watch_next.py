"""WatchNext against NumPy, and what its shallow tower may and may not do."""

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
    softmax,
    tower,
    with_spec,
)
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.testing.tiny import POSITION

SETTINGS: dict[str, Any] = {
    "bias_features": ["user"],
    "biased_tasks": ["click", "buy"],
    "shared_units": [7],
    "num_experts": 3,
    "expert_units": [5],
    "tower_units": [4],
    "gate_dropout": 0.0,
}
BIASED = {"click": 0, "buy|click": 1}


def watch_next(**changes: Any) -> Any:
    data = with_spec(more_features=[POSITION])
    return make("WatchNext", data, **{**SETTINGS, **changes})


def main(model: Any) -> Truth:
    """The logits of the main network alone."""
    r = mlp(flat(model), model.bottom, 0)
    experts = [mlp(r, model.experts, e) for e in range(3)]
    result = {}
    for t, output in enumerate(OUTPUTS):
        gate = softmax(r @ model.gates.dense.kernel[t].numpy())
        z = sum(gate[:, [e]] * f for e, f in enumerate(experts))
        result[output] = tower(z, model, t)
    return result


def served(model: Any) -> Truth:
    bias = np.stack([c.numpy() for c in model.missing_bias._columns], axis=1)
    result, user = main(model), features()["user"].numpy()
    for output, column in BIASED.items():
        result[output] = result[output] + bias[user, column]
    return result


def trained(model: Any) -> Truth:
    """In training, with no position dropped."""
    result = main(model)
    user, position = (features()[n].numpy() for n in ("user", "position"))
    shown = np.stack([c.numpy() for c in model.position_tower._columns], axis=1)
    missing = np.stack([c.numpy() for c in model.missing_bias._columns], axis=1)
    for output, c in BIASED.items():
        bias = np.where(position > 0, shown[user * 8 + position, c], missing[user, c])
        result[output] = result[output] + bias
    return result


def test_served_logits_equal_numpy() -> None:
    model = watch_next()
    assert close(model, served(model))
    assert not close(model, main(model)), "the level of a missing position is lost"
    check_each_weight_matters(model, served, skip=("position_tower",))


def test_training_logits_equal_numpy() -> None:
    model = watch_next(missing_rate=0.0)
    found = model(features(), training=True)
    for output, truth in trained(model).items():
        np.testing.assert_allclose(found[output], truth, rtol=1e-4, atol=1e-4)


def test_serving_ignores_the_position() -> None:
    model = watch_next()
    before = model(features())
    after = model({**features(), "position": tf.zeros([50], tf.int32)})
    for output in OUTPUTS:
        np.testing.assert_array_equal(before[output], after[output])


def test_the_position_moves_the_bias_alone() -> None:
    model = watch_next(missing_rate=0.0)
    difference = {}
    for name, rows in {"one": features(), "two": dict(features())}.items():
        if name == "two":  # other inputs of the main network
            rows["price"] = rows["price"] + 1.0
        outputs, main_only = model(rows, training=True), model(rows)
        difference[name] = {o: (outputs[o] - main_only[o]).numpy() for o in OUTPUTS}
    for output in OUTPUTS:
        np.testing.assert_allclose(
            difference["one"][output], difference["two"][output], atol=1e-5
        )
    assert np.abs(difference["one"]["click"]).max() > 0.1
    np.testing.assert_allclose(difference["one"]["like"], 0, atol=1e-6)


def test_real_positions_learn_nothing_where_all_are_missing() -> None:
    model = watch_next(missing_rate=1.0)
    with tf.GradientTape(persistent=True) as tape:
        total = tf.reduce_sum(model(features(), training=True)["click"])
    for column in model.position_tower._columns:
        assert not np.any(tf.convert_to_tensor(tape.gradient(total, column)))
    assert np.any(tape.gradient(total, model.missing_bias._columns[0]))


def test_a_share_of_the_positions_is_dropped_and_changes_with_the_step() -> None:
    model = watch_next(missing_rate=0.1)
    rows = {k: tf.repeat(v, 100, axis=0) for k, v in features().items()}
    rows["position"] = tf.ones_like(rows["position"])
    shares, masks = [], []
    for step in range(2):
        model.step.assign(step)
        outputs, main_only = model(rows, training=True), model(rows)
        masks.append(np.abs((outputs["click"] - main_only["click"]).numpy()) < 1e-6)
        shares.append(masks[-1].mean())
    np.testing.assert_allclose(shares, 0.1, atol=0.015)
    assert (masks[0] != masks[1]).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position": "rank"}, "rank"),
        ({"position": "price"}, "price"),
        ({"bias_features": ["hist"]}, "hist"),
        ({"biased_tasks": ["view"]}, "view"),
    ],
)
def test_wrong_names_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        watch_next(**changes)
