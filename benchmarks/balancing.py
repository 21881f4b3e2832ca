"""Balancers: what a step costs, and what it buys.

    python -m benchmarks.balancing --raw DIR --out DIR [--full] [--seeds N]
        [--parts cost kuairand simulated] [--balancers NAME ...] [--work DIR]
        [--minutes N] [--join DIR ...]

`cost`: KuaiRand's four tasks (click, long_view, like, profile_enter) in the shipped
MMoE, batches of 1,024 in memory. Each balancer runs in a process of its own, which then
trains the same model with Equal, step about: a ratio is of medians of the same process,
by the clock and by processor time. The latter decides: on busy cores the clock tells
more of the others. Peak memory is that of the process before Equal joins it, less that
of a process with Equal alone. Methods that can look at activations are measured both
ways.

`kuairand`: mean test AUC of the four tasks, train 04-25..28, validation 04-29, test
04-30, step chosen on the validation mean. `simulated`: click, like and buy of simulated
logs, whose tastes partly conflict. The controls are Equal and Fixed with weights tuned
on the validation split, one task's weight after another, by another seed.

Reduced: 2 epochs, histories of 10, 100,000 simulated rows in batches of 512, 1 seed.
Full: epochs, histories and batches as shipped, 200,000 rows, 5 seeds. The cost is
always that of the shipped model. Figures are kept as they come, and a call with the
same `--out` continues; calls side by side need one each, and `--join` makes their
trials one table.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.balancing_tables import Accuracy, cost_table
from benchmarks.provenance import provenance
from benchmarks.reproduction import note
from benchmarks.trials import (
    Document,
    Record,
    Study,
    arguments,
    make_dataset,
    origin,
    shipped,
    study,
)
from pipeline import preprocess
from tfmtl.adapters.simulate import simulate
from tfmtl.balance import BALANCERS, GradientConfig
from tfmtl.files import atomic_write

TASKS = {
    "kuairand": ("click", "long_view", "like", "profile_enter"),
    "simulated": ("click", "like", "buy"),
}
ROWS = {"full": 200_000, "reduced": 100_000}
REDUCED_EPOCHS, REDUCED_HISTORY = 2, 10
REDUCED_BATCH = 512  # of simulated rows, so that 2 epochs are steps enough
CONFIGS: dict[str, dict[str, Any]] = {
    "MetaBalance": {"target": "click"},
    "DWA": {"window": 50},
}
"""What a balancer needs beside its defaults."""
FACTORS = (0.3, 3.0)
TUNING_SEED = 100
TURNS, BATCHES = 21, 8


def base_document(data: str, full: bool) -> Document:
    """The shipped experiment with the study's tasks."""
    document = shipped(data)
    tasks = document["dataset"]["tasks"]
    chosen = [t for t in tasks if t["name"] in TASKS[data]]
    for task in chosen:
        if task["name"] == "buy":
            task["given"] = "click"  # the step between is not among these tasks
    document["dataset"]["tasks"] = chosen
    document["training"] |= {"monitor": "mean/auc", "patience": 2}
    if not full:
        document["training"]["epochs"] = REDUCED_EPOCHS
        if data == "simulated":
            document["training"]["batch_size"] = REDUCED_BATCH
        for feature in document["dataset"]["features"]:
            if feature["kind"] == "sequence":
                feature["max_length"] = min(feature["max_length"], REDUCED_HISTORY)
    return document


def with_balancer(base: Document, name: str, config: dict[str, Any]) -> Document:
    """The experiment with another balancer."""
    changed = copy.deepcopy(base)
    changed["balancer"] = {"class": name, "config": config}
    return changed


# === Cost ===


