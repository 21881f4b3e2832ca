"""Trials of models on one data set: made once, trained, tested once, written down.

What the studies that compare architectures on real data share. A trial is a model, a
seed and the settings of everything; its figures go into a JSON file as soon as it ends,
so that a study can be stopped, continued, given more seeds or run in parts. A trial of
other settings is another trial: it is never mixed into the same table.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import functools
import gc
import hashlib
import json
import pathlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from benchmarks.provenance import provenance
from benchmarks.reproduction import note
from pipeline import preprocess
from tfmtl import workflow
from tfmtl._keras import keras
from tfmtl.adapters import catalogue
from tfmtl.files import atomic_write
from tfmtl.models.cost import cost
from tfmtl.schema.load import parse_experiment
from tfmtl.training.loop import Interrupted
from tfmtl.workflow.restore import restore

Document = dict[str, Any]
Record = dict[str, Any]


def shipped(name: str) -> Document:
    """The experiment file of this name that the package ships, as a mapping."""
    document: Document = yaml.safe_load(catalogue.experiment_text(name))
    return document


def with_model(document: Document, name: str, config: Mapping[str, Any]) -> Document:
    """A copy with another architecture in it."""
    changed = copy.deepcopy(document)
    changed["model"] = {"class": name, "config": dict(config)}
    return changed


def settings_of(document: Document) -> str:
    """A short name of everything that an experiment says, but for its seed."""
    said = {key: value for key, value in document.items() if key != "seed"}
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_dataset(
    document: Document, adapter: str, raw: pathlib.Path, work: pathlib.Path
) -> pathlib.Path:
    """The dataset directory of an experiment; one that is there already is kept.

    Args:
        document: The experiment; of it only what records depend on counts.
        adapter: That reads the publisher's files.
        raw: Where they lie.
        work: For what is made on the way, and the data set.
    """
    experiment = parse_experiment(document)
    part = json.dumps(experiment.dataset.records_part(), sort_keys=True, default=str)
    name = hashlib.sha256(part.encode()).hexdigest()[:12]
    dataset = work / f"{experiment.name}-{name}"
    if not dataset.exists():
        prepared = work / adapter
        if not prepared.exists():
            catalogue.prepare(adapter, raw, prepared)
        preprocess.run(experiment, str(prepared / "logs" / "*.parquet"), dataset)
    return dataset


class Ledger:
    """The trials of a study, in a JSON file.

    Args:
        file: Read if it is there.
    """

    def __init__(self, file: pathlib.Path) -> None:
        self.file = file
        self.trials: list[Record] = []
        if file.exists():
            self.trials = json.loads(file.read_text())["trials"]

    def find(self, data: str, document: Document, seed: int) -> Record | None:
        """The trial of these settings, if there is one."""
        asked = (data, settings_of(document), seed)
        for trial in self.trials:
            if (trial["data"], trial["settings"], trial["seed"]) == asked:
                return trial
        return None

    def add(self, trial: Record) -> None:
        """Writes a trial down, in the place of an earlier one of the same settings."""
        key = ("data", "settings", "seed")
        self.trials = [t for t in self.trials if any(t[k] != trial[k] for k in key)]
        self.trials.append(trial)
        self.write()

    def join(self, file: pathlib.Path) -> None:
        """Takes in another ledger's trials, but for those that are here already."""
        for trial in Ledger(file).trials:
            key = ("data", "settings", "seed")
            if not any(all(t[k] == trial[k] for k in key) for t in self.trials):
                self.trials.append(trial)

    def write(self, **more: Any) -> None:
        """Writes all trials, and whatever else the study wants to keep."""
        atomic_write(self.file, json.dumps({**more, "trials": self.trials}, indent=1))


