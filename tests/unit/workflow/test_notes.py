"""What a model has to say reaches whoever trains it, before the first step."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tfmtl import workflow
from tfmtl.errors import ConfigError
from tfmtl.progress import Silent
from tfmtl.schema.load import parse_experiment
from tfmtl.testing.tiny import DATASET, tiny_dataset


class Told(Silent):
    """Keeps what it is told, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def experiment(experts: int) -> Any:
    size = {"num_experts": experts, "expert_units": [64], "tower_units": [8]}
    return parse_experiment(
        {
            "name": "tiny",
            "dataset": DATASET,
            "model": {
                "class": "ExpertFusion",
                "config": {"match": "mmoe", "match_to": size},
            },
            "training": {"batch_size": 64, "steps": 1, "monitor": "click/auc"},
        }
    )


def test_training_prints_the_table_of_a_match(tmp_path: pathlib.Path) -> None:
    tiny_dataset(tmp_path / "data")
    told = Told()
    workflow.train(experiment(8), tmp_path / "data", tmp_path / "run", listener=told)
    table = told.lines[: told.lines.index(next(n for n in told.lines if "keeps" in n))]
    assert " ".join(table[0].split()) == (
        "without embeddings parameters MACs a row widths"
    )
    assert "8 experts 64, towers 8" in table[1]
    assert table[2].startswith("ExpertFusion")
    assert any(line.strip().startswith("normalisation") for line in table)

    with pytest.raises(ConfigError, match="leave a shared expert"):
        workflow.train(experiment(1), tmp_path / "data", tmp_path / "other")
