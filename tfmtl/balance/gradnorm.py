"""GradNorm: weights that bring the tasks' gradient norms to a common course."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.base import (
    BalancerConfig,
    LossWeighting,
    TaskInfo,
    TaskStats,
    has_gradient,
)
from tfmtl.balance.logs import EPSILON


def gradnorm_slope(weights: Any, norms: Any, ratios: Any, alpha: float) -> Any:
    """d/dw sum_t |w_t n_t - c_t|, with the target c_t held constant.

    c_t = mean_s(w_s n_s) r_t^alpha. The gradient of a weighted loss is the weighted
    gradient, so its norm is w_t n_t and no second differentiation is needed:

        slope_t = sign(w_t n_t - c_t) n_t

    Args:
        weights: [n], w.
        norms: [n], n_t, of the unweighted losses' gradients.
        ratios: [n], r_t, relative inverse training rates.
        alpha: How strongly slow tasks are pulled along; 0: equal norms.
    """
    sizes = weights * norms
    target = tf.reduce_mean(sizes) * tf.pow(ratios, alpha)
    return tf.sign(sizes - target) * norms


class GradNormConfig(BalancerConfig):
    """Settings of GradNorm."""

    alpha: float = Field(default=1.5, ge=0)
    """How strongly tasks that train slowly are pulled along; 0: equal norms."""
    learning_rate: float = Field(default=0.025, gt=0)
    """Of the weights, by plain gradient descent."""
    initial: Literal["first_steps", "theory"] = "first_steps"
    """What a task's loss is compared with. `first_steps`: its mean over the first
    `initial_steps` steps with a label, in which its weight rests. `theory`: ln C of C
    classes, ln 2 of a binary task; a regression has no such value: its first steps."""
    initial_steps: int = Field(default=20, ge=1)
    """See `initial`."""
    minimum: float = Field(default=1e-3, gt=0)
    """Weights are clipped here before they are scaled to their sum."""


class GradNorm(LossWeighting):
    """Moves the weights until all tasks' gradients train at the same relative speed.

    With n_t the norm of the gradient of L_t by the last shared layer, and
    r_t = (L_t / L_t(0)) / mean_s(L_s / L_s(0)),

        w <- w - rate d/dw sum_t |w_t n_t - mean_s(w_s n_s) r_t^alpha|
        w <- T w / sum_s w_s

    w starts at 1; the network's step is by the weights from before their own. The
    target is held constant as a whole, and nothing of it reaches the network. A task
    that is absent, or has no gradient there, keeps its weight; the others keep their
    sum.
    """

    Config = GradNormConfig
    citation = "Z. Chen et al., GradNorm, ICML 2018, arXiv 1711.02257"
    backward_passes = "1 + T of the last shared layer"
    needs_gramian = True
    config: GradNormConfig

    def __init__(self, tasks: TaskInfo, config: GradNormConfig) -> None:
        super().__init__(tasks, config)
        known = [self._theory(k, c) for k, c in zip(tasks.kinds, tasks.classes)]
        zeros = tf.zeros([self.count])
        self.weights = self.state("weights", tf.ones([self.count]))
        self.sums = self.state("sums", zeros)
        self.counts = self.state("counts", zeros)
        self._theories = tf.constant([k or 0.0 for k in known], tf.float32)

    def _theory(self, kind: str, classes: int | None) -> float | None:
        if self.config.initial != "theory":
            return None
        return math.log(2 if kind == "binary" else classes or 1) or None

    def weigh(self, stats: TaskStats) -> Any:
        weights = tf.convert_to_tensor(self.weights)
        initial, ready = self._initial(stats)
        # A task that misses the last shared layer would pull the mean norm down in
        # every step, and in the end take all the weight.
        moving = stats.present & ready & has_gradient(stats.gramian[0])
        self.weights.assign(self._moved(weights, stats, initial, moving))
        return weights

    def _initial(self, stats: TaskStats) -> tuple[Any, Any]:
        """L(0) and whether it is known, [T] each."""
        counting = stats.present & (self.counts < self.config.initial_steps)
        seen = tf.cast(counting, tf.float32)
        counts = self.counts + seen
        sums = self.sums + seen * stats.losses
        self.counts.assign(counts)
        self.sums.assign(sums)
        given = self._theories > 0
        initial = tf.where(given, self._theories, sums / tf.maximum(counts, 1.0))
        return initial, given | (counts >= self.config.initial_steps)

    def _moved(self, weights: Any, stats: TaskStats, initial: Any, moving: Any) -> Any:
        chosen = tf.where(moving)[:, 0]  # [n]
        norms = tf.sqrt(tf.maximum(tf.linalg.diag_part(stats.gramian[0]), 0.0))
        norms = tf.cast(tf.gather(norms, chosen), tf.float32)
        progress = tf.maximum(stats.losses, 0.0) / tf.maximum(initial, EPSILON)
        progress = tf.gather(progress, chosen)
        ratios = progress / tf.maximum(tf.reduce_mean(progress), EPSILON)
        old = tf.gather(weights, chosen)
        slope = gradnorm_slope(old, norms, ratios, self.config.alpha)
        new = tf.maximum(old - self.config.learning_rate * slope, self.config.minimum)
        # What the resting ones leave of T: rounding errors do not add up over steps.
        total = self.count - (tf.reduce_sum(weights) - tf.reduce_sum(old))
        new *= total / tf.maximum(tf.reduce_sum(new), EPSILON)
        return tf.tensor_scatter_nd_update(weights, chosen[:, None], new)
