"""KuaiRand: the Kuaishou app's impressions, with the features of users and videos.

Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly
Exposed Videos", CIKM 2022. Reads `log_standard_*.csv` (several files are one log),
`user_features_*.csv`, `video_features_basic_*.csv` and, where it is there, a history
file `user_sequences_until_*.parquet` of the days before the log.

A row is an impression; exact repetitions are dropped. All the log's columns stay, but
outcomes (`is_*`, `long_view`, `play_time_ms`, `*_stay_time`) are labels, never inputs.
What else a row gets, and why it does not see the future:

- `history_*`: the user's last 50 impressions of this log at strictly earlier `time_ms`
  (other rows of the same request are not its past), newest last: video, author, tag,
  tab, `action` (the strongest of none, click, long_view, like) and hours ago. Early
  rows of a log have little of it: train on it alone, and the model learns that a short
  history is normal while the last day's are long.
- `past_watched`, `past_liked`, `past_long`: the history file's lists, equal for all
  rows of a user. A row that is not later than the file's last event gets none of the
  file, in lists and counters (the two overlap by minutes around midnight).
- `recent_*`: both in one, the history file's watched videos first, newest 50 overall;
  this one is about as long on the first day as on the last. Its action is seen,
  seen_long or seen_like for events of the history file, which does not tell clicks; the
  hours are null there.
- `user_*`, `user_tab_*`, `user_author_*`, `user_tag_*`, `user_video_*` counters:
  impressions and smoothed rates of the user's strictly earlier events in this log.
- `video_*`, `author_*`, `tag_*` counters: impressions and smoothed rates over all users
  on strictly earlier days (China time), as a daily batch job would have them. Rates are
  smoothed with weight 20 towards constants, not towards a mean over the log.
- `past_*` counters: impressions, long-view and like rates from the history file, per
  user, video and author. They do not drift over the log's days.

The column `date` is the day the server noted: 785 rows of 04-25 .. 04-30 that were
shown in the last minutes of a day bear the next day's date. The experiment splits by
`time_ms`, so that nothing in training happened after anything in validation; `day` is
its day in China.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtl.adapters import locate, raw, writing
from tfmtl.adapters.kuairand_past import (
    PRIORS,
    WEIGHT,
    Past,
    floats,
    ints,
    numbered,
    past_counters,
    read_past,
    with_past_lists,
)
from tfmtl.adapters.past import (
    Floats,
    Ints,
    Windows,
    codes,
    pair_codes,
    past_sums,
    past_windows,
    smoothed_rate,
)
from tfmtl.adapters.summary import PrepareSummary
from tfmtl.progress import Listener

SOURCE = "https://zenodo.org/records/10439422 (see https://kuairand.com)"
HISTORY = 50
"""Events in a history, at most."""
_DAY_MS = 86_400_000
_CHINA_MS = 8 * 3_600_000

LOG = {
    "user_id": raw.INT,
    "video_id": raw.INT,
    "date": raw.INT,
    "hourmin": raw.INT,
    "time_ms": raw.Column("int", minimum=0, maximum=1e14),
    "is_click": raw.FLAG,
    "is_like": raw.FLAG,
    "is_follow": raw.FLAG,
    "is_comment": raw.FLAG,
    "is_forward": raw.FLAG,
    "is_hate": raw.FLAG,
    "long_view": raw.FLAG,
    "play_time_ms": raw.INT,
    "duration_ms": raw.INT,
    "profile_stay_time": raw.INT,
    "comment_stay_time": raw.INT,
    "is_profile_enter": raw.FLAG,
    "is_rand": raw.FLAG,
    "tab": raw.INT,
}
_USER_NUMBERS = (
    "follow_user_num",
    "fans_user_num",
    "friend_user_num",
    "register_days",
)
_CODES = ("visible_status", "music_type")
USERS = (
    {"user_id": raw.INT, "user_active_degree": raw.OPTIONAL_STRING}
    | dict.fromkeys(
        ("is_lowactive_period", "is_live_streamer", "is_video_author"), raw.OPTIONAL_INT
    )
    | dict.fromkeys(_USER_NUMBERS, raw.OPTIONAL_INT)
    | {f"{name}_range": raw.OPTIONAL_STRING for name in _USER_NUMBERS}
    | {f"onehot_feat{i}": raw.OPTIONAL_FLOAT for i in range(18)}
)
VIDEOS = {
    "video_id": raw.INT,
    "author_id": raw.OPTIONAL_INT,
    "video_type": raw.OPTIONAL_STRING,
    "upload_dt": raw.OPTIONAL_STRING,
    "upload_type": raw.OPTIONAL_STRING,
    "visible_status": raw.OPTIONAL_FLOAT,
    "video_duration": raw.OPTIONAL_FLOAT,
    "server_width": raw.OPTIONAL_FLOAT,
    "server_height": raw.OPTIONAL_FLOAT,
    "music_id": raw.OPTIONAL_INT,
    "music_type": raw.OPTIONAL_FLOAT,
    "tag": raw.OPTIONAL_STRING,
}


class _Events(NamedTuple):
    """Impressions as arrays, [events]; the history file's come before the log's."""

    user: Ints
    video: Ints
    time: Ints
    tab: Ints
    action: pa.Array


def prepare(
    source: pathlib.Path, out: pathlib.Path, listener: Listener
) -> PrepareSummary:
    """Writes `logs/`, `users.parquet`, `videos.parquet` and `rejected.parquet`."""
    rejects = raw.Rejects()
    files = locate.find(source, ["log_standard_*.csv"], "log_standard_*.csv", SOURCE)
    listener.stage("read", None)
    users = _features(source, "user_features", USERS, rejects)
    videos = _videos(_features(source, "video_features_basic", VIDEOS, rejects))
    side_rejects = len(rejects)
    log = pa.concat_tables([raw.read_table(f, LOG, rejects) for f in files])
    rejected = len(rejects) - side_rejects
    rows_read = log.num_rows + rejected
    log, dropped = writing.drop_duplicates(log)
    log = log.sort_by([(c, "ascending") for c in ("time_ms", "user_id", "video_id")])
    listener.note(f"{dropped} exact duplicates dropped, {rejected} rows rejected")
    past = read_past(source, log, listener)
    listener.stage("write", log.num_rows)
    written = writing.write_logs(out, _tables(log, users, videos, past), listener)
    writing.write_side(out, "users", users)
    writing.write_side(out, "videos", videos)
    rejects.write(out)
    labels = ["is_click", "long_view", "is_like", "is_profile_enter", "is_follow"]
    labels += ["is_comment", "is_forward", "is_hate"]
    return PrepareSummary(
        name="kuairand",
        rows_read=rows_read,
        rows_written=written,
        duplicates_dropped=dropped,
        rows_rejected=rejected,
        positive_rates={c: writing.rate(log[c]) for c in labels},
        rows_by_scenario=writing.counts(log["tab"]),
        files=tuple(f.name for f in files),
        notes=_notes(past, side_rejects),
    )


def _notes(past: Past | None, side_rejects: int) -> tuple[str, ...]:
    notes = [
        "play_time_ms, *_stay_time and is_* are outcomes: labels, never inputs",
        "history file: "
        + (f"{past.lists.num_rows} users" if past else "none; past_* are empty"),
    ]
    if side_rejects:
        notes.append(f"{side_rejects} lines of the feature files were rejected")
    return tuple(notes)


def _features(
    source: pathlib.Path,
    name: str,
    columns: dict[str, raw.Column],
    rejects: raw.Rejects,
) -> pa.Table:
    """A feature file; codes that the publisher wrote as 3.0 become 3."""
    file = locate.find(source, [f"{name}_*.csv"], f"{name}_*.csv", SOURCE)[0]
    table = raw.read_table(file, columns, rejects)
    for number, field in enumerate(table.schema):
        if field.name.startswith("onehot") or field.name in _CODES:
            values = pc.cast(pc.round(table[field.name]), pa.int64())
            table = table.set_column(number, field.name, values)
    return table


def _videos(videos: pa.Table) -> pa.Table:
    """Adds the list of tags, the first tag, the upload day and the picture's shape."""
    tags = pc.split_pattern(videos["tag"], ",")
    first = pc.list_element(pc.fill_null(tags, [""]), 0)
    first = pc.if_else(pc.equal(first, ""), pa.scalar(None, pa.string()), first)
    uploaded = pc.strptime(
        videos["upload_dt"], format="%Y-%m-%d", unit="s", error_is_null=True
    )
    seconds = pc.cast(uploaded, pa.int64())
    aspect = pc.divide(videos["server_width"], videos["server_height"])
    aspect = pc.if_else(pc.is_finite(aspect), aspect, pa.scalar(None, pa.float64()))
    return (
        videos.append_column("tags", tags)
        .append_column("first_tag", first)
        .append_column("upload_day", pc.divide(seconds, 86_400))
        .append_column("aspect", aspect)
    )


