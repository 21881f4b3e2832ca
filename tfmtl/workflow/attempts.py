"""How often a trial was begun by a process that ended without a word."""

from __future__ import annotations

import json
import pathlib
import time

from tfmtl.files import atomic_write

ATTEMPTS = "attempts.json"
MOST_ATTEMPTS = 3
"""So often is a trial begun without coming as far as its next checkpoint."""


class Attempts:
    """Counts kills between two checkpoints of a trial, and seconds of its processes.

    A trial that is killed for its memory never comes further; one on a machine that is
    taken away every hour does, and may be begun any number of times.

    Args:
        folder: Of the trial; its run lies in `run`.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._path = folder / ATTEMPTS
        self._reached = _reached(folder)
        self._before = 0
        self._began = time.monotonic()
        self._spent = 0.0
        if self._path.exists():
            known = json.loads(self._path.read_text())
            self._spent = known["spent"]
            if known["reached"] == self._reached:
                self._before = known["begun"]

    @classmethod
    def forget(cls, folder: pathlib.Path) -> None:
        """What was counted was another run in this folder."""
        (folder / ATTEMPTS).unlink(missing_ok=True)

    @property
    def seconds(self) -> float:
        """Of this process, and of others before that were not killed."""
        return self._spent + time.monotonic() - self._began

    @property
    def hopeless(self) -> bool:
        """Whether it is not to be begun again."""
        return self._before >= MOST_ATTEMPTS

    def begin(self) -> None:
        """Counts this process for one that is killed, until `end`."""
        self._write(self._before + 1, self._spent)

    def end(self) -> None:
        """This process was not killed."""
        self._write(self._before, self.seconds)

    def _write(self, begun: int, spent: float) -> None:
        text = json.dumps({"begun": begun, "reached": self._reached, "spent": spent})
        atomic_write(self._path, text + "\n")


def _reached(folder: pathlib.Path) -> int:
    """The step of the last checkpoint; 0 where there is none."""
    steps = [p.name.partition("-")[2] for p in folder.glob("run/checkpoints/step-*")]
    return max((int(step) for step in steps if step.isdecimal()), default=0)
