"""Dropout whose masks are a pure function of (seed, step).

Keras' dropout restarts its random numbers with the process, so that a resumed run would
repeat the masks of its first steps. Here the trainer says which step it is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from tfmtl._keras import keras, tf

_steps: list[Any] = []
_MORE_THAN_STEPS = 2**40


@contextlib.contextmanager
def dropout_step(step: Any) -> Iterator[None]:
    """Layers called inside draw their masks for this step.

    Args:
        step: Scalar int64 tensor or variable.
    """
    _steps.append(step)
    try:
        yield
    finally:
        _steps.pop()


def step_seed(seed: int) -> Any:
    """[2] seed of stateless random ops: the layer's seed and the current step.

    Replicas of a distribution strategy draw differently.
    """
    step = tf.cast(_steps[-1], tf.int64) if _steps else tf.constant(0, tf.int64)
    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        replica = tf.cast(context.replica_id_in_sync_group, tf.int64)
        step += replica * _MORE_THAN_STEPS
    return tf.stack([tf.constant(seed, tf.int64), step])


@keras.utils.register_keras_serializable("tfmtl")
class Dropout(keras.layers.Layer):
    """Zeroes a share of the values in training and scales up the rest.

    Args:
        rate: Share in [0, 1).
        seed: Of this layer; siblings need different ones.
        whole_rows: Zero along the last axis as one (a whole field or expert).
    """

    def __init__(
        self, rate: float, seed: int, whole_rows: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be in [0, 1). Received: {rate}")
        self.rate = rate
        self.seed = seed
        self.whole_rows = whole_rows

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training or self.rate == 0:
            return inputs
        shape = tf.shape(inputs)
        if self.whole_rows:
            shape = tf.concat([shape[:-1], [1]], axis=0)
        chance = tf.random.stateless_uniform(shape, step_seed(self.seed))
        keep = tf.cast(chance >= self.rate, inputs.dtype)
        return inputs * keep / tf.cast(1 - self.rate, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rate": self.rate,
            "seed": self.seed,
            "whole_rows": self.whole_rows,
        }
