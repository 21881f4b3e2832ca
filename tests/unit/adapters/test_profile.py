"""Profiles of raw columns against figures counted by hand."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmtl.adapters import profile as module
from tfmtl.adapters.profile import profile
from tfmtl.errors import DataError

TABLE = pa.table(
    {
        "user": pa.array(["a", "b", "a", None]),
        "price": pa.array([1.0, math.nan, 4.0, None]),
        "count": pa.array([3, 3, 2, -5], pa.int32()),
        "tags": pa.array([["x", "y"], [], None, ["x"]]),
        "when": pa.array([0, 1, 2, 3], pa.timestamp("ms")),
    }
)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_figures(tmp_path, batch):
    pq.write_table(TABLE, tmp_path / "part.parquet", row_group_size=batch)
    user, price, count, tags, when = profile(tmp_path / "part.parquet")
    assert [user.rows, user.nulls, user.distinct, user.top] == [
        4,
        1,
        2,
        (("a", 2), ("b", 1)),
    ]
    assert (user.least, user.mean, user.most) == (None, None, None)
    assert (price.nulls, price.least, price.mean, price.most) == (1, 1.0, 2.5, 4.0)
    assert (count.least, count.mean, count.most) == (-5.0, 0.75, 3.0)
    assert (tags.nulls, tags.distinct, tags.mean) == (1, 2, 1.0)
    assert tags.top[0] == ("x", 2)
    assert when.type == "timestamp[ms]" and when.distinct == 4


def test_a_folder_is_read_whole(tmp_path):
    for part in range(3):
        pq.write_table(TABLE, tmp_path / f"part-{part}.parquet")
    assert profile(tmp_path)[0].rows == 12


def test_csv_and_tsv(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,a\n2,b\n")
    (tmp_path / "a.tsv").write_text("x\ty\n1\ta\n2\tb\n")
    for name in ("a.csv", "a.tsv"):
        x, y = profile(tmp_path / name)
        assert (x.name, x.mean, y.top[0]) == ("x", 1.5, ("a", 1))


def test_counting_stops_where_it_would_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_DISTINCT", 2)
    pq.write_table(TABLE, tmp_path / "part.parquet", row_group_size=2)
    when = profile(tmp_path / "part.parquet")[-1]
    assert not when.counted_all and when.distinct >= 2
    assert profile(tmp_path / "part.parquet")[0].rows == 4


def test_nothing_to_read(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(DataError, match=r"must be a Parquet or CSV file"):
            profile(path)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"cut\.parquet' cannot be read"):
        profile(tmp_path / "cut.parquet")
