"""Variables that hold what a balancer remembers."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf


def state_variable(name: str, values: Any) -> Any:
    """A variable that checkpoints hold and no optimizer trains.

    Under a distribution strategy each replica has its own: all see the same statistics,
    so all stay equal, and none has to ask the others before it assigns, which it could
    not inside a condition or a loop.

    Args:
        name: Of the variable.
        values: To start from; the type is theirs.
    """
    return tf.Variable(
        values,
        trainable=False,
        name=name,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def put(variable: Any, places: Any, values: Any) -> None:
    """Assigns parts of such a variable.

    Its own `scatter_nd_update` is refused where replicas have one each.

    Args:
        variable: Made by `state_variable`.
        places: [..., n] integers, indices of the first n axes.
        values: [..., rest of the shape].
    """
    tf.raw_ops.ResourceScatterNdUpdate(
        ref=variable.handle, indices=places, updates=values
    )
