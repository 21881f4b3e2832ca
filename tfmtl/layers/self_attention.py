"""Multi-head self-attention over tokens, with residual and normalisation."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedDense


class SelfAttention(keras.layers.Layer):
    """Tokens attend to one another: [B, N, k] -> [B, N, k].

        head_h = softmax(Q_h K_h^T / sqrt(k / heads)) V_h,   Q, K, V linear in X
        out    = LayerNorm(X + [head_1; ...; head_H])

    Knows no order: permuting the tokens permutes the result.

    Args:
        heads: Number of heads; divides k.
        seed: Of the kernels.

    References:
        A. Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.2,
        without the projection of the concatenated heads.
    """

    def __init__(self, heads: int, *, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads
        self.seed = seed
        self.norm = keras.layers.LayerNormalization(name="norm")

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        if width % self.heads:
            raise ValueError(
                f"`heads` must divide the tokens' width {width}. Received: {self.heads}"
            )
        # Queries, keys and values of all tokens in one matrix product.
        self.project = StackedDense(
            3,
            width,
            seed=child_seed(self.seed, "project"),
            use_bias=False,
            name="project",
        )
        super().build(input_shape)

    def call(self, tokens: Any) -> tuple[Any, Any]:
        """Attends.

        Args:
            tokens: [B, N, k].

        Returns:
            [B, N, k], and float32 weights [B, heads, N, N], which sum to 1 over the
            last axis.
        """
        count, width = tokens.shape[1], tokens.shape[2]
        flat = tf.reshape(tokens, [-1, width])
        split = tf.reshape(
            self.project(flat), [-1, count, 3, self.heads, width // self.heads]
        )
        query, key, value = tf.unstack(tf.transpose(split, [2, 0, 3, 1, 4]))
        scores = tf.matmul(query, key, transpose_b=True)  # [B, heads, N, N]
        scores = tf.cast(scores, tf.float32) / (width / self.heads) ** 0.5
        weights = tf.nn.softmax(scores, axis=-1)
        mixed = tf.matmul(tf.cast(weights, value.dtype), value)  # [B, heads, N, d]
        mixed = tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, count, width])
        return self.norm(tokens + mixed), weights
