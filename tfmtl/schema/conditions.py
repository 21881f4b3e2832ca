"""Dimensions of a search that depend on the values of others."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from tfmtl.schema.base import Misplaced
from tfmtl.schema.dimension_base import DimensionSpec
from tfmtl.schema.ranges import FloatDimension, IntDimension


def check_when(space: Mapping[str, DimensionSpec], path: str) -> None:
    """Refuses conditions on dimensions or values that there are not.

    Args:
        space: All dimensions.
        path: Of the one whose `when` is checked.

    Raises:
        Misplaced: A dimension, or a value; the message says which there are.
    """
    for parent, values in space[path].when.items():
        place = ("space", path, "when", parent)
        if parent not in space:
            raise Misplaced(
                f"`when` names {parent!r}, which is no dimension of the space"
                f"{hint(parent, space)}; dimensions: {sorted(space)}",
                *place,
            )
        other = space[parent]
        if isinstance(other, FloatDimension):
            raise Misplaced(
                f"`when` names {parent!r}: a float has no values to depend on", *place
            )
        for value in values:
            if not other.has(value):
                raise Misplaced(
                    f"`when` names a value that {parent!r} does not take. Received: "
                    f"{value!r}; it takes: {_told(other)}",
                    *place,
                )


def conditions(
    space: Mapping[str, DimensionSpec], path: str
) -> dict[str, tuple[Any, ...]]:
    """What must hold for a dimension to be active, its parents' conditions too.

    Args:
        space: All dimensions.
        path: Of the one that is meant.

    Returns:
        Dimension to those of its values that are meant, outermost first.

    Raises:
        Misplaced: Dimensions depend on each other, or it can never hold.
    """
    found: dict[str, tuple[Any, ...]] = {}

    def collect(child: str, way: tuple[str, ...]) -> None:
        for parent, values in space[child].when.items():
            if parent in way:
                raise Misplaced(
                    f"dimensions depend on each other: {[*way, parent]}",
                    *("space", child, "when", parent),
                )
            collect(parent, (*way, parent))
            kept = found.get(parent, values)
            found[parent] = tuple(v for v in kept if v in values)

    collect(path, (path,))
    for parent, values in found.items():
        if not values:
            raise Misplaced(
                f"{path!r} is never active: what its `when` asks of {parent!r} and "
                "what its parents ask exclude each other",
                *("space", path, "when"),
            )
    return found


def hint(name: str, known: Iterable[str]) -> str:
    """The nearest of some names, for the end of a message; empty where none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _told(dimension: DimensionSpec) -> object:
    if isinstance(dimension, IntDimension):
        low, high = dimension.range
        step = dimension.step or (2 if dimension.scale == "pow2" else 1)
        return f"{low} to {high}, {dimension.scale}, step {step}"
    return list(dimension.ends)
