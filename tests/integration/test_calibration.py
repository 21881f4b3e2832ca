"""Sampling, correction and calibration from raw logs to the exported graph."""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.integration.small import Chain, changed
from tfmtl import workflow
from tfmtl.calibration.fit import apply
from tfmtl.errors import ConfigError, DataError
from tfmtl.metrics.exact import auc, pcoc
from tfmtl.schema.calibration import CALIBRATION_FILE, read_calibration
from tfmtl.schema.load import parse_experiment
from tfmtl.schema.manifest import read_dataset, read_export

SECTION = {"keep": ["click"], "rate": 0.2, "scenario_rates": {"search": 0.5}}
MODEL = {"class": "SharedBottom", "config": {"bottom_units": [8], "tower_units": []}}


def experiment(correction: str, method: str = "none") -> Any:
    document = changed(
        dataset__sampling={**SECTION, "correction": correction},
        calibration={"method": method, "by": "scenario", "min_positives": 5},
        model=MODEL,
        training__epochs=6,
        training__evaluate_every=None,
        training__checkpoint_every=None,
        training__batch_size=128,
        regularization={},
    )
    return parse_experiment(document)


@pytest.fixture(scope="module")
def sampled(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with a sampled data set and a run for each correction."""
    from pipeline.preprocess import run as preprocess

    folder = tmp_path_factory.mktemp("sampled")
    preprocess(experiment("export"), chain.logs, folder / "dataset", block_rows=128)
    for correction, method in (
        ("export", "none"),
        ("training", "platt"),
        ("weights", "none"),
    ):
        asked = experiment(correction, method)
        workflow.train(asked, folder / "dataset", folder / correction)
    return folder


def predicted(run: pathlib.Path, split: str, folder: pathlib.Path) -> Any:
    workflow.evaluate(run, split, predictions_file=folder / f"{split}.parquet")
    return pq.read_table(folder / f"{split}.parquet").to_pandas().set_index("row")


def ratio(frame: Any, output: str) -> float:
    known = frame[~frame[f"label/{output}"].isna()]
    return pcoc(known[f"label/{output}"], known[f"prediction/{output}"])


def test_corrections_bring_back_the_rates_of_all_rows(
    sampled: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    found = {}
    for correction in ("export", "training", "weights", "none"):
        folder = tmp_path / correction
        folder.mkdir()
        trained = "export" if correction == "none" else correction
        shutil.copytree(sampled / trained, folder / "run")
        (folder / "run" / CALIBRATION_FILE).unlink(missing_ok=True)
        # The model of `export`, read without its correction.
        file = folder / "run" / "experiment.yaml"
        old, new = (f"correction: {c}" for c in (trained, correction))
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        found[correction] = predicted(folder / "run", "validation", folder)
    for correction in ("export", "training", "weights"):
        for output in ("click", "like"):
            error = abs(np.log(ratio(found[correction], output)))
            assert error < 0.35, (correction, output)
    assert ratio(found["none"], "click") > 1.6
    odds = {
        k: f["prediction/click"] / (1 - f["prediction/click"]) for k, f in found.items()
    }
    rates = np.where(found["none"]["scenario"] == "search", 0.5, 0.2)
    np.testing.assert_allclose(odds["export"] / odds["none"], rates, rtol=1e-3)
    np.testing.assert_allclose(
        found["export"]["prediction/like|click"],
        found["none"]["prediction/like|click"],
        rtol=1e-6,
    )
    for frame in found.values():
        product = frame["prediction/click"] * frame["prediction/like|click"]
        np.testing.assert_allclose(frame["prediction/like"], product, rtol=1e-3)


def test_train_calibrates_and_the_export_holds_it(
    sampled: pathlib.Path, chain: Chain, tmp_path: pathlib.Path
) -> None:
    run = sampled / "training"
    calibration = read_calibration(run)
    assert calibration is not None and calibration.method == "platt"
    assert calibration.step == json.loads((run / "result.json").read_text())["step"]
    plain = tmp_path / "plain"
    shutil.copytree(run, plain)
    (plain / CALIBRATION_FILE).unlink()
    before = predicted(plain, "validation", tmp_path)
    after = predicted(run, "validation", tmp_path)
    for output in ("click", "like|click"):
        cells = calibration.outputs[output].scenarios
        for scenario, cell in cells.items():
            here = (before["scenario"] == scenario) & ~before[f"label/{output}"].isna()
            p = before.loc[here, f"prediction/{output}"].to_numpy(np.float64)
            logits = np.log(p) - np.log1p(-p)
            served = after.loc[here, f"prediction/{output}"].to_numpy(np.float64)
            wanted = 1 / (1 + np.exp(-apply(cell.calibrator, logits)))
            np.testing.assert_allclose(served, wanted, atol=1e-6)
            y = before.loc[here, f"label/{output}"]
            enough = cell.positives >= 5 and cell.rows - cell.positives >= 50
            assert cell.source == ("cell" if enough else "task")
            if cell.source == "cell":
                assert pcoc(y, served) == pytest.approx(1, abs=1e-5)
            if cell.positives:
                assert auc(y, served) == pytest.approx(auc(y, p), abs=1e-4)
    _check_export(run, after, chain, tmp_path)


def _check_export(
    run: pathlib.Path, expected: Any, chain: Chain, folder: pathlib.Path
) -> None:
    workflow.export(run, folder / "model")
    card = read_export(folder / "model" / "1")
    assert card.calibration["method"] == "platt"
    stats = read_dataset(run.parent / "dataset").sampling
    assert stats is not None
    assert card.data["positive_rates"]["click"] == stats.tasks["click"].mean
    for source, name in ((folder / "model", "export"), (run, "run")):
        workflow.score(source, chain.logs, folder / f"{name}.parquet")
        scores = pq.read_table(folder / f"{name}.parquet").to_pandas().set_index("row")
        for output in ("click", "like|click", "like", "watch_time"):
            found = scores.loc[expected.index, output]
            np.testing.assert_allclose(
                found, expected[f"prediction/{output}"], rtol=1e-6, atol=1e-6
            )


def test_calibrate_command_replaces_and_takes_away(
    sampled: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(sampled / "export", run)
    with pytest.raises(ConfigError, match="`method` must be given"):
        workflow.calibrate(run)
    with pytest.raises(ConfigError, match="`by` must be one of"):
        workflow.calibrate(run, method="bias", by="page")
    before = predicted(run, "validation", tmp_path)
    for method in ("bias", "isotonic"):
        found = workflow.calibrate(run, method=method, by="task")
        assert read_calibration(run) == found
        click = found.outputs["click"].all
        assert click.pcoc_after == pytest.approx(1, abs=1e-6)
        after = predicted(run, "validation", tmp_path)
        assert ratio(after, "click") == pytest.approx(1, abs=1e-5)
        report = workflow.evaluate(run, "test")
        assert report["calibration"] == method
    assert workflow.calibrate(run, method="none").outputs == {}
    same = predicted(run, "validation", tmp_path)
    np.testing.assert_array_equal(same["prediction/click"], before["prediction/click"])
    (run / CALIBRATION_FILE).write_text("{}")
    with pytest.raises(DataError, match="is damaged"):
        workflow.evaluate(run, "test")


def test_refit_of_a_sampled_split_is_refused(
    sampled: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(ConfigError, match="`refit` trains on"):
        workflow.train(
            experiment("export"), sampled / "dataset", tmp_path / "run", refit=True
        )
