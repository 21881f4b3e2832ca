"""MGDA: the common descent direction of all tasks, on gradients or on activations."""

from __future__ import annotations

from typing import Any, Literal

from tfmtl._keras import tf
from tfmtl.balance.base import GradientWeighting, TaskStats
from tfmtl.balance.config import MeanConfig
from tfmtl.balance.simplex import frank_wolfe, minimum_norm, projected_gradient
from tfmtl.balance.solvers import TINY, norms_of

Normalization = Literal["none", "l2", "loss", "loss+"]
SOLVERS = {
    "exact": minimum_norm,
    "frank_wolfe": frank_wolfe,
    "projected_gradient": projected_gradient,
}


def gradient_scales(gramian: Any, losses: Any, normalization: str) -> Any:
    """What each gradient is divided by before tasks are compared.

    Args:
        gramian: [n, n].
        losses: [n].
        normalization: `none`: 1; `l2`: ||g_t||; `loss`: L_t; `loss+`: L_t ||g_t||.

    Returns:
        [n], positive.
    """
    scales = tf.ones_like(losses)
    if normalization in ("l2", "loss+"):
        scales *= norms_of(gramian)
    if normalization in ("loss", "loss+"):
        scales *= tf.abs(losses)
    return tf.maximum(scales, TINY)


def mgda_weights(gramian: Any, scales: Any, solver: str = "exact") -> Any:
    """Weights of the shortest vector in the hull of the gradients g_t / n_t.

    Args:
        gramian: [n, n].
        scales: [n] n_t; see `gradient_scales`.
        solver: One of `SOLVERS`.

    Returns:
        [n] alpha_t / n_t, for gradients as they are; alpha sums to 1.
    """
    # Their common size cancels: entries near 1 are neither lost nor infinite.
    relative = scales / tf.reduce_max(scales)
    scaled = gramian / (relative[:, None] * relative[None, :])
    return SOLVERS[solver](scaled) / scales


class MGDAConfig(MeanConfig):
    """Settings of MGDA."""

    normalization: Normalization = "none"
    """What each task's gradient is divided by first: nothing, its norm (`l2`), the loss
    (`loss`), or both (`loss+`). Without it small gradients weigh most."""
    solver: Literal["exact", "frank_wolfe", "projected_gradient"] = "exact"
    """`exact`: an active set, a few steps. The others are the literature's, for
    gradients of like norms: 250 and 1,000 steps at most."""


class MGDA(GradientWeighting):
    """The shortest vector in the hull of the gradients: no task gets worse."""

    Config = MGDAConfig
    citation = "Sener, Koltun, NeurIPS 2018, arXiv 1810.04650; Désidéri 2012"
    config: MGDAConfig

    def solve(self, gramian: Any, chosen: Any, group: int, stats: TaskStats) -> Any:
        losses = tf.cast(tf.gather(stats.losses, chosen), tf.float64)
        scales = gradient_scales(gramian, losses, self.config.normalization)
        return self.config.scale(mgda_weights(gramian, scales, self.config.solver))


class MGDAUBConfig(MGDAConfig):
    """Settings of MGDA-UB."""

    gradients: Literal["representation"] = "representation"
    """By the activations through which shared variables reach the tasks."""


class MGDAUB(MGDA):
    """MGDA on gradients by activations, an upper bound at the cost of one pass."""

    Config = MGDAUBConfig
    citation = "Sener, Koltun, NeurIPS 2018, section 3.3, arXiv 1810.04650"
    backward_passes = "T heads + 1"
