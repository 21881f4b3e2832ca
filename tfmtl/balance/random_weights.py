"""Weights drawn at random in each step: the control that costs nothing."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf
from tfmtl.balance.base import BalancerConfig, LossWeighting, TaskStats


class RandomWeightsConfig(BalancerConfig):
    """Settings of RandomWeights."""

    match_sum: bool = False
    """Multiply the weights by T, so that their mean is 1 as Equal's."""


class RandomWeights(LossWeighting):
    """Weights softmax(z), z ~ N(0, 1), drawn anew in each step.

    A method that does not beat it has balanced nothing. The draw is a pure function of
    the experiment's seed and the step, so that a resumed run repeats it.
    """

    Config = RandomWeightsConfig
    citation = (
        "B. Lin et al., Reasonable Effectiveness of Random Weighting, TMLR 2022, "
        "arXiv 2111.10603"
    )
    config: RandomWeightsConfig

    def weigh(self, stats: TaskStats) -> Any:
        step = tf.cast(stats.step, tf.int64)
        seed = tf.stack([tf.constant(self.tasks.seed, tf.int64), step])
        weights = tf.nn.softmax(tf.random.stateless_normal([self.count], seed))
        return weights * self.count if self.config.match_sum else weights
