"""Windows and shares of events against loops over rows."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl.data.events import Rows, arrange


def rows(count: int = 200, users: int = 9, seed: int = 0) -> Rows:
    """Rows with ties in time and some without a user; `values` is the row's number."""
    draw = np.random.default_rng(seed)
    user = draw.integers(0, users, count)
    return Rows(
        identity=draw.permutation(count).astype(np.int64) * 10**15,
        user=user.astype(np.int64) * 7919,
        known=user > 0,
        time=draw.integers(-3, 12, count),
        item=draw.zipf(1.5, count) % 20,
        values=np.arange(count, dtype=np.int32)[:, None],
    )


def neighbours(of: Rows, window: int) -> dict[int, set[int]]:
    """Row to the other rows of its window, by looking at every row of its user."""
    found: dict[int, set[int]] = {}
    for row in range(len(of.user)):
        found[row] = set()
        if of.known[row]:
            mine = [r for r in range(len(of.user)) if of.user[r] == of.user[row]]
            mine = sorted(mine, key=lambda r: (of.time[r], r))
            place = mine.index(row)
            around = mine[max(0, place - window) : place + window + 1]
            found[row] = set(around) - {row}
    return found


@pytest.mark.parametrize("window", [1, 3, 1000])
def test_windows_are_those_of_a_loop(window: int) -> None:
    given = rows()
    events = arrange(given, window, 0.75)
    wanted = neighbours(given, window)
    numbers = events.values[:, 0]
    for place, row in enumerate(numbers):
        around = {int(r) for r in numbers[events.first[place] : events.last[place]]}
        assert around == wanted[row] | {row}, row
    assert (events.first <= np.arange(200)).all()
    assert (np.arange(200) < events.last).all()
    assert not all(wanted.values()) and any(len(w) > 1 for w in wanted.values())


def test_an_identity_leads_to_its_event() -> None:
    given = rows()
    events = arrange(given, 2, 1.0)
    assert (np.diff(events.identities) > 0).all()
    found = events.values[events.places, 0]
    np.testing.assert_array_equal(given.identity[found], events.identities)


@pytest.mark.parametrize("power", [0.0, 0.75, 1.0])
def test_shares_are_counts_to_a_power(power: float) -> None:
    given = rows()
    events = arrange(given, 2, power)
    shares = np.diff(events.shares, prepend=0)
    items = given.item[events.values[:, 0]]
    names, counts = np.unique(given.item, return_counts=True)
    total = sum(n**power for n in counts)
    for name, count in zip(names, counts):
        mine = shares[items == name]
        assert mine.sum() == pytest.approx(count**power / total)
        np.testing.assert_allclose(mine, mine[0], rtol=1e-9)
    assert events.shares[-1] == 1
    assert len(counts) > 5 and counts.max() > 3 * counts.min()


def test_one_event_and_events_of_nobody() -> None:
    one = Rows(*(v[:1] for v in rows()))
    assert arrange(one, 5, 0.75).last.tolist() == [1]
    nobody = rows(20)._replace(known=np.zeros(20, bool), user=np.zeros(20, np.int64))
    events = arrange(nobody, 5, 0.75)
    np.testing.assert_array_equal(events.last - events.first, 1)
