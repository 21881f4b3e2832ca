"""What the scripts that repeat a paper's finding share.

A simulated log and data sets of it, runs with every prediction kept, AUCs against true
probabilities, verdicts with their intervals, and the record of a result.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy import stats

from benchmarks.provenance import commit, provenance
from pipeline import preprocess
from tfmtl import workflow
from tfmtl.adapters import catalogue
from tfmtl.adapters.simulate import simulate
from tfmtl.adapters.simulator.bayes import rank_sum
from tfmtl.schema.load import load_experiment
from tfmtl.versions import versions

Columns = dict[str, np.ndarray]


def parser(doc: str | None, full: str) -> argparse.ArgumentParser:
    """The arguments that all these scripts take.

    Args:
        doc: The script's docstring; its first line is the description.
        full: What `--full` does.
    """
    found = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    found.add_argument("--full", action="store_true", help=full)
    found.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path(),
        help="where the figure and the JSON go",
    )
    return found


def simulated_options(
    doc: str | None, seeds: int, full_seeds: int
) -> argparse.Namespace:
    """The options of a study of one simulated log; its folder `out` is there.

    Args:
        doc: The script's docstring.
        seeds: By default.
        full_seeds: With `--full`.
    """
    full = f"a million rows, histories of 50, {full_seeds} seeds"
    arguments = parser(doc, full)
    arguments.add_argument("--rows", type=int, default=200_000)
    arguments.add_argument("--seeds", type=int, default=seeds)
    arguments.add_argument("--history", type=int, default=10)
    options = arguments.parse_args()
    if options.full:
        options.rows, options.seeds, options.history = 1_000_000, full_seeds, 50
    options.out.mkdir(parents=True, exist_ok=True)
    return options


def note(text: str) -> None:
    """Tells the progress, apart from the table on standard output."""
    print(text, file=sys.stderr, flush=True)


def record(out: pathlib.Path, name: str, content: dict[str, Any]) -> str:
    """Writes `<name>.json` with versions and commit; returns the table's last line."""
    now = commit()
    document = {**content, **provenance()}
    (out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    shown = ", ".join(f"{k} {v}" for k, v in versions().items())
    return f"Commit {now}; {shown}; {content['seconds']:.0f} s."


class Simulated:
    """A simulated log, and the data sets, runs and predictions made of it.

    Experiments are the shipped `simulated` with overrides.

    Args:
        work: A folder for everything made on the way.
        rows: Impressions of the log.
        seed: Of the log.
    """

    def __init__(self, work: pathlib.Path, rows: int, seed: int) -> None:
        self.work = work
        self.logs = work / "logs"
        simulate(self.logs, rows=rows, seed=seed, overwrite=True)
        self._file = work / "simulated.yaml"
        self._file.write_text(catalogue.experiment_text("simulated"))
        table = pq.read_table(self.logs / "truth.parquet")
        self.truth: Columns = {n: table[n].to_numpy() for n in table.column_names}
        log = pq.read_table(self.logs / "logs", columns=["request_id", "position"])
        self.log: Columns = {n: log[n].to_numpy() for n in log.column_names}

    def preprocess(self, name: str, overrides: Sequence[str]) -> pathlib.Path:
        """The data set of that name."""
        dataset = self.work / name
        preprocess.run(
            load_experiment(self._file, overrides),
            str(self.logs / "logs" / "*.parquet"),
            dataset,
            overwrite=True,
        )
        return dataset

    def train(
        self, name: str, dataset: pathlib.Path, overrides: Sequence[str]
    ) -> tuple[pathlib.Path, workflow.TrainResult]:
        """A run of that name, its best step chosen on the validation split."""
        run = self.work / name
        experiment = load_experiment(self._file, overrides)
        return run, workflow.train(experiment, dataset, run, overwrite=True)

    def predictions(self, run: pathlib.Path) -> Columns:
        """Keys, predictions and labels of the test split by column."""
        file = run / "test.parquet"
        workflow.evaluate(run, "test", predictions_file=file)
        table = pq.read_table(file)
        return {n: table[n].to_numpy() for n in table.column_names}


def expected_auc(score: np.ndarray, probability: np.ndarray) -> float:
    """The AUC of scores in expectation over labels drawn anew: no noise of labels.

    sum over i != j of p_i (1 - p_j) 1(s_i > s_j), over the sum of p_i (1 - p_j).

    Args:
        score: [N]; ties count half.
        probability: [N], the true ones.
    """
    other = 1.0 - probability
    (right,) = rank_sum(score.astype(np.float64), [(probability, other)])
    itself = float(probability @ other)
    pairs = float(probability.sum()) * float(other.sum()) - itself
    return (right - 0.5 * itself) / pairs


def share_of_bayes(score: np.ndarray, probability: np.ndarray) -> float:
    """Share of the attainable gap, (AUC - 0.5) / (Bayes AUC - 0.5), in expectation."""
    best = expected_auc(probability, probability)
    return (expected_auc(score, probability) - 0.5) / (best - 0.5)


def verdict(low: float, high: float) -> str:
    """By the interval of a difference that is reported to be above 0."""
    if low > 0:
        return "seen"
    return "not seen: the reverse" if high < 0 else "open"


def t_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """95 % t interval of a mean; infinite for one value."""
    if len(values) < 2:
        return -math.inf, math.inf
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1)
    at, half = float(np.mean(values)), float(half) / len(values) ** 0.5
    return at - half, at + half


def over_seeds(better: Sequence[float], worse: Sequence[float]) -> tuple[str, str]:
    """Compares two models seed by seed.

    Returns:
        The mean difference with its 95 % t interval over seeds, and the verdict on its
        being above 0.
    """
    difference = np.subtract(better, worse)
    low, high = t_interval(difference)
    text = f"{difference.mean():+.4f} (95 %: {low:+.4f} to {high:+.4f})"
    return text, verdict(low, high)


def plus_minus(values: Sequence[float], digits: int = 4) -> str:
    """Mean ± standard deviation over seeds; the mean alone of one."""
    text = f"{np.mean(values):.{digits}f}"
    if len(values) == 1:
        return text
    return f"{text} ± {np.std(values, ddof=1):.{digits}f}"
