"""PEPNet against NumPy, where its gradients stop, and its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.reference import (
    OUTPUTS,
    TASKS,
    Truth,
    check_each_weight_matters,
    close,
    features,
    make,
    relu,
    sigmoid,
    with_spec,
)
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS

SETTINGS: dict[str, Any] = {"units": [6, 5], "gate_units": 4}


def pepnet(**changes: Any) -> Any:
    return make("PEPNet", **{**SETTINGS, **changes})


def unit(x: np.ndarray, layer: Any, t: int = 0, gamma: float = 2.0) -> np.ndarray:
    """Gate NU."""
    prior, factors = layer.prior, layer.factors
    x = relu(x @ prior.kernel[0].numpy() + prior.bias[0].numpy())
    return gamma * sigmoid(x @ factors.kernel[t].numpy() + factors.bias[t].numpy())


def outputs(
    model: Any,
    *,
    gamma: float = 2.0,
    scales_outputs: bool = False,
    gate_of: int | None = None,
) -> Truth:
    """The forward pass, and wrong ones that are found in public code."""
    x = model.embedding(features())
    e = x.flat.numpy()
    domain = x.scenario_vector.numpy()
    o_ep = e * unit(np.concatenate([domain, e], 1), model.embedding_gate, gamma=gamma)
    prior = np.concatenate([x.features[f].numpy() for f in model.priors], 1)
    read = np.concatenate([prior, o_ep], 1)
    truth = {}
    for t, output in enumerate(OUTPUTS):
        scale = [
            unit(read, gate, t if gate_of is None else gate_of, gamma)
            for gate in model.unit_gates
        ]
        h = o_ep if scales_outputs else o_ep * scale[0]
        for i, dense in enumerate(model.layers_of_tasks):
            h = relu(h @ dense.kernel[t].numpy() + dense.bias[t].numpy())
            h = h * scale[i + 1]
        head = model.towers.head
        truth[output] = (h @ head.kernel[t].numpy() + head.bias[t].numpy())[:, 0]
    return truth


def test_equals_numpy() -> None:
    model = pepnet()
    assert model.priors == ("user", "item")
    assert close(model, outputs(model))
    assert not close(model, outputs(model, gamma=1)), "factors below 1 pass too"
    assert not close(model, outputs(model, scales_outputs=True))
    assert not close(model, outputs(model, gate_of=0)), "one gate for all tasks"


def test_any_perturbed_weight_breaks_parity() -> None:
    check_each_weight_matters(pepnet(), outputs)


def test_a_gate_of_zeros_leaves_all_as_it_is() -> None:
    """W' = b' = 0 makes every factor 1: T networks on one embedding."""
    model = pepnet()
    for gate in (model.embedding_gate, *model.unit_gates):
        for variable in gate.factors.trainable_variables:
            variable.assign(tf.zeros_like(variable))
    x = model.embedding(features()).flat.numpy()
    found = model(features())
    for t, output in enumerate(OUTPUTS):
        h = x
        for dense in model.layers_of_tasks:
            h = relu(h @ dense.kernel[t].numpy() + dense.bias[t].numpy())
        head = model.towers.head
        truth = (h @ head.kernel[t].numpy() + head.bias[t].numpy())[:, 0]
        np.testing.assert_allclose(found[output], truth, rtol=1e-4, atol=1e-4)


def test_factors_lie_between_0_and_2() -> None:
    model = pepnet()
    model(features())
    found = {k: v.numpy() for k, v in model.inspect().items() if "factors" in k}
    assert set(found) == {"embedding_factors", "factors_1", "factors_2", "factors_3"}
    for name, value in found.items():
        assert 0 <= value.min() < 1 < value.max() <= 2, name


def test_no_gradient_reaches_embeddings_through_what_gates_read_of_them() -> None:
    """dL/dE = d_domain * dL/dO_ep, as if all factors were constants."""
    model = pepnet()
    x = model.embedding(features())
    flat = tf.convert_to_tensor(x.flat)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        read = model.represent(x._replace(flat=flat), training=False)
        total = tf.reduce_sum(tf.sin(read))
    found = tape.gradient(total, flat)
    kept = model.inspect()
    with tf.GradientTape() as tape:
        tape.watch(flat)
        hidden = (kept["embedding_factors"] * flat)[:, None] * kept["factors_1"]
        for i, dense in enumerate(model.layers_of_tasks):
            hidden = dense(hidden) * kept[f"factors_{i + 2}"]
        total = tf.reduce_sum(tf.sin(hidden))
    expected = tape.gradient(total, flat)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_gradients_reach_the_priors_and_the_scenario_through_gates() -> None:
    model = pepnet()
    x = model.embedding(features())
    user = tf.convert_to_tensor(x.features["user"])
    scenario = tf.convert_to_tensor(x.scenario_vector)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([user, scenario])
        parts = {**x.features, "user": user}
        x = x._replace(features=parts, scenario_vector=scenario)
        total = tf.reduce_sum(tf.sin(model.represent(x, training=False)))
    for watched in (user, scenario):
        assert np.abs(tape.gradient(total, watched)).max() > 1e-4


def test_no_task_moves_anothers_layers_or_gates() -> None:
    model = pepnet()
    groups = model.variable_groups()
    with tf.GradientTape(persistent=True) as tape:
        found = model(features())
    for task, output in zip(TASKS, OUTPUTS):
        for group, variables in groups.items():
            kind, _, owner = group.partition("/")
            gradients = tape.gradient(found[output], variables)
            moved = [g is not None and bool(tf.reduce_any(g != 0)) for g in gradients]
            if kind in ("gate", "task"):
                assert any(moved) == (owner == task), (task, group)


def test_scenario_features_join_the_scenario() -> None:
    model = pepnet(scenario_features=["price"])
    plain = pepnet()
    width = [m.embedding_gate.prior.kernel.shape[1] for m in (model, plain)]
    assert width[0] == width[1] + 2  # the number, and whether it is missing
    model = make(
        "PEPNet", with_spec(scenario=None), scenario_features=["price"], **SETTINGS
    )
    data = {k: v for k, v in features().items() if k != "scenario"}
    assert np.ptp(model(data)["click"]) > 0


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        ({}, {"prior_features": ["usr"]}, r"prior_features.*'usr'.*'user'"),
        ({}, {"scenario_features": ["tab"]}, r"scenario_features.*'tab'"),
        ({}, {"prior_features": []}, "must name a feature"),
        ({"scenario": None}, {}, "scenario_features"),
    ],
)
def test_refuses_what_it_cannot_read(
    spec: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    model = MODELS["PEPNet"]
    with pytest.raises(ConfigError, match=message):
        model(with_spec(**spec), model.Config(**{**SETTINGS, **changes}))