def _tables(
    log: pa.Table, users: pa.Table, videos: pa.Table, past: Past | None
) -> Iterator[pa.Table]:
    """The prepared rows, a part at a time."""
    known = writing.lookup(log["video_id"], videos, "video_id")
    of_user = writing.lookup(log["user_id"], users, "user_id")
    wide = _context(log, known)
    for table in (
        of_user,
        known,
        _counters(log, known),
        past_counters(log, known, videos, past),
    ):
        for name in table.column_names:
            wide = wide.append_column(name, table[name])
    own, both = _events(log, None), _events(log, past)
    query = (ints(log["user_id"]), ints(log["time_ms"]))
    own_windows = past_windows(own.user, own.time, *query, HISTORY)
    both_windows = past_windows(both.user, both.time, *query, HISTORY)
    for first, last in writing.parts(log.num_rows):
        part = wide.slice(first, last - first)
        for prefix, events, windows in (
            ("history", own, own_windows),
            ("recent", both, both_windows),
        ):
            lists = _lists(prefix, events, windows, videos, query[1], first, last)
            for name, values in lists.items():
                part = part.append_column(name, values)
        yield with_past_lists(part, past)


def _context(log: pa.Table, known: pa.Table) -> pa.Table:
    """The log with row and request ids, the day in China and the video's age."""
    day = _day(log)
    text = functools.partial(pc.cast, target_type=pa.string())
    request = pc.binary_join_element_wise(
        text(log["user_id"]), text(log["time_ms"]), "-"
    )
    days = pa.array(day.astype("datetime64[D]"))
    duration = pc.if_else(
        pc.greater(log["duration_ms"], 0),
        pc.cast(log["duration_ms"], pa.float64()),
        known["video_duration"],
    )
    return (
        log.append_column("row_id", pa.array(np.arange(log.num_rows)))
        .append_column("request_id", request)
        .append_column("day", pc.strftime(days, "%Y-%m-%d"))
        .append_column("length_ms", duration)
        .append_column(
            "video_age_days", pc.subtract(pa.array(day), known["upload_day"])
        )
    )