@dataclasses.dataclass(frozen=True)
class Study:
    """Where a study reads and writes.

    Attributes:
        ledger: Its trials.
        work: For runs.
        until: Monotonic time after which no trial begins; None is never.
        intervals: Whether intervals over users are drawn for each test AUC.
    """

    ledger: Ledger
    work: pathlib.Path
    until: float | None = None
    intervals: bool = True

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.until is not None and time.monotonic() > self.until

    def trial(
        self,
        data: str,
        label: str,
        document: Document,
        dataset: pathlib.Path,
        seed: int,
    ) -> Record | None:
        """Figures of one model and seed: those in the ledger, or new ones.

        A model that fails is written down with the reason, and tried again next time.

        Args:
            data: Name of the data.
            label: What the table calls the model.
            document: The experiment.
            dataset: The dataset directory.
            seed: Of everything.

        Returns:
            The trial, None where there was no time left for it.
        """
        found = self.ledger.find(data, document, seed)
        if found is not None and "failed" not in found:
            return found
        if self.over:
            return found
        trial: Record = {
            "data": data,
            "model": label,
            "seed": seed,
            "settings": settings_of(document),
            "config": document["model"]["config"],
            **_provenance(),
        }
        began = time.perf_counter()
        try:
            # A folder of this trial's own: calls side by side may share `work`.
            with tempfile.TemporaryDirectory(dir=self.work) as folder:
                run = pathlib.Path(folder) / "run"
                trial |= _figures(document, dataset, run, seed, self.intervals)
        except Interrupted:
            raise
        except Exception as error:  # a table names every model that it was asked for
            trial["failed"] = f"{type(error).__name__}: {str(error)[:300]}"
        trial["seconds"] = round(time.perf_counter() - began, 1)
        keras.backend.clear_session()
        gc.collect()
        self.ledger.add(trial)
        said = ("data", "model", "seed", "failed", "validation", "seconds")
        note(json.dumps({k: trial[k] for k in said if k in trial}))
        return trial


@functools.cache
def _provenance() -> dict[str, Any]:
    """Of the code as it was when the first trial of this process began."""
    return provenance()


def _figures(
    document: Document,
    dataset: pathlib.Path,
    run: pathlib.Path,
    seed: int,
    intervals: bool,
) -> Record:
    """Trains, chooses on the validation split, reads the test split once."""
    experiment = parse_experiment({**document, "seed": seed})
    result = workflow.train(experiment, dataset, run)
    resamples = {} if intervals else {"resamples": 0}
    report = workflow.evaluate(run, "test", **resamples)
    price = cost(restore(run).model)
    return {
        "validation": result.value,
        "step": result.step,
        "steps": result.steps,
        "reason": result.reason,
        "parameters": price.total,
        "dense_parameters": price.dense,
        "macs": price.macs,
        "mean_task_auc": report["mean_task_auc"],
        "mean_cell_auc": report["mean_cell_auc"],
        "tasks": {
            name: {
                **_cell(values),
                "scenarios": {s: _cell(v) for s, v in values["scenarios"].items()},
            }
            for name, values in report["tasks"].items()
        },
    }


def _cell(values: Mapping[str, Any]) -> Record:
    return {k: values[k] for k in ("auc", "auc_ci", "rows", "positives")}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def origin(trials: Sequence[Record]) -> str:
    """Commits and versions behind a table, in a line."""
    commits = sorted({t["commit"] for t in trials})
    versions = sorted({tuple(sorted(t["versions"].items())) for t in trials})
    listed = "; ".join(", ".join(f"{k} {v}" for k, v in one) for one in versions)
    return f"commit {', '.join(commits)}; {listed}"


def arguments(description: str, seeds: str) -> argparse.ArgumentParser:
    """The options that all such studies have.

    Args:
        description: Of the study.
        seeds: What `--seeds` says of its default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--raw", type=pathlib.Path, required=True, help="publishers' files"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path(), help="figure, JSON"
    )
    parser.add_argument(
        "--work",
        type=pathlib.Path,
        help="data sets and runs, kept for the next call; a passing folder if absent",
    )
    parser.add_argument("--full", action="store_true", help="the full size")
    parser.add_argument("--seeds", type=int, help=f"from 0; {seeds}")
    parser.add_argument("--models", nargs="+", help="only these")
    parser.add_argument(
        "--minutes",
        type=float,
        help="begin no trial after so many; call again for more",
    )
    return parser


@contextlib.contextmanager
def study(
    options: argparse.Namespace, name: str, *, intervals: bool = True
) -> Iterator[Study]:
    """A study with the options of `arguments`; its ledger is `<out>/<name>.json`."""
    options.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * options.minutes if options.minutes else None
    with tempfile.TemporaryDirectory() as passing:
        work = options.work or pathlib.Path(passing)
        work.mkdir(parents=True, exist_ok=True)
        yield Study(Ledger(options.out / f"{name}.json"), work, until, intervals)
