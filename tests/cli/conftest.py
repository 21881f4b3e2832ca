"""The command line never leaves its settings behind; a small experiment file."""

from __future__ import annotations

import pathlib

import pytest


@pytest.fixture(autouse=True)
def _unchanged(unchanged_logging: None) -> None:
    """Every test here may configure logging."""


EXPERIMENT = """\
name: tiny
dataset:
  features:
    - {name: user_id, kind: categorical, dim: 4, side: user}
    - {name: price, kind: numeric}
  scenario: {column: page, values: [home, search]}
  tasks:
    - {name: click, label: clicked}
    - {name: buy, label: bought, given: click}
  keys: {user: user_id, timestamp: time}
  split: {by: time}
model: {class: SharedBottom}
"""


@pytest.fixture
def experiment_file(tmp_path: pathlib.Path) -> pathlib.Path:
    """A small experiment file."""
    path = tmp_path / "experiment.yaml"
    path.write_text(EXPERIMENT)
    return path
