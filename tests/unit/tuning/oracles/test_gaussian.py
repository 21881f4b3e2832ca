import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from tfmtl.tuning.oracles.gaussian import GaussianProcess

RNG = np.random.default_rng(0)
POINTS = RNG.random((12, 2))
VALUES = np.sin(5 * POINTS[:, 0]) + 3.0 * POINTS[:, 1]
OTHERS = RNG.random((30, 2))
KERNEL = Matern([0.3, 0.7], nu=2.5)


def test_it_interpolates_what_has_no_noise():
    process = GaussianProcess.of(POINTS, VALUES, KERNEL, 0.0, VALUES.mean(), 2.0)
    np.testing.assert_allclose(process.mean(POINTS), VALUES, atol=1e-6)
    assert process.deviation(POINTS).max() < 1e-3
    assert process.deviation(OTHERS).min() > 1e-3
    noisy = GaussianProcess.of(POINTS, VALUES, KERNEL, 0.1, VALUES.mean(), 2.0)
    assert np.abs(noisy.mean(POINTS) - VALUES).max() > 1e-2


def test_the_posterior_is_scikit_learns():
    process = GaussianProcess.of(POINTS, VALUES, KERNEL, 0.05)
    theirs = GaussianProcessRegressor(KERNEL, alpha=0.05, optimizer=None)
    mean, deviation = theirs.fit(POINTS, VALUES).predict(OTHERS, return_std=True)
    np.testing.assert_allclose(process.mean(OTHERS), mean, rtol=1e-6)
    np.testing.assert_allclose(process.deviation(OTHERS), deviation, rtol=1e-5)


def test_a_believer_leaves_the_mean_and_takes_variance():
    process = GaussianProcess.of(POINTS, VALUES, KERNEL, 0.01)
    lies = GaussianProcess.of(
        np.concatenate([POINTS, OTHERS[:3]]),
        np.concatenate([VALUES, process.mean(OTHERS[:3])]),
        KERNEL,
        0.01,
    )
    known = process.with_known(OTHERS[:3])
    np.testing.assert_allclose(known.mean(OTHERS), lies.mean(OTHERS), atol=1e-6)
    np.testing.assert_allclose(known.deviation(OTHERS), lies.deviation(OTHERS))
    assert (known.deviation(OTHERS[:3]) < 0.9 * process.deviation(OTHERS[:3])).all()


def test_fitting_finds_noise_and_the_axis_that_matters():
    points = RNG.random((40, 2))
    values = 10.0 + np.sin(6 * points[:, 0]) + RNG.normal(0.0, 0.1, 40)
    process = GaussianProcess.fit(points, values, 0)
    lengths = process.kernel.k2.length_scale
    assert lengths[1] > 3 * lengths[0]
    assert np.sqrt(process.noise) * process.scale == pytest.approx(0.1, rel=0.4)
    again = GaussianProcess.fit(points, values, 0)
    np.testing.assert_array_equal(again.mean(points), process.mean(points))


def test_units_do_not_matter():
    one = GaussianProcess.fit(POINTS, VALUES, 0)
    other = GaussianProcess.fit(POINTS, 1e-3 * VALUES + 0.7, 0)
    np.testing.assert_allclose(
        other.mean(OTHERS), 1e-3 * one.mean(OTHERS) + 0.7, rtol=1e-6
    )
    np.testing.assert_allclose(
        other.deviation(OTHERS), 1e-3 * one.deviation(OTHERS), rtol=1e-3
    )


def test_values_that_are_all_equal():
    process = GaussianProcess.fit(POINTS, np.full(12, 0.5), 0)
    np.testing.assert_allclose(process.mean(OTHERS), 0.5)
