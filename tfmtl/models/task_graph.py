"""Tasks that build on other tasks, by depth."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence

from tfmtl.errors import ConfigError


def task_levels(
    names: Sequence[str], parents: Mapping[str, Sequence[str]], where: str
) -> tuple[tuple[str, ...], ...]:
    """Tasks in topological order: a task's parents are all in levels before its own.

    Args:
        names: All tasks.
        parents: Task to the tasks it builds on; a task that is absent has none.
        where: The setting, for the messages.

    Returns:
        Tasks without parents, then those at depth 1, ...; in the order of `names`.

    Raises:
        ConfigError: A task is unknown or named twice, or the tasks run in a circle.
    """
    unknown = {*parents, *(p for above in parents.values() for p in above)} - {*names}
    if unknown:
        raise ConfigError(
            f"`model.config.{where}` must name tasks. Received: {sorted(unknown)}; "
            f"tasks: {list(names)}"
        )
    for task, above in parents.items():
        if len(set(above)) < len(above):
            raise ConfigError(
                f"`model.config.{where}` must name a task once. Received for {task!r}: "
                f"{list(above)}"
            )
    sorter = graphlib.TopologicalSorter({n: parents.get(n, ()) for n in names})
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise ConfigError(
            f"`model.config.{where}` must not run in a circle. Received: "
            f"{' -> '.join(error.args[1])}"
        ) from None
    levels = []
    while sorter.is_active():
        ready = set(sorter.get_ready())
        levels.append(tuple(n for n in names if n in ready))
        sorter.done(*ready)
    return tuple(levels)
