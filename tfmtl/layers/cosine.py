"""Cosines of two vectors as logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf


@keras.utils.register_keras_serializable("tfmtl")
class CosineScores(keras.layers.Layer):
    """One scaled cosine a task.

        s_t = gamma_t cos(u_t, v_t) + b_t,   gamma_t = exp(kappa_t) > 0

    A cosine alone lies in [-1, 1] and gives no calibrated probability. Computed in
    float32 in every precision; where a vector is 0, the cosine is 0.

    Args:
        owners: Groups of the tasks (`task/click`), T of them.
        scale: Where each gamma_t starts.
        initial_bias: Where each b_t starts.
    """

    def __init__(
        self,
        owners: Sequence[str],
        *,
        scale: float,
        initial_bias: Sequence[float],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.owners = tuple(owners)
        self.scale = scale
        self.initial_bias = tuple(initial_bias)
        self.log_scales: list[Any] = []
        self.biases: list[Any] = []

    def build(self, input_shape: Any) -> None:
        for owner, bias in zip(self.owners, self.initial_bias):
            for kept, name, start in (
                (self.log_scales, "log_scale", math.log(self.scale)),
                (self.biases, "bias", bias),
            ):
                kept.append(
                    self.add_weight(
                        f"{owner}/{name}",
                        [],
                        initializer=keras.initializers.Constant(start),
                        experimental_autocast=False,
                    )
                )
        super().build(input_shape)

    def call(self, left: Any, right: Any) -> tuple[Any, Any]:
        """[B, T, h] twice -> logits and cosines, [B, T] float32 each."""
        unit = [
            tf.math.l2_normalize(tf.cast(v, tf.float32), axis=-1) for v in (left, right)
        ]
        cosines = tf.reduce_sum(unit[0] * unit[1], axis=-1)
        scales = tf.exp(tf.stack(self.log_scales))
        return scales * cosines + tf.stack(self.biases), cosines

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its scale and bias."""
        return {
            owner: [scale, bias]
            for owner, scale, bias in zip(self.owners, self.log_scales, self.biases)
        }

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "owners": self.owners,
            "scale": self.scale,
            "initial_bias": self.initial_bias,
        }
