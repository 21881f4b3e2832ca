"""An LSTM whose gates know what kind of behaviour a step is."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.initializers import StackedInitializer
from tfmtl.layers.seeds import child_seed

LONGEST_UNROLLED = 128
"""Steps above which a loop runs instead. Unrolled, a training pass took 260 ms of two
cores instead of 310 (batch 512, 50 steps), and each step some 0.05 s to trace."""


@keras.utils.register_keras_serializable("tfmtl")
class PropertyGatedLSTM(keras.layers.Layer):
    """LSTM over items e_t, gated by their properties p_t (scenario, time, kind of act).

        i_t = sigma(W_ei e_t + W_pi p_t + W_hi h_{t-1} + b_i)
        f_t = sigma(W_ef e_t + W_pf p_t + W_hf h_{t-1} + b_f)
        o_t = sigma(W_eo e_t + W_po p_t + W_ho h_{t-1} + b_o)
        c_t = f_t * c_{t-1} + i_t * tanh(W_ec e_t + W_hc h_{t-1} + b_c)
        h_t = o_t * tanh(c_t)

    The property enters the three gates and never the candidate, which Keras' LSTM
    cannot express. What does not depend on h_{t-1} is one matrix product for all steps;
    a step is one more, [B, H] with [H, 4H]. A masked step keeps the state, which is
    float32 in every precision.

    The forget gate's bias starts at 1 and the recurrent kernel is orthogonal, as in
    Keras; the paper says neither.

    Args:
        units: H.
        seed: Of the kernels.

    References:
        Y. Ni et al., "Perceive Your Users in Depth: Learning Universal User
        Representations from Multiple E-commerce Tasks", KDD 2018, section 3.3.
    """

    def __init__(self, units: int, *, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.seed = seed
        self.property_kernel: Any = None

    def build(self, input_shape: Any) -> None:
        pair = isinstance(input_shape, tuple | list)
        items, properties = input_shape if pair else (input_shape, None)
        width = 4 * self.units
        self.item_kernel = self.add_weight(
            "item_kernel",
            [int(items[-1]), width],  # i, f, o, candidate
            initializer=_side_by_side(child_seed(self.seed, "item"), 4),
        )
        if properties is not None:
            self.property_kernel = self.add_weight(
                "property_kernel",
                [int(properties[-1]), 3 * self.units],  # i, f, o
                initializer=_side_by_side(child_seed(self.seed, "property"), 3),
            )
        self.recurrent_kernel = self.add_weight(
            "recurrent_kernel",
            [self.units, width],
            initializer=keras.initializers.Orthogonal(
                seed=child_seed(self.seed, "recurrent")
            ),
        )
        self.bias = self.add_weight(
            "bias",
            [width],
            initializer=lambda shape, dtype=None, **_: tf.repeat(
                tf.constant([0, 1, 0, 0], dtype), self.units
            ),
        )
        super().build(input_shape)

    def call(self, inputs: Any, mask: Any) -> Any:
        """Runs over the steps.

        Args:
            inputs: Items [B, L, e] with L known, or (items, properties [B, L, p]).
            mask: [B, L] bool.

        Returns:
            h of every step, [B, L, H].
        """
        projected = self.project(inputs)  # [L, B, 4H]
        length = projected.shape[0]
        # A transpose of booleans makes oneDNN complain on older processors.
        steps = tf.transpose(tf.cast(mask, tf.float32))[:, :, None] > 0  # [L, B, 1]
        start = tf.zeros([tf.shape(mask)[0], self.units], tf.float32)
        if length <= LONGEST_UNROLLED:
            states, state = [], (start, start)
            for part, step in zip(tf.unstack(projected), tf.unstack(steps)):
                state = self._step(part, step, *state)
                states.append(state[0])
            hidden = tf.stack(states, axis=1)  # [B, L, H]
        else:
            hidden = self._loop(projected, steps, start)
        return tf.cast(hidden, self.compute_dtype)

    def project(self, inputs: Any) -> Any:
        """What the steps add to h_{t-1}: [L, B, 4H], gates i, f, o and the candidate.

        Args:
            inputs: As for `call`.
        """
        kernel = self.item_kernel
        if self.property_kernel is not None:
            # The candidate's block of zeros costs less than a second product.
            padded = tf.pad(self.property_kernel, [[0, 0], [0, self.units]])
            kernel = tf.concat([kernel, padded], axis=0)
            inputs = tf.concat(inputs, axis=2)
        # Steps come first, so that each is one piece of memory in the recurrence.
        by_step = tf.transpose(inputs, [1, 0, 2])  # [L, B, e + p]
        return tf.tensordot(by_step, kernel, 1) + self.bias

    def _step(self, part: Any, step: Any, hidden: Any, cell: Any) -> tuple[Any, Any]:
        product = tf.matmul(tf.cast(hidden, part.dtype), self.recurrent_kernel)
        gates = tf.cast(part + product, tf.float32)  # [B, 4H]
        i, f, o, candidate = tf.split(gates, 4, axis=1)
        new_cell = tf.sigmoid(f) * cell + tf.sigmoid(i) * tf.tanh(candidate)
        new_hidden = tf.sigmoid(o) * tf.tanh(new_cell)
        return tf.where(step, new_hidden, hidden), tf.where(step, new_cell, cell)

    def _loop(self, projected: Any, steps: Any, start: Any) -> Any:
        length = projected.shape[0]
        parts = tf.TensorArray(projected.dtype, length).unstack(projected)
        masks = tf.TensorArray(tf.bool, length).unstack(steps)
        states = tf.TensorArray(tf.float32, length, element_shape=[None, self.units])

        def body(t: Any, hidden: Any, cell: Any, states: Any) -> tuple[Any, ...]:
            hidden, cell = self._step(parts.read(t), masks.read(t), hidden, cell)
            return t + 1, hidden, cell, states.write(t, hidden)

        *_, states = tf.while_loop(
            lambda t, *_: t < length,
            body,
            (tf.constant(0), start, start, states),
            maximum_iterations=length,
        )
        return tf.transpose(states.stack(), [1, 0, 2])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "seed": self.seed}


def _side_by_side(seed: int, count: int) -> Any:
    """Kernels [d, h] with their own fans, laid out as [d, count * h]."""

    def initial(shape: Any, dtype: Any = None, **_: object) -> Any:
        inputs, width = shape
        stacked = StackedInitializer(seed)([count, inputs, width // count], dtype)
        return tf.reshape(tf.transpose(stacked, [1, 0, 2]), shape)

    return initial
