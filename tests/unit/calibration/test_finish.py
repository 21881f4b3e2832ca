"""Who is calibrated: pairs of logits by their difference, others not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.calibration import Finish
from tfmtl.calibration.fit import FITS, apply
from tfmtl.losses.units import to_unit
from tfmtl.metrics.exact import auc, pcoc
from tfmtl.schema.calibration import (
    Calibration,
    Calibrator,
    CellCalibration,
    OutputCalibration,
)
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.manifest import DatasetManifest, RowCounts

ROWS = 2_000


def manifest() -> DatasetManifest:
    """Of a click whose model has two logits a row, and a like that has one."""
    dataset = DatasetSpec.model_validate(
        {
            "features": [{"name": "item", "kind": "categorical"}],
            "tasks": [
                {"name": "click", "label": "click", "loss": "jrc"},
                {"name": "like", "label": "like"},
            ],
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


def calibration(**calibrators: Calibrator) -> Calibration:
    def output(found: Calibrator) -> OutputCalibration:
        cell = CellCalibration(source="task", rows=1, positives=1, calibrator=found)
        return OutputCalibration(all=cell)

    return Calibration(
        method="platt",
        by="task",
        min_positives=1,
        min_negatives=1,
        step=1,
        outputs={n: output(c) for n, c in calibrators.items()},
    )


@pytest.fixture(scope="module")
def drawn() -> tuple[dict[str, Any], np.ndarray]:
    """Outputs of a model whose clicks are off by a slope and a shift, and clicks."""
    draw = np.random.default_rng(0)
    pair = draw.normal(0, 2, (ROWS, 2)).astype(np.float32)
    wrong = pair[:, 1] - pair[:, 0]
    clicks = (draw.random(ROWS) < 1 / (1 + np.exp(1.5 - 0.4 * wrong))).astype(float)
    like = draw.normal(size=ROWS).astype(np.float32)
    return {"click": tf.constant(pair), "like": tf.constant(like)}, clicks


@pytest.mark.parametrize("method", FITS)
def test_a_pair_of_logits_is_calibrated_by_its_difference(
    drawn: Any, method: str
) -> None:
    outputs, clicks = drawn
    click = manifest().dataset.tasks[0]
    before = to_unit(click, outputs["click"]).numpy()
    assert abs(pcoc(clicks, before) - 1) > 0.2
    difference = (outputs["click"][:, 1] - outputs["click"][:, 0]).numpy()
    found = FITS[method](clicks, difference.astype(np.float64))
    result = Finish(manifest(), calibration(click=found))(outputs, {})
    np.testing.assert_allclose(
        result["click"], apply(found, difference), rtol=1e-5, atol=1e-5
    )
    after = to_unit(click, result["click"]).numpy()
    assert pcoc(clicks, after) == pytest.approx(1, abs=1e-4)
    assert auc(clicks, after) == pytest.approx(auc(clicks, before), abs=1e-6)
    # Neither of the two logits is what the calibrator was fitted on.
    for one in (outputs["click"][:, 0], outputs["click"][:, 1]):
        wrong = 1 / (1 + np.exp(-apply(found, one.numpy())))
        assert abs(pcoc(clicks, wrong) - 1) > 0.1 or auc(clicks, wrong) < 0.6


def test_what_both_logits_have_in_common_changes_nothing(drawn: Any) -> None:
    outputs, _ = drawn
    finish = Finish(manifest(), calibration(click=Calibrator(low_slope=0.5, y=(-1.0,))))
    more = {**outputs, "click": outputs["click"] + 3.0}
    np.testing.assert_allclose(
        finish(more, {})["click"], finish(outputs, {})["click"], atol=1e-5
    )


def test_a_task_without_a_calibrator_stays_as_it_is(drawn: Any) -> None:
    outputs, _ = drawn
    shifted = Calibrator(y=(-1.0,))
    result = Finish(manifest(), calibration(click=shifted))(outputs, {})
    np.testing.assert_array_equal(result["like"], outputs["like"])
    result = Finish(manifest(), calibration(like=shifted, click=Calibrator()))(
        outputs, {}
    )
    np.testing.assert_allclose(result["like"], outputs["like"] - 1.0, rtol=1e-6)
    np.testing.assert_array_equal(
        result["click"], outputs["click"][:, 1] - outputs["click"][:, 0]
    )
    assert Finish(manifest(), calibration())(outputs, {}) == outputs
