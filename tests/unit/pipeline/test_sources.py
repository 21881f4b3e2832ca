"""Reading CSV: long first rows, lines that are no rows, positions in the file."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import sources
from pipeline.preprocess import run
from pipeline.served import ServedBatch, read_served
from tests.unit.pipeline.test_preprocess import tiny
from tfmtl.errors import DataError


def read(path: pathlib.Path, columns: list[str]) -> list[Any]:
    """All that `sources.read` yields of a file."""
    (unit,) = sources.inspect([str(path)], columns).units
    return list(sources.read(unit, columns))


def test_names_are_found_before_a_first_row_of_megabytes(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"a,b\n{'x' * 10_000_000},1\ny,2\n")
    assert sources.column_names(str(path)) == ["a", "b"]
    (batch,) = read(path, ["a", "b"])
    assert batch.column("b").to_pylist() == [b"1", b"2"]


def test_names_may_hold_line_breaks(tmp_path: pathlib.Path) -> None:
    (tmp_path / "log.csv").write_text('"a\nb",c\n1,2\n')
    assert sources.column_names(str(tmp_path / "log.csv")) == ["a\nb", "c"]


def test_a_row_longer_than_a_block_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_CSV_BLOCK", 1 << 20)
    path = tmp_path / "log.csv"
    path.write_text(f"a,b\n{'x' * 3_000_000},1\ny,2\n")
    with pytest.raises(DataError, match="row is longer than 1 MiB, or a quote"):
        read(path, ["a"])


def test_rows_and_broken_lines_know_where_they_stand(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_CSV_BLOCK", 64)
    random = np.random.default_rng(0)
    broken = random.random(500) < 0.3
    lines = [str(n) if bad else f"{n},x" for n, bad in enumerate(broken)]
    lines[7:7] = ["", ""]  # empty lines are no rows
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["a,b", *lines, ""]))
    positions = sources.Positions(0)
    found: dict[int, int] = {}
    for part in read(path, ["a"]):
        if isinstance(part, sources.Broken):
            found |= dict(zip(part.rows, map(int, part.lines), strict=True))
            positions.skip(part.rows)
        else:
            rows = positions.take(part.num_rows).tolist()
            found |= dict(zip(rows, map(int, part.column("a").to_pylist())))
    assert found == {n: n for n in range(500)}


def test_a_broken_line_that_is_no_utf8_ends_nothing(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sources, "_CSV_BLOCK", 64)
    lines = [f"{n},\u00e9{n}".encode() for n in range(60)]
    lines[1] = b"1"
    lines[20] = b"20,\xff"
    lines[30] = b"30,\xff\xfe,6"
    lines[50] = "50,\u00e9,7".encode()
    path = tmp_path / "log.csv"
    path.write_bytes(b"\n".join([b"a,caf\xc3\xa9", *lines, b""]))
    assert sources.column_names(str(path)) == ["a", "caf\u00e9"]
    values: dict[int, Any] = {}
    broken: dict[int, str] = {}
    positions = sources.Positions(0)
    for part in read(path, ["caf\u00e9"]):
        if isinstance(part, sources.Broken):
            broken |= dict(zip(part.rows, part.lines, strict=True))
            positions.skip(part.rows)
        else:
            rows = positions.take(part.num_rows).tolist()
            values |= dict(zip(rows, part.column("caf\u00e9").to_pylist()))
    wanted = {1: "1", 30: "30,\\xff\\xfe,6", 50: "50,\u00e9,7"}
    assert broken == wanted
    assert values == {
        n: line.partition(b",")[2] for n, line in enumerate(lines) if n not in broken
    }
    assert "UnicodeDecodeError" not in capsys.readouterr().err


@given(st.lists(st.booleans()), st.integers(1, 7), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_positions(broken: list[bool], step: int, first: int) -> None:
    positions = sources.Positions(first)
    where = first + np.arange(len(broken))
    lines, rows = where[np.array(broken, bool)], where[~np.array(broken, bool)]
    taken: list[int] = []
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        due = lines[lines < part[-1]]
        positions.skip(due.tolist())
        lines = lines[len(due) :]
        taken += positions.take(len(part)).tolist()
    assert taken == rows.tolist()


def test_dead_letters_behind_a_broken_line_have_their_row(
    tmp_path: pathlib.Path,
) -> None:
    rows = [f"{n},i,1.0,{n % 2},{n}" for n in range(20)]
    rows[3], rows[5], rows[8] = "3,i", "5,i,1.0,7,5", "8,i,dear,0,8"
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["row,item,price,click,time", *rows, ""]))
    run(tiny(), str(path), tmp_path / "out")
    dead = pq.read_table(tmp_path / "out" / "rejected").to_pylist()
    assert [(d["file_row"], d["row"] or d["line"]) for d in dead] == [
        (3, "3,i"),
        (5, "5"),
        (8, "8"),
    ]
    batches = list(read_served(tiny(keys={"timestamp": "time"}).dataset, [str(path)]))
    good = [b.file_row.tolist() for b in batches if isinstance(b, ServedBatch)]
    assert good == [[n for n in range(20) if n not in (3, 8)]]
