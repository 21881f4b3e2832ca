"""Weights that never change."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest

from tfmtl._keras import tf
from tfmtl.balance import (
    BALANCERS,
    BalancerConfig,
    Equal,
    Fixed,
    TaskInfo,
    TaskStats,
    catalogue,
)
from tfmtl.balance.fixed import FixedConfig
from tfmtl.errors import ConfigError

TASKS = TaskInfo(("click", "like", "buy"))
STATS = TaskStats(
    tf.constant([3.0, 0.5, 9.0]), tf.constant([True, False, True]), tf.constant(4)
)


def test_equal_weighs_1() -> None:
    weights = Equal(TASKS, BalancerConfig()).weigh(STATS)
    assert weights.dtype == tf.float32
    np.testing.assert_array_equal(weights, [1, 1, 1])


def test_fixed_follows_the_names_and_defaults_to_1() -> None:
    config = FixedConfig(weights={"buy": 0.25, "click": 2.0})
    np.testing.assert_array_equal(Fixed(TASKS, config).weigh(STATS), [2, 1, 0.25])
    np.testing.assert_array_equal(
        Fixed(TaskInfo(TASKS.names[::-1]), config).weigh(STATS), [0.25, 1, 2]
    )


def test_fixed_refuses_unknown_tasks_and_bad_weights() -> None:
    with pytest.raises(ConfigError, match=r"names \['bye'\]; tasks: \['click'"):
        Fixed(TASKS, FixedConfig(weights={"bye": 1.0}))
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(pydantic.ValidationError, match="finite and >= 0"):
            FixedConfig(weights={"buy": wrong})


def test_catalogue_names_every_balancer() -> None:
    entries = {e["name"]: e for e in catalogue()}
    assert set(entries) == set(BALANCERS)
    assert all(e["summary"] and e["citation"] for e in entries.values())
