"""Tiles of one scenario each equal the loop over rows."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.layers.grouped import from_tiles, tile_rows, to_tiles

S, T, D = 4, 2, 3


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
