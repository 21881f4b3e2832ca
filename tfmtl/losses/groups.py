"""Which rows of a batch are compared with each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tfmtl._keras import tf


class Context(NamedTuple):
    """What some losses read of a batch beside outputs and labels.

    Attributes:
        groups: [B] text, `keys.group`; None where no loss needs it.
        scenario: [B] int32; None where there is none.
        teachers: Task to [B], what its teacher says, NaN where it says nothing.
    """

    groups: Any = None
    scenario: Any = None
    teachers: Mapping[str, Any] = {}


NOTHING = Context()
"""Of a batch whose losses read outputs and labels alone."""


def members(context: Context, within: str, rows: Any) -> Any:
    """Numbers that are equal for the rows that are compared.

    A row whose group is empty is a group of its own.

    Args:
        context: Of the batch.
        within: `group`, `scenario`, `group_scenario` or `batch`.
        rows: Scalar int32, B.

    Returns:
        [B] int32, each in 0 .. B - 1.

    Raises:
        ValueError: The batch has no groups or scenarios although they are needed.
    """
    place = tf.range(rows)
    parts = []
    if within in ("group", "group_scenario"):
        if context.groups is None:
            raise ValueError(
                "a loss `within` groups needs the batch's `keys.group`: read it with "
                "`Reader(keys=('group',))`. Received: no groups"
            )
        number = tf.unique(context.groups).idx
        parts.append(tf.where(context.groups == "", rows + place, number))
    if within in ("scenario", "group_scenario"):
        if context.scenario is None:
            raise ValueError(
                "a loss `within` a scenario needs `scenario` among the batch's "
                "features. Received: none"
            )
        parts.append(tf.unique(context.scenario).idx)
    found = tf.zeros([rows], tf.int64)
    for part in parts:
        # Each part is below 2 B.
        found = found * tf.cast(2 * rows, tf.int64) + tf.cast(part, tf.int64)
    return tf.unique(found).idx
