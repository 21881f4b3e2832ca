"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], pathlib.Path]:
    """Finds a publisher's data set, or skips the test that asks for it."""
    root = pathlib.Path(os.environ.get("TFMTL_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> pathlib.Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"no {name} data at {root}; set TFMTL_DATA to its folder")
        return path

    return find
