"""Logarithms of losses, where a loss may be 0 or a task absent."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf

EPSILON = 1e-8
"""A loss that is not larger has no logarithm here: the task is left out of the step."""


def usable(losses: Any, present: Any) -> Any:
    """[T] bool: tasks with a label and a positive loss."""
    return present & (losses > EPSILON)


def safe_log(losses: Any) -> Any:
    """ln L, with EPSILON in the place of smaller losses."""
    return tf.math.log(tf.maximum(losses, EPSILON))


def inverse(losses: Any, present: Any) -> Any:
    """d ln L / d L = 1 / L of usable tasks, 0 of others."""
    return tf.where(usable(losses, present), 1.0 / tf.maximum(losses, EPSILON), 0.0)
