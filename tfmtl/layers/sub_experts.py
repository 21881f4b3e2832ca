"""Experts that are themselves mixtures of small experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedDense, StackedMLP


@keras.utils.register_keras_serializable("tfmtl")
class SubExpertIntegration(keras.layers.Layer):
    """N experts, each the mixture of K sub-experts of its own: [B, d] -> [B, N, h].

        w_n(x) = softmax(W_n x + b_n)          over the K sub-experts
        S_n(x) = sum_k w_n(x)_k Q_{n,k}(x)     Q a ReLU network

    All sub-experts are one product a layer.

    Args:
        count: N.
        sub_experts: K.
        units: Widths of a sub-expert's layers.
        seed: Of kernels and masks.
        dropout: After each layer of the sub-experts, in training.

    References:
        J. Zhou et al., "HiNet: Novel Multi-Scenario & Multi-Task Learning with
        Hierarchical Information Extraction", ICDE 2023, arXiv 2303.06095.
    """

    def __init__(
        self,
        count: int,
        sub_experts: int,
        units: Sequence[int],
        *,
        seed: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.count = count
        self.sub_experts = sub_experts
        self.units = tuple(units)
        self.seed = seed
        self.dropout = dropout
        self.networks = StackedMLP(
            count * sub_experts,
            units,
            seed=child_seed(seed, "networks"),
            dropout=dropout,
            name="networks",
        )
        self.gate = StackedDense(
            count, sub_experts, seed=child_seed(seed, "gate"), name="gate"
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Integrates.

        Args:
            inputs: [B, d].
            training: Whether dropout acts.

        Returns:
            Experts [B, N, h] and weights [B, N, K], which sum to 1 over K.
        """
        outputs = self.networks(inputs, training=training)
        shape = [-1, self.count, self.sub_experts, outputs.shape[-1]]
        outputs = tf.reshape(outputs, shape)  # [B, N, K, h]
        logits = tf.cast(self.gate(inputs), tf.float32)
        weights = tf.nn.softmax(logits, axis=-1)
        mixed = tf.einsum("bnk,bnkh->bnh", tf.cast(weights, outputs.dtype), outputs)
        return mixed, weights

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "count": self.count,
            "sub_experts": self.sub_experts,
            "units": self.units,
            "seed": self.seed,
            "dropout": self.dropout,
        }
