"""Raw Arrow columns to canonical ones, vectorised; says which rows do not parse.

Every function returns the canonical column and a mask of the rows that have to be
rejected; rejected rows hold a placeholder.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import typed_text
from pipeline.plan import MISSING_TIME
from tfmtl.errors import DataError
from tfmtl.schema.canonical import canonical_string

PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_TRUTH = {"true": "1", "false": "0"}
_NO_NUMBER = ("", "nan", "null", "none")


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text, encoded by a dictionary or not."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists."""
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
    )


def strings(
    array: pa.Array, untyped: bool = False, kept: Sequence[str] = ()
) -> tuple[pa.Array, np.ndarray]:
    """The vectorised twin of `tfmtl.schema.canonical.canonical_string`.

    Args:
        array: A scalar column of any type.
        untyped: Whether it comes from a file without types, in which booleans and
            numbers are text, see `typed_text`.
        kept: Texts of such a file that stay as they are.

    Returns:
        large_string [rows] without nulls ("" is missing), and a mask of the rows whose
        bytes are no UTF-8.
    """
    array = decoded(array)
    kind = array.type
    valid = np.zeros(len(array), bool)
    if is_text(kind):
        text, bad = _utf8(array)
        return (typed_text.canonical(text, kept) if untyped else text), bad
    if pa.types.is_null(kind):
        return pa.array([""] * len(array), pa.large_string()), valid
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        encoded = array.dictionary_encode()
        values = (
            encoded.dictionary.to_numpy(zero_copy_only=False)
            if pa.types.is_floating(kind)
            else encoded.dictionary.to_pylist()
        )
        text = pa.array([canonical_string(v) for v in values], pa.large_string())
        return pc.fill_null(text.take(encoded.indices), ""), valid
    if pa.types.is_nested(kind):
        raise DataError(f"a single value is needed where the column holds {kind}")
    return pc.fill_null(array.cast(pa.large_string()), ""), valid


def numbers(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of a column; null, "" and NaN are missing.

    Args:
        array: Integers, floats, booleans, decimals or text.

    Returns:
        float64 [rows] with NaN for missing, and a mask of the rows that are no number.
    """
    array = decoded(array)
    if is_text(array.type):
        return _parsed(array)
    if pa.types.is_null(array.type):
        return np.full(len(array), np.nan), np.zeros(len(array), bool)
    if pa.types.is_temporal(array.type) or pa.types.is_nested(array.type):
        raise DataError(f"a number is needed where the column holds {array.type}")
    plain = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(plain, np.float64), np.zeros(len(array), bool)


def times(array: pa.Array, unit: str, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Times since 1970-01-01 UTC as integers.

    Args:
        array: Arrow timestamps or dates, numbers, or text (numbers or ISO 8601).
        unit: Of plain numbers: s, ms or us.
        target: Unit of the result.

    Returns:
        int64 [rows] with `MISSING_TIME` for missing, and a mask of the rows that are no
        time.
    """
    array = decoded(array)
    if pa.types.is_temporal(array.type):
        return _stamps(array, target)
    factor = PER_SECOND[target] / PER_SECOND[unit]
    if pa.types.is_integer(array.type) and factor >= 1:
        missing = pc.is_null(array).to_numpy(zero_copy_only=False)
        wide = pc.fill_null(array, 0).cast(pa.int64(), safe=False)
        ticks = wide.to_numpy(zero_copy_only=False)
        bad = np.abs(ticks.astype(np.float64)) * factor >= 2.0**62
        ticks = np.where(bad | missing, 0, ticks) * np.int64(factor)
        return np.where(missing, MISSING_TIME, ticks), bad & ~missing
    values, bad = numbers(array)
    if bad.any():
        stamps, bad = _parsed_stamps(array, bad)
        values = np.where(np.isnan(stamps), values, stamps * PER_SECOND[unit] / 1e6)
    scaled = values * factor
    missing = np.isnan(scaled)
    bad |= np.abs(np.where(missing, 0, scaled)) >= 2.0**62
    whole = np.where(missing | bad, 0, scaled)
    # Seconds with a fraction become microseconds by rounding, a coarser unit by floor.
    ticks = (np.rint(whole) if factor > 1 else np.floor(whole)).astype(np.int64)
    return np.where(missing, MISSING_TIME, ticks), bad


def lists(array: pa.Array, separator: str | None) -> tuple[pa.Array, np.ndarray]:
    """Values and lengths of a list column, or of text with a separator.

    Args:
        array: Lists, or text where `separator` is given; null and "" are empty.
        separator: Splits text.

    Returns:
        The flat values, and int64 [rows] lengths.

    Raises:
        DataError: The column holds neither lists nor text with a separator.
    """
    array = decoded(array)
    if pa.types.is_null(array.type):
        return pa.nulls(0), np.zeros(len(array), np.int64)
    if is_text(array.type) and separator is not None:
        text = array.cast(pa.large_string())
        text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.large_string()), text)
        array = pc.split_pattern(text, separator)
    if not is_list(array.type):
        raise DataError(
            "a list is needed, or text together with `separator:`, where the column "
            f"holds {array.type}"
        )
    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.large_list(array.type.value_type))
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    return array.flatten(), lengths.to_numpy(zero_copy_only=False).astype(np.int64)


