"""Hashes of Arrow columns: vectorised, the same on every machine and in every process.

They decide splits, shards and the order of rows, and find duplicates; none of them is
part of the served model, whose ids TensorFlow's own Fingerprint64 decides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_NULL = np.uint64(0x5851F42D4C957F2D)
_BYTES_AT_ONCE = 1 << 22


def mix(x: np.ndarray) -> np.ndarray:
    """Scrambles 64-bit integers: the finaliser of splitmix64 (Steele et al., 2014).

    A bijection, so that distinct inputs keep distinct outputs.
    """
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return np.asarray(x ^ (x >> np.uint64(31)))


def hash_rows(arrays: Sequence[pa.Array], seed: int = 0) -> np.ndarray:
    """One 64-bit hash for each row over several columns of equal length.

    Args:
        arrays: Columns; the order counts.
        seed: Another seed gives an independent hash.

    Returns:
        uint64 [rows].
    """
    total = np.full(len(arrays[0]) if arrays else 0, np.uint64(seed), np.uint64)
    for array in arrays:
        total = mix(total ^ hash_array(array, seed)) * _MIX_1
    return mix(total)


def hash_array(array: pa.Array, seed: int = 0) -> np.ndarray:
    """One 64-bit hash for each value of a column, nulls included.

    Args:
        array: Any primitive, text, binary, list or dictionary column.
        seed: Another seed gives an independent hash.

    Returns:
        uint64 [rows].
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return hash_array(array.dictionary_decode(), seed)
    if pa.types.is_null(kind):
        return np.full(len(array), _NULL, np.uint64)
    if pa.types.is_fixed_size_list(kind):
        return _hash_lists(array.cast(pa.large_list(kind.value_type)), seed)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _hash_lists(array, seed)
    if pa.types.is_floating(kind):
        # 0.0 and -0.0 are equal, and so is one NaN to another.
        numbers = array.cast(pa.float64()).to_numpy(zero_copy_only=False) + 0.0
        numbers = np.where(np.isnan(numbers), np.nan, numbers)
        hashed = mix(numbers.astype(np.float64).view(np.uint64) ^ np.uint64(seed))
    elif pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        wide = array.cast(pa.uint64() if kind == pa.uint64() else pa.int64())
        filled = pc.fill_null(wide, 0).to_numpy(zero_copy_only=False)
        hashed = mix(filled.view(np.uint64) ^ np.uint64(seed))
    elif pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        hashed = _hash_text(pc.cast(array, pa.large_string()), seed)
    else:
        hashed = _hash_text(array, seed)
    if array.null_count:
        missing = pc.is_null(array).to_numpy(zero_copy_only=False)
        hashed = np.where(missing, _NULL, hashed)
    return hashed


def unit_interval(hashes: np.ndarray) -> np.ndarray:
    """Maps hashes to float64 numbers in [0, 1), evenly."""
    return np.asarray((hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _hash_text(array: pa.Array, seed: int) -> np.ndarray:
    encoded = pc.fill_null(array.cast(pa.large_binary()), b"").dictionary_encode()
    distinct = encoded.dictionary
    offsets = np.frombuffer(distinct.buffers()[1], np.int64)
    offsets = offsets[distinct.offset : distinct.offset + len(distinct) + 1]
    data = distinct.buffers()[2]
    flat = np.frombuffer(data if data is not None else b"", np.uint8)
    sums = np.zeros(len(distinct), np.uint64)
    start = 0
    while start < len(distinct):
        stop = int(
            np.searchsorted(offsets, offsets[start] + _BYTES_AT_ONCE, side="right") - 1
        )
        stop = min(max(stop, start + 1), len(distinct))
        sums[start:stop] = _sum_of_bytes(flat, offsets[start : stop + 1], seed)
        start = stop
    lengths = np.diff(offsets).astype(np.uint64)
    hashed = mix(sums ^ (lengths * _GOLDEN) ^ np.uint64(seed))
    return np.asarray(hashed[encoded.indices.to_numpy(zero_copy_only=False)])


def _sum_of_bytes(flat: np.ndarray, offsets: np.ndarray, seed: int) -> np.ndarray:
    """Sums a scrambled (position, byte) over each value, modulo 2^64."""
    base, lengths = offsets[0], np.diff(offsets)
    chunk = flat[base : offsets[-1]].astype(np.uint64)
    position = np.arange(len(chunk)) - np.repeat(offsets[:-1] - base, lengths)
    scrambled = mix(
        (chunk | (position.astype(np.uint64) << np.uint64(8))) ^ seed_of(seed)
    )
    sums = np.concatenate(
        [np.zeros(1, np.uint64), np.cumsum(scrambled, dtype=np.uint64)]
    )
    return np.asarray(sums[offsets[1:] - base] - sums[offsets[:-1] - base])


def seed_of(seed: int) -> np.uint64:
    """A scrambled seed, so that seeds 0, 1, 2 ... differ in all bits."""
    return np.uint64(mix(np.array([seed], np.uint64))[0])


def _hash_lists(array: pa.Array, seed: int) -> np.ndarray:
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    lengths = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
    values = hash_array(array.flatten(), seed)
    ends = np.cumsum(lengths)
    position = np.arange(len(values)) - np.repeat(ends - lengths, lengths)
    scrambled = mix(values ^ mix(position.astype(np.uint64)))
    sums = np.concatenate(
        [np.zeros(1, np.uint64), np.cumsum(scrambled, dtype=np.uint64)]
    )
    sizes = lengths.astype(np.uint64) * _GOLDEN
    hashed = mix((sums[ends] - sums[ends - lengths]) ^ sizes ^ np.uint64(seed))
    missing = pc.is_null(array).to_numpy(zero_copy_only=False)
    return np.where(missing, _NULL, hashed)
