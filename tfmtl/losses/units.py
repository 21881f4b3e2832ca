"""Raw outputs -> what the label measures, or a logit of it."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf
from tfmtl.losses import ordinal, value
from tfmtl.schema.loss import JRC, ZILN, Ordinal, WeightedLogistic
from tfmtl.schema.task import TaskSpec


def to_unit(task: TaskSpec, outputs: Any, factor: Any = None) -> Any:
    """Raw outputs -> what the label measures: a probability, classes', or its unit.

    The score of a pure ranking loss becomes no probability by the sigmoid that a binary
    task's has, and keeps its own scale in a regression.

    Args:
        task: The task.
        outputs: [B] or [B, width].
        factor: The task's smearing factor, where it has one.

    Returns:
        [B], or [B, C] for classes.
    """
    if task.type == "binary":
        return tf.sigmoid(to_logit(task, outputs))
    if task.type == "multiclass":
        return tf.nn.softmax(to_logit(task, outputs))
    loss = task.fitted
    if isinstance(loss, ZILN):
        return value.zero_inflated_mean(outputs)
    if isinstance(loss, WeightedLogistic):
        return value.odds(outputs)
    if task.transform == "log1p" and loss.fits:
        return value.from_log1p(outputs, factor)
    return outputs


def to_logit(task: TaskSpec, outputs: Any) -> Any:
    """Raw outputs of a task that is no regression -> logits.

    Args:
        task: The task.
        outputs: [B] or [B, width].

    Returns:
        [B], whose sigmoid is the probability, or [B, C], whose softmax is.
    """
    if isinstance(task.fitted, JRC):
        # One logit already, where what reads a model has moved it.
        return outputs if len(outputs.shape) == 1 else outputs[:, 1] - outputs[:, 0]
    if isinstance(task.fitted, Ordinal):
        return ordinal.log_probabilities(outputs)
    return outputs
