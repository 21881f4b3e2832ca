"""Logits -> what the label measures."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf
from tfmtl.schema.task import TaskSpec


def to_unit(task: TaskSpec, value: Any) -> Any:
    """Logits -> what the label measures: probability, classes' probabilities, unit."""
    if task.type == "binary":
        return tf.sigmoid(value)
    if task.type == "multiclass":
        return tf.nn.softmax(value)
    if task.transform == "log1p":
        return tf.math.expm1(tf.minimum(value, 80.0))
    return value
