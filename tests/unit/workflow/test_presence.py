"""Workers that are gone, with a clock and an oracle of the test's own."""

from __future__ import annotations

import os
import pathlib
import time
import types
from collections.abc import Callable
from typing import Any

import pytest

from tfmtl.progress import Silent
from tfmtl.workflow.presence import Presence, announced


class Oracle:
    """Who has which trial."""

    def __init__(self, **trials: str) -> None:
        self.ongoing_trials = {
            worker: types.SimpleNamespace(trial_id=trial)
            for worker, trial in trials.items()
        }
        self.tuner_ids = {*trials}
        self.released: list[str] = []

    def release(self, worker: str) -> None:
        self.ongoing_trials.pop(worker, None)
        self.tuner_ids.discard(worker)
        self.released.append(worker)


@pytest.fixture
def watched(tmp_path: pathlib.Path) -> Any:
    now = [1000.0]
    oracle = Oracle(worker0="0003", worker1="0004")
    presence = Presence(tmp_path, oracle, Silent(), seconds=60, clock=lambda: now[0])

    def after(seconds: float, *touched: str) -> list[str]:
        now[0] += seconds
        for worker in touched:
            path = tmp_path / f"{worker}.alive"
            # A machine whose own clock stands in the past.
            path.write_text(f"{now[0]}")
            os.utime(path, ns=(int(now[0]), int(now[0])))
        presence.release_absent()
        return oracle.released

    return after


def test_a_worker_that_touches_nothing_loses_its_trial(watched: Any) -> None:
    assert watched(0, "worker0", "worker1") == []
    assert watched(50, "worker0") == []
    assert watched(50, "worker0") == ["worker1"]
    # Not once more, and the other one as long as it is there.
    for _ in range(5):
        assert watched(50, "worker0") == ["worker1"]
    watched(59)
    assert watched(2) == ["worker1", "worker0"]


def test_a_worker_without_a_file_has_as_long(watched: Any) -> None:
    watched(0, "worker0")
    assert watched(59, "worker0") == []
    assert watched(2, "worker0") == ["worker1"]


def test_a_worker_announces_itself(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "logs" / "worker0.alive"

    def wait_until(seen: Callable[[], bool]) -> None:
        for _ in range(1000):
            if seen():
                return
            time.sleep(0.01)
        raise AssertionError("nothing was touched")

    with announced(tmp_path / "logs", "worker0", seconds=0.01):
        wait_until(path.exists)
        first = path.stat().st_mtime_ns
        wait_until(lambda: path.stat().st_mtime_ns > first)
        # `--overwrite` takes the whole directory away.
        path.parent.rename(tmp_path / "gone")
        wait_until(path.exists)
    assert not path.exists()
