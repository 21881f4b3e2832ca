"""Rows, one mapping per example -> the columns that a model's signature takes.

The contract of `serving_default`: a missing string is "", a missing float NaN, a
missing int64 the smallest int64; lists are dense, oldest to newest, and padded at their
end to one length per request. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import decimal
import difflib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from tfmtl.errors import ConfigError, DataError
from tfmtl.schema.canonical import canonical_string
from tfmtl.schema.kept import Kept

Unknown = Literal["error", "ignore"]

_FLOATS = frozenset({"DT_FLOAT", "DT_DOUBLE", "DT_HALF", "DT_BFLOAT16"})
_INTEGER_BITS = {
    "DT_INT8": 8, "DT_INT16": 16, "DT_INT32": 32, "DT_INT64": 64,
}  # fmt: skip
# A JSON double holds integers exactly up to here; beyond it 5.0 may not be 5.
_EXACT_FLOAT = float(2**53)


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input of a signature.

    Attributes:
        dtype: TensorFlow's name of the type, such as "DT_STRING".
        shape: The dimensions with the batch first; -1 is unknown.
        keep: Of a list, which of its values the model reads; None where the model does
            not say.
    """

    dtype: str
    shape: tuple[int, ...]
    keep: Kept | None = None

    @classmethod
    def of(cls, dtype: str, dimensions: Iterable[tuple[int, str]]) -> InputSpec:
        """The input that a signature describes by size and name of each dimension."""
        sizes, names = [], [""]
        for size, name in dimensions:
            sizes.append(size)
            names.append(name)
        return cls(dtype, tuple(sizes), Kept.parse(names[-1]))

    @property
    def is_list(self) -> bool:
        """Whether a row holds a list of any length: a sequence or a set of values."""
        return len(self.shape) == 2 and self.shape[1] < 0

    @property
    def is_vector(self) -> bool:
        """Whether a row holds a list of one given length."""
        return len(self.shape) == 2 and self.shape[1] >= 0

    @property
    def missing(self) -> str | float | int:
        """What stands for a missing value, and fills a list up.

        Raises:
            ConfigError: The type has no such value.
        """
        if self.dtype == "DT_STRING":
            return ""
        if self.dtype in _FLOATS:
            return math.nan
        if self.dtype in _INTEGER_BITS:
            return -(1 << _INTEGER_BITS[self.dtype] - 1)
        raise ConfigError(f"has no value for 'missing' (it is {self.dtype})")


def encode_rows(
    rows: Sequence[Mapping[str, object]],
    inputs: Mapping[str, InputSpec],
    *,
    defaults: Mapping[str, object] | None = None,
    unknown: Unknown = "error",
    sequence_length: int | None = None,
    first_row: int = 0,
) -> dict[str, list[Any]]:
    """Turns rows into one list per input, in the order of the rows.

    Args:
        rows: One mapping per example; keys that are absent or None are missing.
        inputs: The signature's inputs by name.
        defaults: Values for inputs that a row lacks, instead of "missing".
        unknown: "error" refuses keys that are no input, "ignore" drops them.
        sequence_length: Pads every list to this length, and cuts longer ones to it;
            None pads to the longest list of `rows`.
        first_row: Number of the first row in error messages.

    What a list holds beyond what the model reads is left out: of a set it reads the
    first values, of a sequence the last, after dropping what is missing. Lists of one
    sequence stay aligned.

    Returns:
        Lists of B values, or of B lists of L values. Strings may be bytes where the
        row held bytes that are not text.

    Raises:
        ConfigError: A key or a value does not fit, aligned lists have unequal lengths,
            or a list is too long and the model does not say which end to keep; the
            message names row and key.
    """
    defaults = defaults or {}
    _check_defaults(defaults, inputs)
    for index, row in enumerate(rows, first_row):
        _check_keys(index, row, inputs, unknown)
    columns: dict[str, list[Any]] = {}
    for name, spec in inputs.items():
        columns[name] = [
            _value(row.get(name), spec, defaults.get(name), f"rows[{index}][{name!r}]")
            for index, row in enumerate(rows, first_row)
        ]
    for names in _aligned(inputs):
        _keep(columns, names, inputs, sequence_length, first_row)
    _pad(columns, inputs, sequence_length, first_row)
    return columns


def _check_defaults(
    defaults: Mapping[str, object], inputs: Mapping[str, InputSpec]
) -> None:
    for name in defaults:
        if name not in inputs:
            raise ConfigError(
                f"`defaults` has the unknown key {name!r}. {_legal(name, inputs)}"
            )


def _check_keys(
    index: int,
    row: object,
    inputs: Mapping[str, InputSpec],
    unknown: Unknown,
) -> None:
    if not isinstance(row, Mapping):
        raise ConfigError(
            f"rows[{index}] must be a mapping of input names to values. "
            f"Received: {str(row)[:60]!r} ({type(row).__name__})."
        )
    if unknown == "ignore":
        return
    for key in row:
        if key not in inputs:
            raise ConfigError(
                f"rows[{index}] has the unknown key {key!r}. {_legal(key, inputs)} "
                "Leave it out (Client(unknown='ignore') drops such keys)."
            )


def _legal(key: object, inputs: Iterable[str]) -> str:
    names = sorted(inputs)
    close = difflib.get_close_matches(str(key), names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}The model's inputs are: {', '.join(names)}."


