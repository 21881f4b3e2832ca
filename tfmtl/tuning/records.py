"""What is written down of each trial: `trial.json` in the trial's folder.

DIRECTORY/search.json        what was asked: space, oracle, goal, data set
DIRECTORY/experiment.yaml    the experiment as it is written, resolved
DIRECTORY/trials/0007/trial.json     the record, written last
DIRECTORY/trials/0007/run/           the trial's run directory
DIRECTORY/earlier/0002/              a trial whose name another search needed
DIRECTORY/seeds/0007/seed-3/         the same once more with another seed
DIRECTORY/controls/equal/seed-3/     and of the controls
DIRECTORY/oracle/            keras-tuner's own state
DIRECTORY/best.yaml, trials.parquet, report.json, report.md, plots/*.png
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from typing import Any, Literal

from tfmtl.errors import DataError
from tfmtl.files import atomic_write
from tfmtl.schema.experiment import Experiment

TRIALS = "trials"
EARLIER = "earlier"
"""Trials of an earlier search over the space whose names a later one needed."""
RECORD = "trial.json"
Status = Literal["finished", "pruned", "failed"]


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """A trial that came to its end.

    Attributes:
        trial: Its name, `0007`: trials are numbered in the order they began.
        values: Dotted path to value; of what is not active, nothing.
        status: `pruned`: stopped before its end, the metrics are those of its best step
            until then; `failed`: no usable metrics.
        reason: Why it ended (`epochs`, `patience`, `median`), or what failed.
        metrics: Validation metrics at the chosen step.
        step: The chosen step; 0 where it failed.
        steps: Steps done.
        seconds: Of training.
        seed: Of the trial's experiment.
        experiment: Hash of the trial's resolved experiment.
        reused: The trial whose run this one has, where an equal one was finished.
        worker: That ran it.
        epochs: What it was to be trained until; None: to the end.
    """

    trial: str
    values: dict[str, Any]
    status: Status
    reason: str
    metrics: dict[str, float]
    step: int
    steps: int
    seconds: float
    seed: int
    experiment: str
    reused: str | None = None
    worker: str = "tuner0"
    epochs: int | None = None

    @property
    def usable(self) -> bool:
        """Whether its metrics count."""
        return self.status != "failed"

    def write(self, folder: pathlib.Path) -> None:
        """Writes `trial.json`: from now on the trial is over."""
        text = json.dumps(dataclasses.asdict(self), indent=1)
        atomic_write(folder / RECORD, text + "\n")


def read_record(folder: pathlib.Path) -> TrialRecord | None:
    """The record of a trial; None where it is not over.

    Raises:
        DataError: The file is damaged.
    """
    path = folder / RECORD
    try:
        return TrialRecord(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DataError(f"{str(path)!r} is damaged: {error}") from error


def read_records(directory: pathlib.Path, part: str = TRIALS) -> list[TrialRecord]:
    """All trials of a search that are over, in the order they began.

    Args:
        directory: Of the search.
        part: `TRIALS` or `EARLIER`.
    """
    folders = sorted((directory / part).glob("*/"))
    found = [read_record(folder) for folder in folders]
    return [record for record in found if record is not None]


def set_aside(directory: pathlib.Path, trial: str) -> None:
    """Moves a trial of an earlier search to `EARLIER`, so that its name is free."""
    earlier = directory / EARLIER
    earlier.mkdir(exist_ok=True)
    while True:
        taken = [int(p.name) for p in earlier.iterdir() if p.name.isdecimal()]
        folder = earlier / f"{max(taken, default=-1) + 1:04d}"
        try:
            (directory / TRIALS / trial).rename(folder)
        except OSError:
            # Another worker took this number meanwhile.
            if not folder.exists():
                raise
        else:
            return


def hash_of(experiment: Experiment) -> str:
    """Of everything that an experiment says."""
    document = experiment.model_dump(mode="json", by_alias=True)
    text = json.dumps(document, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
