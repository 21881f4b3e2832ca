"""Nash-MTL: the tasks bargain for the shared direction."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.base import GradientWeighting, TaskStats
from tfmtl.balance.config import GradientConfig
from tfmtl.balance.solvers import (
    TINY,
    combined_norm,
    cosines_and_norms,
    minimise_with_barrier,
)

RIDGE = 1e-8
"""Added to the cosines' diagonal: without it weights grow without end where gradients
cancel."""


def nash_weights(gramian: Any) -> Any:
    """alpha > 0 with M alpha = 1 / alpha.

    The condition is that of the minimum of alpha'M alpha / 2 - sum_t ln alpha_t. With
    alpha_t = beta_t / n_t it is C beta = 1 / beta in the cosines: scales drop out. The
    combined gradient has norm sqrt(n).

    Args:
        gramian: [n, n].

    Returns:
        [n].
    """
    cosines, norms = cosines_and_norms(gramian)
    cosines = tf.linalg.set_diag(cosines, tf.linalg.diag_part(cosines) + RIDGE)
    return minimise_with_barrier(cosines) / tf.maximum(norms, TINY)


class NashMTLConfig(GradientConfig):
    """Settings of Nash-MTL."""

    max_norm: float | None = Field(default=None, gt=0)
    """Longest combined gradient of the probed variables when it is solved; it is
    sqrt(T) long, T tasks taking part, where nothing is cut."""
    own: Literal["plain", "weighted"] = "plain"
    """What the tasks' own parts descend: their losses, or the losses with the same
    weights (the mean over groups), as in the authors' code."""


class NashMTL(GradientWeighting):
    """The bargaining solution: relative gains of all tasks balance."""

    Config = NashMTLConfig
    citation = "Navon et al., ICML 2022, arXiv 2202.01017"
    config: NashMTLConfig

    def solve(self, gramian: Any, chosen: Any, group: int, stats: TaskStats) -> Any:
        weights = nash_weights(gramian)
        if self.config.max_norm is None:
            return weights
        norm = tf.maximum(combined_norm(gramian, weights), TINY)
        return weights * tf.minimum(self.config.max_norm / norm, 1.0)

    def own_weights(self, stats: TaskStats, weights: Any) -> Any:
        if self.config.own != "weighted":
            return None
        # Who takes part weighs more than 0. Who is left out has no gradient on the
        # probed variables, which says nothing against training its own part.
        return tf.where(weights > 0.0, weights, tf.ones_like(weights))
