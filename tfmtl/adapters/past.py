"""What was known before a row: windows and sums over strictly earlier events.

Everything here is one sort and a few `searchsorted`: no loop over rows, so that a
million rows take seconds. "Before" is strict: an event at the row's own time (the same
request, the same second, the row itself) is never part of its past.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Windows(NamedTuple):
    """The past of each query, as slices of `events`.

    Attributes:
        starts: [queries] first position in `events` of the query's window.
        ends: [queries] position after its last.
        events: [events] original event numbers, by key, then by time, then as given.
    """

    starts: Ints
    ends: Ints
    events: Ints

    @property
    def lengths(self) -> Ints:
        """[queries] number of events in each window."""
        return self.ends - self.starts

    def flat(self, first: int, last: int) -> tuple[Ints, Ints]:
        """Offsets and event numbers of the windows of queries first .. last - 1.

        Returns:
            offsets: [last - first + 1], 0 first, as an Arrow list array wants them.
            events: [offsets[-1]] original event numbers, oldest first in each window.
        """
        starts, lengths = self.starts[first:last], self.lengths[first:last]
        offsets = np.zeros(last - first + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        return offsets, self.events[np.repeat(starts, lengths) + within]


def past_windows(
    event_keys: Ints,
    event_times: Ints,
    query_keys: Ints,
    query_times: Ints,
    limit: int | None = None,
) -> Windows:
    """The events of the same key at strictly earlier times, for every query.

    Args:
        event_keys: [events] such as the user's number.
        event_times: [events] in any order; events of one time keep the given order.
        query_keys: [queries].
        query_times: [queries].
        limit: Keep only so many events, the newest; all where absent.
    """
    ranks, events_at, queries_at = _composite(
        event_keys, event_times, query_keys, query_times
    )
    order = np.argsort(events_at, kind="stable")
    ordered = events_at[order]
    ends = np.searchsorted(ordered, queries_at, side="left")
    of_key = queries_at - queries_at % ranks
    starts = np.searchsorted(ordered, of_key, side="left")
    if limit is not None:
        starts = np.maximum(starts, ends - limit)
    return Windows(starts, ends, order)


def past_sums(
    windows: Windows, values: Floats | Ints | npt.NDArray[np.bool_]
) -> Floats:
    """[queries] sum of an event column, [events], over each window."""
    sums = np.zeros(len(values) + 1)
    np.cumsum(values[windows.events], out=sums[1:], dtype=np.float64)
    return sums[windows.ends] - sums[windows.starts]


def smoothed_rate(hits: Floats, trials: Floats, prior: float, weight: float) -> Floats:
    """(hits + weight x prior) / (trials + weight): a rate that starts at the prior."""
    return (hits + weight * prior) / (trials + weight)


def codes(*columns: npt.NDArray[np.generic]) -> list[Ints]:
    """Numbers the distinct values of columns together: equal values, equal numbers."""
    _, inverse = np.unique(np.concatenate(columns), return_inverse=True)
    ends = np.cumsum([len(c) for c in columns])
    return np.split(inverse.astype(np.int64), ends[:-1])


def pair_codes(
    first: Ints, second: Ints, more: tuple[Ints, Ints] | None = None
) -> list[Ints]:
    """Numbers pairs of non-negative numbers; `more` holds pairs to number alike."""
    size = int(
        max(second.max(initial=0), -1 if more is None else more[1].max(initial=0))
    )
    pairs = [first * (size + 1) + second]
    if more is not None:
        pairs.append(more[0] * (size + 1) + more[1])
    return codes(*pairs)


def _composite(
    event_keys: Ints, event_times: Ints, query_keys: Ints, query_times: Ints
) -> tuple[int, Ints, Ints]:
    """One sortable number for (key, time): key x number of times + rank of the time."""
    event_keys, query_keys = codes(event_keys, query_keys)
    event_times, query_times = codes(event_times, query_times)
    ranks = 1 + int(max(event_times.max(initial=0), query_times.max(initial=0)))
    return ranks, event_keys * ranks + event_times, query_keys * ranks + query_times
