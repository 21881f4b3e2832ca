"""One loss a task, over the rows where the task has a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfmtl._keras import tf
from tfmtl.losses.groups import NOTHING, Context
from tfmtl.losses.sums import Sums, over_replicas
from tfmtl.losses.targets import Target, targets
from tfmtl.losses.terms import Rows, Term, terms
from tfmtl.schema.task import TaskSpec


class TaskLosses:
    """Masked losses of all tasks.

        L_t = sum_b m_bt w_bt l_bt / n_t

    n_t is the number of labelled rows of weight above 0 (`normalization: observed`), of
    all rows (`batch`), the sum of the labelled rows' weights (`weights`), or 1 (`sum`).
    A loss of pairs or lists counts and weighs these, its pointwise part rows. A task
    for which nothing counts in the batch has loss 0 and gradient 0.

    Under several replicas n_t is the sum over all of them, over their number: the mean
    of the replicas' gradients is then the gradient of one replica with all rows. Pairs
    and lists are those within a replica. Each call asks the other replicas, which a
    MirroredStrategy forbids in a loop inside a replica: loop over `strategy.run`.

    Args:
        tasks: T tasks.
        outputs: Task to the output that its loss reads.
    """

    def __init__(self, tasks: Sequence[TaskSpec], outputs: Mapping[str, str]) -> None:
        self.tasks = tuple(tasks)
        self.outputs = dict(outputs)

    def __call__(
        self,
        logits: Mapping[str, Any],
        labels: Any,
        mask: Any,
        weights: Any,
        context: Context = NOTHING,
    ) -> tuple[Any, Any]:
        """Computes the losses.

        Args:
            logits: Output to [B] or [B, width].
            labels: [B, T].
            mask: [B, T] bool.
            weights: [B, T].
            context: Groups, scenarios and teachers, for the losses that read them.

        Returns:
            Losses [T] float32, and for which tasks something counts in the batch (a
            row of weight above 0, a pair, a list), [T] bool.
        """
        compared = targets(self.tasks, labels, mask, weights)
        parts = []
        for task in self.tasks:
            output = self.outputs[task.name]
            parts.append(self._terms(task, logits[output], compared[output], context))
        return self._divided(self.tasks, parts, tf.shape(labels)[0])

    def extra(
        self,
        tasks: Mapping[str, str],
        logits: Mapping[str, Any],
        labels: Any,
        mask: Any,
        weights: Any,
        context: Context = NOTHING,
    ) -> dict[str, Any]:
        """Losses of outputs beside the tasks' own, such as a helping subnet's.

        Args:
            tasks: Output to the task whose label, over the rows of that task's own
                loss, it is compared with.
            logits: Output to [B] or [B, width].
            labels: [B, T].
            mask: [B, T] bool.
            weights: [B, T].
            context: As above.

        Returns:
            Output to scalar.
        """
        if not tasks:
            return {}
        compared = targets(self.tasks, labels, mask, weights)
        by_name = {t.name: t for t in self.tasks}
        parts = [
            self._terms(
                by_name[task], logits[output], compared[self.outputs[task]], context
            )
            for output, task in tasks.items()
        ]
        chosen = [by_name[t] for t in tasks.values()]
        losses, _ = self._divided(chosen, parts, tf.shape(labels)[0])
        return dict(zip(tasks, tf.unstack(losses, num=len(chosen))))

    @staticmethod
    def _terms(
        task: TaskSpec, outputs: Any, target: Target, context: Context
    ) -> list[Term]:
        label = target.labels
        if task.transform == "log1p":
            label = tf.math.log1p(tf.maximum(label, 0.0))
        # Outside the population anything may stand, NaN too: a safe number is put there
        # before the loss sees it, or its gradient would be NaN.
        mask = target.mask if outputs.shape.rank == 1 else target.mask[:, None]
        rows = Rows(
            task=task,
            outputs=tf.where(mask, outputs, 0.0),
            labels=label,
            mask=target.mask,
            weights=tf.where(target.mask, target.weights, 0.0),
            context=context,
        )
        return terms(task.fitted, rows)

    @staticmethod
    def _divided(
        tasks: Sequence[TaskSpec], parts: Sequence[Sequence[Term]], rows: Any
    ) -> tuple[Any, Any]:
        """Losses and presences, [K] each, from the tasks' terms."""
        rows = tf.cast(rows, tf.float32)
        flat = [
            _divisor(task, term.sums, rows)
            for task, found in zip(tasks, parts)
            for term in found
        ]
        # Rows without a pair or list still train a pointwise part.
        counts = [tf.reduce_max([term.sums.count for term in found]) for found in parts]
        # One question to the other replicas for all tasks.
        summed, replicas = over_replicas(tf.stack([*flat, *counts]))
        divisors = iter(tf.unstack(summed[: len(flat)], num=len(flat)))
        losses = []
        for task, found in zip(tasks, parts):
            loss = tf.zeros([])
            for term in found:
                loss += term.factor * term.sums.total / _above_0(task, next(divisors))
            losses.append(replicas * loss)
        return tf.stack(losses), summed[len(flat) :] > 0


def _divisor(task: TaskSpec, sums: Sums, rows: Any) -> Any:
    return {
        "observed": sums.count,
        "batch": rows,
        "weights": sums.weight,
        "sum": tf.zeros([]),
    }[task.normalization]


def _above_0(task: TaskSpec, divisor: Any) -> Any:
    """What is divided by: 1 where there is nothing, or where nothing shall be."""
    return tf.where(divisor > 0, divisor, 1.0)
