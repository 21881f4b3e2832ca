"""The shallow tower that takes position bias out of the main tower's logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf


class BiasTable(keras.layers.Layer):
    """One number per row of a table and owner: index [B] -> [B, T].

    Starts at zero: at first no position is better than another.

    Args:
        owners: Groups of the columns (`task/click`), T of them.
        rows: R, rows of the table.
    """

    def __init__(self, owners: Sequence[str], rows: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.owners = tuple(owners)
        self.rows = rows
        self._columns: list[Any] = []

    def build(self, input_shape: Any) -> None:
        self._columns = [
            self.add_weight(
                f"{owner}/bias",
                [self.rows],
                initializer="zeros",
                dtype=tf.float32,
                experimental_autocast=False,
            )
            for owner in self.owners
        ]
        super().build(input_shape)

    def call(self, index: Any) -> Any:
        return tf.gather(tf.stack(self._columns, axis=1), index)  # [B, T]

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its column."""
        return {o: [c] for o, c in zip(self.owners, self._columns)}
