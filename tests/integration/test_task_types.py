"""Binary, multiclass and regression tasks side by side: trained, saved, evaluated."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tfmtl import workflow
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.manifest import RecordColumn
from tfmtl.testing.records import write_records
from tfmtl.testing.tiny import COLUMNS, tiny_columns, tiny_spec

TASKS: list[dict[str, Any]] = [
    {"name": "click", "label": "click"},
    {"name": "grade", "label": "grade", "type": "multiclass", "classes": 3},
    {
        "name": "seconds",
        "label": "seconds",
        "type": "regression",
        "transform": "log1p",
        "given": "click",
        "weight": "w",
    },
]
LABELS = ("label/click", "label/grade", "label/seconds", "weight/seconds")


def _columns(rows: int, seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    found = tiny_columns(rows, seed)
    click = found["label/click"]
    return {
        **found,
        "label/grade": (found["item"] % 3).astype(float),
        "label/seconds": np.where(click > 0, draw.exponential(20, rows), np.nan),
        "weight/seconds": draw.random(rows),
    }


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_all_types_train_and_are_evaluated(
    tmp_path: pathlib.Path, precision: str
) -> None:
    spec = tiny_spec(tasks=TASKS)
    columns = tuple(c for c in COLUMNS if not c.name.startswith("label/"))
    columns += tuple(RecordColumn(name=n, dtype="float") for n in LABELS)
    sizes = {"train": 600, "validation": 200, "test": 200}
    splits = {s: _columns(n, i) for i, (s, n) in enumerate(sizes.items())}
    write_records(tmp_path / "data", spec, columns, splits)
    training = {
        "batch_size": 64,
        "epochs": 6,
        "monitor": "grade/accuracy",
        "precision": precision,
    }
    experiment = Experiment.model_validate(
        {
            "name": "types",
            "dataset": spec.model_dump(),
            "model": {"class": "MMoE", "config": {"num_experts": 2}},
            "optimizers": {"default": {"learning_rate": 0.02}},
            "training": training,
        }
    )
    workflow.train(experiment, tmp_path / "data", tmp_path / "run")
    file = tmp_path / "predictions.parquet"
    report = workflow.evaluate(tmp_path / "run", "test", predictions_file=file)
    tasks = report["tasks"]
    clicks = splits["test"]["label/click"].sum()
    # The class is a function of the item: one in three by chance.
    assert tasks["grade"]["accuracy"] > 0.5
    assert tasks["seconds"]["rows"] == clicks and tasks["seconds"]["rmse"] > 0
    assert tasks["click"]["rows"] == 200 and 0 < tasks["click"]["auc"] < 1
    table = pq.read_table(file)
    classes = np.array(table["prediction/grade"].to_pylist())
    np.testing.assert_allclose(classes.sum(axis=1), 1, atol=1e-5)
    assert table["label/seconds"].null_count == 200 - clicks
    assert min(table["prediction/seconds"].to_pylist()) > -1
