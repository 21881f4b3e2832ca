"""Where outputs start: the answer of a model that knows no feature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.losses.starts import start_of_value, wide_start
from tfmtl.losses.units import to_unit
from tfmtl.schema.manifest import LabelStats
from tfmtl.schema.task import TaskSpec

COUNTS = (700, 200, 0, 99)


def _task(**changes: Any) -> TaskSpec:
    return TaskSpec(name="y", label="y", **changes)


def _answer(task: TaskSpec, stats: LabelStats | None, logit: float = 0) -> Any:
    start = tf.constant([wide_start(task, stats, logit)], tf.float32)
    return to_unit(task, start).numpy()[0]


@pytest.mark.parametrize("loss", ["softmax", "ordinal"])
def test_classes_start_at_their_rates(loss: str) -> None:
    task = _task(type="multiclass", classes=4, loss=loss)
    stats = LabelStats(rows=999, total=497, classes=COUNTS)
    rates = (np.array(COUNTS) + 0.5) / 1001
    np.testing.assert_allclose(_answer(task, stats), rates, rtol=1e-3)


def test_classes_that_were_not_counted_start_at_0() -> None:
    task = _task(type="multiclass", classes=4)
    for stats in (None, LabelStats(rows=9, total=9)):
        assert wide_start(task, stats, 0) == (0, 0, 0, 0)


def test_a_value_starts_at_its_mean() -> None:
    task = _task(type="regression", loss="ziln")
    stats = LabelStats(rows=10, total=420)
    np.testing.assert_allclose(_answer(task, stats), 42, rtol=1e-5)
    assert wide_start(task, LabelStats(rows=3, total=0), 0) == (0, 0, 0)
    odds = _task(type="regression", loss="weighted_logistic")
    start = tf.constant([start_of_value(odds, 42.0)])
    np.testing.assert_allclose(to_unit(odds, start), [42], rtol=1e-5)


def test_jrc_starts_at_the_tasks_odds() -> None:
    np.testing.assert_allclose(
        _answer(_task(loss="jrc"), None, np.log(0.2 / 0.8)), 0.2, rtol=1e-5
    )
