"""The Pareto front of points, against a double loop."""

import numpy as np

from tfmtl.metrics.front import front, thinned


def test_front_is_that_of_a_double_loop():
    draw = np.random.default_rng(0)
    for columns in (1, 2, 3):
        values = draw.integers(0, 7, (60, columns)).astype(float)
        wanted = set()
        for i, a in enumerate(values):
            better = [(b >= a).all() and (b > a).any() for b in values]
            equal = [(b == a).all() for b in values[:i]]
            if not any(better) and not any(equal):
                wanted.add(i)
        found = front(values)
        assert set(found.tolist()) == wanted
        assert (np.diff(values[found, 0]) <= 0).all()


def test_thinned_keeps_both_ends():
    rows = np.arange(100) * 7
    few = thinned(rows, 10)
    assert len(few) == 10 and few[0] == 0 and few[-1] == 693
    np.testing.assert_array_equal(thinned(rows[:4], 10), rows[:4])
