"""Populations of a funnel against a loop over every combination of labels."""

from __future__ import annotations

import itertools

import numpy as np

from tfmtl._keras import tf
from tfmtl.losses.targets import targets
from tfmtl.schema.task import TaskSpec

FUNNEL = (
    TaskSpec(name="click", label="click"),
    TaskSpec(name="cart", label="cart", given="click"),
    TaskSpec(name="buy", label="buy", given="cart"),
)
ROWS = np.array(list(itertools.product([0.0, 1.0, np.nan], repeat=3)))  # [27, 3]


def _run(tasks: tuple[TaskSpec, ...], rows: np.ndarray) -> dict:
    mask = ~np.isnan(rows)
    return targets(
        tasks,
        tf.constant(np.where(mask, rows, 0), tf.float32),
        tf.constant(mask),
        tf.ones(rows.shape),
    )


def _joint(row: np.ndarray, depth: int) -> float:
    """What is known of "everything up to this step happened": 0, 1 or NaN."""
    for label in row[: depth + 1]:
        if np.isnan(label):
            return np.nan
        if label == 0:
            return 0.0
    return 1.0


def test_every_combination_of_a_funnel_of_three() -> None:
    found = _run(FUNNEL, ROWS)
    assert list(found) == ["click", "cart|click", "cart", "buy|cart", "buy"]
    for number, row in enumerate(ROWS):
        for depth, task in enumerate(FUNNEL):
            joint, target = _joint(row, depth), found[task.name]
            assert bool(target.mask[number]) == (not np.isnan(joint)), (row, task.name)
            assert float(target.labels[number]) == np.nan_to_num(joint), row
            if depth:
                counts = _joint(row, depth - 1) == 1 and not np.isnan(row[depth])
                target = found[task.conditional]
                assert bool(target.mask[number]) == counts, (row, task.conditional)
                label = row[depth] if counts else 0.0
                assert float(target.labels[number]) == label


def test_the_order_of_the_tasks_does_not_matter() -> None:
    for order in itertools.permutations(range(3)):
        found = _run(tuple(FUNNEL[i] for i in order), ROWS[:, order])
        plain = _run(FUNNEL, ROWS)
        assert set(found) == set(plain)
        for name in plain:
            np.testing.assert_array_equal(found[name].mask, plain[name].mask)
            np.testing.assert_array_equal(found[name].labels, plain[name].labels)


def test_a_label_outside_its_population_changes_nothing() -> None:
    rows = ROWS.copy()
    stopped = rows[:, 0] == 0
    rows[stopped, 1:] = 7.0
    for name, target in _run(FUNNEL, ROWS).items():
        other = _run(FUNNEL, rows)[name]
        np.testing.assert_array_equal(target.mask, other.mask)
        np.testing.assert_array_equal(target.labels, other.labels)


def test_a_given_regression_counts_where_the_step_happened() -> None:
    tasks = (
        FUNNEL[0],
        TaskSpec(name="time", label="time", type="regression", given="click"),
    )
    rows = np.array([[1, 5.0], [0, 5.0], [np.nan, 5.0], [1, np.nan]])
    found = _run(tasks, rows)
    assert list(found) == ["click", "time"]
    np.testing.assert_array_equal(found["time"].mask, [True, False, False, False])
    np.testing.assert_array_equal(found["time"].labels, [5, 0, 0, 0])
