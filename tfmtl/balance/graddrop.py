"""GradDrop: at each activation one sign of gradient wins, by a draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.base import CutCombination, TaskInfo, TaskStats
from tfmtl.balance.config import BalancerConfig


def sign_masks(values: Any, gradients: Any, uniform: Any) -> Any:
    """Which tasks' gradients survive at each unit.

        G_t = sum_batch sgn(z) dL_t/dz,   P = (1 + sum_t G_t / sum_t |G_t|) / 2
        M_t = 1[P > U] 1[G_t > 0] + 1[P < U] 1[G_t < 0]

    Signs are comparable over the batch only after the product with sgn(z). A unit at 0
    in all rows shows no sign: nothing is dropped there, or it could never leave 0.

    Args:
        values: [B, ...] z.
        gradients: [T, B, ...].
        uniform: [...] draws from [0, 1).

    Returns:
        [T, ...] of 0 and 1: one mask for all rows.
    """
    signed = tf.sign(tf.cast(values, gradients.dtype)) * gradients
    summed = tf.reduce_sum(signed, axis=1)  # [T, ...]
    total = tf.reduce_sum(tf.abs(summed), axis=0)
    purity = 0.5 * (1.0 + tf.math.divide_no_nan(tf.reduce_sum(summed, axis=0), total))
    up = purity > uniform
    kept = tf.where(up, summed > 0.0, summed < 0.0) | (total == 0.0)
    return tf.cast(kept, gradients.dtype)


def leaking(masks: Any, leak: Any) -> Any:
    """What is kept: l_t + (1 - l_t) M_t.

    Args:
        masks: [T, ...].
        leak: [T].
    """
    shape = tf.concat([tf.shape(leak), tf.ones([tf.rank(masks) - 1], tf.int32)], axis=0)
    share = tf.reshape(leak, shape)
    return share + (1.0 - share) * masks


Share = Annotated[float, Field(ge=0, le=1)]


class GradDropConfig(BalancerConfig):
    """Settings of GradDrop."""

    leak: dict[str, Share] | Share = 0.0
    """Share of a task's gradient that always passes, 0 to 1; one for all, or by task,
    0 for those not named."""
    embedding: Literal["balanced", "sum"] = "balanced"
    """What embedding tables get: what survives, as the other shared variables do, or
    the plain sum."""


class GradDrop(CutCombination):
    """Keeps one sign of the gradients by each shared activation, drawn by purity."""

    Config = GradDropConfig
    citation = "Chen et al., NeurIPS 2020, arXiv 2010.06808"
    config: Any

    def __init__(self, tasks: TaskInfo, config: BalancerConfig) -> None:
        super().__init__(tasks, config)
        leak = self.config.leak
        by_task = leak if isinstance(leak, dict) else dict.fromkeys(tasks.names, leak)
        self._leak = self.by_task(by_task, 0.0, "leak")

    def combine(
        self, stats: TaskStats, values: Sequence[Any], gradients: Sequence[Any]
    ) -> Any:
        leak = tf.constant(self._leak, tf.float32)
        start = tf.stack(
            [tf.constant(self.tasks.seed, tf.int64), tf.cast(stats.step, tf.int64)]
        )
        combined, kept, there = [], tf.zeros_like(leak), tf.zeros_like(leak)
        for i, (value, gradient) in enumerate(zip(values, gradients)):
            # A single number has no batch to sum over.
            rows = value[None] if value.shape.rank == 0 else value
            each = tf.reshape(gradient, tf.concat([[self.count], tf.shape(rows)], 0))
            drawn = tf.random.stateless_uniform(
                tf.shape(rows)[1:], tf.random.fold_in(start, i)
            )
            masks = leaking(sign_masks(rows, each, drawn), leak)[:, None]
            passed = masks * each
            combined.append(tf.reshape(tf.reduce_sum(passed, axis=0), tf.shape(value)))
            axes = tf.range(1, tf.rank(each))
            kept += tf.reduce_sum(tf.abs(passed), axis=axes)
            there += tf.reduce_sum(tf.abs(each), axis=axes)
        return combined, tf.math.divide_no_nan(kept, there)
