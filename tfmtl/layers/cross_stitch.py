"""Learned linear mixing between the columns of parallel networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfmtl._keras import keras, tf


@keras.utils.register_keras_serializable("tfmtl")
class CrossStitchUnit(keras.layers.Layer):
    """Each column becomes a mixture of all columns, [B, T, h] -> [B, T, h].

        x~_i = sum_j A_ij x_j

    A_ij carries information from column j to column i. Rows of A start summing to one;
    nothing holds them there in training. The variable lies in the order of the columns'
    names, so that columns may be given in another order without changing it.

    Args:
        columns: Names of the columns, T of them.
        same: A_ii at the start; the others share the rest of their row.
        per_channel: A matrix for each of the h channels, [T, T, h], not one for all.
        owner: Group of the variable.

    References:
        I. Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR 2016,
        equation 1.
    """

    def __init__(
        self,
        columns: Sequence[str],
        *,
        same: float = 0.9,
        per_channel: bool = False,
        owner: str = "shared",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.columns = tuple(columns)
        self.same = same
        self.per_channel = per_channel
        self.owner = owner

    def build(self, input_shape: Any) -> None:
        count = len(self.columns)
        start = np.ones([1, 1])
        if count > 1:
            start = np.full([count, count], (1 - self.same) / (count - 1))
            np.fill_diagonal(start, self.same)
        if self.per_channel:
            start = np.repeat(start[..., None], int(input_shape[-1]), axis=2)
        self.stitch = self.add_weight(
            "stitch", start.shape, initializer=keras.initializers.Constant(start)
        )
        super().build(input_shape)

    @property
    def mixing(self) -> Any:
        """A in the order of the columns, [T, T] or [T, T, h]."""
        place = {name: n for n, name in enumerate(sorted(self.columns))}
        order = [place[name] for name in self.columns]
        if order == sorted(order):
            return self.stitch
        # Not by gather, whose gradient would be a sparse one.
        rows = tf.unstack(self.stitch)
        columns = tf.unstack(tf.stack([rows[n] for n in order]), axis=1)
        return tf.stack([columns[n] for n in order], axis=1)

    def call(self, inputs: Any) -> Any:
        equation = "ijh,bjh->bih" if self.per_channel else "ij,bjh->bih"
        return tf.einsum(equation, tf.cast(self.mixing, inputs.dtype), inputs)

    def variable_groups(self) -> dict[str, list[Any]]:
        """Owner to A."""
        return {self.owner: [self.stitch]}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "columns": self.columns,
            "same": self.same,
            "per_channel": self.per_channel,
            "owner": self.owner,
        }
