"""Weights from a learned noise of each task: homoscedastic uncertainty."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.base import BalancerConfig, LossWeighting, TaskInfo, TaskStats

Kind = Literal["regression", "classification", "toy", "revised"]
_LOSS_FACTOR = {"regression": 0.5, "classification": 1.0, "toy": 1.0, "revised": 0.5}
_PENALTY_FACTOR = {"regression": 0.5, "classification": 0.5, "toy": 1.0, "revised": 0.0}


def uncertainty_weights(log_variances: Any, kinds: tuple[Kind, ...]) -> Any:
    """What each loss is multiplied by: e^-s, or half of it.

    Args:
        log_variances: [T], s = ln sigma^2.
        kinds: T of them.
    """
    factor = tf.constant([_LOSS_FACTOR[k] for k in kinds], log_variances.dtype)
    return factor * tf.exp(-log_variances)


def uncertainty_slope(log_variances: Any, losses: Any, kinds: tuple[Kind, ...]) -> Any:
    """Derivative of the objective by s: -w L + 1/2 (1 of toy, sigma(s) of revised).

    Args:
        log_variances: [T].
        losses: [T].
        kinds: T of them.
    """
    penalty = tf.constant([_PENALTY_FACTOR[k] for k in kinds], log_variances.dtype)
    revised = tf.constant([k == "revised" for k in kinds])
    # d/ds ln(1 + e^s)
    pull = tf.where(revised, tf.sigmoid(log_variances), penalty)
    return pull - uncertainty_weights(log_variances, kinds) * losses


class UncertaintyConfig(BalancerConfig):
    """Settings of Uncertainty."""

    kind: Literal["auto", "regression", "classification", "toy", "revised"] = "auto"
    """The objective of a task; `auto`: `classification` of binary, multiclass and
    ordinal tasks, `regression` of others."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Of s, by plain gradient descent."""
    start: float = 0.0
    """Where s starts; LibMTL's is -0.5."""
    bound: float = Field(default=5.0, gt=0)
    """s stays in [-bound, bound]."""


class Uncertainty(LossWeighting):
    """Homoscedastic uncertainty (regression, classification, toy, revised).

    With s_t = ln sigma_t^2 learned beside the network, the objective of a task is

        regression       e^-s L / 2 + s / 2         s* = ln L
        classification   e^-s L + s / 2             s* = ln 2L
        toy              e^-s L + s                 s* = ln L
        revised          e^-s L / 2 + ln(1 + e^s)   e^s* = (L + sqrt(L^2 + 8L)) / 4

    At s* the first two descend sum_t ln(L_t) / 2, whatever the losses' scales. s moves
    by its own gradient at its own rate, without weight decay, after the step's weights
    are read. An absent task keeps its s: the penalty alone would raise its weight.

    The three first forms go by one name in public code; `toy` is the authors' notebook.
    """

    Config = UncertaintyConfig
    citation = (
        "A. Kendall et al., CVPR 2018, arXiv 1705.07115; revised: L. Liebel, M. "
        "Koerner, arXiv 1805.06334"
    )
    config: UncertaintyConfig

    def __init__(self, tasks: TaskInfo, config: UncertaintyConfig) -> None:
        super().__init__(tasks, config)
        self.kinds = tuple(self._kind(k) for k in tasks.kinds)
        start = tf.fill([self.count], tf.constant(config.start, tf.float32))
        self.log_variances = self.state("log_variances", start)

    def _kind(self, task: str) -> Kind:
        if self.config.kind != "auto":
            return self.config.kind
        classes = task in ("binary", "multiclass", "ordinal")
        return "classification" if classes else "regression"

    def weigh(self, stats: TaskStats) -> Any:
        log_variances = tf.convert_to_tensor(self.log_variances)
        slope = uncertainty_slope(log_variances, stats.losses, self.kinds)
        moved = tf.clip_by_value(
            log_variances - self.config.learning_rate * slope,
            -self.config.bound,
            self.config.bound,
        )
        self.log_variances.assign(tf.where(stats.present, moved, log_variances))
        return uncertainty_weights(log_variances, self.kinds)
