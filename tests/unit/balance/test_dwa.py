"""Dynamic weight average: ratios of adjacent windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.balance.stats import TASKS, made, stats
from tfmtl._keras import tf
from tfmtl.balance import DWA
from tfmtl.balance.dwa import dwa_weights
from tfmtl.errors import ConfigError


def weights(ratios: Any, temperature: float = 2.0) -> np.ndarray:
    return np.asarray(dwa_weights(tf.constant(ratios, tf.float64), temperature))


def run(balancer: Any, losses: np.ndarray, present: Any = None) -> np.ndarray:
    shown = np.ones(losses.shape, bool) if present is None else present
    return np.stack([balancer.weigh(stats(x, p)) for x, p in zip(losses, shown)])


def expected(losses: np.ndarray, window: int, tau: float = 2.0) -> np.ndarray:
    """By the paper: means of whole windows, ones in the first two."""
    found = []
    for step in range(len(losses)):
        n = step // window
        ratios = np.ones(losses.shape[1])
        if n >= 2:
            means = [losses[(n - k) * window : (n - k + 1) * window] for k in (1, 2)]
            ratios = means[0].mean(axis=0) / means[1].mean(axis=0)
        powers = np.exp(ratios / tau)
        found.append(losses.shape[1] * powers / powers.sum())
    return np.stack(found)


def test_weights_sum_to_the_number_of_tasks_and_favour_the_slow() -> None:
    found = weights([0.5, 0.9, 1.2])
    np.testing.assert_allclose(found.sum(), 3)
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(weights([0.7, 0.7, 0.7]), [1, 1, 1])
    np.testing.assert_allclose(weights([0.1, 2.0, 5.0], 1e9), [1, 1, 1], rtol=1e-6)
    assert weights([0.1, 2.0, 5.0], 0.1).max() > 2.9


def test_windows_are_those_of_the_paper() -> None:
    losses = np.random.default_rng(0).uniform(0.2, 2, (13, 3))
    by_epoch = run(made(DWA), losses)  # 2 steps an epoch
    np.testing.assert_allclose(by_epoch, expected(losses, 2), rtol=1e-5)
    by_window = run(made(DWA, window=3, temperature=0.5), losses)
    np.testing.assert_allclose(by_window, expected(losses, 3, 0.5), rtol=1e-5)
    np.testing.assert_array_equal(by_window[:6], 1)
    assert not np.allclose(by_window[6:], 1, atol=1e-2)
    assert not np.allclose(by_window, expected(losses, 2, 0.5), atol=1e-2)


def test_rescaling_a_loss_changes_nothing() -> None:
    losses = np.random.default_rng(1).uniform(0.2, 2, (9, 3))
    np.testing.assert_allclose(
        run(made(DWA), losses), run(made(DWA), losses * [1e3, 1, 1e-3]), rtol=1e-4
    )


def test_means_are_over_the_steps_with_a_label() -> None:
    losses = np.random.default_rng(2).uniform(0.2, 2, (6, 3))
    shown = np.ones((6, 3), bool)
    shown[2, 0] = shown[4, 1] = shown[5, 1] = False
    balancer = made(DWA)
    found = run(balancer, losses, shown)
    ratio = losses[3, 0] / losses[:2, 0].mean()
    others = losses[2:4].mean(axis=0) / losses[:2].mean(axis=0)
    np.testing.assert_allclose(
        found[4], weights([ratio, others[1], others[2]]), rtol=1e-5
    )
    # The second task was absent for a whole window and keeps the means it had.
    later = balancer.weigh(stats(losses[0])).numpy()
    last = losses[4:6].mean(axis=0)
    np.testing.assert_allclose(
        later,
        weights([last[0] / losses[3, 0], others[1], last[2] / losses[2:4, 2].mean()]),
        rtol=1e-5,
    )
    assert balancer.window == TASKS.steps_per_epoch


def test_a_run_within_two_windows_is_refused() -> None:
    balancer = made(DWA, window=50)
    balancer.check_plan(101)
    with pytest.raises(ConfigError, match=r"window.*50 .* in 100 steps"):
        balancer.check_plan(100)
