"""`trials.parquet` and its types."""

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmtl.tuning.goals import Goal
from tfmtl.tuning.table import trials_table, write_trials

GOAL = Goal.parse(["click/auc", "like/auc"], ["like/auc >= 0.6"])


@pytest.fixture
def trials(record):
    return [
        record(
            1,
            {"click/auc": 0.7, "like/auc": 0.65, "click@feed/auc": 0.6},
            {"rate": 0.1, "units": [64, 32], "kind": "PCGrad", "n": 4, "on": True},
        ),
        record(
            2,
            {"click/auc": 0.9, "like/auc": 0.5},
            {"rate": 1, "units": [16], "kind": "Equal", "n": 8, "mixed": 3},
            status="pruned",
            reason="median",
            worker="tuner1",
        ),
        record(3, None, {"rate": 0.3, "kind": "Equal", "n": 2, "mixed": "auto"}),
        record(4, {"click/auc": 0.7, "like/auc": 0.61}, reused="0001"),
    ]


def test_columns(trials):
    table = trials_table(trials, GOAL).to_pydict()
    assert table["trial"] == ["0001", "0002", "0003", "0004"]
    assert table["status"] == ["finished", "pruned", "failed", "finished"]
    assert table["reason"] == ["epochs", "median", "loss is not finite", "epochs"]
    assert table["score"] == [0.7, None, None, 0.7]
    assert table["violation"] == pytest.approx([0.0, 0.1, None, 0.0])
    assert table["feasible"] == [True, False, False, True]
    assert table["on_front"] == [True, False, False, False]
    assert table["reused"] == [None, None, None, "0001"]
    assert table["worker"] == ["tuner0", "tuner1", "tuner0", "tuner0"]
    assert table["parameter/units"] == ["[64, 32]", "[16]", None, None]
    assert table["parameter/mixed"] == [None, "3", '"auto"', None]
    assert table["metric/click@feed/auc"] == [0.6, None, None, None]


def test_types(trials):
    types = {f.name: f.type for f in trials_table(trials, GOAL).schema}
    assert types["parameter/rate"] == pa.float64()
    assert types["parameter/n"] == pa.int64()
    assert types["parameter/on"] == pa.bool_()
    assert types["parameter/kind"] == pa.string()
    assert types["metric/click/auc"] == pa.float64()
    assert types["step"] == types["steps"] == types["seed"] == pa.int64()


def test_file_is_read_by_others_and_replaced_whole(tmp_path, trials):
    path = tmp_path / "trials.parquet"
    write_trials(path, trials[:1], GOAL)
    write_trials(path, trials, GOAL)
    frame = pandas.read_parquet(path)
    assert len(frame) == 4 and frame["metric/like/auc"].max() == 0.65
    assert pq.read_table(path).equals(trials_table(trials, GOAL))
    assert [p.name for p in tmp_path.iterdir()] == ["trials.parquet"]


def test_no_trial_is_an_empty_table():
    table = trials_table([], GOAL)
    assert table.num_rows == 0 and "score" in table.column_names
