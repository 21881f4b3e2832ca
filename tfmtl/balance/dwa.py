"""Dynamic weight average: weights from how fast each loss fell."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.base import BalancerConfig, LossWeighting, TaskInfo, TaskStats
from tfmtl.balance.logs import EPSILON
from tfmtl.errors import ConfigError


def dwa_weights(ratios: Any, temperature: float) -> Any:
    """T softmax(r / tau): the slower a loss falls, the larger its weight.

    Args:
        ratios: [T], a task's mean loss over its mean loss one window earlier.
        temperature: tau; large makes all weights 1.
    """
    return ratios.shape[0] * tf.nn.softmax(ratios / temperature)


class DWAConfig(BalancerConfig):
    """Settings of DWA."""

    temperature: float = Field(default=2.0, gt=0)
    """tau: large makes the weights equal."""
    window: int | None = Field(default=None, ge=1)
    """Steps whose mean loss is compared with that of as many before; an epoch where
    absent, as in the paper. For streams, or runs of one epoch, give some hundreds."""


class DWA(LossWeighting):
    """Weights the tasks whose losses fall slowly, by the means of two adjacent windows.

        r_t = mean L_t of the last window / mean L_t of the one before
        w_t = T exp(r_t / tau) / sum_s exp(r_s / tau)

    All weigh 1 in the first two windows. The unweighted losses are recorded. A mean is
    over the steps where the task had a label; a task without one in a whole window
    keeps the means it had, and one with fewer than two means counts as r = 1.
    """

    Config = DWAConfig
    citation = (
        "S. Liu et al., End-to-End Multi-Task Learning with Attention, CVPR 2019, "
        "arXiv 1803.10704"
    )
    config: DWAConfig

    def __init__(self, tasks: TaskInfo, config: DWAConfig) -> None:
        super().__init__(tasks, config)
        self.window = config.window or tasks.steps_per_epoch
        zeros = tf.zeros([self.count])
        self.passed = self.state("passed", tf.constant(0, tf.int64))
        self.sums = self.state("sums", zeros)
        self.counts = self.state("counts", zeros)
        self.older = self.state("older", zeros)
        self.newer = self.state("newer", zeros)
        self.means = self.state("means", zeros)

    def check_plan(self, planned_steps: int) -> None:
        if 2 * self.window >= planned_steps:
            raise ConfigError(
                "`balancer.config.window` of DWA must be below half of the run's "
                "steps, or all tasks weigh 1 in all of them. Received: "
                f"{self.window} (an epoch where it is absent) in {planned_steps} steps"
            )

    def weigh(self, stats: TaskStats) -> Any:
        # A window that ended with the last step takes effect in this one.
        ended = (self.passed > 0) & (self.passed % self.window == 0)
        older, newer, means = self._means(ended)
        kept = tf.where(ended, 0.0, 1.0)
        seen = tf.cast(stats.present, tf.float32)
        self.sums.assign(kept * self.sums + seen * stats.losses)
        self.counts.assign(kept * self.counts + seen)
        self.passed.assign_add(1)
        known = (means >= 2) & (older > EPSILON)
        ratios = tf.where(known, newer / tf.maximum(older, EPSILON), 1.0)
        return dwa_weights(ratios, self.config.temperature)

    def _means(self, ended: Any) -> tuple[Any, Any, Any]:
        """Means of the last two windows and how many a task has had, each [T]."""
        counts = tf.convert_to_tensor(self.counts)
        moves = ended & (counts > 0)
        newer = tf.where(moves, self.sums / tf.maximum(counts, 1.0), self.newer)
        older = tf.where(moves, self.newer, self.older)
        means = self.means + tf.cast(moves, tf.float32)
        self.older.assign(older)
        self.newer.assign(newer)
        self.means.assign(means)
        return older, newer, means
