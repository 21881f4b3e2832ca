"""One star-shaped tower a task: representation -> logit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.grouped import Tiles
from tfmtl.layers.groups import merged_groups
from tfmtl.layers.initializers import Start
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.star import Leaf, Path, StarDense, StarMLP


class StarTowers(keras.layers.Layer):
    """T towers of star layers; outputs are logits.

    Args:
        scenarios: Names of the known scenarios.
        tasks: Names, T of them.
        units: Widths of the hidden layers; may be empty.
        outputs: Outputs of each tower, `TaskSpec.width`.
        seed: Of kernels and masks.
        dropout: After each hidden layer.
        initial_bias: Where each tower's outputs start.
        leaf: As for `StarDense`.
        path: As for `StarDense`.
    """

    def __init__(
        self,
        scenarios: Sequence[str],
        tasks: Sequence[str],
        units: Sequence[int],
        outputs: Sequence[int],
        *,
        seed: int,
        dropout: float = 0.0,
        initial_bias: Sequence[Start],
        leaf: Leaf = "full",
        path: Path = "tiles",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tasks = tuple(tasks)
        self.hidden = StarMLP(
            scenarios,
            units,
            seed=child_seed(seed, "hidden"),
            dropout=dropout,
            tasks=tasks,
            leaf=leaf,
            path=path,
            name="hidden",
        )
        # One head for all tasks with one output, and one for each with classes.
        single = tuple(t for t, n in enumerate(outputs) if n == 1)
        several = tuple((t,) for t, n in enumerate(outputs) if n > 1)
        self._members = (single, *several) if single else several
        self.heads = [
            StarDense(
                scenarios,
                outputs[members[0]],
                seed=child_seed(seed, "head"),
                tasks=[tasks[t] for t in members],
                leaf=leaf,
                path=path,
                initial_bias=[initial_bias[t] for t in members],
                name="head" if members == single else f"head_{tasks[members[0]]}",
            )
            for members in self._members
        ]

    def call(
        self,
        inputs: Any,
        scenario: Any,
        tiles: Tiles | None = None,
        training: bool = False,
    ) -> list[Any]:
        """Runs the towers.

        Args:
            inputs: [B, H], or in tiles [K, R, H].
            scenario: [B] int32; S and above is unknown.
            tiles: How the inputs are laid out.
            training: Whether dropout acts.

        Returns:
            T tensors, [B, 1] or [B, C], in tiles where the inputs are.
        """
        hidden = self.hidden(inputs, scenario, tiles, training=training)
        results: list[Any] = [None] * len(self.tasks)
        for members, head in zip(self._members, self.heads):
            picked = hidden
            if self.hidden.units and len(members) < len(self.tasks):
                picked = tf.gather(hidden, members, axis=-2)
            logits = head(picked, scenario, tiles)  # [B, T', C]
            for position, t in enumerate(members):
                results[t] = logits[..., position, :]
        return results

    def leaf_penalty(self) -> Any:
        """Sum over the layers."""
        heads = [h.leaf_penalty() for h in self.heads]
        return tf.add_n([self.hidden.leaf_penalty(), *heads])

    def variable_groups(self) -> dict[str, list[Any]]:
        """`task/<task>` to its centre, `cell/<scenario>/<task>` to its leaves."""
        return merged_groups([self.hidden, *self.heads])
