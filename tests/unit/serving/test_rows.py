"""Rows -> columns: missing values, canonical strings, padding, places of errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from serving.rows import InputSpec, encode_rows
from tfmtl.errors import ConfigError
from tfmtl.schema.kept import Kept

INPUTS = {
    "user": InputSpec("DT_STRING", (-1,)),
    "price": InputSpec("DT_FLOAT", (-1,)),
    "tags": InputSpec("DT_STRING", (-1, -1)),
    "ages": InputSpec("DT_FLOAT", (-1, -1)),
    "vector": InputSpec("DT_FLOAT", (-1, 3)),
    "time": InputSpec("DT_INT64", (-1,)),
}


def same(left, right):
    return np.array_equal(np.array(left), np.array(right), equal_nan=True)


def test_everything_missing():
    columns = encode_rows([{}], INPUTS)
    assert columns["user"] == [""]
    assert same(columns["price"], [math.nan])
    assert columns["tags"] == [[""]]
    assert same(columns["ages"], [[math.nan]])
    assert same(columns["vector"], [[math.nan] * 3])
    assert columns["time"] == [-(2**63)]


@pytest.mark.parametrize("missing", [None, math.nan, np.float32("nan")])
def test_none_and_nan_are_missing(missing):
    row = {"user": missing, "price": missing, "time": missing, "tags": [missing, "a"]}
    columns = encode_rows([row], INPUTS)
    assert columns["user"] == [""]
    assert same(columns["price"], [math.nan])
    assert columns["time"] == [-(2**63)]
    assert columns["tags"] == [["", "a"]]


def test_one_category_whatever_its_type():
    values = (5, 5.0, "5", np.int32(5), np.float32(5), True)
    rows = [{"user": value} for value in values]
    assert encode_rows(rows, INPUTS)["user"] == ["5"] * 5 + ["true"]


def test_lists_are_padded_at_their_end_to_one_length():
    rows = [
        {"tags": ["old", "new"], "ages": [3, 2]},
        {"tags": np.array(["x"]), "ages": ()},
        {"tags": [1, 2.0, True]},
    ]
    columns = encode_rows(rows, INPUTS)
    assert columns["tags"] == [["old", "new", ""], ["x", "", ""], ["1", "2", "true"]]
    nan = math.nan
    assert same(columns["ages"], [[3.0, 2.0, nan], [nan] * 3, [nan] * 3])
    assert type(columns["ages"][0][0]) is float


LISTS = {
    "tags": InputSpec.of("DT_STRING", [(-1, ""), (-1, "first 3 of tags")]),
    "past_age": InputSpec.of("DT_FLOAT", [(-1, ""), (-1, "last 3 of past_item")]),
    "past_item": InputSpec.of("DT_STRING", [(-1, ""), (-1, "last 3 of past_item")]),
}
LONG = {
    "tags": ["a", None, "b", "", "c", "d"],
    "past_item": ["i1", "i2", "i3", None, "i4"],
    "past_age": [5, 4, None, 2, 1],
}


def test_a_set_keeps_its_first_values_and_a_sequence_its_newest():
    columns = encode_rows([LONG], LISTS)
    assert columns["tags"] == [["a", "b", "c"]]
    assert columns["past_item"] == [["i2", "i3", "i4"]]
    assert same(columns["past_age"], [[4.0, math.nan, 1.0]])


def test_a_given_length_cuts_the_same_ends():
    columns = encode_rows([LONG, {"tags": ["d"]}], LISTS, sequence_length=2)
    assert columns["tags"] == [["a", "b"], ["d", ""]]
    assert columns["past_item"] == [["i3", "i4"], ["", ""]]
    assert same(columns["past_age"], [[math.nan, 1.0], [math.nan] * 2])
    columns = encode_rows([LONG], LISTS, sequence_length=4)
    assert columns["tags"] == [["a", "b", "c", ""]]


def test_a_list_of_the_sequence_may_be_missing():
    columns = encode_rows([{"past_item": ["i1", "i2"]}, {"past_age": [1]}], LISTS)
    assert columns["past_item"] == [["i1", "i2"], ["", ""]]
    assert same(columns["past_age"], [[math.nan] * 2] * 2)


def test_lists_of_one_sequence_must_be_equally_long():
    rows = [{}, {"past_item": ["i1", "i2"], "past_age": [1]}]
    with pytest.raises(ConfigError, match=r"rows\[11\]\['past_age'\].*'past_item', 2"):
        encode_rows(rows, LISTS, first_row=10)


def test_a_list_is_not_cut_at_an_end_that_nobody_named():
    rows = [{"tags": ["d"]}, {"tags": ["a", "b", "c"]}]
    with pytest.raises(ConfigError, match=r"rows\[1\]\['tags'\] must hold at most"):
        encode_rows(rows, INPUTS, sequence_length=2)
    assert encode_rows(rows[:1], INPUTS, sequence_length=2)["tags"] == [["d", ""]]


def test_a_list_that_keeps_values_of_no_list():
    inputs = {"a": InputSpec("DT_STRING", (-1, -1), Kept("last", 3, "b"))}
    with pytest.raises(ConfigError, match="'a' keeps the last 3 of b"):
        encode_rows([{}], inputs)


@pytest.mark.parametrize("kept", [Kept("first", 1, "a"), Kept("last", 50, "a b of c")])
def test_what_is_kept_can_be_said_in_words(kept):
    assert Kept.parse(str(kept)) == kept


@pytest.mark.parametrize("text", ["", "first 0 of a", "middle 3 of a", "first 3 of "])
def test_any_other_name_of_a_dimension_says_nothing(text):
    assert InputSpec.of("DT_STRING", [(-1, "batch"), (-1, text)]).keep is None


def test_numbers():
    columns = encode_rows(
        [{"price": 2**24 + 1, "time": 5.0}, {"price": True, "time": np.int64(2**62)}],
        INPUTS,
    )
    # Floats also where the row had integers: servers refuse integers beyond 2^24.
    assert [type(value) for value in columns["price"]] == [float, float]
    assert columns["time"] == [5, 2**62]
    assert type(columns["time"][1]) is int


def test_defaults_replace_missing():
    columns = encode_rows(
        [{}, {"user": None}, {"user": np.float32("nan")}, {"user": "u"}],
        INPUTS,
        defaults={"user": 7, "tags": ["t"]},
    )
    assert columns["user"] == ["7", "7", "7", "u"]
    assert columns["tags"] == [["t"]] * 4
    with pytest.raises(ConfigError, match="Did you mean 'user'"):
        encode_rows([{}], INPUTS, defaults={"usr": 1})


def test_unknown_keys():
    with pytest.raises(ConfigError) as caught:
        encode_rows([{}, {"prise": 1}], INPUTS, first_row=10)
    message = str(caught.value)
    assert "rows[11]" in message and "'prise'" in message
    assert "Did you mean 'price'?" in message
    assert "ages, price, tags, time, user, vector" in message
    assert encode_rows([{"prise": 1, "user": "u"}], INPUTS, unknown="ignore")[
        "user"
    ] == ["u"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("user", ["a"]),
        ("user", {"a": 1}),
        ("price", "3.5"),
        ("price", [1.0]),
        ("price", 1j),
        ("price", 10**400),
        ("tags", "a|b"),
        ("tags", 5),
        ("tags", [["a"]]),
        ("ages", ["x"]),
        ("vector", [1.0, 2.0]),
        ("vector", 1.0),
        ("time", 1.5),
        ("time", "2020-01-01"),
        ("time", 2**63),
        ("time", 1e300),
    ],
)
def test_bad_value_names_row_and_key(name, value):
    with pytest.raises(ConfigError) as caught:
        encode_rows([{}, {name: value}], INPUTS)
    assert f"rows[1][{name!r}]" in str(caught.value)


def test_row_that_is_no_mapping():
    with pytest.raises(ConfigError, match=r"rows\[0\] must be a mapping"):
        encode_rows(["user"], INPUTS)  # type: ignore[list-item]


def test_types_without_a_missing_value():
    inputs = {"flag": InputSpec("DT_BOOL", (-1,)), "small": InputSpec("DT_INT8", (-1,))}
    assert encode_rows([{"flag": True, "small": 127}], inputs)["small"] == [127]
    with pytest.raises(ConfigError, match=r"rows\[0\]\['flag'\] is missing"):
        encode_rows([{"small": 1}], inputs)
    with pytest.raises(ConfigError, match="integer in range"):
        encode_rows([{"flag": True, "small": 128}], inputs)


def test_serialized_protos_stay_bytes():
    inputs = {"examples": InputSpec("DT_STRING", (-1,))}
    assert encode_rows([{"examples": b"\x0a\xff"}], inputs)["examples"] == [b"\x0a\xff"]