def variants(names: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """Each balancer, and with gradients at activations where it can."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name in names:
        config = dict(CONFIGS.get(name, {}))
        if name == "Fixed":
            config = {"weights": {"click": 2.0}}
        found.append((name, config))
        kind = BALANCERS[name].Config
        if name == "MGDA-UB" or not issubclass(kind, GradientConfig):
            continue
        if BALANCERS[name].protocol == "gradient weighting":
            whole = {"gradients": "representation", "granularity": "whole"}
            found.append((name, {**config, **whole}))
    return found


def measure_alone(file: pathlib.Path) -> None:
    """In a process of its own: the cost of one balancer, printed as JSON."""
    from tfmtl import build
    from tfmtl._keras import tf
    from tfmtl.schema.load import parse_experiment
    from tfmtl.schema.manifest import read_dataset

    asked = json.loads(file.read_text())
    dataset = pathlib.Path(asked["dataset"])
    manifest = read_dataset(dataset)
    experiment = parse_experiment(asked["document"])
    manifest = manifest.model_copy(update={"dataset": experiment.dataset})
    reader = build.make_reader(experiment, manifest, dataset, "train", train=True)
    taken = list(reader.epoch().take(BATCHES))
    stacked = tf.nest.map_structure(lambda *parts: tf.stack(parts), *taken)
    batches = tf.data.Dataset.from_tensor_slices(stacked).repeat()

    def runner(document: Document) -> Any:
        experiment = parse_experiment(document)
        iterator = iter(batches)
        model = build.make_model(experiment, manifest, dataset)
        trainer = build.make_trainer(experiment, model, 1_000, 50)

        def turn() -> tuple[float, float]:
            began, spent = time.perf_counter(), time.process_time()
            sums = trainer.train_chunk(iterator, tf.constant(1, tf.int64))
            assert int(sums.steps) == 1  # waits for it
            return time.perf_counter() - began, time.process_time() - spent

        for _ in range(3):
            turn()
        return turn

    own = runner(asked["document"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    equal = runner(with_balancer(asked["document"], "Equal", {}))
    pairs = [(own(), equal()) for _ in range(TURNS)]
    found = {"peak_mib": peak}
    for which, name in enumerate(("ms", "equal_ms")):
        for clock, kind in enumerate(("", "cpu_")):
            seconds = statistics.median(p[which][clock] for p in pairs)
            found[kind + name] = 1e3 * seconds
    print(json.dumps(found))


def costs(
    to: Study, options: argparse.Namespace, document: Document, dataset: pathlib.Path
) -> list[Record]:
    """The cost of every variant; those measured before are kept."""
    file = options.out / "balancing_cost.json"
    rows: list[Record] = json.loads(file.read_text()) if file.exists() else []
    for name, config in variants(options.balancers or list(BALANCERS)):
        if any((r["name"], r["config"]) == (name, config) for r in rows):
            continue
        if to.over:
            break
        asked = options.out / "asked.json"
        atomic_write(
            asked,
            json.dumps(
                {
                    "dataset": str(dataset),
                    "document": with_balancer(document, name, config),
                },
                default=str,
            ),
        )
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.balancing", "--alone", str(asked)],
            capture_output=True,
            text=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"},
        )
        row: Record = {"name": name, "config": config, **provenance()}
        if done.returncode == 0:
            row |= json.loads(done.stdout.splitlines()[-1])
        else:
            row["failed"] = (done.stderr.strip().splitlines() or ["?"])[-1][:200]
        note(json.dumps(row))
        rows.append(row)
        atomic_write(file, json.dumps(rows, indent=1))
    return rows


# === Accuracy ===


def tuned_weights(
    to: Study, data: str, base: Document, dataset: pathlib.Path
) -> dict[str, float] | None:
    """Weights by one pass over the tasks, each tried at `FACTORS` times its weight.

    The first task is the reference: a common factor is meaningless to Adam.

    Returns:
        Task to weight; None where there was no time for it.
    """
    weights = dict.fromkeys(TASKS[data], 1.0)

    def value(tried: dict[str, float]) -> float | None:
        document = with_balancer(base, "Fixed", {"weights": tried})
        trial = to.trial(f"{data}, tuning", "Fixed", document, dataset, TUNING_SEED)
        return trial["validation"] if trial and "failed" not in trial else None

    best = value(weights)
    if best is None:
        return None
    for task in TASKS[data][1:]:
        for factor in FACTORS:
            tried = {**weights, task: factor}
            found = value(tried)
            if found is None:
                return None
            if found > best:
                best, weights = found, tried
    return weights


def accuracy(
    to: Study,
    options: argparse.Namespace,
    data: str,
    base: Document,
    dataset: pathlib.Path,
) -> list[Record]:
    """Trials of every balancer, all with one seed before any with the next."""
    names = options.balancers or list(BALANCERS)
    weights = tuned_weights(to, data, base, dataset) if "Fixed" in names else None
    size = "full" if options.full else "reduced"
    found = []
    for seed in range(options.seeds or (5 if options.full else 1)):
        for name in names:
            config: dict[str, Any] = dict(CONFIGS.get(name, {}))
            if name == "Fixed":
                if weights is None:
                    continue
                config = {"weights": weights}
            document = with_balancer(base, name, config)
            trial = to.trial(f"{data}, {size}", name, document, dataset, seed)
            if trial is not None:
                found.append(trial | {"balancer": document["balancer"]})
    return found


def simulated_dataset(base: Document, work: pathlib.Path, size: str) -> pathlib.Path:
    """Simulated logs and their data set; those that are there are kept."""
    from tfmtl.schema.load import parse_experiment

    logs, dataset = work / f"balancing-logs-{size}", work / f"balancing-{size}"
    if not logs.exists():
        simulate(logs, rows=ROWS[size], seed=1)
    if not dataset.exists():
        pattern = str(logs / "logs" / "*.parquet")
        preprocess.run(parse_experiment(base), pattern, dataset)
    return dataset


def accuracy_texts(data: str, trials: Sequence[Record], size: str) -> list[str]:
    """What is told of one data set, paragraph by paragraph."""
    texts = [f"#### Mean test AUC, {data}, {size}"]
    if not trials:
        return [*texts, "No trial."]
    fixed = [t["balancer"]["config"] for t in trials if t["model"] == "Fixed"]
    if fixed:
        tuned = (f"{task} {weight:g}" for task, weight in fixed[0]["weights"].items())
        texts.append(f"Fixed, tuned on the validation split: {', '.join(tuned)}.")
    found = Accuracy(TASKS[data], trials)
    texts += [found.table(), "\n".join(found.findings())]
    return [*texts, f"{origin(trials)}."]


def main() -> None:
    """Measures; prints the tables."""
    if sys.argv[1:2] == ["--alone"]:
        measure_alone(pathlib.Path(sys.argv[2]))
        return
    parser = arguments(__doc__ or "", "1 reduced, 5 full")
    parts = ("cost", "kuairand", "simulated")
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--balancers", nargs="+", choices=list(BALANCERS))
    parser.add_argument(
        "--join", nargs="+", type=pathlib.Path, default=[], help="other calls' --out"
    )
    options = parser.parse_args()
    texts: list[str] = []
    with study(options, "balancing", intervals=False) as to:
        for folder in options.join:
            to.ledger.join(folder / "balancing.json")
        for part in options.parts:
            data = "simulated" if part == "simulated" else "kuairand"
            base = base_document(data, options.full or part == "cost")
            if data == "simulated":
                size = "full" if options.full else "reduced"
                dataset = simulated_dataset(base, to.work, size)
            else:
                raw = options.raw / "kuairand-pure"
                raw = raw if raw.is_dir() else options.raw
                dataset = make_dataset(base, data, raw, to.work)
            if part == "cost":
                rows = costs(to, options, base, dataset)
                texts += ["#### Cost of a step", cost_table(rows), f"{origin(rows)}."]
                continue
            trials = accuracy(to, options, data, base, dataset)
            texts += accuracy_texts(data, trials, "full" if options.full else "reduced")
        text = "\n\n".join(texts) + "\n"
        to.ledger.write(table=text)
    print(text, end="")


if __name__ == "__main__":
    main()
