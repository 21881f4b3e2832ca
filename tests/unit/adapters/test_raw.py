"""Reading publishers' text: every line is a row or a reject with a reason."""

from __future__ import annotations

import gzip

import pyarrow.parquet as pq
import pytest

from tfmtl.adapters import locate, raw
from tfmtl.errors import DataError

COLUMNS = {
    "a": raw.Column("int", minimum=0, maximum=9),
    "b": raw.OPTIONAL_STRING,
    "c": raw.OPTIONAL_FLOAT,
}


def read(tmp_path, content, **options):
    """Table and rejects of a file with this content."""
    path = tmp_path / "x.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rejects = raw.Rejects()
    table = raw.read_table(path, options.pop("columns", COLUMNS), rejects, **options)
    rejects.write(tmp_path)
    return table.to_pylist(), pq.read_table(tmp_path / "rejected.parquet").to_pylist()


def test_good_lines_and_nulls(tmp_path):
    rows, rejected = read(tmp_path, 'x,a,b,c\n0,1,"u,v",2.5\n0, 2 ,,\n')
    assert rows == [{"a": 1, "b": "u,v", "c": 2.5}, {"a": 2, "b": None, "c": None}]
    assert rejected == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1,u", "2 fields instead of 3"),
        ("1,u,1,1", "4 fields instead of 3"),
        (",u,1", "a:  is no whole number from 0 to 9"),
        ("x,u,1", "a: x is no whole number from 0 to 9"),
        ("1.5,u,1", "a: 1.5 is no whole number from 0 to 9"),
        ("10,u,1", "a: 10 is no whole number from 0 to 9"),
        ("-1,u,1", "a: -1 is no whole number from 0 to 9"),
        ("99999999999999999999999,u,1", "is no whole number from 0 to 9"),
        ("1,u,abc", "c: abc is no number"),
        ("1,u,nan", "c: nan is no number"),
    ],
)
def test_malformed_lines_are_kept_with_their_reason(tmp_path, line, reason):
    rows, rejected = read(tmp_path, f"a,b,c\n1,u,1\n{line}\n2,v,2\n")
    assert [row["a"] for row in rows] == [1, 2]
    assert len(rejected) == 1
    assert reason in rejected[0]["reason"]
    assert rejected[0]["file"] == "x.csv"
    assert line.split(",")[0] in rejected[0]["line"]


def test_bytes_outside_the_encoding_are_rejected(tmp_path):
    rows, rejected = read(tmp_path, b"a,b,c\n1,\xff\xfe,1\n2,\xc3\xa9,1\n")
    assert rows == [{"a": 2, "b": "é", "c": 1.0}]
    assert "is no text in UTF-8" in rejected[0]["reason"]


def test_long_delimiters_latin_1_and_comments(tmp_path):
    rows, _ = read(
        tmp_path,
        b"# a note\n1::\xe9::2\n",
        names=["a", "b", "c"],
        delimiter="::",
        encoding="latin-1",
        comment="#",
    )
    assert rows == [{"a": 1, "b": "é", "c": 2.0}]


def test_blocks_carry_every_line(tmp_path, monkeypatch):
    monkeypatch.setattr(raw, "_BLOCK", 1 << 12)
    lines = "".join(f"{i % 10},{'x' * (i % 50)},{i}\n" for i in range(3000))
    rows, rejected = read(tmp_path, "a,b,c\n" + lines)
    assert [row["c"] for row in rows] == list(map(float, range(3000)))
    assert rejected == []


def test_empty_file_of_a_file_without_header(tmp_path):
    assert read(tmp_path, "", names=["a", "b", "c"]) == ([], [])


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(DataError, match=r"lacks the columns \['c'\].*'z'"):
        read(tmp_path, "a,b,z\n1,2,3\n")


def test_truncated_gzip_is_a_data_error(tmp_path):
    path = tmp_path / "x.csv.gz"
    content = gzip.compress(b"a,b,c\n" + b"1,u,2\n" * 10000)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        raw.read_table(path, COLUMNS, raw.Rejects())


def test_find_prefers_plain_and_looks_below(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "log_1.csv.gz").touch()
    assert [f.name for f in locate.find(tmp_path, ["log_*.csv"], "log", "there")] == [
        "log_1.csv.gz"
    ]
    (tmp_path / "log_2.csv").touch()
    (tmp_path / "log_2.csv.gz").touch()
    assert [f.name for f in locate.find(tmp_path, ["log_*.csv"], "log", "there")] == [
        "log_2.csv"
    ]


def test_find_says_what_is_missing_and_where_it_is(tmp_path):
    (tmp_path / "other.txt").touch()
    with pytest.raises(DataError, match=r"u\.data.*other\.txt.*https://there"):
        locate.find(tmp_path, ["u.data"], "u.data", "https://there")
    with pytest.raises(DataError, match="no folder"):
        locate.find(tmp_path / "absent", ["u.data"], "u.data", "https://there")
