"""Adaptive transfer of one step's representation to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.dropout import Dropout
from tfmtl.layers.groups import merged_groups
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedDense


class AdaptiveTransfer(keras.layers.Layer):
    """N steps, each mixing what the step before passes on with what it sees itself.

        p   = g(z_before)                      ReLU layer, then dropout
        z   = sum_u w_u h1(u),  u in {p, q}
        w_u = softmax over the two u of <h2(u), h3(u)> / sqrt(k)

    h1, h2, h3 are linear without bias, and the same for p and q: z is a function of
    the set {p, q}. Query and key are of the same u; there is no attention across.

    Args:
        owners: Groups of the steps, N of them.
        units: k.
        seed: Of kernels and masks.
        dropout: After g.

    References:
        D. Xi et al., "Modeling the Sequential Dependence among Audience Multi-step
        Conversions with Multi-task Learning in Targeted Display Advertising", KDD 2021,
        section 3.3.
    """

    def __init__(
        self,
        owners: Sequence[str],
        units: int,
        *,
        seed: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.owners = tuple(owners)
        self.units = units
        self.passed = self._dense("passed", seed, "relu", use_bias=True)
        self.drop = Dropout(dropout, child_seed(seed, "dropout"), name="drop")
        self.value = self._dense("value", seed)
        self.query = self._dense("query", seed)
        self.key = self._dense("key", seed)

    def _dense(
        self, name: str, seed: int, activation: str = "linear", use_bias: bool = False
    ) -> StackedDense:
        return StackedDense(
            len(self.owners),
            self.units,
            activation,
            seed=child_seed(seed, name),
            owners=self.owners,
            use_bias=use_bias,
            name=name,
        )

    def call(self, before: Any, own: Any, training: bool = False) -> Any:
        """Transfers.

        Args:
            before: z of the steps before, [B, N, k].
            own: q of the steps, [B, N, k].
            training: Whether dropout acts.

        Returns:
            z [B, N, k], and the weights of p and q [B, N, 2], which sum to 1.
        """
        return self.mix(self.drop(self.passed(before), training=training), own)

    def mix(self, passed: Any, own: Any) -> Any:
        """p and q -> z and weights; shapes as for `call`."""
        # Rows of p above rows of q: one product a map for both.
        both = tf.concat([passed, own], axis=0)  # [2B, N, k]
        products = tf.cast(self.query(both) * self.key(both), tf.float32)
        scores = tf.reduce_sum(products, axis=-1) / self.units**0.5  # [2B, N]
        weights = tf.nn.softmax(tf.stack(tf.split(scores, 2), axis=-1), axis=-1)
        of_passed, of_own = tf.split(self.value(both), 2)
        shares = tf.cast(weights, passed.dtype)
        mixed = shares[..., :1] * of_passed + shares[..., 1:] * of_own
        return mixed, weights  # [B, N, k], [B, N, 2]

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to its variables."""
        return merged_groups([self.passed, self.value, self.query, self.key])
