"""GradDrop: at each activation one sign of gradient wins, by a draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.base import CutCombination, TaskInfo, TaskStats
from tfmtl.balance.config import BalancerConfig


def sign_sums(values: Any, gradients: Any) -> Any:
    """G_t = sum_batch sgn(z) dL_t/dz of each unit.

    Signs are comparable over the batch only after the product with sgn(z).

    Args:
        values: [B, ...] z.
        gradients: [T, B, ...].

    Returns:
        [T, ...].
    """
    signed = tf.sign(tf.cast(values, gradients.dtype)) * gradients
    return tf.reduce_sum(signed, axis=1)


def sign_masks(sums: Any, uniform: Any) -> Any:
    """Which tasks' gradients survive at each unit.

        P = (1 + sum_t G_t / sum_t |G_t|) / 2
        M_t = 1[P > U] 1[G_t > 0] + 1[P < U] 1[G_t < 0]

    A unit at 0 in all rows shows no sign: nothing is dropped there, or it could never
    leave 0.

    Args:
        sums: [T, ...] G, over the whole batch.
        uniform: [...] draws from [0, 1).

    Returns:
        [T, ...] of 0 and 1: one mask for all rows.
    """
    total = tf.reduce_sum(tf.abs(sums), axis=0)
    purity = 0.5 * (1.0 + tf.math.divide_no_nan(tf.reduce_sum(sums, axis=0), total))
    up = purity > uniform
    kept = tf.where(up, sums > 0.0, sums < 0.0) | (total == 0.0)
    return tf.cast(kept, sums.dtype)


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
    """Keeps one sign of the gradients by each shared activation, drawn by purity.

    One draw and one mask serve all rows of the batch, under a distribution strategy
    those of all replicas: two halves of a batch drop what the whole would.
    """

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
        # A single number has no batch to sum over.
        rows = [v[None] if v.shape.rank == 0 else v for v in values]
        each = [
            tf.reshape(g, tf.concat([[self.count], tf.shape(r)], 0))
            for g, r in zip(gradients, rows)
        ]
        # Of all replicas' rows: with equal draws, their masks are equal.
        sums = _over_replicas([sign_sums(r, g) for r, g in zip(rows, each)])
        combined, sizes = [], tf.zeros([2, self.count])
        for i, (value, gradient) in enumerate(zip(values, each)):
            drawn = tf.random.stateless_uniform(
                tf.shape(rows[i])[1:], tf.random.fold_in(start, i)
            )
            masks = leaking(sign_masks(sums[i], drawn), leak)[:, None]
            passed = masks * gradient
            combined.append(tf.reshape(tf.reduce_sum(passed, axis=0), tf.shape(value)))
            axes = tf.range(1, tf.rank(gradient))
            pair = [tf.reduce_sum(tf.abs(g), axis=axes) for g in (passed, gradient)]
            sizes += tf.stack(pair)
        (sizes,) = _over_replicas([sizes])
        kept, there = tf.unstack(sizes)
        return combined, tf.math.divide_no_nan(kept, there)


def _over_replicas(values: list[Any]) -> list[Any]:
    """Sums over the replicas of a distribution strategy; alone, the values."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return values
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, values))
