"""IMTL: equal projections on all tasks' gradients (G), losses of equal size (L)."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.base import GradientWeighting, TaskInfo, TaskStats
from tfmtl.balance.config import BalancerConfig, MeanConfig
from tfmtl.balance.imtl_l import moved_scales, scale_slope
from tfmtl.balance.solvers import (
    TINY,
    combined_norm,
    cosines_and_norms,
    pseudo_inverse,
)

CANCELLED = 1e-6
"""A solution this much smaller than usual is rounding."""


def imtl_g_weights(gramian: Any) -> Any:
    """Weights whose combination has the same projection on every unit gradient.

        alpha = M^+ n / (1' M^+ n),   in cosines: alpha_t = (C^+ 1)_t / n_t, normalised

    which is the paper's closed form wherever that exists. Beyond it:

    - Where C^+ 1 vanishes (two opposite gradients), the unit gradients cancel: equal
      weights of them have equal projections, 0.
    - Weights may be negative, and so may their sum. Dividing by it as it is would turn
      the direction into an ascent of every loss: it is divided by its size.
    - A sum near 0 would make the result arbitrarily long: it is kept no longer than the
      longest gradient, as it is whenever no weight is negative.

    Args:
        gramian: [n, n].

    Returns:
        [n], of sum 1 but for these cases.
    """
    cosines, norms = cosines_and_norms(gramian)
    ones = tf.ones_like(norms)
    units = tf.linalg.matvec(pseudo_inverse(cosines), ones)
    cancelled = tf.reduce_max(tf.abs(units)) < CANCELLED
    units = tf.where(cancelled, ones, units)
    relative = tf.reduce_min(norms) / norms
    weights = units * relative
    weights /= tf.maximum(tf.abs(tf.reduce_sum(weights)), TINY)
    length = combined_norm(cosines, weights * norms)
    return weights * tf.minimum(tf.reduce_max(norms) / tf.maximum(length, TINY), 1.0)


def imtl_l_step(
    scales: Any, losses: Any, present: Any, rate: float, bound: float
) -> Any:
    """One descent step of sum_t e^{s_t} L_t - s_t on s.

    The slope e^{s_t} L_t - 1 is cut at 1: a loss of 1000 must not throw s away.

    Args:
        scales: [T] s.
        losses: [T].
        present: [T] bool; others stay, and so do losses that are not above 0, of which
            no scale makes a 1.
        rate: Of the step.
        bound: s stays in [-bound, bound].

    Returns:
        [T]; at rest where e^{s_t} L_t = 1.
    """
    slopes = tf.minimum(scale_slope(scales, losses), 1.0)
    return moved_scales(scales, slopes, losses, present, rate, bound)


class IMTLG(GradientWeighting):
    """Equal projections on all tasks' gradients, whatever their norms."""

    Config = MeanConfig
    citation = "Liu et al., ICLR 2021, IMTL-G"
    config: MeanConfig

    def solve(self, gramian: Any, chosen: Any, group: int, stats: TaskStats) -> Any:
        return self.config.scale(imtl_g_weights(gramian))


class IMTLConfig(MeanConfig):
    """Settings of IMTL."""

    learning_rate: float = Field(default=0.05, gt=0)
    """Of the log scales s_t, which descend e^{s_t} L_t - s_t beside the network."""
    bound: float = Field(default=10.0, gt=0)
    """s stays in [-bound, bound]."""


class IMTL(GradientWeighting):
    """IMTL-L's scaled losses everywhere, IMTL-G on their shared gradients."""

    Config = IMTLConfig
    citation = "Liu et al., ICLR 2021, IMTL"
    config: IMTLConfig

    def __init__(self, tasks: TaskInfo, config: BalancerConfig) -> None:
        super().__init__(tasks, config)
        self.scales = self.state("scales", tf.zeros([self.count]))

    def weigh(self, stats: TaskStats) -> Any:
        self.scales.assign(
            imtl_l_step(
                tf.convert_to_tensor(self.scales),
                stats.losses,
                stats.present,
                self.config.learning_rate,
                self.config.bound,
            )
        )
        return super().weigh(stats)

    def solve(self, gramian: Any, chosen: Any, group: int, stats: TaskStats) -> Any:
        scales = tf.exp(tf.cast(tf.gather(self.scales, chosen), tf.float64))
        scaled = gramian * scales[:, None] * scales[None, :]
        return self.config.scale(imtl_g_weights(scaled) * scales)

    def own_weights(self, stats: TaskStats, weights: Any) -> Any:
        return tf.exp(self.scales)
