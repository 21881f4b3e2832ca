"""Shared-Bottom and MMoE against NumPy forward passes written from the papers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.reference import (
    OUTPUTS,
    TASKS,
    check_each_weight_matters,
    close,
    features,
    flat,
    make,
    mlp,
    relu,
    single_task,
    tower,
)
from tfmtl._keras import tf
from tfmtl.layers.gate import Gates
from tfmtl.layers.stacked import StackedMLP
from tfmtl.layers.towers import Towers


def shared_bottom(model: Any) -> dict[str, np.ndarray]:
    r = mlp(flat(model), model.bottom, 0)
    return {o: tower(r, model, t) for t, o in enumerate(OUTPUTS)}


def mmoe(model: Any, axis: int = 1) -> dict[str, np.ndarray]:
    x = flat(model)
    experts = [mlp(x, model.experts, e) for e in range(model.config.num_experts)]
    result = {}
    for t, output in enumerate(OUTPUTS):
        logits = x @ model.gates.dense.kernel[t].numpy()  # [B, E]
        weights = np.exp(logits - logits.max(axis=axis, keepdims=True))
        weights /= weights.sum(axis=axis, keepdims=True)
        z = sum(weights[:, [e]] * f for e, f in enumerate(experts))
        result[output] = tower(z, model, t)
    return result


SMALL = {"expert_units": [6, 4], "tower_units": [3], "num_experts": 3}


def test_shared_bottom_equals_numpy() -> None:
    model = make("SharedBottom", bottom_units=[6, 4], tower_units=[3])
    assert close(model, shared_bottom(model))


def test_mmoe_equals_numpy() -> None:
    model = make("MMoE", **SMALL)
    assert close(model, mmoe(model))
    assert not close(model, mmoe(model, axis=0)), "softmax over the batch passes too"


@pytest.mark.parametrize("name", ["SharedBottom", "MMoE"])
def test_any_perturbed_weight_breaks_parity(name: str) -> None:
    if name == "SharedBottom":
        model = make(name, bottom_units=[6], tower_units=[3])
        check_each_weight_matters(model, shared_bottom)
    else:
        check_each_weight_matters(make(name, **SMALL), mmoe)


def test_joint_output_is_the_product() -> None:
    found = make("MMoE", **SMALL)(features())
    click, buy = (1 / (1 + np.exp(-found[o].numpy())) for o in ("click", "buy|click"))
    np.testing.assert_allclose(tf.sigmoid(found["buy"]), click * buy, rtol=1e-4)


def test_one_expert_is_shared_bottom_with_the_same_weights() -> None:
    one = make("MMoE", expert_units=[6], tower_units=[3], num_experts=1)
    plain = make("SharedBottom", bottom_units=[6], tower_units=[3])
    for a, b in zip(plain.embedding.weights, one.embedding.weights):
        a.assign(b)
    for a, b in zip(plain.bottom.weights, one.experts.weights):
        a.assign(b)
    for a, b in zip(plain.towers.weights, one.towers.weights):
        a.assign(b)
    for output, value in plain(features()).items():
        np.testing.assert_allclose(one(features())[output], value, rtol=1e-5, atol=1e-5)


def test_equal_gates_are_one_gate() -> None:
    model = make("MMoE", **SMALL)
    kernels = model.gates.dense._kernels
    for kernel in kernels:
        kernel.assign(kernels[0])
    mixed = model.represent(model.embedding(features()), training=False).numpy()
    np.testing.assert_allclose(mixed[:, 0], mixed[:, 1], rtol=1e-6)
    kernels[1].assign(
        kernels[1] + 1.0 * tf.random.stateless_normal(kernels[1].shape, [3, 4])
    )
    mixed = model.represent(model.embedding(features()), training=False).numpy()
    assert np.abs(mixed[:, 0] - mixed[:, 1]).max() > 1e-2


def test_a_constant_on_all_gate_logits_changes_nothing() -> None:
    model = make("MMoE", **SMALL)
    before = model(features())
    for kernel in model.gates.dense._kernels:
        # One vector added to every expert's column shifts all logits of a row alike.
        shift = tf.random.stateless_normal([kernel.shape[0], 1], [5, 6])
        kernel.assign(kernel + shift)
    for output, value in model(features()).items():
        np.testing.assert_allclose(value, before[output], rtol=1e-3, atol=1e-4)


def test_equal_experts_make_gates_idle() -> None:
    model = make("MMoE", **SMALL)
    for layer in model.experts.layers:
        for stack in (layer._kernels[0], layer._biases[0]):
            stack.assign(tf.repeat(stack[:1], stack.shape[0], axis=0))
    before = model(features())
    for kernel in model.gates.dense._kernels:
        kernel.assign(tf.random.stateless_normal(kernel.shape, [7, 8]))
    for output, value in model(features()).items():
        np.testing.assert_allclose(value, before[output], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["SharedBottom", "MMoE", "SingleTask"])
def test_no_task_moves_anothers_gate_or_tower(name: str) -> None:
    model = make(name, **(SMALL if name == "MMoE" else {"tower_units": [3]}))
    groups = model.variable_groups()
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(features())
    for task, output in zip(TASKS, OUTPUTS):
        for group, variables in groups.items():
            kind, _, owner = group.partition("/")
            gradients = tape.gradient(outputs[output], variables)
            moved = [g is not None and bool(tf.reduce_any(g != 0)) for g in gradients]
            if kind in ("gate", "task"):
                assert any(moved) == (owner == task), (task, group)


def test_shared_gradient_of_the_sum_is_the_sum_of_gradients() -> None:
    model = make("SharedBottom", bottom_units=[6], tower_units=[3])
    kernel = model.bottom.layers[0].kernel
    with tf.GradientTape(persistent=True) as tape:
        outputs = model(features())
        parts = [tf.reduce_sum(tf.square(outputs[o])) for o in OUTPUTS]
        total = tf.add_n(parts)
    summed = sum(tape.gradient(p, kernel).numpy() for p in parts)
    np.testing.assert_allclose(
        tape.gradient(total, kernel), summed, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["SharedBottom", "SingleTask"])
def test_a_single_task_is_a_plain_mlp(name: str) -> None:
    key = "bottom_units" if name == "SharedBottom" else "units"
    model = make(name, single_task(), **{key: [6, 4], "tower_units": [3]})
    embedding = model.embedding or model.embeddings[0]
    x = embedding(features()).flat.numpy()
    trunk = model.bottom if name == "SharedBottom" else model.trunks
    head = model.towers.head
    for layer in [*trunk.layers, *model.towers.hidden.layers]:
        x = relu(x @ layer.kernel[0].numpy() + layer.bias[0].numpy())
    truth = (x @ head.kernel[0].numpy() + head.bias[0].numpy())[:, 0]
    np.testing.assert_allclose(model(features())["click"], truth, rtol=1e-4, atol=1e-4)


def test_weights_of_the_papers_synthetic_model() -> None:
    """100 inputs, 8 experts of 16, two towers of 8: 13056 weights, 1600 of gates."""

    x = tf.zeros([2, 100])
    experts = StackedMLP(8, [16], seed=0)
    gates = Gates(["gate/a", "gate/b"], 8, seed=0)
    towers = Towers(["task/a", "task/b"], [8], [1, 1], seed=0)
    mixed, _ = gates(x, experts(x))
    towers(mixed)
    kernels = [experts.layers[0].kernel, towers.hidden.layers[0].kernel]
    assert sum(int(tf.size(k)) for k in kernels) == 13056
    assert int(tf.size(gates.dense.kernel)) == 1600
    assert [v for v in gates.weights if "bias" in v.name] == []
