"""Ids as rows of a table."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf


def rows_of(ids: Any, rows: int) -> Any:
    """Ids -> int32 rows of a table; an id outside it is row 0, "missing".

    A record of another vocabulary must not read a neighbour's rows.
    """
    ids = tf.cast(ids, tf.int32)
    return tf.where((ids >= 0) & (ids < rows), ids, 0)
