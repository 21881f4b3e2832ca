"""Towers that read the estimates of other tasks, behind a stopped gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._keras import keras, tf
from tfmtl.layers.groups import merged_groups
from tfmtl.layers.initializers import Start
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedDense
from tfmtl.layers.towers import Towers


def estimate(logits: Any, form: str) -> Any:
    """What another task reads of a task's output, [B, 1] or [B, C].

    Args:
        logits: [B] or [B, C].
        form: `logit`, or `probability` (a class' share where there are several).
    """
    values = tf.stop_gradient(logits)
    if form == "probability":
        values = tf.sigmoid(values) if values.shape.rank == 1 else tf.nn.softmax(values)
    return values[:, None] if values.shape.rank == 1 else values


class EstimateTowers(keras.layers.Layer):
    """T towers, some of which read other towers' outputs beside their input.

        s_A = h_A(r),   s_B = h_B([r; sg(phi(s_A))])

    Towers of one depth and input width are computed as one einsum a layer.

    Args:
        owners: Groups of the towers, T of them.
        units: Widths of the hidden layers.
        outputs: Outputs of each tower.
        sources: For each tower, the indices of the towers it reads; acyclic.
        form: What is read: `logit` or `probability`.
        seed: Of kernels and masks.
        dropout: After each hidden layer.
        initial_bias: Where each tower's output starts.
    """

    def __init__(
        self,
        owners: Sequence[str],
        units: Sequence[int],
        outputs: Sequence[int],
        sources: Sequence[Sequence[int]],
        *,
        form: str,
        seed: int,
        dropout: float = 0.0,
        initial_bias: Sequence[Start] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sources = tuple(tuple(s) for s in sources)
        self.form = form
        bias: Sequence[Start] = initial_bias or [0.0] * len(outputs)
        members: dict[tuple[int, int], list[int]] = {}
        for t in range(len(owners)):
            width = sum(outputs[s] for s in self.sources[t])
            members.setdefault((self._depth(t), width), []).append(t)
        self._members = [members[key] for key in sorted(members)]
        self.stacks = [
            Towers(
                [owners[t] for t in group],
                units,
                [outputs[t] for t in group],
                seed=child_seed(seed, *(owners[t] for t in group)),
                dropout=dropout,
                initial_bias=[bias[t] for t in group],
                name=f"stack_{i}",
            )
            for i, group in enumerate(self._members)
        ]

    def _depth(self, t: int) -> int:
        return max((1 + self._depth(s) for s in self.sources[t]), default=0)

    def call(self, inputs: Any, training: bool = False) -> list[Any]:
        """Runs the towers; arguments and result as for `Towers`."""
        results: list[Any] = [None] * len(self.sources)
        for group, stack in zip(self._members, self.stacks):
            # [B, H] or [B, n, H]
            own = inputs if inputs.shape.rank == 2 else tf.gather(inputs, group, axis=1)
            if self.sources[group[0]]:
                read = [
                    tf.concat(
                        [estimate(results[s], self.form) for s in self.sources[t]],
                        axis=1,
                    )
                    for t in group
                ]
                if own.shape.rank == 2:
                    own = tf.repeat(own[:, None], len(group), axis=1)
                stacked = tf.cast(tf.stack(read, axis=1), own.dtype)
                own = tf.concat([own, stacked], axis=2)  # [B, n, H + K]
            for t, logits in zip(group, stack(own, training=training)):
                results[t] = logits
        return results

    def variable_groups(self) -> Mapping[str, list[Any]]:
        """Owner to its tower's variables."""
        return merged_groups(self.stacks)


class EstimateHeads(keras.layers.Layer):
    """Adds what other tasks' estimates say to logits that no tower of ours made.

        s_B = s'_B + V_B sg(phi(s_A))

    Args:
        tasks: Names of the T tasks.
        sources: Task to the tasks it reads; acyclic.
        form: What is read: `logit` or `probability`.
        seed: Of the kernels.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        sources: Mapping[str, Sequence[str]],
        *,
        form: str,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tasks = tuple(tasks)
        self.sources = {k: tuple(v) for k, v in sources.items()}
        self.form = form
        self.seed = seed
        self.heads: dict[str, Any] = {}

    def build(self, input_shape: Any) -> None:
        for task, sources in self.sources.items():
            if sources:
                width = input_shape[task][-1] if len(input_shape[task]) == 2 else 1
                self.heads[task] = StackedDense(
                    1,
                    width,
                    seed=child_seed(self.seed, task),
                    owners=[f"task/{task}"],
                    use_bias=False,
                    name=f"{task}_head",
                )
        super().build(input_shape)

    def call(self, logits: Mapping[str, Any]) -> dict[str, Any]:
        """Task to logits [B] or [B, C] -> the same with the estimates' share."""
        done: dict[str, Any] = {}

        def of(task: str) -> Any:
            if task not in done:
                value = logits[task]
                if task in self.heads:
                    read = [estimate(of(s), self.form) for s in self.sources[task]]
                    added = self.heads[task](tf.concat(read, axis=1))[:, 0]
                    value += tf.reshape(tf.cast(added, value.dtype), tf.shape(value))
                done[task] = value
            return done[task]

        return {task: of(task) for task in logits}

    def variable_groups(self) -> dict[str, list[Any]]:
        """`task/<task>` to its head."""
        return merged_groups(self.heads.values())
