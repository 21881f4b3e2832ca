import numpy as np
from sklearn.gaussian_process.kernels import Matern

from tfmtl.tuning.oracles.acquisition import expected_improvement, log_kept
from tfmtl.tuning.oracles.gaussian import GaussianProcess

MEAN = np.array([-1.0, 0.0, 0.3, 1.0, -30.0])
DEVIATION = np.array([1.0, 0.5, 0.01, 2.0, 1.0])


def test_expected_improvement_is_monte_carlo():
    found = expected_improvement(MEAN, DEVIATION, 0.2)
    drawn = MEAN + DEVIATION * np.random.default_rng(0).standard_normal((400_000, 5))
    by_hand = (drawn - 0.2).clip(min=0.0).mean(axis=0)
    np.testing.assert_allclose(found, by_hand, rtol=0.02, atol=1e-4)
    assert (found >= 0.0).all()
    assert not np.allclose(expected_improvement(MEAN, DEVIATION, 0.3), by_hand, 0.02)


def test_nothing_is_expected_where_nothing_is_uncertain():
    np.testing.assert_array_equal(
        expected_improvement(np.array([0.1, 0.9]), np.zeros(2), 0.5), 0.0
    )
    points = np.random.default_rng(1).random((8, 2))
    values = points.sum(axis=1)
    process = GaussianProcess.of(points, values, Matern(0.5, nu=2.5), 0.0)
    at = expected_improvement(
        process.mean(points), process.deviation(points), values.max()
    )
    np.testing.assert_allclose(at, 0.0, atol=1e-4)
    between = (points[:4] + points[4:]) / 2 + 0.3
    away = expected_improvement(
        process.mean(between), process.deviation(between), values.max()
    )
    assert away.max() > 1e-2


def test_the_probability_that_a_bound_is_kept():
    found = np.exp(log_kept(MEAN[:4], DEVIATION[:4]))
    drawn = MEAN[:4] + DEVIATION[:4] * np.random.default_rng(0).standard_normal(
        (400_000, 4)
    )
    np.testing.assert_allclose(found, (drawn >= 0.0).mean(axis=0), atol=3e-3)
    np.testing.assert_array_equal(
        np.exp(log_kept(np.array([0.1, -0.1]), np.zeros(2))), [1.0, 0.0]
    )
    far = log_kept(np.array([-50.0, -60.0]), np.ones(2))
    assert np.isfinite(far).all() and far[0] > far[1]
