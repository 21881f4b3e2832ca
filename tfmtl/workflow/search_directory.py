"""The directory of a search: what was asked, and how far the search is."""

from __future__ import annotations

import json
import pathlib
import shutil
from collections.abc import Collection, Mapping
from typing import Any

from tfmtl.errors import ConfigError, DataError
from tfmtl.files import atomic_write, check_target, locked
from tfmtl.progress import Listener
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import dump_experiment
from tfmtl.training.rundir import EXPERIMENT
from tfmtl.tuning.records import (
    EARLIER,
    TRIALS,
    TrialRecord,
    read_records,
    set_aside,
)
from tfmtl.workflow.trials import RUNG

SEARCH = "search.json"
ORACLE = "oracle"
LOCK = "lock"
_SAME = {
    "space": "the space, or the experiment around it,",
    "schema_hash": "the data set's schema",
    "content_id": "the data set",
    "seed": "the experiment's `seed`",
}
"""Parts of what was asked that are one search's for good."""
_NOT_YET = {"finished": False, "ready": False, "over": False}


class SearchDirectory:
    """`search.json`, and the files beside it that say what is searched.

    Args:
        path: Of the directory.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Whether a search has begun here."""
        return (self.path / SEARCH).exists()

    @property
    def ready(self) -> bool:
        """Whether the chief knows what the bounds are, and has trials to give."""
        return self.exists and bool(self.asked().get("ready"))

    @property
    def over(self) -> bool:
        """Whether the chief has no more trials to give."""
        return self.exists and bool(self.asked().get("over"))

    def check_free(self) -> None:
        """Refuses a folder that a process is searching in, before it is changed.

        Raises:
            BlockingIOError: There is one.
        """
        if (self.path / LOCK).exists():
            with locked(self.path / LOCK, wait=False):
                pass

    def asked(self) -> dict[str, Any]:
        """What `search.json` holds.

        Raises:
            DataError: There is none, or it is damaged.
        """
        file = self.path / SEARCH
        try:
            document: dict[str, Any] = json.loads(file.read_text())
        except FileNotFoundError as error:
            raise DataError(
                f"{str(self.path)!r} is no search: it has no {SEARCH}"
            ) from error
        except ValueError as error:
            raise DataError(f"{str(file)!r} is damaged: {error}") from error
        return document

    def write(self, **changes: Any) -> None:
        """Changes what `search.json` holds."""
        self._replace({**self.asked(), **changes})

    def begin(
        self,
        experiment: Experiment,
        asked: Mapping[str, Any],
        *,
        resume: bool,
        overwrite: bool,
    ) -> None:
        """Makes the directory, or finds the search that is in it.

        Args:
            experiment: Has the space.
            asked: What makes a search the one that it is.
            resume: Continue one that is not finished.
            overwrite: Replace what the folder holds.

        Raises:
            ConfigError: The folder holds another search, or one that is not finished.
        """
        if overwrite or not self.exists:
            check_target(self.path, overwrite=overwrite)
            shutil.rmtree(self.path, ignore_errors=True)
            self.path.mkdir(parents=True)
            # First: a kill from here on leaves a search that can be resumed.
            self._replace({**asked, **_NOT_YET})
            atomic_write(self.path / EXPERIMENT, dump_experiment(experiment))
            return
        before = self.asked()
        self.check_same(asked)
        if not (resume or before.get("finished", False)):
            raise ConfigError(
                f"`directory` {str(self.path)!r} holds a search that is not finished: "
                "pass --resume to continue it, or --overwrite"
            )
        if before["oracle"] != asked["oracle"]:
            # Another oracle, goal or seed: it begins anew, and is told what is known.
            shutil.rmtree(self.path / ORACLE, ignore_errors=True)
        self._replace({**before, **asked, **_NOT_YET})
        atomic_write(self.path / EXPERIMENT, dump_experiment(experiment))

    def begin_anew(
        self, experiment: Experiment, asked: Mapping[str, Any], listener: Listener
    ) -> None:
        """Another search in the folder of one: its trials move to `earlier`.

        Those of an experiment that comes up again are not run again.

        Args:
            experiment: Has the space.
            asked: What makes a search the one that it is.
            listener: Told how many trials moved.
        """
        moved = [path.name for path in sorted((self.path / TRIALS).glob("*/"))]
        for name in moved:
            set_aside(self.path, name)
        listener.note(f"{len(moved)} trials of another space moved to {EARLIER}/")
        shutil.rmtree(self.path / ORACLE, ignore_errors=True)
        self._replace({**asked, **_NOT_YET})
        atomic_write(self.path / EXPERIMENT, dump_experiment(experiment))

    def check_same(self, asked: Mapping[str, Any]) -> None:
        """Refuses another search than the one that the folder holds.

        Raises:
            ConfigError: The space, the data or the seed differ.
        """
        before = self.asked()
        for key, what in _SAME.items():
            if before[key] != asked[key]:
                raise ConfigError(
                    f"`directory` {str(self.path)!r} holds a search, and {what} is not "
                    "the one of that search. Choose another folder, or pass --overwrite"
                )

    def keep_only(self, trials: Collection[str]) -> None:
        """Moves trials that are over and no part of this search to `earlier`."""
        for record in read_records(self.path):
            if record.trial not in trials:
                set_aside(self.path, record.trial)

    def known(self) -> list[TrialRecord]:
        """The trials to tell an oracle that begins anew; none where it has a state."""
        folder = self.path / ORACLE
        if (folder / "oracle.json").exists():
            return []
        # A kill may have left half of a state.
        shutil.rmtree(folder, ignore_errors=True)
        return [r for r in read_records(self.path) if r.reason != RUNG]

    def _replace(self, asked: Mapping[str, Any]) -> None:
        atomic_write(self.path / SEARCH, json.dumps(dict(asked), indent=1) + "\n")
