"""`tfmtl fuse` on stored predictions: its table, its JSON, and its errors."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmtl.schema.load import parse_experiment
from tfmtl.testing.tiny import DATASET
from tfmtl.training.rundir import RunDirectory

OUTPUTS = ("click", "like", "buy|click", "buy")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A finished run without a model, and predictions of it."""
    root = tmp_path_factory.mktemp("fuse")
    experiment = parse_experiment(
        {
            "name": "tiny",
            "dataset": DATASET,
            "model": {"class": "MMoE"},
            "fusion": {"weights": {"click": 1.0, "buy": 1.0}},
        }
    )
    run = RunDirectory(root / "run")
    run.begin(experiment, {})
    run.finish({"step": 1, "refit": False, "metrics": {}})
    draw = np.random.default_rng(0)
    columns = {
        "group": [f"g{i // 6}" for i in range(300)],
        "scenario": ["feed", "live"] * 150,
    }
    for name in OUTPUTS:
        p = draw.random(300)
        columns[f"prediction/{name}"] = p.astype(np.float32)
        columns[f"label/{name}"] = (draw.random(300) < 0.4 * p).astype(np.float32)
    pq.write_table(pa.table(columns), root / "predictions.parquet")
    return root


@pytest.fixture
def fuse(tfmtl, prepared):
    def call(*arguments):
        file = prepared / "predictions.parquet"
        return tfmtl(
            "fuse", prepared / "run", "--predictions", file, "--no-write",
            "--evaluations", 40, *arguments,
        )  # fmt: skip

    return call


def test_table_and_json(fuse, prepared):
    constraint = "click/ndcg@3 >= baseline - 0.1"
    result = fuse("--objective", "buy/ndcg@3", "--constraint", constraint)
    assert result.code == 0, result.err
    for part in (
        "configured",
        "found",
        "w click",
        "buy/ndcg@3: ",
        f"kept: {constraint}",
    ):
        assert part in result.out
    assert "written" not in result.out
    assert not (prepared / "run" / "fusion.json").exists()
    result = fuse("--objective", "buy/ndcg@3", "--json", "--seed", "3")
    document = json.loads(result.out)
    assert document["seed"] == 3 and document["evaluations"] <= 40
    assert set(document["found"]["weights"]) == {"click", "buy"}


def test_writes_into_the_run(tfmtl, prepared):
    result = tfmtl(
        "fuse", prepared / "run", "--predictions", prepared / "predictions.parquet",
        "--objective", "buy/mrr", "--evaluations", 16,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "measure it on a split it was not searched on" in result.out
    written = json.loads((prepared / "run" / "fusion.json").read_text())
    assert written["objective"] == "buy/mrr"
    (prepared / "run" / "fusion.json").unlink()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--objective", "by/ndcg@3"), "`--objective` must be output/metric"),
        (("--objective", "buy/auc"), "metrics: ['ndcg@K'"),
        (("--objective", "buy@x/mrr"), "`--objective` names scenario 'x'"),
        (
            ("--objective", "buy/mrr", "--constraint", "click/mrr"),
            "`--constraint` must",
        ),
        (
            ("--objective", "buy/mrr", "--constraint", "clik/mrr >= 0.1"),
            "`--constraint` must be output/metric",
        ),
        (
            ("--objective", "buy/mrr", "--constraint", "click/mrr >= 2"),
            "cannot be kept",
        ),
        (
            ("--objective", "buy/mrr", "--constraint", "click/mrr >= 0.9999"),
            "keeps all of `--constraint`",
        ),
        (("--objective", "buy/mrr", "--evaluations", "3"), "--evaluations"),
        (("--objective", "buy/mrr", "--form", "best"), "--form"),
        ((), "Missing option '--objective'"),
    ],
)
def test_errors_name_the_setting(fuse, arguments, message):
    result = fuse(*arguments)
    assert result.code == 2, result.out
    assert message in " ".join(result.err.split())
    assert "Traceback" not in result.err


def test_what_is_no_run_or_no_predictions(tfmtl, prepared, tmp_path):
    result = tfmtl("fuse", tmp_path, "--objective", "buy/mrr")
    assert result.code == 3 and "must be a run directory" in result.err
    bad = tmp_path / "bad.parquet"
    bad.write_text("no")
    result = tfmtl(
        "fuse", prepared / "run", "--objective", "buy/mrr", "--predictions", bad
    )
    assert result.code == 3 and "is no Parquet file" in result.err
