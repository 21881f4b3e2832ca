"""DB-MTL: logarithms of losses, and gradients of equal norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from tfmtl._keras import tf
from tfmtl.balance.base import VANISHED, GradientCombination, TaskStats
from tfmtl.balance.config import BalancerConfig
from tfmtl.balance.gram import gram_matrix, scale, weighted_sum
from tfmtl.balance.logs import usable
from tfmtl.balance.solvers import norms_of

EPSILON = 1e-8
"""Added to losses and norms before something is divided by them."""


def log_loss_factors(losses: Any, present: Any) -> Any:
    """1 / (L_t + eps), by which the gradient of L_t is that of ln(L_t + eps).

    Args:
        losses: [T].
        present: [T] bool; 0 of others, and where a loss has no logarithm.
    """
    used = usable(losses, present)
    safe = tf.where(used, losses, tf.ones_like(losses))
    return tf.where(used, 1.0 / (safe + EPSILON), tf.zeros_like(losses))


def equal_norm_weights(norms: Any, usable: Any) -> Any:
    """max_s ||g_s|| / (||g_t|| + eps).

    Args:
        norms: [T].
        usable: [T] bool; others weigh 0 and do not count.

    Returns:
        [T].
    """
    zeros = tf.zeros_like(norms)
    largest = tf.reduce_max(tf.where(usable, norms, zeros))
    # In a share of the largest: the answer is the same for gradients of any size.
    relative = norms / tf.where(largest > 0.0, largest, tf.ones_like(largest))
    return tf.where(usable, 1.0 / (relative + EPSILON), zeros)


class DBMTLConfig(BalancerConfig):
    """Settings of DB-MTL."""

    beta: float = Field(default=0.9, ge=0, lt=1)
    """Weight of the past in the moving average of each task's gradient; 0 takes this
    step's alone, and needs no memory."""
    sigma: float = Field(default=0.0, ge=0)
    """The weight is beta / k^sigma at a task's k-th step."""
    embedding: Literal["balanced", "sum"] = "balanced"
    """What embedding tables get: gradients with the same weights, or the plain sum of
    the gradients of the log losses."""


class DBMTL(GradientCombination):
    """Descends log losses, with averaged gradients of equal norm on shared variables.

    Keeps one average per task of each dense shared variable. An average of an embedding
    table's gradient would be as large as the table, times T, and every row would move
    at every step: tables get this step's gradients, with the weights that the averages
    of the dense variables give; of a model without any, or in a step where a task
    reaches none of them, the tables' own norms decide.
    """

    Config = DBMTLConfig
    citation = "Lin et al., arXiv 2308.12029"
    config: Any

    def prepare(self, variables: Sequence[Any], tables: Sequence[bool]) -> None:
        self._dense = [i for i, table in enumerate(tables) if not table]
        if not self.config.beta:
            return
        self.steps = self.state("steps", tf.zeros([self.count]))
        self.missing = self.state("missing", tf.ones([self.count]))
        self.averages = [
            self.state(f"average_{i}", tf.zeros([self.count, *variables[i].shape]))
            for i in self._dense
        ]

    def combine(self, stats: TaskStats, gradients: Sequence[Sequence[Any]]) -> Any:
        present = usable(stats.losses, stats.present)
        logs = log_loss_factors(stats.losses, present)
        scaled = [[scale(g, logs[t]) for t, g in enumerate(row)] for row in gradients]
        if self.config.beta:
            self._average(scaled, present)
        norms = norms_of(gram_matrix([scaled[i] for i in self._dense] or scaled))
        # The dense shared variables of a funnel may be one task's tower: in steps where
        # a task reaches none of them, tables are compared, too.
        norms = tf.cond(
            tf.reduce_any(present & (norms < VANISHED)),
            lambda: norms_of(gram_matrix(scaled)),
            lambda: norms,
        )
        used = present & (norms >= VANISHED)
        weights = tf.cast(equal_norm_weights(norms, used), tf.float32)
        return [weighted_sum(row, weights) for row in scaled], weights * logs

    def _average(self, gradients: list[list[Any]], present: Any) -> None:
        """Takes this step's gradients in and puts the averages in their place."""
        there = tf.cast(present, tf.float32)
        steps = tf.convert_to_tensor(self.steps) + there
        self.steps.assign(steps)
        past = self.config.beta / tf.maximum(steps, 1.0) ** self.config.sigma
        past = tf.where(present, past, tf.ones_like(past))
        # What the zeros at the start still weigh; see `Averages`.
        missing = tf.convert_to_tensor(self.missing) * past
        self.missing.assign(missing)
        known = 1.0 / tf.where(missing < 1.0, 1.0 - missing, tf.ones_like(missing))
        for i, average in zip(self._dense, self.averages):
            new = [
                tf.zeros(average.shape[1:]) if g is None else tf.cast(g, tf.float32)
                for g in gradients[i]
            ]
            each = [-1] + [1] * (len(average.shape) - 1)
            factor = tf.reshape(past, each)
            moved = factor * average + (1.0 - factor) * tf.stack(new)
            average.assign(moved)
            gradients[i] = tf.unstack(moved * tf.reshape(known, each))

    def own_weights(self, stats: TaskStats, weights: Any) -> Any:
        return log_loss_factors(stats.losses, stats.present)
