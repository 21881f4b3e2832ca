"""SIGKILL at every failpoint; what is continued ends as if nothing had happened."""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest

from tests.integration import comparing, killed
from tests.integration.small import Chain
from tfmtl import workflow
from tfmtl._keras import tf
from tfmtl.errors import DataError
from tfmtl.schema.manifest import read_dataset

# A run is killed at each of these in turn, and each time continued: at step 4, of which
# checkpoint 3 knows nothing; inside the write of the checkpoints of the 6th and 9th
# step; before and after an evaluation, and with its metrics written but not its model.
TRAINING = (
    "train/mid-step:3",
    "checkpoint/inside:2",
    "evaluate/before",
    "evaluate/inside",
    "best/before-rename",
    "checkpoint/before-rename:2",
)


def _check_unfinished(run: pathlib.Path) -> bytes:
    """Nothing that is there is half: no result, and each checkpoint can be read.

    Returns:
        The lines of `metrics.jsonl` that the newest checkpoint vouches for.
    """
    assert not (run / "result.json").exists()
    with pytest.raises(DataError, match="not finished"):
        workflow.evaluate(run)
    length = 0
    for folder in sorted((run / "checkpoints").glob("[!.]*")):
        kind = "state" if folder.name.startswith("step-") else "model"
        assert comparing.variables(folder / kind)
        if kind == "state":
            progress = json.loads((folder / "progress.json").read_text())
            length = progress["metrics_bytes"]
    return (run / "metrics.jsonl").read_bytes()[:length]


def _hidden(folder: pathlib.Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


def test_training_killed_everywhere(chain: Chain, tmp_path: pathlib.Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    command = ["train", chain.experiment, "--dataset", chain.dataset, "--run", run]
    command.append("--resume")
    kept = b""
    for point in TRAINING:
        assert killed.is_killed(command, log, point), (point, log.read_text()[-2000:])
        before, kept = kept, _check_unfinished(run)
        # Speeds are among the lines: had the run begun anew, they would differ.
        assert kept.startswith(before)
    assert killed.exit_code(command, log) == 0, log.read_text()[-2000:]
    assert kept.count(b"\n") >= 5
    assert (run / "metrics.jsonl").read_bytes().startswith(kept)
    assert comparing.steps_once(run)
    assert comparing.events(run) == comparing.events(chain.run)
    assert comparing.different_weights(run, chain.run) == []
    assert _hidden(run / "checkpoints") == []
    results = [json.loads((r / "result.json").read_text()) for r in (run, chain.run)]
    for result in results:
        result.pop("run")
    assert results[0] == results[1]


def test_the_comparison_sees_a_difference(chain: Chain, tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(chain.run, run)
    assert comparing.different_weights(run, chain.run) == []
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([*lines, lines[-1]]))
    assert not comparing.steps_once(run)
    (run / "metrics.jsonl").write_text("\n".join(lines[:1] + lines[2:]))
    assert not comparing.steps_once(run)
    (best,) = (run / "checkpoints").glob("best-*")
    shutil.rmtree(best)
    assert comparing.different_weights(run, chain.run) != []


def test_the_comparison_sees_one_bit(tmp_path: pathlib.Path) -> None:
    values = np.linspace(0.0, 1.0, 50, dtype=np.float32)
    runs = []
    for name, last in (("a", 1.0), ("b", 1.0), ("c", np.nextafter(np.float32(1), 2))):
        runs.append(tmp_path / name)
        values[-1] = last
        state = runs[-1] / "checkpoints" / "step-1" / "state"
        tf.train.Checkpoint(v=tf.Variable(values)).write(str(state))
    assert comparing.different_weights(runs[0], runs[1]) == []
    assert len(comparing.different_weights(runs[0], runs[2])) == 1


@pytest.mark.parametrize("point", ["beam-sink:2", "preprocess/before-rename"])
def test_preprocessing_killed(chain: Chain, tmp_path: pathlib.Path, point: str) -> None:
    dataset = tmp_path / "dataset"
    command = ["preprocess", chain.experiment, "--input", chain.logs, "--output"]
    command += [dataset, "--block-rows", "128"]
    assert killed.is_killed(command, tmp_path / "log", point), (
        tmp_path / "log"
    ).read_text()[-2000:]
    assert not dataset.exists()
    with pytest.raises(DataError, match=r"dataset\.json"):
        read_dataset(dataset)
    code = killed.exit_code(command, tmp_path / "log")
    assert code == 0, (tmp_path / "log").read_text()[-2000:]
    assert _hidden(tmp_path) == []
    assert comparing.rows_of(dataset) == comparing.rows_of(chain.dataset)
    counts = read_dataset(dataset).counts
    assert counts == read_dataset(chain.dataset).counts and counts.balanced


def test_export_killed(chain: Chain, tmp_path: pathlib.Path) -> None:
    models = tmp_path / "models"
    command = ["export", chain.run, "--output", models]
    assert killed.is_killed(command, tmp_path / "log", "export/before-rename"), (
        tmp_path / "log"
    ).read_text()[-2000:]
    # TensorFlow Serving takes every folder whose name is a number for a version.
    assert [p for p in models.iterdir() if not p.name.startswith(".")] == []
    workflow.export(chain.run, models)
    assert (models / "1" / "saved_model.pb").is_file()
