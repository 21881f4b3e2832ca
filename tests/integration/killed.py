"""Runs a command in a process that a failpoint kills.

Each process is forked from a server that has imported TensorFlow and Beam but never
used them, which saves the seconds an interpreter needs to start.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tfmtl.workflow", "pipeline.job", "tfmtl.cli.main"])
_LIMIT = 300.0


def _child(arguments: list[str], point: str | None, log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if point is not None:
        os.environ["TFMTL_FAILPOINT"] = point
    from tfmtl.cli.main import main

    raise SystemExit(main(arguments))


def exit_code(arguments: list[Any], log: Any, point: str | None = None) -> int:
    """Runs `tfmtl ARGUMENTS` to its end or to the failpoint.

    Args:
        arguments: Of the command line.
        log: File that takes what the process writes.
        point: Failpoint, `name` or `name:count`.

    Returns:
        The exit code; -9 where the failpoint killed the process.
    """
    process = _CONTEXT.Process(
        target=_child, args=([str(a) for a in arguments], point, str(log))
    )
    process.start()
    process.join(_LIMIT)
    if process.is_alive():
        process.kill()
        raise TimeoutError(f"{arguments} did not end within {_LIMIT} s")
    assert process.exitcode is not None
    return process.exitcode


def is_killed(arguments: list[Any], log: Any, point: str) -> bool:
    """Whether the failpoint was reached and killed the process."""
    return exit_code(arguments, log, point) == -signal.SIGKILL
