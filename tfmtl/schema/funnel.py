"""The steps of a funnel that `given` declares."""

from __future__ import annotations

from collections.abc import Sequence

from tfmtl.schema.task import TaskSpec


def steps_of(tasks: Sequence[TaskSpec], name: str) -> tuple[TaskSpec, ...]:
    """A task and the tasks it is `given`, upwards.

    Args:
        tasks: All tasks, checked by `DatasetSpec`: known, and in no circle.
        name: Of the task.
    """
    by_name = {t.name: t for t in tasks}
    steps = [by_name[name]]
    while (given := steps[-1].given) is not None:
        steps.append(by_name[given])
    return tuple(steps)
