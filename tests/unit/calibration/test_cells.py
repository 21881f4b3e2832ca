"""Who is calibrated with what: cells, fall-backs, unknown scenarios, products."""

from __future__ import annotations

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.calibration.cells import OutputLogits, calibrate_outputs
from tfmtl.calibration.finish import Finish
from tfmtl.calibration.fit import apply
from tfmtl.errors import DataError
from tfmtl.metrics.exact import auc, pcoc
from tfmtl.schema.calibration import (
    CALIBRATION_FILE,
    CalibrationSpec,
    read_calibration,
    write_calibration,
)
from tfmtl.schema.task import TaskSpec

TASKS = (
    TaskSpec(name="click", label="click"),
    TaskSpec(name="buy", label="buy", given="click"),
)
SCENARIOS = ("a", "b", "rare")
ROWS = 6_000


def sigmoid(s: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-s))


def drawn() -> tuple[dict[str, OutputLogits], np.ndarray]:
    """Logits that are too high in `a`, too low in `b`; 30 rows of `rare`."""
    random = np.random.default_rng(0)
    scenario = random.choice(4, ROWS, p=[0.6, 0.35, 0.005, 0.045])
    off = np.array([0.8, -0.6, 0.0, 0.3])[scenario]
    truth = random.normal(-1, 1.5, ROWS)
    click = (random.random(ROWS) < sigmoid(truth)).astype(float)
    again = random.normal(-0.5, 1, ROWS)
    buy = click * (random.random(ROWS) < sigmoid(again))
    s_click = (truth + off).astype(np.float32).astype(np.float64)
    s_buy = (again - 0.4).astype(np.float32).astype(np.float64)
    joint = sigmoid(s_click) * sigmoid(s_buy)
    given = np.where(click == 1, buy, np.nan)
    return {
        "click": OutputLogits(s_click, click),
        "buy|click": OutputLogits(s_buy, given),
        "buy": OutputLogits(np.log(joint / (1 - joint)), buy),
    }, scenario


def fitted(**spec):
    outputs, scenario = drawn()
    asked = CalibrationSpec.model_validate({"method": "platt", **spec})
    found = calibrate_outputs(asked, TASKS, outputs, scenario, SCENARIOS, 7)
    return found, outputs, scenario


@pytest.mark.parametrize("method", ["bias", "platt", "isotonic"])
def test_each_scenario_agrees_and_keeps_its_auc(method: str) -> None:
    found, outputs, scenario = fitted(method=method, by="scenario")
    click = found.outputs["click"]
    for number, name in enumerate(SCENARIOS[:2]):
        rows = scenario == number
        y, s = outputs["click"].labels[rows], outputs["click"].logits[rows]
        cell = click.scenarios[name]
        assert cell.source == "cell"
        after = apply(cell.calibrator, s)
        assert abs(cell.pcoc_before - 1) > 0.15
        assert cell.pcoc_after == pytest.approx(1, abs=1e-6)
        assert pcoc(y, sigmoid(after)) == pytest.approx(1, abs=1e-6)
        assert auc(y, after) == auc(y, s)
    assert (click.scenarios["a"].calibrator) != click.scenarios["b"].calibrator


def test_small_cells_fall_back() -> None:
    found, _, scenario = fitted(by="scenario")
    click = found.outputs["click"]
    rare = click.scenarios["rare"]
    assert rare.rows == (scenario == 2).sum() < 50
    assert rare.source == "task" and rare.calibrator == click.all.calibrator
    assert click.calibrators()[-1] == click.all.calibrator, "unknown: all rows'"
    assert click.all.source == "cell"
    found, _, _ = fitted(by="scenario", min_positives=10_000)
    for output in found.outputs.values():
        for cell in (output.all, *output.scenarios.values()):
            assert cell.source == "identity" and cell.calibrator.is_identity
            assert cell.pcoc_after == pytest.approx(cell.pcoc_before, rel=1e-9)


def test_by_task_every_scenario_has_one_calibrator() -> None:
    found, _, _ = fitted(by="task")
    assert len(set(found.outputs["click"].calibrators())) == 1
    assert found.outputs["click"].all.pcoc_after == pytest.approx(1, abs=1e-6)


def manifest(tmp_path, tasks):
    from tfmtl.schema.dataset import DatasetSpec
    from tfmtl.schema.manifest import DatasetManifest, RowCounts

    dataset = DatasetSpec.model_validate(
        {
            "features": [{"name": "item", "kind": "categorical"}],
            "tasks": [t.model_dump() for t in tasks],
            "scenario": {"column": "page", "values": SCENARIOS},
            "split": {"by": "hash", "column": "item"},
        }
    )
    return DatasetManifest(
        tfmtl_version="test",
        schema_hash="",
        dataset=dataset,
        block_rows=1,
        columns=(),
        splits={},
        counts=RowCounts(read=0, written=0),
    )


def test_served_joint_is_the_product_of_calibrated_steps(tmp_path) -> None:
    found, outputs, scenario = fitted(method="isotonic", by="scenario")
    assert found.outputs["buy"].product
    finish = Finish(manifest(tmp_path, TASKS), found)
    logits = {n: tf.constant(o.logits, tf.float32) for n, o in outputs.items()}
    served = finish(logits, {"scenario": tf.constant(scenario, tf.int32)})
    p = {n: tf.sigmoid(v).numpy() for n, v in served.items()}
    np.testing.assert_allclose(p["buy"], p["click"] * p["buy|click"], rtol=1e-5)
    assert (p["buy"] <= p["click"]).all() and (p["buy"] <= p["buy|click"]).all()
    cells = found.outputs["click"].calibrators()
    steps = found.outputs["buy|click"].calibrators()
    own = np.array([apply(cells[i], s) for i, s in zip(scenario, logits["click"])])
    np.testing.assert_allclose(p["click"], sigmoid(own), atol=1e-6)
    pairs = zip(scenario, logits["buy|click"])
    given = np.array([apply(steps[i], s) for i, s in pairs])
    np.testing.assert_allclose(p["buy|click"], sigmoid(given), atol=1e-6)
    record = found.outputs["buy"].all
    observed = outputs["buy"].labels.sum()
    assert record.pcoc_after == pytest.approx(p["buy"].sum() / observed)
    assert abs(record.pcoc_after - 1) < abs(record.pcoc_before - 1)


def test_without_calibrators_nothing_is_touched(tmp_path) -> None:
    found, outputs, _ = fitted(min_positives=10_000)
    finish = Finish(manifest(tmp_path, TASKS), found)
    logits = {n: tf.constant(o.logits, tf.float32) for n, o in outputs.items()}
    assert finish(logits, {}) == logits


def test_file_is_read_as_it_was_written_and_damage_is_told(tmp_path) -> None:
    found, _, _ = fitted(method="isotonic", by="scenario")
    write_calibration(found, tmp_path)
    assert read_calibration(tmp_path) == found
    path = tmp_path / CALIBRATION_FILE
    knots = found.outputs["click"].all.calibrator.y
    text = path.read_text()
    path.write_text(text.replace(repr(knots[1]), repr(knots[0] - 1)))
    with pytest.raises(DataError, match="strictly rising"):
        read_calibration(tmp_path)
    path.write_text(text[:-9])
    with pytest.raises(DataError, match="is damaged"):
        read_calibration(tmp_path)
    path.unlink()
    assert read_calibration(tmp_path) is None
