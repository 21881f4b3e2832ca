"""Gates are normalised over experts and mix as the equation says."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.dropout import dropout_step
from tfmtl.layers.gate import Gates, renormalised

B, D, E, H = 6, 5, 4, 3
OWNERS = ("gate/click", "gate/buy")


def _inputs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(B, D)).astype(np.float32)
    return x, draw.normal(size=(B, E, H)).astype(np.float32)


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_equals_numpy(temperature: float) -> None:
    x, experts = _inputs()
    gates = Gates(OWNERS, E, seed=1, temperature=temperature)
    mixed, weights = gates(tf.constant(x), tf.constant(experts))
    kernel = gates.dense.kernel.numpy()  # [T, D, E]
    truth = _softmax(np.einsum("bd,tde->bte", x, kernel) / temperature)
    np.testing.assert_allclose(weights, truth, rtol=1e-5)
    np.testing.assert_allclose(
        mixed, np.einsum("bte,beh->bth", truth, experts), rtol=1e-5, atol=1e-6
    )


def test_sum_to_one_over_experts_and_vary_with_the_input() -> None:
    x, experts = _inputs()
    _, weights = Gates(OWNERS, E, seed=1)(tf.constant(x), tf.constant(experts))
    assert weights.shape == [B, 2, E]
    np.testing.assert_allclose(tf.reduce_sum(weights, -1), 1, rtol=1e-6)
    assert weights.numpy().std(axis=0).min() > 1e-3
    wrong = tf.nn.softmax(tf.math.log(weights)[..., None], axis=-1)
    assert np.abs(tf.reduce_sum(wrong, axis=2) - 1).max() > 1  # the all-ones gate


def test_own_input_per_gate() -> None:
    x, experts = _inputs()
    gates = Gates(OWNERS, E, seed=1)
    _, shared = gates(tf.constant(x), tf.constant(experts))
    both = np.stack([x, np.roll(x, 1, axis=0)], axis=1)
    _, own = gates(tf.constant(both), tf.constant(experts))
    np.testing.assert_allclose(own[:, 0], shared[:, 0], rtol=1e-5)
    assert np.abs(own[:, 1] - shared[:, 1]).max() > 1e-3


def test_dropout_drops_whole_experts_and_renormalises() -> None:
    x, experts = _inputs()
    gates = Gates(OWNERS, E, seed=1, dropout=0.5)
    x, experts = tf.tile(x, [200, 1]), tf.tile(experts, [200, 1, 1])
    _, whole = gates(x, experts, training=False)
    _, weights = gates(x, experts, training=True)
    weights, whole = weights.numpy(), whole.numpy()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    lost = weights == 0
    assert 0.4 < lost.mean() < 0.55
    kept = ~lost & (lost.sum(-1, keepdims=True) > 0)
    share = np.where(lost, 0, whole)
    share /= np.maximum(share.sum(-1, keepdims=True), 1e-12)
    np.testing.assert_allclose(weights[kept], share[kept], rtol=1e-4)
    # Where chance took all experts, all count alike.
    flat = np.isclose(weights, 1 / E).all(-1)
    assert flat.mean() == pytest.approx(0.5**E, abs=0.03)


def test_dropout_masks_follow_the_step() -> None:
    x, experts = (tf.constant(v) for v in _inputs())
    gates = Gates(OWNERS, E, seed=1, dropout=0.5)

    def at(step: int) -> np.ndarray:
        with dropout_step(tf.constant(step, tf.int64)):
            return np.asarray(gates(x, experts, training=True)[1])

    np.testing.assert_array_equal(at(3), at(3))
    assert np.abs(at(3) - at(4)).max() > 0


def test_groups_and_config() -> None:
    x, experts = (tf.constant(v) for v in _inputs())
    gates = Gates(OWNERS, E, seed=1, dropout=0.1, temperature=2.0)
    expected = gates(x, experts)[0]
    assert {k: len(v) for k, v in gates.variable_groups().items()} == {
        "gate/click": 1,
        "gate/buy": 1,
    }
    copy = Gates.from_config(gates.get_config())
    np.testing.assert_array_equal(copy(x, experts)[0], expected)


def test_weights_keep_their_type_when_renormalised() -> None:
    """Whatever the fallback's: under bfloat16 dropped weights are bfloat16."""
    weights = tf.constant([[0.25, 0.0], [0.0, 0.0]], tf.bfloat16)
    found = renormalised(weights, tf.constant([[0.5, 0.5]], tf.float32))
    assert found.dtype == tf.bfloat16
    np.testing.assert_array_equal(tf.cast(found, tf.float32), [[1, 0], [0.5, 0.5]])
