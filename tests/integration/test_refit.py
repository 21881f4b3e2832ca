"""`train --refit`: the model of train + validation is the one that is used."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tests.integration import comparing, killed
from tests.integration.small import Chain
from tfmtl import workflow
from tfmtl._keras import tf
from tfmtl.schema.load import load_experiment


def _check_killed_refit(
    chain: Chain, reference: pathlib.Path, folder: pathlib.Path, overrides: list[str]
) -> None:
    """A kill in the refit, after the choice: the same weights once it is continued."""
    run, log = folder / "killed", folder / "log"
    command: list[Any] = ["train", chain.experiment, "--dataset", chain.dataset]
    command += ["--run", run, "--refit", "--resume"]
    for override in overrides:
        command += ["--set", override]
    # The first fit is 10 chunks of steps: this is the fourth of the refit.
    assert killed.is_killed(command, log, "train/mid-step:14"), log.read_text()
    assert list((run / "refit" / "checkpoints").glob("step-*"))
    assert not (run / "result.json").exists()
    assert killed.exit_code(command, log) == 0, log.read_text()
    for left, right in ((run, reference), (run / "refit", reference / "refit")):
        assert comparing.steps_once(left)
        assert comparing.events(left) == comparing.events(right)
        assert comparing.different_weights(left, right) == []


def test_refit_is_what_evaluation_and_export_use(
    chain: Chain, tmp_path: pathlib.Path
) -> None:
    overrides = ["training.epochs=1", "training.evaluate_every=null"]
    experiment = load_experiment(chain.experiment, overrides)
    run = tmp_path / "run"
    result = workflow.train(experiment, chain.dataset, run, refit=True)
    assert result.refit
    lines = (run / "refit" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(x)["kind"] for x in lines].count("validation") == 0
    assert json.loads(lines[-1])["step"] == result.step
    _check_killed_refit(chain, run, tmp_path, overrides)
    predictions = tmp_path / "test.parquet"
    workflow.evaluate(run, "test", predictions_file=predictions)
    workflow.export(run, tmp_path / "model")
    workflow.score(tmp_path / "model", chain.logs, tmp_path / "scores.parquet")
    expected = pq.read_table(predictions).to_pandas().set_index("row")
    scores = pq.read_table(tmp_path / "scores.parquet").to_pandas().set_index("row")
    np.testing.assert_allclose(
        scores.loc[expected.index, "click"], expected["prediction/click"], atol=1e-6
    )
    # It is another model than the one trained on the training split alone.
    alone = tf.train.load_checkpoint(
        str(run / "checkpoints" / f"best-{result.step:010d}" / "model")
    )
    again = tf.train.load_checkpoint(
        str(run / "refit" / "checkpoints" / f"best-{result.step:010d}" / "model")
    )
    names = [n for n in alone.get_variable_to_shape_map() if "experts" in n]
    assert names
    assert any(
        not np.array_equal(alone.get_tensor(n), again.get_tensor(n)) for n in names
    )
