"""Stacked layers equal the loop over their members."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.stacked import StackedDense, StackedMLP
from tfmtl.layers.towers import Towers

OWNERS = ("task/a", "task/b", "task/a")
X = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
X3 = np.random.default_rng(1).normal(size=(7, 3, 5)).astype(np.float32)


def _loop(layer: StackedDense, inputs: np.ndarray, relu: bool) -> np.ndarray:
    outputs = []
    for n in range(layer.count):
        x = inputs if inputs.ndim == 2 else inputs[:, n]
        y = x @ layer.kernel[n].numpy()
        if layer.bias is not None:
            y = y + layer.bias[n].numpy()
        outputs.append(np.maximum(y, 0) if relu else y)
    return np.stack(outputs, axis=1)


@pytest.mark.parametrize("owners", [None, OWNERS])
@pytest.mark.parametrize("inputs", [X, X3], ids=["shared", "own"])
@pytest.mark.parametrize("activation", ["relu", "linear"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense_equals_a_loop(
    owners: tuple[str, ...] | None, inputs: np.ndarray, activation: str, use_bias: bool
) -> None:
    layer = StackedDense(
        3,
        4,
        activation,
        seed=2,
        owners=owners,
        use_bias=use_bias,
        initial_bias=[0.5, -1.0, 2.0],
    )
    found = layer(tf.constant(inputs))
    truth = _loop(layer, inputs, activation == "relu")
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-5)
    assert np.abs(found - truth[:, ::-1]).max() > 0.1


@pytest.mark.parametrize("owners", [None, OWNERS])
def test_members_start_different_with_equal_spread(
    owners: tuple[str, ...] | None,
) -> None:
    layer = StackedDense(3, 256, "relu", seed=2, owners=owners)
    layer.build([None, 256])
    spread = [k.numpy().std() for k in layer.kernel]
    np.testing.assert_allclose(spread, np.sqrt(2 / 256), rtol=0.03)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(layer.kernel[a] - layer.kernel[b]).max() > 0


def test_initial_bias_is_each_members_own() -> None:
    for owners in (None, OWNERS):
        layer = StackedDense(3, 1, seed=2, owners=owners, initial_bias=[1, 2, 3])
        layer.build([None, 5])
        np.testing.assert_array_equal(layer.bias[:, 0], [1, 2, 3])


def test_owners_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="`owners` must name 3 groups"):
        StackedDense(3, 4, seed=0, owners=["a"])


def test_groups_hold_whole_variables() -> None:
    mlp = StackedMLP(3, [4, 2], seed=0, owners=OWNERS)
    mlp(tf.constant(X))
    groups = mlp.variable_groups()
    assert {k: len(v) for k, v in groups.items()} == {"task/a": 8, "task/b": 4}
    assert len(mlp.trainable_variables) == 12
    assert StackedMLP(3, [4], seed=0).variable_groups() == {}


def test_mlp_is_its_layers_and_spreads_without_any() -> None:
    mlp = StackedMLP(3, [4, 2], seed=0)
    hidden = _loop(mlp.layers[0], X, True) if mlp(tf.constant(X)) is not None else X
    np.testing.assert_allclose(
        mlp(tf.constant(X)), _loop(mlp.layers[1], hidden, True), rtol=1e-5, atol=1e-5
    )
    nothing = StackedMLP(3, [], seed=0)
    np.testing.assert_array_equal(
        nothing(tf.constant(X)), np.repeat(X[:, None], 3, axis=1)
    )
    np.testing.assert_array_equal(nothing(tf.constant(X3)), X3)


def test_dropout_in_training_only() -> None:
    mlp = StackedMLP(2, [50, 50], seed=0, dropout=0.5)
    x = tf.constant(X)
    plain = mlp(x)
    np.testing.assert_array_equal(plain, mlp(x, training=False))
    assert np.abs(mlp(x, training=True) - plain).max() > 0.01


@pytest.mark.parametrize(
    "layer",
    [
        StackedDense(3, 4, "relu", seed=2, owners=OWNERS, initial_bias=[1.0, 2.0, 3.0]),
        StackedDense(3, 4, seed=2, use_bias=False),
        StackedMLP(3, [4, 2], seed=5, dropout=0.2),
    ],
    ids=["owned", "plain", "mlp"],
)
def test_config_round_trip(layer: StackedDense | StackedMLP) -> None:
    expected = layer(tf.constant(X))
    copy = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(copy(tf.constant(X)), expected)
    assert copy.get_config() == layer.get_config()


def test_unknown_batch_size_in_a_graph() -> None:
    layer = StackedDense(3, 4, seed=2)
    run = tf.function(layer, input_signature=[tf.TensorSpec([None, 5])])
    np.testing.assert_allclose(run(X)[:3], run(X[:3]), rtol=1e-6)


class TestTowers:
    """Towers with binary tasks and a multiclass one between them."""

    owners = ("task/a", "task/c", "task/b")

    def _towers(self, units: tuple[int, ...] = (6,)) -> Towers:
        return Towers(
            self.owners,
            units,
            [1, 4, 1],
            seed=3,
            initial_bias=[0.5, 0.0, -0.5],
        )

    @pytest.mark.parametrize("inputs", [X, X3], ids=["shared", "own"])
    @pytest.mark.parametrize("units", [(6,), ()])
    def test_equal_a_loop(self, inputs: np.ndarray, units: tuple[int, ...]) -> None:
        towers = self._towers(units)
        found = towers(tf.constant(inputs))
        assert [f.shape.as_list() for f in found] == [[7], [7, 4], [7]]
        groups = towers.variable_groups()
        for t, owner in enumerate(self.owners):
            x = inputs if inputs.ndim == 2 else inputs[:, t]
            *hidden, kernel, start = [v.numpy() for v in groups[owner]]
            if hidden:
                x = np.maximum(x @ hidden[0] + hidden[1], 0)
            truth = x @ kernel + start
            np.testing.assert_allclose(
                found[t], truth if owner == "task/c" else truth[:, 0], rtol=1e-4
            )

    def test_isolated(self) -> None:
        towers = self._towers()
        with tf.GradientTape(persistent=True) as tape:
            outputs = towers(tf.constant(X))
        groups = towers.variable_groups()
        for t, owner in enumerate(self.owners):
            for other in self.owners:
                gradients = tape.gradient(outputs[t], groups[other])
                reached = [g is not None and np.abs(g).max() > 0 for g in gradients]
                assert any(reached) == (owner == other), (owner, other)


def test_members_of_one_owner_have_names_of_their_own() -> None:
    layer = StackedDense(3, 4, seed=2, owners=OWNERS)
    layer(X)
    names = [v.name.partition("/")[2] for v in layer.weights]
    assert len(set(names)) == 6
    assert {n for n in names if "task/b" in n} == {"task/b/kernel:0", "task/b/bias:0"}
    assert [len(v) for v in layer.variable_groups().values()] == [4, 2]


def test_scale_zero_starts_kernels_at_zero() -> None:
    for owners in (None, OWNERS):
        layer = StackedDense(3, 4, "relu", seed=2, owners=owners, scale=0.0)
        np.testing.assert_array_equal(layer(X), np.zeros([7, 3, 4]))
        assert StackedDense.from_config(layer.get_config()).scale == 0.0


def test_factors_scale_what_the_heads_of_towers_read() -> None:
    towers = Towers(OWNERS[:2], [4], [1, 3], seed=1)
    plain = towers(X)
    factors = np.random.default_rng(2).normal(size=(7, 2, 4)).astype(np.float32)
    scaled = towers(X, factors=factors)
    hidden = towers.hidden(X).numpy() * factors
    for t, head in enumerate((towers.head, *towers.class_heads)):
        truth = hidden[:, t] @ head.kernel[0].numpy() + head.bias[0].numpy()
        np.testing.assert_allclose(
            scaled[t].numpy().reshape(truth.shape), truth, rtol=1e-4, atol=1e-5
        )
        assert np.abs(scaled[t] - plain[t]).max() > 1e-3
