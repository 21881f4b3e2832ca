"""A cross-stitch unit mixes as its matrix says, whatever the order of the columns."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.cross_stitch import CrossStitchUnit

COLUMNS = ("click", "like", "buy")
X = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)


def unit(per_channel: bool, columns: tuple[str, ...] = COLUMNS) -> CrossStitchUnit:
    """A unit with a matrix that has no symmetry."""
    layer = CrossStitchUnit(columns, per_channel=per_channel)
    layer(tf.constant(X[:, : len(columns)]))
    draw = np.random.default_rng(1).normal(size=layer.stitch.shape)
    layer.stitch.assign(draw.astype(np.float32))
    return layer


def by_name(layer: CrossStitchUnit, channel: int) -> dict[tuple[str, str], float]:
    """Matrix entries; the variable lies in the order of the names."""
    names, matrix = sorted(layer.columns), layer.stitch.numpy()
    if layer.per_channel:
        matrix = matrix[..., channel]
    return {
        (to, source): matrix[i, j]
        for i, to in enumerate(names)
        for j, source in enumerate(names)
    }


@pytest.mark.parametrize("per_channel", [False, True])
def test_equals_a_loop(per_channel: bool) -> None:
    layer = unit(per_channel)
    truth, transposed = np.zeros_like(X), np.zeros_like(X)
    for c in range(4):
        a = by_name(layer, c)
        for i, to in enumerate(COLUMNS):
            for j, source in enumerate(COLUMNS):
                truth[:, i, c] += a[to, source] * X[:, j, c]
                transposed[:, i, c] += a[source, to] * X[:, j, c]
    found = layer(tf.constant(X)).numpy()
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-6)
    assert np.abs(found - transposed).max() > 0.1


@pytest.mark.parametrize("per_channel", [False, True])
def test_starts_as_a_convex_mixture(per_channel: bool) -> None:
    layer = CrossStitchUnit(COLUMNS, same=0.8, per_channel=per_channel)
    layer(tf.constant(X))
    start = layer.mixing.numpy()
    np.testing.assert_allclose(start.sum(axis=1), 1, rtol=1e-6)
    for i in range(3):
        for j in range(3):
            np.testing.assert_allclose(start[i, j], 0.8 if i == j else 0.1, rtol=1e-6)


def test_one_column_is_left_alone() -> None:
    layer = CrossStitchUnit(["click"], same=0.3)
    np.testing.assert_array_equal(layer(tf.constant(X[:, :1])), X[:, :1])


@pytest.mark.parametrize("per_channel", [False, True])
def test_equal_mixing_makes_columns_equal(per_channel: bool) -> None:
    layer = unit(per_channel)
    layer.stitch.assign(tf.fill(layer.stitch.shape, 1 / 3))
    found = layer(tf.constant(X)).numpy()
    np.testing.assert_allclose(found[:, 0], X.mean(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    np.testing.assert_array_equal(found[:, 0], found[:, 2])


@pytest.mark.parametrize("per_channel", [False, True])
def test_permuting_columns_permutes_outputs(per_channel: bool) -> None:
    layer = unit(per_channel)
    order = [2, 0, 1]
    other = unit(per_channel, tuple(COLUMNS[n] for n in order))
    np.testing.assert_array_equal(other.stitch, layer.stitch)
    found = other(tf.constant(X[:, order])).numpy()
    whole = layer(tf.constant(X)).numpy()
    np.testing.assert_allclose(found, whole[:, order], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        other.mixing, layer.mixing.numpy()[order][:, order], "rows and columns move"
    )


@pytest.mark.parametrize("per_channel", [False, True])
def test_gradient_of_the_matrix_is_the_numerical_one(per_channel: bool) -> None:
    layer = unit(per_channel)
    x = tf.constant(X)

    def value() -> tf.Tensor:
        return tf.reduce_sum(tf.sin(layer(x)))

    with tf.GradientTape() as tape:
        total = value()
    gradient = tape.gradient(total, layer.stitch)
    assert isinstance(gradient, tf.Tensor), "a dense gradient"
    start, step = layer.stitch.numpy(), 1e-2
    for place in np.ndindex(*start.shape):
        sides = []
        for sign in (1, -1):
            moved = start.copy()
            moved[place] += sign * step
            layer.stitch.assign(moved)
            sides.append(float(value()))
        np.testing.assert_allclose(
            gradient.numpy()[place], (sides[0] - sides[1]) / (2 * step), atol=5e-3
        )


def test_groups_and_config() -> None:
    layer = CrossStitchUnit(COLUMNS, same=0.7, per_channel=True, owner="shared/stitch")
    expected = layer(tf.constant(X))
    assert list(layer.variable_groups()) == ["shared/stitch"]
    copy = CrossStitchUnit.from_config(layer.get_config())
    np.testing.assert_array_equal(copy(tf.constant(X)), expected)
