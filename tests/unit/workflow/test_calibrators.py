"""Corrections that a loss cannot have are refused; calibrators of a whole run."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from tests.unit.calibration.test_sampling import manifest
from tfmtl import workflow
from tfmtl.errors import ConfigError
from tfmtl.schema.calibration import CALIBRATION_FILE
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import parse_experiment
from tfmtl.schema.manifest import DatasetManifest
from tfmtl.testing.tiny import DATASET, tiny_dataset
from tfmtl.training.evaluation import predictions
from tfmtl.training.rundir import RunDirectory
from tfmtl.workflow import calibrators
from tfmtl.workflow.calibrators import check_calibration, check_sampling

OTHERS: dict[str, Any] = {
    "focal": "focal",
    "l2r": "l2r",
    "jrc": "jrc",
    "bpr": {"name": "bpr", "within": "group"},
    "list_softmax": "list_softmax",
    "listnet": "listnet",
    "listmle": "listmle",
}


def sampled(correction: str, **losses: Any) -> DatasetManifest:
    """Of a funnel whose clicks are kept, as far as it is named, with these losses."""
    made = manifest(correction)
    document = made.dataset.model_dump()
    tasks = [t for t in document["tasks"] if t["name"] in losses]
    document["tasks"] = [{**t, "loss": losses[t["name"]]} for t in tasks]
    document["keys"]["group"] = "request"
    return made.model_copy(
        update={"dataset": type(made.dataset).model_validate(document)}
    )


@pytest.mark.parametrize("correction", ["export", "training"])
@pytest.mark.parametrize("name", OTHERS)
def test_no_offset_of_what_is_no_log_odds(correction: str, name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"correction: {correction}.*only `loss: bce`.*'{name}'"
    ):
        check_sampling(sampled(correction, click=OTHERS[name]), refit=False)


@pytest.mark.parametrize("name", OTHERS)
def test_any_loss_where_no_logit_is_moved(name: str) -> None:
    for correction in ("weights", "none"):
        check_sampling(sampled(correction, click=OTHERS[name]), refit=False)
    if name == "jrc":
        return  # Of two logits a row, which no funnel multiplies.
    for correction in ("export", "training"):
        # Purchases among clicks: all rows are there, so nothing is to be corrected.
        made = sampled(correction, click="bce", buy=OTHERS[name])
        check_sampling(made, refit=False)


@pytest.mark.parametrize("correction", ["export", "training"])
def test_smoothed_labels_are_no_odds_to_move(correction: str) -> None:
    smooth = {"name": "bce", "smoothing": 0.1}
    match = rf"correction: {correction}.*`smoothing: 0`.*'click': 'bce, smoothing: 0.1'"
    with pytest.raises(ConfigError, match=match):
        check_sampling(sampled(correction, click=smooth), refit=False)
    # Of purchases among clicks nothing is moved.
    check_sampling(sampled(correction, click="bce", buy=smooth), refit=False)
    check_sampling(sampled("weights", click=smooth), refit=False)


@pytest.mark.parametrize("correction", ["export", "training"])
@pytest.mark.parametrize(
    "loss", ["focal", "bpr", "listnet", {"name": "bce", "smoothing": 0.1}]
)
def test_a_joint_output_that_is_fitted_needs_odds_too(
    correction: str, loss: Any
) -> None:
    made = sampled(correction, click="bce", buy=loss)
    check_sampling(made, refit=False, joint=False)
    with pytest.raises(ConfigError, match=r"`loss: bce`.*\{'buy': "):
        check_sampling(made, refit=False, joint=True)
    check_sampling(sampled(correction, click="bce", buy="bce"), refit=False, joint=True)


def test_training_tells_which_output_is_fitted(tmp_path: pathlib.Path) -> None:
    buy = {"name": "buy", "label": "buy", "given": "click", "loss": "focal"}
    asked = calibrated([{"name": "click", "label": "click"}, buy])
    document = asked.model_dump(by_alias=True)
    document["dataset"]["sampling"] = {"keep": ["click"], "rate": 0.5}
    tiny_dataset(tmp_path / "data", spec=parse_experiment(document).dataset)
    for model in (
        {"class": "ESMM"},
        {"class": "MMoE", "config": {"given_loss": "joint"}},
    ):
        document["model"] = model
        with pytest.raises(ConfigError, match=r"`loss: bce`.*\{'buy': 'focal'\}"):
            workflow.train(parse_experiment(document), tmp_path / "data", tmp_path)


def test_no_refit_on_a_mixture_of_rates() -> None:
    with pytest.raises(ConfigError, match="no rate to correct"):
        check_sampling(manifest("weights"), refit=True)
    check_sampling(manifest("weights", 1.0, scenario_rates={}), refit=True)


def calibrated(tasks: list[dict[str, Any]]) -> Experiment:
    return parse_experiment(
        {
            "name": "tiny",
            "dataset": {**DATASET, "tasks": tasks},
            "model": {"class": "SharedBottom", "config": {"bottom_units": [4]}},
            "training": {"batch_size": 64, "steps": 4, "monitor": "click/auc"},
            "calibration": {"method": "platt", "min_positives": 5, "min_negatives": 5},
        }
    )


def test_two_logits_a_row_are_calibrated_as_one_and_no_error_loses_the_run(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = {"name": "jrc", "within": "batch"}
    asked = calibrated([{"name": "click", "label": "click", "loss": loss}])
    rows = {"train": 200, "validation": 200, "test": 20}
    tiny_dataset(tmp_path / "data", rows, spec=asked.dataset)
    run = tmp_path / "run"

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no memory left")

    with monkeypatch.context() as patched:
        patched.setattr(calibrators, "calibrate_outputs", broken)
        with pytest.raises(RuntimeError, match="no memory left"):
            workflow.train(asked, tmp_path / "data", run)
    # What hours of training found is there, and may be calibrated later.
    assert RunDirectory(run).result()["steps"] == 4
    assert not (run / CALIBRATION_FILE).exists()
    seen: dict[str, np.ndarray] = {}

    def spied(*arguments: Any, **options: Any) -> Any:
        found = predictions(*arguments, **options)
        seen.update(found[0])
        return found

    monkeypatch.setattr(calibrators, "predictions", spied)
    found = workflow.calibrate(run).outputs["click"].all
    assert seen["click"].shape == (200,)
    assert found.source == "cell" and found.pcoc_before != pytest.approx(1, abs=1e-3)
    # The probability that is read is the calibrated one.
    report = workflow.evaluate(run, "validation", resamples=0)
    assert report["tasks"]["click"]["pcoc"] == pytest.approx(1, abs=1e-5)


def test_calibration_without_a_probability_is_refused_before_training() -> None:
    watch = {"name": "watch", "label": "click", "type": "regression"}
    asked = calibrated([watch, {"name": "click", "label": "click"}])
    check_calibration(asked)
    tasks = asked.dataset.tasks[:1]
    alone = asked.model_copy(
        update={"dataset": asked.dataset.model_copy(update={"tasks": tasks})}
    )
    with pytest.raises(ConfigError, match=r"is for binary tasks.*\['watch'\]"):
        check_calibration(alone)
