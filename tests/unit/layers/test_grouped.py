"""Tiles of one scenario each equal the loop over rows."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.grouped import CellDense, from_tiles, tile_rows, to_tiles

S, T, D, H = 4, 2, 3, 5


@pytest.mark.parametrize("rows", [1, 2, 8, 31, 64, 65])
@pytest.mark.parametrize("size", [1, 4, 64])
def test_tiles_hold_one_scenario_and_every_row_once(rows: int, size: int) -> None:
    scenario = np.random.default_rng(rows).integers(0, S, rows).astype(np.int32)
    scenario[scenario == 2] = 3  # nothing of scenario 2
    tiles = tile_rows(tf.constant(scenario), S, size)
    slot = tiles.slot.numpy()
    assert len(set(slot)) == rows
    assert slot.max() < int(tiles.count) * size
    np.testing.assert_array_equal(tiles.scenario.numpy()[slot // size], scenario)
    needed = sum(-(-int((scenario == s).sum()) // size) for s in range(S))
    assert int(tiles.count) == needed == len(tiles.scenario)


@pytest.mark.parametrize("counts", [(4, 4, 4, 4), (8, 0, 0, 1), (0, 0, 0, 5)])
def test_there_and_back_at_tile_boundaries(counts: tuple[int, ...]) -> None:
    scenario = np.repeat(np.arange(S), counts).astype(np.int32)
    np.random.default_rng(0).shuffle(scenario)
    values = tf.random.stateless_normal([len(scenario), T, D], [1, 2])
    tiles = tile_rows(tf.constant(scenario), S, size=4)
    laid = to_tiles(values, tiles)
    assert laid.shape == [sum(-(-c // 4) for c in counts), 4, T, D]
    np.testing.assert_array_equal(from_tiles(laid, tiles), values)
    empty = int(tiles.count) * 4 - len(scenario)
    assert (np.abs(laid).max(axis=(2, 3)) == 0).sum() == empty


def _layer() -> CellDense:
    bias = [[10.0 * s + t for t in range(T)] for s in range(S)]
    return CellDense("abcd", ("x", "y"), H, "relu", seed=1, initial_bias=bias)


def _apply(
    layer: CellDense, values: tf.Tensor, scenario: np.ndarray, size: int
) -> tf.Tensor:
    tiles = tile_rows(tf.constant(scenario), S, size)
    return from_tiles(layer(to_tiles(values, tiles), tiles.scenario), tiles)


@pytest.mark.parametrize("size", [1, 4, 64])
def test_cells_equal_a_loop_over_rows(size: int) -> None:
    scenario = np.array([0, 3, 1, 0, 0, 3, 0, 0, 1], np.int32)
    values = tf.random.stateless_normal([9, T, D], [3, 4])
    layer = _layer()
    found = _apply(layer, values, scenario, size)
    cells = layer.variable_groups()
    truth = np.zeros((9, T, H))
    for n in range(9):
        for t, task in enumerate(("x", "y")):
            kernel, bias = cells[f"cell/{'abcd'[scenario[n]]}/{task}"]
            truth[n, t] = np.maximum(
                values[n, t].numpy() @ kernel.numpy() + bias.numpy(), 0
            )
    np.testing.assert_allclose(found, truth, rtol=1e-5, atol=1e-5)
    moved = _apply(layer, values, np.roll(scenario, 1), size)
    assert np.abs(moved - truth).max() > 1


def test_an_absent_scenario_gets_no_gradient() -> None:
    scenario = np.array([0, 3, 3], np.int32)
    values = tf.random.stateless_normal([3, T, D], [3, 4])
    layer = _layer()
    _apply(layer, values, scenario, 4)
    with tf.GradientTape(persistent=True) as tape:
        total = tf.reduce_sum(_apply(layer, values, scenario, 4))
    for cell, (kernel, bias) in layer.variable_groups().items():
        reached = np.abs(tape.gradient(total, bias)).max() > 0
        assert reached == (cell.split("/")[1] in "ad"), cell
        if not reached:
            assert np.abs(tape.gradient(total, kernel)).max() == 0


def test_config_round_trip() -> None:
    scenario = np.array([0, 3, 1], np.int32)
    values = tf.random.stateless_normal([3, T, D], [3, 4])
    layer = _layer()
    expected = _apply(layer, values, scenario, 4)
    copy = CellDense.from_config(layer.get_config())
    np.testing.assert_array_equal(_apply(copy, values, scenario, 4), expected)
