"""Which rows are compared."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.losses.groups import Context, members

GROUPS = [b"a", b"b", b"", b"a", b"", b"b"]
SCENARIO = [0, 1, 1, 1, 1, 1]
CONTEXT = Context(tf.constant(GROUPS), tf.constant(SCENARIO))


def _same(within: str) -> np.ndarray:
    found = members(CONTEXT, within, tf.constant(6)).numpy()
    assert found.min() >= 0 and found.max() < 6
    return found[:, None] == found[None]


def test_rows_of_one_group_scenario_or_both() -> None:
    groups = np.array(GROUPS)
    group = groups[:, None] == groups[None]
    # A row without a group is alone.
    alone = (groups == b"")[:, None] & ~np.eye(6, dtype=bool)
    group &= ~alone
    scenario = np.array(SCENARIO)[:, None] == np.array(SCENARIO)[None]
    np.testing.assert_array_equal(_same("group"), group)
    np.testing.assert_array_equal(_same("scenario"), scenario)
    np.testing.assert_array_equal(_same("group_scenario"), group & scenario)
    assert (group & scenario).sum() < min(group.sum(), scenario.sum())
    assert _same("batch").all()


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"needs the batch's `keys.group`"):
        members(Context(), "group", tf.constant(6))
    with pytest.raises(ValueError, match="needs `scenario`"):
        members(Context(CONTEXT.groups), "group_scenario", tf.constant(6))
