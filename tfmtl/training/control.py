"""Per-task control: who trains in a step, and how far a task's gradient goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.balance.gram import gram_matrix, scale
from tfmtl.errors import ConfigError
from tfmtl.schema.control import TaskControlSpec


def task_of(group: str) -> str | None:
    """The task that a group of variables belongs to; None where to none alone."""
    kind, _, name = group.partition("/")
    if kind == "cell":
        return name.rpartition("/")[2]
    return name if kind in ("task", "gate") else None


class TaskControl:
    """What `training.tasks` asks for.

    A task takes part from its `start` to its `stop`, unless it is stopped before. While
    it does not, its loss is 0 and it counts as absent, as without a label in the batch.

    Args:
        names: Of the T tasks.
        specs: Task to its settings.
        groups: Group to variables of the model.

    Attributes:
        names: Of the T tasks.
        stopped: Variable [T] bool: tasks whose patience has run out.
        clip_norms: [T] of the tasks' gradients on shared variables; None: as they are.
        apart: Places of the tasks that change their own variables alone.
        waiting: Group of variables to the task without which it is not updated.

    Raises:
        ConfigError: A task with `reach: own` has no variable of its own.
    """

    def __init__(
        self,
        names: Sequence[str],
        specs: Mapping[str, TaskControlSpec],
        groups: Mapping[str, Sequence[Any]],
    ) -> None:
        self.names = tuple(names)
        self.specs = {n: specs.get(n, TaskControlSpec()) for n in names}
        all_specs = [self.specs[n] for n in names]
        self.stopped = tf.Variable(
            [False] * len(names), trainable=False, name="stopped"
        )
        self.clip_norms: tuple[float | None, ...] = tuple(
            s.clip_norm for s in all_specs
        )
        self.apart = [t for t, s in enumerate(all_specs) if s.reach == "own"]
        self.waiting = {
            g: task
            for g in groups
            if (task := task_of(g)) in self.specs and self.specs[task].scheduled
        }
        self._own = {
            n: [v for g, vs in groups.items() if task_of(g) == n for v in vs]
            for n in names
        }
        for place in self.apart:
            if not self.own(place):
                raise ConfigError(
                    f"`training.tasks.{names[place]}.reach: own` needs variables of "
                    "the task's own; in this model other tasks reach all it has. "
                    f"Groups: {sorted(groups)}"
                )
        self._start = np.array([s.start for s in all_specs], np.int64)
        never = np.iinfo(np.int64).max
        self._stop = np.array(
            [never if s.stop is None else s.stop for s in all_specs], np.int64
        )

    @property
    def clips(self) -> bool:
        """Whether a task's gradient is clipped."""
        return any(n is not None for n in self.clip_norms)

    @property
    def schedules(self) -> bool:
        """Whether there may be steps that a task takes no part in."""
        return any(s.scheduled for s in self.specs.values())

    def own(self, task: int) -> list[Any]:
        """The variables that belong to a task alone."""
        return self._own[self.names[task]]

    def active(self, step: Any) -> Any:
        """[T] bool, who takes part in a step."""
        step = tf.cast(step, tf.int64)
        inside = (step >= self._start) & (step < self._stop)
        return inside & ~self.stopped

    def masked(self, losses: Any, present: Any, step: Any) -> tuple[Any, Any]:
        """Losses [T] and which tasks are present [T], without those left out."""
        if not self.schedules:
            return losses, present
        active = self.active(step)
        return tf.where(active, losses, tf.zeros_like(losses)), present & active

    def active_by_task(self, step: Any) -> dict[str, Any] | None:
        """Task to whether it takes part; None where all always do."""
        if not self.schedules:
            return None
        return dict(zip(self.names, tf.unstack(self.active(step))))


def clip_factor(squared: Any, norm: float) -> Any:
    """What scales a gradient of a squared norm down to a norm: float32 in (0, 1]."""
    limit = tf.constant(norm, tf.float64)
    length = tf.sqrt(tf.cast(squared, tf.float64))
    return tf.cast(limit / tf.maximum(length, limit), tf.float32)


def clip_task(
    gradients: Sequence[Any], norm: float, squared: Any = None
) -> tuple[list[Any], Any]:
    """Scales a task's gradients, one a variable, down to a global norm.

    Args:
        gradients: One a variable; None where the task does not reach it.
        norm: Of all together, at most.
        squared: Their squared norm, where it is known already.

    Returns:
        The gradients, and the factor that scaled them.
    """
    if squared is None:
        squared = gram_matrix([(g,) for g in gradients])[0, 0]
    factor = clip_factor(squared, norm)
    return [scale(g, factor) for g in gradients], factor


def clip_tasks(
    gradients: Sequence[Sequence[Any]],
    norms: Sequence[float | None],
    gramian: Any = None,
) -> list[list[Any]]:
    """Scales the gradients of each task that has a norm down to it.

    Args:
        gradients: Variable by task.
        norms: Of the T tasks; None: as they are.
        gramian: [T, T] their inner products, where they are known already.
    """
    by_task = [list(g) for g in zip(*gradients)]
    for t, norm in enumerate(norms[: len(by_task)]):
        if norm is not None:
            squared = None if gramian is None else gramian[t, t]
            by_task[t], _ = clip_task(by_task[t], norm, squared)
    return [list(g) for g in zip(*by_task)]
