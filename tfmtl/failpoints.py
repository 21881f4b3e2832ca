"""Named places where a test may kill the process, to prove what survives.

Set `TFMTL_FAILPOINT=name` (or `name:3` for the third time the place is reached) and the
process receives SIGKILL there, as if the machine had lost power.
"""

from __future__ import annotations

import os
import signal

_hits: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Kills the process if the environment names this place; else does nothing.

    Args:
        name: Name of the place, such as `checkpoint/before-rename`.
    """
    wanted = os.environ.get("TFMTL_FAILPOINT")
    if not wanted:
        return
    place, _, count = wanted.partition(":")
    if place != name:
        return
    _hits[name] = _hits.get(name, 0) + 1
    if _hits[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
