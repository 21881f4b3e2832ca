"""One loss a task, over the rows where the task has a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._keras import tf
from tfmtl.errors import ConfigError
from tfmtl.losses.pointwise import LOSSES
from tfmtl.losses.targets import Target, targets
from tfmtl.schema.task import TaskSpec


class TaskLosses:
    """Masked losses of all tasks.

        L_t = sum_b m_bt w_bt l_bt / n_t

    n_t is the number of labelled rows (`normalization: observed`), of all rows
    (`batch`), or the sum of the labelled rows' weights (`weights`). A task without a
    label in the batch has loss 0 and gradient 0.

    Args:
        tasks: T tasks.
        outputs: Task to the output that its loss reads.

    Raises:
        ConfigError: A task names a loss that its type does not have.
    """

    def __init__(self, tasks: Sequence[TaskSpec], outputs: Mapping[str, str]) -> None:
        self.tasks = tuple(tasks)
        self.outputs = dict(outputs)
        self._losses = {}
        for task in tasks:
            legal = LOSSES[task.type]
            name = task.loss or next(iter(legal))
            if name not in legal:
                raise ConfigError(
                    f"task {task.name!r}: `loss` of a {task.type} task must be one of "
                    f"{sorted(legal)}. Received: {name!r}"
                )
            self._losses[task.name] = legal[name]

    def __call__(
        self, logits: Mapping[str, Any], labels: Any, mask: Any, weights: Any
    ) -> tuple[Any, Any]:
        """Computes the losses.

        Args:
            logits: Output to [B] or [B, C].
            labels: [B, T].
            mask: [B, T] bool.
            weights: [B, T].

        Returns:
            Losses [T] float32, and which tasks have a label in the batch, [T] bool.
        """
        compared = targets(self.tasks, labels, mask, weights)
        losses, present = [], []
        for task in self.tasks:
            output = self.outputs[task.name]
            losses.append(self._loss(task, logits[output], compared[output]))
            present.append(tf.reduce_any(compared[output].mask))
        return tf.stack(losses), tf.stack(present)

    def extra(
        self,
        tasks: Mapping[str, str],
        logits: Mapping[str, Any],
        labels: Any,
        mask: Any,
        weights: Any,
    ) -> dict[str, Any]:
        """Losses of outputs beside the tasks' own, such as a helping subnet's.

        Args:
            tasks: Output to the task whose label, over the rows of that task's own
                loss, it is compared with.
            logits: Output to [B] or [B, C].
            labels: [B, T].
            mask: [B, T] bool.
            weights: [B, T].

        Returns:
            Output to scalar.
        """
        if not tasks:
            return {}
        compared = targets(self.tasks, labels, mask, weights)
        by_name = {t.name: t for t in self.tasks}
        return {
            output: self._loss(
                by_name[task], logits[output], compared[self.outputs[task]]
            )
            for output, task in tasks.items()
        }

    def _loss(self, task: TaskSpec, logits: Any, target: Target) -> Any:
        label = target.labels
        if task.transform == "log1p":
            label = tf.math.log1p(tf.maximum(label, 0.0))
        rows = self._losses[task.name](logits, label)
        # A row outside the population may hold anything: it must not reach the sum.
        share = tf.where(target.mask, target.weights, 0.0)
        rows = tf.where(target.mask, rows, 0.0)
        return tf.reduce_sum(share * rows) / self._count(task, target.mask, share)

    @staticmethod
    def _count(task: TaskSpec, mask: Any, share: Any) -> Any:
        if task.normalization == "batch":
            return tf.cast(tf.size(mask), tf.float32)
        if task.normalization == "weights":
            total = tf.reduce_sum(share)
            return tf.where(total > 0, total, 1.0)
        return tf.maximum(tf.reduce_sum(tf.cast(mask, tf.float32)), 1.0)
