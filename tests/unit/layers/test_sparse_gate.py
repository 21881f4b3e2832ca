"""The noisy top-k gate, its chances and its balance, against NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import dropout_step, step_seed
from tfmtl.layers.sparse_gate import (
    MIN_NOISE,
    NoisyTopKGate,
    selection_probability,
    squared_variation,
    top_k_softmax,
)

B, D, E, K = 40, 5, 6, 2


def inputs(rows: int = B, seed: int = 0) -> Any:
    return tf.constant(np.random.default_rng(seed).normal(size=(rows, D)), tf.float32)


def gate(active: int = K, noisy: bool = True, scale: float = 1.0) -> NoisyTopKGate:
    """A gate whose kernels have left their zeros."""
    layer = NoisyTopKGate(E, active, noisy=noisy, seed=7)
    layer(inputs())
    for n, variable in enumerate(layer.trainable_variables):
        draw = np.random.default_rng(n).normal(size=variable.shape)
        variable.assign(scale * draw.astype(np.float32))
    return layer


def kth_excluding(row: np.ndarray, k: int, i: int) -> float:
    return float(np.sort(np.delete(row, i))[::-1][k - 1])


def normal_cdf(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def training_truth(layer: NoisyTopKGate, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and load from the formulas, with the same draws n."""
    x = inputs().numpy()
    with dropout_step(tf.constant(step, tf.int64)):
        n = tf.random.stateless_normal([B, E], step_seed(7)).numpy()
    clean = x @ layer.kernel.numpy()
    spread = np.log1p(np.exp(x @ layer.noise_kernel.numpy()))
    spread = np.maximum(spread, MIN_NOISE)
    noisy = clean + n * spread
    weights, load = np.zeros([B, E]), np.zeros([B, E])
    for b in range(B):
        best = np.argsort(-noisy[b])[: layer.active]
        share = np.exp(noisy[b, best] - noisy[b, best].max())
        weights[b, best] = share / share.sum()
        for i in range(E):
            far = clean[b, i] - kth_excluding(noisy[b], layer.active, i)
            load[b, i] = normal_cdf(far / spread[b, i])
    return weights, load


@pytest.mark.parametrize("active", [1, 2, 5])
def test_training_equals_numpy(active: int) -> None:
    layer = gate(active)
    for step in (0, 3):
        with dropout_step(tf.constant(step, tf.int64)):
            found = layer(inputs(), training=True)
        weights, load = training_truth(layer, step)
        np.testing.assert_allclose(found.weights, weights, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.load, load, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("active", [1, 2, 6])
def test_exactly_k_weights_that_sum_to_one(active: int, training: bool) -> None:
    weights = gate(active)(inputs(), training=training).weights.numpy()
    np.testing.assert_array_equal((weights > 0).sum(axis=1), active)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


def test_weights_are_renormalised_among_the_chosen() -> None:
    layer = gate()
    weights = layer(inputs()).weights.numpy()
    logits = inputs().numpy() @ layer.kernel.numpy()
    chosen = weights > 0
    ratio = np.log(weights[chosen].reshape(-1, K)) - logits[chosen].reshape(-1, K)
    np.testing.assert_allclose(ratio[:, 0], ratio[:, 1], atol=1e-4)


def test_all_experts_without_noise_are_a_plain_softmax() -> None:
    layer = gate(active=E, noisy=False)
    assert len(layer.trainable_variables) == 1
    for training in (False, True):
        found = layer(inputs(), training=training)
        logits = inputs().numpy() @ layer.kernel.numpy()
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found.weights, shares, rtol=1e-4)
        assert found.load is None


def test_no_load_where_it_is_undefined() -> None:
    assert gate(active=E)(inputs(), training=True).load is None
    assert gate(noisy=False)(inputs(), training=True).load is None
    assert gate()(inputs(), training=False).load is None
    assert gate()(inputs(), training=True).load is not None


def test_noise_follows_the_step_and_ends_with_training() -> None:
    layer = gate(scale=0.3)

    def at(step: int, training: bool = True) -> np.ndarray:
        with dropout_step(tf.constant(step, tf.int64)):
            return np.asarray(layer(inputs(), training=training).weights)

    np.testing.assert_array_equal(at(3), at(3))
    assert np.abs(at(3) - at(4)).max() > 0.1
    np.testing.assert_array_equal(at(3, training=False), at(4, training=False))
    clean = inputs().numpy() @ layer.kernel.numpy()
    np.testing.assert_array_equal(
        at(3, training=False) > 0, clean >= np.sort(clean)[:, [-K]]
    )


def test_starts_at_zero_with_equal_load() -> None:
    layer = NoisyTopKGate(E, K, seed=1)
    found = layer(inputs(20000), training=True)
    assert all((v.numpy() == 0).all() for v in layer.trainable_variables)
    # s.e. of a share of 1/3 over 20000 rows: 0.0033
    np.testing.assert_allclose(
        tf.reduce_mean(tf.cast(found.weights > 0, tf.float32), axis=0),
        K / E,
        atol=0.012,
    )
    np.testing.assert_allclose(tf.reduce_mean(found.load, axis=0), K / E, atol=0.012)


