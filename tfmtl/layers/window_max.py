"""Convolutions of several window sizes over a sequence, and the maximum over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.initializers import StackedInitializer
from tfmtl.layers.seeds import child_seed


@keras.utils.register_keras_serializable("tfmtl")
class WindowMax(keras.layers.Layer):
    """The strongest answer of each kernel, wherever in the sequence it is.

        z_w = max_t ReLU(sum_{j=1..w} W_{w,j} x_{t+j-ceil(w/2)} + b_w)      [B, K]
        z   = [z_1; ...; z_W]                                            [B, W K]

    Steps outside the sequence and masked ones count as 0, and no maximum is taken at a
    masked step: padding more steps changes nothing. Bias and ReLU follow the maximum,
    which they do not alter. Where all steps are masked, z is 0.

    Args:
        windows: Window sizes.
        kernels: K, kernels a window size.
        seed: Of the kernels.

    References:
        L. Zheng, V. Noroozi, P. Yu, "Joint Deep Modeling of Users and Items Using
        Reviews for Recommendation", WSDM 2017, section 2.3.
    """

    def __init__(
        self, windows: Sequence[int], kernels: int, *, seed: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.windows = tuple(windows)
        self.kernels = kernels
        self.seed = seed

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        self._kernels = [
            self.add_weight(
                f"kernel_{window}",
                [window, width, self.kernels],
                initializer=_as_dense(child_seed(self.seed, window)),
            )
            for window in self.windows
        ]
        self.bias = self.add_weight(
            "bias", [len(self.windows) * self.kernels], initializer="zeros"
        )
        super().build(input_shape)

    def call(self, inputs: Any, mask: Any) -> Any:
        """[B, L, d] and [B, L] bool -> [B, W K]."""
        held = inputs * tf.cast(mask, inputs.dtype)[:, :, None]
        least = tf.constant(inputs.dtype.min, inputs.dtype)
        best = []
        for kernel in self._kernels:
            found = tf.nn.conv1d(held, kernel, 1, "SAME")  # [B, L, K]
            best.append(tf.reduce_max(tf.where(mask[:, :, None], found, least), axis=1))
        return tf.nn.relu(tf.concat(best, axis=1) + self.bias)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "windows": self.windows,
            "kernels": self.kernels,
            "seed": self.seed,
        }


def _as_dense(seed: int) -> Any:
    """A window's kernel starts like the dense layer over its steps that it is."""

    def initial(shape: Any, dtype: Any = None, **_: object) -> Any:
        window, width, kernels = shape
        dense = StackedInitializer(seed, 2.0)([window * width, kernels], dtype)
        return tf.reshape(dense, shape)

    return initial
