"""Masked losses of all tasks against NumPy loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.losses import TaskLosses
from tfmtl.schema.task import TaskSpec

B = 12


def _tasks(normalization: str = "observed") -> tuple[TaskSpec, ...]:
    more = {"normalization": normalization}
    return (
        TaskSpec(name="click", label="click", **more),
        TaskSpec(
            name="time", label="time", type="regression", transform="log1p", **more
        ),
        TaskSpec(name="kind", label="kind", type="multiclass", classes=3, **more),
    )


def _data(seed: int = 0) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    logits = {
        "click": draw.normal(size=B),
        "time": draw.normal(size=B),
        "kind": draw.normal(size=(B, 3)),
    }
    labels = np.stack(
        [draw.integers(0, 2, B), draw.exponential(5, B), draw.integers(0, 3, B)], axis=1
    ).astype(float)
    labels[draw.random((B, 3)) < 0.3] = np.nan
    return logits, labels, draw.integers(1, 4, (B, 3)).astype(float)


def _run(
    tasks: tuple[TaskSpec, ...],
    logits: dict[str, Any],
    labels: np.ndarray,
    weights: np.ndarray,
) -> tuple[np.ndarray, list[Any], np.ndarray]:
    """Losses, gradients by the logits, presence."""
    values = {k: tf.Variable(v, dtype=tf.float32) for k, v in logits.items()}
    mask = ~np.isnan(labels)
    losses = TaskLosses(tasks, {t.name: t.name for t in tasks})
    with tf.GradientTape() as tape:
        found, present = losses(
            values,
            tf.constant(np.where(mask, labels, 0), tf.float32),
            tf.constant(mask),
            tf.constant(weights, tf.float32),
        )
        total = tf.reduce_sum(found)
    return found.numpy(), tape.gradient(total, list(values.values())), present.numpy()


def _row_loss(task: str, logit: Any, label: float) -> float:
    if task == "click":
        return float(np.logaddexp(0, logit) - label * logit)
    if task == "time":
        return float(0.5 * (logit - np.log1p(label)) ** 2)
    return float(np.log(np.exp(logit).sum()) - logit[int(label)])


def _truth(normalization: str, logits: Any, labels: Any, weights: Any) -> list[float]:
    result = []
    for t, task in enumerate(("click", "time", "kind")):
        total = count = weight = 0.0
        for b in range(B):
            if not np.isnan(labels[b, t]):
                total += weights[b, t] * _row_loss(task, logits[task][b], labels[b, t])
                count += 1
                weight += weights[b, t]
        divisor = {"observed": count, "batch": B, "weights": weight}[normalization]
        result.append(total / divisor)
    return result


@pytest.mark.parametrize("normalization", ["observed", "batch", "weights"])
def test_equals_numpy(normalization: str) -> None:
    data = _data()
    found, _, present = _run(_tasks(normalization), *data)
    np.testing.assert_allclose(found, _truth(normalization, *data), rtol=1e-5)
    others = {"observed", "batch", "weights"} - {normalization}
    for other in others:
        assert not np.allclose(found, _truth(other, *data), rtol=1e-3)
    assert present.all()


@pytest.mark.parametrize("normalization", ["observed", "batch", "weights"])
def test_masked_rows_hold_no_influence_whatever_they_hold(normalization: str) -> None:
    logits, labels, weights = _data()
    tasks = _tasks(normalization)
    mask = ~np.isnan(labels)
    losses = TaskLosses(tasks, {t.name: t.name for t in tasks})
    values = {k: tf.constant(v, tf.float32) for k, v in logits.items()}
    plain, gradients, _ = _run(tasks, logits, labels, weights)
    for wild in (0.0, 1.0, 1e9, np.nan):
        other, _ = losses(
            values,
            tf.constant(np.where(mask, labels, wild), tf.float32),
            tf.constant(mask),
            tf.constant(np.where(mask, weights, wild), tf.float32),
        )
        np.testing.assert_array_equal(other, plain)
    for t, gradient in enumerate(gradients):
        assert np.isfinite(gradient).all()
        assert (gradient.numpy()[~mask[:, t]] == 0).all()
        assert (np.abs(gradient.numpy()[mask[:, t]]) > 0).any()


@pytest.mark.parametrize("normalization", ["observed", "batch", "weights"])
def test_nothing_labelled_is_loss_0_and_gradient_0(normalization: str) -> None:
    logits, labels, weights = _data()
    found, gradients, present = _run(
        _tasks(normalization), logits, np.full_like(labels, np.nan), weights
    )
    np.testing.assert_array_equal(found, 0)
    assert not present.any()
    for gradient in gradients:
        assert gradient is not None
        np.testing.assert_array_equal(gradient, 0)


def test_integer_weights_are_duplicated_rows() -> None:
    logits, labels, weights = _data()
    again = np.repeat(np.arange(B), 1)
    tasks = _tasks("weights")
    found, _, _ = _run(tasks, logits, labels, np.repeat(weights[:, :1], 3, axis=1))
    again = np.repeat(np.arange(B), weights[:, 0].astype(int))
    duplicated, _, _ = _run(
        tasks,
        {k: v[again] for k, v in logits.items()},
        labels[again],
        np.ones((len(again), 3)),
    )
    np.testing.assert_allclose(found, duplicated, rtol=1e-5)
    assert not np.allclose(found, _run(tasks, logits, labels, np.ones((B, 3)))[0])


def test_weights_of_0_drop_rows_and_do_not_divide_by_0() -> None:
    logits, labels, _ = _data()
    found, gradients, _ = _run(_tasks("weights"), logits, labels, np.zeros((B, 3)))
    np.testing.assert_array_equal(found, 0)
    assert all(np.isfinite(g).all() for g in gradients)


def test_gradient_is_weight_times_error_over_the_sum() -> None:
    logits, labels, weights = _data()
    _, (gradient, *_), _ = _run(_tasks("weights"), logits, labels, weights)
    known = ~np.isnan(labels[:, 0])
    error = 1 / (1 + np.exp(-logits["click"])) - np.nan_to_num(labels[:, 0])
    share = np.where(known, weights[:, 0], 0)
    np.testing.assert_allclose(gradient, share * error / share.sum(), atol=1e-7)


def test_the_joint_output_may_be_trained_instead() -> None:
    tasks = (
        TaskSpec(name="click", label="click"),
        TaskSpec(name="buy", label="buy", given="click"),
    )
    labels = tf.constant([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    logits = {
        n: tf.constant([0.5, -1.0, 2.0, 0.0]) for n in ("click", "buy", "buy|click")
    }
    rows = np.logaddexp(0, [0.5, -1, 2, 0]) - np.array([0.5, 0, 0, 0])
    for output, members in (("buy|click", [0, 2]), ("buy", [0, 1, 2, 3])):
        losses = TaskLosses(tasks, {"click": "click", "buy": output})
        found, _ = losses(logits, labels, tf.ones([4, 2], tf.bool), tf.ones([4, 2]))
        np.testing.assert_allclose(found[1], rows[members].mean(), rtol=1e-5)
