"""Every worked experiment of the package passes `tfmtl config check`."""

from __future__ import annotations

import pathlib

import pytest

import tfmtl as package
from tfmtl.schema.load import load_experiment

FILES = sorted((pathlib.Path(package.__file__).parent / "experiments").glob("*.yaml"))


def test_there_are_some():
    assert {"simulated", "kuairand", "movielens-1m"} <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_experiment(tfmtl, file):
    result = tfmtl("config", "check", file)
    assert result.code == 0, result.err
    assert f"is sound: {load_experiment(file).name}, " in result.out
