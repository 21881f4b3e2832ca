"""Statistics of steps, for tests of balancers without a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.balance import TaskInfo, TaskStats

TASKS = TaskInfo(("click", "like", "buy"), steps_per_epoch=2)


def stats(losses: Any, present: Any = None, step: int = 0, norms: Any = None) -> Any:
    """One step's statistics; gradients are orthogonal where norms are given."""
    losses = np.asarray(losses, "f4")
    present = np.ones(len(losses), bool) if present is None else np.asarray(present)
    gramian = None if norms is None else np.diag(np.square(norms).astype("f8"))[None]
    return TaskStats(
        tf.constant(losses * present),
        tf.constant(present.astype(bool)),
        tf.constant(step, tf.int64),
        None if gramian is None else tf.constant(gramian),
    )


def made(balancer: Any, tasks: TaskInfo = TASKS, **config: Any) -> Any:
    """A new balancer."""
    return balancer(tasks, balancer.Config(**config))
