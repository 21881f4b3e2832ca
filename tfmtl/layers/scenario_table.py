"""Vectors of each scenario's own, and of its cells: biases, priors of gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf


@keras.utils.register_keras_serializable("tfmtl")
class ScenarioTable(keras.layers.Layer):
    """N vectors per scenario; zeros for the unknown one: [B] -> N times [B, w].

    Args:
        scenarios: Names, S of them.
        columns: What the N vectors belong to: a task's to `cell/<scenario>/<task>`,
            those of None to `scenario/<scenario>`.
        start: [S][N] vectors to start at; the n-th are of one width.
    """

    def __init__(
        self,
        scenarios: Sequence[str],
        columns: Sequence[str | None],
        start: Sequence[Sequence[Sequence[float]]],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.scenarios = tuple(scenarios)
        self.columns = tuple(columns)
        self.start = start
        self._own: dict[str, Any] = {}

    def build(self, input_shape: Any) -> None:
        for s, scenario in enumerate(self.scenarios):
            for column, start in zip(self.columns, self.start[s]):
                owner = f"scenario/{scenario}"
                if column is not None:
                    owner = f"cell/{scenario}/{column}"
                self._own[owner] = self.add_weight(
                    f"scenario_{s}/{column or 'all'}",
                    [len(start)],
                    initializer=keras.initializers.Constant(list(start)),
                    dtype=tf.float32,
                    experimental_autocast=False,
                )
        super().build(input_shape)

    def call(self, scenario: Any) -> list[Any]:
        """Looks up; `scenario` is [B] int32 in [0, S], S the unknown one."""
        widths = [len(vector) for vector in self.start[0]]
        rows = tf.reshape(tf.concat([*self._own.values()], 0), [-1, sum(widths)])
        rows = tf.pad(rows, [[0, 1], [0, 0]])  # [S + 1, W]
        found: list[Any] = tf.split(tf.gather(rows, scenario), widths, axis=1)
        return found

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its vector."""
        return {owner: [variable] for owner, variable in self._own.items()}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scenarios": self.scenarios,
            "columns": self.columns,
            "start": self.start,
        }
