"""Weights that never change: all equal, or set by hand."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from tfmtl._keras import tf
from tfmtl.balance.base import BalancerConfig, LossWeighting, TaskInfo, TaskStats


class Equal(LossWeighting):
    """Every task's loss counts 1: the control of every balancer."""

    citation = "control: the sum of the losses"

    def weigh(self, stats: TaskStats) -> Any:
        return tf.ones_like(stats.losses)


class FixedConfig(BalancerConfig):
    """Settings of Fixed."""

    weights: dict[str, float]
    """Task to weight, >= 0; tasks not named count 1."""

    @field_validator("weights")
    @classmethod
    def _not_negative(cls, weights: dict[str, float]) -> dict[str, float]:
        wrong = {t: w for t, w in weights.items() if not 0 <= w < float("inf")}
        if wrong:
            raise ValueError(f"weights must be finite and >= 0. Received: {wrong}")
        return weights


class Fixed(LossWeighting):
    """Weights set by hand."""

    Config = FixedConfig
    citation = "control: weights set by hand or by search"
    config: FixedConfig

    def __init__(self, tasks: TaskInfo, config: FixedConfig) -> None:
        super().__init__(tasks, config)
        # A variable, so that a search over weights trains in the graph it has.
        self.weights = self.state("weights", self._of(config))

    def change(self, config: FixedConfig) -> None:
        """Takes the weights of other settings, in the graphs that are traced too."""
        self.config = config
        self.weights.assign(self._of(config))

    def weigh(self, stats: TaskStats) -> Any:
        return tf.cast(self.weights, stats.losses.dtype)

    def _of(self, config: FixedConfig) -> Any:
        return tf.constant(self.by_task(config.weights, 1.0, "weights"), tf.float32)
