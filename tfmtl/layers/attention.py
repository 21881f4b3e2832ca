"""Which steps of a sequence matter for this user and request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.initializers import StackedInitializer
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedMLP


@keras.utils.register_keras_serializable("tfmtl")
class ContextAttention(keras.layers.Layer):
    """Scores each step with the context it is read in, and averages the values.

        a = softmax_t(w . MLP([s_t; c])),   z = sum_t a_t v_t

    s_t describes the step and c the context (query and user). The first layer is split
    into W_s s_t + W_c c, so that the context is multiplied once a row and not once a
    step. Masked steps get the weight 0; where all are masked, z is 0.

    Args:
        units: Widths of the scoring network's hidden layers, at least one.
        seed: Of kernels and masks.
        dropout: After each hidden layer, in training.

    References:
        Y. Ni et al., "Perceive Your Users in Depth", KDD 2018, section 3.4.
    """

    def __init__(
        self,
        units: Sequence[int] = (128, 64),
        *,
        seed: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = tuple(units)
        self.seed = seed
        self.dropout = dropout
        self.drop = Dropout(dropout, child_seed(seed, "dropout"), name="drop")
        self.hidden = StackedMLP(
            1,
            self.units[1:],
            seed=child_seed(seed, "hidden"),
            dropout=dropout,
            name="hidden",
        )
        # The softmax takes no notice of a bias.
        self.score = keras.layers.Dense(
            1,
            use_bias=False,
            kernel_initializer=StackedInitializer(child_seed(seed, "score")),
            name="score",
        )

    def build(self, input_shape: Any) -> None:
        steps, context = _pair(input_shape)
        self._step_width = int(steps[-1])
        width = self._step_width + (int(context[-1]) if context is not None else 0)
        self.kernel = self.add_weight(
            "kernel",
            [width, self.units[0]],
            initializer=StackedInitializer(child_seed(self.seed, "kernel"), 2.0),
        )
        self.bias = self.add_weight("bias", [self.units[0]], initializer="zeros")
        super().build(input_shape)

    def call(
        self, inputs: Any, values: Any, mask: Any, training: bool = False
    ) -> tuple[Any, Any]:
        """Pools a sequence.

        Args:
            inputs: Steps [B, L, s] with L known, or (steps, context [B, c]).
            values: [B, L, d], what is averaged.
            mask: [B, L] bool.
            training: Whether dropout acts.

        Returns:
            Pooled [B, d], and weights [B, L] float32, which sum to 1 over the unmasked
            steps.
        """
        steps, context = _pair(inputs)
        width = self._step_width
        first = tf.tensordot(steps, self.kernel[:width], 1) + self.bias  # [B, L, H]
        if context is not None:
            first += tf.matmul(context, self.kernel[width:])[:, None]
        hidden = self.drop(tf.nn.relu(first), training=training)
        length = steps.shape[1]
        rows = tf.reshape(hidden, [-1, self.units[0]])
        scores = self.score(self.hidden(rows, training=training)[:, 0])
        scores = tf.reshape(tf.cast(scores, tf.float32), [-1, length])
        # Finite, so that a row without a step has no NaN; its weights are then zeroed.
        weights = tf.nn.softmax(tf.where(mask, scores, scores.dtype.min))
        weights *= tf.cast(mask, tf.float32)
        pooled = tf.einsum("bl,bld->bd", tf.cast(weights, values.dtype), values)
        return pooled, weights

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "seed": self.seed,
            "dropout": self.dropout,
        }


def _pair(value: Any) -> Any:
    return value if isinstance(value, tuple | list) else (value, None)
