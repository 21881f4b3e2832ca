"""KuaiRand's history file: what users did in the days before the log."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtl.adapters import locate, writing
from tfmtl.adapters.past import (
    Floats,
    Ints,
    codes,
    pair_codes,
    smoothed_rate,
)
from tfmtl.errors import DataError
from tfmtl.progress import Listener

WEIGHT = 20.0
"""Impressions that a prior rate counts for."""
PRIORS = {"click": 0.4, "long_view": 0.3, "like": 0.02, "profile_enter": 0.02}
"""Rates before any impression; fixed, so that they know nothing of the log."""
_PAST_LISTS = {"watch_seq": "watched", "like_seq": "liked", "long_watch_seq": "long"}


class Past(NamedTuple):
    """The history file: who watched what, [events], each user's lists, and its end."""

    end: int
    lists: pa.Table
    user: Ints
    video: Ints
    long: Floats
    like: Floats


def read_past(source: pathlib.Path, log: pa.Table, listener: Listener) -> Past | None:
    """The history file where there is one.

    Raises:
        DataError: It is no such file, or no row of the log is later than it.
    """
    files = locate.find_optional(source, ["user_sequences_until_*.parquet"])
    if not files or not log.num_rows:
        return None
    try:
        table = pq.read_table(files[-1])
        lists = table.select(["user_id", "history_len", "last_time_ms", *_PAST_LISTS])
    except (pa.ArrowInvalid, KeyError) as error:
        raise DataError(f"{str(files[-1])!r} is no history file: {error}") from error
    end = pc.max(lists["last_time_ms"]).as_py() or 0
    if end >= pc.max(log["time_ms"]).as_py():
        raise DataError(
            f"{files[-1].name!r} holds events up to time_ms {end}, but the log ends "
            "before: its lists would tell the future. Leave it out of `raw`"
        )
    listener.note(f"history file of {lists.num_rows} users")
    user, video = _flat(lists, "watch_seq")
    pairs = []
    for column in ("long_watch_seq", "like_seq"):
        of_user, of_video = _flat(lists, column)
        seen, done = pair_codes(user, video, more=(of_user, of_video))
        pairs.append(np.isin(seen, done).astype(np.float64))
    return Past(end, lists, user, video, *pairs)


def _flat(lists: pa.Table, column: str) -> tuple[Ints, Ints]:
    values = lists[column].combine_chunks()
    parents = pc.list_parent_indices(values)
    user = lists["user_id"].take(parents).to_numpy().astype(np.int64)
    return user, pc.list_flatten(values).to_numpy().astype(np.int64)


def past_counters(
    log: pa.Table, known: pa.Table, videos: pa.Table, past: Past | None
) -> pa.Table:
    """Impressions, long-view and like rates from the history file; 0 and the priors
    without one."""
    rows = log.num_rows
    ids = ints(videos["video_id"]), ints(pc.fill_null(videos["author_id"], -1))
    columns: dict[str, Floats] = {}
    keys = {
        "user": ints(log["user_id"]),
        "video": ints(log["video_id"]),
        "author": ints(pc.fill_null(known["author_id"], -1)),
    }
    for name, key in keys.items():
        trials = long = like = np.zeros(rows)
        if past is not None:
            event = {"user": past.user, "video": past.video}.get(name)
            if event is None:
                event = _map(past.video, *ids)
            later = ints(log["time_ms"]) > past.end
            trials, long, like = (
                total * later
                for total in _totals(key, event, [None, past.long, past.like])
            )
        columns[f"past_{name}_impressions"] = trials
        columns[f"past_{name}_long_rate"] = smoothed_rate(
            long, trials, PRIORS["long_view"], WEIGHT
        )
        columns[f"past_{name}_like_rate"] = smoothed_rate(
            like, trials, PRIORS["like"], WEIGHT
        )
    return pa.table(columns)


def _totals(keys: Ints, events: Ints, values: list[Floats | None]) -> list[Floats]:
    """[rows] sums of each value over the events of the row's key."""
    rows, of_event = codes(keys, events)
    size = int(max(rows.max(initial=0), of_event.max(initial=0))) + 1
    return [
        np.bincount(of_event, weights=v, minlength=size)[rows].astype(np.float64)
        for v in values
    ]


def _map(keys: Ints, names: Ints, values: Ints) -> Ints:
    """`values` at the position of each key in `names`; -1 where it is not there."""
    order = np.argsort(names, kind="stable")
    place = np.minimum(np.searchsorted(names[order], keys), len(names) - 1)
    return np.where(names[order][place] == keys, values[order][place], -1)


def with_past_lists(part: pa.Table, past: Past | None) -> pa.Table:
    """Adds the history file's lists, and the hours since its last event."""
    if past is None:
        empty = pa.array([[]] * part.num_rows, pa.list_(pa.int64()))
        for name in _PAST_LISTS.values():
            part = part.append_column(f"past_{name}", empty)
        nothing = pa.nulls(part.num_rows, pa.float64())
        return part.append_column("past_events", nothing).append_column(
            "past_hours", nothing
        )
    later = pc.greater(part["time_ms"], past.end)
    user = pc.if_else(later, part["user_id"], pa.scalar(None, pa.int64()))
    found = writing.lookup(user, past.lists, "user_id")
    for column, name in _PAST_LISTS.items():
        part = part.append_column(f"past_{name}", pc.fill_null(found[column], []))
    since = pc.subtract(part["time_ms"], found["last_time_ms"])
    hours = pc.divide(pc.cast(since, pa.float64()), 3.6e6)
    return part.append_column(
        "past_events", pc.cast(found["history_len"], pa.float64())
    ).append_column("past_hours", hours)


def ints(column: pa.ChunkedArray) -> Ints:
    """[rows] a column without nulls as int64."""
    values: Ints = column.to_numpy().astype(np.int64)
    return values


def floats(column: pa.ChunkedArray) -> Floats:
    """[rows] a column as float64, null as NaN."""
    values: Floats = column.to_numpy().astype(np.float64)
    return values


def numbered(column: pa.ChunkedArray) -> Ints:
    """[rows] a number for each distinct value, null being one."""
    place = pc.index_in(column, pc.unique(column))
    values: Ints = place.to_numpy(zero_copy_only=False).astype(np.int64)
    return values
