"""MoE and OMoE against NumPy, and their limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pydantic
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
)
from tfmtl._keras import tf
from tfmtl.layers.dropout import dropout_step, step_seed

DENSE: dict[str, Any] = {"num_experts": 4, "expert_units": [6, 5], "tower_units": [3]}
SMALL: dict[str, Any] = {**DENSE, "active_experts": 2}


def mixture(model: Any, gates: np.ndarray) -> Truth:
    """What the towers make of experts under given weights [B, E]."""
    x = flat(model)
    z = sum(gates[:, [e]] * mlp(x, model.experts, e) for e in range(4))
    return {o: tower(z, model, t) for t, o in enumerate(OUTPUTS)}


def keep_top(logits: np.ndarray, k: int) -> np.ndarray:
    lowest = np.sort(logits, axis=1)[:, [-k]]
    return np.where(logits >= lowest, logits, -np.inf)


def moe(model: Any) -> Truth:
    logits = flat(model) @ model.gate.kernel.numpy()
    return mixture(model, softmax(keep_top(logits, model.config.active_experts)))


def softmax_before_top_k(model: Any) -> Truth:
    """The chosen weights do not sum to one."""
    gates = softmax(flat(model) @ model.gate.kernel.numpy())
    kept = np.isfinite(keep_top(gates, model.config.active_experts))
    return mixture(model, gates * kept)


def omoe(model: Any, axis: int = 1) -> Truth:
    logits = flat(model) @ model.gate.dense.kernel[0].numpy()
    return mixture(model, softmax(logits, axis=axis))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_moe_equals_numpy(k: int) -> None:
    model = make("MoE", **{**SMALL, "active_experts": k})
    assert close(model, moe(model))
    assert close(model, softmax_before_top_k(model)) == (k == 4)


def test_omoe_equals_numpy() -> None:
    model = make("OMoE", **DENSE)
    assert close(model, omoe(model))
    assert not close(model, omoe(model, axis=0)), "softmax over the batch passes too"


def test_any_perturbed_weight_breaks_parity() -> None:
    # Without noise outside training, no output depends on its scale.
    check_each_weight_matters(make("MoE", **SMALL), moe, skip=("noise_kernel",))
    check_each_weight_matters(make("OMoE", **DENSE), omoe)


def training_gates(model: Any, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and load of a step, from the formulas and the same draws."""
    x, k = flat(model), model.config.active_experts
    with dropout_step(tf.constant(step, tf.int64)):
        seed = step_seed(model.gate.seed)
    n = tf.random.stateless_normal([50, 4], seed).numpy()
    clean = x @ model.gate.kernel.numpy()
    spread = np.log1p(np.exp(x @ model.gate.noise_kernel.numpy()))
    spread = np.maximum(spread, 0.01)
    noisy = clean + n * spread
    load = np.zeros_like(clean)
    for b, i in np.ndindex(*clean.shape):
        others = np.sort(np.delete(noisy[b], i))[::-1]
        z = (clean[b, i] - others[k - 1]) / spread[b, i]
        load[b, i] = 0.5 * math.erfc(-z / math.sqrt(2))
    return softmax(keep_top(noisy, k)), load


def test_training_equals_numpy_with_its_noise() -> None:
    model = make("MoE", **SMALL, importance_weight=0.3, load_weight=0.7)
    for step in (0, 5):
        model.step.assign(step)
        found = model(features(), training=True)
        losses = model.aux_losses()
        gates, load = training_gates(model, step)
        for output, truth in mixture(model, gates).items():
            np.testing.assert_allclose(found[output], truth, rtol=1e-3, atol=1e-3)
        for name, weight, rows in (("importance", 0.3, gates), ("load", 0.7, load)):
            total = rows.sum(axis=0)
            variation = total.var() / total.mean() ** 2
            np.testing.assert_allclose(losses[name], weight * variation, rtol=1e-3)
            mean_of_rows = np.mean(rows.var(axis=1) / rows.mean(axis=1) ** 2)
            assert not np.isclose(float(losses[name]), weight * mean_of_rows, rtol=0.1)


def test_no_noise_and_no_losses_outside_training() -> None:
    model = make("MoE", **SMALL)
    model(features(), training=True)
    assert set(model.aux_losses()) == {"importance", "load"}
    first = model(features())
    assert model.aux_losses() == {}
    model.step.assign(3)
    for output, value in model(features()).items():
        np.testing.assert_array_equal(value, first[output])


@pytest.mark.parametrize("change", [{"active_experts": 4}, {"noisy": False}])
def test_no_load_loss_where_the_load_is_undefined(change: dict[str, Any]) -> None:
    model = make("MoE", **{**SMALL, **change})
    model(features(), training=True)
    assert set(model.aux_losses()) == {"importance"}


def test_the_gate_starts_at_zero() -> None:
    model = make("MoE", **SMALL)
    again = type(model)(model.manifest, model.config, seed=2)
    again(features())
    for variable in (again.gate.kernel, again.gate.noise_kernel):
        assert not variable.numpy().any()


def test_all_experts_without_noise_are_omoe() -> None:
    sparse = make("MoE", **{**SMALL, "active_experts": 4}, noisy=False)
    dense = make("OMoE", **DENSE)
    for name in ("embedding", "experts", "towers"):
        for a, b in zip(getattr(dense, name).weights, getattr(sparse, name).weights):
            a.assign(b)
    dense.gate.dense._kernels[0].assign(sparse.gate.kernel)
    for training in (False, True):
        found = sparse(features(), training=training)
        for output, value in dense(features(), training=training).items():
            np.testing.assert_allclose(found[output], value, rtol=1e-4, atol=1e-5)


def test_omoe_is_mmoe_with_equal_gates() -> None:
    one, many = make("OMoE", **DENSE), make("MMoE", **DENSE)
    for name in ("embedding", "experts", "towers"):
        for a, b in zip(getattr(many, name).weights, getattr(one, name).weights):
            a.assign(b)
    for kernel in many.gates.dense._kernels:
        kernel.assign(one.gate.dense._kernels[0])
    for output, value in one(features()).items():
        np.testing.assert_allclose(many(features())[output], value, rtol=1e-4)


def test_experts_out_of_use_learn_nothing() -> None:
    model = make("MoE", **SMALL)
    one_row = {k: tf.repeat(v[:1], 5, axis=0) for k, v in features().items()}
    with tf.GradientTape() as tape:
        total = tf.add_n(list(model(one_row).values()))
    used = model.inspect()["gates"].numpy().sum(axis=0) > 0
    assert used.sum() == 2
    kernels = [layer._kernels[0] for layer in model.experts.layers]
    for gradient in tape.gradient(total, kernels):
        moved = np.abs(gradient.numpy()).max(axis=(1, 2)) > 0
        np.testing.assert_array_equal(moved, used)


def test_with_one_active_expert_only_the_load_teaches_the_gate() -> None:
    model = make("MoE", **{**SMALL, "active_experts": 1})
    with tf.GradientTape(persistent=True) as tape:
        tasks = tf.add_n(list(model(features(), training=True).values()))
        losses = model.aux_losses()
    for value, teaches in ((tasks, False), (losses["load"], True)):
        gradient = tape.gradient(value, model.gate.kernel)
        assert (gradient is not None and bool(np.abs(gradient).max() > 1e-6)) == teaches


def test_not_more_active_experts_than_experts() -> None:
    with pytest.raises(pydantic.ValidationError, match="at most `num_experts`"):
        make("MoE", **{**DENSE, "active_experts": 5})
