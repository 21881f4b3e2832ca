"""One number per id and task: position bias, popularity, rating habits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.ids import rows_of


class BiasTable(keras.layers.Layer):
    """One number per row of a table and owner: index [B] -> [B, T].

    An update touches only the rows of the batch.

    Args:
        owners: Groups of the columns (`task/click`), T of them.
        rows: R, rows of the table.
        initial: What each column starts at; zeros if None.
    """

    def __init__(
        self,
        owners: Sequence[str],
        rows: int,
        initial: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.owners = tuple(owners)
        self.rows = rows
        self.initial = tuple(initial) if initial is not None else (0.0,) * len(owners)
        self._columns: list[Any] = []

    def build(self, input_shape: Any) -> None:
        self._columns = [
            self.add_weight(
                f"{owner}/bias",
                [self.rows],
                initializer=keras.initializers.Constant(start),
                dtype=tf.float32,
                experimental_autocast=False,
            )
            for owner, start in zip(self.owners, self.initial)
        ]
        super().build(input_shape)

    def call(self, index: Any) -> Any:
        """Looks up; an index outside the table is row 0."""
        index = rows_of(index, self.rows)
        # A gather each: of the stacked columns, the gradient would be dense.
        return tf.stack([tf.gather(c, index) for c in self._columns], axis=1)  # [B, T]

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its column."""
        return {o: [c] for o, c in zip(self.owners, self._columns)}
