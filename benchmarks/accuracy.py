"""Accuracy on real and simulated data, with the shipped experiments.

    python -m benchmarks.accuracy kuairand --raw DIR --work DIR [--seeds 5]
    python -m benchmarks.accuracy movielens-1m --raw DIR --work DIR [--seeds 3]
    python -m benchmarks.accuracy movielens-1m-time --raw DIR --work DIR [--seeds 3]
    python -m benchmarks.accuracy simulated --work DIR [--seeds 3] [--rows 1000000]

Each is the chain that a user types: prepare (or simulate), preprocess, train and
evaluate. Everything is chosen on the validation split; the test split is looked at once
a seed. For `simulated` a seed is a data set of its own, and the yardstick is the
generator's own functional form fitted to the same rows, `benchmarks.simulator_ceiling`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

from pipeline import preprocess
from tfmtl import workflow
from tfmtl.adapters import catalogue
from tfmtl.adapters.simulate import simulate
from tfmtl.schema.load import load_experiment, parse_experiment, read_document

REFIT = {"kuairand": True, "movielens-1m-time": True, "movielens-1m": False}
TARGETS = {
    "kuairand": {
        "click": 0.735,
        "long_view": 0.733,
        "like": 0.742,
        "profile_enter": 0.709,
    },
    "movielens-1m": {"high": 0.815},
    "movielens-1m-time": {"high": 0.757},
}


def real(
    name: str, raw: pathlib.Path, work: pathlib.Path, seeds: int
) -> list[dict[str, Any]]:
    """Test AUC of each task for each seed.

    Args:
        name: An experiment of the package.
        raw: The publisher's files.
        work: A folder for everything made on the way.
        seeds: How many, from 0.
    """
    adapter = name.removesuffix("-time")
    prepared, dataset = work / adapter, work / f"{name}-dataset"
    began = time.perf_counter()
    catalogue.prepare(adapter, raw, prepared, overwrite=True)
    file = work / f"{name}.yaml"
    file.write_text(catalogue.experiment_text(name))
    preprocess.run(
        load_experiment(file),
        str(prepared / "logs" / "*.parquet"),
        dataset,
        overwrite=True,
    )
    made = time.perf_counter() - began
    found = []
    for seed in range(seeds):
        began = time.perf_counter()
        experiment = load_experiment(file, [f"seed={seed}"])
        run = work / f"{name}-run-{seed}"
        result = workflow.train(
            experiment, dataset, run, overwrite=True, refit=REFIT[name]
        )
        report = workflow.evaluate(run, "test")
        found.append(
            {
                "seed": seed,
                "step": result.step,
                "validation": result.value,
                "mean_cell_auc": report["mean_cell_auc"],
                "prepare_seconds": round(made, 1),
                "train_seconds": round(time.perf_counter() - began, 1),
                **{task: values["auc"] for task, values in report["tasks"].items()},
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return found


def simulated(work: pathlib.Path, seeds: int, rows: int) -> list[dict[str, Any]]:
    """MMoE's and the generator form's share of the attainable gap, click in `feed`."""
    from benchmarks.simulator_ceiling import ceiling

    found = []
    for seed in range(1, seeds + 1):
        logs = work / f"simulated-{seed}"
        simulate(logs, rows=rows, seed=seed, overwrite=True)
        file = work / "simulated.yaml"
        file.write_text(catalogue.experiment_text("simulated"))
        experiment = parse_experiment(read_document(file))
        dataset, run = (
            work / f"simulated-{seed}-dataset",
            work / f"simulated-{seed}-run",
        )
        preprocess.run(
            experiment, str(logs / "logs" / "*.parquet"), dataset, overwrite=True
        )
        result = workflow.train(experiment, dataset, run, overwrite=True, refit=True)
        report = workflow.evaluate(run, "test")
        yardstick: Any = ceiling(logs, seed)
        bayes = yardstick["feed"]["bayes_auc"]
        auc = report["tasks"]["click"]["scenarios"]["feed"]["auc"]
        share = (auc - 0.5) / (bayes - 0.5)
        found.append(
            {
                "seed": seed,
                "step": result.step,
                "bayes": bayes,
                "auc": auc,
                "share": share,
                "form_share": yardstick["feed"]["fitted_share"],
                "means_share": yardstick["feed"]["means_share"],
                "ratio": share / yardstick["feed"]["fitted_share"],
            }
        )
        print(json.dumps(found[-1]), flush=True)
    return found


def summary(rows: Sequence[dict[str, Any]], targets: dict[str, float]) -> str:
    """Mean and standard deviation over seeds, beside the targets."""
    lines = []
    for name in rows[0]:
        values = [r[name] for r in rows if isinstance(r[name], float)]
        if len(values) != len(rows) or name.endswith("seconds"):
            continue
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        target = f"   target {targets[name]:.3f}" if name in targets else ""
        lines.append(f"{name:24s} {statistics.mean(values):.4f} ± {spread:.4f}{target}")
    return "\n".join(lines)


def main() -> None:
    """Runs one of them and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*REFIT, "simulated"])
    parser.add_argument("--raw", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.name == "simulated":
        rows = simulated(options.work, options.seeds, options.rows)
        print(summary(rows, {"ratio": 0.95}))
        return
    if options.raw is None:
        parser.error("--raw must name the folder of the publisher's files")
    rows = real(options.name, options.raw, options.work, options.seeds)
    print(summary(rows, TARGETS[options.name]))


if __name__ == "__main__":
    main()
