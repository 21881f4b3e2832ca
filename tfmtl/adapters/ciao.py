"""Ciao: ratings of products in 28 categories, with the helpfulness of the review.

Tang, Gao, Liu, "mTrust: Discerning multi-faceted trust in a connected world", WSDM
2012. Reads `ciao_rating_with_timestamp.mat` (or
`rating_with_timestamp.mat`), whose matrix `rating` has user, product, category, rating,
helpfulness and time. A row is a review, in order of time; the category is the scenario.
Exact repetitions are dropped; rows with a rating outside 1 .. 5 (34 have a 0) are
rejected.

Times are days, so the past of a row is strictly earlier days: `history_*` (last 50
reviews of the user: product, category, rating, days ago; newest last), and `user_*`,
`product_*` counters with smoothed means of rating. The ratings of the past are fit for
splits by time only. Helpfulness is voted on later than the review is written, at a time
that the data does not tell, so none of it is in any input.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.io

from tfmtl.adapters import locate, raw, writing
from tfmtl.adapters.past import past_sums, past_windows, smoothed_rate
from tfmtl.adapters.summary import PrepareSummary
from tfmtl.errors import DataError
from tfmtl.progress import Listener

SOURCE = "https://www.cse.msu.edu/~tangjili/datasetcode/truststudy.htm"
COLUMNS = ("user_id", "product_id", "category_id", "rating", "helpfulness", "timestamp")
HISTORY = 50
"""Events in a history, at most."""
PRIOR, USER_WEIGHT, PRODUCT_WEIGHT = 4.0, 5.0, 5.0
_DAY = 86_400


def prepare(
    source: pathlib.Path, out: pathlib.Path, listener: Listener
) -> PrepareSummary:
    """Writes `logs/` and `rejected.parquet`."""
    listener.stage("read", None)
    patterns = ["ciao_rating_with_timestamp.mat", "rating_with_timestamp.mat"]
    file = locate.find(source, patterns, patterns[0], SOURCE)[0]
    everything = _matrix(file)
    rejects = raw.Rejects()
    table = _set_aside(everything, file.name, rejects)
    table, dropped = writing.drop_duplicates(table)
    table = table.sort_by([(c, "ascending") for c in ("timestamp", *COLUMNS[:2])])
    listener.stage("write", table.num_rows)
    written = writing.write_logs(out, _tables(table), listener)
    rejects.write(out)
    return PrepareSummary(
        name="ciao",
        rows_read=everything.num_rows,
        rows_written=written,
        duplicates_dropped=dropped,
        rows_rejected=len(rejects),
        positive_rates={
            "rating >= 4": writing.rate(pc.greater_equal(table["rating"], 4)),
            "rating == 5": writing.rate(pc.equal(table["rating"], 5)),
            "helpfulness >= 2": writing.rate(pc.greater_equal(table["helpfulness"], 2)),
        },
        rows_by_scenario=writing.counts(table["category_id"]),
        files=(file.name,),
        notes=("past ratings in inputs are for splits by time only",),
    )


def _matrix(file: pathlib.Path) -> pa.Table:
    try:
        content = scipy.io.loadmat(file)
    except (ValueError, OSError, NotImplementedError, TypeError) as error:
        raise DataError(f"{str(file)!r} is no MATLAB 5 file: {error}") from error
    matrix = content.get("rating")
    if matrix is None or matrix.ndim != 2 or matrix.shape[1] != len(COLUMNS):
        names = {
            k: getattr(v, "shape", None) for k, v in content.items() if k[0] != "_"
        }
        raise DataError(
            f"{str(file)!r} must hold a matrix `rating` of {len(COLUMNS)} columns "
            f"{COLUMNS}. Received: {names}"
        )
    return pa.table({c: matrix[:, i].astype(np.int64) for i, c in enumerate(COLUMNS)})


def _set_aside(table: pa.Table, file: str, rejects: raw.Rejects) -> pa.Table:
    rating = table["rating"]
    good = pc.and_(pc.greater_equal(rating, 1), pc.less_equal(rating, 5))
    bad = table.filter(pc.invert(good)).to_pylist()
    rejects.add(
        file,
        [",".join(str(v) for v in row.values()) for row in bad],
        [f"rating: {row['rating']} is not from 1 to 5" for row in bad],
    )
    return table.filter(good)


def _tables(table: pa.Table) -> Iterator[pa.Table]:
    user, product = table["user_id"].to_numpy(), table["product_id"].to_numpy()
    time, rating = table["timestamp"].to_numpy(), table["rating"].to_numpy()
    day = time // _DAY
    wide = table.append_column("row_id", pa.array(np.arange(len(user))))
    for name, key, weight in (
        ("user", user, USER_WEIGHT),
        ("product", product, PRODUCT_WEIGHT),
    ):
        past = past_windows(key, day, key, day)
        number = past.lengths.astype(np.float64)
        mean = smoothed_rate(past_sums(past, rating), number, PRIOR, weight)
        wide = wide.append_column(f"{name}_reviews", pa.array(number))
        wide = wide.append_column(f"{name}_mean", pa.array(mean))
    windows = past_windows(user, day, user, day, HISTORY)
    events = {
        f"history_{name.removesuffix('_id')}": table[name].combine_chunks()
        for name in ("product_id", "category_id", "rating")
    }
    for first, last in writing.parts(table.num_rows):
        part = wide.slice(first, last - first)
        lists = writing.list_columns(windows, first, last, events)
        offsets, index = windows.flat(first, last)
        ago = np.repeat(day[first:last], np.diff(offsets)) - day[index]
        lists["history_days"] = pa.ListArray.from_arrays(
            lists["history_product"].offsets, pa.array(ago)
        )
        for name, values in lists.items():
            part = part.append_column(name, values)
        yield part
