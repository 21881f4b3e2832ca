"""Variables of several layers by the group that owns them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def merged_groups(layers: Iterable[Any]) -> dict[str, list[Any]]:
    """Group to the variables that any of the layers has of it, in their order.

    Args:
        layers: With a method `variable_groups`.
    """
    groups: dict[str, list[Any]] = {}
    for layer in layers:
        for owner, variables in layer.variable_groups().items():
            groups.setdefault(owner, []).extend(variables)
    return groups
