"""GradVac: gradients are bent until they are as alike as they usually are."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.averages import assign_at, entries, pair_places
from tfmtl.balance.base import GradientWeighting, TaskStats
from tfmtl.balance.config import GradientConfig
from tfmtl.balance.pcgrad import random_orders
from tfmtl.balance.solvers import TINY, norms_of

LIMIT = 0.999
"""Of the targets: at 1 the step would be infinite."""
NOTHING_LEFT = 1e-14
"""A squared norm below this share of its start is rounding."""


def gradvac_weights(
    gramian: Any, order: Any, targets: Any, rate: float
) -> tuple[Any, Any]:
    """sum_t g'_t in coefficients of the gradients, and the targets after it.

    With phi = cos(g'_t, g_s) below its target a,

        g'_t <- g'_t + ||g'_t|| (a sqrt(1 - phi^2) - phi sqrt(1 - a^2))
                / (||g_s|| sqrt(1 - a^2)) g_s

    after which the cosine is a. A target moves towards phi whether or not there was
    anything to bend.

    Args:
        gramian: [n, n].
        order: [n, n], the order of each task.
        targets: [n, n], of row t's gradient against column s's.
        rate: Of the targets' moving averages.

    Returns:
        Weights [n] and targets [n, n].
    """
    count = tf.shape(gramian)[0]
    norms, own = norms_of(gramian), tf.range(count)
    squares = tf.linalg.diag_part(gramian)

    def bend(k: Any, coefficients: Any, moved: Any) -> tuple[Any, Any, Any]:
        other = order[:, k]
        there = tf.one_hot(other, count, dtype=tf.float64)
        products = tf.matmul(coefficients, gramian)  # g'_t . g_s
        squared = tf.reduce_sum(coefficients * products, axis=1)
        norm = tf.sqrt(tf.maximum(squared, TINY))
        seen = (squared > NOTHING_LEFT * squares) & (other != own)
        others = tf.gather(norms, other)
        cosine = tf.reduce_sum(there * products, axis=1) / (norm * others)
        cosine = tf.clip_by_value(cosine, -1.0, 1.0)
        target = tf.reduce_sum(there * targets, axis=1)
        moved += there * tf.where(seen, rate * (cosine - target), 0.0)[:, None]
        target = tf.clip_by_value(target, -LIMIT, LIMIT)
        across = tf.sqrt(1.0 - target**2)
        more = norm * (target * tf.sqrt(1.0 - cosine**2) - cosine * across)
        more = tf.where(seen & (cosine < target), more / (others * across), 0.0)
        return k + 1, coefficients + more[:, None] * there, moved

    found: Any = tf.while_loop(
        lambda k, coefficients, moved: k < count,
        bend,
        (tf.constant(0), tf.eye(count, dtype=tf.float64), targets),
    )
    return tf.reduce_sum(found[1], axis=0), found[2]


class GradVacConfig(GradientConfig):
    """Settings of GradVac."""

    granularity: Literal["whole", "layer", "tensor"] = "layer"
    """As elsewhere; the paper finds `layer` best for large models."""
    beta: float = Field(default=0.01, gt=0, le=1)
    """Rate at which the targets follow the cosines seen."""


class GradVac(GradientWeighting):
    """Bends gradients until their cosines are at least the usual ones."""

    Config = GradVacConfig
    citation = "Wang, Tsvetkov, Firat, Cao, ICLR 2021, arXiv 2010.05874"
    config: GradVacConfig

    def prepare(self, groups: int) -> None:
        start = tf.zeros([groups, self.count, self.count], tf.float64)
        self.targets = self.state("targets", start)

    def solve(self, gramian: Any, chosen: Any, group: int, stats: TaskStats) -> Any:
        order = random_orders(self.tasks.seed, stats.step, group, self.count, chosen)
        places = pair_places(chosen, group)
        targets = entries(self.targets, places)
        weights, targets = gradvac_weights(gramian, order, targets, self.config.beta)
        assign_at(self.targets, places, targets)
        return weights
