"""A sequence of vectors -> one vector, with masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedMLP


def masked_mean(values: Any, mask: Any) -> Any:
    """[B, L, d] and [B, L] -> [B, d]; zeros where nothing is unmasked."""
    weights = tf.cast(mask, values.dtype)
    total = masked_sum(values, mask)
    count = tf.reduce_sum(weights, axis=1, keepdims=True)
    return total / tf.maximum(count, tf.cast(1, values.dtype))


def masked_sum(values: Any, mask: Any) -> Any:
    """[B, L, d] and [B, L] -> [B, d]."""
    return tf.einsum("bld,bl->bd", values, tf.cast(mask, values.dtype))


@keras.utils.register_keras_serializable("tfmtl")
class TargetAttention(keras.layers.Layer):
    """Sums a user's events, each weighted by how it fits the candidate item.

        a_l = MLP([e_l; q; e_l * q; e_l - q]),   z = sum_l a_l e_l

    The weights are not normalised over the sequence, so that the strength of the match
    is kept (Zhou et al., KDD 2018, section 4.3).

    Args:
        units: Widths of the scoring network's hidden layers.
        seed: Of its kernels.

    References:
        G. Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD
        2018.
    """

    def __init__(self, units: Sequence[int] = (32,), *, seed: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = tuple(units)
        self.seed = seed
        self.hidden = StackedMLP(
            1, self.units, seed=child_seed(seed, "hidden"), name="hidden"
        )
        self.score = keras.layers.Dense(
            1,
            kernel_initializer=keras.initializers.RandomUniform(
                -0.05, 0.05, seed=child_seed(seed, "score")
            ),
            name="score",
        )

    def call(self, keys: Any, query: Any, values: Any, mask: Any) -> Any:
        """Pools a sequence.

        Args:
            keys: [B, L, k], what is compared with the query.
            query: [B, k].
            values: [B, L, d], what is summed.
            mask: [B, L] bool.

        Returns:
            Pooled [B, d] and weights [B, L] (0 where masked).
        """
        length = tf.shape(keys)[1]
        queries = tf.repeat(query[:, None, :], length, axis=1)  # [B, L, k]
        both = tf.concat([keys, queries, keys * queries, keys - queries], axis=-1)
        flat = tf.reshape(both, [-1, 4 * keys.shape[-1]])
        scores = self.score(self.hidden(flat)[:, 0, :])
        weights = tf.reshape(scores, [-1, length]) * tf.cast(mask, scores.dtype)
        return tf.einsum("bl,bld->bd", weights, values), weights

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "seed": self.seed}
