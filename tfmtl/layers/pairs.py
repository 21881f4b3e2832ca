"""Rows and the scenarios whose networks answer them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tfmtl._keras import tf


class Pairs(NamedTuple):
    """N >= B pairs of a row and a known scenario.

    A row of a known scenario is in one pair, with that scenario; a row of an unknown
    one is in S pairs, one with each.

    Attributes:
        row: [N] int32.
        scenario: [N] int32, below S.
        unknown: [B] bool.
    """

    row: Any
    scenario: Any
    unknown: Any

    def features(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Features of the rows -> of the pairs: to each network, a row is its own."""
        gathered = {k: tf.gather(v, self.row) for k, v in features.items()}
        return {**gathered, "scenario": self.scenario}

    def answers(self, values: Any) -> Any:
        """The mean over each row's pairs, [N, T] -> [B, T].

        An unknown scenario's rows train nothing: what belongs to a scenario stays its
        own rows' alone.
        """
        rows = tf.math.unsorted_segment_mean(values, self.row, tf.size(self.unknown))
        return tf.where(self.unknown[:, None], tf.stop_gradient(rows), rows)


class Paired(NamedTuple):
    """What networks of each scenario read.

    Attributes:
        inputs: [N, ...], of each pair.
        pairs: The pairs.
    """

    inputs: Any
    pairs: Pairs


def pair_rows(scenario: Any, num_scenarios: int) -> Pairs:
    """Matches rows with scenarios.

    Args:
        scenario: [B] int; `num_scenarios` and above is unknown.
        num_scenarios: S.
    """
    scenario = tf.cast(scenario, tf.int32)
    unknown = scenario >= num_scenarios
    wanted = tf.one_hot(scenario, num_scenarios, True, False, dtype=tf.bool)
    found = tf.where(tf.transpose(wanted | unknown[:, None]))  # [N, 2]: scenario, row
    found = tf.cast(found, tf.int32)
    return Pairs(found[:, 1], found[:, 0], unknown)
