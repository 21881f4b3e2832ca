"""What may change without another run of the Beam job, and what may not."""

from __future__ import annotations

from typing import Any

from tfmtl.schema.dataset import DatasetSpec

NAMES = ("query", "side", "dim", "loss", "role")


def part(**changes: Any) -> dict[str, Any]:
    """The records' part of a small specification with vocabularies of unlucky names."""
    document = {
        "vocabularies": {n: {} for n in NAMES},
        "features": [
            {"name": f"f_{n}", "kind": "categorical", "vocabulary": n} for n in NAMES
        ],
        "tasks": [{"name": "click", "label": "click"}],
        "scenario": {"column": "page", "values": ["a"]},
        "split": {"by": "hash", "column": "f_query"},
    }
    return DatasetSpec.model_validate(document | changes).records_part()


def test_vocabularies_stay_whatever_their_names() -> None:
    assert set(part()["vocabularies"]) == set(NAMES)
    hashed = {n: {"hash_buckets": 7} if n == "query" else {} for n in NAMES}
    assert part(vocabularies=hashed) != part()


def test_what_only_the_model_reads_is_left_out() -> None:
    features = [
        {
            "name": f"f_{n}",
            "kind": "categorical",
            "vocabulary": n,
            "dim": 3,
            "side": "user",
        }
        for n in NAMES
    ]
    tasks = [{"name": "click", "label": "click", "normalization": "batch"}]
    scenario = {"column": "page", "values": ["a"], "dim": 5}
    assert part(features=features, tasks=tasks, scenario=scenario) == part()
    assert part(scenario=None) != part()
