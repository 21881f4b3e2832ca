"""PE-LTR: minimum-norm weights with a lower bound for each task."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import NonNegativeFloat, model_validator

from tfmtl._keras import tf
from tfmtl.balance.averages import assign_at, entries, task_places
from tfmtl.balance.base import GradientWeighting, TaskInfo, TaskStats
from tfmtl.balance.config import BalancerConfig, MeanConfig
from tfmtl.balance.mgda import Normalization, gradient_scales
from tfmtl.balance.simplex import minimum_norm
from tfmtl.balance.solvers import TINY, project_to_simplex, pseudo_inverse


def relaxed_weights(gramian: Any, bounds: Any) -> Any:
    """argmin of ||sum_t (x_t + c_t) g_t||^2 over sum_t x_t = 1 - sum_t c_t alone.

        [[M, e], [e', 0]] [x; l] = [-M c; 1 - e'c]

    by the pseudo-inverse of the bordered matrix. The paper's (Z'Z)^-1 Z' of the same
    matrix squares its condition number.

    Args:
        gramian: [n, n].
        bounds: [n] c.

    Returns:
        [n] x, which may be negative.
    """
    # M of the border's size: l takes the factor, x does not.
    sized = gramian / tf.maximum(tf.reduce_max(tf.abs(gramian)), TINY)
    edge = tf.ones_like(bounds)[:, None]
    upper = tf.concat([sized, edge], axis=1)
    lower = tf.concat([tf.transpose(edge), tf.zeros([1, 1], tf.float64)], axis=1)
    right = tf.concat(
        [-tf.linalg.matvec(sized, bounds), [1.0 - tf.reduce_sum(bounds)]], axis=0
    )
    bordered = pseudo_inverse(tf.concat([upper, lower], axis=0))
    return tf.linalg.matvec(bordered, right)[:-1]


def within_bounds(values: Any, bounds: Any) -> Any:
    """The nearest weights >= bounds of sum 1.

    The sum of what is above the bounds is 1 - sum_t c_t; the paper prints 1, by which
    the weights would sum to 1 + sum_t c_t.

    Args:
        values: [n] x, before the bounds are added.
        bounds: [n] c.
    """
    room = tf.maximum(1.0 - tf.reduce_sum(bounds), 0.0)
    return bounds + project_to_simplex(values, room)


def pe_ltr_weights(gramian: Any, bounds: Any) -> Any:
    """The paper's two steps: relaxed solution, then projection.

    Exact for two tasks; for more the projection is Euclidean, not in the metric of the
    gradients: `minimum_norm` is exact.

    Args:
        gramian: [n, n].
        bounds: [n].

    Returns:
        [n].
    """
    return within_bounds(relaxed_weights(gramian, bounds), bounds)


class PELTRConfig(MeanConfig):
    """Settings of PE-LTR."""

    bounds: dict[str, NonNegativeFloat] = {}
    """Task to its smallest weight; tasks not named have 0. Their sum is at most 1."""
    exact: bool = False
    """Solve exactly, instead of the paper's two steps, which are exact for two tasks
    only."""
    use: Literal["next", "now"] = "next"
    """`next`, as published: the weights found by a batch's gradients serve the next
    update, so that they do not follow the noise of the batch they weigh. `now`: the
    same update."""
    normalization: Normalization = "none"
    """What each gradient is divided by before weights are found, as in MGDA: the loss
    and gradient scales of clicks and of prices differ."""

    @model_validator(mode="after")
    def _room(self) -> Self:
        total = sum(self.bounds.values())
        if total > 1.0 + 1e-9:
            raise ValueError(
                f"`bounds` must sum to at most 1. Received: {self.bounds}, sum {total}"
            )
        return self


class PELTR(GradientWeighting):
    """Minimum-norm weights within bounds: a point of the front with priorities."""

    Config = PELTRConfig
    citation = "Lin, Chen, Pei et al., RecSys 2019"
    config: PELTRConfig

    def __init__(self, tasks: TaskInfo, config: BalancerConfig) -> None:
        super().__init__(tasks, config)
        self._bounds = self.by_task(self.config.bounds, 0.0, "bounds")

    def prepare(self, groups: int) -> None:
        start = tf.ones([groups, self.count], tf.float64) / self.count
        self.weights = self.state("weights", start)

    def solve(self, gramian: Any, chosen: Any, group: int, stats: TaskStats) -> Any:
        bounds = tf.gather(tf.constant(self._bounds, tf.float64), chosen)
        losses = tf.cast(tf.gather(stats.losses, chosen), tf.float64)
        scales = gradient_scales(gramian, losses, self.config.normalization)
        relative = scales / tf.reduce_max(scales)
        scaled = gramian / (relative[:, None] * relative[None, :])
        solver = minimum_norm if self.config.exact else pe_ltr_weights
        found = solver(scaled, bounds)
        places = task_places(chosen, group)
        before = entries(self.weights, places)
        # Those present share what they had: the weights of all still sum to 1.
        had = tf.reduce_sum(before)
        assign_at(self.weights, places, found * had)
        if self.config.use == "next":
            share = tf.where(had > 0.0, before / tf.maximum(had, TINY), before)
            found = within_bounds(share - bounds, bounds)
        return self.config.scale(found / scales)