def test_equal_logits_take_the_first_k() -> None:
    layer = NoisyTopKGate(E, K, seed=1)
    weights = layer(inputs()).weights.numpy()
    np.testing.assert_array_equal(weights, [[0.5, 0.5, 0, 0, 0, 0]] * B)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_load_is_the_frequency_of_being_chosen(k: int) -> None:
    """Only the noise of the expert in question is drawn again."""
    draw = np.random.default_rng(k)
    clean = draw.normal(size=(1, E))
    spread = draw.uniform(0.3, 1.5, size=(1, E))
    noisy = clean + spread * draw.normal(size=(1, E))
    chances = selection_probability(
        *(tf.constant(v, tf.float32) for v in (clean, noisy, spread)), k
    ).numpy()[0]
    trials = 20000
    for i in range(E):
        again = np.repeat(noisy, trials, axis=0)
        again[:, i] = clean[0, i] + spread[0, i] * draw.normal(size=trials)
        chosen = np.argsort(-again, axis=1)[:, :k] == i
        frequency = chosen.any(axis=1).mean()
        error = math.sqrt(max(chances[i] * (1 - chances[i]), 1e-6) / trials)
        assert abs(frequency - chances[i]) < 3 * error + 1e-4, i
    naive = np.sort(noisy[0])[::-1][k - 1]  # the k-th of all, not without i
    wrong = [normal_cdf(z) for z in (clean[0] - naive) / spread[0]]
    assert np.abs(wrong - chances).max() > 0.02


def test_squared_variation() -> None:
    assert float(squared_variation(tf.fill([E], 3.0))) == 0
    alone = squared_variation(tf.constant([0.0, 0, 7, 0, 0, 0]))
    np.testing.assert_allclose(alone, E - 1, rtol=1e-5)
    amounts = np.random.default_rng(0).uniform(1, 5, size=E)
    np.testing.assert_allclose(
        squared_variation(tf.constant(amounts, tf.float32)),
        amounts.var() / amounts.mean() ** 2,
        rtol=1e-4,
    )
    assert np.isfinite(squared_variation(tf.zeros([E])))


def test_the_gradient_reaches_the_chosen_logits_alone() -> None:
    logits = tf.Variable(np.random.default_rng(0).normal(size=(B, E)), dtype=tf.float32)
    with tf.GradientTape() as tape:
        weights = top_k_softmax(logits, K)
        total = tf.reduce_sum(weights * tf.range(1.0, E + 1))
    gradient = tape.gradient(total, logits).numpy()
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient != 0, weights.numpy() > 0)


def test_both_losses_move_the_gate_towards_balance() -> None:
    layer = gate(scale=0.0)
    x = tf.abs(inputs(500))
    crowded = np.zeros([D, E], np.float32)
    crowded[:, 0] = 0.3  # all rows prefer the first expert
    for read in ("weights", "load"):
        values = []
        layer.kernel.assign(crowded)
        for _ in range(2):
            with tf.GradientTape() as tape:
                found = getattr(layer(x, training=True), read)
                loss = squared_variation(tf.reduce_sum(found, axis=0))
            values.append(float(loss))
            layer.kernel.assign_sub(0.05 * tape.gradient(loss, layer.kernel))
        assert values[1] < values[0] - 1e-3, read


def test_tiny_noise_keeps_gradients_finite() -> None:
    layer = gate()
    layer.noise_kernel.assign(tf.fill([D, E], -100.0))
    x = tf.abs(inputs())
    with tf.GradientTape() as tape:
        found = layer(x, training=True)
        total = tf.reduce_sum(found.load) + tf.reduce_sum(found.weights**2)
    for gradient in tape.gradient(total, layer.trainable_variables):
        assert np.isfinite(gradient).all()


def test_float32_under_mixed_precision() -> None:
    policy = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        layer = NoisyTopKGate(E, K, seed=1)
        found = layer(tf.cast(inputs(), tf.bfloat16), training=True)
    finally:
        keras.mixed_precision.set_global_policy(policy)
    assert found.weights.dtype == found.load.dtype == tf.float32


def test_config_and_bounds() -> None:
    layer = NoisyTopKGate(E, K, seed=1, noisy=False)
    copy = NoisyTopKGate.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    for active in (0, E + 1):
        with pytest.raises(ValueError, match=r"`active` must be in 1\.\.6"):
            NoisyTopKGate(E, active, seed=1)


def test_unknown_batch_size_in_a_graph() -> None:
    layer = gate()
    run = tf.function(
        lambda x: layer(x, training=True).weights,
        input_signature=[tf.TensorSpec([None, D])],
    )
    np.testing.assert_allclose(
        run(inputs()), layer(inputs(), training=True).weights, rtol=1e-5, atol=1e-6
    )
    assert run(inputs(3)).shape == [3, E]
