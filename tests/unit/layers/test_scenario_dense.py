"""Layers of each scenario's own equal the loop over rows and members."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.grouped import from_tiles, tile_rows, to_tiles
from tfmtl.layers.scenario_dense import ScenarioDense, ScenarioMLP, ScenarioTowers

NAMES, TASKS = ("p", "q", "r"), ("x", "y")
SCENARIO = np.array([2, 0, 0, 2, 0, 2, 2], np.int32)  # nothing of q
OWNERS = {
    *(f"cell/{s}/{t}" for s in NAMES for t in TASKS),
    *(f"scenario/{s}" for s in NAMES),
}


def dense(**changes: object) -> ScenarioDense:
    settings = {"per_task": 2, "per_scenario": 1, "seed": 1, **changes}
    return ScenarioDense(NAMES, TASKS, 4, "relu", **settings)


def apply(layer: object, rows: tf.Tensor, size: int = 4) -> np.ndarray:
    tiles = tile_rows(tf.constant(SCENARIO), 3, size)
    return from_tiles(layer(to_tiles(rows, tiles), tiles.scenario), tiles).numpy()


@pytest.mark.parametrize("shape", [(7, 3), (7, 5, 3)], ids=["common", "own"])
@pytest.mark.parametrize("size", [1, 4, 64])
@pytest.mark.parametrize("use_bias", [True, False])
def test_equals_a_loop(shape: tuple[int, ...], size: int, use_bias: bool) -> None:
    layer = dense(use_bias=use_bias)
    rows = tf.random.stateless_normal(shape, [1, 2])
    apply(layer, rows)
    for variable in layer.trainable_variables:
        variable.assign_add(tf.random.stateless_normal(variable.shape, [3, 4]))
    found = apply(layer, rows, size)
    groups = layer.variable_groups()
    for b, s in enumerate(SCENARIO):
        n = 0
        for owner in (*(f"cell/{NAMES[s]}/{t}" for t in TASKS), f"scenario/{NAMES[s]}"):
            for i in range(1 if owner.startswith("scenario") else 2):
                x = rows[b] if len(shape) == 2 else rows[b, n]
                y = x.numpy() @ groups[owner][0][i].numpy()
                if use_bias:
                    y = y + groups[owner][1][i].numpy()
                np.testing.assert_allclose(found[b, n], np.maximum(y, 0), rtol=1e-5)
                n += 1
    assert n == found.shape[1] == 5


def test_each_owner_is_moved_by_its_own_rows_and_members() -> None:
    layer = dense()
    rows = tf.random.stateless_normal([7, 3], [1, 2])
    apply(layer, rows)
    groups = layer.variable_groups()
    assert set(groups) == OWNERS
    tiles = tile_rows(tf.constant(SCENARIO), 3)
    with tf.GradientTape() as tape:
        found = from_tiles(layer(to_tiles(rows, tiles), tiles.scenario), tiles)
        total = tf.reduce_sum(found[1, :2])  # a row of p, members of x
    flat = [(o, v) for o, vs in groups.items() for v in vs]
    moved = {
        o
        for (o, _), g in zip(flat, tape.gradient(total, [v for _, v in flat]))
        if np.any(g)
    }
    assert moved == {"cell/p/x"}


def test_members_start_different_and_biases_where_told() -> None:
    bias = [[10.0 * s + t for t in range(2)] for s in range(3)]
    layer = ScenarioDense(NAMES, TASKS, 1, seed=1, initial_bias=bias)
    apply(layer, tf.ones([7, 3]))
    groups = layer.variable_groups()
    for s, name in enumerate(NAMES):
        for t, task in enumerate(TASKS):
            assert groups[f"cell/{name}/{task}"][1].numpy().item() == bias[s][t]
    kernels = [v[0].numpy().ravel() for v in groups.values()]
    assert len({tuple(k) for k in kernels}) == 6
    assert len({v.name for v in layer.weights}) == 12


def test_kernels_start_as_wide_as_a_single_layer_would() -> None:
    layer = ScenarioDense(("p",), ("x",), 256, seed=1, per_task=3)
    layer(tf.ones([1, 1, 256]), tf.constant([0]))
    kernel = layer.variable_groups()["cell/p/x"][0].numpy()
    expected = (2 / 512) ** 0.5
    np.testing.assert_allclose(kernel.std(axis=(1, 2)), expected, rtol=0.03)
    assert np.abs(kernel[0] - kernel[1]).max() > 0


def test_layers_and_towers_chain() -> None:
    stack = ScenarioMLP(NAMES, TASKS, [4, 5], seed=1, per_task=2, per_scenario=1)
    rows = tf.random.stateless_normal([7, 3], [1, 2])
    found = apply(stack, rows)
    first, second = stack.layers
    np.testing.assert_array_equal(found, apply(second, tf.constant(apply(first, rows))))
    assert all(len(v) == 4 for v in stack.variable_groups().values())

    bias = [[float(s + t) for t in range(2)] for s in range(3)]
    towers = ScenarioTowers(NAMES, TASKS, [4], seed=2, initial_bias=bias)
    assert apply(towers, found[:, :2]).shape == (7, 2)
    groups = towers.variable_groups()
    assert set(groups) == {o for o in OWNERS if o.startswith("cell")}
    assert all(len(v) == 4 for v in groups.values())


@pytest.mark.parametrize("kind", [ScenarioDense, ScenarioMLP, ScenarioTowers])
def test_config_round_trip(kind: type) -> None:
    more = {"initial_bias": [[1.0] * 2] * 3} if kind is ScenarioTowers else {}
    units = 4 if kind is ScenarioDense else [4, 5]
    layer = kind(NAMES, TASKS, units, seed=3, **more)
    rows = tf.random.stateless_normal([7, 2, 3], [1, 2])
    copy = kind.from_config(layer.get_config())
    np.testing.assert_array_equal(apply(copy, rows), apply(layer, rows))


S, T, D, H = 4, 2, 3, 5


def _cells() -> ScenarioDense:
    bias = [[10.0 * s + t for t in range(T)] for s in range(S)]
    return ScenarioDense("abcd", ("x", "y"), H, "relu", seed=1, initial_bias=bias)


def _apply(
    layer: ScenarioDense, values: tf.Tensor, scenario: np.ndarray, size: int
) -> tf.Tensor:
    tiles = tile_rows(tf.constant(scenario), S, size)
    return from_tiles(layer(to_tiles(values, tiles), tiles.scenario), tiles)


@pytest.mark.parametrize("size", [1, 4, 64])
def test_cells_equal_a_loop_over_rows(size: int) -> None:
    scenario = np.array([0, 3, 1, 0, 0, 3, 0, 0, 1], np.int32)
    values = tf.random.stateless_normal([9, T, D], [3, 4])
    layer = _cells()
    found = _apply(layer, values, scenario, size)
    cells = layer.variable_groups()
    truth = np.zeros((9, T, H))
    for n in range(9):
        for t, task in enumerate(("x", "y")):
            kernel, bias = cells[f"cell/{'abcd'[scenario[n]]}/{task}"]
            truth[n, t] = np.maximum(
                values[n, t].numpy() @ kernel.numpy()[0] + bias.numpy()[0], 0
            )
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-5)
    moved = _apply(layer, values, np.roll(scenario, 1), size)
    assert np.abs(moved - truth).max() > 1


def test_an_absent_scenarios_cells_get_no_gradient() -> None:
    scenario = np.array([0, 3, 3], np.int32)
    values = tf.random.stateless_normal([3, T, D], [3, 4])
    layer = _cells()
    _apply(layer, values, scenario, 4)
    with tf.GradientTape(persistent=True) as tape:
        total = tf.reduce_sum(_apply(layer, values, scenario, 4))
    for cell, (kernel, bias) in layer.variable_groups().items():
        reached = np.abs(tape.gradient(total, bias)).max() > 0
        assert reached == (cell.split("/")[1] in "ad"), cell
        if not reached:
            assert np.abs(tape.gradient(total, kernel)).max() == 0


def test_config_round_trip_of_cells() -> None:
    scenario = np.array([0, 3, 1], np.int32)
    values = tf.random.stateless_normal([3, T, D], [3, 4])
    layer = _cells()
    expected = _apply(layer, values, scenario, 4)
    copy = ScenarioDense.from_config(layer.get_config())
    np.testing.assert_array_equal(_apply(copy, values, scenario, 4), expected)
