"""How a value of a categorical column is written as a string, everywhere the same.

The pipeline builds vocabularies from these strings and the serving client sends them:
a row that came as `5` in training and as `5.0` in a request must meet the same entry.
"""

from __future__ import annotations

import decimal

from tfmtl.errors import DataError

MISSING = ""

# Missing-value objects of pandas, recognised by name: pandas is not imported here.
_MISSING_TYPES = frozenset({"NAType", "NaTType"})
# Integral floats up to here are written as integers, as an int64 column would be.
_INT64_LIMIT = float(2**63)


def canonical_string(value: object) -> str:
    """Writes one value of a categorical feature as its canonical string.

    None, NaN and pandas' NA are missing (""); a string stays as it is; UTF-8 bytes are
    decoded; True is "true"; 5, 5.0 and Decimal("5.00") are all "5"; other numbers are
    written with the fewest digits that read back as the same number of their type.

    Args:
        value: A Python or NumPy scalar.

    Returns:
        The string; "" stands for a missing value.

    Raises:
        DataError: `value` is no scalar, or bytes that are not UTF-8.
    """
    if value is None:
        return MISSING
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return _float_string(float(value), float.__repr__(value))
    if isinstance(value, bytes):
        return _decode(value)
    if isinstance(value, decimal.Decimal):
        return _decimal_string(value)
    if type(value).__name__ in _MISSING_TYPES:
        return MISSING
    return _numpy_string(value)


def _float_string(value: float, shortest: str) -> str:
    if value != value:
        return MISSING
    if value.is_integer() and abs(value) < _INT64_LIMIT:
        return str(int(value))
    return shortest


def _decimal_string(value: decimal.Decimal) -> str:
    if value.is_nan():
        return MISSING
    if not value.is_finite():
        return float.__repr__(float(value))
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("", "-0") else text


def _decode(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            "A categorical value given as bytes must be UTF-8. "
            f"Received: {value[:40]!r} ({error.reason} at byte {error.start})."
        ) from None


def _numpy_string(value: object) -> str:
    """The NumPy scalars that are no subclass of a Python number, by their `item`."""
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "shape", None) == ():
        plain = item()
        if isinstance(plain, float):
            # str keeps float32's own shortest digits: 0.1, not 0.10000000149011612.
            return _float_string(plain, str(value))
        if isinstance(plain, (str, bool, int, bytes)):
            return canonical_string(plain)
    raise DataError(
        "A categorical value must be a string, an integer, a float, a boolean, bytes "
        f"or None. Received: {str(value)[:60]!r} ({type(value).__name__})."
    )
