"""Tasks in topological order."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tfmtl.errors import ConfigError
from tfmtl.models.task_graph import task_levels

DIAMOND = {"d": ["b", "c"], "b": ["a"], "c": ["a"], "e": ["d"]}


def test_levels_are_the_longest_ways_down() -> None:
    found = task_levels(list("abcdef"), {**DIAMOND, "e": ["a", "d"]}, "parents")
    assert found == (("a", "f"), ("b", "c"), ("d",), ("e",))


@pytest.mark.parametrize("order", itertools.permutations(DIAMOND))
def test_any_order_of_the_file_gives_the_same_levels(order: Any) -> None:
    parents = {task: DIAMOND[task] for task in order}
    found = task_levels(list("abcde"), parents, "parents")
    assert found == (("a",), ("b", "c"), ("d",), ("e",))


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        (
            {"a": ["b"], "b": ["c"], "c": ["a"]},
            r"`model.config.parents` .* circle.* ->",
        ),
        ({"a": ["a"]}, "circle.*a -> a"),
        ({"z": ["a"]}, r"must name tasks. Received: \['z'\]; tasks: \['a', 'b', 'c'\]"),
        ({"a": ["y"]}, r"must name tasks. Received: \['y'\]"),
        ({"a": ["b", "b"]}, r"once. Received for 'a': \['b', 'b'\]"),
    ],
)
def test_impossible_graphs_are_refused(parents: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        task_levels(list("abc"), parents, "parents")
