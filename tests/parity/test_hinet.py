"""HiNet against NumPy, its gates, and its limits."""

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
    softmax,
    with_spec,
)
from tests.parity.scenarios import cell, check_groups, every_row, network, tower
from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.models import MODELS
from tfmtl.testing.tiny import SCENARIOS

SETTINGS: dict[str, Any] = {
    "sub_experts": 2,
    "shared_sub_experts": 3,
    "sub_expert_units": [5],
    "attention_units": [4],
    "task_experts": 2,
    "shared_experts": 1,
    "expert_units": [6],
    "tower_units": [4],
}


def hinet(**changes: Any) -> Any:
    return make("HiNet", **{**SETTINGS, **changes})


def integrate(x: np.ndarray, layer: Any, n: int) -> np.ndarray:
    """Expert n of a sub-expert integration."""
    weights = softmax(x @ layer.gate.kernel[n].numpy() + layer.gate.bias[n].numpy())
    return sum(
        weights[:, [k]] * mlp(x, layer.networks, n * layer.sub_experts + k)
        for k in range(layer.sub_experts)
    )


def outputs(
    model: Any,
    *,
    attends: str = "others",
    gates: str = "experts",
    order: tuple[int, ...] = (0, 1, 2),
) -> Truth:
    """The forward pass, and wrong ones that are found in public code."""

    def answer(x: Any, p: int) -> list[np.ndarray]:
        flat = x.flat.numpy()
        shared = integrate(flat, model.shared_expert, 0)
        experts = [integrate(flat, model.scenario_experts, m) for m in range(3)]
        e = mlp(x.scenario_vector.numpy(), model.attention_hidden, 0)
        logits = e @ model.attention.kernel[0].numpy() + model.attention.bias[0].numpy()
        if attends == "others":
            logits[:, p] = -np.inf
        attention = softmax(logits)
        if attends == "all_then_others":
            attention[:, p] = 0
        others = sum(attention[:, [m]] * s for m, s in enumerate(experts))
        parts = (shared, experts[p], others)
        c = np.concatenate([parts[i] for i in order], axis=1)
        said = []
        own, common = model.config.task_experts, model.config.shared_experts
        for t in range(3):
            members = [t * own + k for k in range(own)]
            members += [3 * own + k for k in range(common)]
            read = [network(c, model.experts, p, n) for n in members]
            logits = c @ cell(model.gates, p, t)[0]
            weights = softmax(logits) if gates == "experts" else np.ones_like(logits)
            z = sum(weights[:, [n]] * f for n, f in enumerate(read))
            said.append(tower(z, model.towers, p, t))
        return said

    return every_row(model, answer)


def test_equals_numpy() -> None:
    model = hinet()
    assert close(model, outputs(model))
    assert not close(model, outputs(model, gates="ones")), "gates of ones pass too"
    assert not close(model, outputs(model, attends="all"))
    assert not close(model, outputs(model, attends="all_then_others"))
    assert not close(model, outputs(model, order=(2, 1, 0)))


def test_equals_numpy_without_shared_experts_and_hidden_attention() -> None:
    model = hinet(shared_experts=0, attention_units=[], task_experts=1)
    assert close(model, outputs(model))


def test_any_perturbed_weight_breaks_parity() -> None:
    check_each_weight_matters(hinet(), outputs)


def test_all_gates_sum_to_one_and_attention_skips_its_own() -> None:
    model = hinet()
    model(features())
    found = model.inspect()
    for name in ("gates", "attention_gates", "scenario_expert_gates"):
        np.testing.assert_allclose(found[name].numpy().sum(-1), 1, rtol=1e-5)
        assert found[name].numpy().std(axis=0).max() > 1e-4, f"{name} is a constant"
    attention = found["attention_gates"].numpy()
    # Each row of weights leaves one scenario out, its own.
    assert ((attention == 0).sum(axis=1) == 1).all()
    assert set(np.argmin(attention, axis=1)) == {0, 1, 2}


def test_two_scenarios_attend_to_each_other_fully() -> None:
    scenario = {"column": "page", "values": ["feed", "search"], "dim": 3}
    model = make("HiNet", with_spec(scenario=scenario), **SETTINGS)
    model({**features(), "scenario": features()["scenario"] % 2})
    attention = model.inspect()["attention_gates"].numpy()
    assert set(np.unique(attention)) == {0.0, 1.0}


def test_cells_are_moved_by_their_own_rows() -> None:
    check_groups(hinet(), SCENARIOS)


def test_a_scenarios_rows_move_the_experts_of_the_others() -> None:
    """The attention passes gradients on: no stop stands in figure or code."""
    model = hinet()
    rows = features()["scenario"].numpy() == 0
    kernel = model.scenario_experts.networks.layers[0]._kernels[0]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.boolean_mask(model(features())["click"], rows))
    found = np.abs(tape.gradient(total, kernel)).reshape(3, 2, -1).max(axis=(1, 2))
    assert (found > 0).all()


def test_equal_sub_experts_make_their_gates_idle() -> None:
    model = hinet()
    for variable in model.scenario_experts.networks.trainable_variables:
        members = tf.reshape(variable, [3, 2, *variable.shape[1:]])
        alike = tf.repeat(members[:, :1], 2, axis=1)
        variable.assign(tf.reshape(alike, variable.shape))
    before = model(features())
    gate = model.scenario_experts.gate.kernel
    gate.assign(tf.random.stateless_normal(gate.shape, [3, 4]))
    for name, value in model(features()).items():
        np.testing.assert_allclose(value, before[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenario": None}, r"scenario.*\[\]"),
        ({"scenario": {"column": "page", "values": ["feed"]}}, "two values"),
        (
            {
                "tasks": [
                    {"name": "click", "label": "click"},
                    {
                        "name": "level",
                        "label": "level",
                        "type": "multiclass",
                        "classes": 3,
                    },
                ]
            },
            "level",
        ),
    ],
)
def test_refuses_data_without_two_scenarios_and_classes(
    changes: dict[str, Any], message: str
) -> None:
    model = MODELS["HiNet"]
    with pytest.raises(ConfigError, match=message):
        model(with_spec(**changes), model.Config(**SETTINGS))
