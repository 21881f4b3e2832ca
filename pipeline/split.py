"""Which split a row belongs to: by time, by a hash, or as a column says."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import columns, hashing
from pipeline.plan import BY_TIME, DROPPED, TEST, TRAIN, VALIDATION
from tfmtl.errors import DataError
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.split import (
    SPLITS,
    BoundarySplit,
    GivenSplit,
    HashSplit,
    TimeSplit,
)

_HASH_SEED = 0x7F17


@dataclasses.dataclass(frozen=True)
class TimeRule:
    """Boundaries in microseconds: train < validation_from <= validation < test_from.

    Attributes:
        validation_from: First microsecond of the validation split.
        test_from: First of the test split; None where there is none.
        end: Rows from here on are dropped; None keeps them.
        gap: So much before each boundary is dropped.
    """

    validation_from: int
    test_from: int | None
    end: int | None
    gap: int

    def assign(self, times: np.ndarray) -> np.ndarray:
        """Codes of the splits of these times: int8 [rows]."""
        codes = np.full(len(times), TRAIN, np.int8)
        codes[times >= self.validation_from - self.gap] = DROPPED
        codes[times >= self.validation_from] = VALIDATION
        if self.test_from is not None:
            before = (times >= self.test_from - self.gap) & (codes == VALIDATION)
            codes[before] = DROPPED
            codes[times >= self.test_from] = TEST
        if self.end is not None:
            codes[times >= self.end] = DROPPED
        return codes


def by_column(
    dataset: DatasetSpec, raw: dict[str, pa.Array], rows: int, untyped: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the splits as far as a row alone tells, and rows that have none.

    Rows without a value to hash share nothing that could leak: each goes its own way,
    by a hash of all its columns.

    Args:
        dataset: The data specification.
        raw: Raw columns.
        rows: Their length.
        untyped: Whether they come from a file without types.

    Returns:
        int8 [rows], `BY_TIME` where the timestamp decides later; and a mask of rows
        whose split column holds no legal value.
    """
    split = dataset.split
    if isinstance(split, HashSplit):
        values, bad = columns.strings(raw[split.column], untyped)
        hashes = hashing.hash_array(values, _HASH_SEED)
        alone = pc.equal(values, "")
        if pc.any(alone).as_py():
            content = [raw[c].filter(alone) for c in sorted(raw)]
            where = alone.to_numpy(zero_copy_only=False)
            hashes[where] = hashing.hash_rows(content, _HASH_SEED)
        salt = int(hashing.hash_array(pa.array([split.salt]), _HASH_SEED)[0])
        share = hashing.unit_interval(hashing.mix(hashes ^ np.uint64(salt)))
        codes = np.full(rows, TRAIN, np.int8)
        codes[share >= 1 - split.test - split.validation] = VALIDATION
        codes[share >= 1 - split.test] = TEST
        return codes, bad
    if isinstance(split, GivenSplit):
        named = (split.train, split.validation, split.test)
        kept = [name for names in named for name in names]
        values, bad = columns.strings(raw[split.column], untyped, kept)
        codes = np.full(rows, DROPPED, np.int8)
        for code, names in enumerate(named):
            found = pc.is_in(values, value_set=pa.array(names, pa.large_string()))
            codes[found.to_numpy(zero_copy_only=False)] = code
        return np.where(codes == DROPPED, TRAIN, codes), bad | (codes == DROPPED)
    return np.full(rows, BY_TIME, np.int8), np.zeros(rows, bool)


def time_rule(
    dataset: DatasetSpec, times: np.ndarray, counts: np.ndarray
) -> TimeRule | None:
    """The boundaries in time, from the exact histogram of the timestamps.

    Fractions are met as closely as whole timestamps allow: rows of one timestamp stay
    together.

    Args:
        dataset: The data specification.
        times: int64, distinct microseconds, rising.
        counts: int64, rows of each.

    Returns:
        The rule; None where the split does not go by time.

    Raises:
        DataError: Too few distinct timestamps.
    """
    split = dataset.split
    scale = columns.PER_SECOND["us"] // columns.PER_SECOND[dataset.keys.timestamp_unit]
    if isinstance(split, BoundarySplit):
        test, end = split.test_from, split.end
        return TimeRule(
            round(split.validation_from * scale),
            None if test is None else round(test * scale),
            None if end is None else round(end * scale),
            round(split.gap * scale),
        )
    if not isinstance(split, TimeSplit):
        return None
    wanted = 3 if split.test else 2
    if len(times) < wanted:
        raise DataError(
            f"`split: {{by: time}}` needs at least {wanted} distinct timestamps. "
            f"Received: {len(times)}"
        )
    before = np.concatenate([[0], np.cumsum(counts)])[:-1]  # rows older than times[i]
    total = int(counts.sum())

    def nearest(share: float, low: int, high: int) -> int:
        return low + int(np.argmin(np.abs(before[low:high] - share * total)))

    last = len(times) - (1 if split.test else 0)
    first = nearest(1 - split.validation - split.test, 1, last)
    second = nearest(1 - split.test, first + 1, len(times)) if split.test else None
    return TimeRule(
        int(times[first]),
        None if second is None else int(times[second]),
        None,
        round(split.gap * scale),
    )


def check_sizes(dataset: DatasetSpec, rows: Sequence[int], dropped: int) -> list[str]:
    """Refuses an empty training or validation split.

    Args:
        dataset: The data specification.
        rows: Rows of train, validation and test.
        dropped: Rows in gaps or after the end.

    Returns:
        Warnings: an empty test split where one was asked for.

    Raises:
        DataError: Train or validation is empty.
    """
    rule = dataset.split.model_dump(exclude_defaults=True) | {"by": dataset.split.by}
    found = ", ".join(f"{n}: {r}" for n, r in zip(SPLITS, rows))
    for name, count in zip(SPLITS[:2], rows):
        if count == 0:
            raise DataError(
                f"the {name} split is empty under the rule `split: {rule}`; rows by "
                f"split: {found}, dropped: {dropped}. Change the rule, or bring more "
                "data"
            )
    asked = not (
        (isinstance(dataset.split, BoundarySplit) and dataset.split.test_from is None)
        or (isinstance(dataset.split, TimeSplit | HashSplit) and not dataset.split.test)
    )
    if asked and rows[TEST] == 0:
        return [f"the test split is empty under the rule `split: {rule}`"]
    return []
