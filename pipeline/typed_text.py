"""The text of booleans and numbers in files without types, written canonically.

Categories are compared as text, and `tfmtl.schema.canonical` says how a typed value is
written: true is "true", 5.0 is "5". A Parquet or Avro file and a client's row hold
typed values; a CSV file holds what its writer made of them. So a cell that reads as
a boolean or a float is written as that value would be. All other text stays as it is,
"007", "1e5" and "1.10" included.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from tfmtl.schema.canonical import canonical_string

_POINT = r"-?(?:0|[1-9][0-9]*)\.0+"  # 5.0, also of a fixed format: 5.00
# Floats with an exponent, as Python and as Java write them: 1e+16, 1.5E7. Text that
# only looks like it, such as the hexadecimal 1e5, has neither plus sign nor point.
_PYTHON = r"-?[0-9](?:\.[0-9]+)?e\+[0-9]{2,3}"
_JAVA = r"-?[0-9]\.[0-9]+E-?[0-9]{1,3}"
_TYPED = f"(?:True|TRUE|False|FALSE|{_POINT}|{_PYTHON}|{_JAVA})"
_PATTERN = re.compile(_TYPED)


def canonical_text(text: str) -> str:
    """The canonical text of a cell; the cell itself where it is plain text."""
    if not _PATTERN.fullmatch(text):
        return text
    if text[0] in "TF":
        return text.lower()
    if "e" not in text.lower():
        return canonical_string(decimal.Decimal(text))
    number = float(text)
    return canonical_string(number) if math.isfinite(number) else text


def canonical(array: pa.Array, kept: Sequence[str] = ()) -> pa.Array:
    """`canonical_text` of a column.

    Args:
        array: large_string [rows] without nulls.
        kept: Texts that stay as they are.

    Returns:
        large_string [rows].
    """
    typed = pc.match_substring_regex(array, f"^{_TYPED}$")
    if kept:
        stays = pc.is_in(array, value_set=pa.array(kept, array.type))
        typed = pc.and_(typed, pc.invert(stays))
    if not pc.any(typed).as_py():
        return array
    encoded = array.filter(typed).dictionary_encode()
    values = [canonical_text(v) for v in encoded.dictionary.to_pylist()]
    text = pa.array(values, array.type).take(encoded.indices)
    return pc.replace_with_mask(array, typed, text)
