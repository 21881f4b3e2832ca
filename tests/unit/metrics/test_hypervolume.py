"""Hypervolume: closed forms, inclusion-exclusion, Monte Carlo, another library."""

import itertools

import numpy as np
import pytest

from tfmtl.errors import ConfigError
from tfmtl.metrics.hypervolume import exclusive_volume, hypervolume


def inclusion_exclusion(values, reference):
    """Volume of a union of boxes from all their intersections."""
    sides = np.maximum(values - reference, 0.0)
    total = 0.0
    for size in range(1, len(sides) + 1):
        for some in itertools.combinations(range(len(sides)), size):
            total -= (-1) ** size * sides[list(some)].min(axis=0).prod()
    return total


def test_closed_forms():
    zero = np.zeros(2)
    assert hypervolume(np.array([[2.0, 3.0]]), zero) == 6.0
    stairs = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    assert hypervolume(stairs, zero) == 6.0
    assert hypervolume(stairs, np.ones(2)) == 1.0
    assert hypervolume(np.array([[4.0], [7.0]]), np.array([5.0])) == 2.0
    # Stairs in three dimensions: layers of 1, 3, 6, 10 unit cubes.
    steps = np.array(
        [[i, j, 6.0 - i - j] for i in range(1, 5) for j in range(1, 6 - i)]
    )
    assert hypervolume(steps, np.zeros(3)) == sum(k * (k + 1) / 2 for k in range(1, 5))


def test_points_of_no_use_add_nothing():
    stairs = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])
    more = np.vstack([stairs, stairs[:1], [[0.5, 0.5]], [[-1.0, 9.0]], [[0.0, 9.0]]])
    assert hypervolume(more, np.zeros(2)) == 6.0
    assert hypervolume(np.empty((0, 2)), np.zeros(2)) == 0.0


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5])
def test_is_inclusion_and_exclusion_of_the_boxes(columns):
    draw = np.random.default_rng(columns)
    for _ in range(5):
        values = draw.normal(0.4, 1.0, (9, columns))
        reference = draw.normal(-0.5, 0.3, columns)
        wanted = inclusion_exclusion(values, reference)
        assert hypervolume(values, reference) == pytest.approx(wanted, abs=1e-12)


def test_is_the_share_of_random_points_below():
    draw = np.random.default_rng(0)
    values = draw.random((40, 4))
    below = draw.random((40_000, 4))
    hit = (values[None] >= below[:, None]).all(-1).any(1).mean()
    found = hypervolume(values, np.zeros(4))
    assert abs(found - hit) < 4 * np.sqrt(hit * (1 - hit) / len(below))
    # Moved by what sampling can tell, a point makes a difference.
    assert abs(hypervolume(values * 0.98, np.zeros(4)) - hit) > abs(found - hit)


@pytest.mark.parametrize(
    ("points", "columns", "wanted"),
    [
        # moocore 0.3.2, hypervolume(p, ref=0, maximise=True), of points on a sphere.
        (60, 2, 0.7715292858892282),
        (60, 3, 0.42216196495416697),
        (60, 4, 0.16581609495887192),
    ],
)
def test_is_that_of_moocore(points, columns, wanted):
    draw = np.random.default_rng(0)
    for c, n in ((1, 20), (2, 60), (3, 60), (4, 60)):
        values = np.abs(draw.normal(size=(n, c)))
        if (n, c) == (points, columns):
            break
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    assert hypervolume(values, np.zeros(columns)) == pytest.approx(wanted, abs=1e-12)


def test_what_a_point_adds():
    draw = np.random.default_rng(1)
    values, reference = draw.random((12, 3)), np.full(3, 0.2)
    for row in range(12):
        others = np.delete(values, row, axis=0)
        whole = hypervolume(values, reference)
        wanted = whole - hypervolume(others, reference)
        found = exclusive_volume(values[row], others, reference)
        assert found == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "reference", "said"),
    [
        (np.ones((3, 2)), np.zeros(3), r"\(3, 2\) and \(3,\)"),
        (np.ones(3), np.zeros(3), r"shape \[E, C\]"),
        (np.array([[np.nan, 1.0]]), np.zeros(2), "finite"),
        (np.ones((1, 2)), np.array([-np.inf, 0.0]), "finite"),
    ],
)
def test_refuses_what_has_no_volume(values, reference, said):
    with pytest.raises(ConfigError, match=said):
        hypervolume(values, reference)
