"""The run directory: what was asked, what happened, what came out.

experiment.yaml   the resolved experiment
run.json          data set, versions, machine
metrics.jsonl     one line an event: training means, validation metrics
checkpoints/      see `training.checkpoint`
tensorboard/      the same numbers for TensorBoard
result.json       written last: the chosen step and its metrics
refit/            the same once more, trained on train + validation
"""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

from tfmtl.errors import ConfigError, DataError
from tfmtl.files import atomic_write
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import dump_experiment, load_experiment

EXPERIMENT = "experiment.yaml"
RUN = "run.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"


class RunDirectory:
    """Reads and writes the files of one run.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        self.path = pathlib.Path(path)
        self.checkpoints = self.path / "checkpoints"

    @property
    def exists(self) -> bool:
        """Whether a run began here."""
        return (self.path / RUN).is_file()

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return (self.path / RESULT).is_file()

    def begin(self, experiment: Experiment, facts: dict[str, Any]) -> None:
        """Writes what was asked."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        atomic_write(self.path / EXPERIMENT, dump_experiment(experiment))
        atomic_write(self.path / RUN, json.dumps(facts, indent=1) + "\n")

    def experiment(self) -> Experiment:
        """The experiment of this run.

        Raises:
            DataError: The folder is no run directory, or a damaged one.
        """
        if not self.exists:
            raise DataError(
                f"`run` must be a run directory with a {RUN}. Received: "
                f"{str(self.path)!r}"
            )
        try:
            return load_experiment(self.path / EXPERIMENT)
        except ConfigError as error:
            raise DataError(
                f"the run {str(self.path)!r} is damaged: {error}"
            ) from error

    def facts(self) -> dict[str, Any]:
        """What `begin` was given."""
        return _read_json(self.path / RUN)

    def result(self) -> dict[str, Any]:
        """The result of a finished run.

        Raises:
            DataError: It is not finished.
        """
        if not self.finished:
            raise DataError(
                f"the run {str(self.path)!r} is not finished; continue it with "
                "`tfmtl train ... --resume`"
            )
        return _read_json(self.path / RESULT)

    def finish(self, result: dict[str, Any]) -> None:
        """Writes the result: from now on the run is whole."""
        atomic_write(self.path / RESULT, json.dumps(plain(result), indent=1) + "\n")

    def log(self, event: dict[str, Any]) -> int:
        """Appends one line to `metrics.jsonl`; returns the file's length."""
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps(plain(event)) + "\n")
            file.flush()
            return file.tell()

    def events(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`."""
        path = self.path / METRICS
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def metrics_at(self, step: int) -> dict[str, float]:
        """Validation metrics of a step; empty where it was not evaluated."""
        for event in self.events():
            if event["kind"] == "validation" and event["step"] == step:
                metrics: dict[str, float] = event["metrics"]
                return metrics
        return {}

    def cut_log(self, length: int) -> None:
        """Forgets the lines written after a checkpoint."""
        path = self.path / METRICS
        if path.exists():
            with path.open("r+b") as file:
                file.truncate(length)

    def check_same(
        self, experiment: Experiment, schema_hash: str, content_id: str = ""
    ) -> None:
        """Refuses to resume a run with another experiment or data set.

        Args:
            experiment: What is asked now.
            schema_hash: Of the data set.
            content_id: Of the data set; empty where it is not known.

        Raises:
            ConfigError: Something that matters differs; the message says what.
        """
        before = self.experiment().model_dump(mode="json", by_alias=True)
        now = experiment.model_dump(mode="json", by_alias=True)
        # What a search would try is no part of a run.
        now.pop("tuning")
        changed = sorted(k for k in now if now[k] != before.get(k))
        if changed:
            raise ConfigError(
                f"`--resume` continues a run as it was, but {changed} of the "
                "experiment changed. Undo the change, or start a new run directory"
            )
        if self.facts()["schema_hash"] != schema_hash:
            raise ConfigError(
                "`--resume` continues a run on its own data set; `dataset` is another "
                "one (its schema hash differs)"
            )
        if self.same_content(content_id) is False:
            raise ConfigError(
                "`--resume` continues a run on its own data set; `dataset` has the "
                "same schema, but other rows (its content id is "
                f"{content_id!r}, the run's {self.facts()['content_id']!r})"
            )

    def same_content(self, content_id: str) -> bool | None:
        """Whether the run's data set is the one with this content id.

        Returns:
            None where one of the two is not known.
        """
        known = self.facts().get("content_id", "")
        return known == content_id if known and content_id else None


def plain(value: Any) -> Any:
    """JSON values only: NaN and infinities become null, NumPy numbers plain ones."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} is missing or damaged: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{str(path)!r} is damaged: it must hold a mapping")
    return content
