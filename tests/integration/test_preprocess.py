"""The Beam job in processes of its own: worker processes, and kills."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from pipeline.preprocess import run
from tests.unit.pipeline.records import frozen, read_blocks
from tfmtl.schema.load import parse_experiment
from tfmtl.schema.manifest import read_dataset

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROWS = 4_000
DATASET = {
    "features": [
        {"name": "user", "kind": "categorical"},
        {"name": "item", "kind": "categorical"},
        {"name": "price", "kind": "numeric"},
        {"name": "past", "kind": "multivalent"},
    ],
    "tasks": [{"name": "click", "label": "click"}],
    "keys": {"row": "row", "group": "user", "timestamp": "time"},
    "split": {"by": "time", "validation": 0.2, "test": 0.2},
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with an experiment and a log in two files."""
    folder = tmp_path_factory.mktemp("log")
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "row": np.arange(ROWS),
            "user": random.integers(0, 300, ROWS),
            "item": [f"i{k}" for k in random.zipf(1.5, ROWS) % 100],
            "price": random.normal(size=ROWS),
            "past": [[f"i{k}" for k in range(n)] for n in random.integers(0, 9, ROWS)],
            "click": random.integers(0, 2, ROWS),
            "time": np.arange(ROWS),
        }
    )
    frame[: ROWS // 2].to_parquet(folder / "a.parquet", row_group_size=300)
    frame[ROWS // 2 :].to_parquet(folder / "b.parquet", row_group_size=300)
    experiment = parse_experiment(
        {"name": "log", "dataset": DATASET, "model": {"class": "MMoE"}}
    )
    text = experiment.model_dump_json(by_alias=True)
    (folder / "experiment.json").write_text(text)
    return folder


def start(
    log: pathlib.Path, output: pathlib.Path, *beam: str, failpoint: str = ""
) -> int:
    """Runs the job as a command; returns its exit status."""
    command = [sys.executable, "-m", "pipeline.preprocess"]
    command += [str(log / "experiment.json"), "--input", str(log / "*.parquet")]
    command += ["--output", str(output), "--shards", "3", "--block-rows", "200"]
    environment = os.environ | {"TFMTL_FAILPOINT": failpoint, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--", *beam], env=environment, cwd=ROOT, capture_output=True
    )
    return done.returncode


def rows(output: pathlib.Path) -> list[str]:
    """All rows of a dataset directory, as a comparable multiset."""
    manifest = read_dataset(output)
    assert manifest.counts.balanced
    found = []
    for split in manifest.splits:
        found += read_blocks(output, manifest, split)
    return frozen(found)


@pytest.fixture(scope="module")
def expected(log: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The rows that an undisturbed run writes."""
    output = tmp_path_factory.mktemp("expected") / "dataset"
    inputs = [str(log / "*.parquet")]
    run(log / "experiment.json", inputs, output, shards=3, block_rows=200)
    found = rows(output)
    assert len(found) == ROWS
    return found


@pytest.mark.slow
def test_worker_processes_lose_no_row(
    log: pathlib.Path, expected: list[str], tmp_path: pathlib.Path
) -> None:
    options = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    assert start(log, tmp_path / "out", *options) == 0
    assert rows(tmp_path / "out") == expected


@pytest.mark.slow
@pytest.mark.parametrize("place", ["beam-sink:2", "preprocess/before-rename"])
def test_a_killed_run_leaves_nothing_that_looks_complete(
    log: pathlib.Path, expected: list[str], tmp_path: pathlib.Path, place: str
) -> None:
    output = tmp_path / "out"
    assert start(log, output, failpoint=place) == -signal.SIGKILL
    assert not output.exists()
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    inputs = [str(log / "*.parquet")]
    run(log / "experiment.json", inputs, output, shards=3, block_rows=200)
    assert rows(output) == expected
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
