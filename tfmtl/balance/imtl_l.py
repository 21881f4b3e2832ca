"""IMTL-L: learned scales that bring all scaled losses to 1."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.base import BalancerConfig, LossWeighting, TaskInfo, TaskStats
from tfmtl.balance.logs import usable


def scale_slope(scales: Any, losses: Any) -> Any:
    """d/ds (e^s L - s) = e^s L - 1.

    Args:
        scales: [T], s.
        losses: [T], L.
    """
    return tf.exp(scales) * losses - 1.0


class ImtlLConfig(BalancerConfig):
    """Settings of IMTL-L."""

    learning_rate: float = Field(default=0.01, gt=0)
    """Of s, by plain gradient descent."""
    bound: float = Field(default=10.0, gt=0)
    """s stays in [-bound, bound]."""


class ImtlL(LossWeighting):
    """Minimises sum_t (e^(s_t) L_t - s_t) over the network and s.

    At the optimum e^(s_t) L_t = 1 for all t. s starts at 0, and moves by its own
    gradient at its own rate after the step's weights are read. An absent task keeps its
    s, and so does one whose loss is not above 0: the term -s alone would let its weight
    grow.
    """

    Config = ImtlLConfig
    citation = (
        "L. Liu et al., Towards Impartial Multi-task Learning, ICLR 2021 (IMTL-L)"
    )
    config: ImtlLConfig

    def __init__(self, tasks: TaskInfo, config: ImtlLConfig) -> None:
        super().__init__(tasks, config)
        self.scales = self.state("scales", tf.zeros([self.count]))

    def weigh(self, stats: TaskStats) -> Any:
        scales = tf.convert_to_tensor(self.scales)
        slope = scale_slope(scales, stats.losses)
        moved = tf.clip_by_value(
            scales - self.config.learning_rate * slope,
            -self.config.bound,
            self.config.bound,
        )
        used = usable(stats.losses, stats.present)
        self.scales.assign(tf.where(used, moved, scales))
        return tf.exp(scales)
