import os

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch):
    """Files are renamed as ever, but nothing waits for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(autouse=True)
def _one_thread():
    """As the oracle itself does around a proposal."""
    with threadpool_limits(1):
        yield
