"""Alibaba Big Data Competition 2014: what Tmall users do with brands, day by day.

Reads `t_alibaba_data*.csv` (several files are one log) of user_id, brand_id, type (0
click, 1 buy, 2 favourite, 3 cart) and a date without a year, which is 2013 (`6-4`, or
the original's text with the characters for month and day).

A row is a user, a brand and a day on which the user did something with the brand, seen
from the end of that day: `clicks`, `buys`, `favourites` and `carts` are that day's
counts, everything named history or past is from strictly earlier days, and the labels
are from strictly later ones:

- `click_1d`, `buy_1d`: clicks, buys the brand on the next day,
- `click_7d`, `buy_7d`: within the next seven days.

Labels whose days go past the end of the log are null, as they had no time to mature;
split by time with a gap of as many days. Several events of a kind on one day are
counted in the row: rows_read counts events, and further events of a (user, brand, day)
count as duplicates, merged.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tfmtl.adapters import locate, raw, writing
from tfmtl.adapters.past import (
    Floats,
    Ints,
    codes,
    pair_codes,
    past_sums,
    past_windows,
)
from tfmtl.adapters.summary import PrepareSummary
from tfmtl.progress import Listener

SOURCE = "https://tianchi.aliyun.com (Alibaba Big Data Competition 2014, season 1)"
YEAR = 2013
TYPES = ("click", "buy", "favourite", "cart")
HORIZONS = (1, 7)
HISTORY = 50
"""Events in a history, at most."""
COLUMNS = {
    "user_id": raw.INT,
    "brand_id": raw.INT,
    "type": raw.Column("int", minimum=0, maximum=3),
    "visit_datetime": raw.STRING,
}


class _Days(NamedTuple):
    """(user, brand, day) rows in order of day, user, brand; counts is [rows, 4]."""

    user: Ints
    brand: Ints
    day: Ints
    counts: Floats


def prepare(
    source: pathlib.Path, out: pathlib.Path, listener: Listener
) -> PrepareSummary:
    """Writes `logs/` and `rejected.parquet`."""
    listener.stage("read", None)
    rejects = raw.Rejects()
    patterns = ["t_alibaba_data.csv", "t_alibaba_data*.csv"]
    files = locate.find(source, patterns, "t_alibaba_data.csv", SOURCE)
    events = pa.concat_tables([_events(file, rejects) for file in files])
    days = _group(events)
    labels, rates = _labels(days), {}
    for name, values in labels.items():
        rates[name] = writing.rate(values[~np.isnan(values)])
    listener.stage("write", len(days.user))
    written = writing.write_logs(out, _tables(days, labels), listener)
    rejects.write(out)
    return PrepareSummary(
        name="alibaba-2014",
        rows_read=events.num_rows + len(rejects),
        rows_written=written,
        duplicates_dropped=events.num_rows - written,
        rows_rejected=len(rejects),
        positive_rates=rates,
        files=tuple(f.name for f in files),
        notes=("events of one user, brand and day are merged into one row",),
    )


def _events(file: pathlib.Path, rejects: raw.Rejects) -> pa.Table:
    """Events with `day`, days since 1970-01-01; dates that are none are rejected."""
    table = raw.read_table(file, COLUMNS, rejects)
    parts = pc.extract_regex(
        table["visit_datetime"],
        r"^\s*(?P<month>\d{1,2})[-/月](?P<day>\d{1,2})日?\s*$",
    )
    text = pc.binary_join_element_wise(
        str(YEAR), pc.struct_field(parts, "month"), pc.struct_field(parts, "day"), "-"
    )
    date = pc.strptime(text, format="%Y-%m-%d", unit="s", error_is_null=True)
    # strptime turns 2-30 into 3-2.
    meant = pc.cast(pc.struct_field(parts, "day"), pa.int64())
    null = pa.scalar(None, date.type)
    date = pc.if_else(pc.equal(pc.day(date), meant), date, null)
    bad = table.filter(pc.is_null(date)).to_pylist()
    rejects.add(
        file.name,
        [",".join(str(v) for v in row.values()) for row in bad],
        [
            f"visit_datetime: {row['visit_datetime'][:40]} is no month-day"
            for row in bad
        ],
    )
    day = pc.divide(pc.cast(date, pa.int64()), 86_400)
    table = table.append_column("day", day).filter(pc.is_valid(date))
    return table.drop_columns("visit_datetime")


def _group(events: pa.Table) -> _Days:
    kinds = {
        name: pc.cast(pc.equal(events["type"], number), pa.int64())
        for number, name in enumerate(TYPES)
    }
    keys = ["day", "user_id", "brand_id"]
    table = events.select(keys)
    for name, values in kinds.items():
        table = table.append_column(name, values)
    grouped = table.group_by(keys).aggregate([(name, "sum") for name in TYPES])
    grouped = grouped.sort_by([(key, "ascending") for key in keys])
    counts = [grouped[f"{name}_sum"].to_numpy() for name in TYPES]
    return _Days(
        grouped["user_id"].to_numpy(),
        grouped["brand_id"].to_numpy(),
        grouped["day"].to_numpy(),
        np.stack(counts, axis=1).astype(np.float64),
    )


def _pairs(days: _Days) -> Ints:
    (user,), (brand,) = codes(days.user), codes(days.brand)
    return pair_codes(user, brand)[0]


def _labels(days: _Days) -> dict[str, Floats]:
    """[rows] 0/1, NaN where the log ends before the label is known."""
    pair, end = _pairs(days), int(days.day.max(initial=0))
    labels = {}
    for horizon in HORIZONS:
        # Events before day + horizon + 1, less those before day + 1, are the label's.
        until = past_windows(pair, days.day, pair, days.day + horizon + 1)
        known = past_windows(pair, days.day, pair, days.day + 1)
        for number, name in ((0, "click"), (1, "buy")):
            count = days.counts[:, number]
            later = past_sums(until, count) - past_sums(known, count)
            label = (later > 0).astype(np.float64)
            label[days.day + horizon > end] = np.nan
            labels[f"{name}_{horizon}d"] = label
    return labels


def _tables(days: _Days, labels: dict[str, Floats]) -> Iterator[pa.Table]:
    columns: dict[str, npt.NDArray[np.generic] | pa.Array] = {
        "row_id": np.arange(len(days.user)),
        "user_id": days.user,
        "brand_id": days.brand,
        "timestamp": days.day * 86_400,
    }
    for number, name in enumerate(TYPES):
        columns[f"{name}s"] = days.counts[:, number]
    columns |= _counters(days)
    columns |= {
        name: pa.array(values, mask=np.isnan(values)) for name, values in labels.items()
    }
    wide = pa.table(columns)
    windows = past_windows(days.user, days.day, days.user, days.day, HISTORY)
    # The strongest action of the day stands for it.
    strength = np.array([0, 3, 1, 2])
    strongest = np.argmax((days.counts > 0) * (strength + 1), axis=1)
    events = {
        "history_brand": pa.array(days.brand),
        "history_action": pa.array(TYPES).take(pa.array(strongest)),
    }
    for first, last in writing.parts(len(days.user)):
        part = wide.slice(first, last - first)
        lists = writing.list_columns(windows, first, last, events)
        offsets, index = windows.flat(first, last)
        ago = np.repeat(days.day[first:last], np.diff(offsets)) - days.day[index]
        lists["history_days"] = pa.ListArray.from_arrays(
            lists["history_brand"].offsets, pa.array(ago)
        )
        for name, values in lists.items():
            part = part.append_column(name, values)
        yield part


def _counters(days: _Days) -> dict[str, Floats]:
    """Clicks and buys of strictly earlier days, of the user, the brand and the pair."""
    columns = {}
    for name, key in (
        ("user", days.user),
        ("brand", days.brand),
        ("pair", _pairs(days)),
    ):
        windows = past_windows(key, days.day, key, days.day)
        for number, kind in ((0, "clicks"), (1, "buys")):
            sums = past_sums(windows, days.counts[:, number])
            columns[f"past_{name}_{kind}"] = sums
    return columns
