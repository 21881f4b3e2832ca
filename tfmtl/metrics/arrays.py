"""Checks and small steps that the metrics of whole arrays share.

Missing labels are NaN in the package's arrays: the caller masks them out before it
asks for a metric, and a NaN that arrives raises `DataError` instead of spreading.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfmtl.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Probabilities are clipped here before a logarithm, so that one saturated wrong
# prediction costs 36 nats and not infinity. scikit-learn clips float64 likewise.
PROBABILITY_FLOOR = float(np.finfo(np.float64).eps)


def vector(name: str, values: npt.ArrayLike, length: int | None = None) -> Floats:
    """Returns `values` as float64 [N], checked for rank, length and NaN."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"`{name}` must be numbers, got {values!r:.80}") from error
    if array.ndim != 1:
        raise DataError(f"`{name}` must have shape [N], got shape {array.shape}")
    if length is not None and len(array) != length:
        raise DataError(
            f"`{name}` must be as long as `labels` ({length} rows), got {len(array)}"
        )
    missing = np.isnan(array)
    if missing.any():
        raise DataError(
            f"`{name}` must not be NaN, got NaN in {int(missing.sum())} of "
            f"{len(array)} rows; leave rows without a label out first"
        )
    return array


def weight_vector(weights: npt.ArrayLike | None, length: int) -> Floats | None:
    """Returns the weights as finite float64 [N] >= 0, or None where there are none."""
    if weights is None:
        return None
    array = vector("weights", weights, length)
    if len(array) and not (np.isfinite(array).all() and array.min() >= 0.0):
        raise DataError(
            "`weights` must be finite and >= 0, got values from "
            f"{array.min()} to {array.max()}"
        )
    return array


def binary_labels(labels: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Returns the labels as booleans [N]; only 0 and 1 are legal."""
    array = vector("labels", labels)
    positive: npt.NDArray[np.bool_] = array == 1.0
    wrong = ~positive & (array != 0.0)
    if wrong.any():
        raise DataError(
            f"`labels` of a binary task must be 0 or 1, got {array[wrong][0]} "
            f"in row {int(np.argmax(wrong))}"
        )
    return positive


def probability_vector(name: str, probabilities: npt.ArrayLike, length: int) -> Floats:
    """Returns probabilities [N], checked to lie in [0, 1]."""
    array = vector(name, probabilities, length)
    if len(array) and not (array.min() >= 0.0 and array.max() <= 1.0):
        raise DataError(
            f"`{name}` must lie in [0, 1], got values from {array.min()} to "
            f"{array.max()}; pass sigmoid(logit), not the logit"
        )
    return array


def weighted_mean(values: Floats, weights: Floats | None) -> float:
    """Returns the (weighted) mean, or NaN where the total weight is 0."""
    if weights is None:
        return float(values.mean()) if len(values) else float("nan")
    total = float(weights.sum())
    return float(weights @ values) / total if total > 0.0 else float("nan")


def tie_runs(*sorted_keys: npt.NDArray[np.generic]) -> tuple[Ints, Ints]:
    """Finds the runs of equal keys in rows that are sorted by those keys.

    Args:
      *sorted_keys: arrays [N]; a row belongs to its predecessor's run if all agree.

    Returns:
      (run [N]: the number of each row's run, start [R]: each run's first row).
    """
    length = len(sorted_keys[0])
    new = np.zeros(length, dtype=bool)
    if length:
        new[0] = True
    for key in sorted_keys:
        new[1:] |= key[1:] != key[:-1]
    return np.cumsum(new) - 1, np.flatnonzero(new)


def sums_by_code(codes: Ints, values: Floats, count: int) -> Floats:
    """Sums `values` [N] by code into [count]."""
    return np.bincount(codes, values, count).astype(np.float64, copy=False)


def group_codes(groups: npt.ArrayLike) -> tuple[Ints, int]:
    """Numbers the distinct values of `groups` from 0.

    A row without a group, which is the empty text, is no group's: each such row gets a
    number of its own.

    Args:
      groups: [N] integers, booleans, strings, bytes or other hashable values.

    Returns:
      (code of each row [N], number of codes).

    Raises:
      DataError: for a missing group (None or NaN), or for floats.
    """
    array = np.asarray(groups)
    if array.ndim != 1:
        raise DataError(f"`groups` must have shape [N], got shape {array.shape}")
    if array.dtype.kind in "iub":
        values, codes = np.unique(array, return_inverse=True)
        return codes.reshape(-1).astype(np.int64), len(values)
    if array.dtype.kind not in "OSU":
        raise DataError(
            "`groups` must be integers, strings or bytes, got dtype "
            f"{array.dtype}; a float cannot say 'the same user' safely"
        )
    # A dict is quicker than sorting strings, and keeps b"a" and b"a\0" apart, which
    # NumPy's fixed-width bytes would not. `len(seen)` is read before the insertion.
    seen: dict[object, int] = {}
    codes = np.fromiter(
        (seen.setdefault(value, len(seen)) for value in array.tolist()),
        dtype=np.int64,
        count=len(array),
    )
    if None in seen or any(isinstance(value, float) for value in seen):
        raise DataError(
            "`groups` must be integers, strings or bytes and never missing, got None, "
            "NaN or a float; the empty text says that a row has no user"
        )
    count = len(seen)
    for nothing in ("", b""):
        if nothing in seen:
            alone = np.flatnonzero(codes == seen[nothing])[1:]
            codes[alone] = count + np.arange(len(alone))
            count += len(alone)
    return codes, count
