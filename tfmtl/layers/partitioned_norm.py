"""Batch normalisation with moments of each scenario's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tfmtl._keras import keras, tf
from tfmtl.layers.statistics import statistics_frozen

# Of the replicas of a distribution strategy: each moves its own, what is read outside
# of them is the mean.
_OF_EACH_REPLICA = {
    "synchronization": tf.VariableSynchronization.ON_READ,
    "aggregation": tf.VariableAggregation.MEAN,
}


class _Moments(NamedTuple):
    """Moments of a batch; row S of each is that of all rows together.

    Attributes:
        counts: [S + 1] float32.
        mean: [S + 1, D].
        variance: [S + 1, D], biased.
    """

    counts: Any
    mean: Any
    variance: Any


@keras.utils.register_keras_serializable("tfmtl")
class PartitionedNorm(keras.layers.Layer):
    """Partitioned normalisation of batches that mix scenarios: [B, D] -> [B, D].

        z' = (gamma * gamma_p) * (z - mu_p) / sqrt(v_p + epsilon) + (beta + beta_p)

    p is the row's scenario. In training mu_p and v_p are the moments of the batch's
    rows of p, and gradients flow through them; else they are moving ones:

        E_p   <- E_p + a_p (mu_p - E_p),   the same for Var_p
        a_p    = (1 - rho_p) / w_p,   w_p <- rho_p w_p + 1 - rho_p,   w_p = 0 at first
        rho_p  = rho ** (n_p / n_mean),   n_mean = rows of known scenarios / S

    so the first update copies, early ones weigh alike, and scenarios forget by rows
    seen, not by steps. With one scenario it is batch normalisation.

    - A scenario with fewer than `min_rows` rows in the batch is normalised by its
      moving moments, as a request of one row is, and keeps them bit for bit.
    - The unknown scenario, id S, is the shared centre: gamma and beta alone, with the
      moments of all rows. A scenario that no training batch held is served with the
      centre's moments.
    - A row depends on rows of other scenarios only if its own is the unknown one.
    - The moving moments are updated by every call in training mode: one a step.
    - Computed in float32 whatever the policy; the output has the inputs' type.

    Args:
        scenarios: Names of the known scenarios, S of them; theirs are the groups
            `scenario/<name>`. Where there are none, this is batch normalisation of all
            rows.
        rho: What the moving moments keep of themselves at an average update, in (0, 1).
        epsilon: Added to variances. Where a column is constant in a scenario, what the
            moving mean lags behind is divided by its root: hence not smaller.
        min_rows: Rows of a scenario from which on a batch's moments are used.

    References:
        X.-R. Sheng et al., "One Model to Serve All: Star Topology Adaptive Recommender
        for Multi-Domain CTR Prediction", CIKM 2021, arXiv 2101.11427, section 3.3.
    """

    def __init__(
        self,
        scenarios: Sequence[str],
        rho: float = 0.99,
        epsilon: float = 1e-3,
        min_rows: int = 2,
        **kwargs: Any,
    ) -> None:
        # The inputs come as they are: no cast to the policy's type and back.
        super().__init__(autocast=False, **kwargs)
        if not 0 < rho < 1:
            raise ValueError(f"`rho` must be in (0, 1). Received: {rho}")
        if epsilon <= 0:
            raise ValueError(f"`epsilon` must be above 0. Received: {epsilon}")
        if min_rows < 1:
            raise ValueError(f"`min_rows` must be at least 1. Received: {min_rows}")
        self.scenarios = tuple(scenarios)
        self.rho = rho
        self.epsilon = epsilon
        self.min_rows = min_rows
        self._own: dict[str, list[Any]] = {}

    def build(self, input_shape: Any) -> None:
        width = int(input_shape[-1])
        self.gamma = self._weight("gamma", [width], "ones")
        self.beta = self._weight("beta", [width], "zeros")
        for s, scenario in enumerate(self.scenarios):
            self._own[f"scenario/{scenario}"] = [
                self._weight(f"scenario_{s}/gamma", [width], "ones"),
                self._weight(f"scenario_{s}/beta", [width], "zeros"),
            ]
        rows = len(self.scenarios) + 1
        self.moving_mean = self._weight("moving_mean", [rows, width], "zeros", False)
        self.moving_variance = self._weight(
            "moving_variance", [rows, width], "ones", False
        )
        # w_p: 0 until the first update, then towards 1.
        self.moving_weight = self._weight("moving_weight", [rows], "zeros", False)
        super().build(input_shape)

    def _weight(
        self, name: str, shape: list[int], start: str, trainable: bool = True
    ) -> Any:
        return self.add_weight(
            name,
            shape,
            initializer=start,
            trainable=trainable,
            dtype=tf.float32,
            experimental_autocast=False,
            **({} if trainable else _OF_EACH_REPLICA),
        )

    def call(self, inputs: Any, scenario: Any, training: bool = False) -> Any:
        """Normalises each row as one of its scenario.

        Args:
            inputs: [B, D].
            scenario: [B] int32; S and above is unknown.
            training: Whether to use the batch's moments and to update the moving ones.
        """
        values = tf.cast(inputs, tf.float32)
        scenario = tf.minimum(tf.cast(scenario, tf.int32), len(self.scenarios))
        mean, variance = self.moving_moments()
        if training:
            moments = self._moments(values, scenario)
            enough = moments.counts >= self.min_rows  # [S + 1]
            if not statistics_frozen():
                self._update(moments, enough)
            mean = tf.where(enough[:, None], moments.mean, mean)
            variance = tf.where(enough[:, None], moments.variance, variance)
        gamma = [g for g, _ in self._own.values()]
        beta = [b for _, b in self._own.values()]
        gamma = self.gamma * tf.stack([*gamma, tf.ones_like(self.gamma)])  # [S + 1, D]
        beta = self.beta + tf.stack([*beta, tf.zeros_like(self.beta)])
        scale = gamma * tf.math.rsqrt(variance + self.epsilon)
        # Subtracted first: folded into beta, a large mean would cost digits.
        outputs = values - tf.gather(mean, scenario)  # [B, D]
        outputs = outputs * tf.gather(scale, scenario) + tf.gather(beta, scenario)
        return tf.cast(outputs, inputs.dtype)

    def moving_moments(self) -> tuple[Any, Any]:
        """Mean and variance that serve each scenario, [S + 1, D] each."""
        mean = tf.convert_to_tensor(self.moving_mean)
        variance = tf.convert_to_tensor(self.moving_variance)
        seen = (self.moving_weight > 0)[:, None]
        return tf.where(seen, mean, mean[-1]), tf.where(seen, variance, variance[-1])

    def _moments(self, values: Any, scenario: Any) -> _Moments:
        groups = len(self.scenarios) + 1
        counts = tf.math.bincount(scenario, minlength=groups, maxlength=groups)
        counts = tf.cast(counts, tf.float32)
        divisor = tf.maximum(counts, 1.0)[:, None]
        mean = tf.math.unsorted_segment_sum(values, scenario, groups) / divisor
        # Of deviations: E[x^2] - mu^2 loses what a large mean leaves of the digits.
        # They sum to 0 in a scenario, so no gradient reaches the mean by this way.
        squares = tf.square(values - tf.gather(tf.stop_gradient(mean), scenario))
        variance = tf.math.unsorted_segment_sum(squares, scenario, groups) / divisor
        # All rows' moments from the groups'; so far, row S is of unknown rows alone.
        rows = tf.reduce_sum(counts)
        shares = (counts / tf.maximum(rows, 1.0))[:, None]
        all_mean = tf.reduce_sum(shares * mean, axis=0)  # [D]
        between = tf.square(mean - all_mean)
        all_variance = tf.reduce_sum(shares * (variance + between), axis=0)
        return _Moments(
            tf.concat([counts[:-1], [rows]], axis=0),
            tf.concat([mean[:-1], all_mean[None]], axis=0),
            tf.concat([variance[:-1], all_variance[None]], axis=0),
        )

    def _update(self, moments: _Moments, enough: Any) -> None:
        """Moves the moments of the scenarios with enough rows, and those alone."""
        known = moments.counts[:-1]
        average = tf.reduce_sum(known) / max(len(self.scenarios), 1)
        average = tf.maximum(average, 1e-6)
        updates = tf.concat([known / average, [1.0]], axis=0)  # [S + 1]
        fresh = -tf.math.expm1(updates * math.log(self.rho))  # 1 - rho_p
        old = (1.0 - fresh) * self.moving_weight
        share = fresh / tf.maximum(old + fresh, 1e-30)
        moving = (
            (self.moving_weight, 1.0, enough, old + fresh),
            (self.moving_mean, share[:, None], enough[:, None], moments.mean),
            (self.moving_variance, share[:, None], enough[:, None], moments.variance),
        )
        for variable, part, chosen, value in moving:
            moved = (1.0 - part) * variable + part * value
            variable.assign(tf.where(chosen, tf.stop_gradient(moved), variable))

    def variable_groups(self) -> dict[str, list[Any]]:
        """`scenario/<scenario>` to its gamma and beta."""
        return dict(self._own)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "scenarios": self.scenarios,
            "rho": self.rho,
            "epsilon": self.epsilon,
            "min_rows": self.min_rows,
        }
