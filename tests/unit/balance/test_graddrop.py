"""GradDrop: one sign at each unit."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest

from tests.unit.balance.identity import Tiny
from tests.unit.balance.properties import fails
from tfmtl._keras import tf
from tfmtl.balance import GradDrop, TaskInfo, TaskStats
from tfmtl.balance.graddrop import leaking, sign_masks, sign_sums
from tfmtl.errors import ConfigError

ROWS, UNITS, TASKS = 6, 4, 3
DRAW = np.random.default_rng(0)
VALUES = DRAW.normal(size=(ROWS, UNITS)).astype("f4")
GRADIENTS = DRAW.normal(size=(TASKS, ROWS, UNITS)).astype("f4")
SUMS = sign_sums(VALUES, tf.constant(GRADIENTS))


def stats(step: int = 0) -> TaskStats:
    return TaskStats(
        tf.ones([TASKS]), tf.constant([True] * TASKS), tf.constant(step, tf.int64)
    )


def make(seed: int = 0, **config: object) -> GradDrop:
    return GradDrop(TaskInfo(("a", "b", "c"), seed=seed), GradDrop.Config(**config))


def combine(balancer: GradDrop, gradients: np.ndarray, step: int = 0) -> np.ndarray:
    (found,), _ = balancer.combine(
        stats(step), [tf.constant(VALUES)], [tf.constant(gradients)]
    )
    return found.numpy()


def explicit(uniform: np.ndarray, leak: np.ndarray) -> np.ndarray:
    """The paper's rule, unit by unit."""
    found = np.zeros((ROWS, UNITS))
    for u in range(UNITS):
        signed = [np.sum(np.sign(VALUES[:, u]) * g[:, u]) for g in GRADIENTS]
        purity = 0.5 * (1 + sum(signed) / sum(abs(s) for s in signed))
        for t in range(TASKS):
            up = purity > uniform[u] and signed[t] > 0
            down = purity < uniform[u] and signed[t] < 0
            found[:, u] += (leak[t] + (1 - leak[t]) * (up or down)) * GRADIENTS[t][:, u]
    return found


def masked(uniform: np.ndarray, leak: np.ndarray) -> np.ndarray:
    masks = sign_masks(SUMS, tf.constant(uniform, tf.float32))
    kept = leaking(masks, tf.constant(leak, tf.float32))[:, None]
    return tf.reduce_sum(kept * GRADIENTS, axis=0).numpy()


@pytest.mark.parametrize("leak", [(0, 0, 0), (0.2, 1.0, 0.5)])
def test_masks_are_the_rule_unit_by_unit(leak: tuple[float, ...]) -> None:
    for seed in range(10):
        uniform = np.random.default_rng(seed).uniform(size=UNITS)
        wanted = explicit(uniform, np.array(leak))
        np.testing.assert_allclose(masked(uniform, np.array(leak)), wanted, rtol=1e-4)


def test_the_leak_lets_through_and_not_the_reverse() -> None:
    np.testing.assert_allclose(
        combine(make(leak=1.0), GRADIENTS), GRADIENTS.sum(axis=0), rtol=1e-5
    )
    # Inverted, M l + 1 - l, it would drop at 1 and keep everything at 0.
    assert not np.allclose(
        combine(make(leak=0.0), GRADIENTS), GRADIENTS.sum(axis=0), rtol=1e-2
    )


def test_a_leak_may_be_each_tasks_own() -> None:
    one = combine(make(leak={"b": 1.0}), GRADIENTS)
    none = combine(make(), GRADIENTS)
    lost = (one - none) / GRADIENTS[1]  # 1 where b was dropped, else 0.
    np.testing.assert_allclose(np.minimum(abs(lost), abs(lost - 1)), 0, atol=1e-4)
    assert lost.max() > 0.5


def test_agreement_changes_nothing() -> None:
    same = np.abs(GRADIENTS) * np.sign(VALUES)
    for sign in (1, -1):
        for step in range(5):
            found = combine(make(), sign * same, step)
            np.testing.assert_allclose(found, sign * same.sum(axis=0), rtol=1e-5)


def one_sign(masks: np.ndarray) -> None:
    """What survives at a unit has one sign, summed over the batch."""
    summed = np.sum(np.sign(VALUES) * GRADIENTS, axis=1) * masks
    assert np.all((summed.max(axis=0) <= 0) | (summed.min(axis=0) >= 0))


def test_what_survives_at_a_unit_has_one_sign() -> None:
    for seed in range(10):
        uniform = np.random.default_rng(seed).uniform(size=UNITS).astype("f4")
        one_sign(sign_masks(SUMS, uniform).numpy())
    assert fails(one_sign, np.ones((TASKS, UNITS)))