def list_array(values: pa.Array, lengths: np.ndarray) -> pa.Array:
    """Puts values and lengths together to a large_list column."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return pa.LargeListArray.from_arrays(pa.array(offsets), values)


def any_in_row(flags: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Whether any of a row's values is flagged: bool [rows]."""
    if not flags.any():
        return np.zeros(len(lengths), bool)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(rows[flags], minlength=len(lengths)) > 0


def kept_positions(
    present: np.ndarray, lengths: np.ndarray, max_length: int, newest: bool
) -> np.ndarray:
    """Which values of ragged rows the transform graph keeps.

    Args:
        present: bool [values], whether the value is there.
        lengths: int64 [rows].
        max_length: Keep at most so many of a row.
        newest: Keep the last ones instead of the first ones.

    Returns:
        bool [values].
    """
    rows = np.repeat(np.arange(len(lengths)), lengths)
    counts = np.bincount(rows[present], minlength=len(lengths))
    before = np.cumsum(present) - present  # present values before this one, all rows
    rank = before - np.repeat(np.cumsum(counts) - counts, lengths)
    if newest:
        return np.asarray(present & (rank >= np.repeat(counts, lengths) - max_length))
    return np.asarray(present & (rank < max_length))


def decoded(array: pa.Array) -> pa.Array:
    """One plain array: chunks combined, dictionaries decoded."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_dictionary(array.type):
        return array.dictionary_decode()
    return array


def _utf8(array: pa.Array) -> tuple[pa.Array, np.ndarray]:
    raw = pc.fill_null(array.cast(pa.large_binary()), b"")
    try:
        # The cast from binary checks the encoding; a cast between text types does not.
        return raw.cast(pa.large_string()), np.zeros(len(array), bool)
    except pa.ArrowInvalid:
        encoded = raw.dictionary_encode()
        broken = np.array([_broken(v) for v in encoded.dictionary.to_pylist()])
        bad = broken[encoded.indices.to_numpy(zero_copy_only=False)]
        clean = pc.if_else(pa.array(bad), pa.scalar(b"", pa.large_binary()), raw)
        return clean.cast(pa.large_string()), bad


def _broken(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return True
    return False


def _parsed(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    text, bad = _utf8(array)
    text = pc.utf8_trim_whitespace(text)
    try:
        filled = pc.if_else(pc.equal(text, ""), "nan", text)
        values = filled.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return values, bad
    except pa.ArrowInvalid:
        words = pd.Series(text.to_numpy(zero_copy_only=False), dtype=object)
        lower = words.str.lower()
        known = words.where(~lower.isin(list(_TRUTH)), lower.map(_TRUTH))
        values = pd.to_numeric(known, errors="coerce").to_numpy(np.float64)
        return values, bad | (np.isnan(values) & ~lower.isin(_NO_NUMBER).to_numpy())


def _stamps(array: pa.Array, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Arrow timestamps and dates; a time that 64 bits of microseconds lack is none."""
    stamp = array.cast(pa.timestamp("us"), safe=False)
    missing = pc.is_null(stamp).to_numpy(zero_copy_only=False)
    ticks = pc.fill_null(stamp.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    # The cast above wraps around and says nothing.
    whole = array.cast(pa.int32()) if pa.types.is_date32(array.type) else array
    own = pc.fill_null(whole.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    factor = PER_SECOND["us"] / _ticks_per_second(array.type)
    bad = (np.abs(own.astype(np.float64)) * factor >= 2.0**62) & ~missing
    ticks = np.where(bad, 0, ticks) // (PER_SECOND["us"] // PER_SECOND[target])
    return np.where(missing, MISSING_TIME, ticks), bad


def _ticks_per_second(kind: pa.DataType) -> float:
    if pa.types.is_date32(kind):
        return 1 / 86_400
    return PER_SECOND["ms" if pa.types.is_date64(kind) else kind.unit]


def _parsed_stamps(array: pa.Array, bad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds of ISO 8601 texts (NaN elsewhere), and what is left unparsed."""
    text, _ = _utf8(array)
    words = pd.Series(text.to_numpy(zero_copy_only=False), dtype=object)[bad]
    parsed = pd.to_datetime(words, errors="coerce", format="ISO8601", utc=True)
    stamps = np.full(len(bad), np.nan)
    good = parsed.notna().to_numpy()
    ticks = parsed.dt.tz_localize(None).to_numpy("datetime64[us]").astype(np.int64)
    where = np.flatnonzero(bad)
    stamps[where[good]] = ticks[good]
    left = bad.copy()
    left[where[good]] = False
    return stamps, left
