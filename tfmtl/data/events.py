"""The positive rows of a split in each user's order of time, with skip-gram windows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
    """Positive rows of a split, in the order of the records. P rows.

    Attributes:
        identity: [P] int64, of user, time and item together; equal rows have one.
        user: [P] int64, one number a user.
        known: [P] bool, whether the row has a user.
        time: [P] int64.
        item: [P] ids.
        values: [P, C] int32, what describes the items.
    """

    identity: np.ndarray
    user: np.ndarray
    known: np.ndarray
    time: np.ndarray
    item: np.ndarray
    values: np.ndarray


class Events(NamedTuple):
    """Events sorted by user, time and order of the records. P events.

    Attributes:
        identities: [P] int64, sorted.
        places: [P] int32, the event of each of `identities`.
        first: [P] int32, where the event's window begins.
        last: [P] int32, where it ends; the event itself lies inside.
        shares: [P] float64, cumulative shares of the negatives; the last is 1.
        values: [P, C] int32.
    """

    identities: np.ndarray
    places: np.ndarray
    first: np.ndarray
    last: np.ndarray
    shares: np.ndarray
    values: np.ndarray


def arrange(rows: Rows, window: int, power: float) -> Events:
    """Sorts events and finds their windows.

    The window of an event are the `window` events of the same user before it, itself
    and the `window` after it. A row without a user is an event of nobody: its window is
    itself.

    An item i with n_i events is drawn as a negative with the share

        n_i^power / sum_j n_j^power

    each of its events alike, so that columns that change with time are drawn with the
    values they had.

    Args:
        rows: Positive rows, at least one.
        window: Events on each side.
        power: Of the counts.
    """
    count = len(rows.identity)
    # Stable: events of one time stay in the order of the records.
    order = np.lexsort((rows.time, rows.user, ~rows.known))
    user, known = rows.user[order], rows.known[order]
    place = np.arange(count)
    begins = np.ones(count, bool)
    begins[1:] = (user[1:] != user[:-1]) | ~known[1:]
    starts = np.flatnonzero(begins)
    begin = np.repeat(starts, np.diff(starts, append=count))
    end = np.repeat(np.append(starts[1:], count), np.diff(starts, append=count))
    sought = np.argsort(rows.identity[order], kind="stable")
    return Events(
        identities=rows.identity[order][sought],
        places=sought.astype(np.int32),
        first=np.maximum(begin, place - window).astype(np.int32),
        last=np.minimum(end, place + window + 1).astype(np.int32),
        shares=_shares(rows.item[order], power),
        values=rows.values[order],
    )


def _shares(item: np.ndarray, power: float) -> np.ndarray:
    _, which, counts = np.unique(item, return_inverse=True, return_counts=True)
    weights = counts[which].astype(np.float64) ** (power - 1)
    shares = np.cumsum(weights)
    return np.asarray(shares / shares[-1])
