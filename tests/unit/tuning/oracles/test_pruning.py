import pytest

from tfmtl.errors import ConfigError
from tfmtl.tuning.goals import INFEASIBLE
from tfmtl.tuning.oracles.pruning import MedianRule

OTHERS = [[0.5, 0.7, 0.9], [0.6, 0.6, 0.6], [0.4, 0.8, 0.9]]
# Running averages at 2: 0.6, 0.6, 0.6; at 3: 0.7, 0.6, 0.7.


@pytest.mark.parametrize(
    ("own", "stops"),
    [
        ([0.1], False),  # warm-up
        ([0.1, 0.59], True),
        ([0.59, 0.1], True),  # the best counts, not the last
        ([0.61, 0.1], False),
        ([0.1, 0.5, 0.69], True),
        ([0.1, 0.5, 0.71], False),
        ([0.1, 0.1, 0.1, 0.1], False),  # nobody came so far
    ],
)
def test_against_averages_by_hand(own, stops):
    assert MedianRule(warmup_evaluations=1, least_trials=3).stops(own, OTHERS) is stops


def test_warmup_and_least_trials():
    assert not MedianRule(2, 3).stops([0.1, 0.1], OTHERS)
    assert not MedianRule(1, 4).stops([0.1, 0.1], OTHERS)
    assert not MedianRule(0, 1).stops([], OTHERS)


def test_infeasible_scores_do_not_move_the_median():
    rule = MedianRule(warmup_evaluations=0, least_trials=1)
    bad = INFEASIBLE - 0.3
    # The feasible average of the second is 0.8, not minus half a million.
    assert rule.stops([0.6, 0.6], [[0.7, 0.7], [bad, 0.8]])
    assert rule.stops([bad], [[0.7], [0.6], [bad]])
    assert not rule.stops([bad], [[0.7], [bad]])
    assert not rule.stops([bad - 1.0], [[bad], [bad]])
    assert not rule.stops([0.1], [[bad], [bad], [0.7]])


def test_settings():
    with pytest.raises(ConfigError, match="least_trials"):
        MedianRule(0, 0)
