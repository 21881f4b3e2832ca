"""What a search finds: loss weights of conflicting tasks, and on a real log.

    python -m benchmarks.tuning --out DIR [--parts conflict kuairand] [--raw DIR]
        [--work DIR] [--seeds 5] [--trials 30] [--full]

`conflict`: three tasks that share one linear projection of twelve numbers to a single
one. Each follows a direction of its own (cosine 0.3 between any two), `a` weakly, `b`
and `c` strongly, so that equal weights leave `a` behind. Sought is the greatest AUC of
`a` that costs `c` no more than a stated loss (`BOUND`), of what Equal has over the
grid's seeds. The log-ratios of a's and c's weights to b's are tried on a 9 x 9 grid
with three training seeds; then Bayesian and random search have 30 trials each, for
several search seeds, each with its five best trained again on three more training
seeds, and the winners' weights are scored again on training seeds that no search saw,
as the grid's best are. Then several objectives: AUC of a, b and c, by hypervolume over
one reference point.

`kuairand`: loss weights and learning rates by group, searched with the shipped
experiment for four tasks; what that buys on test, over seeds, beside Equal and beside
the best of four gradient balancers, whose learning rates were searched with as many
trials. Reduced: at most two epochs. Full: epochs as shipped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import pathlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.balancing import base_document
from benchmarks.provenance import provenance
from benchmarks.reproduction import note, plus_minus
from benchmarks.trials import Document, make_dataset, table
from tfmtl import workflow
from tfmtl.files import atomic_write
from tfmtl.metrics.hypervolume import hypervolume
from tfmtl.progress import Silent
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.experiment import Experiment
from tfmtl.schema.load import parse_experiment
from tfmtl.schema.manifest import RecordColumn
from tfmtl.testing.records import write_records
from tfmtl.tuning.records import read_records
from tfmtl.workflow.session import Session

TASKS = ("a", "b", "c")
FEATURES = 12
COSINE = 0.3
"""Between the directions of any two tasks."""
STRENGTH = {"a": 1.0, "b": 2.0, "c": 1.6}
ROWS = {"train": 20_000, "validation": 20_000, "test": 2_000}
WEIGHT = {"min": 1 / 30, "max": 30.0}
"""Of a's and c's loss, where b's counts 1."""
GRID = 9
GRID_SEEDS = (0, 1, 2)
FRESH_SEEDS = (10, 11, 12)
BOUND = 0.03
"""So much of the AUC that `c` has under equal weights may be lost."""
REACH = 0.003
"""So much may a search end behind the grid."""
TRIALS = 30


@dataclasses.dataclass(frozen=True)
class Point:
    """Weights, and the means over seeds of the tasks' AUC on validation."""

    a: float
    c: float
    auc: dict[str, float]


# === The tasks that conflict ===


def conflict_spec() -> DatasetSpec:
    """A vector that is projected to one number, and three binary tasks."""
    return DatasetSpec.model_validate(
        {
            "features": [
                {"name": "x", "kind": "vector", "size": FEATURES, "project": 1}
            ],
            "tasks": [{"name": t, "label": t} for t in TASKS],
            "keys": {"row": "row"},
            "split": {"by": "hash", "column": "row"},
        }
    )


def write_conflict(folder: pathlib.Path) -> None:
    """The dataset directory of the three tasks."""
    columns = (
        RecordColumn(name="x", dtype="float", shape="vector", size=FEATURES),
        *(RecordColumn(name=f"label/{t}", dtype="float") for t in TASKS),
        RecordColumn(name="key/row", dtype="bytes"),
    )
    splits = {
        split: conflict_rows(rows, seed)
        for seed, (split, rows) in enumerate(ROWS.items())
    }
    folder.mkdir(parents=True)
    write_records(folder, conflict_spec(), columns, splits)


def conflict_rows(rows: int, seed: int) -> dict[str, Any]:
    """Features and labels; each task follows one direction."""
    draw = np.random.default_rng([7, seed])
    x = draw.normal(size=(rows, FEATURES)).astype(np.float32)
    axes, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(FEATURES, 3)))
    cosines = np.full((3, 3), COSINE) + (1.0 - COSINE) * np.eye(3)
    directions = np.linalg.cholesky(cosines) @ axes.T  # [3, F], of length 1
    found: dict[str, Any] = {"x": x}
    for task, direction in zip(TASKS, directions):
        logit = STRENGTH[task] * (x @ direction)
        found[f"label/{task}"] = (draw.random(rows) < 1 / (1 + np.exp(-logit))).astype(
            np.float32
        )
    found["key/row"] = [f"{seed}-{i}".encode() for i in range(rows)]
    return found


