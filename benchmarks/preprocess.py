"""How fast the Beam job is: fixed start-up, then a million generated rows.

Prints one JSON line for each size: rows, seconds, rows/s, CPU seconds and peak RSS.
Each size runs in a process of its own, as a user would start it.

    python benchmarks/preprocess.py [--rows N ...] [--input FILE --experiment FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIMITS = {200: {"seconds": 15.0}, 1_000_000: {"seconds": 120.0, "rss_gib": 2.0}}
EXPERIMENT = {
    "name": "benchmark",
    "dataset": {
        "features": [
            {"name": "user_id", "kind": "categorical", "side": "user"},
            {"name": "movie_id", "kind": "categorical", "side": "item"},
            {"name": "gender", "kind": "categorical", "side": "user"},
            {"name": "occupation", "kind": "categorical", "side": "user"},
            {"name": "genres", "kind": "multivalent", "side": "item"},
            {"name": "age", "kind": "numeric"},
            {"name": "when", "kind": "time", "column": "timestamp"},
        ],
        "scenario": {"column": "age", "values": ["1", "18", "25", "35", "45", "50"]},
        "tasks": [
            {"name": "like", "label": "rating >= 4"},
            {"name": "love", "label": "rating == 5"},
        ],
        "keys": {"user": "user_id", "timestamp": "timestamp"},
        "split": {"by": "time", "validation": 0.1, "test": 0.2},
    },
    "model": {"class": "MMoE"},
}


def generate(rows: int, path: pathlib.Path) -> None:
    """Writes rows of the shape of MovieLens-1M."""
    random = np.random.default_rng(0)
    user = random.zipf(1.2, rows) % 6_040
    movie = random.zipf(1.2, rows) % 3_706
    counts = 1 + movie % 4
    flat = [f"genre {k}" for k in range(18)]
    genres = pa.array(flat).take(pa.array(random.integers(0, 18, counts.sum())))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    columns = {
        "user_id": user,
        "movie_id": movie,
        "gender": pa.array(["F", "M"]).take(pa.array(user % 2)),
        "occupation": user % 21,
        "genres": pa.ListArray.from_arrays(offsets, genres),
        "age": np.array([1, 18, 25, 35, 45, 50, 56])[user % 7],
        "timestamp": 956_700_000 + random.integers(0, 90_000_000, rows),
        "rating": random.integers(1, 6, rows),
    }
    pq.write_table(pa.table(columns), path, row_group_size=131_072)


def measure(experiment: pathlib.Path, source: pathlib.Path) -> dict[str, float]:
    """Runs the job once in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pipeline.preprocess", str(experiment)]
        command += ["--input", str(source), "--output", f"{folder}/dataset"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    rows = json.loads(done.stdout.splitlines()[-1])["written"]
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds),
        "cpu_seconds": round(used, 2),
        "rss_gib": round(after.ru_maxrss / 2**20, 3),
    }


def main() -> int:
    """Measures and prints; the exit code says whether every target is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 1_000_000])
    parser.add_argument("--input", type=pathlib.Path, help="your own file instead")
    parser.add_argument("--experiment", type=pathlib.Path)
    given = parser.parse_args()
    met = True
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        experiment = given.experiment or folder / "experiment.yaml"
        if given.experiment is None:
            experiment.write_text(yaml.safe_dump(EXPERIMENT))
        for rows in given.rows if given.input is None else [0]:
            source = given.input or folder / f"{rows}.parquet"
            if given.input is None:
                generate(rows, source)
            figures = measure(experiment, source)
            limits = LIMITS.get(rows, {})
            met &= all(figures[k] <= v for k, v in limits.items())
            sys.stdout.write(json.dumps({**figures, "targets": limits}) + "\n")
            sys.stdout.flush()
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
