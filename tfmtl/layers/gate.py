"""Softmax gates over experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedDense


@keras.utils.register_keras_serializable("tfmtl")
class Gates(keras.layers.Layer):
    """One softmax gate per owner, each mixing all experts.

        g^t(x) = softmax(W_{g,t} x)            linear, no bias
        z_t    = sum_e g^t(x)_e f_e(x)

    The softmax runs over the experts, the last axis of the logits [B, T, E].

    Args:
        owners: Names of the gates' groups, T of them.
        num_experts: E.
        seed: Of kernels and masks.
        dropout: Share of experts a gate loses in training; the rest is renormalised
            (Zhao et al., RecSys 2019, section 4.2: against one expert taking all).
        temperature: Divides the logits.

    References:
        J. Ma et al., "Modeling Task Relationships in Multi-task Learning with
        Multi-gate Mixture-of-Experts", KDD 2018, equations 6 and 7.
    """

    def __init__(
        self,
        owners: Sequence[str],
        num_experts: int,
        *,
        seed: int,
        dropout: float = 0.0,
        temperature: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.owners = tuple(owners)
        self.num_experts = num_experts
        self.seed = seed
        self.dropout = dropout
        self.temperature = temperature
        self.dense = StackedDense(
            len(self.owners),
            num_experts,
            seed=child_seed(seed, "kernel"),
            owners=self.owners,
            use_bias=False,
            name="dense",
        )
        self.drop = Dropout(dropout, child_seed(seed, "dropout"), name="drop")

    def call(self, inputs: Any, experts: Any, training: bool = False) -> Any:
        """Mixes experts.

        Args:
            inputs: [B, D], or [B, T, D] for an input of its own per gate.
            experts: [B, E, H].
            training: Whether to drop experts.

        Returns:
            Mixtures [B, T, H] and weights [B, T, E], which sum to 1 over E.
        """
        logits = tf.cast(self.dense(inputs), tf.float32) / self.temperature
        weights = tf.nn.softmax(logits, axis=-1)  # [B, T, E]
        if training and self.dropout > 0:
            weights = renormalised(
                self.drop(weights, training=True), 1.0 / self.num_experts
            )
        mixed = tf.einsum("bte,beh->bth", tf.cast(weights, experts.dtype), experts)
        return mixed, weights

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its gate's kernel."""
        return self.dense.variable_groups()

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "owners": self.owners,
            "num_experts": self.num_experts,
            "seed": self.seed,
            "dropout": self.dropout,
            "temperature": self.temperature,
        }


def renormalised(weights: Any, fallback: Any) -> Any:
    """Weights of which some were dropped, scaled to sum to 1 again.

    Args:
        weights: [..., E], none below 0.
        fallback: What a gate gets that lost all its experts, rather than nothing;
            broadcast to the weights.
    """
    total = tf.reduce_sum(weights, axis=-1, keepdims=True)
    fallback = tf.cast(fallback, weights.dtype)
    return tf.where(total > 0, weights / tf.maximum(total, 1e-12), fallback)
