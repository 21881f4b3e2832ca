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


def moved_scales(
    scales: Any, slopes: Any, losses: Any, present: Any, rate: float, bound: float
) -> Any:
    """s a step down its slope, where that leads to e^s L = 1. [T].

    Args:
        scales: [T], s.
        slopes: [T].
        losses: [T]; where one is not above 0, of which no scale makes a 1, s stays.
        present: [T] bool; others stay.
        rate: Of the step.
        bound: s stays in [-bound, bound].
    """
    moved = tf.clip_by_value(scales - rate * slopes, -bound, bound)
    return tf.where(usable(losses, present), moved, scales)


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
        moved = moved_scales(
            scales,
            scale_slope(scales, stats.losses),
            stats.losses,
            stats.present,
            self.config.learning_rate,
            self.config.bound,
        )
        self.scales.assign(moved)
        return tf.exp(scales)
