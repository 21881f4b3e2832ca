"""Which rows count for which output, and with which label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tfmtl._keras import tf
from tfmtl.schema.task import TaskSpec


class Target(NamedTuple):
    """What one output is compared with.

    Attributes:
        task: The task the output belongs to.
        labels: [B] float32; 0 outside the population.
        mask: [B] bool; the output's population: where it has a label.
        weights: [B] float32.
    """

    task: TaskSpec
    labels: Any
    mask: Any
    weights: Any


def targets(
    tasks: Sequence[TaskSpec], labels: Any, mask: Any, weights: Any
) -> dict[str, Target]:
    """The targets of every output of a model.

    The output `buy|click` counts where click is known to be 1. The output `buy` counts
    over all rows: it is 0 where click is known to be 0, whatever the label of buy says.

    Args:
        tasks: T tasks.
        labels: [B, T].
        mask: [B, T] bool.
        weights: [B, T].

    Returns:
        Output to target, in the order of the tasks, conditional before joint.
    """
    number = {t.name: i for i, t in enumerate(tasks)}
    joint: dict[str, tuple[Any, Any]] = {}

    def of_task(task: TaskSpec) -> tuple[Any, Any]:
        """Label and mask of a task over all rows."""
        if task.name not in joint:
            i = number[task.name]
            label, known = labels[:, i], mask[:, i]
            if task.given is not None and task.type == "binary":
                above, above_known = of_task(tasks[number[task.given]])
                stopped = above_known & (above < 0.5)
                label = tf.where(stopped, 0.0, label)
                known = stopped | (above_known & known)
            joint[task.name] = (label, known)
        return joint[task.name]

    result = {}
    for i, task in enumerate(tasks):
        if task.given is not None:
            above, above_known = of_task(tasks[number[task.given]])
            population = mask[:, i] & above_known & (above > 0.5)
            result[task.conditional] = _target(
                task, labels[:, i], population, weights[:, i]
            )
        if task.conditional == task.name and task.given is not None:
            continue
        label, known = of_task(task)
        result[task.name] = _target(task, label, known, weights[:, i])
    return result


def _target(task: TaskSpec, labels: Any, mask: Any, weights: Any) -> Target:
    return Target(task, tf.where(mask, labels, 0.0), mask, weights)
