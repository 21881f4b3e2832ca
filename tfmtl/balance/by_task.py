"""Settings that name tasks."""

from __future__ import annotations

from collections.abc import Mapping

from tfmtl.balance.base import TaskInfo
from tfmtl.errors import ConfigError


def by_task(
    tasks: TaskInfo, values: Mapping[str, float], default: float, setting: str
) -> list[float]:
    """A setting's value of each task, in the order of tasks.

    Args:
        tasks: The tasks.
        values: Task to value.
        default: Of tasks that are not named.
        setting: Its name in `balancer.config`.

    Raises:
        ConfigError: It names a task that does not exist.
    """
    unknown = sorted(set(values) - set(tasks.names))
    if unknown:
        raise ConfigError(
            f"`balancer.config.{setting}` names {unknown}; tasks: {list(tasks.names)}"
        )
    return [values.get(t, default) for t in tasks.names]
