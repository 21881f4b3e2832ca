"""CAGrad: the best for the worst task, near the mean gradient."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.base import GradientWeighting, TaskStats
from tfmtl.balance.config import MeanConfig
from tfmtl.balance.simplex import pairwise_steps, uniform
from tfmtl.balance.solvers import TINY, combined_norm

CANCELLED = 1e-6
"""A combination this much shorter than its parts is rounding of float32 gradients."""


def cagrad_dual(gramian: Any, radius: Any, iterations: int = 250) -> Any:
    """argmin over the simplex of g_w . g_0 + radius * ||g_w||, g_w = sum_t w_t g_t.

    Frank-Wolfe by pairwise steps; the best length of each has a closed form.

    Args:
        gramian: [n, n].
        radius: Scalar, c ||g_0||.
        iterations: At most so many.

    Returns:
        [n].
    """
    linear = tf.linalg.matvec(gramian, uniform(gramian))  # g_t . g_0

    def slope(weights: Any) -> Any:
        norm = tf.maximum(combined_norm(gramian, weights), TINY)
        return linear + radius * tf.linalg.matvec(gramian, weights) / norm

    def length(weights: Any, direction: Any) -> Any:
        # Along x: e x + r sqrt(A + 2 B x + D x^2), least at x + B / D = -e y.
        along = tf.linalg.matvec(gramian, direction)
        square = tf.maximum(tf.tensordot(direction, along, 1), TINY)  # D
        cross = tf.tensordot(weights, along, 1)  # B
        rate = tf.tensordot(direction, linear, 1)  # e
        rest = combined_norm(gramian, weights) ** 2 - cross**2 / square
        bend = radius**2 * square - rate**2
        far = tf.sqrt(tf.maximum(rest, 0.0) / tf.maximum(square * bend, TINY))
        best = -rate * far - cross / square
        # Where the linear part is steeper than the norm can be, there is no end.
        return tf.where(bend > 0.0, best, tf.fill([], tf.constant(1.0, tf.float64)))

    return pairwise_steps(uniform(gramian), slope, length, iterations, 1e-8)


def cagrad_weights(gramian: Any, c: float) -> Any:
    """Weights of d = g_0 + (c ||g_0|| / ||g_w||) g_w with the dual's w.

    d maximises min_t g_t . d in the ball of radius c ||g_0|| around the mean g_0. Where
    g_w vanishes, at a Pareto-stationary point, the second part does too.

    Args:
        gramian: [n, n].
        c: Share of ||g_0||.

    Returns:
        [n].
    """
    # Of size 1: products of squared norms stay numbers.
    relative = gramian / tf.maximum(tf.reduce_max(tf.abs(gramian)), TINY)
    mean = uniform(gramian)
    radius = c * combined_norm(relative, mean)
    weights = cagrad_dual(relative, radius)
    norm = combined_norm(relative, weights)
    parts = tf.sqrt(tf.reduce_sum(weights**2 * tf.linalg.diag_part(relative)))
    norm = tf.maximum(tf.maximum(norm, CANCELLED * parts), TINY)
    return mean + radius / norm * weights


class CAGradConfig(MeanConfig):
    """Settings of CAGrad."""

    c: float = Field(default=0.4, ge=0)
    """How far from the mean gradient, as a share of its norm; below 1 the mean of the
    losses still converges."""
    rescale: Literal["none", "square", "linear"] = "square"
    """Divide by 1, 1 + c^2 or 1 + c, as the authors' code does by `rescale` 0, 1, 2."""
    match_sum: bool = True
    """Multiply by the number of tasks that take part, as the authors' code does."""


class CAGrad(GradientWeighting):
    """The direction near the mean gradient that is best for the worst task."""

    Config = CAGradConfig
    citation = "Liu, Liu, Jin, Stone, Liu, NeurIPS 2021, arXiv 2110.14048"
    config: CAGradConfig

    def solve(self, gramian: Any, chosen: Any, group: int, stats: TaskStats) -> Any:
        c = self.config.c
        shrink = {"none": 1.0, "square": 1.0 + c**2, "linear": 1.0 + c}
        weights = cagrad_weights(gramian, c) / shrink[self.config.rescale]
        return self.config.scale(weights)
