"""The property-gated LSTM against a NumPy loop and, without properties, Keras' LSTM."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import keras, tf
from tfmtl.layers import property_lstm
from tfmtl.layers.property_lstm import PropertyGatedLSTM

B, L, E, P, H = 4, 5, 3, 2, 6
LENGTHS = np.array([5, 3, 0, 1])
MASK = np.arange(L) < LENGTHS[:, None]


def _inputs(seed: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    draw = np.random.default_rng(seed)
    return tuple(
        tf.constant(draw.normal(size=(B, L, width)).astype(np.float32))
        for width in (E, P)
    )


def _layer(with_properties: bool = True) -> PropertyGatedLSTM:
    layer = PropertyGatedLSTM(H, seed=1)
    layer(_inputs() if with_properties else _inputs()[0], mask=tf.constant(MASK))
    draw = np.random.default_rng(7)
    for variable in layer.trainable_variables:
        variable.assign_add(draw.normal(0, 0.3, variable.shape))
    return layer


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _numpy(
    layer: PropertyGatedLSTM,
    mask: np.ndarray = MASK,
    property_in_candidate: bool = False,
    candidate_in_output: bool = False,
) -> np.ndarray:
    """One row and step at a time, one gate at a time."""
    items, properties = (v.numpy().astype(np.float64) for v in _inputs())
    item, recurrent, bias = (
        np.split(v.numpy(), 4, axis=-1)
        for v in (layer.item_kernel, layer.recurrent_kernel, layer.bias)
    )
    of_property = np.split(layer.property_kernel.numpy(), 3, axis=1)
    states = np.zeros((B, L, H))
    for b in range(B):
        h, c = np.zeros(H), np.zeros(H)
        for t in range(L):
            e, p = items[b, t], properties[b, t]
            gate = [
                _sigmoid(e @ item[g] + p @ of_property[g] + h @ recurrent[g] + bias[g])
                for g in range(3)
            ]
            candidate = e @ item[3] + h @ recurrent[3] + bias[3]
            if property_in_candidate:
                candidate += p @ of_property[2]
            i, f, o = gate
            if mask[b, t]:
                c = f * c + i * np.tanh(candidate)
                h = o * (c if candidate_in_output else np.tanh(c))
            states[b, t] = h
    return states


def test_equals_numpy() -> None:
    layer = _layer()
    found = layer(_inputs(), mask=tf.constant(MASK))
    np.testing.assert_allclose(found, _numpy(layer), rtol=1e-4, atol=1e-5)
    assert np.abs(found - _numpy(layer, property_in_candidate=True)).max() > 1e-2
    assert np.abs(found - _numpy(layer, candidate_in_output=True)).max() > 1e-2


def test_without_property_weights_it_is_keras_lstm() -> None:
    layer = _layer()
    layer.property_kernel.assign(tf.zeros_like(layer.property_kernel))
    stock = keras.layers.LSTM(H, return_sequences=True)
    items, _ = _inputs()
    stock(items)

    def keras_order(v: tf.Variable) -> np.ndarray:
        i, f, o, candidate = np.split(v.numpy(), 4, axis=-1)
        return np.concatenate([i, f, candidate, o], axis=-1)

    ours = (layer.item_kernel, layer.recurrent_kernel, layer.bias)
    stock.set_weights([keras_order(v) for v in ours])
    np.testing.assert_allclose(
        layer(_inputs(), mask=tf.constant(MASK)),
        stock(items, mask=tf.constant(MASK)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_the_candidate_does_not_depend_on_the_property() -> None:
    layer = _layer()
    items, properties = _inputs()
    one = layer.project((items, properties)).numpy()  # [L, B, 4H]
    two = layer.project((items, properties + 1.0)).numpy()
    np.testing.assert_array_equal(one[..., 3 * H :], two[..., 3 * H :])
    for gate in range(3):
        part = slice(gate * H, (gate + 1) * H)
        assert np.abs(one[..., part] - two[..., part]).min() > 1e-4, gate


def test_with_open_gates_nothing_depends_on_the_property() -> None:
    """i = o = 1 and f = 0 whatever p is: h_t = tanh(tanh(candidate))."""
    layer = _layer()
    layer.bias.assign(np.repeat([100.0, -100.0, 100.0, 0.1], H))
    items, properties = _inputs()
    full = tf.ones([B, L], tf.bool)
    one = layer((items, properties), mask=full)
    two = layer((items, 2.0 - properties), mask=full)
    np.testing.assert_array_equal(one, two)
    assert np.abs(one).max() > 0.1


def test_a_masked_step_keeps_the_state() -> None:
    layer = _layer()
    mask = MASK.copy()
    mask[0, 2] = False  # a hole, not only an end
    found = layer(_inputs(), mask=tf.constant(mask)).numpy()
    np.testing.assert_array_equal(found[0, 2], found[0, 1])
    np.testing.assert_array_equal(found[2], 0)
    np.testing.assert_array_equal(found[1, 3:], found[1, [2, 2]])
    np.testing.assert_allclose(found, _numpy(layer, mask), rtol=1e-4, atol=1e-5)


def test_content_of_masked_steps_has_no_influence() -> None:
    layer = _layer()
    items, properties = _inputs()
    noise = 9.0 * tf.cast(~MASK[:, :, None], tf.float32)
    plain = layer((items, properties), mask=tf.constant(MASK))
    other = layer((items + noise, properties + noise), mask=tf.constant(MASK))
    np.testing.assert_array_equal(plain, other)


@pytest.mark.parametrize("graph", [False, True])
def test_the_loop_equals_the_unrolled_steps(
    graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = _layer()

    def run() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            found = layer(_inputs(), mask=tf.constant(MASK))
            total = tf.reduce_sum(tf.square(found - 0.3))
        return [found, *tape.gradient(total, layer.trainable_variables)]

    def runs() -> list[tf.Tensor]:
        return tf.function(run, autograph=False)() if graph else run()

    unrolled = runs()
    monkeypatch.setattr(property_lstm, "LONGEST_UNROLLED", L - 1)
    called = []
    loop = layer._loop
    monkeypatch.setattr(layer, "_loop", lambda *a: called.append(1) or loop(*a))
    for a, b in zip(unrolled, runs()):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert called


def test_items_alone() -> None:
    layer = _layer(with_properties=False)
    assert layer.property_kernel is None
    assert len(layer.trainable_variables) == 3
    assert layer(_inputs()[0], mask=tf.constant(MASK)).shape == [B, L, H]


def test_blocks_start_with_their_own_fans() -> None:
    layer = PropertyGatedLSTM(256, seed=1)
    wide = tf.zeros([1, 1, 300])
    layer((wide, wide), mask=tf.ones([1, 1], tf.bool))
    np.testing.assert_array_equal(layer.bias, np.repeat([0, 1, 0, 0], 256))
    limit = np.sqrt(6 / (300 + 256))
    for kernel, count in ((layer.item_kernel, 4), (layer.property_kernel, 3)):
        blocks = np.split(kernel.numpy(), count, axis=1)
        for n, block in enumerate(blocks):
            assert block.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
            assert all(np.abs(block - other).max() > 0 for other in blocks[:n])
    kernel = layer.recurrent_kernel.numpy()
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(256), atol=1e-4)


def test_config_round_trip_and_any_batch_size() -> None:
    layer = PropertyGatedLSTM(H, seed=3)
    copy = PropertyGatedLSTM.from_config(layer.get_config())
    call = tf.function(
        lambda e, p, m: layer((e, p), mask=m),
        input_signature=[
            tf.TensorSpec([None, L, E]),
            tf.TensorSpec([None, L, P]),
            tf.TensorSpec([None, L], tf.bool),
        ],
    )
    items, properties = _inputs()
    whole = call(items, properties, tf.constant(MASK))
    np.testing.assert_allclose(
        copy((items, properties), mask=tf.constant(MASK)), whole, rtol=1e-6, atol=1e-7
    )
    half = call(items[:1], properties[:1], tf.constant(MASK[:1]))
    np.testing.assert_allclose(half, whole[:1], rtol=1e-5, atol=1e-6)
