"""Features -> a vector in a cube, for inner products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedDense, StackedMLP


@keras.utils.register_keras_serializable("tfmtl")
class TanhEncoder(keras.layers.Layer):
    """[B, D] -> [B, k] in (-1, 1)^k: hidden layers ReLU, the last one tanh.

    After a ReLU two vectors would have no negative inner product, and zeros where
    either is inactive.

    Args:
        units: Widths of the layers; the last is k.
        seed: Of kernels and masks.
        dropout: After each hidden layer, in training.
    """

    def __init__(
        self, units: Sequence[int], *, seed: int, dropout: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not units:
            raise ValueError("`units` must hold a width. Received: none")
        self.units = tuple(units)
        self.seed = seed
        self.dropout = dropout
        self.hidden = StackedMLP(
            1,
            self.units[:-1],
            seed=child_seed(seed, "hidden"),
            dropout=dropout,
            name="hidden",
        )
        self.last = StackedDense(
            1, self.units[-1], "tanh", seed=child_seed(seed, "last"), name="last"
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.last(self.hidden(inputs, training=training)[:, 0])[:, 0]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "seed": self.seed,
            "dropout": self.dropout,
        }
