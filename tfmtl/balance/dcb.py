"""DCB, dynamic collaborative balance: the project's own balancer.

Magnitudes come together only as far as tasks cooperate, and a conflict is removed only
as far as it lasts. For each group of shared variables, and of each scenario's own where
`groups` says so, with g_t the gradient of task t:

1. mu_t, moving average of ||g_t||; 2. C_ts, moving average of the cosines;
3. cooperation chi_t, the mean of C_ts over the others, by their preference;
4. rho_t = reference / mu_t, within [1 / ratio, ratio];
5. a_t = 1 + r_t (rho_t - 1), r_t the relax factor, see `amplification`;
6. progress: tasks whose loss fell less get more (optional);
7. conflicts that are both persistent and present are removed, see `conflict_free`;
8. g = sum_t pi_t T a_t g'_t.

Limits: chi = 1, r = 1, no steps 6 and 7, with a target: MetaBalance C with r = 1. r = 0
and no step 7: equal weights. C = -1 at each conflict and r = 0: PCGrad with all
projections at once.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from tfmtl._keras import tf
from tfmtl.balance.averages import Averages, pair_places, task_places
from tfmtl.balance.base import GradientWeighting, TaskInfo, TaskStats
from tfmtl.balance.config import BalancerConfig, GradientConfig
from tfmtl.balance.solvers import TINY, cosines_and_norms


def cooperation(persistent: Any, preference: Any) -> Any:
    """chi_t = sum_{s != t} pi_s C_ts / sum_{s != t} pi_s; 1 of a task alone.

    Args:
        persistent: [n, n] averages of the cosines.
        preference: [n] pi, positive.

    Returns:
        [n] in [-1, 1].
    """
    others = preference * (1.0 - tf.eye(tf.size(preference), dtype=tf.float64))
    total = tf.reduce_sum(others, axis=1)
    mean = tf.reduce_sum(others * persistent, axis=1) / tf.maximum(total, TINY)
    return tf.where(total > 0.0, mean, tf.ones_like(mean))


def reference_magnitude(magnitudes: Any, preference: Any) -> Any:
    """exp(sum_t pi_t log mu_t), pi summing to 1: the weighted geometric mean."""
    shares = preference / tf.reduce_sum(preference)
    return tf.exp(tf.reduce_sum(shares * tf.math.log(tf.maximum(magnitudes, TINY))))


def amplification(
    magnitudes: Any, reference: Any, cooperative: Any, largest: float, ratio: float
) -> Any:
    """a_t = 1 + r_t (rho_t - 1): the factor of each gradient.

    r_t is `largest` where rho_t <= 1, a dominating task is always reduced; else
    largest (1 + chi_t) / 2: a weak task is enlarged only as far as it cooperates.

    Args:
        magnitudes: [n] mu, positive.
        reference: Scalar.
        cooperative: [n] chi in [-1, 1]; all 1 for a fixed relax factor.
        largest: The relax factor's largest value.
        ratio: rho_t stays within [1 / ratio, ratio].
    """
    rho = tf.clip_by_value(
        reference / tf.maximum(magnitudes, TINY), 1.0 / ratio, float(ratio)
    )
    relax = tf.where(rho <= 1.0, tf.ones_like(rho), (1.0 + cooperative) / 2.0)
    return 1.0 + largest * relax * (rho - 1.0)


def progress_factors(remaining: Any, power: float) -> Any:
    """clip(Q_t^power, 1/2, 2) with Q_t = q_t / mean_s q_s.

    Args:
        remaining: [n] q, the share of its first loss that each task's loss still is.
        power: 0 for no effect.
    """
    relative = remaining / tf.maximum(tf.reduce_mean(remaining), TINY)
    return tf.clip_by_value(relative**power, 0.5, 2.0)


def conflict_free(gramian: Any, persistent: Any) -> Any:
    """Coefficients of g'_t over the gradients.

        g'_t = g_t - sum_s |C_ts| (g_t . g_s / ||g_s||^2) g_s

    over the s with C_ts < 0 and g_t . g_s < 0. All products are of the original
    gradients: no order, nothing drawn.

    Args:
        gramian: [n, n].
        persistent: [n, n] C.

    Returns:
        [n, n], row t those of g'_t.
    """
    squares = tf.linalg.diag_part(gramian)
    both = (persistent < 0.0) & (gramian < 0.0)
    share = tf.where(both, tf.abs(persistent) * gramian / squares[None, :], 0.0)
    return tf.eye(tf.size(squares), dtype=tf.float64) - share


class DCBConfig(GradientConfig):
    """Settings of DCB."""

    granularity: Literal["whole", "layer", "tensor"] = "layer"
    """As elsewhere."""
    groups: Literal["shared", "shared+scenario"] = "shared"
    """`shared+scenario`: balance the tasks on each scenario's own variables, too, in
    groups of its own, which its rows alone reach; else these get the plain sum. They
    then count as shared for `training.tasks.<task>.clip_norm` and `reach`."""
    mode: Literal["all", "target"] = "all"
    """What magnitudes go to: their geometric mean, or the magnitude of `target`."""
    target: str | None = None
    """With `mode: target`, the task whose magnitude counts."""
    preference: dict[str, PositiveFloat] = {}
    """Task to its share; tasks not named have 1. Divided by their sum."""
    r_max: float = Field(default=0.9, ge=0, le=1)
    """The relax factor's largest value."""
    relax: Literal["auto"] | float = "auto"
    """`auto`: computed from how tasks cooperate, up to `r_max`; or a fixed factor in
    [0, 1]."""
    ratio: float = Field(default=10.0, ge=1)
    """Largest ratio of magnitudes that is evened out."""
    conflict: bool = True
    """Remove conflicts that are persistent and present."""
    progress: float = Field(default=0.0, ge=0)
    """Power of the loss that is left, which slow tasks get more by; 0 is off, 0.5 is
    usual."""
    beta: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the averages of magnitudes and of losses."""
    beta_cosine: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the averages of cosines."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.mode == "target") != (self.target is not None):
            raise ValueError(
                "`mode: target` needs `target`, and only it. Received: "
                f"mode={self.mode!r}, target={self.target!r}"
            )
        if self.groups == "shared+scenario" and self.granularity == "whole":
            raise ValueError(
                "`groups: shared+scenario` makes groups of each scenario's own, which "
                "`granularity: whole` does not have; use `layer` or `tensor`"
            )
        if self.relax != "auto" and not 0 <= self.relax <= 1:
            raise ValueError(
                f"`relax` must be `auto` or in [0, 1]. Received: {self.relax}"
            )
        return self


class DCB(GradientWeighting):
    """Evens magnitudes out as far as tasks cooperate, removes lasting conflicts."""

    Config = DCBConfig
    citation = "the project's own; MetaBalance and PCGrad are limits of it"
    config: DCBConfig

    def __init__(self, tasks: TaskInfo, config: BalancerConfig) -> None:
        super().__init__(tasks, config)
        shares = self.by_task(self.config.preference, 1.0, "preference")
        self._preference = [x / sum(shares) for x in shares]
        target = self.config.target
        self._target = None if target is None else self.number_of(target, "target")
        self.first_losses = self.state("first_losses", tf.zeros([self.count]))
        self.losses = Averages((1, self.count), self.config.beta, "losses", self.state)

    def prepare(self, groups: int) -> None:
        shape = (groups, self.count)
        self.magnitudes = Averages(shape, self.config.beta, "magnitudes", self.state)
        pairs = (*shape, self.count)
        self.cosines = Averages(pairs, self.config.beta_cosine, "cosines", self.state)

    def weigh(self, stats: TaskStats) -> Any:
        if self.config.progress:
            first = tf.convert_to_tensor(self.first_losses)
            new = stats.present & (first <= 0.0)
            self.first_losses.assign(tf.where(new, stats.losses, first))
            there = tf.cast(tf.where(stats.present)[:, 0], tf.int32)
            losses = tf.cast(tf.gather(stats.losses, there), tf.float64)
            self.losses.update(task_places(there, 0), losses)
        return super().weigh(stats)

    def solve(self, gramian: Any, chosen: Any, group: int, stats: TaskStats) -> Any:
        preference = tf.gather(tf.constant(self._preference, tf.float64), chosen)
        cosines, norms = cosines_and_norms(gramian)
        places = task_places(chosen, group)
        magnitudes = self.magnitudes.update(places, norms)
        persistent = self.cosines.update(pair_places(chosen, group), cosines)
        reference = reference_magnitude(magnitudes, preference)
        if self._target is not None:
            wanted = self.magnitudes.read([group, self._target])
            # A target without a label so far has no magnitude.
            reference = tf.where(wanted > 0.0, wanted, reference)
        factors = self._factors(magnitudes, reference, persistent, preference)
        if self.config.progress:
            factors *= self._progress(chosen)
        if self.config.conflict:
            rows = conflict_free(gramian, persistent)
        else:
            rows = tf.eye(tf.size(norms), dtype=tf.float64)
        return tf.linalg.matvec(
            rows, preference * float(self.count) * factors, transpose_a=True
        )

    def _factors(
        self, magnitudes: Any, reference: Any, persistent: Any, preference: Any
    ) -> Any:
        ratio, relax = self.config.ratio, self.config.relax
        if relax == "auto":
            chi = cooperation(persistent, preference)
            largest = self.config.r_max
        else:
            chi, largest = tf.ones_like(magnitudes), float(relax)
        return amplification(magnitudes, reference, chi, largest, ratio)

    def _progress(self, chosen: Any) -> Any:
        first = tf.cast(tf.gather(self.first_losses, chosen), tf.float64)
        now = self.losses.read(task_places(chosen, 0))
        remaining = tf.where(first > 0.0, now / tf.maximum(first, TINY), 1.0)
        return progress_factors(remaining, self.config.progress)
