"""Experts of one layer that is normalised before it is rectified."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedDense

EPSILON = 1e-5


@keras.utils.register_keras_serializable("tfmtl")
class NormedExperts(keras.layers.Layer):
    """E experts side by side: [B, d] -> [B, E, h].

        f_e(x) = relu(LayerNorm_e(W_e x + b_e))

    Each expert has a scale and a shift of its own; the moments are over its h outputs
    and computed in float32.

    Args:
        count: E.
        units: h.
        seed: Of the kernels.

    References:
        Z. Zhang et al., "M3oE: Multi-Domain Multi-Task Mixture-of-Experts
        Recommendation Framework", SIGIR 2024, equation 3.
    """

    def __init__(self, count: int, units: int, *, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.count = count
        self.units = units
        self.seed = seed
        self.dense = StackedDense(
            count, units, seed=child_seed(seed, "dense"), name="dense"
        )
        self.scale: Any = None
        self.shift: Any = None

    def build(self, input_shape: Any) -> None:
        shape = [self.count, self.units]
        self.scale = self.add_weight("norm_scale", shape, initializer="ones")
        self.shift = self.add_weight("norm_shift", shape, initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: Any) -> Any:
        outputs = tf.cast(self.dense(inputs), tf.float32)  # [B, E, h]
        mean, variance = tf.nn.moments(outputs, axes=[-1], keepdims=True)
        outputs = (outputs - mean) * tf.math.rsqrt(variance + EPSILON)
        outputs = outputs * tf.cast(self.scale, tf.float32)
        outputs += tf.cast(self.shift, tf.float32)
        return tf.cast(tf.nn.relu(outputs), inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "count": self.count,
            "units": self.units,
            "seed": self.seed,
        }