def _labels(log: pa.Table) -> dict[str, Floats]:
    return {
        "click": floats(log["is_click"]),
        "long_view": floats(log["long_view"]),
        "like": floats(log["is_like"]),
        "profile_enter": floats(log["is_profile_enter"]),
    }


def _counters(log: pa.Table, known: pa.Table) -> pa.Table:
    """Impressions and smoothed rates of the past of user, video, author and tag."""
    user, time, day = ints(log["user_id"]), ints(log["time_ms"]), _day(log)
    video = ints(log["video_id"])
    author = ints(pc.fill_null(known["author_id"], -1))
    tag = codes(numbered(known["first_tag"]))[0]
    (user,), (video_code,), (author,) = codes(user), codes(video), codes(author)
    pasts = {
        "user": (user, time),
        "user_tab": (pair_codes(user, codes(ints(log["tab"]))[0])[0], time),
        "user_author": (pair_codes(user, author)[0], time),
        "user_tag": (pair_codes(user, tag)[0], time),
        "user_video": (pair_codes(user, video_code)[0], time),
        "video": (video_code, day),
        "author": (author, day),
        "tag": (tag, day),
    }
    labels = _labels(log)
    columns: dict[str, Floats] = {}
    for name, (key, when) in pasts.items():
        windows = past_windows(key, when, key, when)
        trials = windows.lengths.astype(np.float64)
        columns[f"{name}_impressions"] = trials
        wanted = (
            labels
            if name in ("user", "video", "author", "tag")
            else ("click", "long_view")
        )
        for label in wanted:
            hits = past_sums(windows, labels[label])
            weight = WEIGHT if name in ("video", "author", "tag") else WEIGHT / 4
            columns[f"{name}_{label}_rate"] = smoothed_rate(
                hits, trials, PRIORS[label], weight
            )
    return pa.table(columns)


def _events(log: pa.Table, past: Past | None) -> _Events:
    labels = _labels(log)
    strongest = np.zeros(log.num_rows, np.int64)
    for rank, label in enumerate(("click", "long_view", "like"), start=1):
        strongest = np.where(labels[label] > 0, rank, strongest)
    user, video = ints(log["user_id"]), ints(log["video_id"])
    time, tab = ints(log["time_ms"]), ints(log["tab"])
    if past is not None:
        before = len(past.user)
        seen = 4 + np.where(past.like > 0, 2, np.where(past.long > 0, 1, 0))
        user = np.concatenate([past.user, user])
        video = np.concatenate([past.video, video])
        time = np.concatenate([np.full(before, past.end), time])
        tab = np.concatenate([np.full(before, -1), tab])
        strongest = np.concatenate([seen, strongest])
    names = pa.array(
        ["none", "click", "long_view", "like", "seen", "seen_long", "seen_like"]
    )
    return _Events(user, video, time, tab, names.take(pa.array(strongest)))


def _lists(
    prefix: str,
    events: _Events,
    windows: Windows,
    videos: pa.Table,
    times: Ints,
    first: int,
    last: int,
) -> dict[str, pa.Array]:
    """The aligned list columns of rows first .. last - 1, [last - first] each."""
    offsets, index = windows.flat(first, last)
    lengths = np.diff(offsets)
    small = pa.array(offsets.astype(np.int32))
    video = pa.array(events.video[index])
    known = writing.lookup(
        video, videos.select(["video_id", "author_id", "first_tag"]), "video_id"
    )
    when = events.time[index]
    hours = (np.repeat(times[first:last], lengths) - when) / 3.6e6
    tab = events.tab[index]
    unknown = tab < 0
    columns = {
        "video": video,
        "author": known["author_id"].combine_chunks(),
        "tag": known["first_tag"].combine_chunks(),
        "tab": pa.array(tab, mask=unknown),
        "action": events.action.take(pa.array(index)),
        "hours": pa.array(hours, mask=unknown),
    }
    return {
        f"{prefix}_{name}": pa.ListArray.from_arrays(small, values)
        for name, values in columns.items()
    }


def _day(log: pa.Table) -> Ints:
    """[rows] days since 1970-01-01 in China."""
    return (ints(log["time_ms"]) + _CHINA_MS) // _DAY_MS
