"""AdaTask: each task's own slots, against NumPy and the plain optimizers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.balance.stats import TASKS, made, stats
from tfmtl._keras import keras, tf
from tfmtl.balance import AdaTask, TaskInfo

SHAPE = (5, 2)
RATE = 0.1


class Shared:
    """A variable that follows AdaTask's steps."""

    def __init__(self, tasks: TaskInfo = TASKS, **config: Any) -> None:
        self.variable = tf.Variable(np.ones(SHAPE, "f4"), name="table")
        self.balancer = made(AdaTask, tasks, **config)
        self.balancer.prepare([self.variable], [True])
        self.count = len(tasks.names)

    def step(self, gradients: Any, present: Any = None) -> np.ndarray:
        """The step; the variable follows it."""
        losses = np.ones(self.count)
        (step,), _ = self.balancer.combine(stats(losses, present), [gradients])
        dense = tf.convert_to_tensor(step)
        self.variable.assign_sub(RATE * dense)
        return np.asarray(dense)


def draws(steps: int, tasks: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(steps, tasks, *SHAPE)).astype("f4")


def dense(gradients: np.ndarray) -> list[Any]:
    return [tf.constant(g) for g in gradients]


def numpy_steps(kind: str, gradients: np.ndarray, eps: float = 1e-7) -> np.ndarray:
    """sum_t u_t of each step, task by task."""
    total = np.zeros((len(gradients), *SHAPE))
    for t in range(gradients.shape[1]):
        m, v = np.zeros(SHAPE), np.zeros(SHAPE)
        for k, g in enumerate(gradients[:, t].astype("f8"), start=1):
            m = 0.9 * m + 0.1 * g
            v = v + g**2 if kind == "adagrad" else 0.999 * v + 0.001 * g**2
            if kind == "adam":
                mean, square = m / (1 - 0.9**k), v / (1 - 0.999**k)
            else:
                mean, square = g, v
            total[k - 1] += mean / (np.sqrt(square) + eps)
    return total


@pytest.mark.parametrize("kind", ["adam", "adagrad", "rmsprop"])
def test_the_step_is_the_sum_of_the_tasks_own(kind: str) -> None:
    gradients, shared = draws(4), Shared(kind=kind)
    found = np.stack([shared.step(dense(g)) for g in gradients])
    np.testing.assert_allclose(
        found, numpy_steps(kind, gradients), rtol=1e-3, atol=1e-5
    )
    together = numpy_steps(kind, gradients.sum(axis=1, keepdims=True))
    assert not np.allclose(found, together, atol=0.1)


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        ("adam", keras.optimizers.legacy.Adam(RATE)),
        ("adagrad", keras.optimizers.legacy.Adagrad(RATE, 0.1)),
        ("rmsprop", keras.optimizers.legacy.RMSprop(RATE, rho=0.999)),
    ],
)
def test_one_task_is_the_plain_optimizer(kind: str, plain: Any) -> None:
    shared = Shared(TaskInfo(("click",)), kind=kind, initial_accumulator=0.1)
    other = tf.Variable(np.ones(SHAPE, "f4"))
    for g in draws(5, tasks=1):
        shared.step(dense(g))
        plain.apply_gradients([(tf.constant(g[0]), other)])
        np.testing.assert_allclose(shared.variable, other, rtol=1e-4, atol=1e-5)


def test_equal_tasks_take_t_times_adams_step_or_one_if_divided() -> None:
    one, three = Shared(TaskInfo(("click",))), Shared()
    divided = Shared(divide=True)
    for g in draws(3, tasks=1):
        step = one.step(dense(g))
        same = dense(np.repeat(g, 3, axis=0))
        np.testing.assert_allclose(three.step(same), 3 * step, rtol=1e-5)
        np.testing.assert_allclose(divided.step(same), step, rtol=1e-5)


@pytest.mark.parametrize("kind", ["adam", "adagrad", "rmsprop"])
def test_rescaling_a_loss_changes_nothing_which_plain_adam_fails(kind: str) -> None:
    gradients, factor = draws(4), np.array([1e3, 1, 1e-2], "f4")[:, None, None]
    plain, scaled = (Shared(kind=kind, epsilon=1e-12) for _ in range(2))
    adams = [keras.optimizers.legacy.Adam(RATE, epsilon=1e-12) for _ in range(2)]
    variables = [tf.Variable(np.ones(SHAPE, "f4")) for _ in range(2)]
    for g in gradients:
        a, b = plain.step(dense(g)), scaled.step(dense(g * factor))
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        for adam, variable, used in zip(adams, variables, (g, g * factor)):
            adam.apply_gradients([(tf.constant(used.sum(axis=0)), variable)])
    assert np.abs(variables[0] - variables[1]).max() > 0.5 * RATE


