"""MovieLens 1M and 100k: ratings, with the features of users and movies.

Harper & Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 2015. Reads
`ratings.dat`, `users.dat`, `movies.dat` of ml-1m (also as `ratings.part*.dat.gz`, cut
into parts), or `u.data`, `u.user`, `u.item` of ml-100k.

A row is a rating; rows are in order of time. The scenario is the age group: under 25,
25-34, 35 and over, as in the multi-scenario literature. What a row knows of the past,
and in which split it may be used:

- `history_movie`, `history_hours`: the user's last 50 rated movies at strictly earlier
  timestamps, newest last (users rate many movies in the same second; those are not
  each other's past). They tell what was rated, not how. Fit for every split; in a
  random one they hold movies whose ratings are in validation and test, as unlabelled
  past.
- `history_rating`: what the user gave them. Fit for a split by time, where each row's
  past is known when the row is served, as it is to a running system. In a random split
  it would hand the answers of test rows to later training and test rows: don't.
- `history_rating_train`: the same, null where the past rating is itself a validation or
  test row of `split`. Fit for the random split: no label outside the training part is
  in any input.
- `user_*` and `movie_*`: number of strictly earlier ratings, and their smoothed mean
  over all (`*_mean`, as history_rating) or over training rows (`*_mean_train`).

`split` is a random 80/10/10 split by a hash of user and movie. It is a column, so that
the masked histories and the experiment speak of the same rows.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tfmtl.adapters import hashing, locate, raw, writing
from tfmtl.adapters.past import Ints, past_sums, past_windows, smoothed_rate
from tfmtl.adapters.summary import PrepareSummary
from tfmtl.progress import Listener

SOURCE_1M = "https://files.grouplens.org/datasets/movielens/ml-1m.zip"
SOURCE_100K = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
HISTORY = 50
"""Events in a history, at most."""
PRIOR, USER_WEIGHT, MOVIE_WEIGHT = 3.5, 5.0, 20.0
"""Means start at PRIOR, which counts for so many ratings."""
_AGES = (25, 35)
_GROUPS = ("under_25", "25_to_34", "35_plus")
_TIME = raw.Column("int", minimum=0, maximum=1e11)

RATINGS = {
    "user_id": raw.INT,
    "movie_id": raw.INT,
    "rating": raw.Column("int", minimum=1, maximum=5),
    "timestamp": _TIME,
}
USERS_1M = {
    "user_id": raw.INT,
    "gender": raw.OPTIONAL_STRING,
    "age": raw.OPTIONAL_INT,
    "occupation": raw.OPTIONAL_STRING,
    "zip": raw.OPTIONAL_STRING,
}
USERS_100K = {
    name: USERS_1M[name] for name in ("user_id", "age", "gender", "occupation", "zip")
}
MOVIES_1M = {
    "movie_id": raw.INT,
    "title": raw.OPTIONAL_STRING,
    "genres": raw.OPTIONAL_STRING,
}
GENRES_100K = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]


class _Raw(NamedTuple):
    ratings: pa.Table
    users: pa.Table
    movies: pa.Table
    files: list[pathlib.Path]
    rejects: raw.Rejects
    rejected: int


def prepare_1m(
    source: pathlib.Path, out: pathlib.Path, listener: Listener
) -> PrepareSummary:
    """Writes `logs/`, `users.parquet`, `movies.parquet` and `rejected.parquet`."""
    listener.stage("read", None)
    rejects = raw.Rejects()
    patterns = ["ratings.dat", "ratings.part*.dat"]
    files = locate.find(source, patterns, "ratings.dat", SOURCE_1M)
    options = {"delimiter": "::", "encoding": "latin-1", "quoted": False}
    tables = []
    for name, columns in (("users.dat", USERS_1M), ("movies.dat", MOVIES_1M)):
        file = locate.find(source, [name], name, SOURCE_1M)[0]
        tables.append(
            raw.read_table(file, columns, rejects, names=list(columns), **options)  # type: ignore[arg-type]
        )
    users, movies = tables
    before = len(rejects)
    ratings = pa.concat_tables(
        raw.read_table(f, RATINGS, rejects, names=list(RATINGS), **options)  # type: ignore[arg-type]
        for f in files
    )
    genres = pc.split_pattern(movies["genres"], "|")
    movies = movies.set_column(movies.column_names.index("genres"), "genres", genres)
    found = _Raw(ratings, users, movies, files, rejects, len(rejects) - before)
    return _prepare("movielens-1m", found, out, listener)


def prepare_100k(
    source: pathlib.Path, out: pathlib.Path, listener: Listener
) -> PrepareSummary:
    """Writes `logs/`, `users.parquet`, `movies.parquet` and `rejected.parquet`."""
    listener.stage("read", None)
    rejects = raw.Rejects()
    files = locate.find(source, ["u.data"], "u.data", SOURCE_100K)
    users = raw.read_table(
        locate.find(source, ["u.user"], "u.user", SOURCE_100K)[0],
        USERS_100K,
        rejects,
        names=list(USERS_100K),
        delimiter="|",
        encoding="latin-1",
        quoted=False,
    )
    flags = dict.fromkeys(GENRES_100K, raw.FLAG)
    columns = {"movie_id": raw.INT, "title": raw.OPTIONAL_STRING} | flags
    items = raw.read_table(
        locate.find(source, ["u.item"], "u.item", SOURCE_100K)[0],
        columns,
        rejects,
        names=["movie_id", "title", "released", "video_released", "url", *GENRES_100K],
        delimiter="|",
        encoding="latin-1",
        quoted=False,
    )
    before = len(rejects)
    ratings = raw.read_table(
        files[0], RATINGS, rejects, names=list(RATINGS), delimiter="\t", quoted=False
    )
    movies = items.select(["movie_id", "title"]).append_column("genres", _genres(items))
    found = _Raw(ratings, users, movies, files, rejects, len(rejects) - before)
    return _prepare("movielens-100k", found, out, listener)


def _genres(items: pa.Table) -> pa.Array:
    """[items] list of names from a 0/1 column per genre."""
    flags = np.stack([items[g].to_numpy() for g in GENRES_100K], axis=1)
    offsets = np.concatenate([[0], np.cumsum(flags.sum(axis=1))]).astype(np.int32)
    names = pa.array(GENRES_100K).take(pa.array(np.nonzero(flags)[1]))
    return pa.ListArray.from_arrays(pa.array(offsets), names)


def _prepare(
    name: str, found: _Raw, out: pathlib.Path, listener: Listener
) -> PrepareSummary:
    rows_read = found.ratings.num_rows + found.rejected
    ratings, dropped = writing.drop_duplicates(found.ratings)
    keys = ("timestamp", "user_id", "movie_id")
    ratings = ratings.sort_by([(key, "ascending") for key in keys])
    users, movies = _users(found.users), _movies(found.movies)
    listener.stage("write", ratings.num_rows)
    written = writing.write_logs(out, _tables(ratings, users, movies), listener)
    writing.write_side(out, "users", users)
    writing.write_side(out, "movies", movies)
    found.rejects.write(out)
    groups = writing.lookup(ratings["user_id"], users, "user_id")["age_group"]
    return PrepareSummary(
        name=name,
        rows_read=rows_read,
        rows_written=written,
        duplicates_dropped=dropped,
        rows_rejected=found.rejected,
        positive_rates={
            "rating >= 4": writing.rate(pc.greater_equal(ratings["rating"], 4)),
            "rating == 5": writing.rate(pc.equal(ratings["rating"], 5)),
        },
        rows_by_scenario=writing.counts(groups),
        files=tuple(f.name for f in found.files),
        notes=("history_rating is for splits by time only; see the adapter",),
    )


def _users(users: pa.Table) -> pa.Table:
    age = users["age"]
    group = pc.if_else(
        pc.less(age, _AGES[0]),
        _GROUPS[0],
        pc.if_else(pc.less(age, _AGES[1]), _GROUPS[1], _GROUPS[2]),
    )
    zip3 = pc.utf8_slice_codeunits(users["zip"], 0, 3)
    return users.append_column("age_group", group).append_column("zip3", zip3)


def _movies(movies: pa.Table) -> pa.Table:
    year = pc.struct_field(
        pc.extract_regex(movies["title"], r"\((?P<year>\d{4})\)\s*$"), "year"
    )
    return movies.append_column("year", pc.cast(year, pa.int64()))


def _tables(ratings: pa.Table, users: pa.Table, movies: pa.Table) -> Iterator[pa.Table]:
    """The prepared rows, a part at a time."""
    user, movie = ratings["user_id"].to_numpy(), ratings["movie_id"].to_numpy()
    time = ratings["timestamp"].to_numpy()
    values = ratings["rating"].to_numpy()
    split = random_split(user, movie)
    train = split == 0
    windows = past_windows(user, time, user, time, HISTORY)
    wide = _context(ratings, split)
    wide = _joined(wide, writing.lookup(ratings["user_id"], users, "user_id"))
    wide = _joined(wide, writing.lookup(ratings["movie_id"], movies, "movie_id"))
    wide = _joined(wide, _counters(user, movie, time, values, train))
    events = {
        "history_movie": ratings["movie_id"].combine_chunks(),
        "history_rating": ratings["rating"].combine_chunks(),
        "history_rating_train": pa.array(values, mask=~train),
    }
    for first, last in writing.parts(ratings.num_rows):
        part = wide.slice(first, last - first)
        lists = writing.list_columns(windows, first, last, events)
        offsets, index = windows.flat(first, last)
        hours = (np.repeat(time[first:last], np.diff(offsets)) - time[index]) / 3600
        lists["history_hours"] = pa.ListArray.from_arrays(
            lists["history_movie"].offsets, pa.array(hours)
        )
        for name, array in lists.items():
            part = part.append_column(name, array)
        yield part


def _joined(table: pa.Table, more: pa.Table) -> pa.Table:
    for name in more.column_names:
        table = table.append_column(name, more[name])
    return table


def _context(ratings: pa.Table, split: npt.NDArray[np.int64]) -> pa.Table:
    user, movie = (
        pc.cast(ratings[name], pa.string()) for name in ("user_id", "movie_id")
    )
    names = pa.array(hashing.SPLIT_NAMES)
    return ratings.append_column(
        "row_id", pc.binary_join_element_wise(user, movie, "-")
    ).append_column("split", names.take(pa.array(split)))


def random_split(user: Ints, movie: Ints) -> npt.NDArray[np.int64]:
    """[rows] 0 train (80 %), 1 validation (10 %), 2 test (10 %), by hash of the pair.

    The same rows on every machine, whatever the order of the file.
    """
    return hashing.split((user.astype(np.int64) << 32) ^ movie.astype(np.int64))


def _counters(
    user: Ints, movie: Ints, time: Ints, values: Ints, train: npt.NDArray[np.bool_]
) -> pa.Table:
    columns = {}
    for name, key, weight in (
        ("user", user, USER_WEIGHT),
        ("movie", movie, MOVIE_WEIGHT),
    ):
        windows = past_windows(key, time, key, time)
        number = windows.lengths.astype(np.float64)
        columns[f"{name}_ratings"] = number
        columns[f"{name}_mean"] = smoothed_rate(
            past_sums(windows, values), number, PRIOR, weight
        )
        columns[f"{name}_mean_train"] = smoothed_rate(
            past_sums(windows, np.where(train, values, 0)),
            past_sums(windows, train),
            PRIOR,
            weight,
        )
    return pa.table(columns)
