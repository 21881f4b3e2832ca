"""Adam that touches only the embedding rows of the batch."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import keras, tf


class LazyAdam(keras.optimizers.legacy.Adam):
    """Adam whose moments of an embedding row move only when the row is looked up.

    For a row i of the batch, with its duplicate gradients summed to g_i:

        m_i <- b1 m_i + (1 - b1) g_i,      v_i <- b2 v_i + (1 - b2) g_i^2
        w_i <- w_i - rate sqrt(1 - b2^t) / (1 - b1^t) m_i / (sqrt(v_i) + eps)

    Other rows keep value and moments, where Adam would move them on by their decaying
    momentum and sweep the whole table each step. Dense variables are plain Adam.
    """

    def _resource_apply_sparse(
        self, grad: Any, var: Any, indices: Any, apply_state: Any = None
    ) -> Any:
        coefficients = (apply_state or {}).get(
            (var.device, var.dtype.base_dtype)
        ) or self._fallback_apply_state(var.device, var.dtype.base_dtype)
        m, v = self.get_slot(var, "m"), self.get_slot(var, "v")
        new_m = coefficients["beta_1_t"] * tf.gather(m, indices) + (
            coefficients["one_minus_beta_1_t"] * grad
        )
        new_v = coefficients["beta_2_t"] * tf.gather(v, indices) + (
            coefficients["one_minus_beta_2_t"] * tf.square(grad)
        )
        step = coefficients["lr"] * new_m / (tf.sqrt(new_v) + coefficients["epsilon"])
        scatter = tf.raw_ops.ResourceScatterUpdate
        return tf.group(
            scatter(resource=m.handle, indices=indices, updates=new_m),
            scatter(resource=v.handle, indices=indices, updates=new_v),
            tf.raw_ops.ResourceScatterSub(
                resource=var.handle, indices=indices, updates=step
            ),
        )
