"""What replicas of a distribution strategy tell each other in a step.

Each replica differentiates the losses of its own rows. Inner products of averaged
gradients are not averages of inner products, so gradients are averaged before a
balancer looks at them; the balancer then decides the same on every replica.

The mean over R replicas of their gradients is the gradient of the whole batch where the
mean of their losses is its loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import tf


def replica_count() -> int:
    """Replicas that take the step together; 1 outside a strategy."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else int(context.num_replicas_in_sync)


def mean_over_replicas(values: Sequence[Any]) -> list[Any]:
    """Means of tensors and `IndexedSlices` over the replicas; None stays None.

    All are asked for at once: one exchange whatever their number.
    """
    return _reduced("MEAN", values)


def sum_over_replicas(values: Sequence[Any]) -> list[Any]:
    """Sums of the same."""
    return _reduced("SUM", values)


def any_over_replicas(flags: Any) -> Any:
    """Whether a flag is set on any replica, element by element."""
    (total,) = sum_over_replicas([tf.cast(flags, tf.float32)])
    return total > 0


def _reduced(operation: str, values: Sequence[Any]) -> list[Any]:
    known = [v for v in values if v is not None]
    if not known or replica_count() == 1:
        return list(values)
    context = tf.distribute.get_replica_context()
    reduced = iter(context.all_reduce(operation, known))
    return [None if v is None else next(reduced) for v in values]
