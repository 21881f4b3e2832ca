"""Files without types and typed values meet in the same categories."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import columns
from pipeline.expressions import evaluate
from pipeline.typed_text import canonical_text
from tests.unit.pipeline.tiny import spec, validated
from tfmtl.schema.canonical import canonical_string
from tfmtl.schema.expression import parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("True", "true"),
        ("FALSE", "false"),
        ("true", "true"),
        ("5.0", "5"),
        ("-12.00", "-12"),
        ("-0.0", "0"),
        ("9007199254740993.0", "9007199254740993"),
        ("1e+16", "10000000000000000"),
        ("1.5E7", "15000000"),
        ("2.5E-5", "2.5e-05"),
    ],
)
def test_what_a_typed_value_was_written_as(text: str, expected: str) -> None:
    assert canonical_text(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "5", "5.5", "1.10", "007", "007.0", "1e5", "12e34", "5.0.0", "v5.0", " 5.0",
     "tRUE", "Truex", "True\n", "nan", "1e+999", ".0", "٣.0"],
)  # fmt: skip
def test_all_other_text_stays(text: str) -> None:
    assert canonical_text(text) == text
    assert columns.strings(pa.array([text]), untyped=True)[0].to_pylist() == [text]


@given(st.lists(st.floats(allow_nan=False)))
@settings(max_examples=50, deadline=None)
def test_any_float_meets_its_text(values: list[float]) -> None:
    written = pa.array([repr(v) for v in values], pa.large_string())
    got, _ = columns.strings(written, untyped=True)
    assert got.to_pylist() == [canonical_string(v) for v in values]


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([True, False, True]),
        pd.Series([True, None, False], dtype="boolean"),
        pd.Series([1, 2, None]),
        pd.Series([1e16, 0.5, -3.0]),
        pd.Series([7, -7, 0]),
    ],
    ids=lambda v: str(v.dtype),
)
def test_what_pandas_writes_meets_the_typed_column(values: pd.Series) -> None:
    text = io.StringIO()
    values.to_frame("v").to_csv(text, index=False)
    cells = [line.strip('"') for line in text.getvalue().split("\n")[1:-1]]
    got, _ = columns.strings(pa.array(cells), untyped=True)
    typed, _ = columns.strings(pa.Array.from_pandas(values))
    assert got.to_pylist() == typed.to_pylist()
    assert got.to_pylist() == [canonical_string(v) for v in values]


DATASET: dict[str, Any] = {
    "features": [
        {"name": "item", "kind": "categorical"},
        {"name": "tags", "kind": "multivalent", "separator": "|"},
    ],
    "scenario": {"column": "page", "values": ["1", "2.0"]},
    "keys": {"user": "user"},
}
RAW = {
    "item": [b"True", b"5.0", b"x"],
    "tags": [b"1.0|True", b"a", b""],
    "page": [b"1.0", b"2.0", b"3.0"],
    "user": [b"7.0", b"8", b""],
    "click": [b"1.0", b"False", b""],
}


def test_every_text_of_a_csv_row_is_canonical() -> None:
    good, dead = validated(spec(**DATASET), RAW, "log.csv.gz")
    assert not dead
    assert good["item"] == ["true", "5", "x"]
    assert good["tags"] == [["1", "true"], ["a"], []]
    assert good["key/user"] == ["7", "8", ""]
    # What the experiment file calls a scenario is one, however it looks.
    assert good["scenario"] == ["1", "2.0", "3"]
    assert good["label/click"][:2] == [1.0, 0.0]


def test_text_of_a_typed_file_stays() -> None:
    good, _ = validated(spec(**DATASET), RAW, "log.parquet")
    assert good["item"] == ["True", "5.0", "x"]
    assert good["key/user"] == ["7.0", "8", ""]


def test_dead_letters_show_what_the_file_holds() -> None:
    _, (dead,) = validated(spec(**DATASET), RAW | {"click": [b"", b"9", b""]}, "a.csv")
    assert dead["item"] == "5.0"


def test_hash_and_given_splits_agree_with_the_typed_file() -> None:
    typed = {"item": [float(n) for n in range(200)], "click": [1] * 200}
    text = typed | {"item": [str(v).encode() for v in typed["item"]]}
    one, _ = validated(spec(), typed)
    two, _ = validated(spec(), text, "log.csv")
    assert one["#split"] == two["#split"]
    given = {"by": "given", "column": "item", "train": ["1"], "test": ["2.0"]}
    good, dead = validated(
        spec(split=given),
        {"item": [b"1.0", b"2.0", b"2"], "click": [b"1"] * 3},
        "log.tsv",
    )
    assert good["#split"] == [0, 2]
    assert len(dead) == 1


@pytest.mark.parametrize(
    "text", ['flag == "True"', 'flag == "true"', 'flag in ["True", "x"]', "flag == 1"]
)
def test_an_expression_may_spell_the_value_either_way(text: str) -> None:
    raw = {"flag": pa.array(["True", "False"])}
    values, bad = evaluate(parse(text), raw, 2, untyped=True)
    assert values.tolist() == [1.0, 0.0]
    assert not bad.any()
