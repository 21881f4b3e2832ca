"""Windows and sums of the past against a slow double loop."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tfmtl.adapters import past

EVENTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(-3, 6)), min_size=0, max_size=40
)


def slow(events, queries, limit=None, strict=True):
    """Positions of earlier events of the same key, oldest first, by two loops."""
    result = []
    for key, time in queries:
        found = [
            (t, place)
            for place, (k, t) in enumerate(events)
            if k == key and (t < time if strict else t <= time)
        ]
        places = [place for _, place in sorted(found)]
        result.append(places if limit is None else places[-limit:])
    return result


def columns(pairs):
    """Two int64 arrays from a list of pairs."""
    array = np.array(pairs, np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def fast(events, queries, limit=None):
    """The same as `slow`, by the module."""
    windows = past.past_windows(*columns(events), *columns(queries), limit)
    offsets, index = windows.flat(0, len(queries))
    return [index[a:b].tolist() for a, b in itertools.pairwise(offsets)]


@settings(max_examples=150, deadline=None)
@given(EVENTS, EVENTS, st.sampled_from([None, 1, 3]))
def test_windows_are_the_strictly_earlier_events_newest_last(events, queries, limit):
    assert fast(events, queries, limit) == slow(events, queries, limit)


def test_an_event_at_the_same_time_would_be_noticed():
    events = [(1, 5), (1, 5), (1, 4), (2, 4)]
    assert fast(events, events) == [[2], [2], [], []]
    assert fast(events, events) != slow(events, events, strict=False)


def test_flat_cuts_out_a_range_of_queries():
    events = [(0, t) for t in range(6)]
    windows = past.past_windows(*columns(events), *columns(events))
    offsets, index = windows.flat(2, 5)
    assert offsets.tolist() == [0, 2, 5, 9]
    assert index.tolist() == [0, 1, 0, 1, 2, 0, 1, 2, 3]


@settings(max_examples=100, deadline=None)
@given(EVENTS, st.integers(0, 2**31))
def test_sums_are_those_of_the_windows(events, seed):
    values = np.random.default_rng(seed).normal(size=len(events))
    windows = past.past_windows(*columns(events), *columns(events))
    expected = [sum(values[p] for p in places) for places in slow(events, events)]
    np.testing.assert_allclose(past.past_sums(windows, values), expected, atol=1e-9)


def test_smoothed_rate_starts_at_the_prior_and_moves_to_the_data():
    rates = past.smoothed_rate(np.array([0.0, 8.0]), np.array([0.0, 10.0]), 0.3, 10.0)
    np.testing.assert_allclose(rates, [0.3, 11 / 20])


def test_pair_codes_tell_pairs_apart():
    first, second = np.array([0, 1, 0, 1]), np.array([1, 0, 1, 2])
    numbers, more = past.pair_codes(
        first, second, more=(np.array([1, 5]), np.array([0, 9]))
    )
    assert numbers[0] == numbers[2]
    assert len(set(numbers.tolist())) == 3
    assert more[0] == numbers[1]
    assert more[1] not in numbers