def test_the_first_step_is_the_sum_of_signs() -> None:
    (gradients,) = draws(1)
    found = Shared(epsilon=1e-12).step(dense(gradients))
    np.testing.assert_allclose(found, np.sign(gradients).sum(axis=0), rtol=1e-3)


def sparse(ids: list[int], values: np.ndarray) -> Any:
    return tf.IndexedSlices(
        tf.constant(values, tf.float32),
        tf.constant(ids, tf.int64),
        tf.constant(SHAPE, tf.int64),
    )


def test_rows_move_with_the_batch_and_repeated_rows_count_once() -> None:
    draw = np.random.default_rng(1)
    shared, whole = Shared(), Shared()
    seen = np.zeros(SHAPE[0], bool)
    for ids in ([1, 3, 1], [3, 3, 0]):
        values = draw.normal(size=(3, 3, 2)).astype("f4")
        full = np.zeros((3, *SHAPE), "f4")
        for t in range(3):
            np.add.at(full[t], ids, values[t])
        before = [s.numpy() for s in shared.balancer.slots[0]]
        step = shared.step([sparse(ids, v) for v in values])
        other = whole.step(dense(full))
        fresh = np.isin(np.arange(5), ids)
        # A row that is seen for the first time, or each time, moves as a dense one,
        # but for the common count of steps.
        np.testing.assert_allclose(step[3], other[3], rtol=1e-4)
        np.testing.assert_array_equal(step[~fresh], 0)
        for slot, old in zip(shared.balancer.slots[0], before):
            np.testing.assert_array_equal(slot.numpy()[:, ~fresh], old[:, ~fresh])
        seen |= fresh
    # Dense slots of row 1 decayed while nobody looked it up; the lazy ones did not.
    assert np.abs(other[1]).max() > 0
    lazy = shared.balancer.slots[0][0].numpy()[:, 1]
    assert not np.allclose(lazy, whole.balancer.slots[0][0].numpy()[:, 1])
    assert seen.tolist() == [True, True, False, True, False]


def test_a_table_may_be_dense_for_one_task_and_unreached_by_another() -> None:
    (gradients,) = draws(1)
    mixed = [sparse([1, 4], gradients[0][[1, 4]]), tf.constant(gradients[1]), None]
    full = gradients.copy()
    full[0][[0, 2, 3]] = full[2] = 0
    np.testing.assert_allclose(
        Shared().step(mixed), Shared().step(dense(full)), rtol=1e-5
    )
    assert Shared().balancer.combine(stats([1.0] * 3), [[None] * 3])[0] == [None]


def test_an_absent_task_keeps_its_slots_and_its_count() -> None:
    first, second, third = draws(3)
    shared, without = Shared(), Shared()
    shared.step(dense(first))
    without.step(dense(first))
    kept = [s.numpy()[1] for s in shared.balancer.slots[0]]
    absent = second * np.array([1, 0, 1], "f4")[:, None, None]
    shared.step(dense(absent), [True, False, True])
    for slot, old in zip(shared.balancer.slots[0], kept):
        np.testing.assert_array_equal(slot.numpy()[1], old)
    np.testing.assert_array_equal(shared.balancer.counts, [2, 1, 2])
    # For the task, the step in which it was absent did not happen.
    with_it = shared.step(dense(third))
    others = numpy_steps("adam", np.stack([first, second, third])[:, [0, 2]])[2]
    alone = numpy_steps("adam", np.stack([first, third])[:, 1:2])[1]
    np.testing.assert_allclose(with_it, others + alone, rtol=1e-3, atol=1e-4)
    counted = numpy_steps("adam", np.stack([first, absent, third])[:, 1:2])[2]
    assert not np.allclose(with_it, others + counted, atol=0.05)


def test_updates_tell_who_moves_the_variables() -> None:
    draw = np.random.default_rng(0)
    shared = Shared()
    total = np.zeros(3)
    for k in range(20):
        # The third task's gradients change sign, and cancel in its own mean.
        signs = np.array([1, 1, (-1) ** k])[:, None, None]
        g = (signs * draw.uniform(0.9, 1.1, (3, *SHAPE))).astype("f4")
        m = shared.balancer.updates.numpy()
        shared.step(dense(g))
        total = (shared.balancer.updates.numpy() - 0.99 * m) / 0.01
    assert total[2] < 0.1 * total[0]
    np.testing.assert_allclose(total[0], np.prod(SHAPE), rtol=0.05)
