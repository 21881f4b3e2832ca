import numpy as np
import pytest

from tfmtl.tuning.oracles.hypervolume import (
    HypervolumeImprovement,
    constant,
    directions,
    reference,
    scalarised,
)

FRONT = np.array([[0.9, 0.1], [0.6, 0.6], [0.1, 0.8]])


def area(points, corner):
    """Exact hypervolume in two dimensions: steps from the right."""
    total, height = 0.0, corner[1]
    for x, y in sorted(map(tuple, points), reverse=True):
        if x > corner[0] and y > height:
            total += (x - corner[0]) * (y - height)
            height = y
    return total


def test_the_area_by_hand():
    assert area(FRONT, (0.0, 0.0)) == pytest.approx(0.9 * 0.1 + 0.6 * 0.5 + 0.1 * 0.2)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_the_scalarisation_of_a_box_is_its_volume(objectives):
    weights = directions(200_000, objectives, np.random.default_rng(0))
    box = np.linspace(0.5, 1.5, objectives)
    found = constant(objectives) * scalarised(box, weights).mean()
    assert found == pytest.approx(box.prod(), rel=0.02)


def test_what_a_certain_point_adds_is_the_exact_area():
    weights = directions(100_000, 2, np.random.default_rng(1))
    gained = HypervolumeImprovement(FRONT, reference(FRONT), weights, np.zeros((1, 2)))
    corner = gained.reference
    points = np.array([[0.8, 0.5], [0.5, 0.5], [1.2, 0.05], [0.95, 0.95], [-1.0, 5.0]])
    exact = [area([*FRONT, p], corner) - area(FRONT, corner) for p in points]
    found = gained(points, np.zeros_like(points))
    np.testing.assert_allclose(found, exact, rtol=0.06, atol=1e-9)
    assert exact[1] == 0.0 < min(exact[0], exact[2], exact[3])


def test_expected_improvement_is_monte_carlo_over_exact_areas():
    rng = np.random.default_rng(2)
    noise = rng.standard_normal((500, 2))
    weights = directions(4000, 2, rng)
    gained = HypervolumeImprovement(FRONT, reference(FRONT), weights, noise)
    mean, deviation = np.array([[0.7, 0.55]]), np.array([[0.1, 0.2]])
    before = area(FRONT, gained.reference)
    drawn = mean + deviation * noise
    exact = np.mean([area([*FRONT, y], gained.reference) - before for y in drawn])
    assert gained(mean, deviation)[0] == pytest.approx(exact, rel=0.05)
    assert gained(mean, 2 * deviation)[0] > 1.3 * exact


def test_the_reference_lies_below_the_front():
    values = np.concatenate([FRONT, [[0.0, 0.0]]])
    np.testing.assert_allclose(reference(values), [0.1 - 0.09, 0.1 - 0.08])
    one = np.array([[1.0, 1.0], [0.0, 0.5]])
    np.testing.assert_allclose(reference(one), [-0.1, 0.45])
    np.testing.assert_allclose(reference(np.ones((1, 3))), 0.9)
