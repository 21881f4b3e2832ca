"""The smallest network that a step can be taken on: one shared vector, T heads.

z = trunk * theta,   L_t = ||z - target_t||^2 / 2 * exp(own_t)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfmtl._keras import tf
from tfmtl.balance import TaskStats
from tfmtl.training.gradients import Forward, step_gradients
from tfmtl.training.shared import SharedVariables


class Step(NamedTuple):
    """What a step would do.

    Attributes:
        shared: Gradient by theta.
        own: [T], by the heads' own numbers.
        weights: [T], as logged.
        losses: [T].
        per_task: [T, n], gradients by theta of each loss.
    """

    shared: np.ndarray
    own: np.ndarray
    weights: np.ndarray
    losses: np.ndarray
    per_task: np.ndarray


class Tiny:
    """Keeps its variables and the balancer's state over steps."""

    def __init__(
        self, balancer: Any, targets: np.ndarray, trunk: Any = None, start: Any = None
    ) -> None:
        count, width = targets.shape
        zeros = np.zeros(width) if start is None else start
        self.theta = tf.Variable(zeros, dtype=tf.float32, name="theta")
        self.own = [tf.Variable(0.0, name=f"own{t}") for t in range(count)]
        self.targets = tf.constant(targets, tf.float32)
        self.trunk = tf.constant(np.ones(width) if trunk is None else trunk, tf.float32)
        groups = {f"task/t{t}": [v] for t, v in enumerate(self.own)}
        variables = SharedVariables(
            {"shared": [self.theta], **groups}, [self.theta, *self.own]
        )
        self._gradients = step_gradients(balancer, variables)
        self._compiled = tf.function(self._step, autograph=False)

    def _step(self, present: Any, step: Any) -> Any:
        z = tf.identity(self.trunk * self.theta)[None]  # One row.
        each = tf.reduce_sum((z - self.targets) ** 2, axis=1) / 2
        losses = each * tf.exp(tf.stack(self.own)) * tf.cast(present, tf.float32)
        parts = tf.unstack(losses)
        passed = Forward(parts, tf.zeros([]), [z], TaskStats(losses, present, step))
        found = self._gradients(passed)
        return found.gradients, found.weights, losses

    def __call__(self, present: Sequence[bool] | None = None, step: int = 0) -> Step:
        there = [True] * len(self.own) if present is None else present
        gradients, weights, losses = self._compiled(
            tf.constant(there), tf.constant(step, tf.int64)
        )
        trunk, targets = self.trunk.numpy(), self.targets.numpy()
        each = (trunk * self.theta.numpy() - targets) * trunk * np.c_[np.array(there)]
        own = np.array([float(g) for g in gradients[1:]])
        return Step(gradients[0].numpy(), own, weights.numpy(), losses.numpy(), each)


def balanced_gradient(
    balancer: Any, targets: np.ndarray, trunk: Any = None, start: Any = None
) -> Step:
    """The first step of a new network."""
    return Tiny(balancer, targets, trunk, start)()
