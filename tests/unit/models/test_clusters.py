"""Every scenario is in one cluster, and which does not depend on chance."""

from __future__ import annotations

from typing import Any

import pytest

from tfmtl.errors import ConfigError
from tfmtl.models.clusters import cluster

NAMES = ("a", "b", "c", "d", "e")
RATES = (-1.0, -3.0, -1.0, -2.0, 0.5)


def test_alone_where_nothing_is_asked() -> None:
    assert cluster(NAMES, RATES, None) == {n: (n,) for n in NAMES}


@pytest.mark.parametrize(
    ("count", "truth"),
    [
        (1, [NAMES]),
        (2, [("b", "d"), ("a", "c", "e")]),
        (3, [("b", "d"), ("a",), ("c", "e")]),
        (5, [("b",), ("d",), ("a",), ("c",), ("e",)]),
    ],
)
def test_runs_of_the_sorted_rates(count: int, truth: list[tuple[str, ...]]) -> None:
    found = cluster(NAMES, RATES, count)
    assert list(found.values()) == truth
    assert [*found] == [f"cluster_{i}" for i in range(count)]


@pytest.mark.parametrize("count", range(1, 14))
def test_sizes_differ_by_one_at_most(count: int) -> None:
    names = [f"s{i}" for i in range(13)]
    sizes = [len(v) for v in cluster(names, [0.0] * 13, count).values()]
    assert sum(sizes) == 13
    assert max(sizes) - min(sizes) <= 1


def test_clusters_may_be_given() -> None:
    wanted = {"x": ["a", "e"], "y": ["b", "c", "d"]}
    assert cluster(NAMES, RATES, wanted) == {"x": ("a", "e"), "y": ("b", "c", "d")}


@pytest.mark.parametrize(
    "wanted",
    [
        6,
        {"x": ["a", "b"]},
        {"x": NAMES, "y": ["a"]},
        {"x": NAMES, "y": []},
        {"x": [*NAMES, "f"]},
    ],
)
def test_clusters_that_do_not_fit_are_refused(wanted: Any) -> None:
    with pytest.raises(ConfigError, match=r"model\.config\.clusters"):
        cluster(NAMES, RATES, wanted)
