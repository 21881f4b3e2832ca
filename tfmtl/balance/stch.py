"""STCH: the smooth maximum of the tasks' relative losses."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field, field_validator

from tfmtl._keras import tf
from tfmtl.balance.base import BalancerConfig, LossWeighting, TaskInfo, TaskStats
from tfmtl.balance.logs import inverse, safe_log, usable
from tfmtl.errors import ConfigError


def smooth_maximum(values: Any, preference: Any, ideal: Any, mu: float) -> Any:
    """mu ln sum_t exp(lambda_t (f_t - z_t) / mu): the objective.

    Args:
        values: [T], f.
        preference: [T], lambda.
        ideal: [T], z.
        mu: > 0; towards 0 this is max_t lambda_t (f_t - z_t), within mu ln T.
    """
    return mu * tf.reduce_logsumexp(preference * (values - ideal) / mu)


def stch_weights(values: Any, preference: Any, ideal: Any, mu: float, used: Any) -> Any:
    """Its derivative by f: lambda_t softmax_t(lambda_t (f_t - z_t) / mu).

    Args:
        values: [T], f.
        preference: [T], lambda.
        ideal: [T], z.
        mu: > 0.
        used: [T] bool; others are left out and weigh 0.
    """
    scores = tf.where(used, preference * (values - ideal) / mu, values.dtype.min)
    return tf.where(used, preference * tf.nn.softmax(scores), 0.0)


class STCHConfig(BalancerConfig):
    """Settings of STCH."""

    mu: float = Field(default=1.0, gt=0)
    """Smoothness: towards 0 only the worst task counts, large makes all count alike."""
    preference: dict[str, float] = {}
    """Task to its share in what counts as worst, > 0, scaled to sum 1; tasks that are
    not named count 1 before that."""
    ideal: dict[str, float] = {}
    """Task to the point its relative loss ln(L / L_ref) aims at; 0 where absent."""
    warmup_steps: int | None = Field(default=None, ge=1)
    """Steps in which the sum of ln L is minimised; an epoch where absent."""
    reference_steps: int | None = Field(default=None, ge=1)
    """The last steps of the warm-up, whose mean losses are L_ref; all where absent."""

    @field_validator("preference")
    @classmethod
    def _positive(cls, preference: dict[str, float]) -> dict[str, float]:
        wrong = {t: w for t, w in preference.items() if not 0 < w < math.inf}
        if wrong:
            raise ValueError(f"preferences must be finite and > 0. Received: {wrong}")
        return preference


class STCH(LossWeighting):
    """Minimises the smooth maximum of the tasks' losses relative to a reference.

        T mu ln sum_t exp(lambda_t (f_t - z_t) / mu),   f_t = ln(L_t / L_ref_t)

    after a warm-up on sum_t ln L_t, in which the reference is taken. By the losses,
    w_t = T lambda_t softmax_t(lambda_t (f_t - z_t) / mu) / L_t. Absent tasks are left
    out; a task that the warm-up never showed takes its first loss for reference.

    The authors take the reference in the fourth of some hundred epochs; ranking models
    train for few, hence one epoch here unless `warmup_steps` says otherwise.
    """

    Config = STCHConfig
    citation = (
        "X. Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective "
        "Optimization, ICML 2024, arXiv 2402.19078"
    )
    config: STCHConfig

    def __init__(self, tasks: TaskInfo, config: STCHConfig) -> None:
        super().__init__(tasks, config)
        self.warmup = config.warmup_steps or tasks.steps_per_epoch
        self.reference = min(config.reference_steps or self.warmup, self.warmup)
        self.passed = self.state("passed", tf.constant(0, tf.int64))
        self.sums = self.state("sums", tf.zeros([self.count]))
        self.counts = self.state("counts", tf.zeros([self.count]))
        chosen = self.by_task(config.preference, 1.0, "preference")
        self._preference = tf.constant([c / sum(chosen) for c in chosen], tf.float32)
        ideal = self.by_task(config.ideal, 0.0, "ideal")
        self._ideal = tf.constant(ideal, tf.float32)

    def check_plan(self, planned_steps: int) -> None:
        if self.warmup >= planned_steps:
            raise ConfigError(
                "`balancer.config.warmup_steps` of STCH must be below the steps of the "
                f"run, or it is LogLoss. Received: {self.warmup} (an epoch where it is "
                f"absent) in {planned_steps} steps"
            )

    def weigh(self, stats: TaskStats) -> Any:
        used = usable(stats.losses, stats.present)
        passed = tf.convert_to_tensor(self.passed)
        reference = self._reference(stats.losses, used, passed)
        self.passed.assign(passed + 1)
        by_log = inverse(stats.losses, stats.present)
        relative = safe_log(stats.losses) - safe_log(reference)
        outer = stch_weights(
            relative, self._preference, self._ideal, self.config.mu, used
        )
        outer = tf.where(passed < self.warmup, 1.0, self.count * outer)
        return outer * by_log

    def _reference(self, losses: Any, used: Any, passed: Any) -> Any:
        """Mean losses of the reference steps, this one included."""
        counting = (passed >= self.warmup - self.reference) & (passed < self.warmup)
        late = (passed >= self.warmup) & (self.counts == 0)
        seen = tf.cast(used & (counting | late), tf.float32)
        sums, counts = self.sums + seen * losses, self.counts + seen
        self.sums.assign(sums)
        self.counts.assign(counts)
        return tf.where(counts > 0, sums / tf.maximum(counts, 1.0), losses)
