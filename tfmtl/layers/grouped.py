"""Dense layers whose kernel depends on the row's scenario, at the cost of one.

Rows are sorted by scenario and cut into tiles that hold one scenario each; a tile is
one matrix product with its scenario's kernel. The work grows with the rows (plus at
most one tile a scenario), not with rows x scenarios, and no kernel is copied per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tfmtl._keras import keras, tf
from tfmtl.layers.initializers import StackedInitializer
from tfmtl.layers.seeds import child_seed


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


@keras.utils.register_keras_serializable("tfmtl")
class CellDense(keras.layers.Layer):
    """One dense layer per scenario and task, on tiles: [K, R, T, d] -> [K, R, T, h].

    Args:
        scenarios: Names, S of them.
        tasks: Names, T of them.
        units: h.
        activation: Name of a Keras activation.
        seed: Of the kernels.
        initial_bias: [S][T] numbers the biases start at; zeros if None.
    """

    def __init__(
        self,
        scenarios: Sequence[str],
        tasks: Sequence[str],
        units: int,
        activation: str = "linear",
        *,
        seed: int,
        initial_bias: Sequence[Sequence[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scenarios = tuple(scenarios)
        self.tasks = tuple(tasks)
        self.units = units
        self.activation = keras.activations.get(activation)
        self.seed = seed
        self.initial_bias = initial_bias
        self._cells: dict[str, list[Any]] = {}

    def build(self, input_shape: Any) -> None:
        scale = 2.0 if self.activation is keras.activations.relu else 1.0
        for s, scenario in enumerate(self.scenarios):
            for t, task in enumerate(self.tasks):
                start = self.initial_bias[s][t] if self.initial_bias else 0.0
                seed = child_seed(self.seed, scenario, task)
                self._cells[f"cell/{scenario}/{task}"] = [
                    self.add_weight(
                        f"cell_{s}_{task}_kernel",
                        [int(input_shape[-1]), self.units],
                        initializer=StackedInitializer(seed, scale),
                    ),
                    self.add_weight(
                        f"cell_{s}_{task}_bias",
                        [self.units],
                        initializer=keras.initializers.Constant(start),
                    ),
                ]
        super().build(input_shape)

    def call(self, inputs: Any, scenario: Any) -> Any:
        """Applies each tile's kernels; `scenario` is [K]."""
        shape = [len(self.scenarios), len(self.tasks)]
        kernels = tf.stack([k for k, _ in self._cells.values()])
        biases = tf.stack([b for _, b in self._cells.values()])
        kernels = tf.reshape(kernels, [*shape, *kernels.shape[1:]])  # [S, T, d, h]
        biases = tf.reshape(biases, [*shape, self.units])
        kernels = tf.cast(tf.gather(kernels, scenario), inputs.dtype)  # [K, T, d, h]
        biases = tf.cast(tf.gather(biases, scenario), inputs.dtype)
        outputs = tf.einsum("krtd,ktdh->krth", inputs, kernels) + biases[:, None]
        return self.activation(outputs)

    def variable_groups(self) -> dict[str, list[Any]]:
        """`cell/<scenario>/<task>` to its variables."""
        return dict(self._cells)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scenarios": self.scenarios,
            "tasks": self.tasks,
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "seed": self.seed,
            "initial_bias": self.initial_bias,
        }