def unbiased(mean: np.ndarray) -> None:
    """E_U[sum_t M_t G_t] = sum_t G_t."""
    wanted = np.sum(np.sign(VALUES) * GRADIENTS, axis=(0, 1))
    np.testing.assert_allclose(mean, wanted, atol=0.1)


def test_on_average_nothing_is_lost() -> None:
    summed = np.sum(np.sign(VALUES) * GRADIENTS, axis=1)
    draws = (np.arange(4000) + 0.5) / 4000
    kept = [
        sign_masks(SUMS, tf.fill([UNITS], np.float32(u))).numpy() for u in draws[::10]
    ]
    unbiased(np.mean([np.sum(m * summed, axis=0) for m in kept], axis=0))
    # One purity for all units keeps the wrong share of each.
    purity = 0.5 * (1 + summed.sum() / np.abs(summed).sum())
    positive, negative = np.maximum(summed, 0), np.minimum(summed, 0)
    scalar = purity * positive.sum(axis=0) + (1 - purity) * negative.sum(axis=0)
    assert fails(unbiased, scalar)


def test_the_sign_of_the_activation_counts() -> None:
    # One task, whose gradient changes sign with the activation: no conflict at all.
    gradient = np.sign(VALUES) * [[1.0, -2.0, 3.0, 1.0]]
    gradients = np.stack([gradient, np.zeros_like(gradient), np.zeros_like(gradient)])
    found = combine(make(), gradients.astype("f4"))
    np.testing.assert_allclose(found, gradient, rtol=1e-6)
    assert np.all(np.abs(gradient.sum(axis=0)) < np.abs(gradient).sum(axis=0))


def test_units_that_show_no_sign_keep_everything() -> None:
    (found,), weights = make().combine(
        stats(), [tf.zeros([ROWS, UNITS])], [tf.constant(GRADIENTS)]
    )
    np.testing.assert_allclose(found, GRADIENTS.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(weights, 1, rtol=1e-6)


def test_draws_follow_seed_step_and_activation() -> None:
    draw = np.random.default_rng(1)
    values = tf.constant(draw.normal(size=(ROWS, 100)), tf.float32)
    gradients = tf.constant(draw.normal(size=(TASKS, ROWS, 100)), tf.float32)

    def draws(seed: int = 0, step: int = 0) -> list[np.ndarray]:
        found, _ = make(seed).combine(stats(step), [values] * 2, [gradients] * 2)
        return [f.numpy() for f in found]

    plain, second = draws()
    np.testing.assert_array_equal(draws()[0], plain)
    for other in (second, draws(step=1)[0], draws(seed=1)[0]):
        assert np.any(other != plain)


def test_activations_of_any_rank_and_type_pass_compiled() -> None:
    values = [tf.constant(1.5), tf.ones([5], tf.bfloat16), tf.ones([2, 3, 4])]
    gradients = [tf.ones([TASKS, *v.shape]) for v in values]

    @tf.function(autograph=False)
    def step():
        return make().combine(stats(), values, gradients)

    found, weights = step()
    for value, gradient in zip(values, found):
        np.testing.assert_allclose(gradient, np.full(value.shape, 3.0))
    np.testing.assert_allclose(weights, 1)


def test_in_a_network_the_shared_part_gets_what_survives() -> None:
    targets = np.array([[1.0, 2.0, 3.0], [2.0, 1.0, 9.0], [0.5, 0.5, 4.0]])
    # Everything pulls one way: the sum.
    found = Tiny(make(), targets, start=[0.1, 0.1, 0.1])()
    np.testing.assert_allclose(found.shared, found.per_task.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.own, found.losses, rtol=1e-6)
    mixed = Tiny(make(), targets * [[1.0], [-1.0], [1.0]], start=[0.1, 0.1, 0.1])
    for step in range(4):
        found = mixed(step=step)
        # Unit by unit the positive or the negative ones.
        kept = np.stack(
            [np.maximum(found.per_task, 0).sum(0), np.minimum(found.per_task, 0).sum(0)]
        )
        assert np.all(np.min(np.abs(kept - found.shared), axis=0) < 1e-5)
        assert np.all(found.weights <= 1) and found.weights.min() < 1


def test_settings_are_checked() -> None:
    with pytest.raises(pydantic.ValidationError, match="less than or equal to 1"):
        GradDrop.Config(leak=1.5)
    with pytest.raises(ConfigError, match=r"leak` names \['buy'\]"):
        make(leak={"buy": 0.5})