def _value(value: object, spec: InputSpec, default: object, where: str) -> Any:
    """One cell: a scalar, or an unpadded list."""
    if _is_missing(value):
        value = default
    if len(spec.shape) == 1:
        return _scalar(value, spec, where)
    if len(spec.shape) != 2:
        raise ConfigError(
            f"{where}: inputs must have the shape [batch] or [batch, length]. "
            f"Received an input of shape {list(spec.shape)}."
        )
    if _is_missing(value):
        return [_missing(spec, where)] * spec.shape[1] if spec.is_vector else []
    items = [_scalar(item, spec, where) for item in _items(value, where)]
    if spec.is_vector and len(items) != spec.shape[1]:
        raise ConfigError(
            f"{where} must hold {spec.shape[1]} numbers. Received: {len(items)}."
        )
    return items


def _is_missing(value: object) -> bool:
    if isinstance(value, float) or getattr(value, "shape", None) == ():
        return bool(value != value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _missing(spec: InputSpec, where: str) -> str | float | int:
    try:
        return spec.missing
    except ConfigError as error:
        raise ConfigError(f"{where} is missing, and the input {error}.") from None


def _items(value: object, where: str) -> list[object]:
    if isinstance(value, (list, tuple)):
        return list(value)
    tolist = getattr(value, "tolist", None)
    if tolist is not None and len(getattr(value, "shape", ())) == 1:
        return list(tolist())
    raise ConfigError(
        f"{where} must be a list, oldest value first. "
        f"Received: {str(value)[:60]!r} ({type(value).__name__})."
    )


def _scalar(value: object, spec: InputSpec, where: str) -> Any:
    if spec.dtype == "DT_STRING":
        return _string(value, where)
    plain: object = value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        plain = value.item()
    if _is_missing(plain):
        return _missing(spec, where)
    if spec.dtype in _FLOATS and isinstance(plain, (numbers.Real, decimal.Decimal)):
        with contextlib.suppress(OverflowError):
            return float(plain)
    if spec.dtype == "DT_BOOL" and isinstance(plain, bool):
        return plain
    if spec.dtype in _INTEGER_BITS:
        whole = _whole(plain)
        limit = 1 << _INTEGER_BITS[spec.dtype] - 1
        if whole is not None and -limit <= whole < limit:
            return whole
    kind = {"DT_BOOL": "true or false"}.get(
        spec.dtype, "a number" if spec.dtype in _FLOATS else "an integer in range"
    )
    raise ConfigError(
        f"{where} must be {kind} or None (the input is {spec.dtype}). "
        f"Received: {str(plain)[:60]!r} ({type(plain).__name__})."
    )


def _string(value: object, where: str) -> str | bytes:
    if isinstance(value, bytes):
        # Serialized protos are bytes but no text; the client sends them as base64.
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    try:
        return canonical_string(value)
    except DataError as error:
        raise ConfigError(f"{where}: {error}") from None


def _whole(value: object) -> int | None:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT_FLOAT:
        return int(value)
    return None


def _aligned(inputs: Mapping[str, InputSpec]) -> list[list[str]]:
    """The lists that are kept or dropped together; the one that decides comes first.

    Raises:
        ConfigError: The list that decides is none of the inputs.
    """
    groups: dict[str, list[str]] = {}
    for name, spec in inputs.items():
        if spec.is_list and spec.keep is not None:
            groups.setdefault(spec.keep.of, []).append(name)
    for leader, names in groups.items():
        if leader not in names:
            raise ConfigError(
                "`inputs`: a list must keep values of itself or of another list that "
                f"says so. Received: {names[0]!r} keeps the {inputs[names[0]].keep}."
            )
        names.sort(key=lambda name: name != leader)
    return list(groups.values())


def _keep(
    columns: dict[str, list[Any]],
    names: list[str],
    inputs: Mapping[str, InputSpec],
    sequence_length: int | None,
    first_row: int,
) -> None:
    """Leaves in aligned lists what the model reads, at most `sequence_length` of it."""
    keep = inputs[names[0]].keep
    assert keep is not None
    limit = min(keep.count, sequence_length or keep.count)
    missing = _missing(inputs[names[0]], f"the padding of {names[0]!r}")
    for row, values in enumerate(columns[names[0]]):
        places = [
            place
            for place, value in enumerate(values)
            if value != missing and value == value
        ]
        places = places[:limit] if keep.end == "first" else places[-limit:]
        for name in names:
            cells = columns[name][row]
            if cells and values and len(cells) != len(values):
                raise ConfigError(
                    f"rows[{row + first_row}][{name!r}] must be as long as "
                    f"{names[0]!r}, {len(values)}: the two are one sequence. "
                    f"Received: {len(cells)} values."
                )
            columns[name][row] = [cells[place] for place in places] if cells else []


def _pad(
    columns: dict[str, list[Any]],
    inputs: Mapping[str, InputSpec],
    sequence_length: int | None,
    first_row: int,
) -> None:
    """Pads all lists to one length: aligned columns stay aligned, absent ones too."""
    names = [name for name, spec in inputs.items() if spec.is_list]
    length = sequence_length
    if length is None:
        longest = (len(values) for name in names for values in columns[name])
        length = max(1, max(longest, default=0))
    for name in names:
        missing = _missing(inputs[name], f"the padding of {name!r}")
        for row, values in enumerate(columns[name]):
            if len(values) > length:
                raise ConfigError(
                    f"rows[{row + first_row}][{name!r}] must hold at most "
                    f"`sequence_length` values, {length}: the model does not say which "
                    f"of them it reads. Received: {len(values)}."
                )
            columns[name][row] = values + [missing] * (length - len(values))