def conflict_experiment(
    weights: dict[str, float] | None = None,
    seed: int = 0,
    tuning: dict[str, Any] | None = None,
) -> Experiment:
    """Three tasks behind one number."""
    return Experiment.model_validate(
        {
            "name": "conflict",
            "seed": seed,
            "dataset": conflict_spec().model_dump(),
            "model": {
                "class": "SharedBottom",
                "config": {"bottom_units": [8], "tower_units": []},
            },
            "balancer": {"class": "Fixed", "config": {"weights": weights or {}}},
            "optimizers": {"default": {"class": "Adam", "learning_rate": 0.02}},
            "training": {
                "batch_size": 1000,
                "epochs": 8,
                "evaluate_every": 160,
                "monitor": "mean/auc",
                "patience": None,
                "diagnose_every": None,
            },
            "tuning": tuning,
        }
    )


class Scorer:
    """AUCs on validation of weights, kept in a file as they come."""

    def __init__(self, dataset: pathlib.Path, file: pathlib.Path) -> None:
        self._dataset = dataset
        self._file = file
        self._session = Session(keep=True)
        self._known: dict[str, dict[str, float]] = {}
        if file.exists():
            self._known = json.loads(file.read_text())

    def points(
        self, weights: Sequence[tuple[float, float]], seeds: Sequence[int]
    ) -> list[Point]:
        """Means over seeds; all of a seed before the next, to trace once a seed."""
        found: dict[tuple[float, float], list[dict[str, float]]] = {}
        for seed in seeds:
            for pair in weights:
                found.setdefault(pair, []).append(self._one(*pair, seed))
            atomic_write(self._file, json.dumps(self._known))
        return [
            Point(a, c, {t: statistics.mean(m[t] for m in found[a, c]) for t in TASKS})
            for a, c in weights
        ]

    def _one(self, a: float, c: float, seed: int) -> dict[str, float]:
        key = f"{a:.9g} {c:.9g} {seed}"
        if key not in self._known:
            experiment = conflict_experiment({"a": a, "c": c}, seed)
            with tempfile.TemporaryDirectory() as folder:
                run = pathlib.Path(folder) / "run"
                result = workflow.train(
                    experiment, self._dataset, run, session=self._session
                )
            self._known[key] = {t: result.metrics[f"{t}/auc"] for t in TASKS}
        return self._known[key]


def value(point: Point, bound: float, missing: float = 0.0) -> float:
    """The AUC of `a` where `c` keeps its bound; else minus what is missing.

    Args:
        point: Means over seeds.
        bound: Of the AUC of `c`.
        missing: By so much it may be missed.
    """
    short = bound - point.auc["c"]
    return point.auc["a"] if short <= missing else -short


def noise(scorer: Scorer) -> float:
    """What two means of `c` over three seeds each differ by, one standard deviation."""
    seeds = (*GRID_SEEDS, *FRESH_SEEDS)
    equal = [scorer.points([(1.0, 1.0)], [seed])[0].auc["c"] for seed in seeds]
    return statistics.stdev(equal) * math.sqrt(2 / 3)


def search_section(bound: float, **changes: Any) -> dict[str, Any]:
    """`tuning` of the search over two log-ratios, by the grid's own bound."""
    return {
        "space": {
            f"balancer.config.weights.{t}": {"type": "float", **WEIGHT}
            for t in ("a", "c")
        },
        "objective": "a/auc",
        "constraints": [f"c/auc >= {bound:.6f}"],
        "max_trials": TRIALS,
        "controls": [],
        "rival": {"trials": 0},
        "top": 5,
        "seeds": 3,
        **changes,
    }


def run_search(
    dataset: pathlib.Path, folder: pathlib.Path, tuning: dict[str, Any]
) -> dict[str, Any]:
    """The report of a search; what is there already is not run again."""
    experiment = conflict_experiment(tuning=tuning)
    began = time.perf_counter()
    report = workflow.tune(experiment, dataset, folder, resume=True)
    assert report is not None
    note(f"{folder.name}: {time.perf_counter() - began:.0f} s")
    return report


def conflict(out: pathlib.Path, work: pathlib.Path, seeds: int) -> str:
    """Grid, searches, and all of it scored again."""
    dataset = work / "conflict"
    if not dataset.exists():
        write_conflict(dataset)
    scorer = Scorer(dataset, out / "tuning_scores.json")
    (equal,) = scorer.points([(1.0, 1.0)], GRID_SEEDS)
    bound = equal.auc["c"] - BOUND
    ends = math.log(WEIGHT["min"]), math.log(WEIGHT["max"])
    steps = [math.exp(v) for v in np.linspace(*ends, GRID)]
    grid = scorer.points([(a, c) for a in steps for c in steps], GRID_SEEDS)
    best = sorted(grid, key=lambda p: value(p, bound), reverse=True)[:3]
    # Scored again, for the best of 81 is partly the luckiest.
    again = scorer.points([(p.a, p.c) for p in best], FRESH_SEEDS)
    fresh_equal, *_ = scorer.points([(1.0, 1.0)], FRESH_SEEDS)
    fresh, missing = fresh_equal.auc["c"] - BOUND, noise(scorer)
    again.sort(key=lambda p: value(p, fresh, missing), reverse=True)
    goal = value(again[0], fresh, missing)

    def row(label: str, points: Sequence[Point]) -> list[str]:
        return _row(label, points, [value(p, fresh, missing) for p in points], goal)

    lines = [
        row("Equal", [fresh_equal]),
        row(f"best of {GRID} x {GRID}, scored again", again[:1]),
    ]
    for oracle in ("bayesian", "random"):
        chosen = []
        for seed in range(seeds):
            section = search_section(bound, oracle=oracle, seed=seed)
            folder = work / f"search-{oracle}-{seed}"
            values = run_search(dataset, folder, section)["winner"]["values"]
            a, c = (values[f"balancer.config.weights.{t}"] for t in ("a", "c"))
            chosen.append((float(a), float(c)))
        scored = scorer.points(chosen, FRESH_SEEDS)
        lines.append(row(f"{oracle}, {TRIALS} trials", scored))
    head = ["weights", "AUC of a", "of b", "of c", "keep the bound"]
    head += ["behind the grid", f"by at most {REACH}"]
    said = (
        f"Bound: AUC of c >= {fresh:.4f}, which a mean over three seeds may miss by "
        f"{missing:.4f}, the noise of two such means. The grid's best is "
        f"{goal - value(fresh_equal, fresh):+.4f} of Equal."
    )
    return "\n\n".join([said, table(head, lines), fronts(dataset, work, seeds)])


