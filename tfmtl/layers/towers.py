"""One small tower a task: representation -> logit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedDense, StackedMLP


class Towers(keras.layers.Layer):
    """T towers as one einsum a layer; outputs are logits.

    Args:
        owners: Groups of the towers (`task/click`), T of them.
        units: Widths of the hidden layers.
        outputs: Outputs of each tower: 1, or the classes of a multiclass task.
        initial_bias: Where each tower's output starts; C numbers for C classes.
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
        initial_bias: Sequence[Sequence[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.owners = tuple(owners)
        self.outputs = tuple(outputs)
        bias = initial_bias or [(0.0,) * n for n in outputs]
        self.hidden = StackedMLP(
            len(owners),
            units,
            seed=child_seed(seed, "hidden"),
            dropout=dropout,
            owners=owners,
            name="hidden",
        )
        self._single = [t for t, n in enumerate(outputs) if n == 1]
        self._heads: dict[int, StackedDense] = {}
        if self._single:
            self.head = StackedDense(
                len(self._single),
                1,
                seed=child_seed(seed, "head"),
                owners=[owners[t] for t in self._single],
                initial_bias=[bias[t][0] for t in self._single],
                name="head",
            )
        for t, count in enumerate(outputs):
            if count > 1:
                self._heads[t] = StackedDense(
                    1,
                    count,
                    seed=child_seed(seed, "head", t),
                    owners=[owners[t]],
                    name=f"head_{t}",
                )
        self.class_heads = list(self._heads.values())
        self._class_bias = {t: bias[t] for t in self._heads}

    def call(self, inputs: Any, training: bool = False) -> list[Any]:
        """Runs the towers.

        Args:
            inputs: [B, H] for all towers, or [B, T, H].
            training: Whether dropout acts.

        Returns:
            T float32 tensors, [B] or [B, C].
        """
        hidden = self.hidden(inputs, training=training)  # [B, T, h]
        results: list[Any] = [None] * len(self.owners)
        if self._single:
            picked = hidden
            if len(self._single) < len(self.owners):
                picked = tf.gather(hidden, self._single, axis=1)
            logits = tf.cast(self.head(picked), tf.float32)  # [B, T', 1]
            for position, t in enumerate(self._single):
                results[t] = logits[:, position, 0]
        for t, head in self._heads.items():
            logits = tf.cast(head(hidden[:, t, :])[:, 0, :], tf.float32)  # [B, C]
            results[t] = logits + tf.constant(self._class_bias[t], tf.float32)
        return results

    def variable_groups(self) -> Mapping[str, list[Any]]:
        """Owner to its tower's variables."""
        groups = self.hidden.variable_groups()
        heads = [self.head] if self._single else []
        for head in [*heads, *self.class_heads]:
            for owner, variables in head.variable_groups().items():
                groups.setdefault(owner, []).extend(variables)
        return groups
