"""`tfmtl demo`: the whole chain on a few rows, and what it refuses."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

import tfmtl as package

ROOT = pathlib.Path(package.__file__).parents[1]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("kuairand", "must be NAME=DIR with a folder that exists"),
        ("kuairand=/nowhere", "Received: 'kuairand=/nowhere'"),
        ("kuairnd=/", "Did you mean 'kuairand'?"),
    ],
)
def test_raw_files_that_are_not_there(tfmtl, raw, message):
    result = tfmtl("demo", "--raw", raw)
    assert result.code == 2
    assert message in result.err


def test_a_full_folder_is_kept(tfmtl, tmp_path):
    (tmp_path / "mine").write_text("x")
    result = tfmtl("demo", "--out", tmp_path)
    assert result.code == 2 and "--overwrite" in result.err
    assert (tmp_path / "mine").read_text() == "x"


@pytest.mark.slow
def test_from_logs_to_predictions(tmp_path):
    out = tmp_path / "out"
    command = ["demo", "--rows", "3000", "--set", "training.epochs=1"]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "tfmtl", *command, "--out", str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "predictions over REST" in done.stdout
    assert "test split, " in done.stdout and "mean_task_auc" in done.stdout
    assert done.stdout.rstrip().endswith(f"everything lies in {out}")
    for stage in ("simulate", "transform and write", "train", "export", "serve"):
        assert stage in done.stderr
    assert "Traceback" not in done.stderr
    assert "oneDNN" not in done.stderr and "cuda" not in done.stderr.lower()
    assert {p.name for p in out.iterdir()} == {"raw", "dataset", "run", "model"}
