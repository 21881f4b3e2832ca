"""What each request could know of its user: the clicks before it, newest last."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfmtl.adapters.simulator import constants as c
from tfmtl.adapters.simulator.impressions import Impressions
from tfmtl.adapters.simulator.outcomes import Labels
from tfmtl.adapters.simulator.world import Floats, Ints

ACTIONS = ("click", "like", "favourite", "cart", "buy")
"""In rising order: a past click is named after the highest that came with it."""


@dataclasses.dataclass(frozen=True)
class Histories:
    """Clicks by user and time (length C), and the span of them each request sees."""

    item: Ints
    action: Ints
    """Index into `ACTIONS`."""
    time: Ints
    start: Ints
    end: Ints
    """`[R]` each: request r sees the clicks `start[r]:end[r]`."""

    def rows(self, request: Ints, now: Ints) -> tuple[Ints, Ints, Floats]:
        """Gathers the histories of rows, one after the other.

        Args:
            request: `[n]`, request of each row.
            now: `[n]`, timestamp of each row.

        Returns:
            `[n + 1]` offsets, and for each element the index of its click and its age
            in hours.
        """
        length = self.end[request] - self.start[request]
        offsets = np.concatenate([[0], np.cumsum(length)])
        shift = self.start[request] - offsets[:-1]
        click = np.repeat(shift, length) + np.arange(offsets[-1])
        age = (np.repeat(now, length) - self.time[click]) / 3600.0
        return offsets, click, age


def make_histories(log: Impressions, labels: Labels) -> Histories:
    """Finds each request's last `HISTORY` clicks of its user, strictly before it.

    A click at the request's own second does not count, so neither the request itself
    nor anything simultaneous is ever seen. A like counts only where it is known.
    """
    action = np.zeros(len(log.item), np.int64)
    for level, name in enumerate(ACTIONS):
        happened = labels.event[name]
        if name == "like":
            happened = happened & labels.like_known
        action[happened] = level
    clicked = np.flatnonzero(labels.event["click"])
    # Rows are in order of time, so a stable sort by user keeps each user's in order.
    clicked = clicked[np.argsort(log.user[clicked], kind="stable")]
    time = log.time[clicked]

    span = (c.DAYS + 1) * c.DAY
    key = log.user[clicked] * span + (time - c.START)
    first = np.searchsorted(key, log.request_user * span, side="left")
    now = log.request_user * span + (log.request_time - c.START)
    end = np.searchsorted(key, now, side="left")
    return Histories(
        item=log.item[clicked],
        action=action[clicked],
        time=time,
        start=np.maximum(first, end - c.HISTORY),
        end=end,
    )
