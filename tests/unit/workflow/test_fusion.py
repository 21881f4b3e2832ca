"""A run's fused score: evaluated, searched, written into the run and read again."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tfmtl import workflow
from tfmtl.errors import ConfigError, DataError
from tfmtl.fusion.scores import fuse
from tfmtl.metrics import exact, ranking
from tfmtl.schema.fusion import FusionSpec
from tfmtl.schema.load import parse_experiment
from tfmtl.testing.tiny import DATASET, tiny_dataset
from tfmtl.workflow.fusion import FUSION, fusion_of
from tfmtl.workflow.validation import CACHE

WEIGHTS = {"click": 1.0, "like": 0.5, "buy": 2.0}
EXPERIMENT: dict[str, Any] = {
    "name": "tiny",
    "dataset": DATASET,
    "model": {"class": "SharedBottom", "config": {"bottom_units": [4]}},
    "training": {"batch_size": 64, "steps": 3, "monitor": "click/auc"},
    "fusion": {"form": "product", "weights": WEIGHTS},
    "evaluation": {"ranking": {"at": [1, 3]}},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("fused")
    tiny_dataset(root / "data", {"train": 200, "validation": 160, "test": 120})
    workflow.train(parse_experiment(EXPERIMENT), root / "data", root / "run")
    return root


@pytest.fixture
def run(trained: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the run, to write into."""
    return pathlib.Path(shutil.copytree(trained / "run", tmp_path / "run"))


