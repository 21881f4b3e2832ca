"""One small tower a task: representation -> logit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.groups import merged_groups
from tfmtl.layers.initializers import Start
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedDense, StackedMLP


class Towers(keras.layers.Layer):
    """T towers as one einsum a layer; outputs are logits.

    Args:
        owners: Groups of the towers (`task/click`), T of them.
        units: Widths of the hidden layers.
        outputs: Outputs of each tower, `TaskSpec.width`.
        initial_bias: Where each tower's outputs start.
        seed: Of kernels and masks.
        dropout: After each hidden layer.
    """

    def __init__(
        self,
        owners: Sequence[str],
        units: Sequence[int],
        outputs: Sequence[int],
        *,
        seed: int,
        dropout: float = 0.0,
        initial_bias: Sequence[Start] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.owners = tuple(owners)
        self.outputs = tuple(outputs)
        bias: Sequence[Start] = initial_bias or [0.0] * len(outputs)
        self.hidden = StackedMLP(
            len(owners),
            units,
            seed=child_seed(seed, "hidden"),
            dropout=dropout,
            owners=owners,
            name="hidden",
        )
        self._single = tuple(t for t, n in enumerate(outputs) if n == 1)
        self._several = tuple(t for t, n in enumerate(outputs) if n > 1)
        if self._single:
            self.head = StackedDense(
                len(self._single),
                1,
                seed=child_seed(seed, "head"),
                owners=[owners[t] for t in self._single],
                initial_bias=[bias[t] for t in self._single],
                name="head",
            )
        self.class_heads = [
            StackedDense(
                1,
                outputs[t],
                seed=child_seed(seed, "head", t),
                owners=[owners[t]],
                initial_bias=[bias[t]],
                name=f"head_{t}",
            )
            for t in self._several
        ]

    def call(
        self, inputs: Any, training: bool = False, factors: Any = None
    ) -> list[Any]:
        """Runs the towers.

        Args:
            inputs: [B, H] for all towers, or [B, T, H].
            training: Whether dropout acts.
            factors: [B, T, h], what the last hidden layers are multiplied by.

        Returns:
            T float32 tensors, [B] or [B, C].
        """
        hidden = self.hidden(inputs, training=training)  # [B, T, h]
        if factors is not None:
            hidden = hidden * tf.cast(factors, hidden.dtype)
        results: list[Any] = [None] * len(self.owners)
        if self._single:
            picked = hidden
            if len(self._single) < len(self.owners):
                picked = tf.gather(hidden, self._single, axis=1)
            logits = tf.cast(self.head(picked), tf.float32)  # [B, T', 1]
            for position, t in enumerate(self._single):
                results[t] = logits[:, position, 0]
        for t, head in zip(self._several, self.class_heads):
            results[t] = tf.cast(head(hidden[:, t, :])[:, 0, :], tf.float32)  # [B, C]
        return results

    def variable_groups(self) -> Mapping[str, list[Any]]:
        """Owner to its tower's variables."""
        heads = [self.head] if self._single else []
        return merged_groups([self.hidden, *heads, *self.class_heads])
