"""What Arrow cannot convert is a dead letter, or an error that names the column."""

from __future__ import annotations

import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import columns, faults
from pipeline.served import ServedBatch, read_served
from tests.unit.pipeline.tiny import spec, validated
from tfmtl.errors import DataError

KEYS = {"row": "row", "user": "user", "timestamp": "time"}
TIME = {"by": "time"}


def raw(**changes: Any) -> dict[str, Any]:
    """Four good rows, with columns replaced."""
    return {
        "row": [1, 2, 3, 4],
        "user": ["a", "b", "c", "d"],
        "item": ["x"] * 4,
        "click": [0, 1, 0, 1],
        "time": [1, 2, 3, 4],
    } | changes


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("time", pa.array([1, 2, 3, 4], pa.time32("s"))),
        ("time", pa.array([1, 2, 3, None], pa.duration("s"))),
        ("user", pa.array([(1, 2, 3)] * 4, pa.month_day_nano_interval())),
        ("row", pa.array([1, 2, 3, 4], pa.timestamp("s", "Nowhere/City"))),
        ("click", pa.array([(1, 2, 3)] * 4, pa.month_day_nano_interval())),
        ("item", pa.array([(1, 2, 3)] * 4, pa.month_day_nano_interval())),
    ],
    ids=lambda v: v if isinstance(v, str) else str(v.type),
)
def test_a_type_that_cannot_be_read_names_the_column(
    column: str, values: pa.Array
) -> None:
    with pytest.raises(DataError, match=f"column '{column}'") as caught:
        validated(spec(keys=KEYS, split=TIME), raw(**{column: values}))
    assert str(values.type) in str(caught.value)


@pytest.mark.parametrize(
    "kind", [pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.date32(), pa.date64()]
)
def test_a_time_beyond_all_bounds_is_a_dead_letter(kind: pa.DataType) -> None:
    far = {"date32[day]": 2**31 - 1, "date64[ms]": 86_400_000 * 10**10}
    values = pa.array([86_400_000, 2 * 86_400_000, far.get(str(kind), 10**18), None],
                      pa.int64())  # fmt: skip
    if pa.types.is_date32(kind):
        values = pa.array([1, 2, far[str(kind)], None], pa.int32())
    good, dead = validated(spec(keys=KEYS, split=TIME), raw(time=values.cast(kind)))
    assert good["key/row"] == ["1", "2"]
    assert [d["reason"] for d in dead] == ["column 'time': missing or not a time"] * 2
    assert dead[0]["time"]
    assert dead[1]["time"] is None


def test_rows_that_arrow_fails_on_are_blamed_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = columns.strings

    def brittle(array: pa.Array, *options: Any) -> Any:
        if "boom" in array.to_pylist():
            raise pa.ArrowInvalid("no such value")
        return plain(array, *options)

    monkeypatch.setattr(columns, "strings", brittle)
    rows = raw(user=["a", "boom", "c", "boom"], item=["boom", "x", "x", "x"])
    good, dead = validated(spec(keys=KEYS, split=TIME), rows)
    assert good["key/row"] == ["3"]
    assert [(d["file_row"], d["reason"]) for d in dead] == [
        (0, "column 'item': a string that cannot be read"),
        (1, "column 'user': a string that cannot be read"),
        (3, "column 'user': a string that cannot be read"),
    ]
    assert dead[1]["user"] == "boom"
    with pytest.raises(DataError, match=r"column 'user'.*no such value"):
        validated(spec(keys=KEYS, split=TIME), raw(user=["boom"] * 4))
    monkeypatch.setattr(faults, "MOST_BLAMED", 1)
    with pytest.raises(DataError, match="column 'user'"):
        validated(spec(keys=KEYS, split=TIME), raw(user=["boom", "boom", "c", "d"]))


def test_a_list_in_one_text_that_is_no_utf8_is_a_dead_letter() -> None:
    feature = {"name": "tags", "kind": "multivalent", "separator": "|"}
    item = {"name": "item", "kind": "categorical"}
    good, (dead,) = validated(
        spec(features=[item, feature]), raw(tags=[b"a|b", b"\xff|c", b"", b"d"])
    )
    assert good["tags"] == [["a", "b"], [], ["d"]]
    assert dead["reason"] == "column 'tags': invalid UTF-8"


def test_scoring_has_the_same_rule(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = columns.strings

    def brittle(array: pa.Array, *options: Any) -> Any:
        if "boom" in array.to_pylist():
            raise pa.ArrowInvalid("no such value")
        return plain(array, *options)

    monkeypatch.setattr(columns, "strings", brittle)
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(raw(item=["x", "boom", "y", "z"])), path)
    dead, good = read_served(spec(keys=KEYS), [str(path)])
    assert isinstance(good, ServedBatch)
    assert good.file_row.tolist() == [0, 2, 3]
    assert isinstance(dead, pa.Table)
    assert dead["reason"].to_pylist() == ["column 'item': a string that cannot be read"]
    pq.write_table(pa.table(raw(item=["boom"] * 4)), path)
    with pytest.raises(DataError, match=r"column 'item' of .*log.parquet"):
        list(read_served(spec(keys=KEYS), [str(path)]))