def _row(
    label: str, points: Sequence[Point], values: Sequence[float], goal: float
) -> list[str]:
    behind = [goal - v for v in values]
    return [
        label,
        *(plus_minus([p.auc[t] for p in points]) for t in TASKS),
        f"{sum(v > 0 for v in values)} of {len(values)}",
        f"{statistics.mean(behind):+.4f}",
        f"{sum(b <= REACH for b in behind)} of {len(behind)}",
    ]


def fronts(dataset: pathlib.Path, work: pathlib.Path, seeds: int) -> str:
    """Hypervolumes of the fronts over all three tasks, by one reference point."""
    found: dict[str, list[Any]] = {}
    for oracle in ("bayesian", "random"):
        for seed in range(seeds):
            section = search_section(
                0.0,
                oracle=oracle,
                seed=seed,
                objective=[f"{t}/auc" for t in TASKS],
                constraints=[],
                seeds=0,
            )
            folder = work / f"front-{oracle}-{seed}"
            run_search(dataset, folder, section)
            records = read_records(folder)
            values = [[r.metrics[f"{t}/auc"] for t in TASKS] for r in records]
            found.setdefault(oracle, []).append(np.array(values))
    everything = np.concatenate([v for values in found.values() for v in values])
    reference = everything.min(axis=0) - 0.01
    volumes = {
        oracle: [hypervolume(v, reference) for v in values]
        for oracle, values in found.items()
    }
    lines = [
        [oracle, plus_minus([1e3 * v for v in values])]
        for oracle, values in volumes.items()
    ]
    return table(["front by", "hypervolume, thousandths"], lines)


# === A real log ===


class Notes(Silent):
    """Tells what a search notes, one line a trial."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A stage begins."""
        note(f"{name}: {total}")

    def note(self, text: str) -> None:
        """A trial is over."""
        note(text)


def kuairand(options: argparse.Namespace, work: pathlib.Path) -> str:
    """The shipped experiment with a search in it; its report."""
    raw = options.raw / "kuairand-pure"
    raw = raw if raw.is_dir() else options.raw
    document: Document = base_document("kuairand", options.full)
    dataset = make_dataset(document, "kuairand", raw, work)
    weight = {"type": "float", "min": 0.1, "max": 10.0}
    rate = {"type": "float", "min": 3e-4, "max": 5e-3, "scale": "log"}
    document["tuning"] = {
        "space": {
            **{
                f"balancer.config.weights.{t}": weight
                for t in ("long_view", "like", "profile_enter")
            },
            "optimizers.default.learning_rate": rate,
            "optimizers.embedding.learning_rate": rate,
        },
        "max_trials": options.trials,
        "top": 2,
        "seeds": options.seeds,
        "controls": ["Equal"],
    }
    began = time.perf_counter()
    folder = work / "search-kuairand"
    workflow.tune(
        parse_experiment(document), dataset, folder, resume=True, listener=Notes()
    )
    taken = time.perf_counter() - began
    return f"{taken / 60:.1f} minutes.\n\n{(folder / 'report.md').read_text()}"


def main() -> None:
    """Measures; prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("conflict", "kuairand")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--raw", type=pathlib.Path, help="publishers' files")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path())
    parser.add_argument("--work", type=pathlib.Path, help="kept for the next call")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=TRIALS, help="of `kuairand`")
    parser.add_argument("--full", action="store_true", help="the full size")
    options = parser.parse_args()
    if "kuairand" in options.parts and options.raw is None:
        parser.error("the part `kuairand` needs --raw")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as passing:
        work = options.work or pathlib.Path(passing)
        work.mkdir(parents=True, exist_ok=True)
        if "conflict" in options.parts:
            print(conflict(options.out, work, options.seeds))
        if "kuairand" in options.parts:
            print(kuairand(options, work))
    told = provenance()
    print(f"\nCommit {told['commit']}.")


if __name__ == "__main__":
    main()
