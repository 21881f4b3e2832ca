"""The folder a running job works in, and what is left of jobs that died.

A job writes to `.<output>.<random>.partial` beside the output folder and holds a lock
on that folder. The kernel releases the lock when the process ends, however it ends, so
the next run can tell a dead job's folder from a living one's.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import logging
import os
import pathlib
import pickle
import shutil
import time
from collections.abc import Iterator
from typing import Any

_logger = logging.getLogger(__name__)

WORK = ".work"
_YOUNG = 600.0  # seconds: an empty folder without a lock may just be starting


@contextlib.contextmanager
def held(partial: pathlib.Path) -> Iterator[None]:
    """Holds the lock of a folder while the body runs, also across its rename."""
    with _opened(partial) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextlib.contextmanager
def scratch(partial: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a scratch folder inside `partial`; it is gone when the body succeeds."""
    work = partial / WORK
    work.mkdir()
    yield work
    shutil.rmtree(work)


def remove_leftovers(output: pathlib.Path) -> list[pathlib.Path]:
    """Removes the folders that dead jobs with this output left behind.

    Args:
        output: The final folder.

    Returns:
        The folders removed.
    """
    target = output.absolute()
    pattern = f".{glob.escape(target.name)}.*.partial"
    removed = []
    for path in target.parent.glob(pattern):
        if path.is_dir() and _dead(path):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
            _logger.info("removed %s, left behind by a job that died", path)
    return removed


@contextlib.contextmanager
def _opened(folder: pathlib.Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _dead(path: pathlib.Path) -> bool:
    try:
        with _opened(path) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            age = time.time() - path.stat().st_mtime
            return age > _YOUNG or any(path.iterdir())
    except (BlockingIOError, FileNotFoundError):
        return False


def save(path: pathlib.Path, value: Any) -> None:
    """Pickles a value to a file that appears when it is complete."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(pickle.dumps(value))
    os.replace(partial, path)


def load(path: pathlib.Path) -> Any:
    """What `save` wrote; an empty list where no worker saved anything."""
    return pickle.loads(path.read_bytes()) if path.exists() else []
