"""Labels and weights of a funnel, against the losses that read them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from pipeline.plan import record_columns
from tests.unit.pipeline.tiny import spec, validated
from tfmtl._keras import tf
from tfmtl.losses.targets import targets
from tfmtl.schema.manifest import VocabularyStats

TASKS = [
    {"name": "buy", "label": "buy", "given": "cart", "weight": "w"},
    {"name": "cart", "label": "cart", "given": "click"},
    {"name": "click", "label": "click"},
]
SIZE = VocabularyStats(size=3, rows=5)
ROWS = list(itertools.product([0.0, 1.0, None], repeat=3))  # click, cart, buy


def columns(rows: list[Any], weights: list[float | None]) -> dict[str, Any]:
    """Raw columns of these labels and weights."""
    click, cart, buy = zip(*rows)
    return {
        "item": ["a"] * len(rows),
        "click": click,
        "cart": cart,
        "buy": buy,
        "w": weights,
    }


def test_a_row_that_counts_for_an_output_keeps_its_weight() -> None:
    dataset = spec(tasks=TASKS)
    good, dead = validated(dataset, columns(ROWS, [3.0] * len(ROWS)))
    assert not dead
    labels = np.array([good[f"label/{t}"] for t in dataset.task_names]).T  # [B, T]
    mask = ~np.isnan(labels)
    weights = np.ones_like(labels)
    weights[:, 0] = good["weight/buy"]
    found = targets(
        dataset.tasks,
        tf.constant(np.where(mask, labels, 0), tf.float32),
        tf.constant(mask),
        tf.constant(weights, tf.float32),
    )
    for number, (click, cart, buy) in enumerate(ROWS):
        steps = [click, cart, buy]
        known = 0.0 in steps[: steps.index(None)] if None in steps else True
        assert bool(found["buy"].mask[number]) == known, ROWS[number]
        if known:
            assert found["buy"].weights[number] == 3.0, ROWS[number]
        own = buy is not None
        assert good["weight/buy"][number] == (3.0 if own or known else 0.0)


def test_a_weight_must_be_there_where_the_row_counts() -> None:
    dataset = spec(tasks=TASKS)
    rows = [(1, 1, 1), (0, 1, None), (1, 0, None), (1, 1, None), (None, 0, None)]
    good, dead = validated(dataset, columns(rows, [None] * len(rows)))
    assert [d["file_row"] for d in dead] == [0, 1, 2]
    reason = "task 'buy': the weight is missing, negative or infinite"
    assert dead[0]["reason"] == reason
    assert dead[1]["reason"] == f"{reason} where 'cart' did not happen"
    assert good["weight/buy"] == [0.0, 0.0]


def test_a_population_leaves_out_the_label_and_keeps_the_weight() -> None:
    tasks = [TASKS[2], {**TASKS[0], "given": "click", "observed_when": "click == 1"}]
    rows = [(1, None, 1), (0, None, 0), (0, None, None)]
    good, _ = validated(spec(tasks=tasks), columns(rows, [2.0, 5.0, 7.0]))
    np.testing.assert_equal(good["label/buy"], [1.0, math.nan, math.nan])
    assert good["weight/buy"] == [2.0, 5.0, 7.0]


def test_a_regression_of_a_population_has_no_joint_output() -> None:
    tasks = [TASKS[2], {**TASKS[0], "given": "click", "type": "regression"}]
    rows = [(1, None, 1), (0, None, None)]
    good, dead = validated(spec(tasks=tasks), columns(rows, [2.0, None]))
    assert not dead
    assert good["weight/buy"] == [2.0, 0.0]


def test_a_teacher_says_something_or_nothing() -> None:
    task = {"name": "click", "label": "click", "loss": "distill", "teacher": "t"}
    dataset = spec(tasks=[task])
    raw = {"item": ["a"] * 3, "click": [1, 0, 1]}
    good, dead = validated(dataset, {**raw, "t": [2.5, None, math.inf]})
    np.testing.assert_equal(good["teacher/click"], [2.5, math.nan])
    (letter,) = dead
    assert letter["reason"].startswith("task 'click': the teacher is: infinite")
    columns = {c.name for c in record_columns(dataset, {"item": SIZE}, {})}
    assert {"label/click", "teacher/click"} <= columns
    assert "weight/click" not in columns
