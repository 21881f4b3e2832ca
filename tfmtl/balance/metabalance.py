"""MetaBalance: auxiliary gradients as large as the target's, for each variable."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.averages import Averages, task_places
from tfmtl.balance.base import GradientWeighting, TaskInfo, TaskStats
from tfmtl.balance.config import BalancerConfig, GradientConfig
from tfmtl.balance.solvers import norms_of


def metabalance_weights(
    magnitudes: Any, target: Any, strategy: str, relax: float
) -> Any:
    """w_t = r m_target / m_t + 1 - r where the strategy holds, else 1.

    Args:
        magnitudes: [n] m_t, positive.
        target: Scalar m_target; 0 where it is not known yet: all weigh 1.
        strategy: `A`: m_t > m_target; `B`: m_t < m_target; `C`: always.
        relax: r.

    Returns:
        [n]; 1 for the target itself.
    """
    holds = tf.fill(tf.shape(magnitudes), target > 0.0)
    if strategy == "A":
        holds &= magnitudes > target
    elif strategy == "B":
        holds &= magnitudes < target
    # Not 1 + r (ratio - 1), which loses a ratio of 1e-15 where r = 1.
    moved = relax * (target / magnitudes) + (1.0 - relax)
    return tf.where(holds, moved, tf.ones_like(moved))


class MetaBalanceConfig(GradientConfig):
    """Settings of MetaBalance."""

    target: str
    """The task that counts; its gradient is never altered."""
    strategy: Literal["A", "B", "C"] = "C"
    """`A` shrinks auxiliary gradients larger than the target's, `B` enlarges smaller
    ones, `C` does both."""
    relax: float = Field(default=0.7, ge=0, le=1)
    """How near magnitudes come: 0 changes nothing, 1 makes them equal."""
    beta: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the moving averages of magnitudes; 0 looks at this step alone."""
    granularity: Literal["whole", "layer", "tensor"] = "tensor"
    """As elsewhere; the paper balances each variable by itself."""


class MetaBalance(GradientWeighting):
    """Scales auxiliary tasks' gradients towards the target task's magnitude."""

    Config = MetaBalanceConfig
    citation = "He et al., WWW 2022, arXiv 2203.06801"
    config: MetaBalanceConfig

    def __init__(self, tasks: TaskInfo, config: BalancerConfig) -> None:
        super().__init__(tasks, config)
        self._target = self.number_of(self.config.target, "target")

    def prepare(self, groups: int) -> None:
        shape = (groups, self.count)
        self.magnitudes = Averages(shape, self.config.beta, "magnitudes", self.state)

    def solve(self, gramian: Any, chosen: Any, group: int, stats: TaskStats) -> Any:
        places = task_places(chosen, group)
        magnitudes = self.magnitudes.update(places, norms_of(gramian))
        target = self.magnitudes.read([group, self._target])
        return metabalance_weights(
            magnitudes, target, self.config.strategy, self.config.relax
        )
