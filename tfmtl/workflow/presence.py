"""Which workers are there: each touches a file of its own, and the chief looks.

A worker says nothing to the chief while it trains, and one that is gone for good would
hold its trial for ever. Files lie in the search's directory, which all machines see;
the chief compares what it sees with its own clock, so machines' clocks may differ.
"""

from __future__ import annotations

import contextlib
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tfmtl.progress import Listener

SUFFIX = ".alive"
TOUCH_SECONDS = 10.0
ABSENT_SECONDS = 120.0
"""A worker that touched nothing for so long is taken for dead."""


@contextlib.contextmanager
def announced(
    folder: pathlib.Path, name: str, seconds: float = TOUCH_SECONDS
) -> Iterator[None]:
    """Touches a worker's file again and again, by a thread of its own.

    Args:
        folder: Of the files.
        name: Of the worker.
        seconds: Between two times.
    """
    path, over = folder / (name + SUFFIX), threading.Event()

    def touch() -> None:
        while True:
            # A file system that is away for a moment is no reason to stop.
            with contextlib.suppress(OSError):
                # `--overwrite` may have taken it away.
                folder.mkdir(parents=True, exist_ok=True)
                path.touch()
            if over.wait(seconds):
                return

    thread = threading.Thread(target=touch, name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        path.unlink(missing_ok=True)


class Presence:
    """Takes the trials of workers that are gone away from them.

    A worker that was only slow may end its trial all the same: the first to end it
    counts, and two never train in one run directory, which has a lock.

    Args:
        folder: Of the workers' files.
        oracle: Knows who has which trial.
        listener: Told about workers that are gone.
        seconds: After which a worker that touched nothing is gone.
        clock: Seconds of this process.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        oracle: Any,
        listener: Listener,
        seconds: float = ABSENT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._oracle = oracle
        self._listener = listener
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}

    def release_absent(self) -> None:
        """Looks at every worker that has a trial, or is waited for."""
        now = self._clock()
        workers = {*self._oracle.ongoing_trials, *self._oracle.tuner_ids}
        self._seen = {w: seen for w, seen in self._seen.items() if w in workers}
        for worker in sorted(workers):
            touched = self._touched(worker)
            before, since = self._seen.get(worker, (touched, now))
            if touched != before:
                since = now
            self._seen[worker] = (touched, since)
            if now - since > self._seconds:
                self._release(worker, now - since)

    def _release(self, worker: str, seconds: float) -> None:
        trial = self._oracle.ongoing_trials.get(worker)
        what = f"; trial {trial.trial_id} goes to another" if trial else ""
        self._listener.note(f"{worker} is gone for {seconds:.0f} s{what}")
        self._oracle.release(worker)
        del self._seen[worker]
        self._path(worker).unlink(missing_ok=True)

    def _touched(self, worker: str) -> int:
        """When its file was touched; 0 where there is none."""
        try:
            return self._path(worker).stat().st_mtime_ns
        except OSError:
            return 0

    def _path(self, worker: str) -> pathlib.Path:
        return self._folder / (worker + SUFFIX)
