"""Sums over rows, and over replicas of a distribution strategy."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from tfmtl._keras import tf
from tfmtl.losses.sums import over_replicas, over_rows

HERE = pathlib.Path(__file__).parent


def test_rows_outside_the_population_are_not_added() -> None:
    rows = tf.constant([1.0, float("nan"), 3.0])
    mask = tf.constant([True, False, True])
    sums = over_rows(rows, mask, tf.constant([2.0, float("nan"), 0.5]))
    assert [float(v) for v in sums] == [3.5, 2.0, 2.5]


def test_rows_of_weight_0_do_not_count() -> None:
    """Spec of the mean by count: sum of w l over the number of rows with w > 0."""
    rows = tf.constant([1.0, 7.0, 3.0, 5.0])
    mask = tf.constant([True, True, True, False])
    sums = over_rows(rows, mask, tf.constant([2.0, 0.0, 0.5, 1.0]))
    assert [float(v) for v in sums] == [3.5, 2.0, 2.5]


def test_one_replica_asks_nobody() -> None:
    values = tf.constant([1.0, 2.0])
    found, replicas = over_replicas(values)
    assert found is values and replicas == 1


def test_two_replicas_are_one_with_all_rows() -> None:
    """The mean of the replicas' gradients is that of the whole batch."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2])}
    done = subprocess.run(
        [sys.executable, str(HERE / "replicas.py")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    wrong = found.pop("wrong")
    assert set(found) == {"observed", "batch", "weights", "sum"}
    for name, differences in found.items():
        size = differences["size"]
        assert size > 1e-3, name
        assert differences["gradient"] < 1e-5 * max(1, size), (name, differences)
        assert differences["loss"] < 1e-4, (name, differences)
        assert differences["present"] == 0, name
    assert wrong["gradient"] > 1e-2, wrong
    assert np.isfinite(wrong["loss"])