def test_the_report_measures_the_order_of_each_output_and_of_the_score(
    run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "test.parquet"
    report = workflow.evaluate(run, "test", predictions_file=file)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    table = pq.read_table(file)
    column = {n: table[n].to_numpy(zero_copy_only=False) for n in table.column_names}
    assert {"group", "user", "row", "scenario", "prediction/score"} <= set(column)
    predicted = {
        n.removeprefix("prediction/"): v
        for n, v in column.items()
        if n.startswith("prediction/")
    }
    score = predicted.pop("score")
    spec = FusionSpec(weights=WEIGHTS)
    np.testing.assert_allclose(score, fuse(predicted, spec), rtol=1e-6)
    assert {k: v for k, v in report["fusion"].items() if k in ("form", "weights")} == {
        "form": "product",
        "weights": WEIGHTS,
    }

    def check(found: dict[str, Any], output: str, by: Any, rows: Any) -> None:
        label = column[f"label/{output}"]
        rows = rows & ~np.isnan(label)
        arrays = label[rows], by[rows].astype(float), column["group"][rows]
        assert found["by"] == "group"
        assert found["ndcg@3"] == pytest.approx(ranking.ndcg(*arrays, 3), nan_ok=True)
        wanted = ranking.mean_average_precision(*arrays, 1)
        assert found["map@1"] == pytest.approx(wanted)
        assert found["hr@3"] == pytest.approx(ranking.hit_rate(*arrays, 3))
        assert found["mrr"] == pytest.approx(ranking.mean_reciprocal_rank(*arrays))

    everywhere = np.ones(120, bool)
    feed = column["scenario"] == "feed"
    for output in ("click", "buy", "buy|click"):
        whole, fused = report["tasks"][output], report["fusion"]["outputs"][output]
        check(whole["ranking"], output, predicted[output], everywhere)
        check(whole["scenarios"]["feed"]["ranking"], output, predicted[output], feed)
        check(fused["ranking"], output, score, everywhere)
        check(fused["scenarios"]["feed"]["ranking"], output, score, feed)
    assert fused["auc"] != whole["auc"]
    label = column["label/click"]
    found = report["fusion"]["outputs"]["click"]["auc"]
    assert found == pytest.approx(exact.auc(label, score.astype(float)))


def test_without_a_score_nothing_of_it_is_there(
    run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "test.parquet"
    report = workflow.evaluate(run, "test", predictions_file=file, fusion="none")
    assert report["fusion"] is None
    assert "prediction/score" not in pq.read_schema(file).names
    with pytest.raises(ConfigError, match="`fusion` must be one of"):
        workflow.evaluate(run, "test", fusion="best")  # type: ignore[arg-type]


def test_weights_are_found_written_and_used(
    run: pathlib.Path, trained: pathlib.Path
) -> None:
    document = workflow.fuse(
        run, "buy/ndcg@3", ["click/ndcg@3 >= baseline - 0.05"], evaluations=120
    )
    assert json.loads((run / FUSION).read_text()) == document
    before, after = document["configured"], document["found"]
    assert before["weights"] == WEIGHTS
    assert after["metrics"]["buy/ndcg@3"] > before["metrics"]["buy/ndcg@3"]
    low = before["metrics"]["click/ndcg@3"] - 0.05
    assert after["metrics"]["click/ndcg@3"] >= low
    assert len(document["front"]) == min(document["front_size"], 50)
    assert set(after["metrics"]) == {f"{t}/ndcg@3" for t in WEIGHTS}
    # What the search says is what an evaluation of the same split says.
    report = workflow.evaluate(run, "validation")
    assert report["fusion"]["weights"] == after["weights"]
    for name, value in after["metrics"].items():
        found = report["fusion"]["outputs"][name.partition("/")[0]]["ranking"]["ndcg@3"]
        assert found == pytest.approx(value, abs=1e-9)
    configured = workflow.evaluate(run, "validation", fusion="configured")
    assert configured["fusion"]["weights"] == WEIGHTS
    # The run's own predictions were kept, and are read without its data set.
    shutil.move(trained / "data", trained / "moved")
    try:
        again = workflow.fuse(run, "buy/ndcg@3", evaluations=16, form="sum")
        assert again["fusion"]["form"] == "sum"
        (run / CACHE).unlink()
        with pytest.raises(DataError, match="dataset"):
            workflow.fuse(run, "buy/ndcg@3", evaluations=16)
    finally:
        shutil.move(trained / "moved", trained / "data")


def scores_of(spec: FusionSpec, file: pathlib.Path) -> float:
    """NDCG@3 of `buy` under a fused score of stored predictions."""
    table = pq.read_table(file)
    column = {n: table[n].to_numpy(zero_copy_only=False) for n in table.column_names}
    named = {n.removeprefix("prediction/"): v for n, v in column.items()}
    score = fuse(named, spec, column["group"]).astype(np.float32).astype(float)
    label = column["label/buy"]
    used = ~np.isnan(label)
    return ranking.ndcg(label[used], score[used], column["group"][used], 3)


def test_in_another_form_the_configured_score_keeps_its_own(run: pathlib.Path) -> None:
    """Before and after, and `baseline`, are of what the experiment says."""
    asked = FusionSpec(
        form="shifted_product", weights=WEIGHTS, beta={"click": 30.0, "buy": 4.0}
    )
    path = run / "experiment.yaml"
    document = yaml.safe_load(path.read_text())
    document["fusion"] = asked.model_dump(mode="json")
    path.write_text(yaml.safe_dump(document))
    bound = "buy/ndcg@3 >= baseline - 1"
    found = {
        form: workflow.fuse(run, "buy/ndcg@3", [bound], evaluations=32, form=form)
        for form in ("shifted_product", "exponential_sum", "product")
    }
    wanted = scores_of(asked, run / CACHE)
    for form, result in found.items():
        before = result["configured"]
        assert before["form"] == "shifted_product" and before["weights"] == WEIGHTS
        assert before["metrics"]["buy/ndcg@3"] == pytest.approx(wanted, abs=1e-9), form
        assert result["fusion"]["form"] == result["found"]["form"] == form
        after = scores_of(FusionSpec.model_validate(result["fusion"]), run / CACHE)
        assert result["found"]["metrics"]["buy/ndcg@3"] == pytest.approx(after)
    # The same weights in the other form are another order: the check above can fail.
    other = scores_of(FusionSpec(form="exponential_sum", weights=WEIGHTS), run / CACHE)
    assert abs(other - wanted) > 1e-4
    assert found["exponential_sum"]["fusion"]["beta"] == asked.beta
    assert found["product"]["fusion"]["beta"] == {}


def test_what_nobody_asked_for_is_left_out_where_it_is_undefined(
    run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    workflow.fuse(run, "buy/mrr", evaluations=16, write=False)
    table = pq.read_table(run / CACHE)
    place = table.column_names.index("label/like")
    file = tmp_path / "predictions.parquet"
    none = pa.array(np.zeros(table.num_rows, np.float32))
    pq.write_table(table.set_column(place, "label/like", none), file)
    asked = {"predictions": file, "evaluations": 16, "write": False}
    found = workflow.fuse(run, "buy/mrr", **asked)
    assert set(found["found"]["metrics"]) == {"buy/mrr", "click/mrr"}
    assert found["found"]["weights"]["like"] > 0.0
    for goal, bounds in (("like/mrr", []), ("buy/mrr", ["like/mrr >= 0.1"])):
        with pytest.raises(ConfigError, match="'like/mrr' is undefined"):
            workflow.fuse(run, goal, bounds, **asked)


def test_stored_predictions_are_made_anew_when_the_run_changes(
    run: pathlib.Path,
) -> None:
    workflow.fuse(run, "buy/mrr", evaluations=16, write=False)
    assert not (run / FUSION).exists()
    first = (run / CACHE).stat().st_mtime_ns
    workflow.fuse(run, "buy/mrr", evaluations=16)
    workflow.fuse(run, "buy/mrr", evaluations=16)
    assert (run / CACHE).stat().st_mtime_ns == first
    workflow.calibrate(run, method="bias")
    workflow.fuse(run, "buy/mrr", evaluations=16)
    assert (run / CACHE).stat().st_mtime_ns != first


def test_other_predictions_and_a_figure(
    run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    pytest.importorskip("matplotlib")
    file, picture = tmp_path / "test.parquet", tmp_path / "front.png"
    workflow.evaluate(run, "test", predictions_file=file)
    found = workflow.fuse(
        run,
        "click@feed/map@3",
        predictions=file,
        figure=picture,
        write=False,
        evaluations=32,
    )
    assert (found["rows"], found["predictions"]) == (120, str(file))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not (run / FUSION).exists() and not (run / CACHE).exists()
    pq.write_table(pq.read_table(file).drop_columns(["label/buy"]), file)
    with pytest.raises(DataError, match=r"lack the columns \['label/buy'\]"):
        workflow.fuse(run, "buy/mrr", predictions=file)


def test_impossible_bounds_write_nothing(run: pathlib.Path) -> None:
    with pytest.raises(
        ConfigError, match=r"none of the \d+ weights.*'click/mrr >= 0.99"
    ):
        workflow.fuse(run, "buy/mrr", ["click/mrr >= 0.999"], evaluations=32)
    assert not (run / FUSION).exists()


def test_a_run_without_the_section_starts_from_equal_influence(
    run: pathlib.Path,
) -> None:
    path = run / "experiment.yaml"
    text = path.read_text()
    start, end = text.index("\nfusion:"), text.index("\nexport:")
    path.write_text(text[:start] + "\nfusion: null" + text[end:])
    assert workflow.evaluate(run, "test")["fusion"] is None
    found = workflow.fuse(run, "buy/mrr", evaluations=16, form="sum")
    start_weights = found["configured"]["weights"]
    assert list(start_weights) == ["click", "like", "buy"]
    assert start_weights["click"] == 1.0 and start_weights["buy"] > 1.0
    assert workflow.evaluate(run, "test")["fusion"]["form"] == "sum"


def test_a_damaged_file_is_told(run: pathlib.Path) -> None:
    experiment = parse_experiment(EXPERIMENT)
    for text in ("{", "[]", '{"fusion": {"weights": {"clik": 1}}}'):
        (run / FUSION).write_text(text)
        with pytest.raises(DataError, match=r"fusion.json' is damaged"):
            fusion_of(run, experiment)
    assert fusion_of(run, experiment, "configured") == experiment.fusion
    assert fusion_of(run, experiment, "none") is None
