"""FAMO: equal rates of improvement, by one more forward pass instead of gradients."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.base import BalancerConfig, LossWeighting, TaskInfo, TaskStats
from tfmtl.balance.logs import EPSILON


def masked_softmax(logits: Any, present: Any) -> Any:
    """Softmax over the tasks that are present; 0 of others.

    Args:
        logits: [T].
        present: [T] bool.
    """
    shown = tf.where(present, logits, logits.dtype.min)
    powers = tf.exp(shown - tf.reduce_max(shown)) * tf.cast(present, logits.dtype)
    return powers / tf.maximum(tf.reduce_sum(powers), EPSILON)


def famo_weights(shares: Any, gaps: Any) -> Any:
    """c z_t / (L_t - b_t), which sum to 1.

    Args:
        shares: [T], z.
        gaps: [T], L - b > 0.
    """
    weights = shares / gaps
    return weights / tf.maximum(tf.reduce_sum(weights), 1e-30)


def famo_slope(shares: Any, improvements: Any) -> Any:
    """J_softmax^T delta = z (delta - z . delta).

    Args:
        shares: [T], z.
        improvements: [T], delta, by which ln(L - b) fell in the step.
    """
    return shares * (improvements - tf.reduce_sum(shares * improvements))


class FAMOConfig(BalancerConfig):
    """Settings of FAMO."""

    learning_rate: float = Field(default=0.025, gt=0)
    """Of the logits, by Adam."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Pulls the logits to 0, and so the weights to 1 / L."""
    minimum: dict[str, float] = {}
    """Task to a lower bound b of its loss; 0 where absent."""
    match_sum: bool = False
    """Multiply the weights, whose sum is 1, by T."""


class FAMO(LossWeighting):
    """Lets all losses fall at the same relative rate.

    With z = softmax(logits), the network descends sum_t c z_t ln(L_t - b_t), where c
    makes the weights w_t = c z_t / (L_t - b_t) sum to 1. After the update the same
    batch is seen once more, under the same dropout masks and with moving statistics at
    rest; with delta_t the fall of ln(L_t - b_t),

        logits <- Adam's step down z (delta - z . delta) + decay logits

    so that a task that improved more loses weight. Absent tasks are left out of z and
    keep logits and moments.

    The authors clip the shared gradient at norm 1: give the optimizer `clip_norm: 1`.
    """

    Config = FAMOConfig
    citation = "B. Liu et al., FAMO, NeurIPS 2023, arXiv 2306.03792"
    backward_passes = "1 (and 1 more forward)"
    needs_new_losses = True
    config: FAMOConfig

    def __init__(self, tasks: TaskInfo, config: FAMOConfig) -> None:
        super().__init__(tasks, config)
        zeros = tf.zeros([self.count])
        self.logits = self.state("logits", zeros)
        self.first = self.state("first_moment", zeros)
        self.second = self.state("second_moment", zeros)
        self.steps = self.state("steps", zeros)
        bounds = self.by_task(config.minimum, 0.0, "minimum")
        self._minimum = tf.constant(bounds, tf.float32)

    def _gaps(self, losses: Any) -> Any:
        return tf.maximum(losses - self._minimum, 0.0) + EPSILON

    def weigh(self, stats: TaskStats) -> Any:
        shares = masked_softmax(tf.convert_to_tensor(self.logits), stats.present)
        weights = famo_weights(shares, self._gaps(stats.losses))
        return weights * self.count if self.config.match_sum else weights

    def after_update(self, stats: TaskStats, losses: Any) -> None:
        logits = tf.convert_to_tensor(self.logits)
        shares = masked_softmax(logits, stats.present)
        fell = tf.math.log(self._gaps(stats.losses)) - tf.math.log(self._gaps(losses))
        fell = tf.where(stats.present, fell, 0.0)
        slope = famo_slope(shares, fell) + self.config.weight_decay * logits
        self._step(logits, slope, stats.present)

    def _step(self, logits: Any, slope: Any, present: Any) -> None:
        """Adam at 0.9, 0.999 and 1e-8, of the tasks that are present."""
        steps = self.steps + tf.cast(present, tf.float32)
        first = tf.where(present, 0.9 * self.first + 0.1 * slope, self.first)
        second = 0.999 * self.second + 0.001 * tf.square(slope)
        second = tf.where(present, second, self.second)
        counted = tf.maximum(steps, 1.0)
        mean = first / (1.0 - tf.pow(0.9, counted))
        size = tf.sqrt(second / (1.0 - tf.pow(0.999, counted))) + 1e-8
        moved = logits - self.config.learning_rate * mean / size
        self.logits.assign(tf.where(present, moved, logits))
        self.first.assign(first)
        self.second.assign(second)
        self.steps.assign(steps)
