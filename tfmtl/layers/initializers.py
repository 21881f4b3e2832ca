"""Initial values of stacked kernels: each slice as if it stood alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.seeds import child_seed

Start = float | Sequence[float]
"""Where a member's biases start: one number for all, or one for each output."""


def spread(start: Start, units: int) -> list[float]:
    """One number for each of a member's outputs."""
    if isinstance(start, Sequence):
        if len(start) != units:
            raise ValueError(
                f"a start must have {units} numbers. Received: {list(start)}"
            )
        return [float(s) for s in start]
    return [float(start)] * units


@keras.utils.register_keras_serializable("tfmtl")
class StackedInitializer(keras.initializers.Initializer):
    """Glorot-uniform for a kernel [..., d, h] whose leading axes count members.

    Keras' own VarianceScaling reads leading axes as a convolution's receptive field and
    starts E stacked experts sqrt(E) times too small. Here the fans are d and h, and
    every member draws from a seed of its own.

    Args:
        seed: Of the whole stack.
        scale: Variance factor; 1 is Glorot, 2 suits ReLU.
    """

    def __init__(self, seed: int, scale: float = 1.0) -> None:
        self.seed = seed
        self.scale = scale

    def __call__(
        self, shape: Sequence[int], dtype: Any = None, **kwargs: object
    ) -> Any:
        *members, fan_in, fan_out = shape
        count = 1
        for size in members:
            count *= size
        limit = (6.0 * self.scale / (fan_in + fan_out)) ** 0.5
        slices = [
            tf.random.stateless_uniform(
                [fan_in, fan_out],
                [child_seed(self.seed, i), 0],
                -limit,
                limit,
                tf.as_dtype(dtype or "float32"),
            )
            for i in range(count)
        ]
        return tf.reshape(tf.stack(slices), shape)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed, "scale": self.scale}


@keras.utils.register_keras_serializable("tfmtl")
class NearCentre(keras.initializers.Initializer):
    """Kernels that start as one centre plus a little noise of each's own.

    Both are drawn as by `StackedInitializer`; the noise is a share of a draw.

    Args:
        centre: Seed of the centre, the same for all that start alike.
        seed: Of the noise.
        scale: Variance factor.
        noise: Share of the noise.
    """

    def __init__(
        self, centre: int, seed: int, scale: float = 1.0, noise: float = 0.01
    ) -> None:
        self.centre = centre
        self.seed = seed
        self.scale = scale
        self.noise = noise

    def __call__(
        self, shape: Sequence[int], dtype: Any = None, **kwargs: object
    ) -> Any:
        centre = StackedInitializer(self.centre, self.scale)(shape, dtype)
        own = StackedInitializer(self.seed, self.scale)(shape, dtype)
        return centre + self.noise * own

    def get_config(self) -> dict[str, Any]:
        return {
            "centre": self.centre,
            "seed": self.seed,
            "scale": self.scale,
            "noise": self.noise,
        }


@keras.utils.register_keras_serializable("tfmtl")
class NormalRows(keras.initializers.Initializer):
    """Normal values with a seed, for embedding tables.

    Args:
        seed: Of the table.
        std: Standard deviation.
    """

    def __init__(self, seed: int, std: float = 0.01) -> None:
        self.seed = seed
        self.std = std

    def __call__(
        self, shape: Sequence[int], dtype: Any = None, **kwargs: object
    ) -> Any:
        return tf.random.stateless_normal(
            shape, [self.seed, 1], 0.0, self.std, tf.as_dtype(dtype or "float32")
        )

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed, "std": self.std}
