"""Dense layers whose kernel depends on the row's scenario, at the cost of one.

Rows are sorted by scenario and cut into tiles that hold one scenario each; a tile is
one matrix product with its scenario's kernel. The work grows with the rows (plus at
most one tile a scenario), not with rows x scenarios, and no kernel is copied per row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tfmtl._keras import tf


class Tiles(NamedTuple):
    """Where each row lies.

    Attributes:
        slot: [N] int32, place of row n in the tiles laid end to end.
        scenario: [K] int32, scenario of each tile.
        count: K.
        size: Rows of a tile.
    """

    slot: Any
    scenario: Any
    count: Any
    size: int


def tile_rows(scenario: Any, num_scenarios: int, size: int = 64) -> Tiles:
    """Lays rows out in tiles of one scenario each.

    Args:
        scenario: [N] int32 in [0, num_scenarios).
        num_scenarios: S.
        size: Rows of a tile.
    """
    counts = tf.math.bincount(
        scenario, minlength=num_scenarios, maxlength=num_scenarios
    )  # [S]
    tiles = (counts + size - 1) // size  # [S]
    first_tile = tf.cumsum(tiles, exclusive=True)
    first_row = tf.cumsum(counts, exclusive=True)
    order = tf.argsort(scenario, stable=True)  # [N]
    sorted_scenario = tf.gather(scenario, order)
    rank = tf.range(tf.size(scenario)) - tf.gather(first_row, sorted_scenario)
    sorted_slot = tf.gather(first_tile, sorted_scenario) * size + rank
    slot = tf.scatter_nd(order[:, None], sorted_slot, tf.shape(scenario))
    return Tiles(
        slot=slot,
        scenario=tf.repeat(tf.range(num_scenarios), tiles),
        count=tf.reduce_sum(tiles),
        size=size,
    )


def to_tiles(rows: Any, tiles: Tiles) -> Any:
    """[N, ...] -> [K, size, ...], zeros where a tile has no row."""
    shape = tf.concat([[tiles.count * tiles.size], tf.shape(rows)[1:]], axis=0)
    laid = tf.scatter_nd(tiles.slot[:, None], rows, shape)
    return tf.reshape(laid, [-1, tiles.size, *rows.shape[1:]])


def from_tiles(values: Any, tiles: Tiles) -> Any:
    """[K, size, ...] -> [N, ...]."""
    flat = tf.reshape(values, [-1, *values.shape[2:]])
    return tf.gather(flat, tiles.slot)
